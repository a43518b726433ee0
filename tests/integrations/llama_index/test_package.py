"""The packages in the llama_index namespace: imports, missing dependencies, docstring and README examples."""

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

ADAPTER_DIR = ROOT / "integrations" / "llama-index-jina-rag"
NAMESPACE_DIR = ADAPTER_DIR / "llama_index"
EXPORTS = {
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


@pytest.mark.parametrize(("adapter_class", "base"), BASES)
def test_classes_inherit_llama_index_base_classes(adapter_class, base):
    assert base.__name__ in [parent.__name__ for parent in adapter_class.__mro__]


@pytest.mark.parametrize("adapter_class", [JinaLocalEmbedding, JinaPageEmbedding, JinaLocalRerank, JinaVectorStore])
def test_class_name_equals_python_name(adapter_class):
    assert adapter_class.class_name() == adapter_class.__name__


def test_namespace_folders_have_no_init_module():
    folders = {
        NAMESPACE_DIR,
        *(path for path in NAMESPACE_DIR.iterdir() if path.is_dir() and path.name != "__pycache__"),
    }
    assert len(folders) == 6
    assert not [folder for folder in folders if (folder / "__init__.py").exists()]
    packages = {f"{path.parent.parent.name}.{path.parent.name}" for path in NAMESPACE_DIR.glob("*/*/__init__.py")}
    assert packages == set(EXPORTS)


def test_only_public_jina_rag_names_are_imported():
    for path in NAMESPACE_DIR.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.split(".")[0] == "jina_rag"], path
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jina_rag":
                public = {"jina_rag": jina_rag, "jina_rag.adapters": jina_rag.adapters}
                assert node.module in public, path
                assert {alias.name for alias in node.names} <= set(public[node.module].__all__), path


@pytest.mark.parametrize("package", EXPORTS)
def test_package_exports_its_classes(package):
    module = importlib.import_module(f"llama_index.{package}")
    assert sorted(module.__all__) == sorted(EXPORTS[package])


@pytest.mark.parametrize("package", EXPORTS)
def test_missing_llama_index_error_names_pip_command(package):
    """`pip install jina-rag` installs these packages without LlamaIndex."""
    script = f"""
import importlib.abc, sys
class MissingFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "llama_index.core" or name.startswith("llama_index.core."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, MissingFinder())
import jina_rag
try:
    import llama_index.{package}
except jina_rag.MissingDependencyError as exc:
    assert isinstance(exc, ImportError) and isinstance(exc.__cause__, ModuleNotFoundError)
    print(exc)
"""
    completed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ADAPTER_DIR, check=True, encoding="utf-8"
    )
    assert completed.stdout.strip() == (
        "The package 'llama-index-core' is not installed. Run: "
        'pip install "jina-rag[llama-index]", or in a clone: pip install ".[llama-index]"'
    )


def test_jinaai_package_is_importable_in_shared_namespace():
    jinaai_module = importlib.import_module("llama_index.embeddings.jinaai")
    assert issubclass(jinaai_module.JinaEmbedding, MultiModalEmbedding)
    assert Path(jinaai_module.__file__).parent != NAMESPACE_DIR / "embeddings" / "jinaai"
    namespace_paths = importlib.import_module("llama_index.embeddings").__path__
    assert len({str(Path(path)) for path in namespace_paths}) >= 2


@pytest.mark.parametrize("adapter_class", [JinaLocalEmbedding, JinaPageEmbedding, JinaLocalRerank])
def test_docstring_examples_run(adapter_class):
    doctests = doctest.DocTestFinder().find(adapter_class, adapter_class.__name__, globs={})
    with no_network():
        doctest_results = [doctest.DocTestRunner().run(test) for test in doctests if test.examples]
    assert doctest_results
    assert all(result.attempted and not result.failed for result in doctest_results)


@pytest.mark.parametrize(("adapter_class", "base"), BASES)
def test_class_docstrings_have_all_sections(adapter_class, base):
    for part in ("Setup:", "Instantiate:", "Use:", "Async:", "Args:"):
        assert part in adapter_class.__doc__, part


def test_readme_names_every_class_and_package():
    readme = (ADAPTER_DIR / "README.md").read_text(encoding="utf-8")
    for package, names in EXPORTS.items():
        assert f"llama_index.{package}" in readme
        for name in names:
            assert f"`{name}`" in readme


def test_readme_imports_exist():
    readme = (ADAPTER_DIR / "README.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
