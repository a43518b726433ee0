"""Data classes passed between the layers of the package, all frozen.

Boxes are fractions of the displayed page with the origin at the top left: ``(x0, y0, x1, y1)``, where
0 <= x0 <= x1 <= 1. Page numbers are 1-based. Vectors are float32 unless a docstring states another dtype.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

Float32: TypeAlias = npt.NDArray[np.float32]
Box: TypeAlias = tuple[float, float, float, float]
RegionKind: TypeAlias = Literal["chart", "table", "figure"]
Scalar: TypeAlias = str | int | float | bool
Moment: TypeAlias = datetime.date | datetime.time
"""A date, a datetime (a subclass of date) or a time of day."""
Bound: TypeAlias = float | str | Moment
"""Bound of a `Range`."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range of numbers, dates or times, used as the condition of a filter.

    A bound is a number; a date, datetime or time; or the text of one, for example ``"2025-01-31"``. A date covers the
    whole day in UTC: ``lte`` includes the day, and ``gt`` excludes the day. A datetime without an offset is in UTC.

    Attributes:
        gte: Lower bound, inclusive; None for no bound.
        lte: Upper bound, inclusive; None for no bound.
        gt: Lower bound, exclusive; None for no bound.
        lt: Upper bound, exclusive; None for no bound.
    """

    gte: Bound | None = None
    lte: Bound | None = None
    gt: Bound | None = None
    lt: Bound | None = None


Where: TypeAlias = Mapping[str, Scalar | Moment | Sequence[Scalar | Moment] | Range]
"""Filter on the payload of points: payload key → condition. A scalar, date or time requires an equal value, a sequence
requires one of the listed values, and a `Range` requires a value in the range. A point must meet all conditions."""


@dataclass(frozen=True, slots=True)
class Word:
    """A run of characters without whitespace, with the box of the characters on the page.

    In scripts written without spaces, a word is often a whole line.

    Attributes:
        text: The characters.
        box: Box on the page, as fractions.
        ocr: Whether OCR read the characters from pixels. False for words of the text layer.
    """

    text: str
    box: Box
    ocr: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """A chart, table or figure on a page.

    Attributes:
        kind: ``"chart"``, ``"table"`` or ``"figure"``.
        box: Box on the page, as fractions.
        caption: Caption above or below the region; empty if no caption was found.
        image_path: The stored crop of the region; None before the region is stored.
        score: Score of the region's words for the query, in search results; comparable only within one page.
    """

    kind: RegionKind
    box: Box
    caption: str = ""
    image_path: Path | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class LostText:
    """Text of a page whose characters are missing in the text layer.

    Attributes:
        box: Box of the text, as fractions of the page.
        position: Number of words of the text layer before the text.
    """

    box: Box
    position: int


@dataclass(frozen=True, slots=True)
class SuspectText:
    """A part of the text layer that may not be what the page shows, until OCR has compared it with the pixels.

    Attributes:
        kind: ``"letters"`` if the characters are implausible or missing, ``"digits"`` if digits differ from the pixels.
        font: Name of the font of the words; empty if the words are not all words of one font.
        words: Indices into ``Page.words``, in ascending order.
        lost: Text whose characters are missing.
        is_certain: Whether the text layer is wrong even if OCR cannot read the words.
    """

    kind: Literal["letters", "digits"]
    font: str
    words: tuple[int, ...]
    lost: tuple[LostText, ...] = ()
    is_certain: bool = False


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as the bytes of a JPEG file.

    Attributes:
        content: Bytes of the JPEG file.
        sha256: SHA-256 of `content`, 64 hexadecimal digits.
        quality: JPEG quality of the encoding, 1 to 100.
    """

    content: bytes = field(repr=False)
    sha256: str
    quality: int


@dataclass(frozen=True, slots=True)
class PageScreenshot:
    """The rendered image of a page, as a viewer displays the page.

    Attributes:
        image: RGB image, upright, with alpha flattened onto white.
        dpi: Rendering resolution in pixels per inch. For image files: the resolution stored in the file, or 72.
    """

    image: Image
    dpi: float


@dataclass(frozen=True, slots=True)
class PreparedPage:
    """Data of an index that depend only on a page, computed outside the thread that writes the index.

    Attributes:
        screenshot: The page screenshot as a JPEG file.
        crops: The crops of the regions as JPEG files, in the order of ``Page.regions``.
        lexical: Term weights of the words of the page and of the file name.
        region_lexical: Term weights of each region, in the order of ``Page.regions``.
    """

    screenshot: EncodedImage
    crops: tuple[EncodedImage, ...]
    lexical: SparseVector
    region_lexical: tuple[SparseVector, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a document, with the page screenshot, words and regions.

    Attributes:
        doc_id: Path of the document relative to the ingested root, with forward slashes.
        path: Path of the file.
        number: Page number, 1-based.
        count: Number of pages in the document.
        screenshot: The page screenshot.
        words: Words in reading order: the text layer first, then the words that OCR added.
        regions: Charts, tables and figures.
        warnings: Problems found while parsing the page, one message each (blank render, repaired file, reduced
            resolution).
        suspects: Parts of the text layer that OCR must compare with the pixels; empty in the pages that `read_pages`
            yields.
        prepared: Encoded images and term weights of the page; None if an index computes them. The field is no parameter
            and ignored in comparisons. ``dataclasses.replace`` does not copy the field, because the encoded images and
            term weights belong to the previous words, regions and screenshot.
    """

    doc_id: str
    path: Path
    number: int
    count: int
    screenshot: PageScreenshot
    words: tuple[Word, ...] = ()
    regions: tuple[Region, ...] = ()
    warnings: tuple[str, ...] = ()
    suspects: tuple[SuspectText, ...] = field(default=(), repr=False, compare=False)
    prepared: PreparedPage | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The words of the page, joined by single spaces."""
        return " ".join(word.text for word in self.words)

    def with_prepared(self, prepared: PreparedPage | None) -> Page:
        """Return a copy of the page with another value of `prepared`.

        Args:
            prepared: Encoded images and term weights of this page, from `parsing.preparation.prepare`; or None.
        """
        page = replace(self)
        object.__setattr__(page, "prepared", prepared)
        return page


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Boxes on the page for the rows of a multi-vector.

    Attributes:
        boxes: Shape (tokens, 4), float32, fractions of the page. Rows without a position (prompt tokens, plain text)
            are NaN.
        kind: ``"words"`` if a box is a piece of text, ``"patches"`` if a box is an image patch.
        images: Shape (tokens,), int32. For a document of several images: the 0-based index of the image that contains
            the box, or -1 for rows without a position. None for a document of one image.
    """

    boxes: Float32
    kind: Literal["words", "patches"]
    images: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return int(self.boxes.shape[0])


@dataclass(frozen=True, slots=True)
class Attribution:
    """Contribution of each position in the images of a document to a reranker score.

    Attributes:
        boxes: Shape (positions, 4), float32, fractions of the image.
        weights: Shape (positions,), float32. Amount that each position added to the raw score (negative: subtracted),
            or the share of the attention that each position received.
        images: Shape (positions,), int32. 0-based index of the image that contains the box.
        score: The raw score of the document.
    """

    boxes: Float32
    weights: Float32
    images: npt.NDArray[np.int32]
    score: float


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of n inputs, in input order.

    Attributes:
        single: Dense vectors, shape (n, dim), float32, L2-normalized; None if not requested.
        multi: Multi-vectors, n arrays of shape (tokens_i, multi_dim), float32, rows L2-normalized; None if not
            requested.
        grids: Positions of the rows of `multi`, one grid per input; None for an input without positions (plain text).
        tokens: Token texts of the rows of `multi`, one tuple per input; "" for rows that are not text. None for an
            input that is not text. The field is None if the embedder does not provide token texts.
        truncated: One boolean per input: whether the end of the input was dropped because of the token limit. None if
            the embedder does not report truncation.
    """

    single: Float32 | None = None
    multi: list[Float32] | None = None
    grids: list[TokenGrid | None] | None = None
    tokens: list[tuple[str, ...] | None] | None = None
    truncated: list[bool] | None = None

    def require_single(self) -> Float32:
        """Return the dense vectors, shape (n, dim), float32.

        Raises:
            ModelError: If the embedder returned no dense vectors.
        """
        if self.single is None:
            raise ModelError("The embedder returned no dense vectors (Embeddings.single). Encode with single=True.")
        return self.single

    def require_multi(self) -> list[Float32]:
        """Return the multi-vectors, n arrays of shape (tokens_i, multi_dim), float32.

        Raises:
            ModelError: If the embedder returned no multi-vectors.
        """
        if self.multi is None:
            raise ModelError("The embedder returned no multi-vectors (Embeddings.multi). Encode with multi=True.")
        return self.multi


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term weights of a text for lexical search.

    Attributes:
        indices: Term ids, shape (n,), uint32, unique.
        values: Weight of each term, shape (n,), float32.
    """

    indices: npt.NDArray[np.uint32]
    values: Float32


@dataclass(frozen=True, slots=True)
class Point:
    """A record of a vector store: an id, up to three vectors and a JSON payload.

    Attributes:
        id: UUID as text.
        dense: Dense vector, shape (dim,), float32, or None.
        multi: Multi-vector, shape (tokens, multi_dim), float32; None for a page without tokens.
        lexical: Term weights, or None.
        payload: JSON values by key.
    """

    id: str
    dense: Float32 | None = None
    multi: Float32 | None = None
    lexical: SparseVector | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreHit:
    """A point returned by a store.

    Attributes:
        id: UUID of the point.
        score: Score for the query; higher is better.
        payload: Payload of the point, or the requested keys of the payload.
    """

    id: str
    score: float
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoreQuery:
    """A query of a vector store: rank points by one vector.

    Attributes:
        vector: Dense vector, shape (dim,), float32; multi-vector, shape (query tokens, multi_dim), float32, for exact
            MaxSim; or term weights, which match only points that share a term with the query.
        limit: Maximum number of hits, at least 1.
        where: Filter on the payload; None for all points.
        ids: Ids of the points to rank; None for all points. Unknown ids are ignored.
        keys: Payload keys to return with the hits; None for all keys.
    """

    vector: Float32 | SparseVector
    limit: int
    where: Where | None = None
    ids: Collection[str] | None = None
    keys: Sequence[str] | None = ()


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Candidate limits of the first search stage. The candidates are then scored with exact MaxSim.

    Attributes:
        limit: Maximum number of candidates from the dense search.
        lexical: Maximum number of candidates from the lexical search (exact terms). True for 50, False or 0 for none.
        regions: Maximum number of charts, tables and figures from the dense search. True for 50, False or 0 for none.
            With region candidates, `limit` and `lexical` count pages only, so that the regions of a few pages cannot
            crowd out other pages.
        exhaustive: If the index has at most this number of pages, search skips the first stage and scores every page.
            Stores ignore this field.

    Raises:
        InvalidInputError: If a value is negative or not an integer, or `limit` or `exhaustive` is a bool.
    """

    limit: int = 150
    lexical: bool | int = True
    regions: bool | int = True
    exhaustive: int = 400

    def __post_init__(self) -> None:
        for name in ("limit", "lexical", "regions", "exhaustive"):
            value = getattr(self, name)
            switch = isinstance(value, bool) and name in ("limit", "exhaustive")
            if switch or not isinstance(value, int) or value < 0:
                raise InvalidInputError(f"Prefetch.{name} is {value!r}; expected an integer of at least 0.")

    @property
    def lexical_limit(self) -> int:
        """Maximum number of candidates from the lexical search."""
        return 50 if self.lexical is True else int(self.lexical)

    @property
    def region_limit(self) -> int:
        """Maximum number of candidate regions."""
        return 50 if self.regions is True else int(self.regions)


@dataclass(frozen=True, slots=True)
class Location:
    """A file that contains a page.

    Files with the same bytes are indexed once, and a hit lists the locations of all these files.

    Attributes:
        doc_id: Path of the document relative to the ingested root.
        path: Path of the file at ingestion.
        metadata: Metadata of the document, as passed at ingestion.
    """

    doc_id: str
    path: Path
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SimilarPage:
    """A near-duplicate page that search merged into a hit.

    Attributes:
        location: Location of the file that contains the page.
        page: Page number, 1-based.
        similarity: 1 minus the largest local difference between the near-duplicate page and the page of the hit, from 0
            to 1.
    """

    location: Location
    page: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Step:
    """Rank and score of a page in one search stage.

    Attributes:
        stage: ``"dense"``, ``"lexical"``, ``"region"``, ``"maxsim"``, ``"rescore"`` or ``"rerank"``.
        rank: Rank of the page in the stage, 1-based; None if the stage scores the page without ranking it.
        score: Score in the stage; higher is better. Comparable only within the stage.
        note: Phrase with further information on the step; may be empty.
    """

    stage: str
    rank: int | None
    score: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class ScoredPage:
    """A search hit: a page with scores and location.

    Attributes:
        doc_id: Path of the document relative to the ingested root; for an input of `DocumentIndex.add`, the id of the
            input.
        path: Path of the file at ingestion.
        page: Page number, 1-based.
        score: Score of the last stage that scored the page; higher is better. Comparable within one query, among hits
            with the same `stage`.
        region: The best matching chart, table or figure, if the region scored higher than the rest of the page; else
            None.
        image_path: Path of the stored page screenshot; None for a text.
        snippet: Words around the best match; empty for a page without words.
        metadata: Metadata of the document, as passed at ingestion.
        page_count: Number of pages in the document.
        copies: Locations of other files with the same bytes as the file at `path`. These files also contain the page.
        near_duplicate_of: An earlier page with nearly the same content, as (doc_id, page); None if the index has no
            such page.
        page_id: Id of the page's point in the store.
        stage: The stage that set `score`: ``"rescore"`` or ``"rerank"``.
        scores: Score in each stage that scored the page, by stage name.
        steps: Per-stage ranks and scores, in stage order; empty unless the search ran with ``explain=True``.
        other_pages: Page numbers of further hits in the same document, best first, if hits are grouped by document.
        similar: Near-duplicate pages merged into this hit, if the search ran with deduplication.
        text: All words of the page, or the whole text if the hit is a text passed to `DocumentIndex.add`.
        added: Whether the content was passed to `DocumentIndex.add`. False for pages of files.
    """

    doc_id: str
    path: Path
    page: int
    score: float
    region: Region | None = None
    image_path: Path | None = None
    snippet: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    page_count: int = 0
    copies: tuple[Location, ...] = ()
    near_duplicate_of: tuple[str, int] | None = None
    page_id: str = ""
    stage: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    other_pages: tuple[int, ...] = ()
    similar: tuple[SimilarPage, ...] = ()
    text: str = ""
    added: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the hit is a text that was passed to `DocumentIndex.add`. A text has no page image."""
        return self.added and self.image_path is None


@dataclass(frozen=True, slots=True)
class Failure:
    """A file or page listed in an `IngestReport`, with the reason.

    Attributes:
        path: Path of the file.
        reason: One or two sentences: the reason, then the remedy if a remedy is known.
        page: Page number, 1-based; None if the reason applies to the whole file.
    """

    path: Path
    reason: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Result of an ingestion.

    Attributes:
        documents: Number of documents indexed or reindexed in this run, including copies of other documents.
        pages: Number of pages of the indexed and reindexed documents.
        regions: Number of charts, tables and figures on the pages counted by `pages`.
        unchanged: Number of documents that were already indexed with the same content, including moved documents.
        moved: Number of unchanged documents whose file was renamed or moved.
        removed: Number of documents removed from the index.
        repeated: Number of pages of this run that are near-duplicates of an earlier page. These pages are stored and
            marked as near-duplicates.
        duplicates: Indexed files with the same bytes as another file. The pages of these files are stored once; hits
            list all the files.
        skipped: Files that were skipped on purpose, with the reason, for example hidden files.
        failed: Files and pages that could not be indexed, with the reason.
        warnings: Files and pages that were indexed with a problem, with the reason.
        seconds: Wall-clock time in seconds.
        interrupted: Whether the run was stopped early. Documents counted in the report are in the index.
    """

    documents: int = 0
    pages: int = 0
    regions: int = 0
    unchanged: int = 0
    moved: int = 0
    removed: int = 0
    repeated: int = 0
    duplicates: tuple[Failure, ...] = ()
    skipped: tuple[Failure, ...] = ()
    failed: tuple[Failure, ...] = ()
    warnings: tuple[Failure, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False
