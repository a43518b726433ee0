"""Scores of prompts that begin with a document: what was kept of the document is not computed again.

In the prompt of jina-reranker-m0 the document comes first, so nothing of it depends on the question. The first pair of
a document runs as a whole, as it would without a memory, and the keys and values of the document are copied out on the
way; all other pairs cost the question's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jina_rag.images import LoadedImage
from jina_rag.models.jina.qwen_vl import Batch, QwenVL
from jina_rag.models.jina.vl_prompts import Prompt, Segment
from jina_rag.models.runtime.batching import BatchRunner
from jina_rag.models.runtime.cache_keys import DocumentKeys
from jina_rag.models.runtime.devices import DTYPES, own_precision
from jina_rag.models.runtime.kv_cache import Following, Keeping, Kept, Keys, Like, PrefixMemory, memory_for
from jina_rag.models.runtime.prefix_cache import PrefixCache

SHORTEST = 48
"""Tokens of a text document, with its markup, from which it is kept. Measured on a random model of middle size: further
questions about texts of 32 tokens cost a sixth, about texts of 6 tokens more than half."""
_SLACK = 8
"""Tokens that may be computed again rather than the whole document: where it meets the question, pieces may differ."""
_PER_TOKEN = 32
"""Known tokens that cost as much as one that goes through the model."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A pair.

    Attributes:
        prompt: With the score token at its end.
        document: The prompt without its question; None if nothing of it is to be kept.
        key: Of the document.
        shared: Tokens at the beginning of `prompt` that are those of `document`.
    """

    prompt: Prompt
    document: Prompt | None = None
    key: bytes = b""
    shared: int = 0


class PairScorer:
    """Runs pairs through a model.

    Attributes:
        memory: What is kept of their documents; None for nothing.
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
        self._like = Like(heads, place.dtype, place.device)
        self._dtype = place.dtype if settings is None or settings.dtype is None else DTYPES[settings.dtype]
        self._token_bytes = (
            int(config.num_hidden_layers) * 2 * int(config.num_key_value_heads) * width * self._dtype.itemsize
        )
        self._documents = DocumentKeys()
        self.memory: PrefixMemory | None = None
        if settings is not None and model.keeps_keys:
            self.memory = memory_for(settings, place.device)
            model.weights.on_offload = self.memory.leave_device
        # A budget each: what a batch of questions takes beside known documents says nothing of whole prompts.
        self._reader: BatchRunner[Any, float] = BatchRunner(place.device, place.batch_tokens, name=name)
        self._follower: BatchRunner[Any, float | None] = BatchRunner(place.device, place.batch_tokens, name=name)

    def _relieve(self) -> bool:
        """Free the device's memory of idle models and of what is kept there; whether there was anything."""
        relieved = self._model.offload_others()
        if self.memory is None:
            return relieved
        return (self.memory.clear() if self._like.device.type == "cpu" else self.memory.leave_device()) or relieved

    def pairs(
        self, prompts: Sequence[Prompt], documents: Sequence[Sequence[Segment]], *, max_pixels: int | None
    ) -> list[Asked]:
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
        kept = {} if self.memory is None else {id(parts): parts for parts in documents if _may_be_kept(parts)}
        alone = dict(zip(kept, self._model.prompts(list(kept.values()), max_pixels=max_pixels), strict=True))
        keys = {place: self._documents.key(document) for place, document in alone.items() if _is_kept(document)}
        asked = []
        for prompt, parts in zip(prompts, documents, strict=True):
            key, document, shared = keys.get(id(parts)), alone.get(id(parts)), 0
            if document is not None:
                length = min(len(document), len(prompt) - 1)
                differ = np.flatnonzero(prompt.ids[:length] != document.ids[:length])
                shared = int(differ[0]) if len(differ) else length
            if key is None or document is None or (shared < SHORTEST and not document.images):
                asked.append(Asked(prompt))
            else:
                asked.append(Asked(prompt, document, key, shared))
        return asked

    def scores(self, asked: Sequence[Asked], batch_tokens: int | None = None) -> list[float]:
        """Raw scores in the order of the pairs; call it while the weights are on their device.

        Raises:
            ModelError: If a single pair does not fit into memory.
        """
        found: dict[int, float] = {}
        waiting = list(range(len(asked)))
        while waiting:
            # Those first: what is read now may push their documents out.
            known = [i for i in waiting if self._is_known(asked[i])]
            if known:
                scores = self._follow([asked[i] for i in known], batch_tokens)
                found.update((i, score) for i, score in zip(known, scores, strict=True) if score is not None)
            whole, waiting = self._first_of_each([i for i in waiting if i not in found], asked)
            found.update(zip(whole, self._read([asked[i] for i in whole], batch_tokens), strict=True))
        return [found[i] for i in range(len(asked))]

    def _is_known(self, pair: Asked) -> bool:
        return self.memory is not None and pair.document is not None and _serves(self.memory.peek(pair.key), pair)

    def _first_of_each(self, indices: Sequence[int], asked: Sequence[Asked]) -> tuple[list[int], list[int]]:
        """Pairs to run as a whole now, and those that wait until their document is known.

        No more documents are begun than can be kept at once, if others wait for them. A document that cannot be kept
        is read with each of its questions.
        """
        if self.memory is None:
            return list(indices), []
        keys = [self._key(asked[index]) for index in indices]
        known = [key for key in keys if key is not None]
        room = self.memory.capacity if len(set(known)) < len(known) else math.inf
        now: list[int] = []
        later: list[int] = []
        begun: set[bytes] = set()
        for index, key in zip(indices, keys, strict=True):
            size = asked[index].shared * self._token_bytes
            if key is not None and (key in begun or (begun and size > room)):
                later.append(index)
                continue
            if key is not None:
                begun.add(key)
                room -= size
            now.append(index)
        return now, later

    def _key(self, pair: Asked) -> bytes | None:
        """The key of a pair's document, None if it cannot be kept."""
        assert self.memory is not None
        fits = pair.document is not None and self.memory.takes(pair.shared * self._token_bytes)
        return pair.key if fits else None

    def _read(self, pairs: Sequence[Asked], batch_tokens: int | None) -> list[float]:
        """Score pairs as a whole, and keep their documents."""
        memory = self.memory

        def prepare(places: Sequence[int]) -> tuple[Batch, list[Asked], list[int]]:
            chosen = [pairs[place] for place in places]
            batch = self._model.prepare([pair.prompt for pair in chosen])
            return batch, chosen, [self._kept_tokens(pair) for pair in chosen]

        def compute(prepared: tuple[Batch, list[Asked], list[int]]) -> list[float]:
            batch, chosen, tokens = prepared
            keeping = Keeping() if any(tokens) else None
            scores = self._forward(batch, keeping)
            if memory is not None and keeping is not None:
                with torch.inference_mode():
                    rows = keeping.kept(tokens, self._dtype)
                for pair, kept in zip(chosen, rows, strict=True):
                    if kept is not None:
                        memory.put(pair.key, kept)
                        memory.count(misses=1)
            return scores

        lengths = [len(pair.prompt) for pair in pairs]
        return self._reader.run(lengths, prepare, compute, batch_tokens=batch_tokens, relieve=self._relieve)

    def _kept_tokens(self, pair: Asked) -> int:
        """How many tokens of a pair are kept, now that its pictures are decoded: none if a file changed meanwhile."""
        if self.memory is None or pair.document is None or self._key(pair) is None:
            return 0
        return pair.shared if self._documents.still(pair.key, pair.document) else 0

    def _follow(self, pairs: Sequence[Asked], batch_tokens: int | None) -> list[float | None]:
        """Score pairs by what is kept of their documents; None for those whose document has left meanwhile."""
        memory = self.memory
        assert memory is not None
        crowded = False

        def relieve() -> bool:
            nonlocal crowded
            crowded = True  # from now on documents are read from where they are
            return self._relieve()

        def prepare(places: Sequence[int]) -> _Known:
            known = _Known(len(places))
            for row, place in enumerate(places):
                pair = pairs[place]
                kept = memory.get(pair.key, bring=not crowded)
                if kept is not None and _serves(kept, pair):
                    known.add(row, pair.prompt, kept, min(kept.tokens, pair.shared))
            if known.rows:
                known.batch = self._model.prepare(known.prompts, known.tokens)
            return known

        def compute(known: _Known) -> list[float | None]:
            scores: list[float | None] = [None] * known.size
            if known.batch is not None:
                with torch.inference_mode():
                    keys = Following(known.kept, known.tokens, known.batch.ids.shape[1], self._like)
                for row, score in zip(known.rows, self._forward(known.batch, keys), strict=True):
                    scores[row] = score
                memory.count(hits=len(known.rows))
            return scores

        costs = [len(pair.prompt) - pair.shared + pair.shared // _PER_TOKEN for pair in pairs]
        return self._follower.run(
            costs,
            prepare,
            compute,
            batch_tokens=batch_tokens,
            relieve=relieve,
            sizes=[len(pair.prompt) for pair in pairs],
        )

    def _forward(self, batch: Batch, keys: Keys | None) -> list[float]:
        with self._model.lock, torch.inference_mode(), own_precision(self._like.device):
            hidden = self._model.hidden(batch, keys)
            last = torch.tensor(batch.lengths, device=hidden.device) - 1
            scores: list[float] = self._head(hidden[torch.arange(len(last), device=hidden.device), last])[:, 0].tolist()
            return scores


class _Known:
    """A batch of pairs whose documents are known."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: list[int] = []
        self.prompts: list[Prompt] = []
        self.kept: list[Kept] = []
        self.tokens: list[int] = []
        self.batch: Batch | None = None

    def add(self, row: int, prompt: Prompt, kept: Kept, tokens: int) -> None:
        self.rows.append(row)
        self.prompts.append(prompt)
        self.kept.append(kept)
        self.tokens.append(tokens)


def _serves(kept: Kept | None, pair: Asked) -> bool:
    return kept is not None and kept.tokens >= pair.shared - _SLACK


def _is_kept(document: Prompt) -> bool:
    return bool(document.images) or len(document) >= SHORTEST


def _may_be_kept(parts: Sequence[Segment]) -> bool:
    """Before a text is tokenised: no token is shorter than a byte."""
    length = sum(len(part.encode()) for part in parts if isinstance(part, str))
    return length >= SHORTEST or any(isinstance(part, LoadedImage) for part in parts)
