"""Detection of charts, tables and figures from the boxes of vector shapes, images and words.

The detection uses no model and reads no pixels. Adjacent shapes form one region. Parallel rules (thin horizontal lines)
with words between the rules form a table. Small shapes and backgrounds of running text are dropped. The region of a
chart includes the axis labels. Boxes are in points of the displayed page; only the boxes of the returned regions are
fractions of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, reduce

import numpy as np
import numpy.typing as npt

from jina_rag._extras import require
from jina_rag.parsing.layout.boxes import area, clip_to_page, intersection, merge_boxes, to_fractions, touch, union
from jina_rag.parsing.layout.captions import find_caption, named_caption
from jina_rag.parsing.layout.tables import RULE_THICKNESS, has_columns, ruled_tables
from jina_rag.parsing.layout.text_lines import TextLine
from jina_rag.types import Box, Float32, Region, RegionKind

# Distances are in points. Areas are fractions of the page area.

# Shapes at most this far apart belong to the same cluster.
_GAP = 3.0
# Side of a cell of the raster in which clusters are joined. A side of the raster has at most `_MAX_CELLS` cells.
_CELL = 2.0
_MAX_CELLS = 4000
# Images and charts at most this far apart are parts of one figure.
_MERGE_GAP = 12.0
# A cluster that covers more than this fraction of the page is split by ignoring frames and dividers, because frames
# and dividers often connect separate regions.
_TOO_LARGE = 0.5
_FRAME = 0.6
# On a page with a text layer, a region that covers more than this fraction of the page is dropped as a background.
_WHOLE_PAGE = 0.8
_MIN_SIDE = 40.0
_MIN_SHARE = 0.012
# A shape that covers at least this fraction of the page is ignored as the background of the page.
_BACKGROUND = 0.85
# Labels at most this far from a chart or figure belong to the region of the chart or figure.
_LABEL_GAP = 14.0
# A figure with at least this many numbers is a chart.
_CHART_NUMBERS = 3
# A framed text with at least this many words is not a label.
_SENTENCE = 10
# A line drawing has at least this many short horizontal lines, and at least this many short vertical lines.
_MANY_LINES = 4
_MAX_REGIONS = 12
_MAX_CLUSTERS = 150


@dataclass(frozen=True, slots=True)
class Shapes:
    """Images and vector shapes of a page, in points of the displayed page, clipped to the page.

    Attributes:
        width: Width of the page in points.
        height: Height of the page in points.
        images: Boxes of the raster images in points.
        drawings: Boxes of the visible vector shapes in points, shape (n, 4), float32.
        curved: Whether each vector shape has curves, shape (n,), bool.
    """

    width: float
    height: float
    images: tuple[Box, ...] = ()
    drawings: Float32 = field(default_factory=lambda: np.zeros((0, 4), dtype=np.float32))
    curved: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))


def find_regions(shapes: Shapes, lines: Sequence[TextLine], *, text_page: bool = False) -> tuple[Region, ...]:
    """Return the charts, tables and figures of a page.

    Args:
        shapes: Images and vector shapes of the page.
        lines: Text lines of the page, with boxes in points of the displayed page.
        text_page: Whether the page has a text layer. On a page with a text layer, a shape over nearly the whole page is
            not a region.

    Returns:
        The regions from top to bottom, at most 12, with boxes as fractions of the page. The regions overlap little. An
        image over the whole page (a scan) is not a region.
    """
    page = shapes.width * shapes.height
    is_foreground = (_areas(shapes.drawings) < _BACKGROUND * page) & np.isfinite(shapes.drawings).all(axis=1)
    drawings, curved = shapes.drawings[is_foreground], shapes.curved[is_foreground]
    images = [box for box in shapes.images if area(box) < _BACKGROUND * page]
    clusters = _split_clusters(drawings, _array(images), shapes.width, shapes.height, full_page=not text_page)
    # A noisy scan has thousands of specks. Classifying all of the specks would take seconds.
    clusters = sorted(clusters, key=area, reverse=True)[:_MAX_CLUSTERS]

    @cache
    def kind_of(box: Box) -> RegionKind | None:
        return _kind(box, drawings, curved, images, lines)

    tables = [box for box in clusters if kind_of(box) == "table"]
    others = _merge_adjacent([box for box in clusters if box not in tables], page)
    others = [box for box in others if kind_of(box)]
    tables += [box for box in ruled_tables(drawings, others, lines) if not any(_covers(box, other) for other in others)]
    # A large box around another region is a decorative frame and not a region.
    large = [box for box in tables + others if _is_large_enough(box, page)]
    boxes = [box for box in large if area(box) < _TOO_LARGE * page or not any(_covers(box, other) for other in large)]
    candidates: list[tuple[RegionKind, Box]] = [("figure", box) for box in others if box in boxes]
    candidates += [("table", box) for box in merge_boxes(box for box in tables if box in boxes)]
    candidates = _join_by_caption(candidates, lines)
    candidates.sort(key=lambda item: area(item[1]), reverse=True)
    regions = []
    for kind, box in sorted(candidates[:_MAX_REGIONS], key=lambda item: (item[1][1], item[1][0])):
        extent = box
        if kind != "table":
            extent = _with_labels(box, lines)
            if text_page and area(extent) > _WHOLE_PAGE * page:
                extent = box
            if not _is_image(box, images) and _numbers(extent, lines) >= _CHART_NUMBERS:
                kind = "chart"
        extent = clip_to_page(extent, shapes.width, shapes.height) or extent
        caption = find_caption(kind, box, lines)
        regions.append(Region(kind, to_fractions(extent, shapes.width, shapes.height), caption))
    return tuple(regions)


def _merge_adjacent(boxes: Sequence[Box], page: float) -> list[Box]:
    """Merge adjacent boxes, unless the merged box would cover more than half of the page."""
    results = []
    for box in merge_boxes(boxes, _MERGE_GAP, _MERGE_GAP):
        parts = [part for part in boxes if intersection(part, box) >= 0.99 * area(part)]
        results += [box] if area(box) <= _TOO_LARGE * page else parts
    return results


def _covers(outer: Box, inner: Box) -> bool:
    return inner != outer and area(inner) < area(outer) and intersection(outer, inner) > 0.8 * area(inner)


def _is_image(box: Box, images: Sequence[Box]) -> bool:
    return sum(intersection(image, box) for image in images) > 0.4 * area(box)


def _numbers(box: Box, lines: Sequence[TextLine]) -> int:
    return sum(line.numbers for line in _lines_inside(box, lines))


def _lines_inside(box: Box, lines: Sequence[TextLine]) -> list[TextLine]:
    """Return the lines of which more than half of the area is inside a box."""
    x0, y0, x1, y1 = box
    # The comparisons are fast and exclude most lines.
    touching = (
        line for line in lines if line.box[0] < x1 and line.box[2] > x0 and line.box[1] < y1 and line.box[3] > y0
    )
    return [line for line in touching if intersection(line.box, box) > 0.5 * area(line.box)]


def _is_large_enough(box: Box, page: float) -> bool:
    return min(box[2] - box[0], box[3] - box[1]) >= _MIN_SIDE and area(box) >= _MIN_SHARE * page


def _join_by_caption(
    candidates: Sequence[tuple[RegionKind, Box]], lines: Sequence[TextLine]
) -> list[tuple[RegionKind, Box]]:
    """Merge figures and charts with the same caption into one figure."""
    groups: dict[tuple[bool, str], list[tuple[RegionKind, Box]]] = {}
    for number, (kind, box) in enumerate(candidates):
        caption = named_caption(box, lines) if kind != "table" else None
        groups.setdefault((caption is None, caption or str(number)), []).append((kind, box))
    return [(group[0][0], reduce(union, [box for _, box in group])) for group in groups.values()]


def _split_clusters(drawings: Float32, images: Float32, width: float, height: float, *, full_page: bool) -> list[Box]:
    """Return the boxes of clusters of adjacent shapes.

    A cluster over more than half of the page is split by removing long lines and large frames. If `full_page` is False,
    clusters over nearly the whole page are dropped.
    """
    clusters = []
    page = width * height
    for box in _clusters(np.concatenate([drawings, images]), width, height):
        x0, y0, x1, y1 = box
        if area(box) > _TOO_LARGE * page:
            frame = np.array((_FRAME * (x1 - x0), _FRAME * (y1 - y0)))
            inner = drawings[~(drawings[:, 2:] - drawings[:, :2] > frame).any(axis=1)]
            parts = [
                part
                for part in _clusters(np.concatenate([inner, images]), width, height)
                if part[0] >= x0 and part[1] >= y0 and part[2] <= x1 and part[3] <= y1
            ]
            background = not full_page and area(box) > _WHOLE_PAGE * page
            # If the parts are small, the cluster is an image or a table made of rules, and is not split.
            if background or sum(map(area, parts)) > 0.3 * area(box):
                clusters += parts
                continue
        clusters.append(box)
    return [box for box in clusters if full_page or area(box) <= _WHOLE_PAGE * page]


def _clusters(boxes: Float32, width: float, height: float) -> list[Box]:
    """Return the boxes of clusters of adjacent shapes, found as connected components in a coarse raster of the page."""
    if len(boxes) == 0:
        return []
    cv2 = require("cv2", package="opencv-python-headless")
    cells = np.array([max(_CELL, side / _MAX_CELLS) for side in (width, height)], dtype=np.float32)
    last = (np.array((width, height)) / cells).astype(np.int32) + 1
    raster = np.zeros((last[1] + 1, last[0] + 1), dtype=np.uint8)
    reach = np.array((-1, -1, 1, 1), dtype=np.float32) * (_GAP / 2)
    corners = ((boxes + reach).reshape(-1, 2, 2) / cells).clip(0, last).astype(np.int32).reshape(-1, 4)
    for x0, y0, x1, y1 in np.unique(corners, axis=0).tolist():
        raster[y0 : y1 + 1, x0 : x1 + 1] = 1
    count, labels = cv2.connectedComponents(raster, connectivity=4)
    middles = ((boxes[:, :2] + boxes[:, 2:]) / 2 / cells).clip(0, last).astype(np.int32)
    groups = labels[middles[:, 1], middles[:, 0]]
    low = np.full((count, 2), np.inf)
    high = np.full((count, 2), -np.inf)
    np.minimum.at(low, groups, boxes[:, :2])
    np.maximum.at(high, groups, boxes[:, 2:])
    return [(*low[group].tolist(), *high[group].tolist()) for group in np.unique(groups)]


def _kind(
    box: Box,
    drawings: Float32,
    curved: npt.NDArray[np.bool_],
    images: Sequence[Box],
    lines: Sequence[TextLine],
) -> RegionKind | None:
    """Return the kind of a cluster: ``"table"`` or ``"figure"`` (also for charts); None for a frame around text."""
    if area(box) == 0:
        return None
    if _is_image(box, images):
        return "figure"
    x0, y0, x1, y1 = box
    within = (drawings[:, 0] < x1) & (drawings[:, 2] > x0) & (drawings[:, 1] < y1) & (drawings[:, 3] > y0)
    inside = drawings[within]
    texts = _lines_inside(box, lines)
    words = sum(line.words for line in texts)
    wide, high = inside[:, 2] - inside[:, 0], inside[:, 3] - inside[:, 1]
    flat = high <= RULE_THICKNESS
    solid = int((~flat & (wide > RULE_THICKNESS)).sum())
    rules = len(np.unique((inside[flat & (wide >= 20), 1] / 3).round()))
    curves = int(curved[within].sum())
    rows = len({round(line.box[1] / 6) for line in texts})
    running = sum(1 for line in texts if line.box[2] - line.box[0] > 0.75 * (x1 - x0))
    if len(inside) <= 4 and words >= _SENTENCE and running > 0.4 * len(texts):
        return None  # frame around text
    if len(texts) >= 4 and rows >= 2 and curves <= 0.2 * len(inside):
        text_share = sum(area(line.box) for line in texts) / area(box)
        if has_columns([line.box for line in texts]) and (text_share > 0.15 or (rules >= 3 and text_share > 0.08)):
            return "table"
    if len(inside) <= 2 and words > 3:
        return None
    if solid == 0 and curves == 0 and words == 0 and not _is_line_drawing(inside):
        return None
    return "figure"


def _is_line_drawing(lines: Float32) -> bool:
    """Return whether straight lines form a drawing.

    A drawing has many horizontal lines that are shorter than half of the drawing width, and many vertical lines that
    are shorter than half of the drawing height.
    """
    if len(lines) == 0:
        return False
    wide, high = lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1]
    level, upright = wide > high, high > wide
    extent = np.ptp(lines[:, ::2]), np.ptp(lines[:, 1::2])
    short = (level & (wide < 0.5 * extent[0])) | (upright & (high < 0.5 * extent[1]))
    return min(int((level & short).sum()), int((upright & short).sum())) >= _MANY_LINES


def _with_labels(box: Box, lines: Sequence[TextLine]) -> Box:
    """Return the box of a chart or figure, extended to adjacent short text lines (axis labels, legends, titles)."""
    extent = box
    for _ in range(2):
        for line in lines:
            x0, _, x1, _ = line.box
            if (
                x0 >= box[0] - 60
                and x1 <= box[2] + 60
                and (x1 - x0) < 0.8 * (box[2] - box[0])
                and touch(extent, line.box, _LABEL_GAP, _LABEL_GAP / 2)
            ):
                extent = union(extent, line.box)
    return extent


def _areas(boxes: Float32) -> Float32:
    areas: Float32 = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _array(boxes: Sequence[Box]) -> Float32:
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)
