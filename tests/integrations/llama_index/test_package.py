"""The leaves of the llama_index namespace: what they import, what they leave alone, what is said without LlamaIndex."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.llama_index_fakes import no_network
from helpers.paths import ROOT
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import TransformComponent
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index.embeddings.jina_rag import JinaLocalEmbedding, JinaPageEmbedding
from llama_index.postprocessor.jina_rag_rerank import JinaLocalRerank
from llama_index.readers.jina_rag import JinaPageReader
from llama_index.retrievers.jina_rag import JinaPageRetriever
from llama_index.vector_stores.jina_rag import JinaVectorStore

import jina_rag.adapters

ROOT = ROOT / "integrations" / "llama-index-jina-rag"
SPACE = ROOT / "llama_index"
LEAVES = {
    "embeddings.jina_rag": ("JinaLocalEmbedding", "JinaPageEmbedding"),
    "postprocessor.jina_rag_rerank": ("JinaLocalRerank",),
    "readers.jina_rag": ("JinaPageReader",),
    "retrievers.jina_rag": ("JinaPageRetriever",),
    "vector_stores.jina_rag": ("JinaVectorStore",),
}
BASES = [
    (JinaLocalEmbedding, BaseEmbedding),
    (JinaLocalEmbedding, MultiModalEmbedding),
    (JinaPageEmbedding, TransformComponent),
    (JinaLocalRerank, BaseNodePostprocessor),
    (JinaPageReader, BaseReader),
    (JinaPageRetriever, BaseRetriever),
    (JinaVectorStore, BasePydanticVectorStore),
]


@pytest.mark.parametrize(("ours", "base"), BASES)
def test_classes_are_what_llama_index_takes(ours, base):
    assert base.__name__ in [parent.__name__ for parent in ours.__mro__]


@pytest.mark.parametrize("ours", [JinaLocalEmbedding, JinaPageEmbedding, JinaLocalRerank, JinaVectorStore])
def test_class_names_are_those_of_the_classes(ours):
    assert ours.class_name() == ours.__name__


def test_nothing_stands_above_a_leaf_that_would_hide_other_packages():
    folders = {SPACE, *(path for path in SPACE.iterdir() if path.is_dir() and path.name != "__pycache__")}
    assert len(folders) == 6
    assert not [folder for folder in folders if (folder / "__init__.py").exists()]
    leaves = {f"{path.parent.parent.name}.{path.parent.name}" for path in SPACE.glob("*/*/__init__.py")}
    assert leaves == set(LEAVES)


def test_only_public_names_of_jina_rag_are_imported():
    for path in SPACE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.split(".")[0] == "jina_rag"], path
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jina_rag":
                public = {"jina_rag": jina_rag, "jina_rag.adapters": jina_rag.adapters}
                assert node.module in public, path
                assert {alias.name for alias in node.names} <= set(public[node.module].__all__), path


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_exports_its_classes(leaf):
    module = importlib.import_module(f"llama_index.{leaf}")
    assert sorted(module.__all__) == sorted(LEAVES[leaf])


@pytest.mark.parametrize("leaf", LEAVES)
def test_without_llama_index_one_sentence_says_what_to_install(leaf):
    """As after `pip install jina-rag` alone: the leaves are there, the framework is not."""
    script = f"""
import importlib.abc, sys
class Gone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "llama_index.core" or name.startswith("llama_index.core."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
import jina_rag
try:
    import llama_index.{leaf}
except jina_rag.MissingDependencyError as exc:
    assert isinstance(exc, ImportError) and isinstance(exc.__cause__, ModuleNotFoundError)
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True, encoding="utf-8"
    )
    assert done.stdout.strip() == (
        "This needs the package 'llama-index-core', which is not installed: "
        'pip install "jina-rag[llama-index]", or in a clone: pip install ".[llama-index]"'
    )


def test_the_neighbour_in_the_namespace_is_there_beside_ours():
    neighbour = importlib.import_module("llama_index.embeddings.jinaai")
    assert issubclass(neighbour.JinaEmbedding, MultiModalEmbedding)
    assert Path(neighbour.__file__).parent != SPACE / "embeddings" / "jinaai"
    spaces = importlib.import_module("llama_index.embeddings").__path__
    assert len({str(Path(path)) for path in spaces}) >= 2


@pytest.mark.parametrize("ours", [JinaLocalEmbedding, JinaPageEmbedding, JinaLocalRerank])
def test_examples_in_the_manuals_run(ours):
    doctests = doctest.DocTestFinder().find(ours, ours.__name__, globs={})
    with no_network():
        ran = [doctest.DocTestRunner().run(test) for test in doctests if test.examples]
    assert ran
    assert all(result.attempted and not result.failed for result in ran)


@pytest.mark.parametrize(("ours", "base"), BASES)
def test_every_class_has_a_manual(ours, base):
    for part in ("Setup:", "Instantiate:", "Use:", "Async:", "Args:"):
        assert part in ours.__doc__, part


def test_the_readme_names_every_class_and_no_other_leaf():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for leaf, names in LEAVES.items():
        assert f"llama_index.{leaf}" in readme
        for name in names:
            assert f"`{name}`" in readme


def test_the_python_in_the_readme_is_whole():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
