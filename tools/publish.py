"""`publish.py student`: the notebooks without solutions and outputs. `publish.py html`: the notebooks as pages.

Both are written into a folder of their own under build/ and moved into place when complete.
"""

import argparse
import os
import re
import shutil
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat
from filelock import FileLock
from math_core import LatexError, LatexToMathML
from nbconvert import HTMLExporter, NotebookExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
NOTATION = NOTEBOOKS / "notation.md"
BUILD = ROOT / "build"
# The target of a link or picture in markdown or HTML; of an address with a scheme, only the scheme.
TARGET = re.compile(r'(\]\(<?|^\[[^\]]+\]:\s+|\b(?:href|src)=")([^)>"\s#:]+)', re.MULTILINE)
CONVERTER = LatexToMathML(fancy_error=False)

# The template of JupyterLab without what it loads from the network, and with solutions that open on a click.
PAGE = """
{%- extends 'lab/index.html.j2' -%}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_css %}
<style>
main { max-width: 64rem; margin: auto; padding: 0 1rem; }
main > nav { margin: 1rem 0.5rem; font-family: var(--jp-content-font-family); }
main > nav a { color: var(--jp-content-link-color); }
summary { cursor: pointer; margin: 0.5rem; font-family: var(--jp-content-font-family); }
.jp-InputArea-editor { overflow-x: auto; }
math { font-size: 1.1em;
  font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre", math; }
math[display="block"] { margin: 1em 0; overflow-x: auto; overflow-y: hidden; }
</style>
{% endblock %}
{% block body_header %}{{ super() }}
{% if resources.contents %}<nav><a href="index.html">All notebooks</a></nav>{% endif %}
{% endblock %}
{% block input_group %}
{%- if cell.metadata.get("jupyter", {}).get("source_hidden") -%}
<details><summary>{{ "Solution" if "solution" in cell.metadata.get("tags", []) else "Code" }}</summary>
{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{% endblock %}
"""


class Renderer(IPythonRenderer):
    """Equations become MathML, which browsers draw themselves and screen readers read."""

    def inline_math(self, body):
        return mathml(body, display=False)

    def block_math(self, body):
        return mathml(body, display=True)

    def latex_environment(self, name, body):
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)


def mathml(latex, display):
    """MathML of an equation.

    Raises:
        ValueError: it is not understood.
    """
    try:
        return CONVERTER.convert_with_local_state(latex.strip(), displaystyle=display)
    except LatexError as error:
        raise ValueError(f"the equation {latex.strip()!r} is not understood: {error}") from None


def markdown2html(source):
    return MarkdownWithMath(renderer=Renderer(escape=False)).render(source)


def relocate(source, folder, suffix=""):
    """Markdown of a notebook, its relative links made to work from `folder`; what is published gets `suffix`."""

    def moved(match):
        file = (NOTEBOOKS / unquote(match[2])).resolve()
        if not file.exists():
            return match[0]
        if file.parent == NOTEBOOKS and (file.suffix == ".ipynb" or file == NOTATION):
            return match[1] + quote(file.stem + (suffix or file.suffix))
        return match[1] + quote(Path(os.path.relpath(file, folder)).as_posix())

    return TARGET.sub(moved, source)


def read(path, folder, suffix=""):
    """A notebook, or a page of markdown as one, whose links work from `folder`, with its title in the metadata."""
    if path.suffix == ".md":
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))])
    else:
        notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = relocate(cell.source, folder, suffix)
    notebook.metadata["title"] = opening(notebook)[0]
    return notebook


def opening(notebook):
    """(title, first sentence) of a notebook."""
    title, *paragraphs = re.split(r"\n\s*\n", notebook.cells[0].source.strip())
    sentence = re.split(r"(?<=[.?!])\s", " ".join(paragraphs[0].split()))[0] if paragraphs else ""
    return title.lstrip("# "), sentence


@contextmanager
def replacing(folder):
    """An empty folder to write into, which takes the place of `folder` at the end if all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        for left in (part, old):  # by a killed run
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
        try:
            yield part
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
        finally:
            for left in (part, old):
                shutil.rmtree(left, ignore_errors=True)


def student(paths, folder):
    """Write the notebooks without solutions, outputs, execution counts and metadata of runs."""
    config = Config()
    for preprocessor in ("TagRemovePreprocessor", "ClearOutputPreprocessor", "ClearMetadataPreprocessor"):
        config[preprocessor].enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = {"solution"}
    config.ClearMetadataPreprocessor.preserve_cell_metadata_mask = {"tags"}
    config.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec", "language_info"}
    exporter = NotebookExporter(config=config)
    with replacing(folder) as part:
        for path in paths:
            text, _ = exporter.from_notebook_node(read(path, folder))
            (part / path.name).write_text(text, encoding="utf-8")
        text = relocate(NOTATION.read_text(encoding="utf-8"), folder)
        (part / NOTATION.name).write_text(text, encoding="utf-8")


def html(paths, folder):
    """Write the notebooks as pages that load nothing from elsewhere, and an index."""
    config = Config()
    # Without a running kernel, a widget is a picture or its text.
    kinds = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain"]
    config.NbConvertBase.display_data_priority = kinds
    exporter = HTMLExporter(
        config=config,
        raw_template=PAGE,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        filters={"markdown2html": markdown2html},
    )
    contents = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["description"]
    notebooks = {path.stem: read(path, folder, ".html") for path in [*paths, NOTATION]}
    lines = [f"# {contents}", ""]
    for name, notebook in notebooks.items():
        title, sentence = opening(notebook)
        lines += [f"**[{title}]({quote(name)}.html)**", "", sentence, ""]
    index = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("\n".join(lines))])
    index.metadata["title"] = contents
    with replacing(folder) as part:
        for name, notebook in {**notebooks, "index": index}.items():
            notebook.metadata.pop("widgets", None)
            try:
                page, _ = exporter.from_notebook_node(notebook, {"contents": notebook is not index})
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            (part / f"{name}.html").write_text(page, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("student", "html"))
    options = parser.parse_args(arguments)
    paths, folder = sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), BUILD / options.what
    try:
        {"student": student, "html": html}[options.what](paths, folder)
    except OSError as error:
        return f"error: cannot write {folder} ({error.strerror}); free some space or copy the course"
    except ValueError as error:
        return f"error: {error}"
    start = folder / "index.html" if options.what == "html" else folder
    print(f"{len(paths)} notebooks: {start.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
