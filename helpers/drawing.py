"""A pad to draw a digit on in JupyterLab; it needs no network."""

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import center_of_mass, shift

SIDE, PEN = 280, 24  # pixels of the pad and of the pen


def rasterise(strokes):
    """Draw strokes and prepare them as MNIST's digits were: 20×20 pixels, centre of mass at (14, 14) of 28×28.

    Args:
        strokes: list of strokes, each a list of (x, y) in pixels of the pad, y downwards.

    Returns:
        uint8 array (28, 28), ink is 255.

    Raises:
        ValueError: nothing is drawn.

    Source: the normalisation described in LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
    """
    large = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(large)
    for stroke in strokes:
        pen.line(stroke, fill=255, width=PEN, joint="curve")
        for x, y in stroke:
            pen.ellipse((x - PEN / 2, y - PEN / 2, x + PEN / 2, y + PEN / 2), fill=255)
    box = large.getbbox()
    if box is None:
        raise ValueError("the pad is empty: draw a digit on it first")
    digit = large.crop(box)
    scale = 20 / max(digit.size)
    digit = digit.resize([max(1, round(side * scale)) for side in digit.size], Image.Resampling.BOX)
    image = np.zeros((28, 28))
    image[4 : 4 + digit.height, 4 : 4 + digit.width] = np.asarray(digit)
    move = np.round(14 - np.array(center_of_mass(image)))
    return shift(image, move, order=0).astype("uint8")


class DrawingPad:
    """A canvas that collects strokes of the mouse or a finger; `image()` gives what is drawn as a 28×28 digit."""

    def __init__(self, strokes=()):
        """`strokes`: what is drawn at first, as for `rasterise`; the first new stroke replaces it."""
        from ipycanvas import Canvas

        self.strokes, self._fresh, self._down = [list(stroke) for stroke in strokes], True, False
        self.canvas = Canvas(width=SIDE, height=SIDE, layout={"border": "1px solid gray", "width": f"{SIDE}px"})
        self.canvas.line_width, self.canvas.line_cap, self.canvas.line_join = PEN, "round", "round"
        self.canvas.on_mouse_down(self._begin)
        self.canvas.on_mouse_move(self._extend)
        self.canvas.on_mouse_up(self._end)
        self.canvas.on_touch_start(lambda points: self._begin(*points[0]))
        self.canvas.on_touch_move(lambda points: self._extend(*points[0]))
        self.canvas.on_touch_end(lambda points: self._end(0, 0))
        for stroke in self.strokes:
            self.canvas.stroke_lines(stroke)

    def _begin(self, x, y):
        if self._fresh:
            self.clear()
        self._down = True
        self.strokes.append([(x, y)])

    def _extend(self, x, y):
        if self._down:
            self.canvas.stroke_line(*self.strokes[-1][-1], x, y)
            self.strokes[-1].append((x, y))

    def _end(self, x, y):
        self._down = False

    def clear(self):
        """Wipe the pad."""
        self.strokes, self._fresh = [], False
        self.canvas.clear()

    def image(self):
        """What is drawn, uint8 (28, 28); see `rasterise`."""
        return rasterise(self.strokes)
