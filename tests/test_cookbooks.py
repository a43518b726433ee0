"""The cookbooks: they run from top to bottom without network, and what is stored in them is what a reader should see.

`tools/run_cookbooks.py`, which stores their outputs, runs them here as well: through nbclient, as nbmake does.
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
"""Modules whose `__all__` says what is public. Those of `jina_rag.evaluation` have public names without it."""
OURS = r"(jina_rag|langchain_jina_rag|llama_index\.\w+\.jina_rag\w*)"

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def stored(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """All that a reader sees but the pictures."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield output.get("text", "")
            yield from (str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/"))


def images(cell: nbformat.NotebookNode) -> int:
    return sum(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))


def run(path: Path, into: Path) -> subprocess.CompletedProcess[str]:
    # The two minutes that a cookbook may take are for a machine that does nothing else: here only what hangs is ended.
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


def write(path: Path, *sources: str) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


def test_readme_lists_every_notebook():
    readme = (ROOT / "cookbooks" / "README.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) >= 7
    assert sorted(set(re.findall(r"\(([\w.]+\.ipynb)\)", readme))) == [path.name for path in NOTEBOOKS]


@notebooks
def test_notebook_runs_without_network(path, tmp_path):
    done = run(path, tmp_path)
    assert done.returncode == 0, done.stderr
    fresh = code(stored(tmp_path / path.name))
    # What is stored was made by what is written: a cell that was changed afterwards would show here.
    assert [cell.source for cell in fresh] == [cell.source for cell in code(stored(path))]
    assert [images(cell) for cell in fresh] == [images(cell) for cell in code(stored(path))]


@notebooks
def test_stored_outputs_are_displayable(path):
    notebook = stored(path)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "not run from top to bottom"
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert sum(images(cell) for cell in cells) >= 1
    assert path.stat().st_size < 3_000_000
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")


@notebooks
def test_stored_outputs_contain_no_local_paths(path):
    for text in texts(stored(path)):
        found = re.search(r"(?<![\w.:/-])/(?:home|Users|root|tmp|private|var|opt|usr|mnt|work)/|\b[A-Z]:\\\w", text)
        assert not found, text
        assert "Traceback" not in text
        assert " object at 0x" not in text


@notebooks
def test_notebook_imports_public_names_only(path):
    for cell in code(stored(path)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                assert not [alias.name for alias in node.names if re.match(rf"{OURS}\.", alias.name)]
            elif isinstance(node, ast.ImportFrom) and re.match(rf"{OURS}(\.|$)", node.module or ""):
                names = {alias.name for alias in node.names}
                if node.module in PUBLIC:
                    assert names <= set(importlib.import_module(node.module).__all__)
                else:
                    assert node.module.startswith("jina_rag.evaluation."), node.module
                    assert not [name for name in names if name.startswith("_")]


@notebooks
def test_links_point_to_existing_files(path):
    for cell in stored(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", cell.source):
                assert (path.parent / target).exists(), target


def test_network_access_fails(tmp_path):
    path = write(
        tmp_path / "curious.ipynb",
        "import socket, subprocess, sys\n"
        "def refused(call):\n"
        "    try:\n        call()\n"
        "    except ConnectionRefusedError as exc:\n        return 'without network' in str(exc)\n"
        "    return False",
        "assert refused(lambda: socket.create_connection(('192.0.2.1', 80), timeout=1))",
        "assert refused(lambda: socket.getaddrinfo('example.org', 443))",
        "assert refused(lambda: socket.socket().connect_ex(('192.0.2.1', 80)))",
        # What it starts is held to it, too; this machine can be reached.
        "code = 'import socket; socket.create_connection((\"192.0.2.1\", 80), timeout=1)'\n"
        "assert b'without network' in subprocess.run([sys.executable, '-c', code], capture_output=True).stderr",
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\nserver.close()",
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
    )
    done = run(path, tmp_path)
    assert done.returncode == 1
    assert "tried to connect to 192.0.2.1" in done.stderr
    assert "AssertionError" not in done.stderr


def test_failing_notebook_is_reported_and_unchanged(tmp_path):
    (tmp_path / "into").mkdir()
    path = write(tmp_path / "untidy.ipynb", "open('left.txt', 'w').close()")
    before = path.read_bytes()
    done = run(path, tmp_path / "into")
    assert done.returncode == 1
    assert "untidy.ipynb leaves left.txt" in done.stderr
    assert path.read_bytes() == before
    assert not list((tmp_path / "into").iterdir())
