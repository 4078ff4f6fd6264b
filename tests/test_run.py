"""The runner, on small notebooks: wrong calls, failures, killed half-way, then what a good run leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import papermill
import psutil
import pytest
import yaml
from helpers import run, session

RESULT = """\
from IPython.display import display
display({"text/plain": "Data"}, raw=True, metadata={"course": {"tier": "sample"}})
display({"text/plain": "✓"}, raw=True, metadata={"course": {"metric": "accuracy", "value": rate}})"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course, and `main` as the command line calls it."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(run, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(run, "RUNS", tmp_path / "build" / "runs")
    for name in ("PYTHONPATH", "JUPYTER_PREFER_ENV_PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # `main` sets them; put them back
    profiles = {"smoke": {"01_good": {"rate": 0.5}}, "full": None}
    (tmp_path / "notebooks" / "profiles.yml").write_text(yaml.safe_dump(profiles))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def write(course, name, *sources, parameters='seed = 0\ndata = "auto"\nprofile = "default"\nrate = 0.1  # a comment'):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, course / "notebooks" / f"{name}.ipynb")


def report(profile="default"):
    return json.loads((run.RUNS / profile / "report.json").read_text())


def files(profile="default"):
    return sorted(path.name for path in (run.RUNS / profile).glob("*") if path.name != ".lock")


@pytest.fixture
def executed(monkeypatch):
    """Papermill without a kernel: what it was asked to run, as (notebook, parameters)."""
    calls = []

    def execute(path, output, values, **_):
        calls.append((path.stem, values))
        nbformat.write(nbformat.read(path, as_version=4), output)

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return calls


# Wrong calls


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (["7"], "no notebook '7'; there are: 01_good, 02_other"),
        (["01", "--profile", "quick"], "no profile 'quick'; there are: default, full, smoke"),
        (["01", "--set", "epoch=3"], "01_good has no parameter 'epoch'; it has: seed, data, profile, rate"),
        (["01", "--set", "rate"], "invalid setting value: 'rate'"),
        (["01", "--set", "rate=[1"], "01_good takes a number for 'rate', not '[1'"),
        (["01", "--data", "small"], "'auto', 'full', 'sample'"),
        (["01", "--set", "rate=fast"], "01_good takes a number for 'rate', not 'fast'"),
        (["01", "--at-once", "0"], "argument --at-once: invalid positive value: '0'"),
    ],
)
def test_wrong_call_lists_what_is_valid_and_runs_nothing(course, capsys, executed, call, says):
    write(course, "01_good")
    write(course, "02_other")
    try:
        status = run.main(call)
    except SystemExit as stopped:  # argparse
        status = stopped.code
    assert status == 2
    assert says in capsys.readouterr().err
    assert executed == [] and not run.RUNS.exists()


def test_profile_that_names_an_unknown_parameter_is_an_error(course, capsys):
    write(course, "01_good", parameters='profile = "default"')
    assert run.main(["01", "--profile", "smoke"]) == 2
    assert "01_good has no parameter 'rate'" in capsys.readouterr().err


def test_build_folder_that_cannot_be_written_is_an_error(course, capsys, executed):
    write(course, "01_good")
    run.RUNS.parent.write_text("a file stands where the folder should be")
    assert run.main([]) == 2
    assert f"cannot write to {run.RUNS / 'default'}" in capsys.readouterr().err
    assert executed == []


def test_full_disk_is_an_error_and_leaves_nothing_that_looks_finished(course, capsys, monkeypatch):
    def execute(path, output, *_, **__):
        output.write_text('{"cells": [')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    write(course, "01_good")
    assert run.main([]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not [name for name in files() if not name.startswith(".")]


def test_kernel_that_dies_is_a_failure_of_its_notebook(course, capsys, monkeypatch):
    def execute(*_, **__):
        raise RuntimeError("Kernel died")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    write(course, "01_good")
    assert run.main([]) == 1
    assert "01_good: RuntimeError: Kernel died" in capsys.readouterr().out
    assert files() == ["01_good.failed.ipynb", "report.json"]


# Parameters


def parameters(executed, *call):
    executed.clear()
    assert run.main([*call]) == 0
    [(_, values)] = executed
    return values


def test_parameters_come_from_the_profile_then_the_call(course, executed):
    write(course, "01_good")
    assert parameters(executed) == {"profile": "default"}
    assert parameters(executed, "--profile", "smoke") == {"profile": "smoke", "rate": 0.5}
    assert parameters(executed, "--profile", "full", "--data", "sample") == {"profile": "full", "data": "sample"}


def test_seed_and_data_keep_the_profile_and_others_do_not(course, executed):
    write(course, "01_good")
    assert parameters(executed, "--set", "seed=7", "--set", "data=sample")["profile"] == "default"
    changed = parameters(executed, "--profile", "smoke", "--set", "rate=1e-3")
    assert changed == {"profile": "custom", "rate": 0.001}  # a number, although YAML reads 1e-3 as text


def test_notebooks_are_chosen_by_number_name_or_file_and_run_once(course):
    for name in ("02_b", "01_a", "03_c"):
        write(course, name)
    assert [path.stem for path in run.find_notebooks()] == ["01_a", "02_b", "03_c"]
    chosen = run.find_notebooks(["03", "01_a", "notebooks/01_a.ipynb"])
    assert [path.stem for path in chosen] == ["03_c", "01_a"]


# What is up to date


def test_only_what_changed_runs_again(course, executed, capsys, monkeypatch):
    write(course, "01_good")
    write(course, "02_other")

    def ran(*call):
        executed.clear()
        assert run.main([*call]) == 0
        return [name for name, _ in executed]

    assert ran() == ["01_good", "02_other"]
    assert ran() == []
    assert "up to date" in capsys.readouterr().out
    assert [entry["name"] for entry in report()["notebooks"]] == ["01_good", "02_other"]
    write(course, "02_other", "1 + 1")  # a cell
    assert ran() == ["02_other"]
    assert ran("--set", "seed=1") == ["01_good", "02_other"]  # a parameter
    (course / "notebooks" / "expected.yml").write_text("01_good: {full: {}}")  # the bands of one notebook
    assert ran("--set", "seed=1") == ["01_good"]
    (run.RUNS / "default" / "01_good.ipynb").write_text("{half")  # a damaged result
    assert ran("--set", "seed=1") == ["01_good"]
    (course / "data" / "mnist" / "3.0.1").mkdir(parents=True)
    (course / "data" / "mnist" / "3.0.1" / "dataset_info.json").touch()
    monkeypatch.setenv("TFDS_DATA_DIR", str(course / "data"))  # other data
    assert ran("--set", "seed=1") == ["01_good", "02_other"]


# With kernels


def test_goes_on_after_a_failure_and_reports_all(course, capsys):
    write(course, "01_bad", RESULT, "1 / 0", "never = 1")
    write(course, "02_good", "import time", "held = bytearray(200_000_000)", "time.sleep(2)", RESULT)
    assert run.main(["--set", "rate=0.25", "--data", "sample"]) == 1
    bad, good = report()["notebooks"]
    assert report()["profile"] == "default"
    assert (bad["name"], bad["status"], bad["results"]) == ("01_bad", "failed", {"accuracy": 0.25})
    assert bad["error"].startswith("cell 3: ZeroDivisionError: division by zero")
    assert (good["name"], good["status"], good["data"]) == ("02_good", "ok", "sample")
    assert good["results"] == {"accuracy": 0.25}
    assert good["parameters"] == {"profile": "custom", "rate": 0.25, "data": "sample"}
    assert 0 < good["seconds"] < 120
    assert good["peak_memory_mb"] > 200 > bad["peak_memory_mb"] > 0
    assert files() == ["01_bad.failed.ipynb", "02_good.ipynb", "report.json"]
    assert not [child for child in psutil.Process().children() if "ipykernel" in " ".join(child.cmdline())]
    table = capsys.readouterr().out
    assert "accuracy 0.25" in table and "01_bad: cell 3: ZeroDivisionError" in table

    write(course, "01_bad", RESULT)  # repaired: only this one runs again, and its failure is gone
    assert run.main(["--set", "rate=0.25", "--data", "sample"]) == 0
    assert files() == ["01_bad.ipynb", "02_good.ipynb", "report.json"]
    assert [entry.get("cached", False) for entry in report()["notebooks"]] == [False, True]


def test_two_at_a_time_each_with_its_own_memory_and_in_order(course):
    meet = "import pathlib, time\npathlib.Path({!r}).touch()\nwhile not pathlib.Path({!r}).exists():\n    pass"
    one, two = str(course / "one"), str(course / "two")
    write(course, "01_large", meet.format(one, two), "held = bytearray(300_000_000)", "time.sleep(2)", RESULT)
    write(course, "02_small", meet.format(two, one), "time.sleep(2)", RESULT)
    write(course, "03_bad", "1 / 0")
    assert run.main(["--at-once", "2"]) == 1
    large, small, bad = report()["notebooks"]
    assert [record["name"] for record in (large, small, bad)] == ["01_large", "02_small", "03_bad"]
    assert (large["status"], small["status"], bad["status"]) == ("ok", "ok", "failed")
    assert large["peak_memory_mb"] > 300 > small["peak_memory_mb"] + 100 > 100
    assert files() == ["01_large.ipynb", "02_small.ipynb", "03_bad.failed.ipynb", "report.json"]


@pytest.fixture
def at_work(course, monkeypatch):
    """A run in a process of its own whose second notebook waits, and the number of that notebook's kernel."""
    shutil.copytree(session.ROOT / "helpers", course / "helpers")
    (course / "requirements.txt").touch()
    monkeypatch.setattr(run, "ROOT", course)
    monkeypatch.setattr(run, "RUNS", course / "build" / "runs")
    (run.RUNS / "default").mkdir(parents=True)
    (run.RUNS / "default" / "report.json").write_text("of an earlier run")
    begun = course / "begun"
    write(course, "01_first")
    write(
        course,
        "02_waits",
        f"import os, pathlib, time\nbegun = pathlib.Path({str(begun)!r})\nagain = begun.exists()",
        "begun.write_text(str(os.getpid()))\nwhile not again:\n    time.sleep(1)",
    )
    command = [sys.executable, "-m", "helpers.run"]
    process = subprocess.Popen(command, cwd=course, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 90
    while not (begun.exists() and begun.read_text()) and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.1)
    assert begun.exists(), process.communicate()[1]
    yield process, int(begun.read_text())
    process.kill()
    process.communicate()


def assert_stopped(course, kernel):
    """Nothing looks finished but the first notebook, the kernel is gone, and the next run does the rest."""
    limit = time.monotonic() + 60
    while psutil.pid_exists(kernel) and psutil.Process(kernel).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < limit, "the kernel is still there"
        time.sleep(0.2)
    assert [name for name in files() if not name.startswith(".")] == ["01_first.ipynb"]
    assert run.main([]) == 0
    assert files() == ["01_first.ipynb", "02_waits.ipynb", "report.json"]
    assert [entry.get("cached", False) for entry in report()["notebooks"]] == [True, False]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_run_is_refused_and_an_interrupted_one_stops_at_once(course, at_work, capsys, number):
    process, kernel = at_work
    assert run.main([]) == 2
    assert "another run is at work" in capsys.readouterr().err
    process.send_signal(number)
    assert "interrupted: what is finished is kept" in process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert_stopped(course, kernel)


def test_killed_run_leaves_nothing_that_looks_finished(course, at_work):
    process, kernel = at_work
    process.kill()
    process.wait()
    assert_stopped(course, kernel)
