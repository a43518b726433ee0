"""Imports: the package, the command line and a search load no heavy packages, and no package sends telemetry."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import jina_rag

HEAVY_PACKAGES = {
    "torch", "onnxruntime", "fitz", "pymupdf", "qdrant_edge", "qdrant_client", "PIL", "rapidocr", "cv2", "tokenizers",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Return the top-level modules of a new process after it ran `code`."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(process.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "excluded_packages"),
    [
        ("import jina_rag", {"numpy", "typer", "rich", "pydantic"}),
        ("import jina_rag.cli", {"numpy", "typer", "rich", "pydantic"}),
        ("import jina_rag.cli.app", set()),
        ("from jina_rag import Page, Region, ScoredPage, Embeddings, IngestReport, JinaRagError", {"typer", "rich"}),
        ("from jina_rag import DocumentIndex, load_embedder, load_reranker", {"typer", "rich"}),
    ],
)
def test_import_loads_no_heavy_packages(code, excluded_packages):
    assert not modules_after(code) & (HEAVY_PACKAGES | excluded_packages)


def test_dir_of_package_equals_all():
    # In a separate process, because other tests import submodules and thereby add names to the package's namespace.
    code = (
        "import jina_rag\n"
        "assert dir(jina_rag) == sorted(jina_rag.__all__), dir(jina_rag)\n"
        "assert all(getattr(jina_rag, name) is not None for name in jina_rag.__all__)\n"
        "assert dir(jina_rag) == sorted(jina_rag.__all__), 'after use'\n"
        "from jina_rag import *\n"
        "assert {'DocumentIndex', 'load_embedder', 'load_reranker', 'ScoredPage', 'Page'} <= set(globals())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_attribute_raises_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'DocumentIndexes'"):
        _ = jina_rag.DocumentIndexes


def test_search_command_loads_no_ingestion_packages(tmp_path):
    """Packages for rendering, OCR and reports slow down the cold start of `jina-rag search`."""
    from jina_rag import DocumentIndex
    from jina_rag.config import IngestSettings
    from jina_rag.testing import sample_pdf

    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(sample_pdf(tmp_path / "a.pdf", ["whales sing"]), settings=IngestSettings(ocr="never"))
    code = (
        f"sys.argv = ['jina-rag', 'search', 'whales', '--index', {str(tmp_path / 'kb')!r}, '--json']\n"
        "from jina_rag.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as done:\n    assert done.code == 0"
    )
    modules = modules_after(code)
    assert {"onnxruntime", "qdrant_edge"} <= modules
    assert not modules & {"PIL", "pymupdf", "fitz", "rapidocr", "cv2", "tokenizers", "jinja2", "torch", "pytrec_eval"}


def test_onnxruntime_writes_no_telemetry(tmp_path):
    """onnxruntime 1.32 stores pending telemetry and a machine id in the user's cache folder."""
    code = (
        "import PIL.Image\n"
        "from jina_rag import load_embedder, load_reranker\n"
        "assert load_embedder('lite-en').encode_query(['growth']).single.shape == (1, 384)\n"
        "load_reranker('lite-en').score('growth', [PIL.Image.new('RGB', (60, 40), 'white')])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not [path for path in tmp_path.rglob("*") if "microsoft" in str(path.relative_to(tmp_path)).lower()]
