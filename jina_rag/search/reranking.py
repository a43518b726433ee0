"""The last search stage: a reranker scores the best pages as images or text, with a limit on images and on time.

Pages are scored in the order of the previous stages. If a limit is reached, the pages at the top of the ranking have
already been scored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from jina_rag._checks import check_number, check_whole_number
from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.protocols import Input, Reranker
from jina_rag.search.fusion import Candidate
from jina_rag.search.query import Query
from jina_rag.search.snippets import highlight, region_at
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles, is_readable
from jina_rag.types import Float32, Point

if TYPE_CHECKING:
    from jina_rag.search.calibration import Calibration

PageView: TypeAlias = Literal["page", "region", "text"]
"""View of a page that the reranker scores: the screenshot, the crop of the best chart, table or figure, or the words of
the page."""

_FIRST_ITEMS = 2
"""Number of items (views of pages) in the first call with a time budget. The time per item is unknown before the first
call."""
_MAX_ITEMS = 16
"""Maximum number of items per call with a time budget. A call cannot be interrupted, so a long call would exceed the
budget."""


@dataclass(frozen=True, slots=True)
class Rerank:
    """The last stage: a reranker reads the query and the best pages together.

    Scored pages come first, ordered by the score of the reranker. Pages that the reranker did not score follow in the
    order of the previous stage.

    Attributes:
        model: A reranker, or an argument of `jina_rag.load_reranker`; None for the reranker that the index was opened
            with.
        limit: Number of pages to score, from the top of the ranking; 0 turns the stage off.
        shows: Views of each page that the reranker scores: ``"page"`` (screenshot), ``"region"`` (crop of the best
            chart, table or figure) and ``"text"`` (words). The page gets the highest score of all views. Default: the
            screenshot for an image reranker, and the words for a text reranker.
        max_images: Maximum number of images to score; None for no limit.
        max_ms: Time budget in milliseconds; None for no limit. The first call scores two items to measure the time per
            item. After the budget is spent, no call starts, but a running call completes. The stage therefore exceeds
            the budget if the last items take longer than the previous items.
        calibration: Calibration that makes scores of images and scores of texts comparable; None uses the raw scores.
            See `jina_rag.search.calibration`.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    model: str | os.PathLike[str] | Reranker | None = None
    limit: int = 20
    shows: tuple[PageView, ...] | None = None
    max_images: int | None = None
    max_ms: float | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, os.PathLike):
            object.__setattr__(self, "model", os.fspath(self.model))
        if not (self.model is None or isinstance(self.model, str) or hasattr(self.model, "score")):
            raise InvalidInputError(f"Rerank.model is {self.model!r}; expected a reranker, a model name or a folder.")
        check_whole_number("Rerank.limit", self.limit, minimum=0)
        if self.max_images is not None:
            check_whole_number("Rerank.max_images", self.max_images, minimum=0)
        if self.max_ms is not None:
            check_number("Rerank.max_ms", self.max_ms, minimum=0)
        if self.shows is not None:
            object.__setattr__(self, "shows", tuple(self.shows))
            if not self.shows or not set(self.shows) <= set(get_args(PageView)):
                raise InvalidInputError(f"Rerank.shows is {self.shows!r}; expected some of 'page', 'region', 'text'.")


@dataclass(frozen=True, slots=True)
class Reranking:
    """Result of the reranking stage.

    Attributes:
        candidates: All candidates; scored candidates come first.
        count: Number of scored candidates.
        complete: False if a budget ran out before all requested candidates were scored.
        notes: Sentences that explain why candidates were not scored.
    """

    candidates: list[Candidate]
    count: int
    complete: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Item:
    """One view of a candidate as input for the reranker; `position` is the index of the candidate in the ranking."""

    position: int
    view: PageView
    content: Input

    @property
    def modality(self) -> str:
        return "text" if self.view == "text" else "image"


def rerank(
    query: Query,
    candidates: Sequence[Candidate],
    points: Mapping[str, Point],
    images: ImageFiles,
    reranker: Reranker,
    stage: Rerank,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Reranking:
    """Score the first `stage.limit` candidates with a reranker.

    Args:
        query: The query.
        candidates: The candidates, best first.
        points: Page id → point, at least for the candidates to score; a candidate without a point is skipped.
        images: Image files of the index.
        reranker: The reranker.
        stage: Settings of the stage: number of candidates, views per candidate (page image, region crop, text), and
            budgets for images and time.
        clock: Monotonic clock, in seconds.

    Returns:
        All candidates; scored candidates come first.

    Raises:
        InvalidInputError: If the reranker does not support the query.
        ModelError: If the reranker does not return one finite score per document.
    """
    start = clock()
    views = stage.shows or (("page",) if reranker.modality == "image" else ("text",))
    items: list[_Item] = []
    notes: list[str] = []
    empty_pages = image_count = excess_images = 0
    for position, candidate in enumerate(candidates[: stage.limit]):
        point = points.get(candidate.page_id)
        page_items = [] if point is None else _items(position, candidate, point, query, images, views)
        empty_pages += point is not None and not page_items
        for item in page_items:
            if item.modality == "image" and stage.max_images is not None and image_count >= stage.max_images:
                excess_images += 1
                continue
            image_count += item.modality == "image"
            items.append(item)
    if excess_images:
        notes.append(f"rerank: {_count(excess_images, 'image')} not scored (max_images={stage.max_images}).")
    if empty_pages:
        notes.append(f"rerank: {_count(empty_pages, 'page')} not scored: no {' or '.join(views)} view.")
    scores, end = _scores(query, items, reranker, stage, clock, start)
    damaged_pages = {item.position for item in items[:end]} - {item.position for item, _, _ in scores}
    if damaged_pages:
        notes.append(f"rerank: {_count(len(damaged_pages), 'page')} not scored: damaged image. Run `jina-rag verify`.")
    if end < len(items):
        page_count = len({item.position for item in items[end:]})
        notes.append(f"rerank: {_count(page_count, 'page')} not fully scored (max_ms={stage.max_ms:g}).")
    best: dict[int, tuple[float, float, PageView]] = {}
    for item, score, raw_score in scores:
        if item.position not in best or (score, raw_score) > best[item.position][:2]:
            best[item.position] = score, raw_score, item.view
    # Candidates with equal calibrated scores are ordered by raw score, then by the order of the previous stage.
    order = sorted(best, key=lambda position: (-best[position][0], -best[position][1], position))
    scored = [_with_score(candidates[position], best[position][0], best[position][2]) for position in order]
    unscored = [candidate for position, candidate in enumerate(candidates) if position not in best]
    return Reranking(scored + unscored, len(scored), not excess_images and end == len(items), tuple(notes))


def _with_score(candidate: Candidate, score: float, view: PageView) -> Candidate:
    scores = {**candidate.scores, "rerank": score, f"rerank:{view}": score}
    return replace(candidate, score=score, stage="rerank", scores=scores)


def _items(
    position: int,
    candidate: Candidate,
    point: Point,
    query: Query,
    images: ImageFiles,
    views: Sequence[PageView],
) -> list[_Item]:
    payload = point.payload
    text, image = str(payload.get(schema.TEXT, "")), payload.get(schema.IMAGE)
    items = []
    for view in views:
        # A text that was passed to `add` has no page image. The text replaces the view "page".
        if (view == "text" or (view == "page" and not image and "text" not in views)) and text.strip():
            # The mapping marks the input as text, even if the text looks like a data URI.
            items.append(_Item(position, "text", {"text": text}))
        if view == "page" and image and (path := images.path(image)).is_file():
            items.append(_Item(position, view, path))
        if view == "region":
            region = None
            if candidate.region is not None:
                region = region_at(payload, candidate.region.payload.get(schema.BOX), images.folder)
            region = region or highlight(query.multi, payload, images.folder, point.multi).region
            if region is not None and region.image_path is not None and region.image_path.is_file():
                items.append(_Item(position, view, region.image_path))
    return items


def _scores(
    query: Query,
    items: Sequence[_Item],
    reranker: Reranker,
    stage: Rerank,
    clock: Callable[[], float],
    start: float,
) -> tuple[list[tuple[_Item, float, float]], int]:
    """Return (item, calibrated score, raw score) triples, and the number of items passed to the reranker.

    If the time budget runs out, fewer items than `len(items)` are passed. Items with damaged images have no score.
    """
    scores: list[tuple[_Item, float, float]] = []
    end, last_count = 0, _FIRST_ITEMS
    while end < len(items):
        count = len(items) - end
        if stage.max_ms is not None:
            elapsed = clock() - start
            remaining = stage.max_ms / 1000 - elapsed
            # The mean time per item gives the number of items that fit into the remaining time. A call has at most
            # twice as many items as the previous call, because some items take longer than the mean.
            fitting = (
                _FIRST_ITEMS if not end else min(_MAX_ITEMS, 2 * last_count, int(remaining / max(elapsed / end, 1e-9)))
            )
            count = min(count, fitting)
            if remaining <= 0 or count < 1:
                break
        readable, raw_scores = _raw_scores(query, items[end : end + count], reranker)
        calibrated_scores = raw_scores
        if stage.calibration is not None and readable:
            calibrated_scores = stage.calibration.apply(raw_scores, [item.modality for item in readable])
        scores += zip(readable, calibrated_scores.tolist(), raw_scores.tolist(), strict=True)
        end, last_count = end + count, count
    return scores, end


def _raw_scores(query: Query, items: Sequence[_Item], reranker: Reranker) -> tuple[Sequence[_Item], Float32]:
    """Return the items with readable images or texts, and the raw score of each item, shape (items,), float32."""
    try:
        scores = np.asarray(reranker.score(query.content, [item.content for item in items]), dtype=np.float32)
    except InvalidInputError:
        # Images are checked only after a failure, because decoding each image before the call takes longer than some
        # rerankers.
        readable = [item for item in items if not isinstance(item.content, Path) or is_readable(item.content)]
        if len(readable) == len(items):
            raise
        return _raw_scores(query, readable, reranker) if readable else ([], np.zeros(0, dtype=np.float32))
    if scores.shape != (len(items),) or not np.isfinite(scores).all():
        raise ModelError(
            f"The reranker {reranker.name!r} returned scores of shape {scores.shape} for {len(items)} documents, or "
            "non-finite scores; expected one finite number per document, in order."
        )
    return items, scores


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} was" if number == 1 else f"{number} {noun}s were"
