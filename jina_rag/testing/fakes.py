"""Fake models, pages and PDFs. The fake models score a document by the words in common with the query."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from jina_rag._checks import check_whole_number
from jina_rag._extras import require
from jina_rag.errors import InvalidInputError
from jina_rag.inputs import EncodeSettings, as_input_list
from jina_rag.protocols import EmbedderDefaults, EncodeOptions, Input
from jina_rag.scoring import normalise
from jina_rag.types import Box, Embeddings, Float32, Page, PageScreenshot, Region, TokenGrid, Word

_WORD = re.compile(r"\w+")


class FakeEmbedder(EmbedderDefaults):
    """A fake embedder with one random vector per word, seeded by the hash of the word. Deterministic.

    Documents that share words with a query score higher.

    Attributes:
        name: Name of the model.
        dim: Length of the dense vector.
        multi_dim: Length of a row of the multi-vector.
        modality: ``"text"``.
        history: All calls, as ``("query" | "document", inputs)``.

    Args:
        dim: Length of the dense vector.
        multi_dim: Length of a row of the multi-vector.
        name: Name of the model.
    """

    modality: Literal["text", "image"] = "text"

    def __init__(self, *, dim: int = 128, multi_dim: int = 64, name: str = "fake") -> None:
        self.name = name
        self.dim = dim
        self.multi_dim = multi_dim
        self.history: list[tuple[Literal["query", "document"], tuple[Input, ...]]] = []

    @property
    def fingerprint(self) -> str:
        """Name and dimensions of the model."""
        return f"{self.name}-{self.dim}-{self.multi_dim}"

    def encode_query(self, queries: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed queries.

        Args:
            queries: Texts or pages.
            options: See `EncodeOptions`.

        Returns:
            Dense vectors, shape (n, dim), float32; multi-vectors, each of shape (words, multi_dim), float32.

        Raises:
            InvalidInputError: If a query has no words, for example an image, or an option is invalid.
        """
        inputs = as_input_list(queries, "queries")
        self.history.append(("query", tuple(inputs)))
        for query in inputs:
            if not _words(query):
                raise InvalidInputError(f"The query {query!r} has no words. Pass a text with at least one word.")
        return self._encode(inputs, EncodeSettings(**options))

    def encode_document(self, documents: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed documents. An input without words gets a zero dense vector and an empty multi-vector.

        Args:
            documents: Texts, pages or images; images have no words.
            options: See `EncodeOptions`.

        Returns:
            Dense vectors, shape (n, dim), float32; multi-vectors, each of shape (words, multi_dim), float32.

        Raises:
            InvalidInputError: If an option is invalid.
        """
        inputs = as_input_list(documents, "documents")
        self.history.append(("document", tuple(inputs)))
        return self._encode(inputs, EncodeSettings(**options))

    def _encode(self, inputs: Sequence[Input], settings: EncodeSettings) -> Embeddings:
        if settings.truncate_dim is not None:
            check_whole_number("truncate_dim", settings.truncate_dim, minimum=1, maximum=self.dim)
        words = [_words(item)[: settings.max_length] for item in inputs]
        dense = [sum((_vector(word, self.dim) for word, _ in item), np.zeros(self.dim)) for item in words]
        rows = [normalise([_vector(word, self.multi_dim) for word, _ in item]) for item in words]
        grids = [
            TokenGrid(np.array([box for _, box in item], np.float32).reshape(-1, 4), "words")
            if isinstance(source, Page)
            else None
            for source, item in zip(inputs, words, strict=True)
        ]
        return Embeddings(
            single=normalise(np.reshape(dense, (len(inputs), self.dim))[:, : settings.truncate_dim])
            if settings.single
            else None,
            multi=[row.reshape(-1, self.multi_dim) for row in rows] if settings.multi else None,
            grids=grids if settings.multi else None,
            tokens=[tuple(f" {word}" for word, _ in item) for item in words] if settings.multi else None,
        )


class FakeReranker:
    """A fake reranker that scores a document by the fraction of the distinct query words in the document.

    Attributes:
        name: Name of the model.
        modality: ``"text"``.
        history: All calls, as ``(query, documents)``.

    Args:
        name: Name of the model.
    """

    modality: Literal["text", "image"] = "text"

    def __init__(self, *, name: str = "fake") -> None:
        self.name = name
        self.history: list[tuple[Input, tuple[Input, ...]]] = []

    @property
    def fingerprint(self) -> str:
        """Name of the model; fakes with equal names give equal scores."""
        return self.name

    def score(self, query: Input, documents: Sequence[Input]) -> Float32:
        """Return the score of each document, from 0 to 1, shape (len(documents),), float32.

        Args:
            query: A text or page.
            documents: Texts, pages or images; images have no words.

        Raises:
            InvalidInputError: If the query has no words.
        """
        self.history.append((query, tuple(documents)))
        query_words = {word for word, _ in _words(query)}
        if not query_words:
            raise InvalidInputError(f"The query {query!r} has no words. Pass a text with at least one word.")
        document_words = [{word for word, _ in _words(document)} for document in documents]
        return np.array([len(query_words & words) / len(query_words) for words in document_words], dtype=np.float32)


def make_page(
    text: str,
    *,
    doc_id: str = "doc.pdf",
    number: int = 1,
    count: int = 1,
    path: Path | None = None,
    regions: Sequence[Region] = (),
    size: tuple[int, int] = (170, 220),
) -> Page:
    """Return a page with eight words per line, and a screenshot with a dark bar for each word.

    Args:
        text: Words of the page, separated by white space; empty for a blank page.
        doc_id: Id of the document.
        number: Page number, 1-based.
        count: Number of pages in the document; a value below `number` is replaced by `number`.
        path: Path of the document. None: `doc_id`.
        regions: Charts, tables and figures on the page.
        size: Width and height of the screenshot in pixels.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    words = []
    for i, word in enumerate(text.split()):
        box = _word_box(i)
        words.append(Word(word, box))
        shade = hashlib.sha256(word.encode()).digest()[0] // 2
        x0, y0, x1, y1 = (x * side for x, side in zip(box, (*size, *size), strict=True))
        draw.rectangle((x0, y0, x1, y1), fill=(shade, shade, shade))
    return Page(
        doc_id=doc_id,
        path=path or Path(doc_id),
        number=number,
        count=max(count, number),
        screenshot=PageScreenshot(image, dpi=20.0),
        words=tuple(words),
        regions=tuple(regions),
    )


def sample_pdf(path: Path, pages: Sequence[str]) -> Path:
    """Write a PDF with a text layer and one page per text.

    Args:
        path: File to write.
        pages: Text of each page, in any script; at least one.

    Returns:
        `path`.

    Raises:
        InvalidInputError: If `pages` is empty.
        MissingDependencyError: If PyMuPDF is not installed.
    """
    pymupdf = require("pymupdf")
    with pymupdf.open() as document:
        for text in pages:
            page = document.new_page(width=420, height=595)
            if text:
                page.insert_htmlbox(pymupdf.Rect(36, 36, 384, 559), html.escape(text))
        if not pages:
            raise InvalidInputError("pages is empty; expected the text of at least one page.")
        document.save(path)
    return path


def _word_box(index: int) -> Box:
    line, column = divmod(index, 8)
    x, y = 0.05 + 0.11 * column, min(0.05 + 0.03 * line, 0.95)
    return (x, y, x + 0.1, y + 0.02)


def _words(item: Input) -> list[tuple[str, Box]]:
    """Return the case-folded words of a text or page, and the box of each word; an image has no words."""
    if isinstance(item, Page):
        return [(part, word.box) for word in item.words for part in _WORD.findall(word.text.casefold())]
    if isinstance(item, str):
        return [(part, (0.0, 0.0, 1.0, 1.0)) for part in _WORD.findall(item.casefold())]
    if isinstance(item, Mapping):
        return _words(str(item.get("text", "")))
    if isinstance(item, Sequence) and not isinstance(item, bytes | bytearray | memoryview):
        return [word for part in item for word in _words(part)]
    return []


def _vector(word: str, dim: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=dim)
