"""The first moments of a process: a search loads its model while its command is being read."""

from __future__ import annotations

import sys
import threading

import pytest

from jina_rag import DocumentIndex
from jina_rag.cli import _load, main


@pytest.mark.parametrize(
    ("arguments", "index"),
    [
        (["search", "whales", "--index", "kb"], "kb"),
        (["search", "-i", "kb", "whales"], "kb"),
        (["search", "whales", "--index=a=b"], "a=b"),
        (["search", "whales", "--index"], None),
        (["search", "--help", "-i", "kb"], None),
        (["info", "-i", "kb"], None),
        ([], None),
    ],
)
def test_a_search_loads_its_model_while_it_is_being_read(arguments, index, monkeypatch, capsys):
    begun = []
    monkeypatch.setattr("jina_rag.cli._load", begun.append)
    monkeypatch.setattr("jina_rag.cli.app.main", lambda: None)
    monkeypatch.setattr(sys, "argv", ["jina-rag", *arguments])
    monkeypatch.setattr("jina_rag.cli.gc.set_threshold", lambda *_: None)
    main()
    for thread in threading.enumerate():
        if thread.name == "jina-rag-model":
            thread.join()
    assert begun == ([] if index is None else [index])


def test_the_head_start_holds_the_model_of_the_index_and_is_silent_about_trouble(corpus, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr("jina_rag.cli._preloaded", held)
    _load(str(corpus / "kb"))
    assert [model.name for model in held] == ["lite"]
    _load(str(tmp_path / "nowhere"))
    (tmp_path / "manifest.sqlite3").write_bytes(b"no database, but long enough to be looked at" * 100)
    _load(str(tmp_path))
    assert [model.name for model in held if model] == ["lite"]


def test_a_new_index_loads_its_model_once(docs, tmp_path, monkeypatch):
    from jina_rag.index import session

    loaded = []
    load = session.load_embedder
    monkeypatch.setattr(session, "load_embedder", lambda name: loaded.append(name) or load(name))
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(docs / "animals.pdf")
        assert index.search("whales")
    assert loaded == ["lite"]
