"""jina-reranker-m0: how well a document answers a question, either of them a text or an image, read together.

Source: model card and published code of jina-reranker-m0. On purpose different: lists that mix texts and images are
taken in one call (the published call has one kind for each side), EXIF orientation is applied to every image, special
tokens in a text are text, and raw scores can be had.
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
LONGEST = 32_768
MAX_QUERY_LENGTH = 512
_SCORE_TOKEN = 100
"""An ordinary piece of the vocabulary that the published code puts last; the score is read there."""
_LOGIT_BIAS = 2.65
_BEFORE, _BETWEEN = "**Document**:\n", "\n**Query**:\n"
Pair: TypeAlias = "tuple[Input, Input]"


class ScoreOptions(TypedDict, total=False):
    """The options of `RerankerM0.score_pairs`."""

    raw: bool
    max_length: int | None
    max_query_length: int
    max_doc_length: int | None
    max_pixels: int | None
    batch_tokens: int | None


class RerankerM0(CheckpointModel):
    """Implements `jina_rag.protocols.Reranker`. Safe to share between threads; forward passes take turns."""

    modality: Literal["text", "image"] = "image"

    def __init__(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        *,
        max_pixels: int | None = None,
        max_length: int | None = None,
        opening: Opening | None = None,
        prefix_cache: PrefixCache | None = PrefixCache(),  # noqa: B008  # it never changes
        allow_unexpected: bool = False,
    ) -> None:
        """Load the weights.

        Args:
            checkpoint: The folder.
            placement: Device and dtype.
            max_pixels: What images are scaled down to; None for the published 602,112 (768 tokens).
            max_length: Tokens of question and document together; None for 10,240, at most 32,768.
            opening: Limits on images.
            prefix_cache: How much is kept of documents that were read, so that further questions about them cost
                their own tokens only; None for nothing.
            allow_unexpected: Whether keys that nothing uses are let pass.

        Raises:
            CheckpointError: If the weights do not fit.
        """
        config = checkpoint.config
        hidden = int((config.get("text_config") or config)["hidden_size"])
        with torch.device("meta"):
            score = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        super().__init__(checkpoint, placement)
        self._opening = opening or Opening()
        self._max_length = length_limit(max_length, MAX_LENGTH, minimum=2, maximum=LONGEST)
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
        """Name, commit, hash of the weights, resolution."""
        return self._checkpoint.fingerprint(f"{self._model.patcher.max_pixels}px")

    @property
    def prefix_cache(self) -> PrefixTiers | None:
        """What is kept of documents: how much, how often it helped, and `clear`; None if nothing is kept."""
        return self._scorer.prefixes

    def score(self, query: Input, documents: Sequence[Input], **options: Unpack[ScoreOptions]) -> Float32:
        """Score documents for one question.

        Args:
            query: A text, an image or a page.
            documents: Texts, images and pages in one list.
            options: See `score_pairs`.

        Returns:
            Shape (len(documents),) float32 in [0, 1], in the order of `documents`.
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
        """Score pairs of any questions and documents.

        Args:
            pairs: (question, document).
            raw: Give the model's own scores, unbounded, rather than sigmoid(raw - 2.65).
            max_length: Tokens of a pair; what is more is cut from the end of the question, as published.
            max_query_length: Tokens kept free for the question.
            max_doc_length: Tokens of a text document, cut before the pair is put together; None for
                `max_length` - `max_query_length`.
            max_pixels: What images are scaled down to in this call.
            batch_tokens: Tokens that go through the model at once.

        Returns:
            Shape (len(pairs),) float32, in their order.

        Raises:
            InvalidInputError: If a pair, an input or a length makes no sense, or images do not fit into `max_length`.
            ModelError: If a score is not a number, or one pair does not fit into memory.
        """
        limit = length_limit(max_length, self._max_length, minimum=2, maximum=LONGEST)
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
        """Which part of a document's images carried its score.

        Args:
            query: A text, an image or a page.
            document: An image, a page, or parts with an image among them.
            method: ``"gradient"``: what each place adds to the raw score, by integrated gradients from an image of
                one colour. ``"attention"``: how much of the score token's attention rests on it; cheaper, less exact.
            steps: Passes of the gradient.
            max_length: See `score_pairs`.
            max_pixels: See `score_pairs`.

        Raises:
            InvalidInputError: If the document has no image, or an argument makes no sense.
            ModelError: If the result is not a number, or the pair does not fit into memory.
        """
        limit = length_limit(max_length, self._max_length, minimum=2, maximum=LONGEST)
        document_limit = _document_limit(limit, MAX_QUERY_LENGTH, None)
        # Opened apart, also where both are one object: what the question's image adds is not the document's.
        query_segments, document_segments = self._segments(query), self._segments(document)
        (prompt,), _ = self._join([(query_segments, document_segments)], limit, document_limit, max_pixels)
        images = sum(isinstance(part, LoadedImage) for part in document_segments)
        head: Any = self._model.module.score
        with self._model.weights.on_device(), self._model.lock:
            return attribute(self._model, head, prompt, images, method=method, steps=steps)

    def _prompts(
        self, pairs: Sequence[Pair], limit: int, document_limit: int, max_pixels: int | None
    ) -> tuple[list[Prompt], list[list[Segment]]]:
        """See `_join`. `pairs` keeps its items alive, so that an id stands for one item."""
        segments_of: dict[int, list[Segment]] = {}  # a question is asked of many documents: one picture, not many
        for item in (item for pair in pairs for item in reversed(pair)):
            if id(item) not in segments_of:
                segments_of[id(item)] = self._segments(item)
        return self._join(
            [(segments_of[id(a)], segments_of[id(b)]) for a, b in pairs], limit, document_limit, max_pixels
        )

    def _segments(self, item: Input) -> list[Segment]:
        return [
            segment
            for part in parts_of(item, self._opening)
            for segment in (self._model.image_segments(part) if isinstance(part, LoadedImage) else [part])
        ]

    def _join(
        self,
        pairs: Sequence[tuple[list[Segment], list[Segment]]],
        limit: int,
        document_limit: int,
        max_pixels: int | None,
    ) -> tuple[list[Prompt], list[list[Segment]]]:
        """The prompts of pairs, and of each the part before the question; pairs of one document share it."""
        beginnings: dict[int, tuple[list[Segment], bool]] = {}
        for _, document in pairs:
            if id(document) not in beginnings:
                shortened, was_cut = self._shorten(document, document_limit)
                beginnings[id(document)] = [_BEFORE, *shortened, _BETWEEN], was_cut
        segments = [[*beginnings[id(document)][0], *query] for query, document in pairs]
        prompts, cut_pairs = [], 0
        for number, prompt in enumerate(self._model.prompts(segments, max_pixels=max_pixels), start=1):
            cut_pairs += len(prompt) > limit - 1
            prompts.append(self._close(prompt, limit, f"Pair {number} of {len(pairs)}"))
        cut_documents = sum(beginnings[id(document)][1] for _, document in pairs)
        if cut_documents:
            _log.warning(
                "%d of %d documents were cut to %d tokens (max_doc_length).", cut_documents, len(pairs), document_limit
            )
        if cut_pairs:
            _log.warning("%d of %d pairs were cut to %d tokens (max_length).", cut_pairs, len(pairs), limit)
        return prompts, [beginnings[id(document)][0] for _, document in pairs]

    def _shorten(self, document: list[Segment], limit: int) -> tuple[list[Segment], bool]:
        """A text document within its budget, cut and decoded as published; others as they are."""
        if not all(isinstance(part, str) for part in document):
            return document, False
        text = "\n".join(str(part) for part in document)
        if 4 * len(text.encode()) < limit:  # no token is shorter than a byte; normalising may lengthen a text
            return [text], False
        ids = self._model.tokenizer.encode(text)
        if len(ids) < limit:
            return [text], False
        return [self._model.tokenizer.decode(ids[:limit])], len(ids) > limit

    def _close(self, prompt: Prompt, limit: int, what: str) -> Prompt:
        """The prompt within `limit`, with the score token at its end."""
        ids = prompt.ids[: limit - 1]
        for image in prompt.images:
            if image.start + image.tokens + 1 > len(ids):
                raise InvalidInputError(
                    f"{what} has {len(prompt) + 1} tokens, and its images do not fit into max_length={limit}: lower "
                    "max_pixels or raise max_length."
                )
        return Prompt(np.append(ids, _SCORE_TOKEN), prompt.images)


def _document_limit(limit: int, query_limit: int, document_limit: int | None) -> int:
    if document_limit is None:
        document_limit = max(limit - query_limit, query_limit)
    if query_limit < 1 or document_limit < 1 or query_limit + document_limit > limit:
        raise InvalidInputError(
            f"max_doc_length ({document_limit}) and max_query_length ({query_limit}) must be at least 1, and together "
            f"at most max_length ({limit})."
        )
    return document_limit
