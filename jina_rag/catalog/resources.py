"""Where an index keeps things: the store of its vectors, the manifest, the images, and what OCR has read."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from jina_rag.catalog.manifest import Manifest
from jina_rag.ocr.cache import OcrCache
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores.images import ImageFiles


@dataclass(frozen=True, slots=True)
class IndexResources:
    """The three places where an index keeps things, and the cache of what OCR has read."""

    store: MultiVectorStore
    manifest: Manifest
    images: ImageFiles
    ocr: OcrCache

    def close(self) -> None:
        """Close all of them, whichever of them raises."""
        with closing(self.ocr), closing(self.manifest), closing(self.store):  # the last one first
            pass
