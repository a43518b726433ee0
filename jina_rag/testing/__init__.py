"""Fakes and random checkpoints for tests: fast, deterministic and without downloads.

>>> from jina_rag.testing import FakeEmbedder, make_page
>>> from jina_rag.scoring import maxsim_many
>>> embedder = FakeEmbedder()
>>> pages = [make_page("growth by region"), make_page("list of authors")]
>>> documents = embedder.encode_document(pages).multi
>>> query = embedder.encode_query(["Which region grew?"]).multi
>>> [round(float(x), 1) for x in maxsim_many(query[0], documents)][0] > 1
True
"""

from __future__ import annotations

from jina_rag.stores.memory import MemoryStore
from jina_rag.testing.checkpoints import make_checkpoint, random_checkpoint
from jina_rag.testing.fakes import FakeEmbedder, FakeReranker, make_page, sample_pdf

__all__ = [
    "FakeEmbedder",
    "FakeReranker",
    "MemoryStore",
    "make_checkpoint",
    "make_page",
    "random_checkpoint",
    "sample_pdf",
]
