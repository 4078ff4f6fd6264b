"""The image loader: what it says when data cannot be had or is damaged, then what it returns."""

import gzip
import hashlib
import http.server
import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import helpers
import numpy as np
import psutil
import pytest
from filelock import FileLock
from helpers import DataError, data, load_images, session

SHARED = session.ROOT.parent / "shared" / "data"
TRAIN, TEST = 20, 10  # images in the tiny MNIST


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A small MNIST as TFDS prepares it."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    draw = np.random.default_rng(0).integers
    splits = {
        name: tf.data.Dataset.from_tensor_slices(
            {"image": draw(0, 256, (size, 28, 28, 1), "uint8"), "label": draw(0, 10, size)}
        )
        for name, size in (("train", TRAIN), ("test", TEST))
    }
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    )
    root = tmp_path_factory.mktemp("tiny")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist", version="3.0.1", features=features, split_datasets=splits, data_dir=root
    )
    return root


@pytest.fixture
def target(tmp_path, monkeypatch):
    """An empty folder for data, and a server that refuses."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setitem(data.SOURCES, "mnist", ("http://127.0.0.1:9/file", 1000))
    return tmp_path / "data"


@pytest.fixture
def prepared(target, tiny):
    """A copy of the tiny MNIST that a test may damage."""
    shutil.copytree(tiny, target)
    return target / "mnist" / "3.0.1"


def in_time(call, seconds):  # limits are twice what an idle machine needs at most: notebooks run beside this
    begun = time.monotonic()
    result = call()
    assert time.monotonic() - begun < seconds
    return result


# Wrong calls, and no network


def test_unknown_tier_lists_the_valid_ones():
    with pytest.raises(ValueError, match='"auto", "full" or "sample"'):
        load_images("small")


def test_full_that_cannot_be_had_says_what_to_do(target):
    with pytest.raises(DataError) as caught:
        load_images("full")
    for advice in ("127.0.0.1:9", str(target), "network", "TFDS_DATA_DIR", "data/README.md", 'data="sample"'):
        assert advice in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/file", "http://no-such-host.invalid/file"])
def test_dead_network_gives_the_sample_in_time(target, monkeypatch, url):
    monkeypatch.setitem(data.SOURCES, "mnist", (url, 1000))
    assert in_time(lambda: load_images("auto"), 10).tier == "sample"


def test_silent_server_gives_the_sample_in_time(target, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setitem(data.SOURCES, "mnist", (f"http://127.0.0.1:{silent.getsockname()[1]}/file", 1000))
        assert in_time(lambda: load_images("auto"), 10).tier == "sample"
    assert "sample), because mnist is not prepared in" in capsys.readouterr().out


def test_name_lookup_that_hangs_gives_the_sample_in_time(target, monkeypatch):
    monkeypatch.setitem(data.SOURCES, "mnist", ("http://example.org/file", 1000))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(30) or [])
    assert in_time(lambda: load_images("auto"), 10).tier == "sample"


def test_server_that_speaks_no_http_is_no_answer(target, monkeypatch, capfd):
    def greet():
        client = garbage.accept()[0]
        client.recv(1000)
        client.sendall(b"SSH-2.0-OpenSSH\r\n")
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as garbage:
        threading.Thread(target=greet, daemon=True).start()
        monkeypatch.setitem(data.SOURCES, "mnist", (f"http://127.0.0.1:{garbage.getsockname()[1]}/file", 1000))
        with pytest.raises(DataError, match="does not answer"):
            data.download("mnist")
    assert "Traceback" not in capfd.readouterr().err


def test_relative_data_folder_is_found_from_a_notebook_too(target, tiny, monkeypatch):
    (target / "notebooks").mkdir(parents=True)
    shutil.copytree(tiny, target / "mine")
    monkeypatch.setattr(session, "ROOT", target)
    monkeypatch.setenv("TFDS_DATA_DIR", "mine")
    for folder in (target, target / "notebooks"):
        monkeypatch.chdir(folder)
        assert data.prepared("mnist") == target / "mine" / "mnist" / "3.0.1"


def test_without_a_setting_data_lies_in_the_course(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert data.data_dir() == session.ROOT / "data" / "downloads"


# Damaged data


def shard(folder, split="train"):
    return folder / f"mnist-{split}.tfrecord-00000-of-00001"


def truncate(folder):
    shard(folder).write_bytes(shard(folder).read_bytes()[:-100])


def flip_a_byte(folder):
    content = bytearray(shard(folder, "test").read_bytes())
    content[len(content) // 2] ^= 1
    shard(folder, "test").write_bytes(content)


def drop_last_record(folder):
    content, at = shard(folder).read_bytes(), 0
    while at < len(content):  # a record: length (8 bytes), its checksum (4), the example, its checksum (4)
        last, at = at, at + 16 + int.from_bytes(content[at : at + 8], "little")
    shard(folder).write_bytes(content[:last])


def repeat_first_record(folder):
    content = shard(folder, "test").read_bytes()
    first = content[: 16 + int.from_bytes(content[:8], "little")]
    shard(folder, "test").write_bytes(content + first)


def empty_file(folder):
    shard(folder).write_bytes(b"")


def missing_file(folder):
    shard(folder, "test").unlink()


def broken_info(folder):
    info = folder / "dataset_info.json"
    info.write_text(info.read_text()[:200])


def missing_info(folder):
    (folder / "dataset_info.json").unlink()


def no_split(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "splits": info["splits"][:1]}))


def broken_features(folder):
    (folder / "features.json").write_text("{")


DAMAGES = [
    truncate,
    flip_a_byte,
    drop_last_record,
    repeat_first_record,
    empty_file,
    missing_file,
    broken_info,
    missing_info,
    no_split,
    broken_features,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_data_is_named_and_never_used_or_replaced(prepared, damage):
    assert load_images("auto").tier == "full"
    damage(prepared)
    for tier in ("auto", "full"):
        with pytest.raises(DataError) as caught:
            load_images(tier)
        assert str(prepared) in str(caught.value)
        assert "Delete the folder" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert load_images("sample").tier == "sample"  # asked for by name, it needs no MNIST


# Download

SITE = """
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.image_classification import mnist

mnist._TRAIN_EXAMPLES, mnist._TEST_EXAMPLES = {train}, {test}
mnist.MNIST.URL = {url!r}
mnist.MNIST.url_infos = {{
    {url!r} + name: UrlInfo(size=size, checksum=checksum, filename=name) for name, size, checksum in {files}
}}
"""


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; `altered` ones differ from their checksum, and `stalled` ones stop half-way."""

    files, altered, stalled = {}, (), ()

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.files[self.path[1:]])))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        name = self.path[1:]
        content = self.files[name]
        if name in self.altered:
            content = content[::-1]
        if name in self.stalled:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            data.STALL_SECONDS = 2
            time.sleep(60)
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(target, tmp_path, monkeypatch):
    """A local server in the place of MNIST's, with a small MNIST; the downloading child is sent to it."""
    draw = np.random.default_rng(1).integers
    files = {}
    for split, size in (("train", TRAIN), ("t10k", TEST)):
        images, labels = draw(0, 256, (size, 784), "uint8"), draw(0, 10, size, "uint8")
        files[f"{split}-images-idx3-ubyte.gz"] = gzip.compress(bytes(16) + images.tobytes())
        files[f"{split}-labels-idx1-ubyte.gz"] = gzip.compress(bytes(8) + labels.tobytes())
    monkeypatch.setattr(data, "STALL_SECONDS", data.STALL_SECONDS)  # the server changes it; put it back
    handler = type("Handler", (Server,), {"files": files})
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    serving.daemon_threads, serving.block_on_close = True, False
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{serving.server_port}/"
    sums = [(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()]
    (tmp_path / "sitecustomize.py").write_text(SITE.format(train=TRAIN, test=TEST, url=url, files=sums))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    size = sum(len(content) for content in files.values())
    monkeypatch.setitem(data.SOURCES, "mnist", (url + "t10k-labels-idx1-ubyte.gz", size))
    yield handler
    serving.shutdown()
    serving.server_close()


def left_in(folder):
    return [path.name for path in folder.iterdir() if path.name != ".download.lock"]


def test_wrong_checksum_is_an_error_and_leaves_nothing(target, server):
    server.altered = list(server.files)
    with pytest.raises(DataError, match="checksum") as caught:
        load_images("full")
    assert "\n" not in str(caught.value)
    assert left_in(target) == []


def test_download_that_stands_still_is_stopped_and_leaves_nothing(target, server):
    server.stalled = ["train-images-idx3-ubyte.gz"]
    with pytest.raises(DataError, match="stopped at [1-9]"):
        in_time(lambda: data.download("mnist"), 40)
    assert left_in(target) == []


def test_download_that_takes_too_long_is_stopped(target, server):
    with pytest.raises(DataError, match="too slow"):
        in_time(lambda: data.download("mnist", limit=0.5), 15)
    assert left_in(target) == []


def test_interrupted_download_is_stopped_and_leaves_nothing(target, server, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_images("auto")
    assert left_in(target) == []
    assert not [child for child in psutil.Process().children() if "download_and_prepare" in " ".join(child.cmdline())]


def test_second_download_waits_for_the_first_and_uses_what_it_made(target, server, tiny):
    target.mkdir()
    with ThreadPoolExecutor() as pool:
        with FileLock(target / ".download.lock"):
            second = pool.submit(data.download, "mnist")
            time.sleep(1)
            assert not second.done()
            shutil.copytree(tiny, target, dirs_exist_ok=True)
        assert second.result(timeout=30) == target / "mnist" / "3.0.1"


def test_download_leaves_a_prepared_folder_and_nothing_else(target, server, monkeypatch):
    (target / ".part" / "mnist").mkdir(parents=True)  # what a killed download left
    (target / ".part" / "mnist" / "half").write_text("half")
    images = load_images("auto")
    assert images.tier == "full"
    files = [gzip.decompress(server.files[f"t10k-{name}-ubyte.gz"]) for name in ("images-idx3", "labels-idx1")]
    served = {(files[0][16 + 784 * i :][:784], files[1][8 + i]) for i in range(TEST)}
    assert {(x.tobytes(), y) for x, y in zip(images.x_test, images.y_test)} == served
    assert left_in(target) == ["mnist"]
    assert left_in(target / "mnist") == ["3.0.1"]
    monkeypatch.setitem(data.SOURCES, "mnist", ("http://127.0.0.1:9/file", 1000))
    assert load_images("full").tier == "full"  # no second download


def test_folder_that_cannot_be_written_is_an_error(target, server):
    target.write_text("a file stands where the folder should be")
    with pytest.raises(DataError, match="cannot be stored in"):
        load_images("full")
    assert load_images("auto").tier == "sample"


@pytest.mark.parametrize("name", data.SOURCES)
def test_sources_agree_with_tfds(name):
    import tensorflow_datasets as tfds

    (url, size), infos = data.SOURCES[name], tfds.builder_cls(name.split("/")[0]).url_infos
    assert url in infos
    assert size == (infos[url].size if name == "glue/sst2" else sum(info.size for info in infos.values()))


# What the loader returns


def assert_like_mnist(images):
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        assert (x.shape, x.dtype) == ((len(y), 28, 28), np.uint8)
        assert (y.shape, y.dtype) == ((len(x),), np.int32)
        assert (x.min(), x.max()) == (0, 255)
        assert sorted(set(y)) == list(range(10))


def test_sample_looks_like_mnist():
    images = load_images("sample")
    assert_like_mnist(images)
    assert (len(images.x_train), len(images.x_test), images.tier) == (1500, 297, "sample")
    assert images.x_train[:, :4].max() == images.x_train[:, :, -4:].max() == 0  # a margin of 4 pixels
    assert session.current.tier == "sample"


def test_sample_is_the_same_each_time_and_does_not_leak():
    first, second = load_images("sample"), load_images("sample")
    assert all(np.array_equal(a, b) for a, b in zip(first[:4], second[:4]))
    train, test = ({image.tobytes() for image in x} for x in (first.x_train, first.x_test))
    assert not train & test


def test_prepared_data_is_read_as_it_was_written(prepared, capsys):
    images = load_images("auto")
    assert (images.x_train.shape, images.x_test.shape) == ((TRAIN, 28, 28), (TEST, 28, 28))
    assert (images.y_train.dtype, images.tier, session.current.tier) == (np.int32, "full", "full")
    written = np.random.default_rng(0).integers(0, 256, (TRAIN, 784), "uint8")
    assert {x.tobytes() for x in images.x_train} == {x.tobytes() for x in written}
    assert "Data: MNIST (full). 20 training and 10 test images" in capsys.readouterr().out


@pytest.mark.skipif(not (SHARED / "mnist").exists(), reason="no prepared MNIST beside the course")
def test_full_tier_is_mnist(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(SHARED))
    images = load_images("full")
    assert_like_mnist(images)
    assert (len(images.x_train), len(images.x_test)) == (60_000, 10_000)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(images.y_train).tolist() == counts


def test_every_public_name_is_there():
    assert helpers.__all__ and all(hasattr(helpers, name) for name in helpers.__all__)
