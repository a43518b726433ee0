"""Write jina_rag/models/_assets/e5_centre.npy: the mean normalized token vector of the reference queries.

Run ``python tools/make_lite_centre.py`` after a change of the reference queries or the encoder. A test compares the
file with the output of this script.
"""

from __future__ import annotations

import numpy as np

from jina_rag.models.lite.e5 import ASSETS
from jina_rag.models.lite.embedder import LiteEmbedder, LiteRecipe
from jina_rag.models.lite.loading import _backbone
from jina_rag.reference_queries import QUERIES
from jina_rag.types import Float32


def centre() -> Float32:
    """Return the mean vector, shape (384,), float32."""
    embedder = LiteEmbedder(_backbone("lite"), LiteRecipe(centring=0, drop=False))
    rows = embedder.encode_query(QUERIES, single=False).multi
    assert rows is not None
    mean: Float32 = np.concatenate(rows).mean(axis=0)
    return mean


if __name__ == "__main__":
    np.save(ASSETS / "e5_centre.npy", centre())
    print(f"wrote {ASSETS / 'e5_centre.npy'}")
