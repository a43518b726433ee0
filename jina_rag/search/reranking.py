"""The last stage: the best pages are shown to a reranker, as pictures or as words, within a budget of images and time.

Pages are taken in the order they have, so that a budget that runs out has spent itself on the best of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.protocols import Input, Reranker
from jina_rag.search.late_interaction import Candidate
from jina_rag.search.query import Query
from jina_rag.search.snippets import find_place, region_of
from jina_rag.search.stages import Rerank, Shown
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles, is_readable
from jina_rag.types import Float32, Point

_FIRST = 2
"""Pages that are judged before anything is known of what a page takes."""
_MOST = 16
"""Pages in one call where time is limited: a call cannot be broken off."""


@dataclass(frozen=True, slots=True)
class Reranked:
    """What became of a ranking.

    Attributes:
        candidates: All of them; first those that were judged.
        judged: How many were.
        complete: False where a budget ended it before all were judged that should have been.
        notes: What was not done, in sentences.
    """

    candidates: list[Candidate]
    judged: int
    complete: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that a reranker is shown: a part of the page at that place of the ranking."""

    page: int
    kind: Shown
    content: Input
    modality: str


def rerank(
    query: Query,
    candidates: Sequence[Candidate],
    points: Mapping[str, Point],
    images: ImageFiles,
    reranker: Reranker,
    stage: Rerank,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Reranked:
    """Judge the first `stage.limit` candidates.

    Args:
        query: What was asked.
        candidates: Best first.
        points: The pages' points by id, at least of those to be judged; a candidate without one is passed over.
        images: The pages' pictures.
        reranker: The judge.
        stage: How many, what of them, and what that may cost.
        clock: Seconds, ever growing.

    Raises:
        InvalidInputError: If the reranker cannot take the question.
        ModelError: If it does not give one number for each document.
    """
    started = clock()
    shows = stage.shows or (("page",) if reranker.modality == "image" else ("text",))
    items: list[_Item] = []
    notes: list[str] = []
    without = image_count = refused = 0
    for place, candidate in enumerate(candidates[: stage.limit]):
        point = points.get(candidate.page_id)
        found = [] if point is None else _items(place, candidate, point, query, images, shows)
        without += point is not None and not found
        for item in found:
            if item.modality == "image" and stage.max_images is not None and image_count >= stage.max_images:
                refused += 1
                continue
            image_count += item.modality == "image"
            items.append(item)
    if refused:
        notes.append(f"rerank: {_count(refused, 'image')} not judged (max_images={stage.max_images}).")
    if without:
        notes.append(f"rerank: {_count(without, 'page')} not judged, with nothing to show ({' or '.join(shows)}).")
    scores, done = _scores(query, items, reranker, stage, clock, started)
    damaged = {item.page for item in items[:done]} - {item.page for item, _, _ in scores}
    if damaged:
        notes.append(f"rerank: {_count(len(damaged), 'page')} not judged, with a damaged picture: see jina-rag verify.")
    if done < len(items):
        left = len({item.page for item in items[done:]})
        notes.append(f"rerank: {_count(left, 'page')} not judged in full (max_ms={stage.max_ms:g}).")
    best: dict[int, tuple[float, float, Shown]] = {}
    for item, score, before in scores:
        if item.page not in best or (score, before) > best[item.page][:2]:
            best[item.page] = score, before, item.kind
    # Calibrated scores may be equal where those of the model are not; last, the earlier stage decides.
    order = sorted(best, key=lambda place: (-best[place][0], -best[place][1], place))
    judged = [_judged(candidates[place], best[place][0], best[place][2]) for place in order]
    rest = [candidate for place, candidate in enumerate(candidates) if place not in best]
    return Reranked(judged + rest, len(judged), not refused and done == len(items), tuple(notes))


def _judged(candidate: Candidate, score: float, kind: Shown) -> Candidate:
    scores = {**candidate.scores, "rerank": score, f"rerank:{kind}": score}
    return replace(candidate, score=score, stage="rerank", scores=scores)


def _items(
    place: int,
    candidate: Candidate,
    point: Point,
    query: Query,
    images: ImageFiles,
    shows: Sequence[Shown],
) -> list[_Item]:
    payload = point.payload
    found = []
    for kind in shows:
        # What is no page has nothing but its text to show.
        bare = kind == "page" and not payload.get(schema.IMAGE)
        if (kind == "text" or (bare and "text" not in shows)) and str(payload.get(schema.TEXT, "")).strip():
            # Said outright: a page whose words look like the address of an image is text all the same.
            found.append(_Item(place, "text", {"text": str(payload[schema.TEXT])}, "text"))
        if kind == "page" and not bare:
            image = images.path(payload[schema.IMAGE])
            if image.is_file():
                found.append(_Item(place, kind, image, "image"))
        if kind == "region":
            region = None
            if candidate.region is not None:
                region = region_of(payload, candidate.region.payload.get(schema.BOX), images.folder)
            region = region or find_place(query.multi, payload, images.folder, point.multi).region
            if region is not None and region.image_path is not None and region.image_path.is_file():
                found.append(_Item(place, kind, region.image_path, "image"))
    return found


def _scores(
    query: Query,
    items: Sequence[_Item],
    reranker: Reranker,
    stage: Rerank,
    clock: Callable[[], float],
    started: float,
) -> tuple[list[tuple[_Item, float, float]], int]:
    """Items with their scores, calibrated and as they were, and how many were taken: all unless time runs out.

    Items whose pictures turn out to be damaged have no score.
    """
    scores: list[tuple[_Item, float, float]] = []
    done, last = 0, _FIRST
    while done < len(items):
        count = len(items) - done
        if stage.max_ms is not None:
            spent = clock() - started
            left = stage.max_ms / 1000 - spent
            # What one item took so far tells how many of them still fit; some take longer, so by small steps.
            count = min(count, _FIRST if not done else min(_MOST, 2 * last, int(left / max(spent / done, 1e-9))))
            if left <= 0 or count < 1:
                break
        some, found = _asked(query, items[done : done + count], reranker)
        fair = found
        if stage.calibration is not None and some:
            fair = stage.calibration.apply(found, [item.modality for item in some])
        scores += zip(some, fair.tolist(), found.tolist(), strict=True)
        done, last = done + count, count
    return scores, done


def _asked(query: Query, items: Sequence[_Item], reranker: Reranker) -> tuple[Sequence[_Item], Float32]:
    """The items that can be judged, and the reranker's scores of them."""
    try:
        return items, _checked(reranker.score(query.asked, [item.content for item in items]), len(items), reranker)
    except InvalidInputError:
        # To decode each picture beforehand would take longer than some rerankers do.
        whole = [item for item in items if not isinstance(item.content, Path) or is_readable(item.content)]
        if len(whole) == len(items):
            raise
    if not whole:
        return [], np.zeros(0, dtype=np.float32)
    return whole, _checked(reranker.score(query.asked, [item.content for item in whole]), len(whole), reranker)


def _checked(scores: object, count: int, reranker: Reranker) -> Float32:
    """What a reranker has given, if that is one number for each item."""
    found = np.asarray(scores, dtype=np.float32)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ModelError(
            f"The reranker {reranker.name!r} gave scores of shape {found.shape} for {count} documents, or some that "
            "are no numbers: it must give one finite number for each, in their order."
        )
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} was" if number == 1 else f"{number} {noun}s were"
