"""BLEU of notebook 12, taken from the notebook, equals nltk's and sacrebleu's."""

import ast
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu
from sacrebleu.metrics import BLEU

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {"ngrams", "largest_counts", "matches", "bleu"}


@pytest.fixture(scope="module")
def bleu():
    notebook = nbformat.read(ROOT / "notebooks" / "12_text_gan.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    found = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef) and node.name in NEEDED]
    assert {node.name for node in found} == NEEDED
    names = {"np": np}
    exec("from collections import Counter", names)
    exec(compile(ast.Module(found, []), "notebook", "exec"), names)
    return names["bleu"]


@pytest.fixture(scope="module")
def sentences():
    lines = (ROOT / "data" / "samples" / "captions.txt").read_text(encoding="utf-8").splitlines()
    return [line.replace(".", "").split() for line in lines]


def test_bleu_equals_nltk(bleu, sentences):
    written, references = sentences[:60], sentences[60:360]
    for n, value in enumerate(bleu(written, references, 4), 1):
        theirs = corpus_bleu([references] * len(written), written, weights=[1 / n] * n)
        assert value == pytest.approx(theirs, rel=1e-9)


def test_bleu_equals_sacrebleu(bleu, sentences):
    written, references = sentences[:60], sentences[60:360]
    streams = [[" ".join(reference)] * len(written) for reference in references]
    for n, value in enumerate(bleu(written, references, 4), 1):
        metric = BLEU(max_ngram_order=n, tokenize="none", force=True, smooth_method="none")
        theirs = metric.corpus_score([" ".join(words) for words in written], streams).score / 100
        assert value == pytest.approx(theirs, rel=1e-9)


def test_self_bleu_equals_nltk_against_all_others(bleu, sentences):
    written = sentences[:50] + sentences[:3]  # three stand twice
    others = [written[:i] + written[i + 1 :] for i in range(len(written))]
    for n, value in enumerate(bleu(written, None, 5), 1):
        theirs = corpus_bleu(others, written, weights=[1 / n] * n)
        assert value == pytest.approx(theirs, rel=1e-9)
