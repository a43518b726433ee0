"""`JinaPageReader`: pages of PDFs, scans and office files as image documents with text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import Document, ImageDocument, MediaResource
from llama_index.embeddings.jina_rag.node_inputs import IMAGE_HASH

from jina_rag import Failure, IngestSettings, InvalidInputError, Page
from jina_rag.adapters import PageLoading, check_not_empty, coroutine_of

_HIDDEN_FROM_MODELS = ("file_path", "doc_id", IMAGE_HASH)
"""Metadata keys that are excluded from the inputs of models, because only programs read the values."""


class JinaPageReader(PageLoading, BaseReader):
    """Reader that returns one `ImageDocument` per page, with the page screenshot and the text of the page.

    The text comes from the text layer, or from OCR for pages with little or no text. Each screenshot is saved in a file
    named by the content hash, so a changed page gets another image path and another document hash in LlamaIndex.
    Document ids (``reports/q3.pdf#p0002``) do not change when a file is edited. An `IngestionPipeline` with a document
    store therefore re-embeds changed pages, skips unchanged pages and deletes removed pages.

    Setup:
        ``pip install ".[llama-index]"`` in a clone.

    Instantiate:
        ::

            from llama_index.readers.jina_rag import JinaPageReader

            reader = JinaPageReader("pages/")

    Use:
        ::

            documents = reader.load_data("reports/")
            for failure in (*reader.failures, *reader.skipped):
                print(failure.path, failure.page, failure.reason)

        As the extractor of LlamaIndex's directory reader::

            SimpleDirectoryReader("reports/", file_extractor={".pdf": reader}).load_data()

        `SimpleDirectoryReader` adds the size and dates of a file to the metadata of all pages. LlamaIndex therefore
        treats all pages of an edited file as changed. With a document store, pass ``file_metadata=lambda path: {}``.

    Async:
        ``await reader.aload_data(…)`` and ``alazy_load_data`` read in a thread, never in the event loop's thread.

    Args:
        folder: Folder for page screenshots; None for a folder in the user's cache.
        settings: Settings for rendering and reading pages; None for the defaults.
        root: Folder to which document ids are relative; None for absolute paths. Set `root` if the documents can move
            to another machine.
        on_failure: Called with each file or page that cannot be read; None logs a warning. The attribute `failures`
            lists all failed files and pages, and the attribute `skipped` all files that are not documents.
    """

    _extra = "llama-index"

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        settings: IngestSettings | None = None,
        root: str | os.PathLike[str] | None = None,
        on_failure: Callable[[Failure], None] | None = None,
    ) -> None:
        super().__init__(folder, settings, on_failure)
        check_not_empty(root=root)
        self.root = None if root is None else Path(os.path.abspath(root))

    def lazy_load_data(
        self,
        file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        extra_info: Mapping[str, Any] | None = None,
        fs: object = None,
    ) -> Iterator[Document]:
        """Return an iterator that reads pages one by one, with constant memory.

        Args:
            file: Files, folders, and globs like ``reports/**/*.pdf``.
            extra_info: Additional metadata for every document.
            fs: Must be None; only the local file system is supported.

        Raises:
            InvalidInputError: If a path does not exist, or `fs` is not None; raised before iteration.
        """
        if fs is not None:
            raise InvalidInputError(
                f"fs is {fs!r}; only the local file system is supported. Download the files first, and omit fs."
            )
        return (self._document(page, image, extra_info or {}) for page, image in self._load_pages(file))

    def load_data(
        self,
        file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        extra_info: Mapping[str, Any] | None = None,
        fs: object = None,
    ) -> list[Document]:
        """Return all pages as a list of documents.

        Args:
            file: Files, folders, and globs like ``reports/**/*.pdf``.
            extra_info: Additional metadata for every document.
            fs: Must be None; only the local file system is supported.

        Raises:
            InvalidInputError: If a path does not exist, or `fs` is not None.
        """
        return list(self.lazy_load_data(file, extra_info, fs))

    aload_data = coroutine_of(load_data, pool="ingest")

    async def alazy_load_data(self, *args: Any, **load_kwargs: Any) -> Iterable[Document]:  # noqa: ANN401
        """Return all documents as a list, read in a thread; an iterator would read files in the event loop's thread.

        Args:
            args: Positional arguments of `load_data`.
            load_kwargs: Keyword arguments of `load_data`.
        """
        return await self.aload_data(*args, **load_kwargs)

    def _document(self, page: Page, image: Path, extra: Mapping[str, Any]) -> Document:
        doc_id = self._document_id(page.path)
        # The metadata excludes the number of pages. Otherwise, a new page would change the hashes of all pages of the
        # file.
        metadata = {
            "file_name": page.path.name,
            "page_label": str(page.number),
            **extra,
            "file_path": str(page.path),
            "doc_id": doc_id,
            IMAGE_HASH: image.stem,
        }
        # A source relationship is not set, because LlamaIndex would then treat the pages of a file as one document, and
        # replace or delete all pages together.
        return ImageDocument(
            id_=f"{doc_id}#p{page.number:04d}",
            text_resource=MediaResource(text=page.text),
            image_resource=MediaResource(path=image, mimetype="image/jpeg"),
            metadata=metadata,
            excluded_embed_metadata_keys=list(_HIDDEN_FROM_MODELS),
            excluded_llm_metadata_keys=list(_HIDDEN_FROM_MODELS),
        )

    def _document_id(self, path: Path) -> str:
        absolute = Path(os.path.abspath(path))
        if self.root is not None and absolute.is_relative_to(self.root):
            return absolute.relative_to(self.root).as_posix()
        return absolute.as_posix()
