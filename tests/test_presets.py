"""Which BERT a notebook gets: what happens when the hub refuses, is silent or sends damage, then the good cases."""

import re
import shutil
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import helpers
import kagglehub
import numpy as np
import pytest
import yaml
from helpers import find_preset, presets, run
from huggingface_hub import constants

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import second_stage

NAME = "bert_tiny_en_uncased"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "good"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A very small preset."""
    import keras_hub

    backbone = keras_hub.models.BertBackbone(len(VOCABULARY), 1, 1, 4, 8, max_sequence_length=8)
    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=VOCABULARY)
    folder = tmp_path_factory.mktemp("tiny") / "preset"
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=8)
    keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=preprocessor).save_to_preset(folder)
    return folder


class Answer(BaseHTTPRequestHandler):
    """A server that is there."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    serving = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


@pytest.fixture
def course(tmp_path, tiny, monkeypatch):
    """A course that ships the very small preset, and caches and hubs that are not the real ones."""
    shutil.copytree(tiny, tmp_path / "presets" / presets.SHIPPED)
    monkeypatch.setattr(presets, "PRESETS", tmp_path / "presets")
    monkeypatch.setattr(presets, "HUBS", dict.fromkeys(presets.HUBS, "http://127.0.0.1:9/file"))
    monkeypatch.setattr(kagglehub.config, "get_cache_folder", lambda: str(tmp_path / "kaggle"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path


@pytest.fixture
def hub(course, server, tiny, monkeypatch):
    """A hub that answers; returns its client's cache, which serves what lies there and downloads what does not."""
    monkeypatch.setattr(presets, "HUBS", dict.fromkeys(presets.HUBS, server))
    cache = course / "kaggle" / "models" / "keras" / "bert" / "keras" / NAME / "3"

    damage = {"do": lambda file: None}

    def download(handle, path):
        if not (tiny / path).exists():
            raise ValueError(f"{path} is not present in the model files")
        (cache / path).parent.mkdir(parents=True, exist_ok=True)
        if not (cache / path).exists():
            shutil.copy(tiny / path, cache / path)
            damage["do"](cache / path)
        return str(cache / path)

    monkeypatch.setattr(kagglehub, "model_download", download)
    return cache, damage


def in_time(name, seconds=20):
    begun = time.monotonic()
    found = find_preset(name)
    assert time.monotonic() - begun < seconds
    return found


def assert_shipped(found, course, printed, *words):
    assert found == str(course / "presets" / presets.SHIPPED)
    assert len(printed.splitlines()) == 1
    assert all(word in printed for word in words), printed


# No hub


@pytest.mark.parametrize("name", [NAME, "hf://someone/bert", "kaggle://someone/bert/keras/bert"])
def test_refused(course, capsys, name):
    assert_shipped(in_time(name), course, capsys.readouterr().out, name, "127.0.0.1:9 does not answer")


def test_silent(course, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        monkeypatch.setattr(presets, "HUBS", dict.fromkeys(presets.HUBS, url))
        assert_shipped(in_time(NAME), course, capsys.readouterr().out, "does not answer")


def test_name_lookup_that_hangs(course, capsys, monkeypatch):
    monkeypatch.setattr(presets, "HUBS", dict.fromkeys(presets.HUBS, "http://example.org/file"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(30) or [])
    assert_shipped(in_time(NAME), course, capsys.readouterr().out, "example.org does not answer")


# A hub that sends damage


def cut(name, share=0.5):
    def do(file):
        if file.name == name:
            content = file.read_bytes()
            file.write_bytes(content[: int(share * len(content))])

    return do


@pytest.mark.parametrize("name", ["model.weights.h5", "config.json", "tokenizer.json", "vocabulary.txt"])
def test_truncated_file_is_not_kept(hub, course, capsys, name):
    cache, damage = hub
    damage["do"] = cut(name)
    assert_shipped(in_time(NAME), course, capsys.readouterr().out, "cannot be had")
    assert not cache.exists() and cache.parent.parent.exists()
    damage["do"] = lambda file: None
    assert in_time(NAME) == NAME


def test_download_that_breaks_off_is_not_kept(hub, course, capsys):
    cache, damage = hub

    def stop(file):
        if file.suffix == ".h5":
            raise ConnectionError("the connection was closed")

    damage["do"] = stop
    assert_shipped(in_time(NAME), course, capsys.readouterr().out, "ConnectionError: the connection was closed")
    assert not cache.exists()


def test_empty_weights(hub, course, capsys):
    hub[1]["do"] = cut("model.weights.h5", share=0)
    assert_shipped(in_time(NAME), course, capsys.readouterr().out, NAME)


# Names


def test_unknown_name_lists_what_there_is(course):
    with pytest.raises(ValueError) as caught:
        in_time("bert_reviewz")
    for known in ("bert_reviewz", presets.SHIPPED, NAME, "hf://owner/model"):
        assert known in str(caught.value)


@pytest.mark.parametrize(
    "name", ["kaggle://", "kaggle://keras", "kaggle://keras/bert/../..", "hf://owner/", "ftp://a/b"]
)
def test_half_a_name_deletes_nothing_from_the_cache(hub, course, name):
    other = course / "kaggle" / "models" / "keras" / "another.h5"
    other.parent.mkdir(parents=True)
    other.write_text("precious")
    with pytest.raises(ValueError, match="no preset"):
        find_preset(name)
    assert other.exists()


def test_shipped_preset_is_a_folder_and_needs_no_network(course, capsys):
    assert find_preset(presets.SHIPPED) == str(course / "presets" / presets.SHIPPED)
    assert capsys.readouterr().out == ""


def test_preset_of_a_hub_that_works(hub, course, capsys):
    assert in_time(NAME) == NAME
    assert "cannot be had" not in capsys.readouterr().out


# What ships


def test_shipped_presets_are_small_and_have_a_card():
    files = [file for file in presets.PRESETS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 16_000_000
    card = (presets.PRESETS / "README.md").read_text(encoding="utf-8")
    assert all(f"## {folder.name}\n" in card for folder in presets.PRESETS.iterdir() if folder.is_dir())


def test_card_says_what_the_log_says():
    first, second = (presets.PRESETS / "README.md").read_text(encoding="utf-8").split("## bert_reviews_rated")
    log = np.genfromtxt(presets.PRESETS / presets.SHIPPED / "training_log.csv", delimiter=",", names=True)
    assert np.array_equal(log["epoch"], np.arange(32))  # a line for 500 steps, each once, 16,000 in all
    millions = (log["epoch"] + 1) * 500 * 64 * 62 / 1e6
    said = re.findall(r"(\d\.\d\d) after (\d+)", first.split("**Held-out loss**")[1])
    assert len(said) == 7
    for loss, after in said:
        assert loss == f"{log['val_loss'][np.abs(millions - int(after)).argmin()]:.2f}"
    last = log["val_loss"][-1]
    assert f"**{last:.2f}** at the end (perplexity {np.exp(last):.0f})" in first
    rated = np.genfromtxt(presets.PRESETS / "bert_reviews_rated" / "training_log.csv", delimiter=",", names=True)
    assert re.findall(r"(\d\d\.\d)%", second) == [f"{100 * accuracy:.1f}" for accuracy in rated["val_accuracy"]]


def test_full_profile_of_08_is_the_recipe():
    full = yaml.safe_load((run.NOTEBOOKS / "profiles.yml").read_text())["full"]["08_pretraining"]
    log = np.genfromtxt(presets.PRESETS / presets.SHIPPED / "training_log.csv", delimiter=",", names=True)
    assert (full["start"], full["steps"], full["warmup_steps"]) == ("prepared", 16_000, 200)
    assert full["steps"] == len(log) * full["log_every"]
    starts = np.genfromtxt(presets.PRESETS / presets.SHIPPED / "starts.csv", delimiter=",", names=True)
    assert starts.dtype.names == ("pieces", "plain", "kernels", "embeddings", "prepared")
    shipped = log["val_loss"][[0, 1]], starts["prepared"][[9, 19]]  # after 500 and 1,000 steps
    np.testing.assert_allclose(*shipped, atol=0.1)  # the same recipe, on another day


def test_shipped_preset_reads_the_context():
    from keras_hub.models import BertMaskedLM, BertTokenizer

    folder = find_preset(presets.SHIPPED)
    model, tokenizer = BertMaskedLM.from_preset(folder, preprocessor=None), BertTokenizer.from_preset(folder)
    assert tokenizer.vocabulary_size() == model.backbone.vocabulary_size == 8000

    def best_guesses(sentence):
        left, right = (list(map(int, tokenizer(part))) for part in sentence.split("[MASK]"))
        ids = np.array([[tokenizer.cls_token_id, *left, tokenizer.mask_token_id, *right, tokenizer.sep_token_id]])
        given = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
        logits = np.array(model({**given, "mask_positions": np.array([[len(left) + 1]])}))[0, 0]
        return {tokenizer.id_to_token(int(i)) for i in np.argsort(-logits)[:5]}

    assert "recommend" in best_guesses("i would [MASK] this film to anyone .")
    assert {"worst", "best"} <= best_guesses("this is one of the [MASK] movies i have ever seen .")


def test_rated_preset_has_the_same_pieces_and_other_weights():
    from keras_hub.models import BertBackbone, BertTokenizer

    folders = [find_preset(name) for name in (presets.SHIPPED, "bert_reviews_rated")]
    assert len({tuple(BertTokenizer.from_preset(folder).get_vocabulary()) for folder in folders}) == 1
    tables = [BertBackbone.from_preset(folder).token_embedding.embeddings.numpy() for folder in folders]
    assert tables[0].shape == tables[1].shape and not np.allclose(*tables)


# The tool that makes the rated preset


def test_rows_of_the_second_stage():
    from keras_hub.models import BertTokenizer

    tokenizer = BertTokenizer.from_preset(find_preset(presets.SHIPPED))
    texts = helpers.load_sst2("sample").x_train
    texts = [f"{one} {other}" for one, other in zip(texts, texts[1:])]
    texts = [text for text in texts if len(tokenizer(text)) <= 62]
    rows, ratings = second_stage.rows_and_ratings(texts, range(len(texts)), tokenizer)
    assert rows.dtype == ratings.dtype == np.int32 and rows.shape == (len(ratings), 64) and len(rows) > 500
    for row, i in zip(rows, ratings):
        pieces = [int(piece) for piece in tokenizer(texts[i])]  # KerasHub's own, so the two tokenisers must agree
        assert 16 <= len(pieces) <= 62
        assert row.tolist() == [2, *pieces, 3] + [0] * (62 - len(pieces))
    rows, ratings = second_stage.rows_and_ratings(
        ["film " * (62 + 16), "film " * (62 + 15), "film"], [1, 0, 1], tokenizer
    )
    assert np.count_nonzero(rows, axis=1).tolist() == [64, 18, 64] and ratings.tolist() == [1, 1, 0]


def test_second_stage_keeps_a_folder_that_is_there(tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(SystemExit):
        second_stage.main(["--output", str(tmp_path)])
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"


def test_second_stage_writes_a_preset(tmp_path, monkeypatch):
    from keras_hub.models import BertBackbone

    sample = helpers.load_sst2("sample")
    texts = [f"{one} {other}" for one, other in zip(sample.x_train, sample.x_train[1:])] * 3
    imdb = helpers.Texts(texts, np.tile(sample.y_train[:-1], 3), [], np.array([]), [], "full")
    monkeypatch.setattr(helpers, "load_imdb", lambda data: imdb)
    (tmp_path / "new.unfinished").mkdir()  # of a run that was killed
    (tmp_path / "new.unfinished" / "half").touch()
    second_stage.main(["--output", str(tmp_path / "new")])
    assert [folder.name for folder in tmp_path.iterdir()] == ["new"] and not (tmp_path / "new" / "half").exists()
    assert len((tmp_path / "new" / "training_log.csv").read_text().splitlines()) == 3
    found, before = (BertBackbone.from_preset(str(f)) for f in (tmp_path / "new", find_preset(presets.SHIPPED)))
    assert not np.allclose(found.token_embedding.embeddings, before.token_embedding.embeddings)
