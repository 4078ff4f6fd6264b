"""Every notebook has the form of the course: one list of checks, and a broken notebook for each of them."""

import ast
import io
import json
import re
import statistics
import tokenize
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbconvert.filters import markdown2html
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MAX_BYTES = 600_000
MIN_COMPARED = 0.7
BANNED = re.compile(r"\btf_keras\b|\btensorflow_hub\b|\bTFAutoModel|\btf\.compat\.v1\b")
MACHINE_PATH = re.compile(r"/root/|/home/\w+/|/tmp/|/work/|/Users/\w+/|[A-Z]:\\+Users|/site-packages/")
WORD = re.compile(r"[A-Za-z0-9][\w'’\-]*")
NOT_PROSE = re.compile(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|<[^>]+>|https?://\S+", re.DOTALL)


# Reading a notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def markdown_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def line_counts(notebook):
    return [sum(bool(line.strip()) for line in cell.source.split("\n")) for cell in code_cells(notebook)]


def is_figure(output):
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def text_of(output):
    """What an output says, without the bytes of pictures."""
    data = output.get("data", {})
    said = output.get("text", "") + data.get("text/plain", "") + data.get("text/html", "")
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", said)


class Page(HTMLParser):
    """Targets of links and pictures, `id`s, and the alternative texts of pictures in HTML."""

    def __init__(self, html):
        super().__init__()
        self.targets, self.ids, self.alts = [], set(), []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.targets += [given[name] for name in ("href", "src") if given.get(name)]
        self.ids |= {unquote(given["id"])} if given.get("id") else set()
        self.alts += [(given.get("alt") or "").strip()] if tag == "img" else []


def page_of(path):
    """The page of a markdown file, or of the markdown in a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join(cell.source for cell in markdown_cells(nbformat.reads(text, as_version=4)))
    return Page(markdown2html(text))


def broken_links(page, folder):
    """Relative targets in `page` that lead nowhere from `folder`."""
    found = []
    for target in page.targets:
        if re.match(r"[a-z]+:|//", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        there = (folder / file).resolve() if file else None
        if there and not there.exists():
            found.append(target)
        elif anchor and (there is None or there.suffix == ".ipynb"):
            ids = page.ids if there is None else page_of(there).ids
            if anchor.lower() not in {name.lower() for name in ids}:  # GitHub's are lower case, JupyterLab's are not
                found.append(target)
    return found


# The checks: each gives the faults of a notebook as sentences, none when all is well


def opening(notebook, name):
    first = notebook.cells[0]
    number = name.split("_")[0]
    if first.cell_type != "markdown" or not re.match(rf"# {number} \S", first.source):
        yield f"the first cell does not begin with '# {number} Title'"
    if not re.search(r"you need|need to know", first.source, re.IGNORECASE):
        yield "the first cell does not say what one needs to know"
    if int(number) > 1 and not re.search(r"\]\(\d\d_\w+\.ipynb", first.source):
        yield "the first cell has no link to an earlier notebook"
    if "](notation.md)" not in first.source:
        yield "the first cell has no link to notation.md"
    if "data" not in first.source.lower():
        yield "the first cell does not say which data is used"
    cost = re.findall(r"<!-- cost -->(.*?)<!-- /cost -->", first.source, re.DOTALL)
    if len(cost) != 1 or not re.search(r"\d", cost[0]):
        yield "the measured cost is not filled in: run make outputs"


def parameters(notebook, name):
    cells = tagged(notebook, "parameters")
    if len(cells) != 1:
        yield f"{len(cells)} cells are tagged `parameters`, not 1"
        return
    source = cells[0].source
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    names = []
    for node in ast.parse(source).body:
        try:
            names.append(node.targets[0].id)
            ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            yield f"line {node.lineno} of the parameters is not `name = literal`"
        if node.end_lineno not in commented:
            yield f"line {node.lineno} of the parameters has no comment"
    for needed in {"seed", "profile"} - set(names):
        yield f"there is no parameter {needed!r}"


def imports(notebook, name):
    importing = [cell for cell in code_cells(notebook) if any(map(is_import, ast.walk(ast.parse(cell.source))))]
    if len(importing) != 1:
        yield f"{len(importing)} cells import something, not 1"
    calls = [node for node in ast.walk(tree(notebook)) if isinstance(node, ast.Call)]
    starts = [node for node in calls if ast.unparse(node.func) in ("helpers.start", "start")]
    if len(starts) != 1 or not starts[0].args or ast.unparse(starts[0].args[0]) != repr(name):
        yield f'helpers.start("{name}", ...) is not called once'


def is_import(node):
    return isinstance(node, (ast.Import, ast.ImportFrom))


def tree(notebook):
    return ast.parse("\n".join(cell.source for cell in code_cells(notebook)))


def helpers_exist(notebook, name):
    package, submodules = names_in("__init__"), {path.stem for path in (ROOT / "helpers").glob("[a-z]*.py")}
    wanted = set(re.findall(r"`helpers\.(\w+)", "\n".join(cell.source for cell in markdown_cells(notebook))))
    for node in ast.walk(tree(notebook)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "helpers":
            wanted.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module == "helpers":
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers."):
            submodule = node.module.split(".")[1]
            for alias in node.names:
                if submodule not in submodules or alias.name not in names_in(submodule):
                    yield f"{node.module} has no {alias.name!r}"
    for missing in sorted(wanted - package - submodules):
        yield f"helpers has no {missing!r}"


def names_in(submodule):
    """What a module of helpers defines; of the package itself, what its `__all__` lists."""
    body = ast.parse((ROOT / "helpers" / f"{submodule}.py").read_text(encoding="utf-8")).body
    assigned = {ast.unparse(node.targets[0]): node.value for node in body if isinstance(node, ast.Assign)}
    if "__all__" in assigned:
        return set(ast.literal_eval(assigned["__all__"]))
    return set(assigned) | {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def figures(notebook, name):
    shown = [output for output in outputs(notebook) if is_figure(output)]
    if len(shown) < 4:
        yield f"{len(shown)} figures, fewer than 4"
    for output in shown:
        if not any(value.get("alt", "").strip() for value in output.metadata.values() if isinstance(value, dict)):
            yield f"a figure has no alternative text: {text_of(output)[:60]!r}"
    html = [output.get("data", {}).get("text/html", "") for output in outputs(notebook)]
    html += [markdown2html(cell.source) for cell in markdown_cells(notebook)]
    if not all(alt for part in html for alt in Page(part).alts):
        yield "a picture has no alternative text"


def clean_outputs(notebook, name):
    for output in outputs(notebook):
        if output.output_type == "error":
            yield f"an error is stored: {output.ename}"
        if output.get("name") == "stderr":
            yield f"stderr is stored: {output.text[:60]!r}"
        for path in MACHINE_PATH.findall(text_of(output)):
            yield f"a path of one machine is in an output: {path}"


def run_once_in_order(notebook, name):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield "the cells were not run once, in order: run make outputs"


def exercises(notebook, name):
    stubs, solutions = tagged(notebook, "exercise"), tagged(notebook, "solution")
    if not 3 <= len(stubs) <= 5 or len(stubs) != len(solutions):
        yield f"{len(stubs)} exercises (3 to 5 wanted) and {len(solutions)} solutions"
    for cell in solutions:
        if not cell.metadata.get("jupyter", {}).get("source_hidden"):
            yield "a solution is not collapsed (jupyter.source_hidden)"
    for stub in stubs:
        place = notebook.cells.index(stub)
        question, check, solution = notebook.cells[place - 1], *(notebook.cells[place + 1 : place + 3] + [None] * 2)[:2]
        number = re.search(r"^### Exercise (\d+\.\d+)", question.source, re.MULTILINE)
        if not number:
            yield "an exercise does not follow its question, '### Exercise N.M: ...'"
            continue
        if "raise NotImplementedError" not in stub.source:
            yield f"the stub of exercise {number[1]} does not raise NotImplementedError"
        function = "check_" + number[1].replace(".", "_")
        parts = (f"def {function}(", f'attempt("{number[1]}"', f"\n{function}(")
        if not check or not all(part in check.source for part in parts):
            yield f"the stub of exercise {number[1]} is not followed by its check {function}"
        if solution not in solutions or f"{function}(" not in solution.source:
            yield f"the check of exercise {number[1]} is not followed by its solution"


def links(notebook, name):
    page = Page(markdown2html("\n\n".join(cell.source for cell in markdown_cells(notebook))))
    for target in broken_links(page, ROOT / "notebooks"):
        yield f"a link leads nowhere: {target}"


def no_banned_api(notebook, name):
    for cell in code_cells(notebook):
        for found in BANNED.findall(cell.source):
            yield f"{found} is not used in this course"


def size(notebook, name):
    found = len(nbformat.writes(notebook).encode())
    if found >= MAX_BYTES:
        yield f"{found:,} bytes, not under {MAX_BYTES:,}"


def form(notebook, name):
    lines = line_counts(notebook)
    words = len(WORD.findall(NOT_PROSE.sub(" ", "\n".join(cell.source for cell in markdown_cells(notebook)))))
    if not 35 <= len(notebook.cells) <= 60:
        yield f"{len(notebook.cells)} cells, not 35 to 60"
    if statistics.median(lines) > 8:
        yield f"the median code cell has {statistics.median(lines):g} lines, more than 8"
    if sorted(lines)[int(0.9 * (len(lines) - 1))] >= 20:
        yield "fewer than 90% of the code cells have under 20 lines"
    if max(lines) > 40:
        yield f"a code cell has {max(lines)} lines, more than 40"
    if not 5 <= words / sum(lines) <= 12:
        yield f"{words / sum(lines):.1f} words of prose per line of code, not 5 to 12"


def compared_cells(notebook):
    """(executed code cells, those whose outputs nbval compares, those of them that have an output)."""
    executed = [cell for cell in code_cells(notebook) if cell.execution_count]
    skipping = {"nbval-ignore-output", "nbval-skip"}
    compared = [
        cell
        for cell in executed
        if not skipping & set(cell.metadata.get("tags", []))
        and not re.match(r"# ?(NBVAL_IGNORE_OUTPUT|NBVAL_SKIP)", cell.source)
    ]
    return len(executed), len(compared), sum(bool(cell.outputs) for cell in compared)


def compared(notebook, name):
    executed, kept, _ = compared_cells(notebook)
    if kept < MIN_COMPARED * executed:
        yield f"nbval compares {kept} of {executed} code cells, fewer than {MIN_COMPARED:.0%}"


CHECKS = [
    opening,
    parameters,
    imports,
    helpers_exist,
    figures,
    clean_outputs,
    run_once_in_order,
    exercises,
    links,
    no_banned_api,
    size,
    form,
    compared,
]


# The notebooks of the course


class Report:
    """A line at the end of the test run: how much of the stored outputs it compared."""

    def __init__(self, counts):
        executed, compared, with_output = map(sum, zip(*counts))
        self.line = (
            f"nbval compares {compared} of {executed} code cells ({compared / executed:.0%}) "
            f"in {len(counts)} notebooks; {with_output} of these have an output"
        )

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("stored outputs")
        terminalreporter.line(self.line)


def test_there_are_notebooks(request):
    assert NOTEBOOKS
    read = [nbformat.read(path, as_version=4) for path in NOTEBOOKS]
    request.config.pluginmanager.register(Report([compared_cells(notebook) for notebook in read]))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, check):
    faults = list(check(nbformat.read(path, as_version=4), path.stem))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", [path for path in (ROOT / "README.md", ROOT / "data" / "README.md") if path.exists()])
def test_links_of_the_readmes(path):
    assert not broken_links(page_of(path), path.parent)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_file_is_valid_and_of_this_format(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert raw["nbformat"] == 4
    nbformat.validate(raw)


# The checks can fail: a notebook without a fault, and one fault at a time


def good_notebook():
    figure = new_output(
        "display_data",
        data={"image/png": "AAAA", "text/html": '<img alt="A line." src="data:image/png;base64,AAAA">'},
        metadata={"image/png": {"alt": "A line."}},
    )
    cells = [
        new_markdown_cell(
            "# 02 Good\n\nA notebook. You need [the one before](01_before.ipynb), no data, "
            "and [our notation](notation.md).\n\n"
            "<!-- cost -->1 minute<!-- /cost -->"
        ),
        new_code_cell('seed = 0  # start\nprofile = "default"  # the profile', metadata={"tags": ["parameters"]}),
        new_code_cell('import helpers\nfrom helpers import show\n\nhelpers.start("02_good", seed)'),
        *[new_code_cell(f"show({number})", outputs=[figure]) for number in range(4)],
    ]
    for number in ("2.1", "2.2", "2.3"):
        check = "check_" + number.replace(".", "_")
        tags = {"tags": ["solution"], "jupyter": {"source_hidden": True}}
        cells += [
            new_markdown_cell(f"### Exercise {number}: add\n\n{'word ' * 80}"),
            new_code_cell("def add(a, b):\n    raise NotImplementedError", metadata={"tags": ["exercise"]}),
            new_code_cell(
                f'def {check}(candidate):\n    with attempt("{number}"):\n        candidate(1, 2)\n\n\n{check}(add)'
            ),
            new_code_cell(f"def add_solution(a, b):\n    return a + b\n\n\n{check}(add_solution)", metadata=tags),
        ]
    for _ in range(10):
        cells += [new_markdown_cell("A remark."), new_code_cell("1 + 1", outputs=stream("2"))]
    notebook = new_notebook(cells=cells)
    for count, cell in enumerate(code_cells(notebook), 1):
        cell.execution_count = count
    return notebook


def change(place, old, new):
    """A fault: `old` in the source of a cell becomes `new`."""

    def fault(notebook):
        assert old in notebook.cells[place].source
        notebook.cells[place].source = notebook.cells[place].source.replace(old, new)

    return fault


def put(place, metadata=(), **fields):
    """A fault: fields of a cell, or its metadata, get other values."""

    def fault(notebook):
        notebook.cells[place].update(nbformat.from_dict(fields))
        notebook.cells[place].metadata.update(nbformat.from_dict(metadata))

    return fault


def stream(text, name="stdout"):
    return [new_output("stream", name=name, text=text)]


EXERCISE = 8  # the cell with the first stub, in `good_notebook`
LAST = -1
FAULTS = [
    (opening, change(0, "# 02", "# 03"), "begin with"),
    (opening, change(0, "You need", "There is"), "needs to know"),
    (opening, change(0, "01_before.ipynb", "https://example.org"), "no link"),
    (opening, change(0, "](notation.md)", ""), "no link to notation.md"),
    (opening, change(0, "data", "dates"), "which data"),
    (opening, change(0, "1 minute", "filled in by make outputs"), "cost is not filled in"),
    (parameters, put(1, metadata={"tags": []}), "0 cells"),
    (parameters, put(2, metadata={"tags": ["parameters"]}), "2 cells"),
    (parameters, change(1, "seed = 0 ", "seed = int(0) "), "not `name = literal`"),
    (parameters, change(1, "  # start", ""), "no comment"),
    (parameters, change(1, "profile =", "other ="), "no parameter 'profile'"),
    (imports, change(LAST, "1 + 1", "def f():\n    import os\n"), "2 cells import"),
    (imports, change(2, "02_good", "01_other"), "not called once"),
    (imports, change(2, "helpers.start", "print"), "not called once"),
    (helpers_exist, change(LAST, "1 + 1", "helpers.no_such_thing()"), "no_such_thing"),
    (helpers_exist, change(2, "import show", "import show, no_such_name"), "no_such_name"),
    (helpers_exist, change(2, "helpers import show", "helpers.data import no_such_data"), "no_such_data"),
    (helpers_exist, change(0, "A notebook", "See `helpers.no_such_word`"), "no_such_word"),
    (figures, put(3, outputs=[]), "3 figures"),
    (figures, put(3, outputs=[new_output("display_data", data={"image/png": "AAAA"})]), "no alternative text"),
    (figures, put(LAST, outputs=[new_output("display_data", data={"text/html": "<img src='a.png'>"})]), "a picture"),
    (figures, change(0, "A notebook", "![](a.png)"), "a picture"),
    (clean_outputs, put(LAST, outputs=stream("careful", "stderr")), "stderr"),
    (clean_outputs, put(LAST, outputs=[new_output("error", ename="ValueError")]), "ValueError"),
    (clean_outputs, put(LAST, outputs=stream("saved in /home/somebody/x")), "path of one machine"),
    (clean_outputs, put(LAST, outputs=stream(r"saved in C:\Users\somebody")), "path of one machine"),
    (run_once_in_order, put(2, execution_count=None), "in order"),
    (run_once_in_order, put(2, execution_count=7), "in order"),
    (exercises, put(EXERCISE, metadata={"tags": []}), "2 exercises"),
    (exercises, change(EXERCISE, "raise NotImplementedError", "pass"), "does not raise"),
    (exercises, change(EXERCISE - 1, "### Exercise", "### Question"), "does not follow its question"),
    (exercises, change(EXERCISE + 1, 'attempt("2.1"', 'attempt("2.2"'), "not followed by its check"),
    (exercises, change(EXERCISE + 2, "check_2_1", "print"), "not followed by its solution"),
    (exercises, put(EXERCISE + 2, metadata={"jupyter": {}}), "not collapsed"),
    (links, lambda notebook: None, "01_before.ipynb"),  # there is none beside the real notebooks
    (links, change(0, "01_before.ipynb", "#no-such-heading"), "no-such-heading"),
    (no_banned_api, change(LAST, "1 + 1", "tf.compat.v1.disable_eager_execution()"), "tf.compat.v1"),
    (no_banned_api, change(LAST, "1 + 1", "TFAutoModelForMaskedLM"), "TFAutoModel"),
    (size, put(LAST, outputs=stream("x" * MAX_BYTES)), "not under"),
    (form, lambda notebook: notebook.cells.extend(new_markdown_cell() for _ in range(30)), "cells, not 35 to 60"),
    (form, lambda notebook: notebook.cells.clear() or notebook.cells.append(new_code_cell("1\n" * 9)), "median"),
    (form, change(LAST, "1 + 1", "1\n" * 41), "41 lines"),
    (form, lambda notebook: [put(place, source="1\n" * 20)(notebook) for place in (3, 4, 5, 6)], "fewer than 90%"),
    (form, change(0, "A notebook", "word " * 2000), "words of prose"),
    (
        compared,
        lambda notebook: [put(place, metadata={"tags": ["nbval-skip"]})(notebook) for place in range(14)],
        "of 25",
    ),
]


@pytest.mark.parametrize("check", [check for check in CHECKS if check is not links], ids=lambda check: check.__name__)
def test_check_accepts_a_good_notebook(check):
    assert not list(check(good_notebook(), "02_good"))


def test_links_accepts_what_resolves():
    notebook = good_notebook()
    change(0, "01_before.ipynb", "../pyproject.toml")(notebook)
    change(0, "A notebook", "[a part](#exercise-2.1:-add), `x[0](y)`, [site](https://example.org)")(notebook)
    assert not list(links(notebook, "02_good"))


@pytest.mark.parametrize("check, fault, says", FAULTS, ids=[f"{c.__name__}-{says}" for c, _, says in FAULTS])
def test_check_finds_a_fault(check, fault, says):
    notebook = good_notebook()
    fault(notebook)
    assert any(says in text for text in check(notebook, "02_good"))


def test_every_check_is_shown_to_fail():
    assert {check for check, _, _ in FAULTS} == set(CHECKS)
