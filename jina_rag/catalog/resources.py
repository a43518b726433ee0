"""The resources of an open index: vector store, manifest, image files and OCR cache."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from jina_rag.catalog.manifest import Manifest
from jina_rag.ocr.cache import OcrCache
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores.images import ImageFiles


@dataclass(frozen=True, slots=True)
class IndexResources:
    """The resources of an open index.

    Attributes:
        store: Vector store.
        manifest: Manifest of documents and points.
        images: Files of page screenshots and region crops.
        ocr: Cache of OCR results.
    """

    store: MultiVectorStore
    manifest: Manifest
    images: ImageFiles
    ocr: OcrCache

    def close(self) -> None:
        """Close the store, the manifest and the OCR cache, in this order, even if one close raises an error."""
        with closing(self.ocr), closing(self.manifest), closing(self.store):
            pass
