"""Pages that say the same again: an earlier version of a report, a second scan, a form filled in twice.

They are found by their dense vectors, which are in the index anyway, and held against each other by their words, or
by their pictures where they have few. They are marked, not merged: both are stored, and a search can show one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Float32, Page

COSINE = 0.97
"""Dense vectors less alike than this are not looked at closer."""
WORDS = 0.9
"""Share of words that two pages must have in common (intersection over union of the multisets)."""
_CANDIDATES = 3
_FEW_WORDS = 20
# Mean difference of two pictures of 32 x 32 grey values, 0 to 255, below which they show the same.
_PICTURE = 5.0
_SIDE = 32


class NearDuplicates:
    """Looks for an earlier page that a new one repeats."""

    def __init__(self, store: MultiVectorStore, images: ImageFiles) -> None:
        self._store = store
        self._images = images

    def find(self, pages: Sequence[tuple[str, Page, Float32]], *, ignore: Collection[str] = ()) -> dict[str, str]:
        """Find near-duplicates among the stored pages, and among the given ones.

        Args:
            pages: Id of the point to come, the page, its dense vector, shape (dim,).
            ignore: Contents (hashes) whose pages are about to go.

        Returns:
            Id → id of the earlier page; where that one repeats another itself, the first of them.
        """
        found: dict[str, str] = {}
        met: list[tuple[str, Page, Float32]] = []
        for point_id, page, dense in pages:
            if np.linalg.norm(dense) > 1e-6:
                earlier = self._stored(point_id, page, dense, ignore) or _among(met, page, dense)
                if earlier is not None:
                    found[point_id] = found.get(earlier, earlier)
                met.append((point_id, page, dense))
        return found

    def _stored(self, point_id: str, page: Page, dense: Float32, ignore: Collection[str]) -> str | None:
        keys = (schema.TEXT, schema.IMAGE, schema.NEAR, schema.REVISION)
        hits = self._store.nearest(dense, limit=_CANDIDATES, where={schema.KIND: "page"}, keys=keys)
        for hit in hits:
            first = str(hit.payload.get(schema.NEAR) or hit.id)
            # A page that is made again meets itself, and those that repeat it.
            if first == point_id or hit.score < COSINE or hit.payload.get(schema.REVISION) in ignore:
                continue
            if self._is_same(page, hit.payload):
                return first
        return None

    def _is_same(self, page: Page, payload: Mapping[str, Any]) -> bool:
        words = str(payload.get(schema.TEXT, "")).split()
        if max(len(words), len(page.words)) >= _FEW_WORDS:
            return _common([word.text for word in page.words], words) >= WORDS
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self._images.path(str(payload[schema.IMAGE]))) as other:
                return _alike(_small(page.screenshot.image), _small(other))
        except (OSError, UnidentifiedImageError, KeyError):
            return False  # the picture is elsewhere, or it is a text: without one nothing can be said


def _among(met: Sequence[tuple[str, Page, Float32]], page: Page, dense: Float32) -> str | None:
    for point_id, other, vector in met:
        if float(vector @ dense) < COSINE:
            continue
        if max(len(other.words), len(page.words)) >= _FEW_WORDS:
            same = _common([word.text for word in page.words], [word.text for word in other.words]) >= WORDS
        else:
            same = _alike(_small(page.screenshot.image), _small(other.screenshot.image))
        if same:
            return point_id
    return None


def _common(a: Sequence[str], b: Sequence[str]) -> float:
    first, second = Counter(a), Counter(b)
    union = (first | second).total()
    return (first & second).total() / union if union else 1.0


def _small(image: Any) -> Float32:  # noqa: ANN401  # PIL's Image
    from PIL import Image

    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.float32)


def _alike(a: Float32, b: Float32) -> bool:
    return float(np.abs(a - b).mean()) <= _PICTURE
