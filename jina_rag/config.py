"""Settings of ingestion and storage, frozen and validated at construction."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
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
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# Assumed if the operating system does not state the size of the memory (Windows).
_UNKNOWN_MEMORY = 8 * 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits for one document. A hostile or broken file that exceeds a limit fails with an error.

    Attributes:
        max_pixels: Maximum pixels of an image file. The size is read from the header before decoding; larger images
            are rejected.
        max_render_pixels: Maximum pixels of a page screenshot. Larger pages and images are rendered at a lower
            resolution, with a warning. 20 million pixels take 60 MB as RGB.
        max_pages: Maximum pages (or frames, or slices of a tall image) of a document. Longer documents are rejected.
        max_bytes: Maximum file size in bytes. Larger files are rejected without being read.
        max_words: Maximum words stored per page. Further words are dropped, with a warning.
        max_seconds: Timeout in seconds for opening a document and for rendering each page. On timeout, the worker
            process is killed. Also the timeout for converting an office file. At most 86,400 (one day).
        max_attachments: Maximum attachments of a file that are read. Further attachments are reported as a failure. All
            attachments of a file together have at most `max_bytes`.
        max_memory: Maximum bytes of memory that a worker process may allocate in addition to the memory in use when the
            document is opened. Not enforced on Windows and macOS.

    Raises:
        InvalidInputError: If a limit is not an integer of at least 1, or `max_seconds` exceeds 86,400.
    """

    max_pixels: int = 120_000_000
    max_render_pixels: int = 20_000_000
    max_pages: int = 20_000
    max_bytes: int = 2 * 1024**3
    max_words: int = 20_000
    max_seconds: int = 60
    max_memory: int = 2 * 1024**3
    max_attachments: int = 1_000

    def __post_init__(self) -> None:
        for item in fields(self):
            # The timers of the operating system reject very large numbers, so the timeout has an upper bound.
            maximum = _DAY if item.name == "max_seconds" else None
            check_whole_number(f"Limits.{item.name}", getattr(self, item.name), minimum=1, maximum=maximum)


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Settings for parsing documents into pages.

    Attributes:
        dpi: Rendering resolution of PDF pages in pixels per inch, 36 to 600.
        ocr: ``"auto"`` runs OCR on pages with few words or large images, ``"always"`` runs OCR on every page, and
            ``"never"`` disables OCR.
        ocr_min_words: With ``ocr="auto"``, OCR reads a whole page if the text layer has fewer words than this number.
        ocr_image_share: With ``ocr="auto"``, OCR reads the images of a page if the images cover more than this fraction
            of the page, 0 to 1.
        regions: Whether to detect charts, tables and figures.
        max_image_side: Maximum length of the longer side of the page screenshot of an image file, in pixels. Larger
            images are scaled down. An image whose longer side exceeds this length and 3 times the shorter side, which
            has at least 200 pixels, is divided: each slice is a page and overlaps the next slice by 10 %.
        jpeg_quality: JPEG quality of the stored page screenshots, 1 to 95.
        passwords: Passwords to try on encrypted documents, in order: a tuple for all documents, or a mapping from globs
            over file names or paths to one or more passwords.
        renderer: PDF renderer: ``"pymupdf"``, ``"pypdfium2"``, or ``"auto"`` for the first installed renderer.
        isolate: Whether to open documents in worker processes, so that a crash, timeout or out-of-memory error fails
            one page instead of the run. Without isolation, the limits on time and memory are not enforced.
        processes: Worker processes, which open documents and render pages. None for one process per CPU that the
            process may use, at most 16 and at most one per GiB of memory.
        workers: OCR threads. None for one thread per CPU that the process may use.
        follow_links: Whether to follow symbolic links that lead out of an ingested folder. Links to the file systems of
            devices and processes are never followed, and a link to a folder that was read is followed once.
        sidecars: Whether to read the metadata of a document from a sidecar file in the same folder: for ``report.pdf``,
            from ``report.pdf.json`` or ``report.json``, or a file with the suffix ``.yaml``, ``.yml`` or ``.toml``.
        look_ahead: Maximum number of pages rendered ahead of the caller, in addition to one page per worker process. A
            lower number takes less memory.
        limits: Resource limits for one document.

    Raises:
        InvalidInputError: If a value has the wrong type or is out of range.
    """

    dpi: int = 150
    ocr: OcrMode = "auto"
    ocr_min_words: int = 25
    ocr_image_share: float = 0.10
    regions: bool = True
    max_image_side: int = 2500
    jpeg_quality: int = 85
    # Passwords are excluded from repr, because settings are printed in logs and error reports.
    passwords: tuple[str, ...] | Mapping[str, str | Sequence[str]] = field(default=(), repr=False)
    renderer: RendererName = "auto"
    isolate: bool = True
    processes: int | None = None
    workers: int | None = None
    sidecars: bool = True
    follow_links: bool = False
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
        """Return the passwords to try on a file, in order.

        Args:
            path: Path of the file. Each glob is compared with the file name and with the whole path.
        """
        if not isinstance(self.passwords, Mapping):
            return tuple(self.passwords)
        passwords: list[str] = []
        for glob, value in self.passwords.items():
            if globs.matches(path.name, glob) or globs.matches(path.as_posix(), glob):
                passwords += [value] if isinstance(value, str) else value
        return tuple(dict.fromkeys(passwords))

    @property
    def render_processes(self) -> int:
        """Number of rendering processes: `processes`, or one per usable CPU, at most 16 and one per GiB of memory."""
        return self.processes or max(1, min(16, usable_cpus(), usable_memory() // 2**30))

    @property
    def ocr_threads(self) -> int:
        """Number of OCR threads: `workers`, or the number of usable CPUs."""
        return self.workers or usable_cpus()


@dataclass(frozen=True, slots=True)
class Storage:
    """Storage format of the vectors of an index.

    The format is fixed when the index is created. The figures below were measured with "lite" on 119 judged queries
    over 190 pages (``python benchmarks/storage.py FOLDER``); the documentation has the full table.

    Attributes:
        datatype: Number format of the multi-vector rows. The store keeps no copy of the rows in higher precision.
            ``"float16"`` takes 2 bytes per dimension. ``"int8"`` takes 1 byte, and the scores agree with the float16
            scores to 3 digits. ``"int4"`` takes half a byte and half the search time, without a measurable loss of
            quality: rows are rotated at random and rounded to 16 levels (TurboQuant, Zandieh et al., 2025).
        pool_factor: Token pooling factor, 1 to 32: approximate number of similar rows of a page that are merged into
            one row; see `compression.pool_tokens`. Factors up to 4 show no measurable loss of quality. Words that share
            a row have equal values in a heat map. The correlation with the heat map without pooling is 0.96 at factor
            2, 0.94 at 2.5 and 0.88 at 4.
        multi_dim: Length to which rows are truncated, for models with Matryoshka rows (jina-colbert-v2: 128, 96, 64).
            None stores the full length.
        sign_codes: Whether to store one bit for each dimension of each row in the payload. Search then locates the best
            match on a page without reading the rows of the page. Without sign codes, search reads the rows of each
            returned page, which takes a few milliseconds per page.
        quantization: Coarse copy of the rows for a first scoring pass, ``"int8"`` or ``"binary"``; None for no copy.
            Candidates of the first pass are rescored with the full rows. The copy adds 50 % (int8) or 6 % (binary) to
            the disk size of float16 and halves the time of a search that scores every page. With
            ``datatype="int4"``, a search is only slightly faster.
        oversampling: With `quantization`, the number of rescored candidates as a multiple of the requested hits, 1 to
            100.
        log: Whether to write each change to a write-ahead log first. The log takes up to 64 MB and stores the latest
            pages a second time, uncompressed. Without the log, all files of the store are flushed before a call
            returns, which takes 10 to 30 ms more for a small change and no more for a batch of pages. With and without
            the log, completed calls survive a power failure. Without the log, a power failure during a call can leave
            the changes of this call partly written.

    Raises:
        InvalidInputError: If a value is out of range or not one of the choices.
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
        """Return the storage settings of a preset.

        Args:
            name: ``"exact"``, ``"balanced"`` (a third of the bytes of exact) or ``"compact"`` (a ninth).

        Raises:
            InvalidInputError: If no preset has this name.
        """
        _check_choice("storage", name, _PRESETS)
        return cls(**_PRESETS[name])

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object, for the settings file of an index."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Storage:
        """Return the storage settings stored by `to_json`.

        Args:
            value: The JSON object. Missing fields have the values of ``"exact"``.

        Raises:
            IndexMismatchError: If this version does not support a field or the value of a field.
        """
        try:
            return cls(**value)
        except (TypeError, InvalidInputError) as exc:
            raise IndexMismatchError(
                f"This version of jina-rag does not support the storage settings of the index ({exc}). Update jina-rag."
            ) from exc

    def __str__(self) -> str:
        """Return the name of the preset with equal settings, or the fields that differ from ``"exact"``."""
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
    """Return the number of CPUs that the process may use, at least 1. A container can exclude CPUs of the machine.

    The environment variable JINA_RAG_CPUS sets another number, for example if several processes share the machine.
    """
    number = os.environ.get("JINA_RAG_CPUS", "")
    if number.isdecimal():
        return max(1, int(number))
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def usable_memory() -> int:
    """Return the memory that the process may use in bytes. A container can limit the memory (Linux, control groups)."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_MEMORY
    for limit in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            memory = min(memory, int(limit.read_text("ascii")))
    return memory


def _check_passwords(passwords: object) -> None:
    groups: list[object] = [passwords]
    if isinstance(passwords, Mapping):
        groups = [[value] if isinstance(value, str) else value for value in passwords.values()]
    for group in groups:
        strings = group if isinstance(group, Sequence) and not isinstance(group, str) else [None]
        if not all(isinstance(string, str) for string in strings):
            raise InvalidInputError(
                "passwords is invalid; expected a tuple of strings, for example ('secret',), or a mapping from globs "
                "to strings, for example {'contract-*.pdf': 'secret'}."
            )


def _check_choice(name: str, value: object, choices: Collection[object]) -> None:
    if value not in choices:
        raise InvalidInputError(f"{name} is {value!r}; expected one of {', '.join(map(str, choices))}.")


def _check_between(name: str, value: object, low: float, high: float) -> None:
    if not is_number(value) or not low <= value <= high:
        raise InvalidInputError(f"{name} is {value!r}; expected a number from {low} to {high}.")
