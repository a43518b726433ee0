"""Pages that resemble every question, and how much of that is taken off their score.

In high-dimensional spaces some points are near neighbours of very many others ("hubs"; Radovanović et al., JMLR
2010). A page with many words, or in the language of the question, has a better chance that some token resembles a
question's token by accident. The remedy is that of cross-domain similarity local scaling (Conneau et al., ICLR
2018): subtract a share of the page's mean similarity to questions it does not answer.

Measured on 119 judged questions over 190 pages: see the README.
"""

from __future__ import annotations

import numpy as np

from jina_rag.background import QUESTIONS
from jina_rag.protocols import Embedder
from jina_rag.scoring import similarity
from jina_rag.types import Float32


class Background:
    """The general questions as one embedder sees them."""

    def __init__(self, embedder: Embedder) -> None:
        encoded = embedder.encode_query(QUESTIONS, single=False)
        assert encoded.multi is not None
        self._rows: Float32 = np.concatenate(encoded.multi)
        # Each question counts alike, however many tokens it has.
        self._share = np.concatenate([np.full(len(rows), 1 / len(rows)) for rows in encoded.multi])
        self._share = (self._share / len(QUESTIONS)).astype(np.float32)

    def bias(self, rows: Float32) -> float:
        """The page's mean score for the general questions: MaxSim over the number of question tokens.

        Args:
            rows: The page's multi-vector, shape (tokens, dim).

        Returns:
            0 for a page without tokens.
        """
        return float((similarity(rows, self._rows).max(axis=0) * self._share).sum()) if len(rows) else 0.0
