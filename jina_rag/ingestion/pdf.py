"""PDF pages through PyMuPDF: screenshots as a viewer shows them, words with boxes, pictures, regions."""

from __future__ import annotations

import threading
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from jina_rag._extras import require
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, PasswordRequiredError
from jina_rag.ingestion.regions import Shapes, find_regions
from jina_rag.ingestion.renderer import check_pages, check_size, fitting_scale, number_in_range
from jina_rag.ingestion.sources import SourceFile
from jina_rag.ingestion.text_lines import text_lines
from jina_rag.types import Box, Float32, Page, PageScreenshot, Word

if TYPE_CHECKING:
    from PIL.Image import Image

# MuPDF keeps state that all documents share: one thread at a time, whatever document it works on.
_LOCK = threading.RLock()
# Paths of more pieces, and pages of more shapes, are drawings whose single lines do not matter.
_MAX_PIECES = 500
_MANY_SHAPES = 4000


class PdfDocument:
    """A `Renderer` of one PDF. May be used from any thread, one call at a time in the whole process.

    Raises:
        PasswordRequiredError: If none of the passwords opens it.
        LimitExceededError: If it is larger than the limits allow.
        DocumentError: If it is no PDF, damaged beyond repair, or has no pages.
    """

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        self._source = source
        self._settings = settings
        check_size(source.path, settings.limits)
        with _LOCK:
            self._pymupdf = _library()
            self._document = self._open()
            try:
                self._unlock()
                self._count = int(
                    self._guarded("The document cannot be read", lambda: self._document.page_count)
                )
                check_pages(self._count, settings.limits)
            except BaseException:
                self._document.close()
                raise
            repaired = bool(self._document.is_repaired)
        self._warnings = ("The file is damaged; it was repaired as far as possible.",) if repaired else ()

    @property
    def page_count(self) -> int:
        """Number of pages."""
        return self._count

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if the file had to be repaired."""
        return self._warnings

    def render(self, number: int) -> Page:
        """See `PageRenderer.render`."""
        return self.render_with_pictures(number)[0]

    def render_with_pictures(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """See `Renderer.render_with_pictures`."""
        with _LOCK:
            return self._guarded("The page cannot be rendered", lambda: self._page(number))

    def close(self) -> None:
        """Release the file."""
        with _LOCK:
            if not self._document.is_closed:
                self._document.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Any:
        path = self._source.path
        try:
            # MuPDF takes names as UTF-8 only; a file with another name is read by us.
            str(path).encode("utf-8")
            arguments: dict[str, Any] = {"filename": str(path)}
        except UnicodeEncodeError:
            arguments = {"stream": path.read_bytes()}
        return self._guarded(
            "The file is damaged beyond repair", lambda: self._pymupdf.open(**arguments, filetype="pdf")
        )

    def _unlock(self) -> None:
        if not self._document.needs_pass:
            return
        if not any(self._document.authenticate(password) for password in self._settings.passwords):
            tried = (
                "none of the given passwords opens it"
                if self._settings.passwords
                else "no password was given"
            )
            raise PasswordRequiredError(f"The document is encrypted and {tried}.")

    def _guarded(self, problem: str, call: Any) -> Any:
        """Call into MuPDF, its errors turned into ours."""
        try:
            return call()
        except (RuntimeError, ValueError, OSError, MemoryError, self._pymupdf.mupdf.FzErrorBase) as error:
            if isinstance(
                error, self._pymupdf.FileDataError
            ):  # its message is the path, which ours leave out
                raise DocumentError(f"{problem}.") from error
            detail = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise DocumentError(f"{problem}: {detail.rstrip('.')}.") from error

    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        page = self._document.load_page(number_in_range(number, self._count) - 1)
        width, height = page.rect.width, page.rect.height
        if not (width > 0 and height > 0):
            raise DocumentError("The page has no area.")
        warnings: list[str] = []
        self._pymupdf.TOOLS.reset_mupdf_warnings()
        screenshot = self._screenshot(page, width, height, warnings)
        words, shapes = self._contents(page, width, height, warnings)
        if self._is_suspiciously_white(page, screenshot.image, words, shapes):
            warnings.append("The page has content but renders blank; its screenshot is white.")
        pictures = tuple(_fractions(box, width, height) for box in shapes.pictures)
        regions = find_regions(shapes, text_lines(words, width, height)) if self._settings.regions else ()
        return (
            Page(
                doc_id=self._source.doc_id,
                path=self._source.path,
                number=number,
                count=self._count,
                screenshot=screenshot,
                words=tuple(words),
                regions=regions,
                warnings=tuple(warnings),
            ),
            pictures,
        )

    def _screenshot(self, page: Any, width: float, height: float, warnings: list[str]) -> PageScreenshot:
        from PIL import Image

        zoom = self._settings.dpi / 72
        fit = fitting_scale(width * zoom, height * zoom, self._settings.limits)
        if fit < 1:
            zoom *= fit
            warnings.append(
                f"The page is {width:.0f} x {height:.0f} points large; it was rendered at {zoom * 72:.0f} dpi "
                f"instead of {self._settings.dpi}."
            )
        pixmap = page.get_pixmap(
            matrix=self._pymupdf.Matrix(zoom, zoom), colorspace=self._pymupdf.csRGB, alpha=False
        )
        image = Image.frombuffer("RGB", (pixmap.width, pixmap.height), pixmap.samples, "raw", "RGB", 0, 1)
        return PageScreenshot(image=image, dpi=zoom * 72)

    def _contents(
        self, page: Any, width: float, height: float, warnings: list[str]
    ) -> tuple[list[Word], Shapes]:
        """Words, pictures and drawings as they stand on the displayed page."""
        rotation = page.rotation
        to_display = page.rotation_matrix
        # PyMuPDF mixes both coordinate systems on turned pages; unturned there is only one.
        page.set_rotation(0)
        try:
            words = self._words(page, to_display, width, height)
            pictures = [
                box
                for info in page.get_image_info()
                if (box := _visible(self._pymupdf.Rect(info["bbox"]) * to_display, width, height))
            ]
            drawings, curved = self._drawings(page, to_display, width, height)
        finally:
            page.set_rotation(rotation)
        limit = self._settings.limits.max_words
        if len(words) > limit:
            warnings.append(f"The page has {len(words):,} words; the first {limit:,} were kept.")
            del words[limit:]
        return words, Shapes(width, height, tuple(pictures), drawings, curved)

    def _words(self, page: Any, to_display: Any, width: float, height: float) -> list[Word]:
        library = self._pymupdf
        # Ligatures come as letters; codes without a meaning come as U+FFFD, which `_clean` drops.
        flags = library.TEXT_PRESERVE_WHITESPACE | library.TEXT_MEDIABOX_CLIP
        words: dict[tuple[object, ...], Word] = {}
        found = page.get_text("words", flags=flags, sort=False) or _words_without_width(page, flags)
        for x0, y0, x1, y1, raw, *_ in found:
            text = _clean(raw)
            box = _visible(library.Rect(x0, y0, x1, y1) * to_display, width, height)
            if text and box:
                placed = _fractions(box, width, height)
                # Shadows and fake bold draw the same word again in the same place.
                words.setdefault((text, *(round(side, 3) for side in placed)), Word(text, placed))
        return list(words.values())

    def _drawings(
        self, page: Any, to_display: Any, width: float, height: float
    ) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """Boxes of visible shapes, and which of them have curves."""
        boxes: list[tuple[float, float, float, float]] = []
        curved: list[bool] = []
        if self._settings.regions:
            clips: list[tuple[int, tuple[float, ...]]] = []
            for path in page.get_cdrawings(extended=True):
                while clips and clips[-1][0] >= path["level"]:
                    clips.pop()
                if path["type"] == "clip":
                    clips.append((path["level"], path["scissor"]))
                    continue
                if path["type"] == "group" or _is_invisible(path):
                    continue
                items = path["items"]
                curves = any(item[0] == "c" for item in items)
                # One path may hold all the rules of a table: each is a shape of its own.
                apart = not curves and 1 < len(items) <= _MAX_PIECES and len(boxes) < _MANY_SHAPES
                pieces = [_extent(item) for item in items] if apart else [path["rect"]]
                if clips:
                    pieces = [piece for piece in (_clipped(box, clips[-1][1]) for box in pieces) if piece]
                boxes += pieces
                curved += [curves] * len(pieces)
        corners = np.array(boxes, dtype=np.float32).reshape(-1, 2, 2)
        turn = np.array(tuple(to_display), dtype=np.float32).reshape(3, 2)
        placed = corners @ turn[:2] + turn[2]
        # Lines have no width of their own.
        low = (placed.min(axis=1) - 0.25).clip(min=0)
        high = (placed.max(axis=1) + 0.25).clip(max=(width, height))
        visible = (high > low).all(axis=1)
        return np.concatenate([low, high], axis=1)[visible], np.array(curved, dtype=bool)[visible]

    def _is_suspiciously_white(self, page: Any, image: Image, words: list[Word], shapes: Shapes) -> bool:
        if any(low < 255 for low, _ in image.getextrema()):  # type: ignore[misc,union-attr]
            return False
        complaints = self._pymupdf.TOOLS.mupdf_warnings()
        return bool(words or shapes.pictures or len(shapes.drawings) or complaints)


def _is_invisible(path: dict[str, Any]) -> bool:
    """White areas and fully transparent shapes: backgrounds nobody sees."""
    opacity = max(path.get("fill_opacity") or 0.0, path.get("stroke_opacity") or 0.0)
    if "fill_opacity" in path or "stroke_opacity" in path:
        if opacity <= 0:
            return True
    paints = [path[key] for key in ("fill", "color") if path.get(key)]
    return bool(paints) and all(min(paint) > 0.97 for paint in paints)


def _extent(item: tuple[Any, ...]) -> tuple[float, float, float, float]:
    """The box of a line, rectangle or quad of a path."""
    points = item[1:3] if item[0] == "l" else [item[1][:2], item[1][2:]] if item[0] == "re" else item[1]
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return min(xs), min(ys), max(xs), max(ys)


def _clipped(box: tuple[float, ...], clip: tuple[float, ...]) -> tuple[float, float, float, float] | None:
    x0, y0, x1, y1 = max(box[0], clip[0]), max(box[1], clip[1]), min(box[2], clip[2]), min(box[3], clip[3])
    return (x0, y0, x1, y1) if x1 >= x0 and y1 >= y0 else None


def _words_without_width(page: Any, flags: int) -> list[tuple[Any, ...]]:
    """Words of fonts whose widths are wrong: PyMuPDF leaves them out, as their boxes are empty."""
    return [
        (x0, y0, max(x1, x0 + (y1 - y0)), y1, word)
        for block in page.get_text("dict", flags=flags)["blocks"]
        for line in block.get("lines", ())
        for x0, y0, x1, y1 in [line["bbox"]]
        for word in "".join(span["text"] for span in line["spans"]).split()
    ]


def _library() -> ModuleType:
    pymupdf = require("pymupdf")
    # Its complaints are kept for `_is_suspiciously_white`, not printed.
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    return pymupdf


def _clean(text: str) -> str:
    """Drop what is no character: control codes, lone surrogates, and the mark for unknown glyphs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        for character in text
        if character != "\ufffd"
        and not character.isspace()
        and (character.isprintable() or character in "\u200c\u200d")
    )


def _visible(rect: Any, width: float, height: float) -> Box | None:
    """A rectangle clipped to the page; None if nothing of it is on the page."""
    x0, y0 = max(min(rect.x0, rect.x1), 0.0), max(min(rect.y0, rect.y1), 0.0)
    x1, y1 = min(max(rect.x0, rect.x1), width), min(max(rect.y0, rect.y1), height)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _fractions(box: Box, width: float, height: float) -> Box:
    return box[0] / width, box[1] / height, min(box[2] / width, 1.0), min(box[3] / height, 1.0)
