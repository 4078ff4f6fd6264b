"""`make student` gives notebooks that run and hide the solutions; `make html` gives pages that need no network."""

import importlib.util
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import papermill
import pytest
from helpers import run
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))

spec = importlib.util.spec_from_file_location("publish", ROOT / "tools" / "publish.py")
publish = importlib.util.module_from_spec(spec)
spec.loader.exec_module(publish)


@pytest.fixture(scope="module")
def build():
    """A folder as deep as build/, so that links lead to the same places; on the course's disk."""
    folder = ROOT / "build" / "tests"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def student(build):
    publish.student(NOTEBOOKS, build / "student")
    return build / "student"


@pytest.fixture(scope="module")
def html(build):
    publish.html(NOTEBOOKS, build / "html")
    return build / "html"


def small_notebook(text="A first sentence. A second one."):
    figure = new_output(
        "display_data",
        data={"image/png": "iVBORw0KGgo=", "text/html": '<img alt="A line." src="data:image/png;base64,iVBORw0KGgo=">'},
        metadata={"image/png": {"alt": "A line."}},
    )
    widget = new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "a pad"})
    hidden = {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    cells = [
        new_markdown_cell(f"# 99 Small & short\n\n{text}"),
        new_code_cell("seed = 0  # start", metadata={"tags": ["parameters"], "papermill": {"duration": 1}}),
        new_code_cell("secret = 42", execution_count=2, metadata=hidden, outputs=[figure, widget]),
    ]
    kernel = {"name": "python3", "display_name": "Python 3"}
    return new_notebook(cells=cells, metadata={"course": {"seconds": 1}, "kernelspec": kernel})


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A course of one small notebook elsewhere."""
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    monkeypatch.setattr(publish, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(publish, "NOTATION", tmp_path / "notebooks" / "notation.md")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "notation.md").write_text("# Notation\n\nSymbols of [99](99_small.ipynb): $x$.")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a file.md").touch()
    (tmp_path / "pyproject.toml").write_text('[project]\ndescription = "A course & more"\n')
    nbformat.write(small_notebook(), tmp_path / "notebooks" / "99_small.ipynb")
    return [tmp_path / "notebooks" / "99_small.ipynb"]


class Tags(HTMLParser):
    """All tags of a page as (name, attributes)."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def targets(page):
    return [values[name] for _, values in Tags(page).found for name in ("src", "href") if values.get(name)]


# Failures first


def test_an_equation_that_is_not_understood_is_named(notebooks, tmp_path):
    nbformat.write(small_notebook(r"An equation: $\nosuchcommand x$."), notebooks[0])
    with pytest.raises(ValueError, match=r"99_small: the equation '\\\\nosuchcommand x' is not understood"):
        publish.html(notebooks, tmp_path / "html")


def test_a_failed_run_changes_nothing(notebooks, tmp_path):
    folder = tmp_path / "html"
    publish.html(notebooks, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileNotFoundError):
        publish.html([*notebooks, tmp_path / "none.ipynb"], folder)
    with pytest.raises(RuntimeError), publish.replacing(folder) as part:
        (part / "half").touch()
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not list(tmp_path.glob(".html.part")) and not list(tmp_path.glob(".html.old"))


def test_what_a_killed_run_left_is_replaced(notebooks, tmp_path):
    for left in (".student.part", ".student.old", "student"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "98_left.ipynb").touch()
    publish.student(notebooks, tmp_path / "student")
    publish.student(notebooks, tmp_path / "student")
    assert sorted(path.name for path in (tmp_path / "student").iterdir()) == ["99_small.ipynb", "notation.md"]


def test_a_build_folder_that_cannot_be_written_is_an_error_in_words(tmp_path, monkeypatch):
    (tmp_path / "build").touch()
    monkeypatch.setattr(publish, "BUILD", tmp_path / "build")
    monkeypatch.setattr(publish, "NOTEBOOKS", tmp_path)
    assert "cannot write" in publish.main(["student"])


# The student's version


def test_student_version_of_a_small_notebook(notebooks, tmp_path):
    publish.student(notebooks, tmp_path / "student")
    made = nbformat.read(tmp_path / "student" / "99_small.ipynb", as_version=4)
    assert [cell.source for cell in made.cells[1:]] == ["seed = 0  # start"]
    assert dict(made.cells[1].metadata) == {"tags": ["parameters"]}
    assert set(made.metadata) == {"kernelspec"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_student_version_has_no_solution_and_no_output(path, student):
    original, made = nbformat.read(path, as_version=4), nbformat.read(student / path.name, as_version=4)
    nbformat.validate(made)
    solutions = [cell for cell in original.cells if "solution" in cell.metadata.get("tags", [])]
    assert len(made.cells) == len(original.cells) - len(solutions)
    text = (student / path.name).read_text(encoding="utf-8")
    assert "_solution(" not in text and '"solution"' not in text
    for cell in made.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)


@pytest.mark.skipif(not NOTEBOOKS, reason="there are no notebooks")
def test_student_version_runs_from_top_to_bottom(student, tmp_path):
    path = NOTEBOOKS[0]
    values = run.parameters_for(path, "smoke", data="sample")
    papermill.execute_notebook(
        student / path.name, tmp_path / path.name, values, kernel_name="python3", cwd=student, progress_bar=False
    )
    done = nbformat.read(tmp_path / path.name, as_version=4)
    said = "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", []))
    stubs = [cell for cell in done.cells if "exercise" in cell.metadata.get("tags", [])]
    assert len(re.findall(r"Exercise \d+\.\d+: not attempted\.", said)) == len(stubs) > 0
    assert "correct." not in said and "not yet" not in said


# Links, in both versions


@pytest.mark.parametrize(
    "source, student, html",
    [
        ("[a](99_small.ipynb#part)", "[a](99_small.ipynb#part)", "[a](99_small.html#part)"),
        ("[a](notation.md)", "[a](notation.md)", "[a](notation.html)"),
        ("[a](../data/a%20file.md)", "[a](../../data/a%20file.md)", "[a](../../data/a%20file.md)"),
        ('<img alt="x" src="../data">', '<img alt="x" src="../../data">', '<img alt="x" src="../../data">'),
        ("[a]: ../data", "[a]: ../../data", "[a]: ../../data"),
        ("[a](https://example.org/../data)", "[a](https://example.org/../data)", "[a](https://example.org/../data)"),
        ("`x[0](y)` [a](#part)", "`x[0](y)` [a](#part)", "`x[0](y)` [a](#part)"),
    ],
)
def test_links_are_moved(notebooks, tmp_path, source, student, html):
    assert publish.relocate(source, tmp_path / "build" / "student") == student
    assert publish.relocate(source, tmp_path / "build" / "html", ".html") == html


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_the_student_version_resolve(path, student):
    for cell in nbformat.read(student / path.name, as_version=4).cells:
        if cell.cell_type == "markdown":
            for target in targets(publish.markdown2html(cell.source)):
                assert re.match("[a-z]+:|#", target) or (student / target.split("#")[0]).exists(), target


# The pages


def test_page_of_a_small_notebook(notebooks, tmp_path):
    nbformat.write(small_notebook(r"The loss $L_1 < 2$ and $$\begin{aligned} a &= b \end{aligned}$$"), notebooks[0])
    publish.html(notebooks, tmp_path / "html")
    page = (tmp_path / "html" / "99_small.html").read_text(encoding="utf-8")
    tags = Tags(page).found
    names = [tag for tag, _ in tags]
    assert names.count("math") == 2 and "$" not in page.split("<body")[1]
    assert "<title>99 Small &amp; short</title>" in page
    assert [values["alt"] for tag, values in tags if tag == "img"] == ["A line."]
    assert names.count("details") == 1 and ("details", {}) in tags  # closed: there is no `open`
    assert "a pad" in page and "script" not in names
    assert 'href="index.html"' in page


@pytest.mark.parametrize("path", [*NOTEBOOKS, Path("notation"), Path("index")], ids=lambda path: path.stem)
def test_page_loads_nothing(path, html):
    page = (html / f"{path.stem}.html").read_text(encoding="utf-8")
    for tag, values in Tags(page).found:
        if tag != "a":  # a link for the reader is not loaded
            for name in ("src", "href", "srcset", "data", "poster"):
                assert (values.get(name) or "data:").startswith("data:"), (tag, values[name])
    assert not re.search(r"""@import|url\(\s*["']?(https?:)?//|\bimport\(|cdnjs|unpkg|jsdelivr""", page)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_page_is_complete(path, html):
    notebook, page = nbformat.read(path, as_version=4), (html / f"{path.stem}.html").read_text(encoding="utf-8")
    tags = Tags(page).found
    figures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    alts = [values.get("alt") for tag, values in tags if tag == "img"]
    assert len(alts) >= len(figures) and all(alts)
    assert "No description has been provided" not in page
    solutions = [cell for cell in notebook.cells if "solution" in cell.metadata.get("tags", [])]
    assert [values for tag, values in tags if tag == "details"] == [{}] * len(solutions)
    for target in targets(page):
        assert re.match("[a-z]+:|#", target) or (html / target.split("#")[0]).exists(), target


def test_notation_links_to_the_notebooks_in_both_versions(student, html):
    pages = {
        student: publish.markdown2html((student / "notation.md").read_text(encoding="utf-8")),
        html: (html / "notation.html").read_text(encoding="utf-8"),
    }
    for folder, page in pages.items():
        found = [target for target in targets(page) if re.match(r"\d\d_", target)]
        assert found and all((folder / target.split("#")[0]).exists() for target in found)
    assert "<math" in pages[html]


def test_index_lists_the_notebooks(html):
    page = (html / "index.html").read_text(encoding="utf-8")
    for path in [*NOTEBOOKS, Path("notation.md")]:
        assert f'href="{path.stem}.html"' in page and (html / f"{path.stem}.html").exists()
    assert page.count("<style") >= 3  # the look of the other pages
