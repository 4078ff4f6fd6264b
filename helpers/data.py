"""Datasets in three tiers: full and prepared, full and downloaded, or the sample that needs no network."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from filelock import FileLock
from helpers import session

PROBE_SECONDS = 3  # how long a server may take to answer before we call it unreachable
STALL_SECONDS = 60  # how long a download may stand still before it is stopped

SAMPLES = session.ROOT / "data" / "samples"

SOURCES = {  # what TFDS downloads: one address to ask whether its server answers, and the bytes in all
    "mnist": ("https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz", 11_594_722),
    "glue/sst2": ("https://dl.fbaipublicfiles.com/glue/data/SST-2.zip", 7_439_277),
    "imdb_reviews/plain_text": ("http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz", 84_125_825),
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


class Texts(NamedTuple):
    """Lists of texts, and labels, int32 (N,): 1 favourable, 0 unfavourable. `unlabelled` may be empty."""

    x_train: list
    y_train: np.ndarray
    x_test: list
    y_test: np.ndarray
    unlabelled: list
    tier: str


def data_dir():
    """Folder of prepared datasets: `TFDS_DATA_DIR`, else `data/downloads` of the course."""
    folder = Path(os.environ.get("TFDS_DATA_DIR") or session.ROOT / "data" / "downloads").expanduser()
    # A relative folder: a notebook runs in its own folder, `make` in the course's.
    return folder.absolute() if folder.is_dir() else session.ROOT / folder


def prepared(name, root=None):
    """Folder of dataset `name` (as TFDS names it), which `read` still has to verify; None where there is none."""
    return max(((root or data_dir()) / name).glob("[0-9]*"), default=None)


def load_images(data="auto"):
    """MNIST (LeCun, Cortes and Burges, 1998), or when it cannot be had scikit-learn's digits at the same size.

    Args:
        data: `"full"` (MNIST or an error), `"sample"` (scikit-learn's digits), or `"auto"` (MNIST when it is
            prepared or can be downloaded, else the sample).

    Returns:
        `Images`, with `tier` either `"full"` or `"sample"`.

    Raises:
        ValueError: `data` is none of these.
        DataError: MNIST is damaged, or was asked for and cannot be had.
    """
    folder, reason = _locate("mnist", data)
    if folder:
        (x_train, y_train), (x_test, y_test) = (read(folder, split, ("image", "label")) for split in ("train", "test"))
        images = Images(x_train[..., 0], y_train.astype("int32"), x_test[..., 0], y_test.astype("int32"), "full")
        source = "MNIST (full)"
    else:
        images = _sample_digits()
        source = f"scikit-learn's digits (sample), because {reason}. Fewer images: expect lower accuracy"
    session.current.tier = images.tier
    sizes = f"{len(images.x_train):,} training and {len(images.x_test):,} test images of 28×28 pixels"
    session.note(f"Data: {source}. {sizes}.", tier=images.tier)
    return images


def load_sst2(data="auto"):
    """Sentences of film reviews with their sentiment: SST-2 (Socher et al., 2013; GLUE: Wang et al., 2019).

    The test labels of GLUE are not public: as usual, its validation split is what `x_test` holds. The sample is
    `data/samples/reviews.tsv`, written for this course. Arguments, errors: as `load_images`. Returns `Texts`.
    """
    return _load_reviews("glue/sst2", "SST-2", "sentence", ("train", "validation"), data)


def load_imdb(data="auto"):
    """Film reviews of several sentences, half of them without label: IMDB (Maas et al., 2011).

    The sample, arguments and errors are those of `load_sst2`. Returns `Texts`.
    """
    return _load_reviews("imdb_reviews/plain_text", "IMDB", "text", ("train", "test", "unsupervised"), data)


def _load_reviews(name, title, key, splits, data):
    folder, reason = _locate(name, data)
    if folder:
        parts = [read(folder, split, (key, "label")) for split in splits]
        texts = [[text.decode().replace("<br />", " ").strip() for text in part[0]] for part in parts]
        labels = [part[1].astype("int32") for part in parts]
        found = Texts(texts[0], labels[0], texts[1], labels[1], texts[2] if len(texts) > 2 else [], "full")
        source = f"{title} (full)"
    else:
        lines = (SAMPLES / "reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]
        rows = {"train": [], "test": []}
        for split, label, text in (line.split("\t") for line in lines):
            rows[split].append((text, int(label)))
        (x_train, y_train), (x_test, y_test) = (zip(*rows[split]) for split in ("train", "test"))
        found = Texts(list(x_train), np.int32(y_train), list(x_test), np.int32(y_test), [], "sample")
        source = f"the course's own review sentences (sample), because {reason}. Fewer texts: expect lower accuracy"
    session.current.tier = found.tier
    sizes = f"{len(found.x_train):,} training and {len(found.x_test):,} test texts"
    more = f", and {len(found.unlabelled):,} without label" if found.unlabelled else ""
    session.note(f"Data: {source}. {sizes}{more}.", tier=found.tier)
    return found


def load_captions(data="auto"):
    """One-line image captions, lower case: COCO's as selected by Texygen (Lin et al., 2014; Zhu et al., 2018).

    Full means the files `train.txt` and `test.txt` in the folder `coco_captions` beside the prepared datasets; they
    are not downloaded. The sample is `data/samples/captions.txt`, written for this course, its last tenth for testing.

    Returns:
        (training captions, test captions), two lists of str. Arguments and errors: as `load_images`.
    """
    folder = data_dir() / "coco_captions"
    files = [folder / "train.txt", folder / "test.txt"]
    missing = "the sample was asked for" if _valid_tier(data) == "sample" else None
    if not missing and not all(file.is_file() for file in files):
        missing = f"{folder} has no train.txt and test.txt"
        if data == "full":
            raise DataError(f'{missing}. Put the captions there, one a line (see data/README.md), or use data="sample"')
    if missing:
        lines = _lines(SAMPLES / "captions.txt")
        train, test = lines[: -len(lines) // 10], lines[-len(lines) // 10 :]
        source = f"the course's own captions (sample), because {missing}"
    else:
        train, test = (_lines(file) for file in files)
        source = "COCO captions (full)"
    session.current.tier = "sample" if missing else "full"
    text = f"Data: {source}. {len(train):,} training and {len(test):,} test captions."
    session.note(text, tier=session.current.tier)
    return train, test


def _lines(file):
    """The lines of a text file, without blank ones, spaces at the ends or doubled."""
    try:
        lines = [" ".join(line.split()) for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise DataError(f"{file} is damaged: it is not text in UTF-8. Put back a good copy") from None
    lines = [line for line in lines if line]
    if len(lines) < 100:
        raise DataError(f"{file} is damaged: it has {len(lines)} lines. Put back a good copy")
    return lines


def _valid_tier(data):
    if data not in ("auto", "full", "sample"):
        raise ValueError(f'data={data!r} is not a tier; choose "auto", "full" or "sample"')
    return data


def _locate(name, data):
    """(folder, None) of the full dataset, or (None, why the sample is used)."""
    if _valid_tier(data) == "sample":
        return None, "the sample was asked for"
    try:
        return prepared(name) or download(name), None
    except DataError as error:
        if data == "auto":
            return None, str(error)
        raise DataError(
            f"{error}. Connect to the network, or set TFDS_DATA_DIR to a folder where {name} is prepared "
            '(see data/README.md), or use data="sample"'
        ) from None


def read(folder, split, keys):
    """Arrays of the features `keys` of one split of a prepared TFDS folder, such as `.../mnist/3.0.1`.

    Raises:
        DataError: the files disagree with their checksums or with the number of examples on record.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        expected = builder.info.splits[split].num_examples
        examples = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        if len(examples[keys[0]]) != expected:
            raise ValueError(f"{len(examples[keys[0]]):,} examples, not {expected:,}")
        return tuple(examples[key] for key in keys)
    except Exception as error:  # a damaged file makes TFDS and TensorFlow raise errors of many kinds
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise DataError(
            f"the {split} split in {folder} is damaged ({type(error).__name__}: {first}). "
            f"Delete the folder {folder} and run again to download it anew, or put back a good copy"
        ) from None


def answers(url, seconds=PROBE_SECONDS):
    """Whether the server of `url` has the file and says so within `seconds`, name lookup included."""
    heard = []

    def ask():
        with contextlib.suppress(Exception):
            urllib.request.urlopen(url, timeout=seconds).close()
            heard.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # a name lookup that hangs cannot be stopped, only left
    asking.start()
    asking.join(seconds)
    return bool(heard)


def download(name, limit=1800):
    """Download a dataset with TFDS, which verifies checksums, and return its folder; nothing half-made is left.

    A child process works in a folder of its own, which is moved into place when complete. The child is stopped
    after `limit` seconds, or when it stands still for `STALL_SECONDS`.

    Raises:
        DataError: no answer, not complete in time, no room, or a checksum that does not agree.
    """
    url, size = SOURCES[name]
    target = data_dir()
    part = target / ".part"
    if not answers(url):
        raise DataError(f"{name} is not prepared in {target} and {url.split('/')[2]} does not answer")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / ".download.lock", timeout=limit):
            if prepared(name):  # by the process that we waited for
                return prepared(name)
            shutil.rmtree(part, ignore_errors=True)  # what a killed download left
            part.mkdir()
            try:
                made = _fetch(name, part, size, limit)
                final = target / made.relative_to(part)
                final.parent.mkdir(parents=True, exist_ok=True)
                return made.rename(final)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{name} cannot be stored in {target}: {error}") from None


def _fetch(name, part, size, limit):
    """Prepare a dataset in the folder `part`, with a progress bar, and return its folder there."""
    from tqdm.auto import tqdm

    code = "import sys, tensorflow_datasets as t; t.builder(sys.argv[1], data_dir=sys.argv[2]).download_and_prepare()"
    begun = moved = time.monotonic()
    done, stopped = (0, 0), False  # bytes on disk, seconds of work
    with tempfile.TemporaryFile() as log, tqdm(total=size, desc=name, unit="B", unit_scale=True, leave=False) as bar:
        child = subprocess.Popen([sys.executable, "-c", code, name, str(part)], stdout=log, stderr=log)
        try:
            while child.poll() is None and not stopped:
                time.sleep(0.2)
                now = time.monotonic()
                with contextlib.suppress(OSError, psutil.Error):  # TFDS moves files while we count
                    held = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
                    if done != (done := (held, int(psutil.Process(child.pid).cpu_times().user))):
                        moved = now
                    bar.update(min(held, size) - bar.n)
                stopped = now - moved > STALL_SECONDS or now - begun > limit
        finally:
            child.kill()
            child.wait()
        log.seek(0)
        errors = [line for line in log.read().decode(errors="replace").splitlines() if "Error" in line]
    if stopped:
        raise DataError(f"the download of {name} stood still or was too slow, and was stopped at {done[0]:,} bytes")
    if child.returncode:
        raise DataError(f"the download of {name} did not succeed ({''.join(errors[-1:])[:300]})")
    return prepared(name, part)


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
    return Images(x[:1500], y[:1500], x[1500:], y[1500:], "sample")
