"""Cookbooks: each notebook runs without network, uses public names only, and stores displayable outputs.

The tests run the notebooks with `tools/run_cookbooks.py`, the tool that stores their outputs.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from helpers.paths import ROOT

NOTEBOOKS = sorted((ROOT / "cookbooks").glob("*.ipynb"))
PUBLIC = {
    "jina_rag",
    "jina_rag.testing",
    "langchain_jina_rag",
    "llama_index.embeddings.jina_rag",
    "llama_index.postprocessor.jina_rag_rerank",
    "llama_index.readers.jina_rag",
    "llama_index.retrievers.jina_rag",
    "llama_index.vector_stores.jina_rag",
}
"""Modules with an `__all__`. The modules of `jina_rag.evaluation` have public names without an `__all__`."""
LOCAL_PATH = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|tmp|private|var|opt|usr|mnt|work)/|\b[A-Z]:\\\w")
PACKAGE = r"(jina_rag|langchain_jina_rag|llama_index\.\w+\.jina_rag\w*)"

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read_notebook(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_content(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Yield the cell sources and the text outputs of a notebook."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield output.get("text", "")
            data = output.get("data", {})
            yield from (str(value) for mime_type, value in data.items() if not mime_type.startswith("image/"))


def image_count(cell: nbformat.NotebookNode) -> int:
    return sum(mime_type.startswith("image/") for output in cell.outputs for mime_type in output.get("data", {}))


def run_notebook(path: Path, into: Path) -> subprocess.CompletedProcess[str]:
    # The limit of 120 s applies to an idle machine. This limit only stops notebooks that hang.
    command = [
        sys.executable,
        "tools/run_cookbooks.py",
        "--offline",
        "--timeout",
        "900",
        "--into",
        str(into),
        str(path),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def write_notebook(path: Path, *sources: str) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


def test_readme_lists_every_notebook():
    readme = (ROOT / "cookbooks" / "README.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) >= 7
    assert sorted(set(re.findall(r"\(([\w.]+\.ipynb)\)", readme))) == [path.name for path in NOTEBOOKS]


@notebooks
def test_notebook_runs_without_network(path, tmp_path):
    process = run_notebook(path, tmp_path)
    assert process.returncode == 0, process.stderr
    fresh_cells = code_cells(read_notebook(tmp_path / path.name))
    stored_cells = code_cells(read_notebook(path))
    assert [cell.source for cell in fresh_cells] == [cell.source for cell in stored_cells]
    assert [image_count(cell) for cell in fresh_cells] == [image_count(cell) for cell in stored_cells]


@notebooks
def test_stored_outputs_are_displayable(path):
    notebook = read_notebook(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "cells not run in order"
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert sum(image_count(cell) for cell in cells) >= 1
    assert path.stat().st_size < 3_000_000
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")


@notebooks
def test_stored_outputs_contain_no_local_paths(path):
    for text in text_content(read_notebook(path)):
        assert not LOCAL_PATH.search(text), text
        assert "Traceback" not in text
        assert " object at 0x" not in text


@notebooks
def test_notebook_imports_public_names_only(path):
    for cell in code_cells(read_notebook(path)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                assert not [alias.name for alias in node.names if re.match(rf"{PACKAGE}\.", alias.name)]
            elif isinstance(node, ast.ImportFrom) and re.match(rf"{PACKAGE}(\.|$)", node.module or ""):
                names = {alias.name for alias in node.names}
                if node.module in PUBLIC:
                    assert names <= set(importlib.import_module(node.module).__all__)
                else:
                    assert node.module.startswith("jina_rag.evaluation."), node.module
                    assert not [name for name in names if name.startswith("_")]


@notebooks
def test_links_point_to_existing_files(path):
    for cell in read_notebook(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", cell.source):
                assert (path.parent / target).exists(), target


def test_network_access_fails(tmp_path):
    path = write_notebook(
        tmp_path / "network.ipynb",
        "import socket, subprocess, sys\n"
        "def is_refused(call):\n"
        "    try:\n        call()\n"
        "    except ConnectionRefusedError as exc:\n        return 'without network' in str(exc)\n"
        "    return False",
        "assert is_refused(lambda: socket.create_connection(('192.0.2.1', 80), timeout=1))",
        "assert is_refused(lambda: socket.getaddrinfo('example.org', 443))",
        "assert is_refused(lambda: socket.socket().connect_ex(('192.0.2.1', 80)))",
        # The limit also applies to child processes. Connections to this machine are allowed.
        "code = 'import socket; socket.create_connection((\"192.0.2.1\", 80), timeout=1)'\n"
        "assert b'without network' in subprocess.run([sys.executable, '-c', code], capture_output=True).stderr",
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\nserver.close()",
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
    )
    process = run_notebook(path, tmp_path)
    assert process.returncode == 1
    assert "tried to connect to 192.0.2.1" in process.stderr
    assert "AssertionError" not in process.stderr


def test_failing_notebook_is_reported_and_unchanged(tmp_path):
    (tmp_path / "into").mkdir()
    path = write_notebook(tmp_path / "leftover.ipynb", "open('left.txt', 'w').close()")
    before = path.read_bytes()
    process = run_notebook(path, tmp_path / "into")
    assert process.returncode == 1
    assert "leftover.ipynb leaves left.txt" in process.stderr
    assert path.read_bytes() == before
    assert not list((tmp_path / "into").iterdir())
