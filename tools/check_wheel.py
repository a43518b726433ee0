"""Build the wheel and try it as users get it: in empty environments, with no extra and with each extra alone.

    python tools/check_wheel.py [--constraints constraints/cpu.txt] [EXTRA …]

In each environment what the extra brings must import and answer one call, and what it does not bring must say in one
sentence how to get it. Beside its neighbour in the `llama_index` namespace both must stay whole when one goes.
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
NEIGHBOUR = "llama-index-embeddings-jinaai"

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
    "eval": """
from jina_rag.evaluation.cleaning import Cleaning, Languages
from jina_rag.evaluation.mteb import JinaRagSearch, find_tasks
assert find_tasks(["NFCorpus"])
pairs = [{"query": "where do whales sing?", "passage": "They sing in the deep sea, and far away from the coast."}]
pairs += [{"query": "wo singen die Wale?", "passage": "Sie singen in der Tiefsee, weit entfernt von der Küste."}]
assert list(Cleaning([Languages(("en",))]).stream(pairs)) == pairs[:1]
""",
}
"""One call of what each extra brings."""
ABSENT = {
    "langchain": "import langchain_jina_rag; langchain_jina_rag.JinaLocalEmbeddings",
    "llama-index": "from llama_index.embeddings.jina_rag import JinaLocalEmbedding",
    "models": "from jina_rag import load_embedder; load_embedder('jinaai/jina-embeddings-v4')",
    "qdrant": "from jina_rag import DocumentIndex; DocumentIndex.open('http://127.0.0.1:9/pages')",
    "eval": "from jina_rag.evaluation import mteb; mteb.JinaRagSearch",
}
"""What says in one sentence that the extra is missing."""


def main() -> None:
    """Run the checks; the exit status is not 0 where one fails."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    extra_names = [name for name in extras if name not in ("all", "dev")]
    assert set(extra_names) == set(CALLS) == set(ABSENT), "an extra without a check, or a check without an extra"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"of {', '.join(extra_names)}; all if none is named")
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
                    environment.refuses(ABSENT[other], other)
            if extra == "llama-index":
                check_neighbour(environment, wheel)
            print(f"{extra or 'no extra'}: works; what is missing says so")


def build(folder: Path) -> Path:
    """The wheel, made from this working tree."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT])
    [wheel] = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """What the wheel may own of the namespace that others own, too."""
    names = zipfile.ZipFile(wheel).namelist()
    for package in ("jina_rag", "langchain_jina_rag", "llama_index/embeddings/jina_rag"):
        assert f"{package}/__init__.py" in names, package
    leaves = [Path(name) for name in names if name.startswith("llama_index/")]
    assert not [leaf for leaf in leaves if len(leaf.parts) < 4], "a file above the leaves of llama_index"
    assert not [name for name in names if name.startswith(("tests/", "cookbooks/", "benchmarks/", "tools/"))]


def check_neighbour(environment: Environment, wheel: Path) -> None:
    """Two distributions with leaves in one namespace: either goes, the other stays."""
    ours = "from llama_index.embeddings.jina_rag import JinaLocalEmbedding"
    theirs = "from llama_index.embeddings.jinaai import JinaEmbedding"
    environment.install(NEIGHBOUR)
    environment.python(f"{ours}\n{theirs}")
    environment.pip("uninstall", "--yes", NEIGHBOUR)
    environment.python(ours)
    environment.install(NEIGHBOUR)
    environment.pip("uninstall", "--yes", "jina-rag")
    environment.python(theirs)
    environment.python("from llama_index.core import VectorStoreIndex")


class Environment:
    """A new virtual environment."""

    def __init__(self, folder: Path, constraints: Path) -> None:
        run([sys.executable, "-m", "venv", folder])
        self._python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        self._constraints = constraints
        self._work = folder / "work"
        self._work.mkdir()

    def pip(self, *arguments: str) -> None:
        """Run pip."""
        run([self._python, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"])

    def install(self, what: str) -> None:
        """Install a requirement or a wheel."""
        self.pip("install", "--constraint", str(self._constraints), what)

    def python(self, source: str) -> None:
        """Run a program that must succeed."""
        run([self._python, "-W", "ignore", "-c", source], cwd=self._work)

    def refuses(self, source: str, extra: str) -> None:
        """Run a program that must end in one sentence that names the extra."""
        process = subprocess.run(  # our own programs
            [self._python, "-W", "ignore", "-c", source], cwd=self._work, capture_output=True, text=True, check=False
        )
        last = (process.stderr.strip().splitlines() or [""])[-1]
        if not process.returncode or f"[{extra}]" not in last:
            sys.exit(f"{source}\ndid not say in one sentence how to get {extra!r}:\n{process.stderr[-2000:]}")


def run(command: list[object], cwd: Path | None = None) -> None:
    """Run a command that must succeed, and show what it says if it does not."""
    process = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))[:2000]}\n{process.stdout[-2000:]}{process.stderr[-4000:]}")


if __name__ == "__main__":
    main()
