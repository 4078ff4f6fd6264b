"""Datasets in three tiers: full and prepared, full and downloaded, or the sample that needs no network."""

import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from helpers import session

PROBE_SECONDS = 3  # how long a server may take to answer before we call it unreachable
STALL_SECONDS = 60  # how long a download may stand still before it is stopped

SOURCES = {  # what TFDS downloads: one address to ask whether its server answers, and the bytes in all
    "mnist": ("https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz", 11_594_722),
}


class DataError(RuntimeError):
    """Data that cannot be had, or that is damaged; the message says what to do."""


class Images(NamedTuple):
    """Grey images, uint8 (N, 28, 28), 0 to 255 (ink is 255), and labels, int32 (N,), 0 to 9."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    tier: str


def data_dir():
    """Folder of prepared datasets: `TFDS_DATA_DIR`, else `data/downloads` of the course."""
    chosen = os.environ.get("TFDS_DATA_DIR")
    if not chosen:
        return session.ROOT / "data" / "downloads"
    folder = Path(chosen).expanduser()
    if folder.is_absolute() or folder.is_dir():
        return folder.absolute()
    return session.ROOT / folder  # a notebook runs in its own folder, `make` in the course's


def prepared(name):
    """Folder of dataset `name` (as TFDS names it) where it is completely prepared, else None."""
    found = sorted((data_dir() / name).glob("*/dataset_info.json"))
    return found[-1].parent if found else None


def load_images(data="auto"):
    """MNIST, or scikit-learn's digits enlarged to the same size when MNIST cannot be had.

    Args:
        data: `"full"` (MNIST or an error), `"sample"` (scikit-learn's digits), or `"auto"` (MNIST when it is
            prepared or can be downloaded, else the sample).

    Returns:
        `Images`, with `tier` either `"full"` or `"sample"`.

    Raises:
        ValueError: `data` is none of these.
        DataError: MNIST is damaged, or was asked for and cannot be had.

    Source: LeCun, Cortes and Burges, The MNIST Database, 1998; Alpaydin and Kaynak, Optical Recognition of
    Handwritten Digits, 1998.
    """
    folder, reason = _locate("mnist", data)
    if folder:
        (x_train, y_train), (x_test, y_test) = (
            (x[..., 0], y.astype("int32")) for x, y in (read(folder, s, ("image", "label")) for s in ("train", "test"))
        )
        source = "MNIST (full)"
    else:
        x_train, y_train, x_test, y_test = _sample_digits()
        source = f"scikit-learn's digits (sample), because {reason}. Fewer images: expect lower accuracy"
    tier = session.current.tier = "full" if folder else "sample"
    session.note(f"Data: {source}. {len(x_train):,} training and {len(x_test):,} test images of 28×28 pixels.", tier=tier)
    return Images(x_train, y_train, x_test, y_test, tier)


def _locate(name, data):
    """(folder, None) of the full dataset, or (None, why the sample is used)."""
    if data not in ("auto", "full", "sample"):
        raise ValueError(f'data={data!r} is not a tier; choose "auto", "full" or "sample"')
    if data == "sample":
        return None, "the sample was asked for"
    try:
        return prepared(name) or download(name), None
    except DataError as error:
        if data == "full":
            raise DataError(
                f"{error}. Connect to the network, or set TFDS_DATA_DIR to a folder where {name} is prepared "
                '(see data/README.md), or use data="sample"'
            ) from None
        return None, str(error)


def read(folder, split, keys):
    """Arrays of one split of a prepared dataset, every record's checksum and their number verified.

    Args:
        folder: a prepared TFDS folder, such as `.../mnist/3.0.1`.
        split: `"train"`, `"test"`, ...
        keys: names of the features.

    Returns:
        A tuple of arrays, one per key, examples first.

    Raises:
        DataError: the files disagree with their checksums or with the number of examples on record.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    advice = f"Delete the folder {folder} and run again to download it anew, or put back a good copy"
    try:
        builder = tfds.builder_from_directory(folder)
        expected = builder.info.splits[split].num_examples
        examples = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
    except (tf.errors.OpError, AssertionError, KeyError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise DataError(f"the {split} split in {folder} is damaged ({type(error).__name__}: {first}). {advice}") from None
    found = len(examples[keys[0]])
    if found != expected:
        raise DataError(f"the {split} split in {folder} has {found:,} examples, not {expected:,}. {advice}")
    return tuple(examples[key] for key in keys)


def answers(url, seconds=PROBE_SECONDS):
    """Whether the server of `url` sends any answer within `seconds`, name lookup included."""
    heard = []

    def ask():
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # an error page is an answer too
        except (OSError, ValueError):
            return
        heard.append(True)

    # A name lookup cannot be given a time limit, so the thread is left behind when it hangs.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(heard)


def download(name, limit=1800):
    """Download and prepare a dataset with TFDS, which verifies checksums; nothing half-written is left.

    The work is done by a child process in a folder of its own, moved into place when complete.

    Args:
        name: as TFDS names it, such as `"mnist"`.
        limit: seconds for all of it; a download that stands still for `STALL_SECONDS` is stopped earlier.

    Returns:
        The prepared folder.

    Raises:
        DataError: no answer, not complete in time, or a checksum that does not agree.
    """
    url, size = SOURCES[name]
    target = data_dir()
    if not answers(url):
        raise DataError(f"{name} is not prepared in {target} and {url.split('/')[2]} does not answer")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / ".download.lock", timeout=limit):
            return prepared(name) or _fetch(name, target, size, limit)
    except OSError as error:
        raise DataError(f"{name} cannot be stored in {target}: {error}") from None


def _fetch(name, target, size, limit):
    from tqdm.auto import tqdm

    part = target / ".part"
    shutil.rmtree(part, ignore_errors=True)  # what a killed download left
    part.mkdir()
    code = "import sys, tensorflow_datasets as tfds; tfds.builder(sys.argv[1], data_dir=sys.argv[2]).download_and_prepare()"
    begun = moved = time.monotonic()
    seen = 0
    try:
        with (
            open(part / "log", "wb") as log,
            subprocess.Popen([sys.executable, "-c", code, name, str(part)], stdout=log, stderr=log) as child,
            tqdm(total=size, desc=f"downloading {name}", unit="B", unit_scale=True, leave=False) as bar,
        ):
            while child.poll() is None:
                time.sleep(0.2)
                now = time.monotonic()
                held = sum(f.stat().st_size for f in part.rglob("*") if f.is_file() and f.name != "log")
                if held > seen:
                    bar.update(min(held, size) - bar.n)
                    seen, moved = held, now
                if now - moved > STALL_SECONDS or now - begun > limit:
                    child.kill()
        made = sorted((part / name).glob("*/dataset_info.json"))
        if child.returncode or not made:
            last = (part / "log").read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
            why = last[0][:200] if child.returncode and child.returncode > 0 else f"no progress after {seen:,} bytes"
            raise DataError(f"the download of {name} did not succeed ({why})")
        final = target / made[-1].parent.relative_to(part)
        final.parent.mkdir(parents=True, exist_ok=True)
        return made[-1].parent.rename(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sample_digits():
    """scikit-learn's 1,797 digits as MNIST has them: 20×20 pixels of ink range 0 to 255, 4 pixels of margin.

    The images are ordered by writer, so the last 297 (test) come from hands that the first 1,500 hardly show.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    large = zoom(digits.images / 16 * 255, (1, 2.5, 2.5), order=1, grid_mode=True, mode="nearest")
    x = np.pad(np.clip(np.rint(large), 0, 255).astype("uint8"), ((0, 0), (4, 4), (4, 4)))
    y = digits.target.astype("int32")
    return x[:1500], y[:1500], x[1500:], y[1500:]
