"""`JinaPageReader`: the pages of PDFs, scans and office files as documents with a picture and the page's words."""

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
"""Metadata that programs need, and a model need not see."""


class JinaPageReader(PageLoading, BaseReader):
    """Reads documents page by page: each an `ImageDocument` with the page's screenshot and its words.

    Words come from the text layer, and by OCR where there is none. Screenshots are kept in a folder, each under the
    hash of what it shows: where a page changes, the path of its picture does, and with it the hash by which LlamaIndex
    tells what has to be embedded again. Ids stay the same when a file is edited (``reports/q3.pdf#p0002``), so that an
    `IngestionPipeline` with a document store embeds changed pages again, skips the others, and removes those that are
    gone.

    Setup:
        ``pip install ".[llama-index]"`` in a clone.

    Instantiate:
        ::

            from llama_index.readers.jina_rag import JinaPageReader

            reader = JinaPageReader("pages/")

    Use:
        ::

            documents = reader.load_data("reports/")
            for failure in reader.failures:
                print(failure.path, failure.page, failure.reason)

        As the extractor of LlamaIndex's directory reader::

            SimpleDirectoryReader("reports/", file_extractor={".pdf": reader}).load_data()

        That one adds size and dates of a file to the metadata of all its pages, which LlamaIndex takes for a change of
        all of them: give it ``file_metadata=lambda path: {}`` where pages go into a document store.

    Async:
        ``await reader.aload_data(…)`` and ``alazy_load_data`` read in a thread, never on the thread of the event loop.

    Args:
        folder: Where screenshots are kept; None for a cache folder of this user.
        settings: How pages are rendered and read.
        root: What the ids of documents are relative to; None leaves them the absolute path. Give it where documents
            may move to another machine.
        on_failure: Called with each file or page that cannot be read; None writes a warning to the log. `failures`
            lists them in any case.
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
        """Read pages one by one; memory does not grow with their number.

        Args:
            file: Files, folders, and globs such as ``reports/**/*.pdf``.
            extra_info: Further metadata of every document.
            fs: Only None: documents are read from this machine's disk.

        Raises:
            InvalidInputError: At once, if a path does not exist.
        """
        if fs is not None:
            raise InvalidInputError(f"Documents are read from this machine's disk, not from {fs!r}: fetch them first.")
        return (self._document(page, image, extra_info or {}) for page, image in self._load_pages(file))

    def load_data(
        self,
        file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        extra_info: Mapping[str, Any] | None = None,
        fs: object = None,
    ) -> list[Document]:
        """As `lazy_load_data`, as a list."""
        return list(self.lazy_load_data(file, extra_info, fs))

    aload_data = coroutine_of(load_data, pool="ingest")

    async def alazy_load_data(self, *args: Any, **load_kwargs: Any) -> Iterable[Document]:  # noqa: ANN401
        """All documents, read in a thread: an iterator would read them on the thread of the event loop."""
        return await self.aload_data(*args, **load_kwargs)

    def _document(self, page: Page, image: Path, extra: Mapping[str, Any]) -> Document:
        name = self._name(page.path)
        # No number of pages: it would change the hash of every page of a file that gets one more.
        metadata = {
            "file_name": page.path.name,
            "page_label": str(page.number),
            **extra,
            "file_path": str(page.path),
            "doc_id": name,
            IMAGE_HASH: image.stem,
        }
        # No relationship to a source document: LlamaIndex would take the pages of a file for one document, and
        # replace or delete them all at once.
        return ImageDocument(
            id_=f"{name}#p{page.number:04d}",
            text_resource=MediaResource(text=page.text),
            image_resource=MediaResource(path=image, mimetype="image/jpeg"),
            metadata=metadata,
            excluded_embed_metadata_keys=list(_HIDDEN_FROM_MODELS),
            excluded_llm_metadata_keys=list(_HIDDEN_FROM_MODELS),
        )

    def _name(self, path: Path) -> str:
        full = Path(os.path.abspath(path))
        if self.root is not None and full.is_relative_to(self.root):
            return full.relative_to(self.root).as_posix()
        return full.as_posix()
