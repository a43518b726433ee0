"""Lite embedder: a small text encoder that returns token vectors with the position of each token on the page.

The embedder reads the words of the text layer or OCR text and does not encode pixels. Each token becomes one row of the
multi-vector. Stop words and punctuation are encoded, because they are context for the other tokens. The rows of stop
words and punctuation are dropped after encoding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np

from jina_rag._checks import check_whole_number
from jina_rag.errors import InvalidInputError
from jina_rag.images import Opening
from jina_rag.inputs import EncodeSettings, as_input_list, check_truncate_dim
from jina_rag.models.lite.backbone import Backbone, Side
from jina_rag.models.lite.page_text import Tokens, tokens_of, words_of
from jina_rag.models.lite.text_windows import Window, windows
from jina_rag.protocols import EmbedderDefaults, EncodeOptions, Input
from jina_rag.scoring import normalise
from jina_rag.types import Embeddings, Float32, TokenGrid

_log = logging.getLogger("jina_rag")


@dataclass(frozen=True, slots=True)
class LiteRecipe:
    """Settings that turn token vectors into an embedding.

    Attributes:
        window: Tokens encoded together, without prompt and special tokens.
        overlap: Minimum number of tokens that adjacent windows share.
        centring: Fraction of the model's mean vector that is subtracted from each unit token vector before the vector
            is renormalized. The token vectors of e5 are anisotropic: the mean of the unit vectors has a length of about
            0.85. Source: Mu and Viswanath, All-but-the-Top (ICLR 2018).
        hubness: See `Embedder.hubness`. A fraction of 0.5 increased nDCG@5 by 0.03 on 119 judged queries, mostly on
            cross-lingual queries and on scanned pages.
        dense_weight: See `Embedder.dense_weight`. The default of 0.3 was chosen on the same 119 queries.
        drop: Whether to drop the rows of stop words and punctuation. Inputs of only stop words and punctuation
            keep all rows.
        max_query_tokens: Limit of tokens per query; longer queries are truncated.
        max_document_tokens: Limit of tokens per page or text; longer documents are truncated.

    Raises:
        InvalidInputError: If `overlap` is negative or not below `window`.
    """

    window: int = 190
    overlap: int = 30
    centring: float = 0.75
    hubness: float = 0.5
    dense_weight: float = 0.3
    drop: bool = True
    max_query_tokens: int = 512
    max_document_tokens: int = 16_384

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.window:
            raise InvalidInputError(
                f"overlap is {self.overlap}; expected at least 0 and less than window ({self.window})."
            )

    @property
    def version(self) -> str:
        """Identifier of the settings. Recipes that result in different vectors have different identifiers."""
        return f"r3-w{self.window}-o{self.overlap}-c{self.centring}" + ("" if self.drop else "-all")


class LiteEmbedder(EmbedderDefaults):
    """Embedder based on a small text encoder; implements `jina_rag.protocols.Embedder`. Thread-safe.

    Images are read by OCR.

    Attributes:
        name: ``"lite"`` or ``"lite-en"``.
        dim: Length of the dense vector, 384.
        multi_dim: Length of a row of the multi-vector, 384.
        modality: ``"text"``.
        typical: See `Backbone.typical`.
        hubness: See `LiteRecipe.hubness`.
        dense_weight: See `LiteRecipe.dense_weight`.
    """

    modality: Literal["text", "image"] = "text"

    def __init__(
        self,
        backbone: Backbone,
        recipe: LiteRecipe | None = None,
        *,
        max_length: int | None = None,
        opening: Opening | None = None,
    ) -> None:
        """Create an embedder from an encoder.

        Args:
            backbone: The encoder.
            recipe: Settings for embedding. None: the defaults of `LiteRecipe`.
            max_length: Default limit of tokens per input, at least 1. None: the limits of `recipe`.
            opening: Limits on images, and whether http and https URLs are downloaded. None: the defaults of
                `Opening`.

        Raises:
            InvalidInputError: If `max_length` is not an integer of at least 1.
        """
        self._backbone = backbone
        self.name, self.dim, self.multi_dim = backbone.name, backbone.dim, backbone.dim
        self.typical = backbone.typical
        self._recipe = recipe or LiteRecipe()
        self._max_length = None if max_length is None else check_whole_number("max_length", max_length, minimum=1)
        self._opening = opening or Opening()
        self.hubness, self.dense_weight = self._recipe.hubness, self._recipe.dense_weight

    @property
    def fingerprint(self) -> str:
        """Model name, hash of the weights and version of the recipe."""
        return f"{self.name}@{self._backbone.fingerprint}+{self._recipe.version}"

    def encode_query(self, queries: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed queries; see `Embeddings` for shapes and dtypes.

        Args:
            queries: Texts, pages or images; images are read by OCR.
            options: See `EncodeOptions`. `truncate_dim` is None or 384.

        Returns:
            The dense vectors, the multi-vectors and the token boxes of pages and images.

        Raises:
            InvalidInputError: If a query has no words, or an option is invalid.
        """
        settings = EncodeSettings(**options)
        texts = self._tokens(as_input_list(queries, "queries"), settings, self._recipe.max_query_tokens, "Query")
        for index, tokens in enumerate(texts):
            if not len(tokens.ids):
                label = f"Query {index + 1} of {len(texts)}"
                if isinstance(queries[index], str):
                    raise InvalidInputError(f"{label} is empty. Pass a query with at least one word.")
                raise InvalidInputError(
                    f"OCR found no words in {label.lower()}, and {self.name!r} reads only words. Add words to the "
                    "query, or use a model that encodes pixels."
                )
        return self._embed(texts, "query", settings)

    def encode_document(self, documents: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed pages, images or texts; see `Embeddings` for shapes and dtypes.

        Args:
            documents: Pages, texts or images; images are read by OCR.
            options: See `EncodeOptions`. `truncate_dim` is None or 384.

        Returns:
            The dense vectors, the multi-vectors and the token boxes of pages and images. An input without words gets
            a zero dense vector and a multi-vector of shape (0, 384).

        Raises:
            InvalidInputError: If an input is not a text, an image or a page, or an option is invalid.
        """
        settings = EncodeSettings(**options)
        limit = self._recipe.max_document_tokens
        texts = self._tokens(as_input_list(documents, "documents"), settings, limit, "Document")
        return self._embed(texts, "passage", settings)

    def _tokens(self, inputs: list[Input], settings: EncodeSettings, default_limit: int, label: str) -> list[Tokens]:
        check_truncate_dim(settings.truncate_dim, self.dim, self.name)
        limit = settings.max_length or self._max_length or default_limit
        texts = []
        for number, item in enumerate(inputs, start=1):
            words, has_boxes = words_of(item, self._opening, f"{label} {number} of {len(inputs)}")
            tokens = tokens_of(words, has_boxes, self._backbone, limit)
            if tokens.truncated:
                _log.warning("%s %d of %d was truncated to %d tokens (max_length).", label, number, len(inputs), limit)
            texts.append(tokens)
        return texts

    def _embed(self, texts: Sequence[Tokens], side: Side, settings: EncodeSettings) -> Embeddings:
        prefix, suffix = self._backbone.frame(side)
        plan: list[tuple[int, Window]] = [
            (index, window)
            for index, tokens in enumerate(texts)
            for window in windows(len(tokens.ids), self._recipe.window, self._recipe.overlap)
        ]
        encoded = self._backbone.encode(
            [np.array([*prefix, *texts[i].ids[w.start : w.stop].tolist(), *suffix], dtype=np.int64) for i, w in plan]
        )
        rows: list[list[Float32]] = [[] for _ in texts]
        for (index, window), vectors in zip(plan, encoded, strict=True):
            first_row = len(prefix) + window.keep_start - window.start
            rows[index].append(vectors[first_row : first_row + window.keep_stop - window.keep_start])
        return self._collect(texts, rows, settings)

    def _centred(self, rows: Float32) -> Float32:
        """Return the centered unit vectors of `rows`, shape (tokens, dim), float32."""
        unit = normalise(rows)
        if self._backbone.centre is None:
            return unit
        return normalise(unit - np.float32(self._recipe.centring) * self._backbone.centre)

    def _collect(
        self, texts: Sequence[Tokens], rows: Sequence[Sequence[Float32]], settings: EncodeSettings
    ) -> Embeddings:
        dense = np.zeros((len(texts), self.dim), dtype=np.float32)
        vectors: list[Float32] = []
        grids: list[TokenGrid | None] = []
        pieces: list[tuple[str, ...] | None] = []
        for index, (tokens, chunks) in enumerate(zip(texts, rows, strict=True)):
            centred = self._centred(np.concatenate(chunks) if chunks else np.zeros((0, self.dim), dtype=np.float32))
            if len(centred):
                dense[index] = normalise(centred.mean(axis=0))
            has_row = tokens.useful if self._recipe.drop and tokens.useful.any() else np.ones(len(centred), dtype=bool)
            vectors.append(centred[has_row])
            grids.append(None if tokens.boxes is None else TokenGrid(tokens.boxes[has_row], "words"))
            pieces.append(tokens.texts_of(has_row))
        return Embeddings(
            single=dense if settings.single else None,
            multi=vectors if settings.multi else None,
            grids=grids if settings.multi else None,
            tokens=pieces if settings.multi else None,
            truncated=[tokens.truncated for tokens in texts],
        )
