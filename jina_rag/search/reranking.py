"""The last stage: the best pages are shown to a reranker, as images or as words, within a budget of images and time.

Pages are taken in the order they have, so that a budget that runs out has spent itself on the best of them.
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
"""What a reranker is shown of a page: its screenshot, the crop of its best chart, table or figure, its words."""

_FIRST_ITEMS = 2
"""Items that are judged before anything is known of what one takes."""
_MAX_ITEMS = 16
"""Items in one call where time is limited: a call cannot be broken off."""


@dataclass(frozen=True, slots=True)
class Rerank:
    """The last stage: a reranker reads the query and the best pages together.

    Pages that it judged come first, by its scores; the others follow in the order they had.

    Attributes:
        model: A reranker, or what `jina_rag.load_reranker` takes; None for the one the index was opened with.
        limit: Pages that are judged, best first; 0 turns the stage off.
        shows: What the reranker is shown of each page; a page's score is that of its best part. None for what suits the
            reranker: the screenshot for one that looks at pixels, the words for one that reads.
        max_images: Images that are judged at most.
        max_ms: Milliseconds after which nothing is begun. Two pages are judged first, which tell what a page takes;
            what is begun is finished, so pages that take longer than those before overrun it.
        calibration: Makes scores of images and of texts comparable; None takes them as they are. See
            `jina_rag.search.calibration`.
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
            raise InvalidInputError(f"Rerank.model is {self.model!r}; it is a reranker, or the name or folder of one.")
        check_whole_number("Rerank.limit", self.limit, minimum=0)
        if self.max_images is not None:
            check_whole_number("Rerank.max_images", self.max_images, minimum=0)
        if self.max_ms is not None:
            check_number("Rerank.max_ms", self.max_ms, minimum=0)
        if self.shows is not None:
            object.__setattr__(self, "shows", tuple(self.shows))
            if not self.shows or not set(self.shows) <= set(get_args(PageView)):
                raise InvalidInputError(f"Rerank.shows is {self.shows!r}; it is some of 'page', 'region', 'text'.")


@dataclass(frozen=True, slots=True)
class Reranking:
    """What a reranker made of a ranking.

    Attributes:
        candidates: All of them; first those that it judged.
        count: How many it judged.
        complete: False where a budget ended it before all were judged that should have been.
        notes: What was not done, in sentences.
    """

    candidates: list[Candidate]
    count: int
    complete: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that a reranker is shown: a part of the page at that place of the ranking."""

    place: int
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
    """Judge the first `stage.limit` candidates.

    Args:
        query: The query.
        candidates: Best first.
        points: The pages' points by id, at least of those to be judged; a candidate without one is passed over.
        images: The pages' images.
        reranker: The judge.
        stage: How many, what of them, and what that may cost.
        clock: Seconds, ever growing.

    Raises:
        InvalidInputError: If the reranker cannot take the query.
        ModelError: If it does not give one number for each document.
    """
    start = clock()
    views = stage.shows or (("page",) if reranker.modality == "image" else ("text",))
    items: list[_Item] = []
    notes: list[str] = []
    empty_pages = image_count = excess_images = 0
    for place, candidate in enumerate(candidates[: stage.limit]):
        point = points.get(candidate.page_id)
        page_items = [] if point is None else _items(place, candidate, point, query, images, views)
        empty_pages += point is not None and not page_items
        for item in page_items:
            if item.modality == "image" and stage.max_images is not None and image_count >= stage.max_images:
                excess_images += 1
                continue
            image_count += item.modality == "image"
            items.append(item)
    if excess_images:
        notes.append(f"rerank: {_count(excess_images, 'image')} not judged (max_images={stage.max_images}).")
    if empty_pages:
        notes.append(f"rerank: {_count(empty_pages, 'page')} not judged, with nothing to show ({' or '.join(views)}).")
    scores, end = _scores(query, items, reranker, stage, clock, start)
    damaged = {item.place for item in items[:end]} - {item.place for item, _, _ in scores}
    if damaged:
        notes.append(f"rerank: {_count(len(damaged), 'page')} not judged, with a damaged picture: see jina-rag verify.")
    if end < len(items):
        page_count = len({item.place for item in items[end:]})
        notes.append(f"rerank: {_count(page_count, 'page')} not judged in full (max_ms={stage.max_ms:g}).")
    best: dict[int, tuple[float, float, PageView]] = {}
    for item, score, raw_score in scores:
        if item.place not in best or (score, raw_score) > best[item.place][:2]:
            best[item.place] = score, raw_score, item.view
    # Calibrated scores may be equal where those of the model are not; last, the earlier stage decides.
    order = sorted(best, key=lambda place: (-best[place][0], -best[place][1], place))
    first = [_with_score(candidates[place], best[place][0], best[place][2]) for place in order]
    rest = [candidate for place, candidate in enumerate(candidates) if place not in best]
    return Reranking(first + rest, len(first), not excess_images and end == len(items), tuple(notes))


def _with_score(candidate: Candidate, score: float, view: PageView) -> Candidate:
    scores = {**candidate.scores, "rerank": score, f"rerank:{view}": score}
    return replace(candidate, score=score, stage="rerank", scores=scores)


def _items(
    place: int,
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
        # What is no page has nothing but its text to show.
        if (view == "text" or (view == "page" and not image and "text" not in views)) and text.strip():
            # Said outright: a page whose words look like the address of an image is text all the same.
            items.append(_Item(place, "text", {"text": text}))
        if view == "page" and image and (path := images.path(image)).is_file():
            items.append(_Item(place, view, path))
        if view == "region":
            region = None
            if candidate.region is not None:
                region = region_at(payload, candidate.region.payload.get(schema.BOX), images.folder)
            region = region or highlight(query.multi, payload, images.folder, point.multi).region
            if region is not None and region.image_path is not None and region.image_path.is_file():
                items.append(_Item(place, view, region.image_path))
    return items


def _scores(
    query: Query,
    items: Sequence[_Item],
    reranker: Reranker,
    stage: Rerank,
    clock: Callable[[], float],
    start: float,
) -> tuple[list[tuple[_Item, float, float]], int]:
    """Items with their scores, calibrated and as they were, and how many were tried: all unless time runs out.

    Items whose images turn out to be damaged have no score.
    """
    scores: list[tuple[_Item, float, float]] = []
    end, last_count = 0, _FIRST_ITEMS
    while end < len(items):
        count = len(items) - end
        if stage.max_ms is not None:
            elapsed = clock() - start
            remaining = stage.max_ms / 1000 - elapsed
            # What one item took so far tells how many of them still fit; some take longer, so by small steps.
            fitting = (
                _FIRST_ITEMS if not end else min(_MAX_ITEMS, 2 * last_count, int(remaining / max(elapsed / end, 1e-9)))
            )
            count = min(count, fitting)
            if remaining <= 0 or count < 1:
                break
        readable, raw_scores = _raw_scores(query, items[end : end + count], reranker)
        calibrated = raw_scores
        if stage.calibration is not None and readable:
            calibrated = stage.calibration.apply(raw_scores, [item.modality for item in readable])
        scores += zip(readable, calibrated.tolist(), raw_scores.tolist(), strict=True)
        end, last_count = end + count, count
    return scores, end


def _raw_scores(query: Query, items: Sequence[_Item], reranker: Reranker) -> tuple[Sequence[_Item], Float32]:
    """The items that can be judged, and the reranker's scores of them."""
    try:
        scores = np.asarray(reranker.score(query.content, [item.content for item in items]), dtype=np.float32)
    except InvalidInputError:
        # To decode each image beforehand would take longer than some rerankers do.
        readable = [item for item in items if not isinstance(item.content, Path) or is_readable(item.content)]
        if len(readable) == len(items):
            raise
        return _raw_scores(query, readable, reranker) if readable else ([], np.zeros(0, dtype=np.float32))
    if scores.shape != (len(items),) or not np.isfinite(scores).all():
        raise ModelError(
            f"The reranker {reranker.name!r} gave scores of shape {scores.shape} for {len(items)} documents, or some "
            "that are no numbers: it must give one finite number for each, in their order."
        )
    return items, scores


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} was" if number == 1 else f"{number} {noun}s were"
