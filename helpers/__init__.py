"""What the notebooks share and do not teach: run time, checks, figures, data."""

import os
import sys


def _import_keras_quietly():
    """TensorFlow's C++ libraries write notes to file descriptor 2 while they load; no setting stops all of them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


if "helpers.run" not in sys.orig_argv:  # the runner works in kernels, and itself starts at once without Keras
    _import_keras_quietly()

    from helpers.data import DataError, Images, Texts, load_captions, load_images, load_imdb, load_sst2
    from helpers.figures import LivePlot, show
    from helpers.presets import find_preset
    from helpers.session import attempt, expect, start

__all__ = [
    "DataError",
    "Images",
    "LivePlot",
    "Texts",
    "attempt",
    "expect",
    "find_preset",
    "load_captions",
    "load_images",
    "load_imdb",
    "load_sst2",
    "show",
    "start",
]
