"""Helpers for the tests of the mteb wrappers: small tasks, a judged folder, and a counting embedder."""

import json
from pathlib import Path

import datasets
from mteb import TaskMetadata
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS

from jina_rag.testing import FakeEmbedder, sample_pdf

PAGES = {
    "fruit": ["apples pears and plums", "oranges from the south", "cherries in june"],
    "tools": ["hammer and nails", "saws for wood and steel"],
    "rivers": ["the danube flows east", "the rhine flows north"],
}
QUERIES = [
    ("q1", "apples and pears", [("fruit", 1, 2), ("fruit", 2, 1)]),
    ("q2", "saws for steel", [("tools", 2, 2)]),
    ("q3", "which river flows east", [("rivers", 1, 2), ("rivers", 2, 1)]),
    ("q4", "hammer danube cherries", [("rivers", 2, 2)]),
]


def judged_folder(root: Path) -> Path:
    """Write seven pages in three PDFs with four judged queries, and return the folder."""
    root.mkdir(parents=True, exist_ok=True)
    for doc, texts in PAGES.items():
        sample_pdf(root / f"{doc}.pdf", texts)
    rows = [{"doc": doc, "file": f"{doc}.pdf"} for doc in PAGES]
    (root / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    query_entries = [
        {"qid": query_id, "query": text, "relevant": [{"doc": d, "page": p, "grade": g} for d, p, g in relevant]}
        for query_id, text, relevant in QUERIES
    ]
    (root / "queries.jsonl").write_text("\n".join(map(json.dumps, query_entries)), encoding="utf-8")
    return root


def metadata(name: str, **changes: object) -> TaskMetadata:
    """Return the metadata that mteb requires of a task."""
    defaults = {
        "name": name,
        "description": "A test.",
        "dataset": {"path": "test", "revision": "1"},
        "type": "Retrieval",
        "category": "t2t",
        "modalities": ["text"],
        "eval_splits": ["test"],
        "eval_langs": ["eng-Latn"],
        "main_score": "ndcg_at_5",
    }
    return TaskMetadata(**(defaults | changes))


class KeepMetadata:
    """Mixin that keeps the instance's metadata when the data is unloaded, which mteb would reset."""

    def unload_data(self):
        self.dataset = None
        self.data_loaded = False


class SmallTask(KeepMetadata, AbsTaskRetrieval):
    """Retrieval task over in-memory rows."""

    def __init__(self, corpus, queries, relevant, *, name="SmallTask", top_ranked=None, features=None, **changes):
        self.metadata = metadata(name, **changes)
        self._data = (corpus, queries, relevant, top_ranked, features)
        super().__init__()

    def load_data(self, num_proc=None, **kwargs):
        corpus, queries, relevant, top_ranked, features = self._data
        self.dataset = {
            "default": {
                "test": {
                    "corpus": datasets.Dataset.from_list(corpus, features=features),
                    "queries": datasets.Dataset.from_list(queries),
                    "relevant_docs": relevant,
                    "top_ranked": top_ranked,
                }
            }
        }
        self.data_loaded = True


def text_task(texts, queries, *, name="SmallTask", **changes):
    """Return a retrieval task in which text n is relevant to query n."""
    return SmallTask(
        [{"id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)],
        [{"id": f"q{i}", "text": text} for i, text in enumerate(queries)],
        {f"q{i}": {f"d{i}": 1} for i in range(len(queries))},
        name=name,
        **changes,
    )


class PairsTask(KeepMetadata, AbsTaskSTS):
    """Semantic similarity task over in-memory pairs of texts with scores."""

    def __init__(self, pairs, name="PairsTask"):
        self.metadata = metadata(name, type="STS", main_score="cosine_spearman")
        self._pairs = pairs
        super().__init__()

    def load_data(self, num_proc=None, **kwargs):
        rows = [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in self._pairs]
        self.dataset = {"default": {"test": datasets.Dataset.from_list(rows)}}
        self.data_loaded = True


class CountingEmbedder(FakeEmbedder):
    """Fake embedder that records its inputs and raises KeyboardInterrupt in call `stop_at`."""

    def __init__(self, *, stop_at: int = 0, **options) -> None:
        super().__init__(**options)
        self.inputs: list[object] = []
        self.calls = 0
        self.stop_at = stop_at

    def encode_query(self, queries, **options):
        result = super().encode_query(queries, **options)
        self._count(queries)
        return result

    def encode_document(self, documents, **options):
        result = super().encode_document(documents, **options)
        self._count(documents)
        return result

    def _count(self, items) -> None:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.inputs += items
