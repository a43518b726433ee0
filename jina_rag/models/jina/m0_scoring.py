"""Scores of prompts that begin with a document: what was kept of the document is not computed again.

In the prompt of jina-reranker-m0 the document comes first, so nothing of it depends on the question. The first pair of
a document runs as a whole, as it would without a memory, and the keys and values of the document are copied out on the
way; all other pairs cost the question's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from jina_rag.images import LoadedImage
from jina_rag.models.jina.qwen_vl import Batch, QwenVL
from jina_rag.models.jina.vl_prompts import Prompt, Segment
from jina_rag.models.runtime.batching import BatchRunner
from jina_rag.models.runtime.cache_keys import DocumentKeys
from jina_rag.models.runtime.devices import DTYPES, own_precision
from jina_rag.models.runtime.kv_cache import (
    CachedPrefix,
    DecoderFormat,
    LayerKeys,
    PrefixRecorder,
    PrefixReplay,
    PrefixTiers,
    make_tiers,
)
from jina_rag.models.runtime.prefix_cache import PrefixCache

SHORTEST = 48
"""Tokens of a text document, with its markup, from which it is kept. Measured on a random model of middle size: further
questions about texts of 32 tokens cost a sixth, about texts of 6 tokens more than half."""
_SLACK = 8
"""Tokens that may be computed again rather than the whole document: where it meets the question, pieces may differ."""
_PER_TOKEN = 32
"""Known tokens that cost as much as one that goes through the model."""


@dataclass(frozen=True, slots=True)
class PromptPair:
    """A pair.

    Attributes:
        prompt: With the score token at its end.
        document: The prompt without its question; None if nothing of it is to be kept.
        key: Of the document.
        shared_tokens: Tokens at the beginning of `prompt` that are those of `document`.
    """

    prompt: Prompt
    document: Prompt | None = None
    key: bytes = b""
    shared_tokens: int = 0


class PairScorer:
    """Runs pairs through a model.

    Attributes:
        prefixes: What is kept of their documents; None for nothing.
    """

    def __init__(self, model: QwenVL, head: Any, settings: PrefixCache | None, *, name: str) -> None:  # noqa: ANN401
        """Nothing kept yet. Call it when the weights are on their device: shares are those of what is free then.

        Args:
            model: The backbone.
            head: A module, from the hidden states of last tokens to scores.
            settings: How much is kept; None for nothing.
            name: Of the model, for messages.
        """
        self._model, self._head = model, head
        place, config = model.placement, model.text_config
        heads = int(config.num_attention_heads)
        width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        self._format = DecoderFormat(heads, place.dtype, place.device)
        self._dtype = place.dtype if settings is None or settings.dtype is None else DTYPES[settings.dtype]
        self._token_bytes = (
            int(config.num_hidden_layers) * 2 * int(config.num_key_value_heads) * width * self._dtype.itemsize
        )
        self._documents = DocumentKeys()
        self.prefixes: PrefixTiers | None = None
        if settings is not None and model.keeps_keys:
            self.prefixes = make_tiers(settings, place.device)
            model.weights.on_offload = self.prefixes.leave_device
        # A budget each: what a batch of questions takes beside kept documents says nothing of whole prompts.
        self._reader: BatchRunner[Any, float] = BatchRunner(place, name=name)
        self._follower: BatchRunner[Any, float | None] = BatchRunner(place, name=name)

    def _relieve(self) -> bool:
        """Free the device's memory of idle models and of what is kept there; whether there was anything."""
        has_offloaded = self._model.offload_others()
        if self.prefixes is None:
            return has_offloaded
        on_cpu = self._format.device.type == "cpu"
        return (self.prefixes.clear() if on_cpu else self.prefixes.leave_device()) or has_offloaded

    def pairs(
        self, prompts: Sequence[Prompt], documents: Sequence[Sequence[Segment]], *, max_pixels: int | None
    ) -> list[PromptPair]:
        """Look up what pairs share.

        Pieces may reach over the border between document and question, so where the tokens of a prompt and of its
        document part is looked up, not assumed. The score token is never shared.

        Args:
            prompts: Of each pair, with the score token at its end.
            documents: Of each pair, what the prompt begins with. Pairs of one document share one list.
            max_pixels: What pictures are scaled down to.

        Raises:
            InvalidInputError: If a file of a document cannot be read any more.
        """
        lists = {} if self.prefixes is None else {id(parts): parts for parts in documents if _may_be_kept(parts)}
        alone = dict(zip(lists, self._model.prompts(list(lists.values()), max_pixels=max_pixels), strict=True))
        keys = {place: self._documents.key(document) for place, document in alone.items() if _is_kept(document)}
        pairs = []
        for prompt, parts in zip(prompts, documents, strict=True):
            key, document, shared_tokens = keys.get(id(parts)), alone.get(id(parts)), 0
            if document is not None:
                length = min(len(document), len(prompt) - 1)
                differences = np.flatnonzero(prompt.ids[:length] != document.ids[:length])
                shared_tokens = int(differences[0]) if len(differences) else length
            if key is None or document is None or (shared_tokens < SHORTEST and not document.images):
                pairs.append(PromptPair(prompt))
            else:
                pairs.append(PromptPair(prompt, document, key, shared_tokens))
        return pairs

    def scores(self, pairs: Sequence[PromptPair], batch_tokens: int | None = None) -> list[float]:
        """Raw scores in the order of the pairs; call it while the weights are on their device.

        Raises:
            ModelError: If a single pair does not fit into memory.
        """
        scores: dict[int, float] = {}
        remaining = list(range(len(pairs)))
        while remaining:
            # Those first: what is read now may push their documents out.
            cached = [i for i in remaining if self._is_cached(pairs[i])]
            if cached:
                followed = self._follow([pairs[i] for i in cached], batch_tokens)
                scores.update((i, score) for i, score in zip(cached, followed, strict=True) if score is not None)
            whole, remaining = self._first_of_each([i for i in remaining if i not in scores], pairs)
            scores.update(zip(whole, self._read([pairs[i] for i in whole], batch_tokens), strict=True))
        return [scores[i] for i in range(len(pairs))]

    def _is_cached(self, pair: PromptPair) -> bool:
        return self.prefixes is not None and pair.document is not None and _serves(self.prefixes.peek(pair.key), pair)

    def _first_of_each(self, indices: Sequence[int], pairs: Sequence[PromptPair]) -> tuple[list[int], list[int]]:
        """Pairs to run as a whole now, and those that wait until their document is known.

        No more documents are begun than can be kept at once, if others wait for them. A document that cannot be kept
        is read with each of its questions.
        """
        if self.prefixes is None:
            return list(indices), []
        keys = [self._key(pairs[index]) for index in indices]
        document_keys = [key for key in keys if key is not None]
        room = self.prefixes.capacity if len(set(document_keys)) < len(document_keys) else math.inf
        now: list[int] = []
        later: list[int] = []
        keys_now: set[bytes] = set()
        for index, key in zip(indices, keys, strict=True):
            size = pairs[index].shared_tokens * self._token_bytes
            if key is not None and (key in keys_now or (keys_now and size > room)):
                later.append(index)
                continue
            if key is not None:
                keys_now.add(key)
                room -= size
            now.append(index)
        return now, later

    def _key(self, pair: PromptPair) -> bytes | None:
        """The key of a pair's document, None if it cannot be kept."""
        assert self.prefixes is not None
        fits = pair.document is not None and self.prefixes.takes(pair.shared_tokens * self._token_bytes)
        return pair.key if fits else None

    def _read(self, pairs: Sequence[PromptPair], batch_tokens: int | None) -> list[float]:
        """Score pairs as a whole, and keep their documents."""
        prefixes = self.prefixes

        def prepare(places: Sequence[int]) -> tuple[Batch, list[PromptPair], list[int]]:
            rows = [pairs[place] for place in places]
            batch = self._model.prepare([pair.prompt for pair in rows])
            return batch, rows, [self._kept_tokens(pair) for pair in rows]

        def compute(prepared: tuple[Batch, list[PromptPair], list[int]]) -> list[float]:
            batch, rows, tokens = prepared
            recorder = PrefixRecorder() if any(tokens) else None
            scores = self._forward(batch, recorder)
            if prefixes is not None and recorder is not None:
                with torch.inference_mode():
                    row_prefixes = recorder.prefixes(tokens, self._dtype)
                for pair, prefix in zip(rows, row_prefixes, strict=True):
                    if prefix is not None:
                        prefixes.put(pair.key, prefix)
                        prefixes.count(misses=1)
            return scores

        lengths = [len(pair.prompt) for pair in pairs]
        return self._reader.run(lengths, prepare, compute, batch_tokens=batch_tokens, relieve=self._relieve)

    def _kept_tokens(self, pair: PromptPair) -> int:
        """How many tokens of a pair are kept, now that its pictures are decoded: none if a file changed meanwhile."""
        if self.prefixes is None or pair.document is None or self._key(pair) is None:
            return 0
        return pair.shared_tokens if self._documents.still(pair.key, pair.document) else 0

    def _follow(self, pairs: Sequence[PromptPair], batch_tokens: int | None) -> list[float | None]:
        """Score pairs by what is kept of their documents; None for those whose document has left meanwhile."""
        prefixes = self.prefixes
        assert prefixes is not None
        is_crowded = False

        def relieve() -> bool:
            nonlocal is_crowded
            is_crowded = True  # from now on documents are read from where they are
            return self._relieve()

        def prepare(places: Sequence[int]) -> _CachedBatch:
            batch = _CachedBatch(len(places))
            for row, place in enumerate(places):
                pair = pairs[place]
                prefix = prefixes.get(pair.key, bring=not is_crowded)
                if prefix is not None and _serves(prefix, pair):
                    batch.rows.append(row)
                    batch.prompts.append(pair.prompt)
                    batch.prefixes.append(prefix)
                    batch.tokens.append(min(prefix.tokens, pair.shared_tokens))
            if batch.rows:
                batch.inputs = self._model.prepare(batch.prompts, batch.tokens)
            return batch

        def compute(batch: _CachedBatch) -> list[float | None]:
            scores: list[float | None] = [None] * batch.size
            if batch.inputs is not None:
                with torch.inference_mode():
                    keys = PrefixReplay(batch.prefixes, batch.tokens, batch.inputs.ids.shape[1], self._format)
                for row, score in zip(batch.rows, self._forward(batch.inputs, keys), strict=True):
                    scores[row] = score
                prefixes.count(hits=len(batch.rows))
            return scores

        costs = [len(pair.prompt) - pair.shared_tokens + pair.shared_tokens // _PER_TOKEN for pair in pairs]
        sizes = [len(pair.prompt) for pair in pairs]
        return self._follower.run(costs, prepare, compute, batch_tokens=batch_tokens, relieve=relieve, sizes=sizes)

    def _forward(self, batch: Batch, keys: LayerKeys | None) -> list[float]:
        with self._model.lock, torch.inference_mode(), own_precision(self._format.device):
            hidden = self._model.hidden(batch, keys)
            last = torch.tensor(batch.lengths, device=hidden.device) - 1
            scores: list[float] = self._head(hidden[torch.arange(len(last), device=hidden.device), last])[:, 0].tolist()
            return scores


@dataclass(slots=True)
class _CachedBatch:
    """A batch of pairs. Of those whose documents are kept: row, prompt, prefix, and how much of it is used."""

    size: int
    rows: list[int] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    prefixes: list[CachedPrefix] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    inputs: Batch | None = None


def _serves(prefix: CachedPrefix | None, pair: PromptPair) -> bool:
    return prefix is not None and prefix.tokens >= pair.shared_tokens - _SLACK


def _is_kept(document: Prompt) -> bool:
    return bool(document.images) or len(document) >= SHORTEST


def _may_be_kept(parts: Sequence[Segment]) -> bool:
    """Before a text is tokenised: no token is shorter than a byte."""
    length = sum(len(part.encode()) for part in parts if isinstance(part, str))
    return length >= SHORTEST or any(isinstance(part, LoadedImage) for part in parts)
