"""Pages of files, as both frameworks load them: each with the file of its image."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from jina_rag._extras import require
from jina_rag.adapters.lazy import check_not_empty
from jina_rag.config import IngestSettings
from jina_rag.indexing.page_files import load_pages, save_page
from jina_rag.types import Failure, Page

_log = logging.getLogger("jina_rag")


class PageLoading:
    """Reads pages one by one and keeps their images in a folder.

    Attributes:
        settings: How pages are rendered and read.
        on_failure: Called with each file or page that cannot be read; None writes a warning to the log.
        failures: Files and pages that the last run could not read.
    """

    _extra: ClassVar[str]

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        settings: IngestSettings | None,
        on_failure: Callable[[Failure], None] | None,
    ) -> None:
        check_not_empty(image_folder=folder)
        self._folder = folder
        self.settings = settings
        self.on_failure = on_failure
        self.failures: list[Failure] = []

    def _load_pages(
        self, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    ) -> Iterator[tuple[Page, Path]]:
        """Pages as they are read, and the files of their images.

        Raises:
            InvalidInputError: At once, if a path does not exist.
        """
        failures: list[Failure] = []
        self.failures = failures
        folder = self.image_folder
        pages = load_pages(paths, settings=self.settings, on_failure=partial(self._report, failures))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it will hold readable pages
        return ((page, save_page(page, folder)) for page in pages)

    @property
    def image_folder(self) -> Path:
        """Where images are kept: the folder that was named, or one in this user's cache."""
        if self._folder is not None:
            return Path(os.path.abspath(self._folder))
        platformdirs = require("platformdirs", extra=self._extra)
        return Path(platformdirs.user_cache_path("jina-rag", appauthor=False)) / "pages"

    def _report(self, failures: list[Failure], failure: Failure) -> None:
        failures.append(failure)
        if self.on_failure is not None:
            self.on_failure(failure)
            return
        where = f"{failure.path}, page {failure.page}" if failure.page else str(failure.path)
        _log.warning("%s was not loaded: %s", where, failure.reason)
