"""One notebook run: `start` sets it up, `expect` checks its results, `attempt` checks an exercise."""

import math
import os
from collections import Counter
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import SimpleNamespace

import yaml

ROOT = Path(__file__).resolve().parent.parent
BANDS = ROOT / "notebooks" / "expected.yml"
MEASURE = "COURSE_MEASURE_BANDS"  # set by `make bands`: record results, do not judge them

current = SimpleNamespace(notebook=None, profile="default", tier="none")
_tries = Counter()


def start(notebook, seed, profile="default"):
    """Seed everything, set the look of figures, and say what this runs on.

    Args:
        notebook: file name without `.ipynb`, such as `"01_mnist_mlp"`; `expect` looks up its bands.
        seed: int, for Python, NumPy and the Keras backend.
        profile: the profile of `profiles.yml` that the parameters belong to, or `"custom"`.
    """
    import keras
    from helpers import figures

    current.notebook, current.profile, current.tier = notebook, profile, "none"
    _tries.clear()
    keras.utils.set_random_seed(seed)
    figures.set_style()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        _end_datasets_at_once(tf.data)
        backend = f"TensorFlow {tf.__version__}"
        device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    else:
        backend = f"the {keras.backend.backend()} backend"
        device = keras.distribution.list_devices()[0].split(":")[0].upper()
    print(f"Ready: Keras {keras.__version__} with {backend} on {device}, {os.cpu_count()} cores; seed {seed}.")


def _end_datasets_at_once(tf_data):
    """Switch off the tuning of tf.data, so that `fit` returns when its last step is done.

    The tuning thread of TensorFlow 2.21 sleeps up to as long as the dataset has been read, and its wake-up at the end
    is often lost on a busy machine: `fit` then waits for it. Trainings of 5.6 s took 10.3 s, those of 21 s took 41 s.
    """
    begin = tf_data.Dataset.__iter__
    if not hasattr(begin, "__wrapped__"):
        options = tf_data.Options()
        options.autotune.enabled = False
        tf_data.Dataset.__iter__ = wraps(begin)(lambda dataset: begin(dataset.with_options(options)))


def read_bands():
    """The measured bands as nested dicts: notebook, tier, profile, metric, then `low` and `high`."""
    return (yaml.safe_load(BANDS.read_text(encoding="utf-8")) or {}) if BANDS.exists() else {}


def note(text, **facts):
    """Print one line whose output also carries `facts` for the runner's report."""
    from IPython.display import display

    display({"text/plain": text}, raw=True, metadata={"course": facts})


def expect(metric, value, headline=False):
    """Show `value` beside the band measured for it over several seeds; fail outside the band.

    Args:
        metric: name of the result, such as `"test accuracy"`.
        value: a number.
        headline: True for the main result of a notebook, which the reports show; else the last one is.

    Raises:
        AssertionError: `value` is outside the band, or is not a finite number.
    """
    value = float(value)
    where = f"{current.tier} data, {current.profile} profile"
    band = read_bands().get(current.notebook, {}).get(current.tier, {}).get(current.profile, {}).get(metric)
    measuring = MEASURE in os.environ
    inside = math.isfinite(value) and (measuring or band is None or band["low"] <= value <= band["high"])
    text = f"{'✓' if inside else '✗'} {metric} = {value:.4g}"
    if band is None or measuring:
        text += f" (no band to compare with: {where})"
    else:
        text += f", {'inside' if inside else 'outside'} {band['low']:.4g} to {band['high']:.4g} ({where})"
    main = {"headline": True} if headline else {}
    note(text, metric=metric, value=value if math.isfinite(value) else None, **main)  # JSON has no NaN
    if not inside:
        raise AssertionError(
            f"{text}. The band was measured over several seeds. If you changed a parameter, "
            'set profile = "custom" beside it; if you did not, this run is not healthy.'
        )


@contextmanager
def attempt(exercise, hints=()):
    """Run an exercise's check and say how it went, never stopping the notebook.

    Args:
        exercise: its number, such as `"2.1"`.
        hints: texts, each more direct than the one before; every failed try shows the next.
    """
    try:
        yield
    except NotImplementedError:
        print(f"Exercise {exercise}: not attempted.")
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        wrong = " ".join(lines[:3]) or "the check failed."
        if not isinstance(error, AssertionError):
            wrong = f"your code stopped with {type(error).__name__}: {wrong}"
        print(f"Exercise {exercise}: not yet. {wrong}")
        if hints:
            print(f"Hint: {hints[min(_tries[exercise], len(hints) - 1)]}")
        _tries[exercise] += 1
    else:
        print(f"Exercise {exercise}: correct.")
