"""Run notebooks headless: `python -m helpers.run 01 03 --profile smoke --data sample --set seed=7`.

Executed notebooks and `report.json` go to `build/runs/<profile>/`. A notebook whose last run is up to date is
skipped. The exit status is 0 if all succeeded, 1 if one failed, 2 for a wrong call, 130 when interrupted.
"""

import argparse
import ast
import hashlib
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
import yaml
from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "build" / "runs"
QUIET = "--IPKernelApp.log_level=ERROR"  # else each kernel warns that it talks over TCP on this machine
ALWAYS = {"seed", "data"}  # parameters that keep the profile, and so its bands


class UsageError(Exception):
    """A wrong call; the message lists what is valid."""


def find_notebooks(names=()):
    """Paths of the notebooks named by number (`01`), by name (`01_mnist_mlp`) or by file; all without names."""
    every = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    chosen = []
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        found = [path for path in every if stem in (path.stem, path.stem.split("_")[0])]
        if not found:
            raise UsageError(f"no notebook {name!r}; there are: {', '.join(path.stem for path in every)}")
        chosen += [path for path in found if path not in chosen]
    return chosen or every


def parameters_of(notebook):
    """Names and default values in the cell tagged `parameters`."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            lines = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
            return {node.targets[0].id: ast.literal_eval(node.value) for node in lines}
    return {}


def read_profiles():
    """`profiles.yml`: profile, notebook, parameter to value; the default profile changes nothing."""
    return {"default": {}, **yaml.safe_load((NOTEBOOKS / "profiles.yml").read_text(encoding="utf-8"))}


def parameters_for(path, profile, data=None, settings=None):
    """The parameters to run a notebook with: its profile's values, the data tier, then `settings`.

    Raises:
        UsageError: an unknown profile, a parameter that the notebook does not have, or text for a number.
    """
    profiles, settings = read_profiles(), settings or {}
    if profile not in profiles:
        raise UsageError(f"no profile {profile!r}; there are: {', '.join(profiles)}")
    known = parameters_of(nbformat.read(path, as_version=4))
    values = {"profile": profile, **((profiles[profile] or {}).get(path.stem) or {}), **settings}
    if set(settings) - ALWAYS:
        values["profile"] = "custom"  # the bands hold for the profile's own values only
    if data and "data" in known:
        values["data"] = data
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{path.stem} has no parameter {name!r}; it has: {', '.join(known)}")
        if isinstance(value, str) and isinstance(known[name], int | float):
            try:
                values[name] = float(value)  # YAML reads 1e-3 as text
            except ValueError:
                raise UsageError(f"{path.stem} takes a number for {name!r}, not {value!r}") from None
    return values


def fingerprint(path, values):
    """Changes when the notebook's cells, the parameters, the helpers, the bands, the data or the pins change."""
    from helpers.data import data_dir

    notebook = nbformat.read(path, as_version=4)
    bands = NOTEBOOKS / "expected.yml"
    parts = [
        [(cell.cell_type, cell.source) for cell in notebook.cells],
        sorted(values.items()),
        [file.read_text(encoding="utf-8") for file in sorted((ROOT / "helpers").glob("*.py")) if file.name != "run.py"],
        (yaml.safe_load(bands.read_text(encoding="utf-8")) or {}).get(path.stem) if bands.exists() else None,
        (ROOT / "requirements.txt").read_text(encoding="utf-8"),
        sorted(str(file) for file in data_dir().glob("**/dataset_info.json")),
        os.environ.get("KERAS_BACKEND"),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def record_of(path):
    """What an executed notebook says of its own run; empty where there is none."""
    with suppress(OSError, ValueError, AttributeError):
        return nbformat.read(path, as_version=4).metadata.get("course", {})
    return {}


def results_of(notebook):
    """(data tier, {metric: value}, metric to report) that `load_images` and `expect` left in the outputs."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    notes = [output.get("metadata", {}).get("course", {}) for output in outputs]
    tiers = [note["tier"] for note in notes if "tier" in note]
    results = {note["metric"]: note["value"] for note in notes if "metric" in note}
    main = [note["metric"] for note in notes if note.get("headline")] or list(results)
    return (tiers or ["none"])[-1], results, main[-1] if main else None


@contextmanager
def _peak_memory(mark):
    """A list whose only item is the peak resident memory, in MB, of our child with `mark` on its command line."""
    peak, done = [0.0], threading.Event()

    def watch():
        while not done.wait(0.2):
            held = 0
            with suppress(psutil.Error):  # one has just ended
                kernels = [child for child in psutil.Process().children() if mark in child.cmdline()]
                for process in [below for kernel in kernels for below in (kernel, *kernel.children(recursive=True))]:
                    held += process.memory_info().rss / 2**20
            peak[0] = max(peak[0], held)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def run_notebook(path, folder, values, label):
    """Execute one notebook into `folder` and return its record; a failure is kept as `NAME.failed.ipynb`."""
    import papermill

    name = path.stem
    part, final, failed = folder / f".{name}.part.ipynb", folder / f"{name}.ipynb", folder / f"{name}.failed.ipynb"
    for old in (part, final, failed):
        old.unlink(missing_ok=True)
    record = {"name": name, "status": "ok", "parameters": values, "fingerprint": fingerprint(path, values)}
    begun = time.monotonic()
    bar = {"desc": label, "leave": False}
    mark = f"--Session.username={name}"  # tells this kernel's process from that of another notebook
    with _peak_memory(mark) as peak:
        try:
            papermill.execute_notebook(
                path, part, values, kernel_name="python3", progress_bar=bar, extra_arguments=[QUIET, mark]
            )
        except papermill.PapermillExecutionError as error:
            record.update(status="failed", error=f"cell {error.cell_index}: {error.ename}: {error.evalue}")
        except RuntimeError as error:  # the kernel died or did not start
            record.update(status="failed", error=f"{type(error).__name__}: {error}")
    record.update(seconds=round(time.monotonic() - begun, 1), peak_memory_mb=round(peak[0]))
    notebook = nbformat.read(part if part.exists() else path, as_version=4)
    record["data"], record["results"], record["headline"] = results_of(notebook)
    notebook.metadata["course"] = record
    nbformat.write(notebook, part)
    part.replace(final if record["status"] == "ok" else failed)
    return record


def run(paths, profile, data=None, settings=None, folder=None, at_once=1):
    """Run notebooks, `at_once` at a time, going on after a failure; returns their records and writes the report."""
    folder = (folder or RUNS / profile).resolve()
    values = [parameters_for(path, profile, data, settings) for path in paths]
    labels, report = [f"{i}/{len(paths)} {path.stem}" for i, path in enumerate(paths, 1)], folder / "report.json"

    def one(path, values, label):
        record = record_of(folder / path.name)
        if record.get("fingerprint") == fingerprint(path, values):
            return {**record, "cached": True}
        return run_notebook(path, folder, values, label)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            for old in [*folder.glob(".*.part*"), report]:  # what a killed run left
                old.unlink(missing_ok=True)
            with chdir(NOTEBOOKS), ThreadPoolExecutor(at_once) as pool:
                records = list(pool.map(one, paths, values, labels))
            part = folder / ".report.part"
            part.write_text(json.dumps({"profile": profile, "notebooks": records}, indent=1) + "\n", encoding="utf-8")
            part.replace(report)
    except Timeout:
        raise UsageError(f"another run is at work in {folder}; wait for it, or use another profile") from None
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror}); free some space or copy the course") from None
    return records


def table(records):
    """The records as a text table."""
    rows = [("notebook", "status", "minutes", "memory", "data", "headline result")]
    for record in records:
        status = "up to date" if record.get("cached") else record["status"]
        value = record["results"].get(record["headline"])
        result = "" if value is None else f"{record['headline']} {value:.4g}"
        memory = f"{record['peak_memory_mb'] / 1024:.1f} GB"
        rows.append((record["name"], status, f"{record['seconds'] / 60:.1f}", memory, record["data"], result))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines + [f"{record['name']}: {record['error']}" for record in records if "error" in record])


def positive(text):
    """The command line's number of notebooks at a time."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def setting(text):
    """(name, value) of the command line's `name=value`."""
    name, value = text.split("=", 1)
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


def _stop(*_):
    """End at once, with the kernels: an exception could be swallowed, and nothing unfinished has its final name."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            child.kill()
    print("\ninterrupted: what is finished is kept and skipped next time", file=sys.stderr, flush=True)
    os._exit(130)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m helpers.run", description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="numbers or names; all without any")
    parser.add_argument("--profile", default="default", help="smoke, default or full (notebooks/profiles.yml)")
    parser.add_argument("--data", choices=("auto", "full", "sample"), help="the data tier")
    parser.add_argument("--set", type=setting, action="append", metavar="NAME=VALUE", help="a parameter; repeatable")
    parser.add_argument("--at-once", type=positive, default=1, metavar="N", help="notebooks at a time; 1 if not given")
    options = parser.parse_args(arguments)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this environment, whatever else is installed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        paths, settings = find_notebooks(options.notebooks), dict(options.set or [])
        records = run(paths, options.profile, options.data, settings, at_once=options.at_once)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(records))
    print(f"executed notebooks and report.json: {os.path.relpath(RUNS / options.profile)}")
    return int(any(record["status"] != "ok" for record in records))


if __name__ == "__main__":
    sys.exit(main())
