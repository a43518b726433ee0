"""Command line: start-up of a process, with preloading of the model and Ctrl-C during imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import types

import pytest

from jina_rag import DocumentIndex
from jina_rag.cli import _InterruptAfterImports, _load, main


@pytest.mark.parametrize(
    ("arguments", "index"),
    [
        (["search", "whales", "--index", "kb"], "kb"),
        (["search", "-i", "kb", "whales"], "kb"),
        (["search", "whales", "--index=a=b"], "a=b"),
        (["search", "whales", "--index"], None),
        (["search", "--help", "-i", "kb"], None),
        (["search", "whales", "-i", "kb", "--device", "cuda:1"], None),
        (["search", "whales", "-i", "kb", "--device=cuda:1"], None),
        (["info", "-i", "kb"], None),
        ([], None),
    ],
)
def test_search_loads_its_model_during_argument_parsing(arguments, index, monkeypatch, capsys):
    loaded_indexes = []
    monkeypatch.setattr("jina_rag.cli._load", loaded_indexes.append)
    monkeypatch.setattr("jina_rag.cli.app.main", lambda: None)
    monkeypatch.setattr(sys, "argv", ["jina-rag", *arguments])
    monkeypatch.setattr("jina_rag.cli.gc.set_threshold", lambda *_: None)
    main()
    for thread in threading.enumerate():
        if thread.name == "jina-rag-model":
            thread.join()
    assert loaded_indexes == ([] if index is None else [index])


def test_preloading_keeps_the_model_and_ignores_errors(corpus, tmp_path, monkeypatch):
    preloaded_models = []
    monkeypatch.setattr("jina_rag.cli._preloaded", preloaded_models)
    _load(str(corpus / "kb"))
    assert [model.name for model in preloaded_models] == ["lite"]
    _load(str(tmp_path / "nowhere"))
    (tmp_path / "manifest.sqlite3").write_bytes(b"not a database" * 400)
    _load(str(tmp_path))
    assert [model.name for model in preloaded_models if model] == ["lite"]


def test_new_index_loads_its_model_once(docs, tmp_path, monkeypatch):
    from jina_rag.index import session

    models = []
    load = session.load_embedder
    monkeypatch.setattr(session, "load_embedder", lambda name, **options: models.append(name) or load(name, **options))
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(docs / "animals.pdf")
        assert index.search("whales")
    assert models == ["lite"]


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("typing_extensions", ["info", "--index", "kb"]),
        ("jina_rag.cli.copy", ["ingest", "docs", "--index", "new"]),
        ("jina_rag.cli.search", ["search", "whales", "--index", "kb"]),
        ("jina_rag.index.document_index", ["search", "whales", "--index", "kb"]),
        ("qdrant_edge", ["info", "--index", "kb"]),
        ("onnxruntime", ["ingest", "docs", "--index", "new"]),
    ],
)
def test_ctrl_c_during_an_import_prints_interrupted(module, arguments, corpus, tmp_path):
    """The process sends itself SIGINT while it imports a module."""
    code = (
        "import os, signal, sys, threading\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r} and threading.current_thread() is threading.main_thread():\n"
        "            sys.meta_path.remove(self)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = ['jina-rag', *{arguments!r}]\n"
        "from jina_rag.cli import main\n"
        "main()\n"
    )
    for name in ("docs", "kb"):
        (tmp_path / name).symlink_to(corpus / name)
    process_result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (process_result.returncode, process_result.stdout, process_result.stderr) == (130, "", "Interrupted.\n")


def test_ctrl_c_waits_for_an_import_up_to_a_limit(monkeypatch):
    """After the limit, Ctrl-C exits the process during the import."""
    exits = []
    monkeypatch.setattr("jina_rag.cli._IMPORT_GRACE", -1.0)
    monkeypatch.setattr("os._exit", exits.append)
    monkeypatch.setattr("os.write", lambda number, text: exits.append((number, text)))
    monkeypatch.setattr("jina_rag.cli.threading.Timer", lambda *_: types.SimpleNamespace(start=lambda: None))
    code = types.SimpleNamespace(co_filename="<frozen importlib._bootstrap>")
    frame = types.SimpleNamespace(f_back=types.SimpleNamespace(f_code=code), f_code=main.__code__)
    handler = _InterruptAfterImports()
    handler(signal.SIGINT, frame)
    assert exits == [(2, b"Interrupted.\n"), 130]
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, types.SimpleNamespace(f_back=None, f_code=main.__code__))
