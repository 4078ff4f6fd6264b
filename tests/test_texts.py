"""The text loaders, and what `data/README.md` promises of the texts that ship."""

import re
from collections import defaultdict
from itertools import combinations

import helpers
import numpy as np
import pytest
from helpers import DataError, data, load_captions, load_imdb, load_sst2, session
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

SHARED = session.ROOT.parent / "shared" / "data"
REVIEWS = {"glue/sst2": load_sst2, "imdb_reviews/plain_text": load_imdb}


@pytest.fixture
def target(tmp_path, monkeypatch):
    """An empty folder for data, and servers that refuse."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name, (_, size) in data.SOURCES.items():
        monkeypatch.setitem(data.SOURCES, name, ("http://127.0.0.1:9/file", size))
    return tmp_path


@pytest.fixture
def tiny(target):
    """A small SST-2 and a small IMDB as TFDS prepares them."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    for name, config, key, splits in (
        ("glue", "sst2", "sentence", {"train": [1, 0, 1], "validation": [0, 1]}),
        ("imdb_reviews", "plain_text", "text", {"train": [1, 0], "test": [0], "unsupervised": [-1, -1]}),
    ):
        features = {key: tfds.features.Text(), "label": tfds.features.Scalar(np.int64)}
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            config=config,
            data_dir=target,
            features=tfds.features.FeaturesDict(features),
            split_datasets={
                split: tf.data.Dataset.from_tensor_slices(
                    {key: [f"a café<br />{split} {i} " for i in range(len(y))], "label": np.int64(y)}
                )
                for split, y in splits.items()
            },
        )
    return target


def three_grams(text):
    words = re.findall(r"[a-z0-9']+", text.lower())
    return set(zip(words, words[1:], words[2:]))


def near_duplicates(texts):
    """Pairs that share more than half of the word 3-grams of the shorter one."""
    grams, holders, shared = [three_grams(text) for text in texts], defaultdict(list), defaultdict(int)
    for i, found in enumerate(grams):
        for gram in found:
            holders[gram].append(i)
    for group in holders.values():
        for pair in combinations(group, 2):
            shared[pair] += 1
    return [(texts[i], texts[j]) for (i, j), n in shared.items() if n > 0.5 * min(len(grams[i]), len(grams[j]))]


# Wrong calls, missing and damaged data


@pytest.mark.parametrize("load", [load_sst2, load_imdb, load_captions])
def test_unknown_tier_lists_the_valid_ones(load):
    with pytest.raises(ValueError, match='"auto", "full" or "sample"'):
        load("small")


@pytest.mark.parametrize("load", [load_sst2, load_imdb, load_captions])
def test_full_that_cannot_be_had_says_what_to_do(load, target):
    with pytest.raises(DataError) as caught:
        load("full")
    for advice in (str(target), "data/README.md", 'data="sample"'):
        assert advice in str(caught.value)


@pytest.mark.parametrize("load", [load_sst2, load_imdb])
def test_dead_network_gives_the_sample(load, target, capsys):
    assert load().tier == "sample"
    out = capsys.readouterr().out
    assert "(sample), because" in out and "127.0.0.1:9 does not answer" in out
    assert "900 training and 300 test texts" in out


@pytest.mark.parametrize("name", REVIEWS)
def test_damaged_reviews_are_named_and_never_used(name, tiny):
    folder = data.prepared(name)
    shard = next(folder.glob("*train*"))
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(DataError, match="the train split in .* is damaged"):
        REVIEWS[name]()


@pytest.mark.parametrize("content", [b"", b"one line\n", b"\xff\xfe\x00" * 500])
def test_damaged_captions_are_named(content, target):
    (target / "coco_captions").mkdir()
    (target / "coco_captions" / "train.txt").write_bytes(content)
    (target / "coco_captions" / "test.txt").write_text("a dog .\n" * 200)
    with pytest.raises(DataError, match="train.txt is damaged"):
        load_captions()


# What they return


def test_prepared_reviews_are_read_as_written(tiny, capsys):
    sst2, imdb = load_sst2("full"), load_imdb("full")
    assert sorted(zip(sst2.x_train, sst2.y_train)) == [(f"a café train {i}", y) for i, y in enumerate([1, 0, 1])]
    assert sorted(zip(sst2.x_test, sst2.y_test)) == [("a café validation 0", 0), ("a café validation 1", 1)]
    assert sst2.y_train.dtype == np.int32 and sst2.unlabelled == []
    assert sorted(imdb.unlabelled) == ["a café unsupervised 0", "a café unsupervised 1"]
    assert imdb.tier == "full"
    assert "2 training and 1 test texts, and 2 without label" in capsys.readouterr().out


def test_captions_of_a_folder_are_cleaned(target, capsys):
    (target / "coco_captions").mkdir()
    for split in ("train", "test"):
        (target / "coco_captions" / f"{split}.txt").write_text(f" a  {split} dog . \n\n" * 150)
    train, test = load_captions()
    assert train == ["a train dog ."] * 150 and test == ["a test dog ."] * 150
    assert "COCO captions (full). 150 training and 150 test captions" in capsys.readouterr().out


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_full_tiers_are_the_published_ones(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(SHARED))
    sst2, captions = load_sst2("full"), load_captions("full")
    assert [len(part) for part in sst2[:5]] == [67_349, 67_349, 872, 872, 0]
    assert [len(part) for part in captions] == [10_000, 10_000]


# The texts that ship


def test_reviews_are_many_balanced_and_different():
    texts = load_sst2("sample")
    every = texts.x_train + texts.x_test
    assert len(every) == len({text.lower() for text in every}) >= 1_000
    assert texts.y_train.mean() == texts.y_test.mean() == 0.5
    assert near_duplicates(every) == []
    assert all(text.isascii() and text == text.strip() for text in every)
    lengths = [len(text.split()) for text in every]
    assert min(lengths) >= 3 and np.percentile(lengths, 25) < 10 and np.percentile(lengths, 75) > 18


def test_reviews_are_hard_but_not_hopeless_for_a_bag_of_words():
    texts = load_sst2("sample")
    bag = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1_000))
    held_out = bag.fit(texts.x_train, texts.y_train).score(texts.x_test, texts.y_test)
    every, labels = texts.x_train + texts.x_test, np.concatenate([texts.y_train, texts.y_test])
    five_fold = cross_val_score(bag, every, labels, cv=StratifiedKFold(5, shuffle=True, random_state=0)).mean()
    print(f"bag of words: {held_out:.1%} of the held-out reviews, {five_fold:.1%} in five-fold cross-validation")
    assert 0.6 < held_out < 0.8  # 300 reviews: a 95% interval of 5 points on each side
    assert 0.65 < five_fold < 0.8


def test_captions_are_many_and_different():
    train, test = load_captions("sample")
    every = train + test
    assert len(every) == len(set(every)) >= 1_500
    assert near_duplicates(every) == []
    assert all(text.isascii() and text == text.lower() and text.endswith(" .") for text in every)


def test_every_loader_is_public():
    assert {"load_captions", "load_imdb", "load_images", "load_sst2", "Texts"} <= set(helpers.__all__)
