"""Clean pairs of questions and passages before a model is trained or judged on them.

The steps are those of Jina Embeddings v1 (Günther et al., arXiv 2307.11224, section "Pairwise data preparation"): empty
pairs and exact duplicates after normalisation, a language filter, and a consistency filter, which keeps a pair if its
passage is among the first few for its question. Near-duplicates are ours: the paper removes exact ones only.
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
