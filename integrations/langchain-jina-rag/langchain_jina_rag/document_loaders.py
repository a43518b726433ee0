"""Pages of files as documents: their words, and their pictures beside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

from jina_rag import Failure, IngestSettings
from jina_rag.adapters import PageLoading


class JinaPageLoader(PageLoading, BaseLoader):
    """Loads PDFs, office files and images page by page, each with its words and its picture.

    Pages are rendered and, where they have few words, read by OCR, all on this machine.

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
            loader.failures  # what could not be read, with the reason

    Async:
        .. code-block:: python

            async for doc in loader.alazy_load():
                ...

    A document's ``page_content`` are the words of the page. Its metadata: ``source`` (the file), ``page`` (from 0),
    ``total_pages``, ``doc_id`` and ``image`` (the picture, a JPEG named by its content). Its id is the same at each
    load, so that a store replaces the page and does not add it twice.

    Attributes:
        failures: Files and pages that the last run could not read.
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
        """Say what to load.

        Args:
            paths: Files, folders, and globs such as ``reports/**/*.pdf``.
            image_folder: Where pictures are kept; None for a folder in this user's cache.
            settings: How pages are rendered and read.
            on_failure: Called with what cannot be read; None writes it to the log. The rest is loaded in any case.
        """
        super().__init__(image_folder, settings, on_failure)
        self.paths = paths

    def lazy_load(self) -> Iterator[Document]:
        """One document for each page, as it is read.

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
