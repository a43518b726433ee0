"""Build the wheel and test it in new virtual environments: without extras, and with each extra alone.

    python tools/check_wheel.py [--constraints constraints/cpu.txt] [EXTRA …]

In each environment, the modules of the extra must import, and one call per module must succeed. The modules of an extra
that is not installed must raise an error with the pip command for the extra. In the environment of the extra
`llama-index`, a second distribution of the `llama_index` namespace is installed. Uninstalling one distribution must not
break the remaining distribution.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE_NEIGHBOR = "llama-index-embeddings-jinaai"

BASE = """
from jina_rag import DocumentIndex, load_embedder
with DocumentIndex.open("kb") as index:
    index.add(["Tea is brewed from leaves.", "The cat sat on the mat."], ids=["tea", "cat"])
    assert index.search("hot drink", k=1)[0].doc_id == "tea"
"""
CALLS = {
    "langchain": """
from langchain_jina_rag import JinaLocalEmbeddings, JinaPageRetriever
assert len(JinaLocalEmbeddings(model="lite").embed_query("tea")) == 384
assert JinaPageRetriever(index="kb", k=1).invoke("hot drink")[0].id == "tea"
""",
    "llama-index": """
from llama_index.embeddings.jina_rag import JinaLocalEmbedding
from llama_index.postprocessor.jina_rag_rerank import JinaLocalRerank
from llama_index.readers.jina_rag import JinaPageReader
from llama_index.retrievers.jina_rag import JinaPageRetriever
from llama_index.vector_stores.jina_rag import JinaVectorStore
assert len(JinaLocalEmbedding(model_name="lite").get_query_embedding("tea")) == 384
assert JinaPageRetriever(index="kb", similarity_top_k=1).retrieve("hot drink")[0].node.get_content()
""",
    "models": """
from pathlib import Path
from jina_rag import load_embedder, load_reranker
from jina_rag.testing import make_checkpoint
embedder = load_embedder(make_checkpoint("v4", path=Path("v4")))
assert embedder.encode_query(["tea"], truncate_dim=64).single.shape == (1, 64)
assert load_reranker(make_checkpoint("m0", path=Path("m0"))).score("tea", ["a text"]).shape == (1,)
""",
    "qdrant": """
from jina_rag import DocumentIndex, JinaRagError
try:
    DocumentIndex.open("http://127.0.0.1:9/pages?retries=0&timeout=1")
except JinaRagError as error:
    assert "127.0.0.1:9" in str(error), error
else:
    raise AssertionError("no server answers there")
""",
    "images": """
from PIL import Image
from jina_rag.image_formats import readable_formats
assert readable_formats(bytes([0, 0, 0, 24]) + b"ftypheic" + bytes(12)) == ("HEIF",)
assert "HEIF" in Image.OPEN
""",
    "eval": """
from jina_rag.evaluation.cleaning import Cleaning, Languages
from jina_rag.evaluation.mteb import JinaRagSearch, find_tasks
assert find_tasks(["NFCorpus"])
pairs = [{"query": "where do whales sing?", "passage": "They sing in the deep sea, and far away from the coast."}]
pairs += [{"query": "wo singen die Wale?", "passage": "Sie singen in der Tiefsee, weit entfernt von der Küste."}]
assert list(Cleaning([Languages(("en",))]).stream(pairs)) == pairs[:1]
""",
}
"""Extra → program that imports the modules of the extra and makes one call per module."""
MISSING = {
    "langchain": "import langchain_jina_rag; langchain_jina_rag.JinaLocalEmbeddings",
    "llama-index": "from llama_index.embeddings.jina_rag import JinaLocalEmbedding",
    "models": "from jina_rag import load_embedder; load_embedder('jinaai/jina-embeddings-v4')",
    "qdrant": "from jina_rag import DocumentIndex; DocumentIndex.open('http://127.0.0.1:9/pages')",
    "images": "from jina_rag import load_embedder\n"
    "load_embedder('lite').encode_document([bytes([0, 0, 0, 24]) + b'ftypheic' + bytes(12)])",
    "eval": "from jina_rag.evaluation import mteb; mteb.JinaRagSearch",
}
"""Extra → program that must fail with the pip command if the extra is missing."""


def main() -> None:
    """Run the checks, and exit with a non-zero status if a check fails."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    extra_names = [name for name in extras if name not in ("all", "dev")]
    assert set(extra_names) == set(CALLS) == set(MISSING), "CALLS and MISSING must list the extras of pyproject.toml"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "extras", nargs="*", metavar="EXTRA", help=f"extras to check: {', '.join(extra_names)} (default: all)"
    )
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints" / "cpu.txt")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        check_contents(wheel)
        for extra in ["", *(arguments.extras or extra_names)]:
            environment = Environment(Path(folder) / f"env {extra or 'base'}", arguments.constraints)
            environment.install(f"{wheel}[{extra}]" if extra else str(wheel))
            environment.python(BASE)
            if extra:
                environment.python(CALLS[extra])
            for other in extra_names:
                if other != extra and not (extra == "eval" and other == "models"):
                    environment.check_missing(MISSING[other], other)
            if extra == "llama-index":
                check_namespace(environment, wheel)
            print(f"{extra or 'no extra'}: passed")


def build(folder: Path) -> Path:
    """Build the wheel of the working tree in a folder and return its path."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT])
    [wheel] = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Check that the wheel contains the packages, but no tests and no files in the shared `llama_index` packages."""
    names = zipfile.ZipFile(wheel).namelist()
    for package in ("jina_rag", "langchain_jina_rag", "llama_index/embeddings/jina_rag"):
        assert f"{package}/__init__.py" in names, package
    leaves = [name for name in names if name.startswith("llama_index/")]
    shared = [leaf for leaf in leaves if len(Path(leaf).parts) < 4]
    assert not shared, f"the wheel has files in shared llama_index packages: {shared}"
    assert not [name for name in names if name.startswith(("tests/", "cookbooks/", "benchmarks/", "tools/"))]


def check_namespace(environment: Environment, wheel: Path) -> None:
    """Check that uninstalling one of two distributions in a namespace does not break the remaining distribution."""
    own_import = "from llama_index.embeddings.jina_rag import JinaLocalEmbedding"
    other_import = "from llama_index.embeddings.jinaai import JinaEmbedding"
    environment.install(NAMESPACE_NEIGHBOR)
    environment.python(f"{own_import}\n{other_import}")
    environment.pip("uninstall", "--yes", NAMESPACE_NEIGHBOR)
    environment.python(own_import)
    environment.install(NAMESPACE_NEIGHBOR)
    environment.pip("uninstall", "--yes", "jina-rag")
    environment.python(other_import)
    environment.python("from llama_index.core import VectorStoreIndex")


class Environment:
    """A new virtual environment in a folder."""

    def __init__(self, folder: Path, constraints: Path) -> None:
        run([sys.executable, "-m", "venv", folder])
        self._python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        self._constraints = constraints
        self._work = folder / "work"
        self._work.mkdir()

    def pip(self, *arguments: str) -> None:
        """Run pip with `arguments`."""
        run([self._python, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"])

    def install(self, requirement: str) -> None:
        """Install a requirement or a wheel."""
        self.pip("install", "--constraint", str(self._constraints), requirement)

    def python(self, source: str) -> None:
        """Run a Python program, which must succeed."""
        run([self._python, "-W", "ignore", "-c", source], cwd=self._work)

    def check_missing(self, source: str, extra: str) -> None:
        """Run a Python program, which must fail. The last line of the error must name the extra."""
        process = subprocess.run(
            [self._python, "-W", "ignore", "-c", source], cwd=self._work, capture_output=True, text=True, check=False
        )
        last = (process.stderr.strip().splitlines() or [""])[-1]
        if not process.returncode or f"[{extra}]" not in last:
            sys.exit(
                f"{source}\nmust fail with the pip command for the extra {extra!r}, but printed:\n"
                f"{process.stderr[-2000:]}"
            )


def run(command: list[object], cwd: Path | None = None) -> None:
    """Run a command. If the command fails, exit with the output of the command."""
    process = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))[:2000]}\n{process.stdout[-2000:]}{process.stderr[-4000:]}")


if __name__ == "__main__":
    main()
