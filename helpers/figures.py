"""Figures with alternative text, and a training display that updates in place."""

import base64
import html
import io
import time

import keras
import matplotlib.pyplot as plt
from IPython.display import DisplayHandle
from PIL import Image

DRAWING_SHARE = 0.05  # of the training time, that `LivePlot` may take
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # Okabe and Ito, 2008


def set_style():
    """Readable on a projector, and distinct for colour-blind readers."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.5, 4),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=COLOURS),
            "axes.grid": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.alpha": 0.3,
            "font.size": 12,
            "image.cmap": "gray_r",
            "legend.frameon": False,
        }
    )


def show(figure, alt, send=None):
    """Display a matplotlib figure once, with a text for those who cannot see it, and close it.

    Args:
        figure: a matplotlib `Figure`.
        alt: what the figure shows, in a sentence or two.
        send: where to display it, if not in a place of its own (see `LivePlot`).

    Raises:
        ValueError: `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs `alt`: a sentence that says what it shows")
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    image = Image.open(buffer).convert("RGB")
    image.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    png = base64.b64encode(small.getvalue()).decode()
    # As HTML too, because JupyterLab drops the alternative text of a bare PNG.
    tag = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}" style="max-width: 100%">'
    bundle = {"image/png": png, "text/html": tag, "text/plain": alt}
    (send or DisplayHandle().display)(bundle, raw=True, metadata={"image/png": {"alt": alt}})


class LivePlot(keras.callbacks.Callback):
    """Training curves in one figure that updates in place, for `fit` or for a loop of your own.

    Give it to `fit(callbacks=[...])`, or call `add(loss=..., val_loss=...)` once an epoch and `close()`
    at the end. A metric `m` and its `val_m` share one panel. `history` maps each metric to its values.
    """

    def __init__(self, alt):
        """`alt`: alternative text of the final figure."""
        super().__init__()
        self.alt = alt
        self.history, self._drawn, self._cost = {}, None, 0.0
        self._handle = DisplayHandle()

    def add(self, **metrics):
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))
        if self._drawn is None or DRAWING_SHARE * (time.monotonic() - self._drawn) >= self._cost:
            self._draw()

    def _draw(self):
        begun = time.monotonic()
        names = [name for name in self.history if not name.startswith("val_") and name != "learning_rate"]
        figure, panels = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3.2), squeeze=False)
        for panel, name in zip(panels[0], names):
            for key, label in ((name, "training"), (f"val_{name}", "validation")):
                if key in self.history:
                    values = self.history[key]
                    panel.plot(range(1, len(values) + 1), values, marker="." if len(values) < 30 else "", label=label)
            panel.set(xlabel="epoch", ylabel=name.replace("_", " "))
            panel.legend()
        show(figure, self.alt, self._handle.update if self._drawn else self._handle.display)
        self._drawn = time.monotonic()
        self._cost = self._drawn - begun

    def close(self):
        if self.history:
            self._draw()

    def on_epoch_end(self, epoch, logs=None):
        self.add(**(logs or {}))

    def on_train_end(self, logs=None):
        self.close()
