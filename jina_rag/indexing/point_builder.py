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
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
from jina_rag.stores.images import ImageFiles, image_name
from jina_rag.types import Box, EncodedImage, Float32, Page, Point, Region, SparseVector, TokenGrid


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
        self,
        settings: IngestSettings,
        *,
        images: ImageFiles | None = None,
        check: Callable[[], None] | None = None,
    ) -> PointBuilder:
        """Load the embedder and return a point builder.

        Args:
            settings: Settings of the ingestion, for `jpeg_quality`.
            images: Folder of the image files. Default: the image folder of the index.
            check: Called every 0.05 seconds while the embedder loads in another thread. An exception from `check` ends
                the wait. Default: load the embedder in this thread.
        """
        return PointBuilder(
            self.load_embedder() if check is None else call_in_thread(self.load_embedder, check),
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


@dataclass(frozen=True, slots=True)
class PagePoints:
    """The points of a page and of its regions, without the payload keys that depend on other pages and documents.

    Attributes:
        page: The page.
        points: The points of the regions, then the point of the page. If the store contains the point of a page after
            an interruption, the store therefore also contains all regions of the page.
        images: Images that the points refer to, to be written before the points.
        by_name: Whether the page was embedded by its file name; see `PointBuilder.is_by_name`.
        note: Warning that the vectors of the page were pooled to fit the store; empty for no warning.
    """

    page: Page
    points: tuple[BuiltPoint, ...]
    images: tuple[EncodedImage, ...]
    by_name: bool = False
    note: str = ""

    @property
    def page_id(self) -> str:
        """Id of the point of the page."""
        return self.points[-1][0].id

    @property
    def dense(self) -> Float32:
        """Dense vector of the page, shape (dim,), float32."""
        dense = self.points[-1][0].dense
        assert dense is not None
        return dense


def place_points(
    documents: Sequence[DocumentRecord], pages: Sequence[PagePoints], near: Mapping[str, str]
) -> list[BuiltPoint]:
    """Return the points of pages with the payload keys that depend on other pages and documents.

    Args:
        documents: The document and all documents with the same file hash. The points cite all paths.
        pages: Points of pages of the document.
        near: Point id of a near-duplicate page → point id of the earlier page that has nearly the same content.
    """
    locations = location_payload(documents)
    placed: list[BuiltPoint] = []
    for page in pages:
        for point, point_record in page.points:
            payload = {**locations, **point.payload}
            if point.id in near:
                payload[schema.NEAR] = near[point.id]
            placed.append((replace(point, payload=payload), point_record))
    return placed


class PointBuilder:
    """Builds the points of pages and regions, and writes the image files of pages and regions. Thread-safe."""

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
        self._reference_queries: ReferenceQueries | None = None
        self._reference_lock = threading.Lock()
        self.notes: dict[str, str] = {}
        """Point id → warning that vectors were pooled to fit the store; set by `build` and `build_text`."""

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

    def page_points(self, pages: Sequence[tuple[str, Page]]) -> list[PagePoints]:
        """Embed pages and regions, and return their points; see `place_points` and `write_images` for the next steps.

        An image embedder receives the pages and the crops of the regions in one call.

        Args:
            pages: (SHA-256 of the file, page) of each page.
        """
        inputs = [self.input_of(page) for _, page in pages]
        crops = [crop(page, region.box) for _, page in pages for region in page.regions] if self._embeds_crops else []
        vectors = self.encode([*inputs, *crops])
        encoded = [(sha256, page, vector) for (sha256, page), vector in zip(pages, vectors, strict=False)]
        if not self._embeds_crops:
            return self.encoded_points(encoded)
        crop_vectors = iter(vectors[len(pages) :])
        return self._page_points(encoded, [[next(crop_vectors) for _ in page.regions] for _, page in pages])

    def write_images(self, pages: Sequence[PagePoints]) -> None:
        """Write the images of pages and regions. The caller writes the images before the points.

        Raises:
            IndexStateError: If an image cannot be written.
        """
        for page in pages:
            for image in page.images:
                self._images.put_encoded(image)

    def build(
        self, documents: Sequence[DocumentRecord], pages: Sequence[tuple[Page, EncodedPage]], near: Mapping[str, str]
    ) -> list[BuiltPoint]:
        """Write the images of pages of one document, and return the points of the pages and of their regions.

        Args:
            documents: The document and all documents with the same file hash. The points cite all paths.
            pages: Pages with embeddings.
            near: Point id of a near-duplicate page → point id of the earlier page that has nearly the same content.

        Returns:
            The points, each page after its regions; see `PagePoints`.
        """
        points = self.encoded_points([(documents[0].sha256, page, encoded) for page, encoded in pages])
        self.write_images(points)
        self.notes |= {page.page_id: page.note for page in points if page.note}
        return place_points(documents, points, near)

    def encoded_points(self, pages: Sequence[tuple[str, Page, EncodedPage]]) -> list[PagePoints]:
        """Return the points of pages with embeddings, and embed their regions; see `page_points`.

        Args:
            pages: (SHA-256 of the file, page, embeddings) of each page.
        """
        return self._page_points(pages, self._region_vectors([(page, encoded) for _, page, encoded in pages]))

    def _page_points(
        self, pages: Sequence[tuple[str, Page, EncodedPage]], regions: Sequence[Sequence[EncodedPage | None]]
    ) -> list[PagePoints]:
        """Return the points of pages.

        Args:
            pages: (SHA-256 of the file, page, embeddings) of each page.
            regions: Embeddings of the regions of each page; empty sequences if regions are not stored as points.
        """
        return [
            self._points_of_page(sha256, page, encoded, vectors)
            for (sha256, page, encoded), vectors in zip(pages, regions, strict=True)
        ]

    def _points_of_page(
        self, sha256: str, page: Page, encoded: EncodedPage, regions: Sequence[EncodedPage | None]
    ) -> PagePoints:
        page_id = schema.point_id(sha256, page.number)
        rows, assignment = self._stored_rows(encoded.rows)
        prepared = page.prepared
        if prepared is None or prepared.screenshot.quality != self._quality:
            prepared = prepare(page, self._quality)
        crops = [image_name(image) for image in prepared.crops]
        common = self._payload(sha256, rows, page.number, page.count, {region.kind for region in page.regions})
        points = [
            self._region(common, page.number, number, region, image, lexical, vector)
            for number, (region, image, lexical, vector) in enumerate(
                # `regions` is empty if regions are not stored as points.
                zip(page.regions, crops, prepared.region_lexical, regions, strict=False)
            )
        ]
        image = image_name(prepared.screenshot)
        payload: dict[str, Any] = {
            schema.KIND: "page",
            schema.IMAGE: image,
            **common,
            **describe(page, rows, encoded.grid, crops, assignment, signs=self._storage.sign_codes),
        }
        point = Point(page_id, encoded.dense, rows if len(rows) else None, prepared.lexical, payload)
        return PagePoints(
            page,
            (*points, (point, PointRecord(page_id, page.number, "page", image))),
            (*prepared.crops, prepared.screenshot),
            by_name=self.is_by_name(page),
            note=self._note(encoded.rows, rows),
        )

    def build_text(self, document: DocumentRecord, text: str, encoded: EncodedPage) -> BuiltPoint:
        """Return the point of an added text, which has no image and no boxes."""
        page_id = schema.point_id(document.sha256, 1)
        rows, assignment = self._stored_rows(encoded.rows)
        if note := self._note(encoded.rows, rows):
            self.notes[page_id] = note
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

    def _stored_rows(self, rows: Float32) -> tuple[Float32, Assignment | None]:
        """Return the rows as stored, and for each token the index of the stored row (None if no rows were pooled).

        The store limits the number of floats per multi-vector. If a multi-vector exceeds the limit, more rows are
        pooled; see `_note`.
        """
        if not len(rows):
            return rows, None
        rows = cut_rows(rows, self._storage.multi_dim or rows.shape[1])
        pooled, assignment = pool_tokens(rows, self._storage.pool_factor, max_rows=_max_rows(rows))
        return pooled, assignment if len(pooled) < len(rows) else None

    def _note(self, rows: Float32, stored_rows: Float32) -> str:
        """Return a warning if `_stored_rows` pooled more rows than `Storage.pool_factor` requires; else empty."""
        if not len(rows) or len(rows) / self._storage.pool_factor <= _max_rows(stored_rows):
            return ""
        return (
            f"The page has {len(rows):,} vectors, more than the store accepts per page. The vectors were pooled "
            f"into {len(stored_rows):,}."
        )

    def _region_rows(self, rows: Float32) -> Float32:
        """Return the rows of a region as stored.

        With a text embedder, the point of the page already contains the rows of the region. The point of the region
        only helps a search to find the page, and a quarter of the rows is sufficient for this purpose.
        """
        stored, _ = self._stored_rows(rows)
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
        rows = None if vector is None else self._region_rows(vector.rows)
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
        """Return the embeddings of the regions of each page; None for a region without text or tokens to embed.

        The lists are empty if regions are not stored as points.
        """
        if not self._regions:
            return [[] for _ in pages]
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

    @property
    def _embeds_crops(self) -> bool:
        return self._regions and self._embedder.modality == "image"

    def _bias(self, rows: Float32) -> float:
        if not self._embedder.hubness:
            return 0.0
        with self._reference_lock:
            if self._reference_queries is None:
                self._reference_queries = ReferenceQueries.of(self._embedder)
        return self._reference_queries.bias(rows)


def _max_rows(rows: Float32) -> int:
    """Return the maximum number of rows that the store accepts for a multi-vector with rows of this length."""
    return (schema.MULTI_LIMIT - 1) // int(rows.shape[1])


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
