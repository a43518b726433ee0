"""Writes jina_rag/models/_assets/e5_centre.npy: the mean unit token vector of the general questions.

Run it after changing the questions or the encoder: ``python tools/make_lite_centre.py``. A test holds the
file to what this makes.
"""

from __future__ import annotations

import numpy as np

from jina_rag.models.lite.e5 import ASSETS
from jina_rag.models.lite.embedder import LiteEmbedder, LiteRecipe
from jina_rag.models.lite.loading import _backbone
from jina_rag.reference_queries import QUERIES
from jina_rag.types import Float32


def centre() -> Float32:
    """Shape (384,) float32."""
    embedder = LiteEmbedder(_backbone("lite"), LiteRecipe(centring=0, drop=False))
    rows = embedder.encode_query(QUERIES, single=False).multi
    assert rows is not None
    mean: Float32 = np.concatenate(rows).mean(axis=0)
    return mean


if __name__ == "__main__":
    np.save(ASSETS / "e5_centre.npy", centre())
    print(f"wrote {ASSETS / 'e5_centre.npy'}")
