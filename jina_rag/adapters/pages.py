"""Page loading for LangChain's document loader and LlamaIndex's reader."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from jina_rag._display import displayed
from jina_rag._extras import require
from jina_rag.adapters.lazy import check_not_empty
from jina_rag.config import IngestSettings
from jina_rag.indexing.page_files import load_pages, save_page
from jina_rag.indexing.skipped_files import SkippedLog
from jina_rag.types import Failure, Page

_log = logging.getLogger("jina_rag")


class PageLoading:
    """Base class that loads pages one by one and saves the page images to a folder.

    Attributes:
        settings: Settings for rendering and reading pages; None for the defaults.
        on_failure: Called with each file or page that cannot be read; None logs a warning.
        failures: Files and pages that the last run could not read.
        skipped: Files and folders that the last run skipped, because they are not documents, hidden or read before. A
            warning is logged for each reason after the last page.
    """

    _extra: ClassVar[str]

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        settings: IngestSettings | None,
        on_failure: Callable[[Failure], None] | None,
    ) -> None:
        """Create the loader without reading files.

        Args:
            folder: Folder for page images; None for a folder in the user's cache.
            settings: Settings for rendering and reading pages; None for the defaults.
            on_failure: Called with each file or page that cannot be read; None logs a warning.
        """
        check_not_empty(image_folder=folder)
        self._folder = folder
        self.settings = settings
        self.on_failure = on_failure
        self.failures: list[Failure] = []
        self.skipped: list[Failure] = []

    def _load_pages(
        self, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    ) -> Iterator[tuple[Page, Path]]:
        """Return an iterator over (page, path of the page image).

        Raises:
            InvalidInputError: If a path does not exist; raised before iteration.
        """
        failures: list[Failure] = []
        self.failures = failures
        folder = self.image_folder
        skipped: list[Failure] = []
        self.skipped = skipped
        pages = load_pages(
            paths,
            settings=self.settings,
            on_failure=partial(self._report, failures),
            on_skipped=skipped.append,
        )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # page images can be confidential
        return self._saved(pages, folder, skipped)

    @staticmethod
    def _saved(pages: Iterator[Page], folder: Path, skipped: list[Failure]) -> Iterator[tuple[Page, Path]]:
        for page in pages:
            yield page, save_page(page, folder)
        log = SkippedLog()
        for file in skipped:
            log.add(file)
        log.write()

    @property
    def image_folder(self) -> Path:
        """Folder of the page images: the configured folder, or a folder in the user's cache."""
        if self._folder is not None:
            return Path(os.path.abspath(self._folder))
        platformdirs = require("platformdirs", extra=self._extra)
        return Path(platformdirs.user_cache_path("jina-rag", appauthor=False)) / "pages"

    def _report(self, failures: list[Failure], failure: Failure) -> None:
        failures.append(failure)
        if self.on_failure is not None:
            self.on_failure(failure)
            return
        location = f"{failure.path}, page {failure.page}" if failure.page else str(failure.path)
        _log.warning("%s was not loaded: %s", displayed(location), displayed(failure.reason))
