"""tools/bands.py and tools/outputs.py: what they refuse, and what they write."""

import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import bands
import outputs


@pytest.mark.parametrize("values", [[0.9, 0.91], [0.9, 0.91, float("nan")], []])
def test_a_band_needs_three_finite_values(values):
    with pytest.raises(ValueError, match="at least three"):
        bands.band_of("test accuracy", values)


def test_a_band_follows_the_stated_rule():
    # mean 2, s 1, n 3: t(0.995, 2) = 9.9248, times sqrt(4/3) = 11.460
    assert bands.band_of("loss", [1, 2, 3]) == pytest.approx((2 - 11.460, 2 + 11.460), abs=1e-3)


def test_a_band_is_never_narrower_than_its_floor_and_an_accuracy_stays_below_one():
    assert bands.band_of("loss", [5, 5, 5]) == (4.99, 5.01)
    assert bands.band_of("loss", [5, 5, 5], "sample") == (4.9, 5.1)
    assert bands.band_of("test accuracy", [0.999, 1.0, 0.998])[1] == 1.0


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one notebook, and an executed copy of it as papermill leaves it."""
    monkeypatch.setattr(outputs.run, "ROOT", tmp_path)
    monkeypatch.setattr(outputs.run, "RUNS", tmp_path / "runs")
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# 01 One\n\n<!-- cost -->old<!-- /cost -->"), v4.new_code_cell("1 + 1")]
    notebook = v4.new_notebook(cells=cells)
    path = tmp_path / "01_one.ipynb"
    nbformat.write(notebook, path)
    (tmp_path / "runs" / "default").mkdir(parents=True)
    result = v4.new_output("execute_result", {"text/plain": "2"}, execution_count=7)
    injected = v4.new_code_cell("seed = 0", metadata={"tags": ["injected-parameters"]})
    executed = v4.new_notebook(cells=[cells[0], injected, v4.new_code_cell("1 + 1", outputs=[result])])
    nbformat.write(executed, tmp_path / "runs" / "default" / path.name)
    (tmp_path / "README.md").write_text("a <!-- table -->\n<!-- /table --> b", encoding="utf-8")
    record = {
        "seconds": 90.0,
        "peak_memory_mb": 1536,
        "results": {"test accuracy": 0.98765},
        "headline": "test accuracy",
    }
    return path, record


def test_outputs_and_costs_are_stored_without_the_injected_cell(course):
    path, record = course
    outputs.store(path, record)
    stored = nbformat.read(path, as_version=4)
    assert "1.5 minutes and 1.5 GB" in stored.cells[0].source and "old" not in stored.cells[0].source
    assert len(stored.cells) == 2 and stored.cells[1].execution_count == 1
    assert stored.cells[1].outputs[0].execution_count == 1 and "papermill" not in stored.metadata


def test_a_notebook_that_changed_while_it_ran_is_not_overwritten(course):
    path, record = course
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "1 + 2"
    nbformat.write(notebook, path)
    with pytest.raises(SystemExit, match="changed"):
        outputs.store(path, record)
    assert nbformat.read(path, as_version=4).cells[1].outputs == []


def test_the_table_keeps_rows_of_notebooks_that_did_not_run(course):
    path, record = course
    readme = outputs.run.ROOT / "README.md"
    outputs.update_readme([(path, record)])
    other = "| [00 Zero](notebooks/00_zero.ipynb) | 1.0 | 1.0 | x |\n"
    readme.write_text(
        readme.read_text(encoding="utf-8").replace("<!-- /table", other + "<!-- /table"), encoding="utf-8"
    )
    outputs.update_readme([(path, {**record, "seconds": 120.0})])
    text = readme.read_text(encoding="utf-8")
    assert "00_zero" in text and "| 2.0 | 1.5 | test accuracy 0.9877 |" in text and text.count("01_one") == 1
