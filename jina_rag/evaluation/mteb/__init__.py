"""Evaluation with mteb, on public benchmarks and on judged folders. Requires the extra ``eval``.

mteb provides the tasks and computes the scores. The classes of this package implement mteb's protocols for the models
and the search of jina_rag:

    from jina_rag.evaluation.mteb import BenchmarkSetting, run_benchmark

    setting = BenchmarkSetting(model="jinaai/jina-embeddings-v4", vectors="multi")
    run = run_benchmark(["JinaVDR"], setting, output="results")

Other modules of jina_rag do not import mteb, because importing mteb takes seconds and loads PyTorch, pandas
and `datasets`.

Source: Muennighoff et al., MTEB: Massive Text Embedding Benchmark (2022); Enevoldsen et al., MMTEB (2025).
"""

from __future__ import annotations

from jina_rag._extras import require

require("mteb", extra="eval")
require("datasets", extra="eval")

from jina_rag.evaluation.mteb.benchmarks import BENCHMARKS, SMOKE, find_tasks  # noqa: E402
from jina_rag.evaluation.mteb.cache import VectorCache  # noqa: E402
from jina_rag.evaluation.mteb.encoders import JinaRagEncoder  # noqa: E402
from jina_rag.evaluation.mteb.folder_task import FolderTask  # noqa: E402
from jina_rag.evaluation.mteb.pipeline import JinaRagSearch  # noqa: E402
from jina_rag.evaluation.mteb.rerankers import JinaRagReranker  # noqa: E402
from jina_rag.evaluation.mteb.results import BenchmarkRun, TaskOutcome  # noqa: E402
from jina_rag.evaluation.mteb.runner import run_benchmark  # noqa: E402
from jina_rag.evaluation.mteb.settings import BenchmarkSetting, ModelOptions  # noqa: E402

__all__ = [
    "BENCHMARKS",
    "SMOKE",
    "BenchmarkRun",
    "BenchmarkSetting",
    "FolderTask",
    "JinaRagEncoder",
    "JinaRagReranker",
    "JinaRagSearch",
    "ModelOptions",
    "TaskOutcome",
    "VectorCache",
    "find_tasks",
    "run_benchmark",
]
