"""Adapters of an open index in forked children, as of ProcessPoolExecutor, Celery's prefork and gunicorn --preload."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="requires fork")

PRELUDE = """
import asyncio, multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from jina_rag import DocumentIndex
from jina_rag.errors import IndexLockedError, IndexStateError

def answer(name):
    signal.alarm(30)  # ends a child that waits
    try:
        calls[name]()
    except IndexStateError as error:
        return error
"""

LANGCHAIN = """
from langchain_jina_rag import JinaPageRetriever, JinaVectorStore
calls = {
    "retriever": lambda: retriever.invoke("pump"),
    "passed": lambda: passed.invoke("pump"),
    "async": lambda: asyncio.run(retriever.ainvoke("pump")),
    "store": lambda: store.similarity_search("pump"),
    "add": lambda: store.add_texts(["child"], ids=["child"]),
    "delete": lambda: store.delete(["p0"]),
}
"""

LLAMA_INDEX = """
from llama_index.core.schema import TextNode
from llama_index.retrievers.jina_rag import JinaPageRetriever
from llama_index.vector_stores.jina_rag import JinaVectorStore
calls = {
    "retriever": lambda: retriever.retrieve("pump"),
    "passed": lambda: passed.retrieve("pump"),
    "async": lambda: asyncio.run(retriever.aretrieve("pump")),
    "store": lambda: store.client.search("pump"),
    "add": lambda: store.add([TextNode(text="child", id_="child")]),
    "delete": lambda: store.delete_nodes(["p0"]),
}
"""

SETUP = """
with DocumentIndex.open("kb") as index:
    index.add(["pump"], ids=["p0"])
opened = DocumentIndex.open("kb")
retriever, store = JinaPageRetriever(index="kb"), JinaVectorStore("kb")
passed = JinaPageRetriever(index=opened)
"""

CHECKS = """
retriever.invoke("pump") if hasattr(retriever, "invoke") else retriever.retrieve("pump")
context = multiprocessing.get_context("fork")
with ProcessPoolExecutor(1, mp_context=context) as pool:
    errors = {name: pool.submit(answer, name).result(60) for name in calls}
for name, error in errors.items():
    assert isinstance(error, IndexStateError) and str(os.getpid()) in str(error), (name, error)
    assert isinstance(error, IndexLockedError) != (name == "passed"), (name, error)
for name in calls:  # a child that ends with the destruction of all objects
    pid = os.fork()
    if pid == 0:
        sys.exit(answer(name) is None)
    assert os.waitpid(pid, 0)[1] == 0, name
assert [document.doc_id for document in opened.documents()] == ["p0"] and not opened.verify()
for adapter in (retriever, store):
    adapter.close()
opened.close()
with ProcessPoolExecutor(1, mp_context=context) as pool:
    assert [name for name in calls if pool.submit(answer, name).result(60) is not None] == ["passed"]
with DocumentIndex.open("kb") as index:
    assert [document.doc_id for document in index.documents()] in (["child"], ["child", "p0"]) and not index.verify()
"""


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_adapter_of_an_open_index_raises_in_a_child_and_works_after_the_index_is_closed(tmp_path, framework):
    pytest.importorskip({"langchain": "langchain_core", "llama_index": "llama_index.core"}[framework])
    script = PRELUDE + {"langchain": LANGCHAIN, "llama_index": LLAMA_INDEX}[framework] + SETUP + textwrap.dedent(CHECKS)
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
    )
    assert process.returncode == 0, process.stderr
