"""The values that travel between the layers: frozen dataclasses, no behaviour beyond simple views.

Boxes are fractions of the displayed page, origin top left: ``(x0, y0, x1, y1)`` with 0 <= x0 <= x1 <= 1.
Pages are 1-based. Vectors are float32 unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Range:
    """A filter's value: numbers between two ends, each of which may be left open.

    Attributes:
        gte: At least this.
        lte: At most this.
        gt: More than this.
        lt: Less than this.
    """

    gte: float | None = None
    lte: float | None = None
    gt: float | None = None
    lt: float | None = None


Where: TypeAlias = Mapping[str, Scalar | Sequence[Scalar] | Range]
"""A filter on a point's payload: every key must equal its value, or one of its values if it is a sequence, or lie in
the range."""


@dataclass(frozen=True, slots=True)
class Word:
    """A run of characters without white space, and where it stands on the page.

    Scripts written without spaces give long "words" (a whole line, often). `ocr` tells whether the
    characters were read from pixels rather than taken from the document's text layer.
    """

    text: str
    box: Box
    ocr: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """A chart, table or figure on a page.

    Attributes:
        kind: What it is.
        box: Where it is on the page.
        caption: The words above or below that name it; empty if none were found.
        image_path: The crop beside the index, once stored.
        score: How much its words speak to the question, in search results; comparable within a page only.
    """

    kind: RegionKind
    box: Box
    caption: str = ""
    image_path: Path | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class PageScreenshot:
    """A page as pixels, as a viewer displays it.

    Attributes:
        image: RGB, alpha flattened onto white, upright.
        dpi: Resolution it was rendered at; for image files the one the file states, or 72.
    """

    image: Image
    dpi: float


@dataclass(frozen=True, slots=True)
class Page:
    """One page of one document: what it looks like, and which words and regions stand where.

    Attributes:
        doc_id: Path relative to the ingested root, with forward slashes.
        path: The file.
        number: 1-based.
        count: Number of pages in the document.
        screenshot: The pixels.
        words: In reading order; text layer first, then what OCR added.
        regions: Charts, tables and figures.
        warnings: What was wrong with it, in sentences (blank render, repaired file, clamped resolution).
    """

    doc_id: str
    path: Path
    number: int
    count: int
    screenshot: PageScreenshot
    words: tuple[Word, ...] = ()
    regions: tuple[Region, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Which box of the page each row of a multi-vector stands for.

    Attributes:
        boxes: Shape (tokens, 4) float32, fractions of the page; a row of NaN stands for no place
            (prompt tokens, plain text).
        kind: ``"words"`` when a box is a piece of text, ``"patches"`` when it is an image patch.
        images: Shape (tokens,) int32: for a document of several images, which of them a box is a part of (from 0;
            -1 for rows without a place). None where there is one.
    """

    boxes: Float32
    kind: Literal["words", "patches"]
    images: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return int(self.boxes.shape[0])


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each place of a document's images had to do with its score.

    Attributes:
        boxes: Shape (places, 4) float32, fractions of their image.
        weights: Shape (places,) float32: what a place added to the raw score (negative: took from it), or the share
            of attention that rested on it.
        images: Shape (places,) int32: which of the document's images a box is a part of, from 0.
        score: The raw score.
    """

    boxes: Float32
    weights: Float32
    images: npt.NDArray[np.int32]
    score: float


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What one call of an embedder returns for n inputs, in their order.

    Attributes:
        single: Shape (n, dim) float32, L2-normalised; None if not asked for.
        multi: n arrays of shape (tokens_i, multi_dim) float32, rows L2-normalised; None if not asked for.
        grids: n grids beside `multi`, each None where the input has no places (plain text).
        tokens: n tuples beside `multi`: what each row stands for, as text (the piece of a word, "" for what is no
            text); None where the embedder does not tell, and each None where the input is no text.
        truncated: n booleans: whether the end of the input was not read, because it was too long; None where the
            embedder does not tell.
    """

    single: Float32 | None = None
    multi: list[Float32] | None = None
    grids: list[TokenGrid | None] | None = None
    tokens: list[tuple[str, ...] | None] | None = None
    truncated: list[bool] | None = None

    def require_single(self) -> Float32:
        """The dense vectors, shape (n, dim) float32, for a caller that asked for them.

        Raises:
            ModelError: If the embedder returned none.
        """
        if self.single is None:
            raise ModelError("The embedder returned no dense vectors (single), although they were asked for.")
        return self.single

    def require_multi(self) -> list[Float32]:
        """The multi-vectors, n arrays of shape (tokens_i, multi_dim) float32, for a caller that asked for them.

        Raises:
            ModelError: If the embedder returned none.
        """
        if self.multi is None:
            raise ModelError("The embedder returned no multi-vectors (multi), although they were asked for.")
        return self.multi


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term weights: `indices` (n,) uint32 without repetition, `values` (n,) float32."""

    indices: npt.NDArray[np.uint32]
    values: Float32


@dataclass(frozen=True, slots=True)
class Point:
    """What a store keeps: an id, up to three vectors, a JSON payload.

    Attributes:
        id: A UUID as text.
        dense: Shape (dim,), or None.
        multi: Shape (tokens, multi_dim), or None for a page without any token.
        lexical: Term weights, or None.
        payload: JSON values only.
    """

    id: str
    dense: Float32 | None = None
    multi: Float32 | None = None
    lexical: SparseVector | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreHit:
    """A point found by a store: its id, its score (higher is better) and its payload."""

    id: str
    score: float
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prefetch:
    """The first stage of a search: how many candidates each cheap vector hands to exact MaxSim.

    Attributes:
        limit: Pages by the dense vector.
        lexical: Whether pages are also found by exact terms, and how many; True for 50.
        regions: Whether charts, tables and figures are candidates of their own by the dense vector, and how many;
            True for 50. Where they are, the other two are for pages only, so that regions of some pages do not crowd
            out other pages.
        exhaustive: In an index of up to so many pages there is no first stage: every page is scored. (Stores have no
            use for it.)
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
                raise InvalidInputError(f"Prefetch.{name} is {value!r}; it counts pages: a number, 0 or more.")

    @property
    def lexical_limit(self) -> int:
        """How many candidates come by exact terms."""
        return 50 if self.lexical is True else int(self.lexical)

    @property
    def region_limit(self) -> int:
        """How many regions are candidates."""
        return 50 if self.regions is True else int(self.regions)


@dataclass(frozen=True, slots=True)
class Location:
    """A file that holds a page: copies of a file are indexed once and cited at all their places.

    Attributes:
        doc_id: Path relative to the ingested root.
        path: The file as it was ingested.
        metadata: What was given for the document at ingestion.
    """

    doc_id: str
    path: Path
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SimilarPage:
    """A page that shows nearly the same as a hit, and was folded into it.

    Attributes:
        location: The file that holds it.
        page: 1-based.
        similarity: 0 to 1: one minus how much the two differ where they differ most.
    """

    location: Location
    page: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Step:
    """What one stage of a search made of one page.

    Attributes:
        stage: ``"dense"``, ``"lexical"``, ``"region"``, ``"maxsim"``, ``"rescore"``, ``"rerank"``.
        rank: The page's rank there, from 1; None where the stage gives a score but no order.
        score: Higher is better; comparable within the stage only.
        note: What else there is to say, as a phrase.
    """

    stage: str
    rank: int | None
    score: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class ScoredPage:
    """A page found for a question.

    Attributes:
        doc_id: Path relative to the ingested root.
        path: The file as it was ingested.
        page: 1-based.
        score: That of the last stage that judged the page. Higher is better; comparable within one question, among
            hits of one `stage`.
        region: The chart, table or figure that answers best, when it matched better than the rest of the page.
        image_path: The page screenshot beside the index.
        snippet: The words around the best match; empty for a page without words.
        metadata: What was given for the document at ingestion.
        page_count: Number of pages in the document.
        copies: Other files with the same bytes, which hold this page, too.
        near_duplicate_of: The earlier page, as (doc_id, page), that this one nearly repeats; None if there is none.
        page_id: Of its point in the store.
        stage: The stage that gave `score`: ``"rescore"`` or ``"rerank"``.
        scores: Score of each stage that has judged the page, by its name.
        steps: Which stage put the page where, in order; empty unless the search was asked to explain.
        other_pages: Further pages of the document that were found, best first, where hits are grouped by document.
        similar: Pages that show nearly the same, folded into this one where a search was asked to do so.
        text: All words of the page; for a text that was given to `DocumentIndex.add`, as it was given.
        added: Whether it was given to `DocumentIndex.add`, under the id `doc_id`, rather than read from a file.
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
        """Whether it is a text that was given to `DocumentIndex.add`, which is no page and has no picture."""
        return self.added and self.image_path is None


@dataclass(frozen=True, slots=True)
class Failure:
    """A file or page that could not be indexed, and the reason a person understands.

    Attributes:
        path: The file.
        reason: One sentence.
        page: 1-based, or None when the whole file failed.
    """

    path: Path
    reason: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of every file.

    Attributes:
        documents: Documents newly indexed or replaced in this run, copies of others included.
        pages: Their pages.
        regions: Charts, tables and figures found on them.
        unchanged: Documents that were already indexed as they are, moved ones included.
        moved: Of these, documents whose file has another name or folder now.
        removed: Documents taken out.
        repeated: Pages of this run that nearly repeat an earlier one; they are stored and marked.
        duplicates: Of the documents, files with the same bytes as another one: stored once, cited at all places.
        skipped: Files passed over on purpose, with the reason (not a document, hidden).
        failed: Files and pages that could not be indexed, with the reason.
        warnings: Indexed all the same, but worth a look.
        seconds: Wall time.
        interrupted: True when the run was stopped before its end; what is reported is in the index.
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
