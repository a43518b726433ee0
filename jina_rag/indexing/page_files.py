"""Pages outside an index: reads the pages of files, and saves a page as an image with a JSON sidecar.

The sidecar next to the image contains the words and regions of the page. A pipeline can therefore pass a page from a
loader to a vector store as the path of the image. The file name of an image is a hash of the image, so different images
have different file names.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jina_rag._display import displayed
from jina_rag._files import write_atomic
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.indexing.skipped_files import SkippedFiles, SkippedLog
from jina_rag.parsing.attachments import read_attachments
from jina_rag.parsing.pages import DocumentStart, read_pages
from jina_rag.parsing.sources import SourceEvent, SourceFile, find_sources, path_list
from jina_rag.parsing.workers.cancellation import Stop, stopping
from jina_rag.stores.images import ImageFiles, decode_errors
from jina_rag.stores.schema import clean_payload
from jina_rag.types import Box, Failure, Page, PageScreenshot, Region, RegionKind, Word

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger("jina_rag")

JPEG_QUALITY = 92
"""Default JPEG quality of saved pages. The quality is high because an index compresses the image a second time."""
_SIDECAR_SUFFIX = ".page.json"
_MAX_SIDECAR_BYTES = 64 * 1024 * 1024


def load_pages(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    settings: IngestSettings | None = None,
    on_failure: Callable[[Failure], None] | None = None,
    on_skipped: Callable[[Failure], None] | None = None,
) -> Generator[Page, None, None]:
    """Yield the pages of files and folders one by one, with screenshot, words, boxes of the words, and regions.

    If a file or page cannot be read, `on_failure` is called and the iteration continues. Memory does not grow with the
    number of pages. The attachments of a file follow its pages, with paths like ``report.pdf#attachment.pdf``. Warnings
    about a whole document are warnings of the first page that is read.

    Args:
        paths: Files, folders and globs, for example ``reports/**/*.pdf``.
        settings: Settings of the rendering, OCR and resource limits. Default: `IngestSettings()`.
        on_failure: Function called for each file or page that cannot be read. By default, a warning is logged.
        on_skipped: Function called for each file or folder that is not read, because it is not a document, hidden or
            read before. By default, a warning is logged for each reason after the last page.

    Yields:
        The pages, in the order of the files.

    Raises:
        InvalidInputError: If a path does not exist. The error is raised by the call, before the first page is read.
    """
    log = SkippedLog()
    follow_links = settings is not None and settings.follow_links
    events = _stream(
        find_sources(paths, follow_links=follow_links), settings, on_failure or _log_failure, on_skipped or log.add
    )
    return _logged(events, log)


def _logged(pages: Generator[Page, None, None], log: SkippedLog) -> Generator[Page, None, None]:
    with closing(pages):
        yield from pages
    log.write()


def _stream(
    events: Iterator[SourceEvent],
    settings: IngestSettings | None,
    report_failure: Callable[[Failure], None],
    report_skipped: Callable[[Failure], None],
) -> Generator[Page, None, None]:
    failures: deque[Failure] = deque()  # filled by the rendering thread, emptied by the caller's thread
    skipped = SkippedFiles()  # like `failures`
    stop = Stop()
    document_warnings: tuple[str, ...] = ()

    def sources() -> Iterator[SourceFile]:
        for event in events:
            if isinstance(event, Failure):
                failures.append(event)
                continue
            skipped.add(event)
            if isinstance(event, SourceFile):
                attachments = read_attachments(event, settings or IngestSettings(), stop)
                failures.extend(attachments.failures)
                yield replace(event, warnings=attachments.warnings)
                yield from attachments.documents

    # The stop signal ends the reading of attachments before the threads of `read_pages` are joined.
    with closing(read_pages(sources(), settings)) as pages, stopping(stop):
        for page in pages:
            while failures:
                report_failure(failures.popleft())
            for file in skipped.take():
                report_skipped(file)
            if isinstance(page, Page):
                warnings, document_warnings = document_warnings, ()
                yield replace(page, warnings=(*warnings, *page.warnings)) if warnings else page
            elif isinstance(page, Failure):
                report_failure(page)
            elif isinstance(page, DocumentStart):
                document_warnings = page.warnings
    for failure in failures:
        report_failure(failure)
    for file in skipped.take_all():
        report_skipped(file)


def _log_failure(failure: Failure) -> None:
    location = f"{failure.path}" if failure.page is None else f"{failure.path}, page {failure.page}"
    _log.warning("%s: %s", displayed(location), displayed(failure.reason))


def save_page(page: Page, folder: str | os.PathLike[str], *, quality: int = JPEG_QUALITY) -> Path:
    """Save the screenshot of a page as a JPEG file, and the words and regions in a JSON file with the same stem.

    Args:
        page: A page from `load_pages`.
        folder: Target folder, created if missing.
        quality: JPEG quality, from 1 to 100. Default: 92.

    Returns:
        Absolute path of the JPEG file, which is named after the SHA-256 of the file content. Pass the path to
        `open_page` to restore the page.

    Raises:
        InvalidInputError: If the name of the folder is empty.
        IndexStateError: If the folder cannot be written.
    """
    files = ImageFiles(*path_list([folder]))
    image = files.path(files.put(page.screenshot.image, quality))
    content = json.dumps(clean_payload(_as_json(page))).encode()
    try:
        write_atomic(sidecar_of(image), content)
    except OSError as exc:
        raise IndexStateError(
            f"The page cannot be saved in {folder} ({exc.strerror or exc}). Check the disk space and the permissions."
        ) from exc
    return image.absolute()


def open_page(image_path: str | os.PathLike[str]) -> Page:
    """Return the page that `save_page` saved as an image with a sidecar.

    Args:
        image_path: Path of the image, as returned by `save_page`.

    Returns:
        The page with screenshot, words and regions.

    Raises:
        InvalidInputError: If `save_page` did not write the image, or the image or sidecar is damaged.
    """
    path = Path(*path_list([image_path]))
    if not path.name:
        raise InvalidInputError(f"{path} is a folder. Pass the path of an image written by save_page.")
    content = _read_sidecar(sidecar_of(path))
    try:
        return _from_json(content, _read_image(path))
    except decode_errors() as exc:
        raise InvalidInputError(f"{path} is not a readable page ({exc}). Save the page again with save_page.") from exc


def _read_image(path: Path) -> Image:
    """Return a JPEG image that `save_page` wrote. Another file cannot have the name, which is the hash of the content.

    Raises:
        ValueError: If `save_page` did not write the image, or the image is too large.
        OSError: If the image cannot be read.
    """
    from PIL import Image as pillow

    limits = Limits()
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        content = file.read(limits.max_render_pixels + 1)
    if len(content) > limits.max_render_pixels:
        raise ValueError(f"more than {limits.max_render_pixels:,} bytes")
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise ValueError("the name is not the SHA-256 of the content")
    with pillow.open(io.BytesIO(content), formats=("JPEG",)) as opened:
        if opened.width * opened.height > limits.max_pixels:
            raise ValueError(f"{opened.width} x {opened.height} pixels, limit {limits.max_pixels:,}")
        return opened.convert("RGB")


def sidecar_of(image: Path) -> Path:
    """Return the path of the JSON file that `save_page` writes next to an image."""
    return image.with_suffix(_SIDECAR_SUFFIX)


def source_of(image: Path) -> Path:
    """Return the path of the document that a saved page was read from; for an image without sidecar, `image`.

    Args:
        image: Path of the image.

    Raises:
        InvalidInputError: If the JSON sidecar is damaged.
    """
    sidecar = sidecar_of(image)
    return Path(_read_sidecar(sidecar)["path"]) if sidecar.is_file() else image


def _read_sidecar(sidecar: Path) -> dict[str, Any]:
    """Return the JSON object in a sidecar of `save_page`.

    Raises:
        InvalidInputError: If the sidecar is missing or damaged.
    """
    try:
        if sidecar.stat().st_size > _MAX_SIDECAR_BYTES:
            raise ValueError("larger than 64 MiB")
        content: dict[str, Any] = json.loads(sidecar.read_bytes())
        if not isinstance(content, dict) or not isinstance(content.get("path"), str):
            raise ValueError("unexpected content")
        return content
    except FileNotFoundError as exc:
        raise InvalidInputError(f"{sidecar} does not exist. Pass an image written by save_page.") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{sidecar} cannot be read ({exc}). Save the page again with save_page.") from exc


def _as_json(page: Page) -> dict[str, Any]:
    return {
        "doc_id": page.doc_id,
        "path": str(page.path),
        "number": page.number,
        "count": page.count,
        "dpi": page.screenshot.dpi,
        "words": [[word.text, *_rounded_sides(word.box), int(word.ocr)] for word in page.words],
        "regions": [[region.kind, *_rounded_sides(region.box), region.caption] for region in page.regions],
        "warnings": list(page.warnings),
    }


def _rounded_sides(box: Box) -> list[float | None]:
    return [round(side, 5) if math.isfinite(side) else None for side in box]


def _from_json(content: dict[str, Any], image: Any) -> Page:  # noqa: ANN401  # a PIL image
    return Page(
        doc_id=str(content["doc_id"]),
        path=Path(content["path"]),
        number=int(content["number"]),
        count=int(content["count"]),
        screenshot=PageScreenshot(image, float(content["dpi"])),
        words=tuple(Word(str(text), _box(box), ocr=bool(ocr)) for text, *box, ocr in content["words"]),
        regions=tuple(Region(_kind(kind), _box(box), str(caption)) for kind, *box, caption in content["regions"]),
        warnings=tuple(map(str, content["warnings"])),
    )


def _box(sides: Sequence[Any]) -> Box:
    x0, y0, x1, y1 = (math.nan if side is None else float(side) for side in sides)
    return x0, y0, x1, y1


def _kind(name: str) -> RegionKind:
    if name not in get_args(RegionKind):
        raise ValueError(f"unknown region kind {name!r}; expected one of {', '.join(get_args(RegionKind))}")
    return name  # type: ignore[return-value]
