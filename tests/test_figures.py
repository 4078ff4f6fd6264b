"""Figures carry their alternative text, and live training shows one figure."""

import base64
import io

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import LivePlot, figures, show
from PIL import Image


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    """What is displayed: (display or update, handle, bundle, metadata)."""
    calls = []

    class Handle:
        def display(self, data, raw, metadata):
            calls.append(("display", self, data, metadata))

        def update(self, data, raw, metadata):
            calls.append(("update", self, data, metadata))

    monkeypatch.setattr(figures, "DisplayHandle", Handle)
    yield calls
    plt.close("all")


@pytest.fixture
def drawn(monkeypatch):
    """The curves of each drawing: {panel: {label: y values}}."""
    drawings = []
    really_close = plt.close

    def close(figure):
        if figure != "all":
            drawings.append(
                {
                    axes.get_ylabel(): {line.get_label(): list(line.get_ydata()) for line in axes.lines}
                    for axes in figure.axes
                }
            )
        really_close(figure)

    monkeypatch.setattr(plt, "close", close)
    return drawings


@pytest.mark.parametrize("alt", ["", " \n"])
def test_show_refuses_a_figure_without_alternative_text(sent, alt):
    with pytest.raises(ValueError, match="alt"):
        show(plt.figure(), alt)
    assert sent == []


def test_live_plot_refuses_to_be_without_alternative_text():
    with pytest.raises(ValueError, match="alt"):
        LivePlot(alt="").add(loss=1)


def test_show_sends_png_and_html_with_the_text_escaped_and_closes(sent):
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.plot([1, 2])
    show(figure, 'loss < 1 & "falling"')
    [(how, _, data, metadata)] = sent
    assert how == "display"
    assert data["text/plain"] == 'loss < 1 & "falling"'
    assert 'alt="loss &lt; 1 &amp; &quot;falling&quot;"' in data["text/html"]
    assert data["image/png"] in data["text/html"]
    assert metadata == {"image/png": {"alt": 'loss < 1 & "falling"'}}
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == (400, 300)  # 100 pixels per inch
    assert plt.get_fignums() == []


def test_live_plot_in_a_loop_is_one_figure_that_updates(sent, drawn, monkeypatch):
    monkeypatch.setattr(figures, "DRAWING_SHARE", 1e9)
    live = LivePlot(alt="loss falls")
    for value in (3, 2, 1):
        live.add(loss=value, val_loss=value + 0.5)
    live.close()
    assert [call[0] for call in sent] == ["display", "update", "update", "update"]
    assert len({call[1] for call in sent}) == 1
    assert all(call[2]["text/plain"] == "loss falls" for call in sent)
    assert drawn[-1] == {"loss": {"training": [3, 2, 1], "validation": [3.5, 2.5, 1.5]}}
    assert live.history == {"loss": [3, 2, 1], "val_loss": [3.5, 2.5, 1.5]}
    assert plt.get_fignums() == []


def test_live_plot_spends_little_time_on_drawing(sent, drawn):
    live = LivePlot(alt="loss falls")
    for value in range(50):
        live.add(loss=value)
    assert len(sent) == 1
    live.close()
    assert len(sent) == 2
    assert drawn[-1] == {"loss": {"training": list(range(50))}}


def test_live_plot_closed_before_the_first_epoch_shows_nothing(sent):
    live = LivePlot(alt="loss falls")
    live.close()
    assert sent == []
    live.add(loss=1)
    assert len(sent) == 1


def test_live_plot_as_callback_follows_fit(sent, drawn, monkeypatch):
    monkeypatch.setattr(figures, "DRAWING_SHARE", 1e9)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse", metrics=["mae"], run_eagerly=True)
    live = LivePlot(alt="loss falls")
    x, y = np.ones((4, 2)), np.ones((4, 1))
    slower = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    fitted = model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=[slower, live])
    assert [call[0] for call in sent] == ["display", "update", "update"]
    assert live.history == fitted.history
    assert {panel: list(curves) for panel, curves in drawn[-1].items()} == {
        "loss": ["training", "validation"],
        "mae": ["training", "validation"],
    }
