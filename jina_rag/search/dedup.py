"""Pages among the hits of a search that show nearly the same, folded into the first of them.

The multi-vectors must match row by row (`similarity`); for most pages one product of two vectors tells that they do not
(`_reach`). That finds the same page at another resolution, but also a form that somebody else filled in, where 80 of 85
rows are equal, and a scan of a page whose text layer OCR reads otherwise. So the pictures are laid on each other
(`image_match`): they must not differ anywhere as much as by a tick in a box, and where a row has no counterpart, its
place must not look otherwise by more than the rest of the page does. Pages are folded when they are shown; `near` marks
pages at ingestion.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jina_rag import scoring
from jina_rag.catalog.near_duplicates import image_match
from jina_rag.catalog.near_duplicates.image_match import Matches, Overlay
from jina_rag.catalog.near_duplicates.text_difference import is_renumbered, unlike, words_at
from jina_rag.compression import decode_assignment, decode_signs
from jina_rag.compression.pooling import Assignment
from jina_rag.stores import schema
from jina_rag.stores.images import checked_name
from jina_rag.types import Float32, Point

SIMILARITY = 0.6
"""Pages less similar than this are not looked at closer; see `similarity`. Measured with "lite": the same page again,
scanned or cropped, has 0.87 at least on 240 generated pairs, and more than 0.6 on 49 of 60 real ones (text layers and
OCR, scripts that it cannot read); of 17,578 pairs of unlike real pages 6 have more."""
SURE = 0.85
"""Without pictures: pages at least so similar whose words are the same but for what OCR mistakes."""
MOST = 0.2
"""Greatest `same_picture.Overlay.difference`: a tick in a box makes 0.4."""
_PAIRED = 0.6
"""Rows less alike than this do not stand for the same place."""
_COUNTERPART = 0.97
"""A token whose best counterpart is less alike than this may be another word, or another number."""
_ENOUGH = 20
_GLANCE = 64
_GLANCE_OFF = 0.1
"""Four times the error of a mean of 64 best cosines, which spread by 0.2."""
_CLEAN = 1e-3
_DIRECTIONS, _SHARPNESS = 1024, 2
_FLOOR = 0.18
"""Pages whose `_reach` correlates less are not compared. Measured with "lite" and "lite-en": of pages that have
`SIMILARITY` none is below 0.53 on 240 generated pairs, none below 0.29 on 60 real pages and their scans, read by OCR.
Of 17,578 pairs of unlike real pages 1 % and 5 % lie above by their sign codes, 33 % and 15 % by their vectors."""
_FEW, _EVEN = 8, 0.1
"""Fewer rows, or rows that spread less, of unit length: how far they reach says nothing of the page."""
_LEAST, _WORST = 0.01, 0.3
"""Errors of a place that never stand out, and that always do."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """What of a page is compared.

    Attributes:
        rows: Unit rows of its multi-vector as stored, or its sign codes, shape (rows, dim).
        signs: Whether `rows` are sign codes.
        boxes: Where its tokens stand, shape (tokens, 4); None where that is not known.
        into: The row of each token, shape (tokens,).
        patches: Whether tokens are patches of the picture, not words.
        words: Its words without case, accents and punctuation.
        word_boxes: Where they stand, shape (words, 4); None where that is not known.
        image: Its screenshot; None where it is elsewhere.
    """

    rows: Float32
    signs: bool = False
    boxes: Float32 | None = None
    into: Assignment = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    patches: bool = False
    words: tuple[str, ...] = ()
    word_boxes: Float32 | None = None
    image: Path | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Pages that show nearly the same: the first, and the others with their similarity to it."""

    first: Point
    others: tuple[tuple[Point, float], ...] = ()


def fold(
    points: Sequence[Point], image_folder: Path | None = None, *, multi_dim: int, threshold: float = SIMILARITY
) -> list[Group]:
    """Fold pages that show nearly the same into the first of them.

    Each page is held against the first page of every group: none drifts in through a third.

    Args:
        points: Pages as stored, best first. Their sign codes are compared where the payload has them, their
            multi-vectors otherwise; one with neither is compared by its picture.
        image_folder: Where the screenshots lie. Without them the words alone must agree, all of them.
        multi_dim: Length of a row as stored, which sign codes do not tell.
        threshold: Least `similarity`, 0 to 1.

    Returns:
        The groups in the order of their first pages; every point is in one of them.
    """
    folding = Folding(image_folder, multi_dim, threshold=threshold)
    groups: list[tuple[Point, list[tuple[Point, float]]]] = []
    for point in points:
        same = folding.find(point)
        if same is None:
            folding.add(point)
            groups.append((point, []))
        else:
            groups[same[0]][1].append((point, same[1]))
    return [Group(first, tuple(others)) for first, others in groups]


class Folding:
    """The first pages of the groups so far: see `fold`, for pages that come one by one."""

    def __init__(self, image_folder: Path | None, multi_dim: int, *, threshold: float = SIMILARITY) -> None:
        self._folder, self._multi_dim, self._threshold = image_folder, multi_dim, threshold
        self._firsts: list[Side] = []
        self._reaches = np.zeros((16, 2 * _DIRECTIONS), dtype=np.float32)
        self._images: dict[Path, Float32 | None] = {}
        self._last: tuple[str, Side, Float32] | None = None

    def find(self, point: Point) -> tuple[int, float] | None:
        """Which first page a page shows nearly the same as, counted from 0, and how similar the two are."""
        side, reach = self._side(point)
        for number in self._near(reach):
            found = compare(self._firsts[number], side, threshold=self._threshold, images=self._images)
            if found is not None:
                return number, found
        return None

    def add(self, point: Point) -> None:
        """Begin a group with this page."""
        side, reach = self._side(point)
        if len(self._firsts) == len(self._reaches):
            # Twice as large each time, so that not every page copies all before it.
            self._reaches = np.concatenate([self._reaches, np.zeros_like(self._reaches)])
        self._reaches[len(self._firsts)] = reach
        self._firsts.append(side)

    def _near(self, reach: Float32) -> list[int]:
        """The first pages that are worth a comparison, in their order: most are told apart by one product."""
        if self._threshold < SIMILARITY:  # the floor was not measured for less
            return list(range(len(self._firsts)))
        cosines = scoring.similarity(self._reaches[: len(self._firsts)], reach[None])[:, 0]
        # Those of which nothing is known have zeros.
        near: list[int] = np.flatnonzero((cosines >= _FLOOR) | (cosines == 0)).tolist()
        return near

    def _side(self, point: Point) -> tuple[Side, Float32]:
        if self._last is None or self._last[0] != point.id:
            side = side_of(point, self._folder, self._multi_dim)
            self._last = point.id, side, _reach(side.rows)
        return self._last[1:]


def _reach(rows: Float32) -> Float32:
    """How far the rows of a page reach from their mean into fixed random directions and back, shape (2048,).

    A soft support function of the rows as a set of points: where each lies near a row of the other page, both reach
    about as far everywhere. Their mean does not do: the pages of a model share much of it, and sign codes have none.

    Returns:
        Centred, of length 1; zeros where there are few rows or all are much the same, as those of a blank page.
    """
    apart = rows - rows.mean(axis=0) if len(rows) else rows
    if len(rows) < _FEW or np.square(apart).sum(axis=1).mean() < _EVEN:
        return np.zeros(2 * _DIRECTIONS, dtype=np.float32)
    # Their deviation is _SHARPNESS at most: far from what float32 cannot hold.
    shares = np.exp(scoring.similarity(apart, _directions(rows.shape[1])))
    reach = np.log(np.concatenate([shares.mean(axis=0), (1 / shares).mean(axis=0)]))
    return scoring.normalise(reach - reach.mean())


@functools.cache
def _directions(dim: int) -> Float32:
    """Shape (1024, dim), the same at each call; as long as normal draws, but all of one length.

    Along a longer one all pages would reach further, which is most of what differs where rows are short.
    """
    drawn = np.random.default_rng(0).standard_normal((_DIRECTIONS, dim), dtype=np.float32)
    return scoring.normalise(drawn) * np.float32(_SHARPNESS * np.sqrt(dim))


def side_of(point: Point, image_folder: Path | None, multi_dim: int) -> Side:
    """What of a stored page is compared: see `fold`."""
    payload = point.payload
    name = checked_name(payload.get(schema.IMAGE))
    signs = bool(payload.get(schema.SIGNS))
    rows = decode_signs(payload[schema.SIGNS], multi_dim) if signs else point.multi
    if rows is None or schema.GRID not in payload:
        # A picture without words is embedded by its file's name, which says nothing about what it shows.
        rows, signs = np.zeros((0, multi_dim), dtype=np.float32), False
    boxes, patches, into = None, False, np.zeros(0, dtype=np.int32)
    if len(rows):
        grid = schema.decode_grid(payload[schema.GRID])
        patches = grid.kind == "patches"
        into = np.arange(len(grid), dtype=np.int32)
        if schema.ASSIGNMENT in payload:
            into = decode_assignment(payload[schema.ASSIGNMENT])
        # Otherwise a store has merged rows of a very long page by itself.
        if len(grid) and len(into) == len(grid) and int(into.max()) < len(rows):
            boxes = grid.boxes
    text = str(payload.get(schema.TEXT, ""))
    words, word_boxes = words_at(text), None
    if schema.WORDS in payload:
        every = schema.decode_grid(payload[schema.WORDS]).boxes
        if len(every) == len(text.split()):
            word_boxes = every[list(words)]
    return Side(
        rows=rows if signs else scoring.normalise(rows),
        signs=signs,
        boxes=boxes,
        into=into,
        patches=patches,
        words=tuple(words.values()),
        word_boxes=word_boxes,
        image=image_folder / name if image_folder is not None and name is not None else None,
    )


def similarity(a: Side, b: Side) -> float:
    """How well the rows of two pages match: the mean cosine of each row with its best counterpart, both ways.

    Returns:
        The smaller of the two means, from page to page and back, at least 0; 0 where a side has no rows. Of sign
        codes, the cosine that they stand for.
    """
    if not len(a.rows) or not len(b.rows):
        return 0.0
    return _mean(_cosines(a, b))


def compare(
    a: Side, b: Side, *, threshold: float = SIMILARITY, images: dict[Path, Float32 | None] | None = None
) -> float | None:
    """The similarity of two pages that show nearly the same; None for pages that do not.

    Args:
        a: A page.
        b: Another.
        threshold: Least `similarity`.
        images: Screenshots that were read before; those that are read are added.

    Returns:
        `similarity`, or where neither page has rows one minus the difference of the pictures.
    """
    both = len(a.rows) > 0 and len(b.rows) > 0
    if (len(a.rows) > 0) != (len(b.rows) > 0) or (both and a.rows.shape[1] != b.rows.shape[1]) or a.signs != b.signs:
        return None
    if both and _glance(a, b) < threshold - _GLANCE_OFF:
        return None
    cosines = _cosines(a, b) if both else None
    found = 0.0 if cosines is None else _mean(cosines)
    if cosines is not None and found < threshold:
        return None
    shown = _shown(a, b, {} if images is None else images)
    if shown is None:
        same_words = bool(a.words) and bool(b.words) and unlike(a.words, b.words) == ([], [])
        return found if cosines is not None and found >= SURE and same_words else None
    lost, added = unlike(a.words, b.words) if a.words and b.words else ([], [])
    if is_renumbered(lost, added):
        return None
    overlay = image_match.lay(*shown, None if cosines is None else _matches(a, b, cosines))
    if overlay is None or (difference := overlay.difference()) > MOST:
        return None
    if cosines is None:
        return 1 - difference
    errors = overlay.errors(_boxes_of(a, lost), _boxes_of(b, added))
    return None if _stands_out(a, b, cosines, overlay, np.concatenate(errors)) else found


def _glance(a: Side, b: Side) -> float:
    """About what `similarity` is, from a few rows of one side: most pages are told apart by these."""
    few = a.rows[:: max(1, len(a.rows) // _GLANCE)]
    return float(_cosines(replace(a, rows=few), b).max(axis=1).mean())


def _mean(cosines: Float32) -> float:
    return max(0.0, float(min(cosines.max(axis=1).mean(), cosines.max(axis=0).mean())))


def _cosines(a: Side, b: Side) -> Float32:
    """Shape (rows of a, rows of b)."""
    dots = scoring.similarity(a.rows, b.rows)
    if not a.signs:
        return dots
    # Of ±1/√dim: the share of equal signs tells the angle (Charikar, STOC 2002).
    cosines: Float32 = np.sin(dots * np.float32(np.pi / 2))
    return cosines


def _shown(a: Side, b: Side, images: dict[Path, Float32 | None]) -> tuple[Float32, Float32] | None:
    """Both pictures; None where one is not there."""
    if a.image is None or b.image is None:
        return None
    for path in (a.image, b.image):
        if path not in images:
            images[path] = image_match.load(path)
    first, second = images[a.image], images[b.image]
    return None if first is None or second is None else (first, second)


def _matches(a: Side, b: Side, cosines: Float32) -> Matches | None:
    """Places whose rows are each other's best."""
    if a.boxes is None or b.boxes is None:
        return None
    to_b, to_a = cosines.argmax(axis=1), cosines.argmax(axis=0)
    mine = np.arange(len(to_b))
    sure = (to_a[to_b] == mine) & (cosines[mine, to_b] >= _PAIRED)
    first, second = _middles(a)[sure], _middles(b)[to_b[sure]]
    known = ~(np.isnan(first).any(axis=1) | np.isnan(second).any(axis=1))
    return Matches(first[known], second[known], within=0.02 if a.patches or b.patches else 0.006)


def _middles(side: Side) -> Float32:
    """Where each row stands, shape (rows, 2); NaN for rows of several places or of none."""
    assert side.boxes is not None
    found = np.full((len(side.rows), 2), np.nan, dtype=np.float32)
    alone = np.bincount(side.into, minlength=len(side.rows))[side.into] == 1
    found[side.into[alone]] = ((side.boxes[:, :2] + side.boxes[:, 2:]) / 2)[alone]
    return found


def _boxes_of(side: Side, words: Sequence[str]) -> Float32:
    """Where some of a page's words stand, shape (n, 4)."""
    if side.word_boxes is None:
        return np.zeros((0, 4), dtype=np.float32)
    wanted = set(words)
    return side.word_boxes[[i for i, word in enumerate(side.words) if word in wanted]]


def _stands_out(a: Side, b: Side, cosines: Float32, overlay: Overlay, of_words: Float32) -> bool:
    """Whether a place without a counterpart among the other's vectors or words looks otherwise there, too.

    Places that have one tell how much the pictures differ everywhere, by resolution and compression. A misread word
    looks no worse than these; another digit does, if only a little: so the more places are in doubt, the further one
    must stand out (the expected maximum of as many normal draws grows with sqrt(2 ln n)).
    """
    if a.boxes is None or b.boxes is None:
        return False
    errors = np.concatenate(overlay.errors(a.boxes, b.boxes))
    best = np.concatenate([cosines.max(axis=1)[a.into], cosines.max(axis=0)[b.into]])
    seen = ~np.isnan(errors)
    trusted = errors[seen & (best >= _COUNTERPART)]
    # Words such as yes and no have no vectors.
    doubtful = np.concatenate([errors[seen & (best < _COUNTERPART)], of_words[~np.isnan(of_words)]])
    if not len(doubtful):
        return False
    usual = np.log(np.maximum(trusted if len(trusted) >= _ENOUGH else errors[seen], _CLEAN))
    middle, high = np.quantile(usual, (0.5, 0.95))
    allowed = middle + (high - middle) / 1.645 * (np.sqrt(2 * np.log(len(doubtful))) + 2)
    return bool(np.log(max(float(doubtful.max()), _CLEAN)) > min(max(allowed, np.log(_LEAST)), np.log(_WORST)))
