"""Cleaning of query-passage pairs before training or evaluation.

The steps `Complete`, `ExactDuplicates`, `Languages` and `Consistency` follow Jina Embeddings v1 (Günther et al., arXiv
2307.11224, section "Pairwise data preparation"). The four steps drop empty pairs, exact duplicates after normalization,
pairs in other languages, and inconsistent pairs. A pair is consistent if the passage ranks among the first `n` passages
for the query. The step `NearDuplicates` is an addition, because the paper removes exact duplicates only.
"""

from __future__ import annotations

from jina_rag.evaluation.cleaning.consistency import Consistency
from jina_rag.evaluation.cleaning.duplicates import Complete, ExactDuplicates
from jina_rag.evaluation.cleaning.language import Languages
from jina_rag.evaluation.cleaning.near_duplicates import NearDuplicates
from jina_rag.evaluation.cleaning.pairs import Dropped, Pair, Step, read_pairs
from jina_rag.evaluation.cleaning.pipeline import Cleaning, clean_file
from jina_rag.evaluation.cleaning.report import CleaningReport, StepReport

__all__ = [
    "Cleaning",
    "CleaningReport",
    "Complete",
    "Consistency",
    "Dropped",
    "ExactDuplicates",
    "Languages",
    "NearDuplicates",
    "Pair",
    "Step",
    "StepReport",
    "clean_file",
    "read_pairs",
]
