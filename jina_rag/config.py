"""Settings, frozen and checked when made: how documents are read, and what that may cost."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from jina_rag import globs
from jina_rag._checks import check_whole_number, is_number
from jina_rag.errors import IndexMismatchError, InvalidInputError

OcrMode: TypeAlias = Literal["auto", "never", "always"]
RendererName: TypeAlias = Literal["auto", "pymupdf", "pypdfium2"]
Datatype: TypeAlias = Literal["float16", "int8", "int4"]
Quantization: TypeAlias = Literal["int8", "binary"]

_DAY = 24 * 60 * 60


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
        max_seconds: Time a page may take to be opened and rendered; then its worker process is ended. Also the time
            an office file may take to be converted. A day at most.
        max_memory: Bytes a worker process may add to what it needs for itself, where the system can hold it to that
            (not on Windows and macOS).
    """

    max_pixels: int = 120_000_000
    max_render_pixels: int = 20_000_000
    max_pages: int = 20_000
    max_bytes: int = 2 * 1024**3
    max_words: int = 20_000
    max_seconds: int = 60
    max_memory: int = 2 * 1024**3

    def __post_init__(self) -> None:
        for item in fields(self):
            # The system's clocks and timers take no number of any size.
            maximum = _DAY if item.name == "max_seconds" else None
            check_whole_number(f"limits.{item.name}", getattr(self, item.name), minimum=1, maximum=maximum)


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
        passwords: Tried in turn on encrypted documents: a tuple for all of them, or a mapping from globs over file
            names or paths to one password or several.
        renderer: What renders PDF pages: ``"pymupdf"``, ``"pypdfium2"``, or ``"auto"`` for the first that is installed.
        isolate: Whether documents are opened in worker processes, so that one that crashes, hangs or eats memory costs
            a page and not the run. Off, the limits of time and memory do not hold.
        processes: Worker processes that render pages of one document; None for half of the processors, 8 at most.
        workers: Threads that do OCR; None for one per processor this process may use.
        sidecars: Whether ``report.pdf.json`` or ``report.json`` beside ``report.pdf`` is read as its metadata.
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
    passwords: tuple[str, ...] | Mapping[str, str | Sequence[str]] = field(default=(), repr=False)
    renderer: RendererName = "auto"
    isolate: bool = True
    processes: int | None = None
    workers: int | None = None
    sidecars: bool = True
    look_ahead: int = 8
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_whole_number("dpi", self.dpi, minimum=36, maximum=600)
        check_whole_number("jpeg_quality", self.jpeg_quality, minimum=1, maximum=95)
        _check_between("ocr_image_share", self.ocr_image_share, 0, 1)
        _check_choice("ocr", self.ocr, get_args(OcrMode))
        _check_passwords(self.passwords)
        _check_choice("renderer", self.renderer, get_args(RendererName))
        check_whole_number("ocr_min_words", self.ocr_min_words, minimum=0)
        check_whole_number("max_image_side", self.max_image_side, minimum=1)
        check_whole_number("look_ahead", self.look_ahead, minimum=1)
        for name in ("workers", "processes"):
            if getattr(self, name) is not None:
                check_whole_number(name, getattr(self, name), minimum=1)

    def passwords_for(self, path: Path) -> tuple[str, ...]:
        """The passwords to try on a file, in turn."""
        if not isinstance(self.passwords, Mapping):
            return tuple(self.passwords)
        passwords: list[str] = []
        for glob, value in self.passwords.items():
            if globs.matches(path.name, glob) or globs.matches(path.as_posix(), glob):
                passwords += [value] if isinstance(value, str) else value
        return tuple(dict.fromkeys(passwords))

    @property
    def render_processes(self) -> int:
        """`processes`, or half of the processors this process may use, 1 to 8: the others embed and do OCR."""
        return self.processes or max(1, min(8, usable_cpus() // 2))

    @property
    def ocr_threads(self) -> int:
        """`workers`, or the number of processors this process may use."""
        return self.workers or usable_cpus()


@dataclass(frozen=True, slots=True)
class Storage:
    """How an index keeps its vectors: what they cost on disk, and what that costs in turn.

    Fixed when an index is made. The figures were measured with "lite" on 119 judged questions over 190 pages, with
    ``python benchmarks/storage.py FOLDER``; see the documentation for the whole table.

    Attributes:
        datatype: One number of a multi-vector's row: ``"float16"``, 2 bytes; ``"int8"``, 1 byte, scores to 3 digits as
            with float16; ``"int4"``, half a byte (a random rotation, then 16 levels: TurboQuant, Zandieh et al.,
            2025), no measurable loss of quality, and searches take half of the time. Nothing is kept besides.
        pool_factor: About how many rows of a page become one, those that mean nearly the same first; see
            `compression.pool_tokens`. Up to 4 without a measurable loss of quality. A heat map shows words that share
            a row alike: it correlates by 0.96 with the exact one at 2, by 0.94 at 2.5, by 0.88 at 4.
        multi_dim: Length that rows are cut to, for models that were trained for it (jina-colbert-v2: 128, 96, 64);
            None leaves them whole.
        sign_codes: Whether one bit of each dimension of each row is kept beside the text, so that the place on a found
            page is chosen without reading its rows. Off, the rows of the pages that are shown are read: a few
            milliseconds each.
        quantization: A second, coarser copy of the rows that is searched first: ``"int8"`` or ``"binary"``; what it
            finds is scored again with the rows themselves. It takes 50 % or 6 % more room than float16 alone, and
            about half of the time where every page is scored; next to ``"int4"`` there is little left to gain.
        oversampling: With `quantization`, how many times the wanted number is scored again.
        log: Whether each change is first written to a log of up to 64 MB, which holds the newest pages once more,
            uncompressed. Off, each change is written out before the call returns, which takes no longer: no
            acknowledged change is lost either way, but of a call that a power cut interrupts a part may stay.
    """

    datatype: Datatype = "float16"
    pool_factor: float = 1
    multi_dim: int | None = None
    sign_codes: bool = True
    quantization: Quantization | None = None
    oversampling: float = 2.0
    log: bool = True

    def __post_init__(self) -> None:
        _check_choice("datatype", self.datatype, get_args(Datatype))
        _check_choice("quantization", self.quantization, (None, *get_args(Quantization)))
        _check_between("pool_factor", self.pool_factor, 1, 32)
        _check_between("oversampling", self.oversampling, 1, 100)
        if self.multi_dim is not None:
            check_whole_number("multi_dim", self.multi_dim, minimum=1)

    @classmethod
    def named(cls, name: str) -> Storage:
        """A preset: ``"exact"``, ``"balanced"`` (a third of the bytes) or ``"compact"`` (a ninth).

        Raises:
            InvalidInputError: If there is none of that name.
        """
        _check_choice("storage", name, _PRESETS)
        return cls(**_PRESETS[name])

    def to_json(self) -> dict[str, Any]:
        """For the settings of an index."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Storage:
        """The inverse of `to_json`; what is missing is as in ``"exact"``.

        Raises:
            IndexMismatchError: If it says something that this version does not know.
        """
        try:
            return cls(**value)
        except (TypeError, InvalidInputError) as exc:
            raise IndexMismatchError(
                f"The index keeps its vectors in a way that this version does not know ({exc}): update jina-rag."
            ) from exc

    def __str__(self) -> str:
        """The preset's name, or the knobs that differ from ``"exact"``."""
        settings = self.to_json()
        for name in _PRESETS:
            if settings == Storage.named(name).to_json():
                return name
        exact = Storage().to_json()
        return ", ".join(f"{key}={value}" for key, value in settings.items() if value != exact[key])


_PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "exact": {},
    "balanced": {"datatype": "int4", "log": False},
    "compact": {"datatype": "int4", "pool_factor": 2.5, "sign_codes": False, "log": False},
}


def usable_cpus() -> int:
    """How many processors this process may use, at least 1; a container often allows fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def _check_passwords(passwords: object) -> None:
    groups: list[object] = [passwords]
    if isinstance(passwords, Mapping):
        groups = [[value] if isinstance(value, str) else value for value in passwords.values()]
    for group in groups:
        words = group if isinstance(group, Sequence) and not isinstance(group, str) else [None]
        if not all(isinstance(word, str) for word in words):
            raise InvalidInputError(
                "passwords must be a tuple of strings, for example ('secret',), or map globs to them, for example "
                "{'contract-*.pdf': 'secret'}."
            )


def _check_choice(name: str, value: object, choices: Collection[object]) -> None:
    if value not in choices:
        raise InvalidInputError(f"{name} is {value!r}; it must be one of {', '.join(map(str, choices))}.")


def _check_between(name: str, value: object, low: float, high: float) -> None:
    if not is_number(value) or not low <= value <= high:
        raise InvalidInputError(f"{name} is {value!r}; it must be a number between {low} and {high}.")
