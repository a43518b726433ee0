"""The package langchain_jina_rag: imports, missing dependencies, runnable docstring and README examples."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("langchain_core")

import langchain_jina_rag
from helpers.langchain_fakes import PAGES, PLAIN, EchoChat, no_network
from PIL import Image, ImageDraw, ImageFont

import jina_rag.adapters
from jina_rag import DocumentIndex, load_reranker
from jina_rag.testing import sample_pdf

FOLDER = Path(langchain_jina_rag.__file__).parent
README = FOLDER.parent / "README.md"
CLASSES = [getattr(langchain_jina_rag, name) for name in langchain_jina_rag.__all__ if name[0].isupper()]


@pytest.fixture(autouse=True)
def block_network():
    with no_network():
        yield


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_only_public_jina_rag_names_are_imported(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "jina_rag" for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "jina_rag":
            public = {"jina_rag": jina_rag, "jina_rag.adapters": jina_rag.adapters}
            assert node.module in public, "import public names only"
            assert {alias.name for alias in node.names} <= set(public[node.module].__all__)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "index":
            assert not node.attr.startswith("_")


def test_public_names_are_complete_and_lazy():
    output = run_python(
        "import langchain_jina_rag, sys\n"
        "assert dir(langchain_jina_rag) == sorted(langchain_jina_rag.__all__)\n"
        "assert not {'numpy', 'torch', 'PIL', 'onnxruntime'} & set(sys.modules)\n"
        "from langchain_jina_rag import *\n"
        "print(JinaPageRetriever, JinaVectorStore)\n"
        "assert not {'torch', 'onnxruntime', 'langchain_classic', 'langchain_community', 'pymupdf'} & set(sys.modules)"
    )
    assert "JinaPageRetriever" in output
    with pytest.raises(AttributeError, match="has no attribute 'JinaRetriever'"):
        _ = langchain_jina_rag.JinaRetriever
    for name in langchain_jina_rag.__all__:
        assert getattr(langchain_jina_rag, name).__name__ == name


def test_missing_langchain_core_error_names_pip_command():
    code = (
        "import sys\nsys.modules['langchain_core'] = None\n"
        "from jina_rag import MissingDependencyError\n"
        "try:\n    import langchain_jina_rag\n"
        "except ImportError as exc:\n    assert isinstance(exc, MissingDependencyError)\n    print(exc)"
    )
    assert run_python(code).strip() == (
        "The package 'langchain-core' is not installed. Run: "
        'pip install "jina-rag[langchain]", or in a clone: pip install ".[langchain]"'
    )


def test_missing_dependency_of_langchain_core_is_reraised(tmp_path):
    (tmp_path / "langchain_core").mkdir()
    (tmp_path / "langchain_core" / "__init__.py").write_text("import nothing_of_that_name")
    code = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    import langchain_jina_rag\nexcept ModuleNotFoundError as exc:\n    print(exc.name)"
    )
    assert run_python(code).strip() == "nothing_of_that_name"


def code_blocks(text: str) -> list[str]:
    """Return the Python code blocks of a docstring."""
    lines, blocks = inspect.cleandoc(text).splitlines(), []
    for start, line in enumerate(lines):
        if line.strip() != ".. code-block:: python":
            continue
        depth = len(line) - len(line.lstrip())
        block = []
        for entry in lines[start + 1 :]:
            if entry.strip() and len(entry) - len(entry.lstrip()) <= depth:
                break
            block.append(entry)
        blocks.append(textwrap.dedent("\n".join(block)))
    return blocks


@pytest.fixture
def example_folder(tmp_path, monkeypatch):
    """Working directory with the files of the examples; the lite reranker replaces downloaded rerankers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jina_rag.adapters.models.load_reranker", lambda name, **options: load_reranker("lite"))
    (tmp_path / "docs" / "reports").mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    sample_pdf(tmp_path / "docs" / "animals.pdf", PAGES)
    sample_pdf(tmp_path / "docs" / "reports" / "a.pdf", PAGES[:1])
    sample_pdf(tmp_path / "reports" / "b.pdf", PAGES[:1])
    image = Image.new("RGB", (500, 90), "white")
    ImageDraw.Draw(image).text((10, 10), "growth by region", fill="black", font=ImageFont.load_default(48))
    image.save(tmp_path / "chart.png")
    with DocumentIndex.open("kb") as index:
        index.ingest("docs", settings=PLAIN)
        yield


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
async def test_class_docstring_has_all_sections_and_runs(cls, example_folder):
    docstring = inspect.cleandoc(cls.__doc__)
    assert re.findall(r"^(Setup|Instantiate|Use|Async):$", docstring, re.MULTILINE) == [
        "Setup",
        "Instantiate",
        "Use",
        "Async",
    ]
    assert 'pip install ".[langchain]"' in docstring
    blocks = code_blocks(docstring)
    assert len(blocks) >= 3
    assert any("await " in block or "async for" in block for block in blocks)
    namespace: dict = {}
    for block in blocks:
        code = compile(block, cls.__name__, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)
        if inspect.isawaitable(result):
            await result
    if "docs" in namespace:
        assert namespace["docs"]
    for value in namespace.values():
        if hasattr(value, "close") and not inspect.isclass(value):
            value.close()


def test_function_and_readme_examples_run(example_folder):
    from langchain_core.messages import HumanMessage

    query, model = "Which region grew fastest?", EchoChat(requests=[])
    with langchain_jina_rag.JinaPageRetriever(index="kb/") as retriever:
        namespace: dict = {"retriever": retriever, "model": model}
        (block,) = code_blocks(langchain_jina_rag.documents_to_content_blocks.__doc__)
        exec(block, namespace)
        assert any(part["type"] == "image" for part in model.requests[0][0].content_blocks)
    namespace = {"query": query}
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in block.splitlines() if line]) == 3
    exec(block, namespace)
    assert HumanMessage(content_blocks=namespace["blocks"]).content_blocks
    namespace["retriever"].close()


def test_readme_starts_with_late_interaction_and_lists_classes():
    text = README.read_text(encoding="utf-8")
    first_paragraph = text.split("\n\n")[1].replace("\n", " ")
    assert "Use `JinaPageRetriever` or `JinaVectorStore` for late interaction and page images" in first_paragraph
    assert "returns one vector per text" in first_paragraph
    for name in langchain_jina_rag.__all__:
        assert f"| `{name}` |" in text
    assert not re.search(r"pip install (-U |--upgrade )?[\"']?jina[-_]rag", text)


def test_public_methods_have_docstrings():
    for cls in CLASSES:
        for name, member in vars(cls).items():
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
                assert inspect.getdoc(member), f"{cls.__name__}.{name}"


def test_async_methods_are_coroutine_functions():
    """Each method that embeds or searches has a coroutine form."""
    pairs = {
        "JinaPageRetriever": {"invoke", "invoke_image", "context", "batch"},
        "JinaLocalEmbeddings": {"embed_documents", "embed_query", "embed_images"},
        "JinaLocalRerank": {"compress_documents"},
        "JinaCompressionRetriever": {"invoke"},
    }
    for name, methods in pairs.items():
        for method in methods:
            assert inspect.iscoroutinefunction(getattr(getattr(langchain_jina_rag, name), f"a{method}"))
