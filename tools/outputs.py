"""Store the outputs of one clean run in the notebooks, and the measured costs in them and in README.md.

`make outputs NB=02` runs the default profile on full data through `helpers.run` and copies outputs back. Cells,
tags and ids stay as they are, so that this changes outputs only.
"""

import base64
import os
import re
import sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers import run

COST = re.compile(r"<!-- cost -->.*?<!-- /cost -->", re.S)
PICTURE = ("01_mnist_mlp.ipynb", "The test images that the model got wrong")  # the figure that README.md shows
TABLE = re.compile(r"<!-- table -->.*?<!-- /table -->", re.S)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def cost_line(record):
    """The measured cost as a sentence for the opening of a notebook."""
    return (
        f"<!-- cost -->**Time and memory**, measured with the default parameters on {os.cpu_count()} CPU cores: "
        f"{record['seconds'] / 60:.1f} minutes and {record['peak_memory_mb'] / 1024:.1f} GB.<!-- /cost -->"
    )


def clean_output(output):
    """An output without what depends on the run: execution counts are set by the caller, widget state is dropped."""
    if "data" in output:
        output.data.pop("application/vnd.jupyter.widget-view+json", None)
    output.pop("transient", None)
    return output


def store(path, record):
    """Copy outputs of the executed notebook into `path`, numbered in order, without papermill's own cells."""
    executed = nbformat.read(run.RUNS / "default" / path.name, as_version=4)
    done = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    notebook = nbformat.read(path, as_version=4)
    if [cell.source for cell in done] != [cell.source for cell in notebook.cells]:
        raise SystemExit(f"error: {path.name} changed while it ran; its outputs are not stored")
    number = 0
    for cell, ran in zip(notebook.cells, done):
        if cell.cell_type == "markdown":
            cell.source = COST.sub(lambda _: cost_line(record), cell.source)
            continue
        number += 1
        cell.execution_count = number
        cell.outputs = [clean_output(output) for output in ran.outputs]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    nbformat.validate(notebook)
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(path)


def title_of(path):
    first = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
    return first.removeprefix("# ")


def readme_row(path, record):
    """One line of README's table of notebooks."""
    value = record["results"].get(record["headline"])
    result = "every formula agrees with its check" if value is None else f"{record['headline']} {value:.4f}"
    minutes, memory = f"{record['seconds'] / 60:.1f}", f"{record['peak_memory_mb'] / 1024:.1f}"
    return f"| [{title_of(path)}](notebooks/{path.name}) | {minutes} | {memory} | {result} |"


def update_readme(records):
    readme = run.ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    rows = {name: line for line, name in re.findall(r"^(\| \[[^\]]*\]\(notebooks/([^)]+)\).*)$", text, re.M)}
    for path, record in records:
        rows[path.name] = readme_row(path, record)
    head = "| notebook | minutes | memory (GB) | headline result |\n|---|---|---|---|\n"
    table = "<!-- table -->\n" + head + "\n".join(rows[name] for name in sorted(rows)) + "\n<!-- /table -->"
    readme.write_text(TABLE.sub(lambda _: table, text), encoding="utf-8")


def store_picture():
    """Write README.md's picture from the stored outputs of the notebook that draws it."""
    name, begins = PICTURE
    notebook = nbformat.read(run.NOTEBOOKS / name, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    [figure] = [output.data for output in outputs if output.get("data", {}).get("text/plain", "").startswith(begins)]
    (run.ROOT / "data" / "readme.png").write_bytes(base64.b64decode(figure["image/png"]))


def main():
    os.environ["PYTHONPATH"] = str(run.ROOT)
    paths = run.find_notebooks(sys.argv[1:])
    records = run.run(paths, "default", "full")
    print(run.table(records))
    good = [(path, record) for path, record in zip(paths, records) if record["status"] == "ok"]
    for path, record in good:
        store(path, record)
    update_readme(good)
    store_picture()
    sys.exit(int(len(good) < len(paths)))


if __name__ == "__main__":
    main()
