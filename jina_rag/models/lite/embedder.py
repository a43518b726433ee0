"""The embedded default: a small text encoder whose token vectors keep their places on the page.

It reads words (the text layer's, else OCR's); it does not look at pixels. Every token gives one row of the
multi-vector, except those of stop words and punctuation, which are dropped after encoding: they carry nothing
of their own, but the other tokens should have seen them.
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
    """How token vectors become an embedding.

    Attributes:
        window: Tokens encoded together, without prompt and special tokens.
        overlap: Tokens that neighbouring windows share at least.
        centring: The share of the model's centre that is taken off every unit token vector before it is
            normalised again. e5's vectors all point much the same way (their mean has a length of about
            0.85), which leaves little room for what differs; "all but the top" (Mu and Viswanath, ICLR 2018).
        hubness: See `Embedder.hubness`. 0.5, measured: +0.03 nDCG@5 on 119 judged questions, most of it across
            languages and on scans.
        dense_weight: See `Embedder.dense_weight`. 0.3, measured on the same questions.
        drop: Leave out the rows of stop words and punctuation (as long as others remain).
        max_query_tokens: A longer question is cut.
        max_document_tokens: A longer page or text is cut.
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
                f"Windows of {self.window} tokens cannot overlap by {self.overlap}: 0 <= overlap < window."
            )

    @property
    def version(self) -> str:
        """Short text that differs between recipes that give different vectors."""
        return f"r2-w{self.window}-o{self.overlap}-c{self.centring}" + ("" if self.drop else "-all")


class LiteEmbedder(EmbedderDefaults):
    """Implements `jina_rag.protocols.Embedder` on a text encoder. Safe to share between threads.

    It reads words: images go through OCR.

    Attributes:
        name: ``"lite"`` or ``"lite-en"``.
        dim: 384; also that of the rows.
        typical: See `Backbone.typical`.
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
        """Combine an encoder and a recipe.

        Args:
            backbone: The encoder.
            recipe: Defaults to the measured one.
            max_length: Tokens of any input that are read, unless a call says otherwise; None for the recipe's
                limits.
            opening: Limits on images, and whether addresses are fetched.
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
        """Name, hash of the weights, recipe."""
        return f"{self.name}@{self._backbone.fingerprint}+{self._recipe.version}"

    def encode_query(self, queries: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed questions; see `Embeddings` for the shapes.

        Raises:
            InvalidInputError: If a question is empty, or `truncate_dim` is another than the model's.
        """
        settings = EncodeSettings(**options)
        texts = self._tokens(queries, settings, self._recipe.max_query_tokens, "Question")
        for index, tokens in enumerate(texts):
            if not len(tokens.ids):
                which = f"Question {index + 1} of {len(texts)}"
                if isinstance(queries[index], str):
                    raise InvalidInputError(f"{which} is empty: ask something in words.")
                raise InvalidInputError(
                    f"{which} has no words that OCR could read, and {self.name!r} sees nothing else: add words, or use "
                    "a model that looks at pixels."
                )
        return self._embed(texts, "query", settings)

    def encode_document(self, documents: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed pages, images or texts; an input without words gives a zero dense vector and no rows.

        Raises:
            InvalidInputError: If an input is not a text, an image or a page, or `truncate_dim` is another
                than the model's.
        """
        settings = EncodeSettings(**options)
        return self._embed(
            self._tokens(documents, settings, self._recipe.max_document_tokens, "Document"), "passage", settings
        )

    def _tokens(self, inputs: Sequence[Input], settings: EncodeSettings, usual_limit: int, what: str) -> list[Tokens]:
        check_truncate_dim(settings.truncate_dim, self.dim, self.name)
        limit = settings.max_length or self._max_length or usual_limit
        texts = []
        for index, item in enumerate(as_input_list(inputs, f"{what.lower()}s")):
            words, have_places = words_of(item, self._opening)
            tokens = tokens_of(words, have_places, self._backbone, limit)
            if tokens.truncated:
                _log.warning("%s %d of %d was cut after %d tokens (max_length).", what, index + 1, len(inputs), limit)
            texts.append(tokens)
        return texts

    def _embed(self, texts: Sequence[Tokens], side: Side, settings: EncodeSettings) -> Embeddings:
        before, after = self._backbone.frame(side)
        plan: list[tuple[int, Window]] = [
            (index, window)
            for index, tokens in enumerate(texts)
            for window in windows(len(tokens.ids), self._recipe.window, self._recipe.overlap)
        ]
        encoded = self._backbone.encode(
            [np.array([*before, *texts[i].ids[w.start : w.stop].tolist(), *after], dtype=np.int64) for i, w in plan]
        )
        rows: list[list[Float32]] = [[] for _ in texts]
        for (index, window), vectors in zip(plan, encoded, strict=True):
            first = len(before) + window.keep_start - window.start
            rows[index].append(vectors[first : first + window.keep_stop - window.keep_start])
        return self._collect(texts, rows, settings)

    def _centred(self, rows: Float32) -> Float32:
        """Unit vectors with their common part taken off, unit length again."""
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
        for index, (tokens, parts) in enumerate(zip(texts, rows, strict=True)):
            every = self._centred(np.concatenate(parts) if parts else np.zeros((0, self.dim), dtype=np.float32))
            if len(every):
                dense[index] = normalise(every.mean(axis=0))
            has_row = tokens.useful if self._recipe.drop and tokens.useful.any() else np.ones(len(every), dtype=bool)
            vectors.append(every[has_row])
            grids.append(None if tokens.boxes is None else TokenGrid(tokens.boxes[has_row], "words"))
            pieces.append(tokens.texts_of(has_row))
        return Embeddings(
            single=dense if settings.single else None,
            multi=vectors if settings.multi else None,
            grids=grids if settings.multi else None,
            tokens=pieces if settings.multi else None,
            truncated=[tokens.truncated for tokens in texts],
        )
