"""Settings, frozen and checked when made: how documents are read, and what that may cost."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias, get_args

from jina_rag.errors import InvalidInputError

OcrMode: TypeAlias = Literal["auto", "never", "always"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a document may cost at most. A hostile or broken file ends in an error, not in a full memory.

    Attributes:
        max_pixels: Pixels of an image file, read from its header before anything is decoded; more is refused.
        max_render_pixels: Pixels of a screenshot. A page or picture that would be larger is rendered at a
            lower resolution, with a warning. 20 million are 60 MB as RGB.
        max_pages: Pages (frames) of a document; a document with more is refused.
        max_bytes: Size of a file; a larger one is refused unread.
        max_words: Words kept of one page; the rest is dropped with a warning.
    """

    max_pixels: int = 120_000_000
    max_render_pixels: int = 20_000_000
    max_pages: int = 20_000
    max_bytes: int = 2 * 1024**3
    max_words: int = 20_000

    def __post_init__(self) -> None:
        for item in fields(self):
            _at_least_one(f"limits.{item.name}", getattr(self, item.name))


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How documents become pages.

    Attributes:
        dpi: Resolution of the screenshots of PDF pages, in pixels per inch, 36 to 600.
        ocr: ``"auto"`` reads the pixels of pages with few words or many pictures, ``"always"`` of every page,
            ``"never"`` of none.
        ocr_min_words: With ``"auto"``, a page with fewer words in its text layer is read as a whole.
        ocr_image_share: With ``"auto"``, a page whose pictures cover more than this share has them read.
        regions: Whether to look for charts, tables and figures.
        max_image_side: Longest side of an image file's screenshot in pixels; larger ones are scaled down.
        jpeg_quality: Quality of the stored screenshots, 1 to 95.
        passwords: Tried in turn on encrypted documents.
        workers: Threads that do OCR; None for one per processor this process may use.
        look_ahead: Pages rendered before they are asked for; bounds the memory the stream holds.
        limits: What a document may cost at most.
    """

    dpi: int = 150
    ocr: OcrMode = "auto"
    ocr_min_words: int = 25
    ocr_image_share: float = 0.10
    regions: bool = True
    max_image_side: int = 2500
    jpeg_quality: int = 85
    # Never shown: settings end up in logs and error reports.
    passwords: tuple[str, ...] = field(default=(), repr=False)
    workers: int | None = None
    look_ahead: int = 8
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _between("dpi", self.dpi, 36, 600)
        _between("ocr_image_share", self.ocr_image_share, 0, 1)
        _between("jpeg_quality", self.jpeg_quality, 1, 95)
        if self.ocr not in get_args(OcrMode):
            raise InvalidInputError(f"ocr is {self.ocr!r}; it must be one of {', '.join(get_args(OcrMode))}.")
        if isinstance(self.passwords, str) or not all(isinstance(word, str) for word in self.passwords):
            raise InvalidInputError("passwords must be a tuple of strings, for example ('secret',).")
        if self.ocr_min_words < 0:
            raise InvalidInputError(f"ocr_min_words is {self.ocr_min_words}; it must not be negative.")
        _at_least_one("max_image_side", self.max_image_side)
        _at_least_one("look_ahead", self.look_ahead)
        if self.workers is not None:
            _at_least_one("workers", self.workers)

    @property
    def ocr_threads(self) -> int:
        """`workers`, or the number of processors this process may use."""
        return self.workers or usable_cpus()


def usable_cpus() -> int:
    """How many processors this process may use, at least 1; a container often allows fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidInputError(f"{name} is {value}; it must be between {low} and {high}.")


def _at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"{name} is {value!r}; it must be a whole number of at least 1.")
