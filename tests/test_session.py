"""`start`, `expect` and `attempt`: failures first, then what they say and leave for the report."""

import math

import keras
import nbformat
import numpy as np
import pytest
import tensorflow as tf
import yaml
from helpers import attempt, expect, run, session, start


@pytest.fixture(autouse=True)
def notes(monkeypatch, tmp_path):
    """A notebook with one band (0.9 to 0.95), and what is displayed in it: (text, facts)."""
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, raw, metadata: shown.append((data["text/plain"], metadata["course"]))
    )
    monkeypatch.delenv(session.MEASURE, raising=False)
    band = {"low": 0.9, "high": 0.95}
    bands = {"01_x": {"sample": {"default": {"test accuracy": band}}}}
    (tmp_path / "expected.yml").write_text(yaml.safe_dump(bands))
    monkeypatch.setattr(session, "BANDS", tmp_path / "expected.yml")
    for name, value in (("notebook", "01_x"), ("profile", "default"), ("tier", "sample")):
        monkeypatch.setattr(session.current, name, value)
    session._tries.clear()
    return shown


# expect


@pytest.mark.parametrize("value", [0.89, 0.96, float("nan"), float("inf")])
def test_expect_fails_outside_the_band_and_still_reports(notes, value):
    with pytest.raises(AssertionError, match='outside 0.9 to 0.95.*profile = "custom"'):
        expect("test accuracy", value)
    text, facts = notes[0]
    assert text.startswith("✗ test accuracy = ")
    assert facts == {"metric": "test accuracy", "value": value if math.isfinite(value) else None}


def test_expect_fails_without_a_finite_number_even_where_there_is_no_band(notes):
    with pytest.raises(AssertionError, match="✗ loss = nan"):
        expect("loss", float("nan"))


@pytest.mark.parametrize("value", [0.9, 0.95, np.float32(0.93)])
def test_expect_inside_the_band_shows_it(notes, value):
    expect("test accuracy", value)
    text = f"✓ test accuracy = {value:.4g}, inside 0.9 to 0.95 (sample data, default profile)"
    assert notes == [(text, {"metric": "test accuracy", "value": float(value)})]


def test_expect_without_a_band_judges_nothing(notes):
    expect("other metric", 7)
    session.current.profile = "custom"
    expect("test accuracy", 0.1)
    assert notes[0][0] == "✓ other metric = 7 (no band to compare with: sample data, default profile)"
    assert notes[1][0] == "✓ test accuracy = 0.1 (no band to compare with: sample data, custom profile)"


@pytest.mark.parametrize("content", [None, ""])
def test_expect_without_a_band_file_judges_nothing(notes, content):
    session.BANDS.unlink() if content is None else session.BANDS.write_text(content)
    expect("test accuracy", 0.1)
    assert "no band" in notes[0][0]


def test_measuring_mode_records_and_does_not_judge(notes, monkeypatch):
    monkeypatch.setenv(session.MEASURE, "1")
    expect("test accuracy", 0.1)
    assert notes[0][1] == {"metric": "test accuracy", "value": 0.1}
    with pytest.raises(AssertionError):
        expect("test accuracy", float("nan"))


@pytest.mark.parametrize("marked, main", [(True, "test accuracy"), (False, "loss")])
def test_the_runner_reads_what_a_notebook_notes(notes, marked, main):
    session.note("Data: ...", tier="sample")
    expect("test accuracy", 0.91)
    expect("test accuracy", 0.92, headline=marked)
    expect("loss", 3)
    outputs = [nbformat.v4.new_output("display_data", {}, metadata={"course": facts}) for _, facts in notes]
    cells = [nbformat.v4.new_code_cell(outputs=outputs), nbformat.v4.new_markdown_cell("text")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert run.results_of(notebook) == ("sample", {"test accuracy": 0.92, "loss": 3.0}, main)


# attempt


def said(capsys, error, hints=()):
    with attempt("2.1", hints=hints):
        if error:
            raise error
    return capsys.readouterr().out.splitlines()


def test_only_interrupting_the_kernel_stops_the_notebook(capsys):
    for error in (SystemError(), RecursionError(), AssertionError()):
        assert len(said(capsys, error)) == 1
    with pytest.raises(KeyboardInterrupt), attempt("2.1"):
        raise KeyboardInterrupt


def test_stub_is_not_attempted_and_gets_no_hint(capsys):
    assert said(capsys, NotImplementedError(), ["a hint"]) == ["Exercise 2.1: not attempted."]


def test_wrong_answer_shows_the_message_of_its_check(capsys):
    assert said(capsys, AssertionError("the sign is wrong")) == ["Exercise 2.1: not yet. the sign is wrong"]
    assert said(capsys, AssertionError()) == ["Exercise 2.1: not yet. the check failed."]


def test_long_messages_are_cut_to_three_lines(capsys):
    error = AssertionError("\nArrays differ\n\n  first\nsecond\nthird")
    assert said(capsys, error) == ["Exercise 2.1: not yet. Arrays differ first second"]


def test_code_that_stops_is_named(capsys):
    expected = "Exercise 2.1: not yet. your code stopped with TypeError: bad operand"
    assert said(capsys, TypeError("bad operand")) == [expected]


def test_hints_become_more_direct_and_stop_at_the_last(capsys):
    shown = [said(capsys, AssertionError("no"), ["look", "closer", "add a minus"])[1] for _ in range(4)]
    assert shown == ["Hint: look", "Hint: closer", "Hint: add a minus", "Hint: add a minus"]


def test_each_exercise_has_its_own_hints_and_start_begins_anew(capsys):
    said(capsys, AssertionError("no"), ["first", "second"])
    with attempt("2.2", hints=["first", "second"]):
        raise AssertionError("no")
    assert "Hint: first" in capsys.readouterr().out
    start("01_x", 0)
    assert said(capsys, AssertionError("no"), ["first", "second"])[-1] == "Hint: first"


def test_right_answer_is_correct(capsys):
    assert said(capsys, None, ["a hint"]) == ["Exercise 2.1: correct."]


# start


def test_start_says_in_one_line_what_this_runs_on(capsys):
    start("01_x", 7)
    line = capsys.readouterr().out
    assert line.startswith(f"Ready: Keras {keras.__version__} with ") and line.count("\n") == 1
    assert "CPU" in line or "GPU" in line
    assert line.endswith("cores; seed 7.\n")


def test_start_switches_off_the_tuning_of_datasets_once():
    start("x", seed=0)
    begin = tf.data.Dataset.__iter__
    start("x", seed=0)
    assert tf.data.Dataset.__iter__ is begin
    dataset = tf.data.Dataset.range(4).shuffle(4, seed=1).batch(2)
    assert sorted(np.concatenate([np.array(batch) for batch in dataset])) == [0, 1, 2, 3]
    assert iter(dataset)._dataset.options().autotune.enabled is False
    assert dataset.options().autotune.enabled is None  # the dataset itself is not changed


def test_start_sets_what_expect_compares_with():
    session.current.tier = "full"
    start("02_y", 0, "smoke")
    assert (session.current.notebook, session.current.profile, session.current.tier) == ("02_y", "smoke", "none")


def test_same_seed_gives_the_same_numbers():
    def draw(seed):
        start("01_x", seed)
        return [*np.array(keras.random.normal((3,))), np.random.rand()]

    assert draw(1) == draw(1) != draw(2)
