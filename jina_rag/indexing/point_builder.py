"""Construction of the points of pages and regions, and of the image files of pages and regions.

Each chart, table or figure is a separate point, so that a search can find the region. The vectors of a region depend on
the embedder:

- An image embedder embeds the crop of the region.
- With a text embedder that reports token positions and has dense vectors as long as the multi-vector rows, the region
  reuses the rows of the page that belong to words of the region or of the caption.
- Any other text embedder embeds the caption and the words in the region.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, TypeAlias

import numpy as np

from jina_rag import sparse
from jina_rag.catalog.locations import location_payload
from jina_rag.catalog.manifest import DocumentRecord, PointRecord
from jina_rag.catalog.resources import IndexResources
from jina_rag.compression import cut_rows, pool_tokens
from jina_rag.compression.pooling import Assignment
from jina_rag.config import IngestSettings, Storage
from jina_rag.indexing.page_payload import describe, describe_text
from jina_rag.parsing.preparation import crop, prepare, region_text
from jina_rag.parsing.workers.cancellation import call_in_thread
from jina_rag.protocols import Embedder, Input
from jina_rag.reference_queries import ReferenceQueries
from jina_rag.scoring import normalise
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Box, Float32, Page, Point, Region, SparseVector, TokenGrid


@dataclass(frozen=True, slots=True)
class IndexTarget:
    """The index that receives the points.

    Attributes:
        resources: Vector store, manifest, images and OCR cache.
        load_embedder: Function that loads the embedder of the index.
        dim: Length of the stored dense vectors.
        storage: Settings of the stored vectors.
    """

    resources: IndexResources
    load_embedder: Callable[[], Embedder]
    dim: int
    storage: Storage

    def builder(
        self, settings: IngestSettings, *, images: ImageFiles | None = None, check: Callable[[], None] = lambda: None
    ) -> PointBuilder:
        """Load the embedder and return a point builder.

        Args:
            settings: Settings of the ingestion, for `jpeg_quality`.
            images: Folder of the image files. Default: the image folder of the index.
            check: Called every 0.05 seconds while the embedder loads. An exception from `check` ends the wait.
        """
        return PointBuilder(
            call_in_thread(self.load_embedder, check),
            images or self.resources.images,
            dim=self.dim,
            quality=settings.jpeg_quality,
            storage=self.storage,
        )


@dataclass(frozen=True, slots=True)
class EncodedPage:
    """Embeddings of one page or region.

    Attributes:
        dense: Dense vector, shape (dim,), float32.
        rows: Multi-vector, shape (tokens, multi_dim), float32.
        grid: Box of each token on the page; None if the embedder reports no positions.
    """

    dense: Float32
    rows: Float32
    grid: TokenGrid | None = None


_REGION_POOL_FACTOR = 4
"""Pool factor of the rows of a region with a text embedder. The point of the page has the same rows, less pooled."""

BuiltPoint: TypeAlias = tuple[Point, PointRecord]


class PointBuilder:
    """Builds the points of pages and regions, and writes the image files of pages and regions."""

    def __init__(
        self,
        embedder: Embedder,
        images: ImageFiles,
        *,
        dim: int,
        quality: int,
        storage: Storage | None = None,
        regions: bool = True,
    ) -> None:
        """Create a builder.

        Args:
            embedder: The embedder of the index.
            images: Folder of the image files.
            dim: Length of the stored dense vectors.
            quality: JPEG quality of the image files, 1 to 95.
            storage: Settings of the stored vectors. Default: the preset ``"exact"``.
            regions: Whether regions are stored as separate points.
        """
        self._embedder = embedder
        self._images = images
        self._truncate_dim = dim if dim != embedder.dim else None
        self._quality = quality
        self._storage = storage or Storage()
        self._regions = regions
        self.notes: dict[str, str] = {}
        """Point id → warning that the vectors of the point were pooled to fit the store, shown in the report."""

    def encode(self, inputs: Sequence[Input]) -> list[EncodedPage]:
        """Return the embeddings of documents, with dense vectors as long as the dense vectors in the index."""
        if not inputs:
            return []
        result = self._embedder.encode_document(inputs, truncate_dim=self._truncate_dim)
        grids = result.grids or [None] * len(inputs)
        vectors = zip(result.require_single(), result.require_multi(), grids, strict=True)
        return [EncodedPage(*parts) for parts in vectors]

    def input_of(self, page: Page) -> Page | str:
        """Return the input of the embedder: the page, or the words of the file name if a text embedder gets no text."""
        if page.words or self._embedder.modality == "image":
            return page
        return " ".join(re.findall(r"[^\W_]+", PurePosixPath(page.doc_id).stem))

    def is_by_name(self, page: Page) -> bool:
        """Return whether `input_of` replaces the page by the file name, because a text embedder gets no text."""
        return not isinstance(self.input_of(page), Page)

    def build(
        self, documents: Sequence[DocumentRecord], pages: Sequence[tuple[Page, EncodedPage]], near: Mapping[str, str]
    ) -> list[BuiltPoint]:
        """Return the points of pages of one document and of the regions on the pages.

        The points of the regions precede the point of the page. If the store contains the point of a page after an
        interruption, the store therefore also contains all regions of the page.

        Args:
            documents: The document and all documents with the same file hash. The points cite all paths.
            pages: Pages with embeddings.
            near: Point id of a near-duplicate page → point id of the earlier page that has nearly the same content.
        """
        sha256 = documents[0].sha256
        locations = location_payload(documents)
        points: list[BuiltPoint] = []
        regions = self._region_vectors(pages) if self._regions else [[] for _ in pages]
        for (page, encoded), vectors in zip(pages, regions, strict=True):
            page_id = schema.point_id(sha256, page.number)
            rows, assignment = self._stored_rows(encoded.rows, page_id)
            prepared = page.prepared
            if prepared is None or prepared.screenshot.quality != self._quality:
                prepared = prepare(page, self._quality)
            crops = [self._images.put_encoded(image) for image in prepared.crops]
            common = locations | self._payload(
                sha256, rows, page.number, page.count, {region.kind for region in page.regions}
            )
            # `vectors` is empty if regions are not stored as points.
            for number, (region, image, vector) in enumerate(zip(page.regions, crops, vectors, strict=False)):
                lexical = prepared.region_lexical[number]
                points.append(self._region(common, page.number, number, region, image, lexical, vector))
            image = self._images.put_encoded(prepared.screenshot)
            payload: dict[str, Any] = {
                schema.KIND: "page",
                schema.IMAGE: image,
                **common,
                **describe(page, rows, encoded.grid, crops, assignment, signs=self._storage.sign_codes),
            }
            if page_id in near:
                payload[schema.NEAR] = near[page_id]
            point = Point(page_id, encoded.dense, rows if len(rows) else None, prepared.lexical, payload)
            points.append((point, PointRecord(page_id, page.number, "page", image)))
        return points

    def build_text(self, document: DocumentRecord, text: str, encoded: EncodedPage) -> BuiltPoint:
        """Return the point of an added text, which has no image and no boxes."""
        page_id = schema.point_id(document.sha256, 1)
        rows, assignment = self._stored_rows(encoded.rows, page_id)
        payload = {
            schema.KIND: "page",
            **location_payload([document]),
            **self._payload(document.sha256, rows, 1, 1, ()),
            **describe_text(text, rows, assignment, signs=self._storage.sign_codes),
        }
        point = Point(page_id, encoded.dense, rows if len(rows) else None, sparse.document_vector(text), payload)
        return point, PointRecord(page_id, 1, "page", None)

    def _payload(self, sha256: str, rows: Float32, number: int, count: int, kinds: Collection[str]) -> dict[str, Any]:
        """Return the payload keys that the points of a page and of the regions of the page have in common."""
        return {
            schema.PAGE_ID: schema.point_id(sha256, number),
            schema.PAGE: number,
            schema.PAGE_COUNT: count,
            schema.REVISION: sha256,
            schema.HAS: sorted(kinds),
            schema.BIAS: self._bias(rows),
        }

    def _stored_rows(self, rows: Float32, page_id: str) -> tuple[Float32, Assignment | None]:
        """Return the rows as stored, and for each token the index of the stored row (None if no rows were pooled).

        The store limits the number of floats per multi-vector. If a multi-vector exceeds the limit, more rows are
        pooled and a warning is added to `notes`.
        """
        if not len(rows):
            return rows, None
        rows = cut_rows(rows, self._storage.multi_dim or rows.shape[1])
        max_rows = (schema.MULTI_LIMIT - 1) // rows.shape[1]
        pooled, assignment = pool_tokens(rows, self._storage.pool_factor, max_rows=max_rows)
        if len(rows) / self._storage.pool_factor > max_rows:
            self.notes[page_id] = (
                f"The page has {len(rows):,} vectors, more than the store accepts per page. The vectors were pooled "
                f"into {len(pooled):,}."
            )
        return pooled, assignment if len(pooled) < len(rows) else None

    def _region_rows(self, rows: Float32, point_id: str) -> Float32:
        """Return the rows of a region as stored.

        With a text embedder, the point of the page already contains the rows of the region. The point of the region
        only helps a search to find the page, and a quarter of the rows is sufficient for this purpose.
        """
        stored, _ = self._stored_rows(rows, point_id)
        return stored if self._embedder.modality == "image" else pool_tokens(stored, _REGION_POOL_FACTOR)[0]

    def _region(
        self,
        common: Mapping[str, Any],
        page: int,
        number: int,
        region: Region,
        image: str,
        lexical: SparseVector,
        vector: EncodedPage | None,
    ) -> BuiltPoint:
        sha256 = str(common[schema.REVISION])
        point_id = schema.point_id(sha256, page, f"region{number}")
        rows = None if vector is None else self._region_rows(vector.rows, point_id)
        point = Point(
            point_id,
            None if vector is None else vector.dense,
            rows if rows is not None and len(rows) else None,
            lexical,
            {
                **common,
                schema.KIND: region.kind,
                schema.BOX: [round(side, 5) for side in region.box],
                schema.CAPTION: region.caption,
                schema.IMAGE: image,
            },
        )
        return point, PointRecord(point_id, page, region.kind, image)

    def _region_vectors(self, pages: Sequence[tuple[Page, EncodedPage]]) -> list[list[EncodedPage | None]]:
        """Return the embeddings of the regions of each page; None for a region without text or tokens to embed."""
        vectors: list[list[EncodedPage | None]] = [[None] * len(page.regions) for page, _ in pages]
        inputs: list[Input] = []
        positions: list[tuple[int, int]] = []
        for i, (page, encoded) in enumerate(pages):
            for j, region in enumerate(page.regions):
                if self._embedder.modality == "image":
                    inputs.append(crop(page, region.box))
                elif encoded.grid is not None and len(encoded.dense) == encoded.rows.shape[1]:
                    vectors[i][j] = _region_slice(page, region, encoded)
                    continue
                elif text := region_text(page, region):
                    # Passed as a string, a text that looks like a data URI would be read as an image.
                    inputs.append({"text": text})
                else:
                    continue
                positions.append((i, j))
        for (i, j), vector in zip(positions, self.encode(inputs), strict=True):
            vectors[i][j] = vector
        return vectors

    @cached_property
    def _background(self) -> ReferenceQueries:
        return ReferenceQueries(self._embedder)

    def _bias(self, rows: Float32) -> float:
        return self._background.bias(rows) if self._embedder.hubness else 0.0


def _region_slice(page: Page, region: Region, encoded: EncodedPage) -> EncodedPage | None:
    """Return the vectors of the tokens in a region and in the caption; None if there are no such tokens."""
    assert encoded.grid is not None
    boxes = encoded.grid.boxes
    is_inside_region = np.zeros(len(boxes), dtype=bool)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    for x0, y0, x1, y1 in [region.box, *_caption_boxes(page, region)]:
        is_inside_region |= (middles >= (x0, y0)).all(axis=1) & (middles <= (x1, y1)).all(axis=1)
    rows = encoded.rows[is_inside_region]
    return EncodedPage(normalise(rows.mean(axis=0)), rows) if len(rows) else None


def _caption_boxes(page: Page, region: Region) -> list[Box]:
    """Return the boxes of the words of the caption, which may be outside the box of the region."""
    caption = region.caption.split()
    texts = [word.text for word in page.words]
    for start in range(len(texts) - len(caption) + 1):
        if texts[start : start + len(caption)] == caption:
            return [word.box for word in page.words[start : start + len(caption)]]
    return []
