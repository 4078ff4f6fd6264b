"""Every exercise: its stub is "not attempted", its solution "correct", and plausible wrong answers are told why.

Only the imports, the parameters, constants, functions and classes of a notebook are executed: nothing is trained.
"""

import ast
import contextlib
import functools
import io
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from helpers import session
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
WRONG = ROOT / "tests" / "wrong_answers"
MIN_WRONG = 2


def is_definition(node):
    """Imports, functions, classes, and constants such as `SIZES = [1, 2]`."""
    if isinstance(node, ast.Assign):
        with contextlib.suppress(ValueError):
            ast.literal_eval(node.value)
            return all(isinstance(target, ast.Name) and target.id.isupper() for target in node.targets)
        return False
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def definitions(notebook):
    """The names that a notebook defines without computing anything."""
    names = {"__name__": "notebook"}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        wanted = ast.parse(cell.source).body
        if "parameters" not in cell.metadata.get("tags", []):
            wanted = [node for node in wanted if is_definition(node)]
        for node in wanted:
            # A definition may need what a lesson's cell computes, say in a default value. A check that uses it
            # then stops with its name.
            with contextlib.suppress(NameError):
                exec(compile(ast.Module([node], []), "notebook", "exec"), names)
    return names


def until_its_check(source):
    """A solution as far as the call of its check; the answer to an open question may follow, and needs the lesson."""
    ends = [node.end_lineno for node in ast.parse(source).body if ast.unparse(node).startswith("check_")]
    return "\n".join(source.splitlines()[: max(ends, default=None)])


def find_exercises(notebook):
    """Number, check cell, stub's name, and solution cell of every exercise."""
    cells, found = notebook.cells, []
    for place, cell in enumerate(cells):
        if "exercise" in cell.metadata.get("tags", []):
            check, solution = cells[place + 1].source, until_its_check(cells[place + 2].source)
            number = ".".join(re.search(r"def check_(\d+)_(\d+)\(", check).groups())
            stub = ast.unparse(ast.parse(check).body[-1].value.args[0])
            found.append(SimpleNamespace(number=number, check=check, stub=stub, solution=solution))
    return found


def said(names, *sources):
    """What cells print when they run, on one line; hints start from the first."""
    session._tries.clear()
    names, printed = dict(names), io.StringIO()
    with contextlib.redirect_stdout(printed):
        for source in sources:
            exec(compile(source, "cell", "exec"), names)
    return " ".join(printed.getvalue().split())


def faults(names, exercise, wrong_answers):
    """What is not as it should be with one exercise, as sentences."""
    text = said(names, exercise.check)
    if text != f"Exercise {exercise.number}: not attempted.":
        yield f"the stub says: {text}"
    text = said(names, exercise.check, exercise.solution)
    if f"Exercise {exercise.number}: correct." not in text or "not yet" in text:
        yield f"the solution says: {text}"
    if exercise.stub in [getattr(node, "name", None) for node in ast.parse(exercise.solution).body]:
        yield f"the solution replaces the student's {exercise.stub}"
    if len(wrong_answers) < MIN_WRONG:
        yield f"{len(wrong_answers)} wrong answers, fewer than {MIN_WRONG}"
    for answer in wrong_answers:
        text = said(names, answer["code"], exercise.check)
        if f"Exercise {exercise.number}: not yet." not in text or " ".join(answer["says"].split()) not in text:
            yield f"the wrong answer\n{answer['code']}\nwas not told {answer['says']!r}, but: {text}"


# The notebooks of the course


@functools.cache
def names_and_exercises(path):
    notebook = nbformat.read(path, as_version=4)
    return definitions(notebook), {exercise.number: exercise for exercise in find_exercises(notebook)}


def read_wrong_answers(name):
    file = WRONG / f"{name}.yml"
    answers = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {str(number): listed for number, listed in answers.items()}


EXERCISES = [
    (path, exercise.number)
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    for exercise in find_exercises(nbformat.read(path, as_version=4))
]


@pytest.mark.parametrize("path, number", EXERCISES, ids=[f"{path.stem}-{number}" for path, number in EXERCISES])
def test_exercise(path, number):
    names, exercises = names_and_exercises(path)
    found = list(faults(names, exercises[number], read_wrong_answers(path.stem).get(number, [])))
    assert not found, "\n".join(found)


def test_wrong_answers_belong_to_exercises():
    for file in WRONG.glob("*.yml"):
        for number in read_wrong_answers(file.stem):
            assert (ROOT / "notebooks" / f"{file.stem}.ipynb", number) in EXERCISES


# This test can fail: a small notebook with one exercise, and what can go wrong with it

CHECK = """
def check_9_1(candidate):
    with attempt("9.1", hints=["Look at the sign."]):
        assert candidate(SIZES[0], 2) == shift + 3, "The sum is wrong."


check_9_1(add)
"""
RIGHT = "def add_solution(a, b):\n    return a + b\n\n\ncheck_9_1(add_solution)"
MINUS = {"code": "def add(a, b):\n    return a - b", "says": "The sum is wrong. Hint: Look at the sign."}
STOPS = {"code": "def add(a, b):\n    return a[b]", "says": "stopped with TypeError"}


def small(stub="raise NotImplementedError", check=CHECK, solution=RIGHT):
    """(names, exercise) of a small notebook, whose lesson must not be executed."""
    cells = [
        new_code_cell("shift = 0  # a parameter", metadata={"tags": ["parameters"]}),
        new_code_cell("from helpers import attempt\n\nSIZES = [1]\nMODEL = train()\nraise RuntimeError('lesson')"),
        new_code_cell("def needs_the_lesson(model=MODEL):\n    return model"),
        new_markdown_cell("### Exercise 9.1: add"),
        new_code_cell(f"def add(a, b):\n    {stub}", metadata={"tags": ["exercise"]}),
        new_code_cell(check),
        new_code_cell(solution, metadata={"tags": ["solution"]}),
    ]
    notebook = new_notebook(cells=cells)
    return definitions(notebook), find_exercises(notebook)[0]


def test_good_exercise():
    names, exercise = small()
    assert (exercise.number, exercise.stub) == ("9.1", "add")
    assert not {"MODEL", "needs_the_lesson"} & set(names)
    assert not list(faults(names, exercise, [MINUS, STOPS]))


@pytest.mark.parametrize(
    "changed, wrong_answers, says",
    [
        ({"stub": "return a + b"}, [MINUS, STOPS], "the stub says: Exercise 9.1: correct."),
        (
            {"solution": RIGHT.replace("+", "-")},
            [MINUS, STOPS],
            "the solution says: Exercise 9.1: not attempted. Exercise",
        ),
        ({"solution": "def add_solution(a, b):\n    return a + b"}, [MINUS, STOPS], "the solution says"),
        ({"solution": RIGHT.replace("_solution", "")}, [MINUS, STOPS], "replaces the student's add"),
        ({"check": CHECK.replace("assert", "assert True or")}, [MINUS, STOPS], "was not told"),
        ({}, [MINUS], "1 wrong answers"),
        ({}, [MINUS, {**STOPS, "says": "something else"}], "was not told 'something else'"),
        ({}, [MINUS, {"code": RIGHT.split("\n\n")[0].replace("_solution", ""), "says": ""}], "correct."),
        ({}, [MINUS, {"code": "def other(a, b):\n    return 0", "says": ""}], "not attempted."),
    ],
)
def test_bad_exercise_is_found(changed, wrong_answers, says):
    names, exercise = small(**changed)
    assert any(says in fault for fault in faults(names, exercise, wrong_answers))


def test_an_error_outside_of_attempt_is_not_hidden():
    names, exercise = small(check="raise RuntimeError('outside')" + CHECK)
    with pytest.raises(RuntimeError, match="outside"):
        list(faults(names, exercise, [MINUS, STOPS]))
