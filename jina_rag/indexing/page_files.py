"""Pages outside an index: read from files one by one, and kept as a picture with its words beside it.

For pipelines that pass pages from a loader to a store: what they carry along is the path of a picture, which leads to
all that was read of the page. Names are made of contents, so that another picture never has the same name.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from jina_rag._files import write_whole
from jina_rag.config import IngestSettings
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import SourceEvent, SourceFile, find_sources, path_list
from jina_rag.stores.images import ImageFiles, decode_errors
from jina_rag.stores.schema import clean_payload
from jina_rag.types import Box, Failure, Page, PageScreenshot, Region, RegionKind, Word

_log = logging.getLogger("jina_rag")

QUALITY = 92
"""JPEG quality of the pictures: an index encodes them once more."""
_SIDECAR_SUFFIX = ".page.json"
_MOST_BYTES = 64 * 1024 * 1024


def load_pages(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    settings: IngestSettings | None = None,
    on_failure: Callable[[Failure], None] | None = None,
) -> Generator[Page, None, None]:
    """Read the pages of files and folders, one by one: screenshot, words with their boxes, regions.

    A file or page that cannot be read is told of, and the rest goes on. Memory does not grow with the number of pages.

    Args:
        paths: Files, folders, and globs such as ``reports/**/*.pdf``.
        settings: How pages are rendered and read; the defaults if None.
        on_failure: Called with each file or page that cannot be read; None writes a warning to the log.

    Raises:
        InvalidInputError: At once, if a path does not exist.
    """
    return _stream(find_sources(paths), settings, on_failure or _warn)


def _stream(
    events: Iterator[SourceEvent], settings: IngestSettings | None, tell: Callable[[Failure], None]
) -> Generator[Page, None, None]:
    failures: deque[Failure] = deque()  # of the walk, which is in the thread that renders; told in the caller's

    def sources() -> Iterator[SourceFile]:
        for event in events:
            if isinstance(event, Failure):
                failures.append(event)
            elif isinstance(event, SourceFile):
                yield event

    with closing(read_pages(sources(), settings)) as pages:
        for page in pages:
            while failures:
                tell(failures.popleft())
            if isinstance(page, Page):
                yield page
            elif isinstance(page, Failure):
                tell(page)
    for failure in failures:
        tell(failure)


def _warn(failure: Failure) -> None:
    where = f"{failure.path}" if failure.page is None else f"{failure.path}, page {failure.page}"
    _log.warning("%s: %s", where, failure.reason)


def save_page(page: Page, folder: str | os.PathLike[str], *, quality: int = QUALITY) -> Path:
    """Keep a page in a folder: its screenshot as a JPEG file, its words and regions in a JSON file beside it.

    Args:
        page: What `load_pages` gave.
        folder: Made if need be.
        quality: JPEG quality, 1 to 100.

    Returns:
        The screenshot, named by the SHA-256 of its bytes. `open_page` makes the page of it again.

    Raises:
        InvalidInputError: If the folder's name is empty.
        IndexStateError: If the folder cannot be written.
    """
    files = ImageFiles(*path_list([folder]))
    image = files.path(files.put(page.screenshot.image, quality))
    content = json.dumps(clean_payload(_as_json(page))).encode()
    try:
        write_whole(sidecar_of(image), content)
    except OSError as exc:
        raise IndexStateError(f"A page cannot be kept in {folder}: {exc.strerror or exc}.") from exc
    return image.absolute()


def open_page(image_path: str | os.PathLike[str]) -> Page:
    """The page whose screenshot `save_page` has kept.

    Raises:
        InvalidInputError: If it was not kept by `save_page`, or is damaged.
    """
    path = Path(*path_list([image_path]))
    if not path.name:
        raise InvalidInputError(f"{path} is a folder: name the screenshot of a page that was kept by save_page.")
    content = _read_sidecar(sidecar_of(path))
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        return _from_json(content, image)
    except decode_errors() as exc:
        raise InvalidInputError(f"{path} cannot be read as a page that was kept by save_page ({exc}).") from exc


def sidecar_of(image: Path) -> Path:
    """Where `save_page` leaves the words of a picture."""
    return image.with_suffix(_SIDECAR_SUFFIX)


def source_of(image: Path) -> Path:
    """The document that a kept page was read from; the picture itself if it is no kept page.

    Raises:
        InvalidInputError: If what stands beside it is damaged.
    """
    words = sidecar_of(image)
    return Path(_read_sidecar(words)["path"]) if words.is_file() else image


def _read_sidecar(words: Path) -> dict[str, Any]:
    """What stands beside a picture.

    Raises:
        InvalidInputError: If it is damaged.
    """
    try:
        if words.stat().st_size > _MOST_BYTES:
            raise ValueError("it is larger than that of any page")
        content: dict[str, Any] = json.loads(words.read_bytes())
        if not isinstance(content, dict) or not isinstance(content.get("path"), str):
            raise ValueError("it is not what was written")
        return content
    except FileNotFoundError as exc:
        raise InvalidInputError(f"{words} is missing: its picture was not kept by save_page.") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{words} cannot be read ({exc}): make it again with save_page.") from exc


def _as_json(page: Page) -> dict[str, Any]:
    return {
        "doc_id": page.doc_id,
        "path": str(page.path),
        "number": page.number,
        "count": page.count,
        "dpi": page.screenshot.dpi,
        "words": [[word.text, *_rounded(word.box), int(word.ocr)] for word in page.words],
        "regions": [[region.kind, *_rounded(region.box), region.caption] for region in page.regions],
        "warnings": list(page.warnings),
    }


def _rounded(box: Box) -> list[float | None]:
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
        raise ValueError(f"{name!r} is no kind of region")
    return name  # type: ignore[return-value]
