"""Fixtures of the command-line tests."""

from __future__ import annotations

import sys

import pytest
from helpers.command_line import Result, write_docs

from jina_rag import DocumentIndex
from jina_rag.cli import main
from jina_rag.index import qdrant_server


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process."""
    monkeypatch.delenv("JINA_RAG_DEBUG", raising=False)

    def run(*args: object, width: int = 140) -> Result:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["jina-rag", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main()
        captured = capsys.readouterr()
        return Result(exit_info.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def docs(tmp_path):
    return write_docs(tmp_path / "docs")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of documents with an index, shared by tests that change neither."""
    root = tmp_path_factory.mktemp("corpus")
    write_docs(root / "docs")
    with DocumentIndex.open(root / "kb") as index:
        for path, year in ((root / "docs" / "animals.pdf", "2024"), (root / "docs" / "reports", "2025")):
            index.ingest(path, metadata={"year": year})
    return root


@pytest.fixture
def address(monkeypatch):
    """URL of a collection on a Qdrant server inside this process."""
    from qdrant_client import QdrantClient

    client = QdrantClient(location=":memory:")
    monkeypatch.setattr(qdrant_server, "_client", client)
    yield "http://localhost:6333/docs"
    client.close()
