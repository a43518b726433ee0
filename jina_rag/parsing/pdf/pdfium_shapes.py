"""The raster pictures and vector shapes of a page as PDFium knows them, in the page's own coordinates."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TypeAlias

from jina_rag.parsing.layout.boxes import bounds, clipped
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.drawings import MANY_SHAPES, MAX_PIECES, WHITE
from jina_rag.types import Box

Matrix: TypeAlias = tuple[float, float, float, float, float, float]
Point: TypeAlias = tuple[float, float]

_IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
# Form XObjects within form XObjects, deeper than any program writes them.
_MAX_DEPTH = 16
# Pages of more objects than this are maps and technical drawings: what is looked at shows where they are.
_MAX_OBJECTS = 20_000
# Of longer paths the extent is asked for, and curves are looked for in this many pieces at the beginning.
_LONG_PATH = 1_000
_MANY_POINTS = 100


@dataclass(slots=True)
class PageObjects:
    """What is on a page besides text.

    Attributes:
        images: Boxes of raster pictures.
        boxes: Boxes of visible vector shapes; a path of many rules is one for each.
        curved: Which of `boxes` have curves.
        count: How many objects of any kind the page has, those within form XObjects included.
    """

    images: list[Box] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    curved: list[bool] = field(default_factory=list)
    count: int = 0


def read_shapes(raw: ModuleType, pages: Iterable[Handle], *, drawings: bool) -> PageObjects:
    """Find the pictures and, if asked for, the drawings of a page, or of several that lie upon each other.

    Args:
        raw: ``pypdfium2.raw``.
        pages: Each an ``FPDF_PAGE``.
        drawings: Whether to look at vector shapes; their boxes stay empty otherwise.
    """
    walk = _Walk(raw, drawings)
    for page in pages:
        count = raw.FPDFPage_CountObjects(page)
        walk.look_at(count, lambda index, page=page: raw.FPDFPage_GetObject(page, index), _IDENTITY, None, 0)  # type: ignore[misc]
    return walk.objects


class _Walk:
    """One run over the objects of a page; holds what PDFium writes its answers into."""

    def __init__(self, raw: ModuleType, drawings: bool) -> None:
        self.objects = PageObjects()
        self._raw = raw
        self._drawings = drawings
        self._matrix = raw.FS_MATRIX()
        self._floats = tuple(ctypes.c_float() for _ in range(4))
        self._bytes = tuple(ctypes.c_uint() for _ in range(4))
        self._ints = (ctypes.c_int(), ctypes.c_int())

    def look_at(self, count: int, get: Callable[[int], Handle], matrix: Matrix, clip: Box | None, depth: int) -> None:
        """Look at the objects of a page or form.

        Args:
            count: How many there are.
            get: Gives one by its index.
            matrix: From their coordinates to the page's.
            clip: What of the page is visible of them; None for all of it.
            depth: How many forms they are in.
        """
        raw = self._raw
        for index in range(count):
            if self.objects.count >= _MAX_OBJECTS:
                return
            item = get(index)
            self.objects.count += 1
            kind = raw.FPDFPageObj_GetType(item)
            if kind == raw.FPDF_PAGEOBJ_PATH:
                if self._drawings:
                    self._path(item, matrix, clip)
            elif kind == raw.FPDF_PAGEOBJ_IMAGE:
                box = self._bounds(item, matrix)
                if box and (box := clipped(box, self._clip(item, matrix, clip))):
                    self.objects.images.append(box)
            elif kind == raw.FPDF_PAGEOBJ_FORM and depth < _MAX_DEPTH:
                inner = self._clip(item, matrix, clip)
                self.look_at(
                    max(raw.FPDFFormObj_CountObjects(item), 0),
                    lambda at, form=item: raw.FPDFFormObj_GetObject(form, at),  # type: ignore[misc]
                    _product(self._matrix_of(item), matrix),
                    inner,
                    depth + 1,
                )

    def _path(self, item: Handle, matrix: Matrix, clip: Box | None) -> None:
        raw = self._raw
        mode, stroke = self._ints
        raw.FPDFPath_GetDrawMode(item, ctypes.byref(mode), ctypes.byref(stroke))
        if self._is_invisible(item, bool(mode.value), bool(stroke.value)):
            return
        count = raw.FPDFPath_CountSegments(item)
        if count > _LONG_PATH:
            box = self._bounds(item, matrix)
            boxes = [box] if box else []
            curves = any(self._segment(raw.FPDFPath_GetPathSegment(item, at))[0] == 1 for at in range(_MANY_POINTS))
        else:
            own = _product(self._matrix_of(item), matrix)
            boxes, curves = self._pieces(item, count, own, only_lines=not mode.value)
        clip = self._clip(item, matrix, clip)
        boxes = [part for part in (clipped(box, clip) for box in boxes) if part]
        self.objects.boxes += boxes
        self.objects.curved += [curves] * len(boxes)

    def _is_invisible(self, item: Handle, fill: bool, stroke: bool) -> bool:
        """Neither filled nor drawn, white, or fully transparent: clips, and backgrounds nobody sees."""
        raw = self._raw
        looks = [raw.FPDFPageObj_GetFillColor] * fill + [raw.FPDFPageObj_GetStrokeColor] * stroke
        for look in looks:
            if not look(item, *map(ctypes.byref, self._bytes)):
                return False  # a pattern or shading
            *paint, opacity = (value.value for value in self._bytes)
            if opacity and min(paint) <= 255 * WHITE:
                return False
        return True

    def _pieces(self, item: Handle, count: int, matrix: Matrix, *, only_lines: bool) -> tuple[list[Box], bool]:
        """The boxes of a path: one for each rule where it is many, else one; and whether it has curves."""
        raw = self._raw
        parts: list[list[Point]] = []
        curves = False
        for at in range(count):
            kind, point, closes = self._segment(raw.FPDFPath_GetPathSegment(item, at))
            curves |= kind == raw.FPDF_SEGMENT_BEZIERTO
            point = moved(point, matrix)
            if kind == raw.FPDF_SEGMENT_MOVETO or not parts:
                parts.append([])
            parts[-1].append(point)
            if closes and parts[-1][0] != point:
                parts[-1].append(parts[-1][0])
        parts = [part for part in parts if len(part) > 1]
        rectangles = [_is_rectangle(part) for part in parts]
        pieces = sum(1 if whole else len(part) - 1 for part, whole in zip(parts, rectangles, strict=True))
        # One path may hold all the rules of a table: each is a shape of its own. The outline of an area is not.
        apart = (only_lines or all(rectangles)) and not curves and 1 < pieces <= MAX_PIECES
        if not apart or len(self.objects.boxes) >= MANY_SHAPES:
            points = [point for part in parts for point in part]
            return ([bounds(points)] if points else []), curves
        boxes: list[Box] = []
        for part, whole in zip(parts, rectangles, strict=True):
            boxes += [bounds(part)] if whole else [bounds(part[at : at + 2]) for at in range(len(part) - 1)]
        return boxes, curves

    def _segment(self, segment: Handle) -> tuple[int, Point, bool]:
        raw = self._raw
        x, y = self._floats[:2]
        raw.FPDFPathSegment_GetPoint(segment, ctypes.byref(x), ctypes.byref(y))
        kind = int(raw.FPDFPathSegment_GetType(segment))
        return kind, (x.value, y.value), bool(raw.FPDFPathSegment_GetClose(segment))

    def _bounds(self, item: Handle, matrix: Matrix) -> Box | None:
        if not self._raw.FPDFPageObj_GetBounds(item, *map(ctypes.byref, self._floats)):
            return None
        left, bottom, right, top = (value.value for value in self._floats)
        return bounds([moved(point, matrix) for point in ((left, bottom), (left, top), (right, bottom), (right, top))])

    def _clip(self, item: Handle, matrix: Matrix, clip: Box | None) -> Box | None:
        """What of the page an object may paint on: the boxes around its clips, and what its form may."""
        raw = self._raw
        path = raw.FPDFPageObj_GetClipPath(item)
        for at in range(raw.FPDFClipPath_CountPaths(path)):
            count = min(raw.FPDFClipPath_CountPathSegments(path, at), _MANY_POINTS)
            points = [self._segment(raw.FPDFClipPath_GetPathSegment(path, at, segment))[1] for segment in range(count)]
            if not points or count == _MANY_POINTS:
                continue
            box = bounds([moved(point, matrix) for point in points])
            clip = box if clip is None else clipped(clip, box) or (box[0], box[1], box[0], box[1])
        return clip

    def _matrix_of(self, item: Handle) -> Matrix:
        matrix = self._matrix
        if not self._raw.FPDFPageObj_GetMatrix(item, ctypes.byref(matrix)):
            return _IDENTITY
        return matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f


def _product(first: Matrix, second: Matrix) -> Matrix:
    """The matrix that does `first`, then `second`."""
    if first == _IDENTITY:
        return second
    a, b, c, d, e, f = first
    p, q, r, s, t, u = second
    return a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u


def moved(point: Point, matrix: Matrix) -> Point:
    """A point through a matrix."""
    x, y = point
    a, b, c, d, e, f = matrix
    return a * x + c * y + e, b * x + d * y + f


def _is_rectangle(points: list[Point]) -> bool:
    """Whether a closed part of a path is a rectangle with sides along the page's."""
    if len(points) != 5 or points[0] != points[4]:
        return False
    sides = [(abs(x1 - x0) < 1e-3, abs(y1 - y0) < 1e-3) for (x0, y0), (x1, y1) in itertools.pairwise(points)]
    return all(upright or level for upright, level in sides)
