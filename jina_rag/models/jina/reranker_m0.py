"""jina-reranker-m0: cross-encoder that scores texts and images for a query, which is also a text or an image.

Deliberate differences from the published code:

- The documents of one call can mix texts and images, and so can the queries. The published code requires that all
  documents are of one kind, and all queries are of one kind.
- Every image is rotated according to its EXIF orientation.
- Special tokens in an input text are encoded as ordinary text.
- Scores are also available without the sigmoid.

Source: model card and published code of jina-reranker-m0.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

import numpy as np
import torch
from torch import nn

from jina_rag._checks import check_whole_number
from jina_rag.errors import InvalidInputError
from jina_rag.images import LoadedImage, Opening
from jina_rag.inputs import as_input_list, as_input_pairs, length_limit, parts_of
from jina_rag.models.jina.image_patches import ImagePatcher
from jina_rag.models.jina.m0_explain import STEPS, Method, attribute
from jina_rag.models.jina.m0_scoring import PairScorer
from jina_rag.models.jina.qwen_vl import QwenVL
from jina_rag.models.jina.vl_prompts import Prompt, Segment
from jina_rag.models.runtime.checkpoints import Checkpoint, CheckpointModel
from jina_rag.models.runtime.devices import Placement
from jina_rag.models.runtime.kv_cache import PrefixTiers
from jina_rag.models.runtime.output_checks import check_scores
from jina_rag.models.runtime.prefix_cache import PrefixCache
from jina_rag.protocols import Input
from jina_rag.types import Attribution, Float32

_log = logging.getLogger("jina_rag")

MAX_LENGTH = 10_240
LENGTH_LIMIT = 32_768
MAX_QUERY_LENGTH = 512
_SCORE_TOKEN = 100
"""Token id that the published code appends to the prompt, an ordinary vocabulary entry. The score is computed from the
hidden state of this token."""
_LOGIT_BIAS = 2.65
_DOCUMENT_PREFIX, _QUERY_PREFIX = "**Document**:\n", "\n**Query**:\n"
Pair: TypeAlias = "tuple[Input, Input]"


class ScoreOptions(TypedDict, total=False):
    """Keyword arguments of `RerankerM0.score`, as described in `RerankerM0.score_pairs`."""

    raw: bool
    max_length: int | None
    max_query_length: int
    max_doc_length: int | None
    max_pixels: int | None
    batch_tokens: int | None


class RerankerM0(CheckpointModel):
    """Reranker for texts, images and pages; implements `jina_rag.protocols.Reranker`.

    Thread-safe; forward passes run one at a time.
    """

    modality: Literal["text", "image"] = "image"

    def __init__(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        *,
        max_pixels: int | None = None,
        max_length: int | None = None,
        opening: Opening | None = None,
        prefix_cache: PrefixCache | None = PrefixCache(),  # noqa: B008  # immutable
        allow_unexpected: bool = False,
    ) -> None:
        """Load the weights.

        Args:
            checkpoint: Checkpoint folder.
            placement: Device and dtype.
            max_pixels: Size in pixels (width times height) to which larger images are scaled down; None for the
                published 602,112 (768 tokens).
            max_length: Maximum total length of query and document in tokens; None for 10,240, at most 32,768.
            opening: Limits for opening images; None for the defaults.
            prefix_cache: Limits of the cache of scored documents; None disables the cache. When a cached document
                is scored for another query, only the tokens of the query are computed.
            allow_unexpected: Whether to ignore unused tensors in the checkpoint.

        Raises:
            CheckpointError: If the weights do not match the architecture.
            InvalidInputError: If `max_pixels` or `max_length` is out of range.
        """
        config = checkpoint.config
        hidden = int((config.get("text_config") or config)["hidden_size"])
        with torch.device("meta"):
            score = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        super().__init__(checkpoint, placement)
        self._opening = opening or Opening()
        self._max_length = length_limit(max_length, MAX_LENGTH, minimum=2, maximum=LENGTH_LIMIT)
        self._model = QwenVL(
            checkpoint,
            kind="qwen2_vl",
            heads={"score": score},
            placement=placement,
            patcher=ImagePatcher(checkpoint, max_pixels=max_pixels, fixed_limits=True),
            allow_unexpected=allow_unexpected,
        )
        self._scorer = PairScorer(self._model, self._model.module.score, prefix_cache, name=checkpoint.name)

    @property
    def fingerprint(self) -> str:
        """Identifier of the scores: hub id and commit (or family), hash of the weights, and pixel limit."""
        return self._checkpoint.fingerprint(f"{self._model.patcher.max_pixels}px")

    @property
    def prefix_cache(self) -> PrefixTiers | None:
        """Cache of scored documents; None if disabled. `use` returns statistics, and `clear` drops all entries."""
        return self._scorer.prefixes

    def score(self, query: Input, documents: Sequence[Input], **options: Unpack[ScoreOptions]) -> Float32:
        """Score documents for one query.

        Args:
            query: A text, an image or a page.
            documents: Texts, images and pages in one list.
            options: See `score_pairs`.

        Returns:
            Shape (len(documents),), float32, from 0 to 1 unless `raw` is set; in the order of `documents`.
        """
        documents = as_input_list(documents, "documents")
        return self.score_pairs([(query, document) for document in documents], **options)

    def score_pairs(
        self,
        pairs: Sequence[Pair],
        *,
        raw: bool = False,
        max_length: int | None = None,
        max_query_length: int = MAX_QUERY_LENGTH,
        max_doc_length: int | None = None,
        max_pixels: int | None = None,
        batch_tokens: int | None = None,
    ) -> Float32:
        """Score (query, document) pairs.

        Args:
            pairs: Pairs of a query and a document.
            raw: Whether to return the raw, unbounded scores of the model instead of sigmoid(raw - 2.65).
            max_length: Maximum length of a pair in tokens; longer pairs are truncated at the end of the query, as
                published. None for the limit that the model was loaded with.
            max_query_length: Number of tokens reserved for the query.
            max_doc_length: Maximum length of a text document in tokens; the document is truncated before document
                and query are joined. None for `max_length` - `max_query_length`.
            max_pixels: Size in pixels (width times height) to which larger images are scaled down; None for the limit
                that the model was loaded with.
            batch_tokens: Token budget of one batch, padding included; None for the default of the device.

        Returns:
            Shape (len(pairs),), float32, from 0 to 1 unless `raw` is set; in the order of `pairs`.

        Raises:
            InvalidInputError: If a pair, an input or a length is invalid, or images do not fit into `max_length`.
            ModelError: If a score is NaN or infinite, or one pair does not fit into memory.
        """
        limit = length_limit(max_length, self._max_length, minimum=2, maximum=LENGTH_LIMIT)
        document_limit = _document_limit(limit, max_query_length, max_doc_length)
        if batch_tokens is not None:
            check_whole_number("batch_tokens", batch_tokens, minimum=1)
        pairs = as_input_pairs(pairs)
        prompt_pairs = self._scorer.pairs(
            *self._prompts(pairs, limit, document_limit, max_pixels), max_pixels=max_pixels
        )
        with self._model.weights.on_device():
            scores = np.array(self._scorer.scores(prompt_pairs, batch_tokens), np.float32)
        check_scores(scores, self.name, self.placement)
        return scores if raw else 1 / (1 + np.exp(np.float32(_LOGIT_BIAS) - scores))

    def explain(
        self,
        query: Input,
        document: Input,
        *,
        method: Method = "gradient",
        steps: int = STEPS,
        max_length: int | None = None,
        max_pixels: int | None = None,
    ) -> Attribution:
        """Attribute the score of a document to the image tokens of the document.

        Args:
            query: A text, an image or a page.
            document: An image, a page, or a list of parts with at least one image.
            method: ``"gradient"`` computes the contribution of each image token to the raw score, by integrated
                gradients that start from an image filled with the mean color. ``"attention"`` computes the attention of
                the score token to each image token, which is faster, but does not measure the effect on the score.
            steps: Number of integration steps of the gradient method, at least 1.
            max_length: Maximum length of the pair in tokens; see `score_pairs`.
            max_pixels: Maximum image size in pixels; see `score_pairs`.

        Raises:
            InvalidInputError: If the document has no image, or an argument is invalid.
            ModelError: If the result contains NaN or infinity, or the pair does not fit into memory.
        """
        limit = length_limit(max_length, self._max_length, minimum=2, maximum=LENGTH_LIMIT)
        document_limit = _document_limit(limit, MAX_QUERY_LENGTH, None)
        # Query and document are opened separately even if they are one object. Otherwise the patches would be shared,
        # and contributions of the query's image would be attributed to the document.
        query_segments, document_segments = self._segments(query, "The query"), self._segments(document, "The document")
        (prompt,), _ = self._join([(query_segments, document_segments)], limit, document_limit, max_pixels)
        images = sum(isinstance(part, LoadedImage) for part in document_segments)
        head: Any = self._model.module.score
        with self._model.weights.on_device(), self._model.lock:
            return attribute(self._model, head, prompt, images, method=method, steps=steps)

    def _prompts(
        self, pairs: Sequence[Pair], limit: int, document_limit: int, max_pixels: int | None
    ) -> tuple[list[Prompt], list[list[Segment]]]:
        """Read the query and the document of each pair, and return the prompts and document segments (see `_join`)."""
        # An item in several pairs is opened once. `id` is unique, because `pairs` keeps all items alive.
        segments_of: dict[int, list[Segment]] = {}
        for number, (query, document) in enumerate(pairs, start=1):
            for item, noun in ((document, "document"), (query, "query")):
                if id(item) not in segments_of:
                    segments_of[id(item)] = self._segments(item, f"The {noun} of pair {number}")
        return self._join(
            [(segments_of[id(a)], segments_of[id(b)]) for a, b in pairs], limit, document_limit, max_pixels
        )

    def _segments(self, item: Input, label: str) -> list[Segment]:
        return [
            segment
            for part in parts_of(item, self._opening, label)
            for segment in (self._model.image_segments(part) if isinstance(part, LoadedImage) else [part])
        ]

    def _join(
        self,
        pairs: Sequence[tuple[list[Segment], list[Segment]]],
        limit: int,
        document_limit: int,
        max_pixels: int | None,
    ) -> tuple[list[Prompt], list[list[Segment]]]:
        """Return the prompt of each pair and the segments before the query; pairs of one document share one list."""
        document_parts: dict[int, tuple[list[Segment], bool]] = {}
        for _, document in pairs:
            if id(document) not in document_parts:
                parts, is_truncated = self._truncate_document(document, document_limit)
                document_parts[id(document)] = [_DOCUMENT_PREFIX, *parts, _QUERY_PREFIX], is_truncated
        segments = [[*document_parts[id(document)][0], *query] for query, document in pairs]
        prompts, long_pairs = [], 0
        for number, prompt in enumerate(self._model.prompts(segments, max_pixels=max_pixels), start=1):
            long_pairs += len(prompt) > limit - 1
            prompts.append(self._append_score_token(prompt, limit, f"Pair {number} of {len(pairs)}"))
        long_documents = sum(document_parts[id(document)][1] for _, document in pairs)
        if long_documents:
            _log.warning(
                "Truncated %d of %d documents to %d tokens (max_doc_length).",
                long_documents,
                len(pairs),
                document_limit,
            )
        if long_pairs:
            _log.warning("Truncated %d of %d pairs to %d tokens (max_length).", long_pairs, len(pairs), limit)
        return prompts, [document_parts[id(document)][0] for _, document in pairs]

    def _truncate_document(self, document: list[Segment], limit: int) -> tuple[list[Segment], bool]:
        """Return a document and whether the document was truncated; texts are truncated to the first `limit` tokens."""
        if not all(isinstance(part, str) for part in document):
            return document, False
        text = "\n".join(str(part) for part in document)
        # A token has at least one byte, and normalization may lengthen a text. A text with fewer bytes than a quarter
        # of `limit` therefore needs no tokenization.
        if 4 * len(text.encode()) < limit:
            return [text], False
        ids = self._model.tokenizer.encode(text)
        if len(ids) < limit:
            return [text], False
        return [self._model.tokenizer.decode(ids[:limit])], len(ids) > limit

    def _append_score_token(self, prompt: Prompt, limit: int, label: str) -> Prompt:
        """Return the prompt, truncated to `limit` - 1 tokens, with the score token appended."""
        ids = prompt.ids[: limit - 1]
        for image in prompt.images:
            if image.start + image.tokens + 1 > len(ids):
                raise InvalidInputError(
                    f"{label} has {len(prompt) + 1} tokens, and the images do not fit into max_length={limit}. Lower "
                    "max_pixels or raise max_length."
                )
        return Prompt(np.append(ids, _SCORE_TOKEN), prompt.images)


def _document_limit(limit: int, query_limit: int, document_limit: int | None) -> int:
    if document_limit is None:
        document_limit = max(limit - query_limit, query_limit)
    if query_limit < 1 or document_limit < 1 or query_limit + document_limit > limit:
        raise InvalidInputError(
            f"max_doc_length is {document_limit} and max_query_length is {query_limit}; each must be at least 1, and "
            f"their sum at most max_length ({limit})."
        )
    return document_limit
