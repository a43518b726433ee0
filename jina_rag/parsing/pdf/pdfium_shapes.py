"""Raster images and vector shapes of a PDF page, read with PDFium, in page coordinates."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TypeAlias

from jina_rag.parsing.layout.boxes import bounds, clip_box
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.drawings import MANY_SHAPES, MAX_PIECES, WHITE
from jina_rag.types import Box

Matrix: TypeAlias = tuple[float, float, float, float, float, float]
Point: TypeAlias = tuple[float, float]

IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
# Maximum nesting depth of form XObjects. Real documents have fewer levels.
MAX_DEPTH = 16
# Maximum number of objects that are read per page. A page with more objects is a map or technical drawing, and the
# first objects are enough to find the box of the drawing.
_MAX_OBJECTS = 20_000
# Of a path with more than `_LONG_PATH` segments, only the bounding box is read, and only the first `_MANY_POINTS`
# segments are checked for curves.
_LONG_PATH = 1_000
_MANY_POINTS = 100


@dataclass(slots=True)
class PageObjects:
    """Images and vector shapes of a page, in points of the page coordinates (y axis up).

    Attributes:
        images: Boxes of the raster images.
        image_orders: Number of each raster image in drawing order.
        image_pixels: Number of visible pixels of each raster image.
        boxes: Boxes of the visible vector shapes in points. A path that consists of several rules has one box per rule.
        curved: Whether each vector shape has curves, one value per box.
        count: Number of objects on the page, including text objects and objects in form XObjects.
        text_orders: Address of each text object → number of the object in drawing order.
    """

    images: list[Box] = field(default_factory=list)
    image_orders: list[int] = field(default_factory=list)
    image_pixels: list[float] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    curved: list[bool] = field(default_factory=list)
    count: int = 0
    text_orders: dict[int, int] = field(default_factory=dict)


def read_shapes(raw: ModuleType, pages: Iterable[Handle], *, drawings: bool) -> PageObjects:
    """Return the images and vector shapes of one page, or of several pages that are drawn on top of each other.

    Args:
        raw: The module ``pypdfium2.raw``.
        pages: ``FPDF_PAGE`` handles of the pages.
        drawings: Whether to read vector shapes. If False, the `boxes` and `curved` of the result are empty.
    """
    walk = _Walk(raw, drawings)
    for page in pages:
        count = raw.FPDFPage_CountObjects(page)
        walk.visit(count, lambda index, page=page: raw.FPDFPage_GetObject(page, index), IDENTITY, None, 0)  # type: ignore[misc]
    return walk.objects


class _Walk:
    """Reader of the objects of a page. Output buffers for PDFium are allocated once and reused."""

    def __init__(self, raw: ModuleType, drawings: bool) -> None:
        self.objects = PageObjects()
        self._raw = raw
        self._drawings = drawings
        self._floats = tuple(ctypes.c_float() for _ in range(4))
        self._bytes = tuple(ctypes.c_uint() for _ in range(4))
        self._ints = (ctypes.c_int(), ctypes.c_int())

    def visit(self, count: int, get: Callable[[int], Handle], matrix: Matrix, clip: Box | None, depth: int) -> None:
        """Read the objects of a page or form XObject.

        Args:
            count: Number of objects.
            get: Function that returns an object by index.
            matrix: Transformation from object coordinates to page coordinates.
            clip: Box that clips the objects, in page coordinates; None for no clipping.
            depth: Nesting depth of the form XObject; 0 for the page.
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
            elif kind == raw.FPDF_PAGEOBJ_TEXT:
                self.objects.text_orders[ctypes.cast(item, ctypes.c_void_p).value or 0] = self.objects.count
            elif kind == raw.FPDF_PAGEOBJ_IMAGE:
                box = self._bounds(item, matrix)
                if box and (visible := clip_box(box, self._clip(item, matrix, clip))):
                    self.objects.images.append(visible)
                    self.objects.image_orders.append(self.objects.count)
                    self.objects.image_pixels.append(self._pixels_of(item) * _area(visible) / _area(box))
            elif kind == raw.FPDF_PAGEOBJ_FORM and depth < MAX_DEPTH:
                inner = self._clip(item, matrix, clip)
                self.visit(
                    max(raw.FPDFFormObj_CountObjects(item), 0),
                    lambda at, form=item: raw.FPDFFormObj_GetObject(form, at),  # type: ignore[misc]
                    product(matrix_of(raw, item), matrix),
                    inner,
                    depth + 1,
                )

    def _pixels_of(self, item: Handle) -> int:
        width, height = self._bytes[:2]
        is_known = self._raw.FPDFImageObj_GetImagePixelSize(item, ctypes.byref(width), ctypes.byref(height))
        return width.value * height.value if is_known else 0

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
            to_page = product(matrix_of(raw, item), matrix)
            boxes, curves = self._pieces(item, count, to_page, only_lines=not mode.value)
        clip = self._clip(item, matrix, clip)
        boxes = [part for part in (clip_box(box, clip) for box in boxes) if part]
        self.objects.boxes += boxes
        self.objects.curved += [curves] * len(boxes)

    def _is_invisible(self, item: Handle, fill: bool, stroke: bool) -> bool:
        """Return whether a path is invisible: neither filled nor stroked, white, or fully transparent."""
        raw = self._raw
        getters = [raw.FPDFPageObj_GetFillColor] * fill + [raw.FPDFPageObj_GetStrokeColor] * stroke
        for get_color in getters:
            if not get_color(item, *map(ctypes.byref, self._bytes)):
                return False  # the path is painted with a pattern or shading
            *paint, opacity = (value.value for value in self._bytes)
            if opacity and min(paint) <= 255 * WHITE:
                return False
        return True

    def _pieces(self, item: Handle, count: int, matrix: Matrix, *, only_lines: bool) -> tuple[list[Box], bool]:
        """Return the boxes of a path, and whether the path has curves. A path of several rules has one box per rule."""
        raw = self._raw
        parts: list[list[Point]] = []
        curves = False
        for at in range(count):
            kind, point, closes = self._segment(raw.FPDFPath_GetPathSegment(item, at))
            curves |= kind == raw.FPDF_SEGMENT_BEZIERTO
            point = transform(point, matrix)
            if kind == raw.FPDF_SEGMENT_MOVETO or not parts:
                parts.append([])
            parts[-1].append(point)
            if closes and parts[-1][0] != point:
                parts[-1].append(parts[-1][0])
        parts = [part for part in parts if len(part) > 1]
        rectangles = [_is_rectangle(part) for part in parts]
        pieces = sum(1 if is_rectangle else len(part) - 1 for part, is_rectangle in zip(parts, rectangles, strict=True))
        # If a path contains all rules of a table, each rule becomes a shape. The outline of an area stays one shape.
        split_rules = (only_lines or all(rectangles)) and not curves and 1 < pieces <= MAX_PIECES
        if not split_rules or len(self.objects.boxes) >= MANY_SHAPES:
            points = [point for part in parts for point in part]
            return ([bounds(points)] if points else []), curves
        boxes: list[Box] = []
        for part, is_rectangle in zip(parts, rectangles, strict=True):
            boxes += [bounds(part)] if is_rectangle else [bounds(part[at : at + 2]) for at in range(len(part) - 1)]
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
        return bounds(
            [transform(point, matrix) for point in ((left, bottom), (left, top), (right, bottom), (right, top))]
        )

    def _clip(self, item: Handle, matrix: Matrix, clip: Box | None) -> Box | None:
        """Return the intersection of `clip` and the boxes of the clip paths of an object; None for no clipping."""
        raw = self._raw
        path = raw.FPDFPageObj_GetClipPath(item)
        for at in range(raw.FPDFClipPath_CountPaths(path)):
            count = min(raw.FPDFClipPath_CountPathSegments(path, at), _MANY_POINTS)
            points = [self._segment(raw.FPDFClipPath_GetPathSegment(path, at, segment))[1] for segment in range(count)]
            if not points or count == _MANY_POINTS:
                continue
            box = bounds([transform(point, matrix) for point in points])
            clip = box if clip is None else clip_box(clip, box) or (box[0], box[1], box[0], box[1])
        return clip


def matrix_of(raw: ModuleType, item: Handle) -> Matrix:
    """Return the matrix of a page object; the identity if the object has none."""
    matrix = raw.FS_MATRIX()
    if not raw.FPDFPageObj_GetMatrix(item, ctypes.byref(matrix)):
        return IDENTITY
    return matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f


def product(first: Matrix, second: Matrix) -> Matrix:
    """Return the matrix that applies `first`, then `second`."""
    if first == IDENTITY:
        return second
    a, b, c, d, e, f = first
    p, q, r, s, t, u = second
    return a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u


def transform(point: Point, matrix: Matrix) -> Point:
    """Return a point transformed by a matrix."""
    x, y = point
    a, b, c, d, e, f = matrix
    return a * x + c * y + e, b * x + d * y + f


def _area(box: Box) -> float:
    return max((box[2] - box[0]) * (box[3] - box[1]), 1e-9)


def _is_rectangle(points: list[Point]) -> bool:
    """Return whether a closed subpath is an axis-aligned rectangle."""
    if len(points) != 5 or points[0] != points[4]:
        return False
    sides = [(abs(x1 - x0) < 1e-3, abs(y1 - y0) < 1e-3) for (x0, y0), (x1, y1) in itertools.pairwise(points)]
    return all(upright or level for upright, level in sides)
