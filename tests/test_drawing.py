"""The drawing pad: what is drawn becomes an image as MNIST has them."""

import numpy as np
import pytest
from helpers.drawing import DrawingPad, rasterise
from scipy.ndimage import center_of_mass

ONE = [(140, 40), (140, 240)]


def test_an_empty_pad_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="draw a digit"):
        rasterise([])


@pytest.mark.parametrize("stroke", [ONE, [(20, 20), (60, 60)], [(250, 30), (250, 90), (200, 90)], [(5, 270)]])
def test_a_drawing_is_20_pixels_long_and_centred_as_mnist_wherever_it_was_drawn(stroke):
    image = rasterise([stroke])
    assert image.shape == (28, 28) and image.dtype == np.uint8 and image.max() > 200
    rows, columns = np.nonzero(image)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
    np.testing.assert_allclose(center_of_mass(image), (14, 14), atol=0.6)


def test_the_first_stroke_replaces_the_example_and_further_strokes_stay():
    pad = DrawingPad([ONE])
    np.testing.assert_array_equal(pad.image(), rasterise([ONE]))
    for x in (60, 200):
        pad._begin(x, 100)
        pad._extend(x, 180)
        pad._end(x, 180)
    pad._extend(0, 0)  # the mouse moves with its button up
    assert pad.strokes == [[(60, 100), (60, 180)], [(200, 100), (200, 180)]]
