"""Document loader that returns the pages of files with text and page images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

from jina_rag import Failure, IngestSettings
from jina_rag.adapters import PageLoading


class JinaPageLoader(PageLoading, BaseLoader):
    """Document loader for PDFs, office files and images: one document per page, with text and page image.

    Pages are rendered on this machine, and pages with little text are read by OCR.

    Setup:
        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaPageLoader

            loader = JinaPageLoader(["docs/", "reports/**/*.pdf"], image_folder="pages/")

    Use:
        .. code-block:: python

            for doc in loader.lazy_load():
                doc.metadata["source"], doc.metadata["page"], doc.metadata["image"]
            loader.failures  # unreadable files and pages, with reasons
            loader.skipped  # files that are not documents

    Async:
        .. code-block:: python

            async for doc in loader.alazy_load():
                ...

    ``page_content`` is the text of the page. Metadata: ``source`` (path of the file), ``page`` (from 0),
    ``total_pages``, ``doc_id`` and ``image`` (path of the page image, a JPEG file named by the content hash). The id of
    a document is the same at every load, so that a vector store replaces a page instead of adding a copy.

    Attributes:
        paths: Files, folders and globs to load.
        failures: Files and pages that the last call of `lazy_load` could not read.
        skipped: Files and folders that the last call of `lazy_load` skipped. A warning is logged for each reason.
    """

    _extra = "langchain"

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        image_folder: str | os.PathLike[str] | None = None,
        settings: IngestSettings | None = None,
        on_failure: Callable[[Failure], None] | None = None,
    ) -> None:
        """Create the loader without reading files.

        Args:
            paths: Files, folders, and globs like ``reports/**/*.pdf``.
            image_folder: Folder for page images; None for a folder in the user's cache.
            settings: Settings for rendering and reading pages; None for the defaults.
            on_failure: Called with each file or page that cannot be read; None logs a warning. Loading continues.
        """
        super().__init__(image_folder, settings, on_failure)
        self.paths = paths

    def lazy_load(self) -> Iterator[Document]:
        """Yield one document per page.

        Raises:
            InvalidInputError: If a path does not exist.
        """
        for page, image in self._load_pages(self.paths):
            source = str(page.path)
            yield Document(
                page_content=page.text,
                metadata={
                    "source": source,
                    "page": page.number - 1,
                    "total_pages": page.count,
                    "doc_id": page.doc_id,
                    "image": str(image),
                },
                id=f"{os.path.abspath(source)}#page={page.number}",
            )
