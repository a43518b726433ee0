"""Scoring of (query, document) pairs with reuse of cached document prefixes.

In the prompt of jina-reranker-m0, the document precedes the query. The keys and values of the document therefore do not
depend on the query. The first pair of a document is computed as a whole, and the keys and values of the document are
copied into the cache. For each further pair of the document, only the tokens of the query are computed.
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
from jina_rag.models.runtime.batching import BatchRunner, Reader
from jina_rag.models.runtime.cache_keys import DocumentKeys
from jina_rag.models.runtime.devices import DTYPES, HostCopy, no_autocast, to_device
from jina_rag.models.runtime.kv_cache import (
    CachedPrefix,
    DecoderFormat,
    KVCache,
    PrefixRecorder,
    PrefixReplay,
    PrefixTiers,
    create_prefix_cache,
)
from jina_rag.models.runtime.prefix_cache import PrefixCache

MIN_CACHED_TOKENS = 48
"""Minimum length of a cached text document in tokens, markup included. For short texts, the cache saves
little: the time of each further query is over half of the time of the first query for a text of 6 tokens, and a sixth
for a text of 32 tokens (measured on a medium-sized model with random weights)."""
_MAX_RECOMPUTED_TOKENS = 8
"""Maximum number of document tokens that a cached prefix may lack. The last tokens of a document can depend on the
query, so the missing tokens are recomputed for each query."""
_TOKEN_RATIO = 32
"""Number of cached tokens that cost as much as one computed token."""


@dataclass(frozen=True, slots=True)
class PromptPair:
    """Prompt, document and cache key of a (query, document) pair.

    Attributes:
        prompt: Whole prompt, ending with the score token.
        document: Beginning of the prompt, without the query; None if the document cannot be cached.
        key: Cache key of the document; empty if the document cannot be cached.
        shared_tokens: Number of leading tokens that `prompt` and `document` have in common.
    """

    prompt: Prompt
    document: Prompt | None = None
    key: bytes = b""
    shared_tokens: int = 0


class PairScorer:
    """Scores (query, document) pairs and caches the documents.

    Attributes:
        prefixes: Cache of document prefixes; None if disabled.
    """

    def __init__(self, model: QwenVL, head: Any, settings: PrefixCache | None, *, name: str) -> None:  # noqa: ANN401
        """Create a scorer with an empty cache. The weights of `model` must be on the device.

        The default limits of the cache are fractions of the memory that is free at this point.

        Args:
            model: Backbone of the reranker.
            head: Module that maps the hidden state of the last token of each prompt to a score.
            settings: Limits of the cache; None disables the cache.
            name: Name of the model, for messages.
        """
        self._model, self._head = model, head
        placement, config = model.placement, model.text_config
        heads = int(config.num_attention_heads)
        width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        self._format = DecoderFormat(heads, placement.dtype, placement.device)
        self._dtype = placement.dtype if settings is None or settings.dtype is None else DTYPES[settings.dtype]
        self._token_bytes = (
            int(config.num_hidden_layers) * 2 * int(config.num_key_value_heads) * width * self._dtype.itemsize
        )
        self._documents = DocumentKeys()
        self.prefixes: PrefixTiers | None = None
        if settings is not None and model.supports_prefix_cache:
            self.prefixes = create_prefix_cache(settings, placement.device)
            model.weights.on_offload = self.prefixes.move_to_host
        # Two runners, because out-of-memory errors with cached documents must not shrink batches of whole prompts.
        self._whole_runner: BatchRunner[Any, float] = BatchRunner(placement, name=name)
        # One batch ahead, because prepared batches keep evicted prefixes in memory.
        self._cached_runner: BatchRunner[Any, float | None] = BatchRunner(placement, name=name, ahead=1)

    def _free_memory(self) -> bool:
        """Offload idle models, offload (on the CPU, drop) cached prefixes, and return whether any memory was freed."""
        has_offloaded = self._model.offload_others()
        if self.prefixes is None:
            return has_offloaded
        on_cpu = self._format.device.type == "cpu"
        return (self.prefixes.clear() if on_cpu else self.prefixes.move_to_host()) or has_offloaded

    def pairs(
        self, prompts: Sequence[Prompt], documents: Sequence[Sequence[Segment]], *, max_pixels: int | None
    ) -> list[PromptPair]:
        """Return each pair with the cache key of the document and the number of shared tokens.

        A token may span the border between document and query. The shared tokens of a prompt and
        the separately tokenized document are therefore found by comparing token ids. The score token is never shared.

        Args:
            prompts: Prompt of each pair, ending with the score token.
            documents: Prompt segments before the query of each pair. Pairs of one document share one list object.
            max_pixels: Size in pixels to which larger images are scaled down; None for the model's limit.

        Raises:
            InvalidInputError: If an image file of a document can no longer be read.
        """
        by_id = {} if self.prefixes is None else {id(parts): parts for parts in documents if _may_be_cacheable(parts)}
        prompt_of = dict(zip(by_id, self._model.prompts(list(by_id.values()), max_pixels=max_pixels), strict=True))
        keys = {i: self._documents.key(document) for i, document in prompt_of.items() if _is_cacheable(document)}
        pairs = []
        for prompt, parts in zip(prompts, documents, strict=True):
            key, document, shared_tokens = keys.get(id(parts)), prompt_of.get(id(parts)), 0
            if document is not None:
                length = min(len(document), len(prompt) - 1)
                differences = np.flatnonzero(prompt.ids[:length] != document.ids[:length])
                shared_tokens = int(differences[0]) if len(differences) else length
            if key is None or document is None or (shared_tokens < MIN_CACHED_TOKENS and not document.images):
                pairs.append(PromptPair(prompt))
            else:
                pairs.append(PromptPair(prompt, document, key, shared_tokens))
        return pairs

    def scores(self, pairs: Sequence[PromptPair], batch_tokens: int | None = None) -> list[float]:
        """Return the raw scores in the order of the pairs. The weights must be on the device.

        Args:
            pairs: Pairs to score.
            batch_tokens: Token budget of one batch, padding included; None for the default of the device.

        Raises:
            ModelError: If a single pair does not fit into memory.
        """
        scores: dict[int, float] = {}
        remaining = list(range(len(pairs)))
        while remaining:
            # Pairs with cached documents are scored first, because new documents may evict cached documents.
            hits = [i for i in remaining if self._is_cached(pairs[i])]
            if hits:
                hit_scores = self._score_cached([pairs[i] for i in hits], batch_tokens)
                scores.update((i, score) for i, score in zip(hits, hit_scores, strict=True) if score is not None)
            ready, remaining = self._split_by_document([i for i in remaining if i not in scores], pairs)
            scores.update(zip(ready, self._score_whole([pairs[i] for i in ready], batch_tokens), strict=True))
        return [scores[i] for i in range(len(pairs))]

    def _is_cached(self, pair: PromptPair) -> bool:
        return self.prefixes is not None and pair.document is not None and _covers(self.prefixes.peek(pair.key), pair)

    def _split_by_document(self, indices: Sequence[int], pairs: Sequence[PromptPair]) -> tuple[list[int], list[int]]:
        """Return the indices of pairs to compute now as whole prompts, and the indices of pairs to compute later.

        A pair is computed later if an earlier pair of the same document is computed now. If pairs share documents, only
        as many documents are computed now as fit into the cache together. A document that is too large for the cache is
        recomputed for each query.
        """
        if self.prefixes is None:
            return list(indices), []
        keys = [self._key(pairs[index]) for index in indices]
        document_keys = [key for key in keys if key is not None]
        free_bytes = self.prefixes.capacity if len(set(document_keys)) < len(document_keys) else math.inf
        ready: list[int] = []
        deferred: list[int] = []
        ready_keys: set[bytes] = set()
        for index, key in zip(indices, keys, strict=True):
            size = pairs[index].shared_tokens * self._token_bytes
            if key is not None and (key in ready_keys or (ready_keys and size > free_bytes)):
                deferred.append(index)
                continue
            if key is not None:
                ready_keys.add(key)
                free_bytes -= size
            ready.append(index)
        return ready, deferred

    def _key(self, pair: PromptPair) -> bytes | None:
        """Return the cache key of a pair's document, or None if the document cannot be cached."""
        assert self.prefixes is not None
        fits = pair.document is not None and self.prefixes.accepts(pair.shared_tokens * self._token_bytes)
        return pair.key if fits else None

    def _score_whole(self, pairs: Sequence[PromptPair], batch_tokens: int | None) -> list[float]:
        """Return the scores of whole prompts, and cache the documents."""
        prefixes = self.prefixes

        def prepare(indices: Sequence[int]) -> tuple[Batch, list[PromptPair], list[int]]:
            rows = [pairs[index] for index in indices]
            batch = self._model.prepare([pair.prompt for pair in rows])
            return batch, rows, [self._cacheable_tokens(pair) for pair in rows]

        def launch(prepared: tuple[Batch, list[PromptPair], list[int]]) -> Reader[float]:
            batch, rows, tokens = prepared
            recorder = PrefixRecorder() if any(tokens) else None
            read_scores = self._launch(batch, recorder)
            if prefixes is None or recorder is None:
                return read_scores
            with torch.inference_mode():
                row_prefixes = recorder.prefixes(tokens, self._dtype)
            misses = 0
            for pair, prefix in zip(rows, row_prefixes, strict=True):
                if prefix is not None:
                    prefixes.put(pair.key, prefix)
                    misses += 1

            def read() -> Sequence[float]:
                scores = read_scores()
                prefixes.count(misses=misses)
                return scores

            return read

        lengths = [len(pair.prompt) for pair in pairs]
        return self._whole_runner.run(lengths, prepare, launch, batch_tokens=batch_tokens, on_oom=self._free_memory)

    def _cacheable_tokens(self, pair: PromptPair) -> int:
        """Return the number of tokens to cache; 0 if the document is not cacheable or changed after `pairs` read it."""
        if self.prefixes is None or pair.document is None or self._key(pair) is None:
            return 0
        return pair.shared_tokens if self._documents.is_unchanged(pair.key, pair.document) else 0

    def _score_cached(self, pairs: Sequence[PromptPair], batch_tokens: int | None) -> list[float | None]:
        """Return the scores of pairs with cached documents; None for a pair whose document was evicted meanwhile."""
        prefixes = self.prefixes
        assert prefixes is not None
        is_device_full = False

        def on_oom() -> bool:
            nonlocal is_device_full
            is_device_full = True  # leave entries in host memory from now on
            return self._free_memory()

        def prepare(indices: Sequence[int]) -> _CachedBatch:
            batch = _CachedBatch(len(indices))
            for row, index in enumerate(indices):
                pair = pairs[index]
                prefix = prefixes.get(pair.key, promote=not is_device_full)
                if prefix is not None and _covers(prefix, pair):
                    batch.rows.append(row)
                    batch.prompts.append(pair.prompt)
                    batch.prefixes.append(prefix)
                    batch.tokens.append(min(prefix.tokens, pair.shared_tokens))
            if batch.rows:
                batch.inputs = self._model.prepare(batch.prompts, batch.tokens)
            return batch

        def launch(batch: _CachedBatch) -> Reader[float | None]:
            size, rows = batch.size, batch.rows
            if batch.inputs is None:
                return lambda: [None] * size
            with torch.inference_mode():
                replay = PrefixReplay(batch.prefixes, batch.tokens, batch.inputs.ids.shape[1], self._format)
            read_rows = self._launch(batch.inputs, replay)

            def read() -> list[float | None]:
                scores: list[float | None] = [None] * size
                for row, score in zip(rows, read_rows(), strict=True):
                    scores[row] = score
                prefixes.count(hits=len(rows))
                return scores

            return read

        costs = [len(pair.prompt) - pair.shared_tokens + pair.shared_tokens // _TOKEN_RATIO for pair in pairs]
        sizes = [len(pair.prompt) for pair in pairs]
        return self._cached_runner.run(costs, prepare, launch, batch_tokens=batch_tokens, on_oom=on_oom, sizes=sizes)

    def _launch(self, batch: Batch, kv_cache: KVCache | None) -> Reader[float]:
        """Submit a batch to the device, and return the function that waits for the raw scores and returns them."""
        with self._model.lock, torch.inference_mode(), no_autocast(self._format.device):
            hidden = self._model.hidden(batch, kv_cache)
            row = torch.arange(len(batch.lengths), device=hidden.device)
            last = to_device(np.array(batch.lengths, dtype=np.int64) - 1, hidden.device)
            copy = HostCopy(self._head(hidden[row, last])[:, 0].float())
        return lambda: copy.read()[0].tolist()


@dataclass(slots=True)
class _CachedBatch:
    """A batch of `size` pairs, with the row, prompt and cached prefix of each pair whose document is still cached."""

    size: int
    rows: list[int] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    prefixes: list[CachedPrefix] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    inputs: Batch | None = None


def _covers(prefix: CachedPrefix | None, pair: PromptPair) -> bool:
    return prefix is not None and prefix.tokens >= pair.shared_tokens - _MAX_RECOMPUTED_TOKENS


def _is_cacheable(document: Prompt) -> bool:
    return bool(document.images) or len(document) >= MIN_CACHED_TOKENS


def _may_be_cacheable(parts: Sequence[Segment]) -> bool:
    """Return False if a document has fewer bytes, hence fewer tokens, than a cached document needs."""
    length = sum(len(part.encode()) for part in parts if isinstance(part, str))
    return length >= MIN_CACHED_TOKENS or any(isinstance(part, LoadedImage) for part in parts)
