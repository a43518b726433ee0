"""Prefix caching for decoders: the keys and values of a shared prompt prefix are computed once and reused.

In a causal decoder, the key and value of a token in each layer depend on earlier tokens only. A prefix that many
prompts share is therefore computed once. A stock transformers decoder passes the keys and values of each layer to a KV
cache, and attends to the keys and values that the cache returns. `PrefixRecorder` takes the role of that
cache to record a prefix, and `PrefixReplay` to prepend a recorded prefix.

Source: Kwon et al., Efficient Memory Management for Large Language Model Serving with PagedAttention (2023),
section 4.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from jina_rag.models.runtime.devices import available_memory, free_memory, is_out_of_memory, to_device
from jina_rag.models.runtime.prefix_cache import PrefixCache, TwoTiers

_SHARED_HEADS = "jina_rag_shared_heads"
_DEVICE_SHARE, HOST_SHARE = 0.25, 0.2


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """Keys and values of a prompt's prefix.

    Attributes:
        states: Keys, with rotary positions applied, and values; shape (layers, 2, heads, tokens, width), in the dtype
            of the cache.
    """

    states: torch.Tensor

    @property
    def tokens(self) -> int:
        """Length of the prefix in tokens."""
        return self.states.shape[3]

    @property
    def bytes(self) -> int:
        """Size of the keys and values in bytes."""
        return self.states.nbytes


PrefixTiers: TypeAlias = "TwoTiers[CachedPrefix]"


def create_prefix_cache(settings: PrefixCache, device: torch.device) -> PrefixTiers:
    """Return an empty prefix cache for a model on `device`.

    Args:
        settings: Limits of the tiers. A limit of None stands for a fraction of the memory that is free now: 0.25 of the
            device memory (0 on the CPU), or 0.2 of the host memory.
        device: Device of the model.
    """
    device_bytes, host_bytes = settings.device_bytes, settings.host_bytes
    if device_bytes is None:
        device_bytes = 0 if device.type == "cpu" else int(_DEVICE_SHARE * max(0, free_memory(device)))
    return TwoTiers(
        device_bytes,
        int(HOST_SHARE * available_memory()) if host_bytes is None else host_bytes,
        to_device=lambda prefix: _copy_to(prefix, device),
        to_host=lambda prefix: _copy_to(prefix, torch.device("cpu")),
    )


def _copy_to(prefix: CachedPrefix, device: torch.device) -> CachedPrefix | None:
    try:
        return CachedPrefix(prefix.states.to(device))
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        return None  # `TwoTiers` then leaves a host entry in host memory, or drops a device entry


class KVCache(Protocol):
    """Cache that receives the new keys and values of each layer, and returns the keys and values to attend to.

    Attributes:
        mask: Mask to add to the attention logits, shape (batch, 1, rows, keys), with one row for each new token of each
            attention head that shares a key head; None for plain causal attention.
    """

    mask: torch.Tensor | None

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, /, *args: object, **rest: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Receive the new keys and values of a layer; called once for each layer in a pass.

        Args:
            keys: Keys of the new tokens, shape (batch, heads, tokens, width).
            values: Values of the new tokens, in the shape and dtype of `keys`.
            layer: Index of the layer.
            args: Ignored; accepted because transformers may pass further arguments.
            rest: Ignored, like `args`.

        Returns:
            Keys and values to attend to, each of shape (batch, heads, cached + tokens, width), in the decoder's dtype.
        """
        ...


class PrefixRecorder:
    """Records the keys and values of prefixes in a pass over whole prompts; implements `KVCache`.

    Attributes:
        mask: Always None. Whole prompts use plain causal attention, without a mask of shape (batch, 1, rows, keys).
    """

    mask: torch.Tensor | None = None

    def __init__(self) -> None:
        self._states: list[torch.Tensor] = []

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, _layer: int, /, *_args: object, **_rest: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Record the keys and values of a layer, and return them unchanged; see `KVCache.update`.

        Args:
            keys: Keys, shape (batch, heads, tokens, width), in the dtype of the decoder.
            values: Values, in the shape and dtype of `keys`.
        """
        self._states += (keys, values)
        return keys, values

    def prefixes(self, tokens: Sequence[int], dtype: torch.dtype) -> list[CachedPrefix | None]:
        """Return the prefix of each row after the pass, and free the recorded keys and values; call once.

        The prefixes are copies, because a view would keep the whole batch in memory. All layers are stacked first, and
        each row is then copied in one call. On a GPU, separate copies of each layer would take longer to launch than to
        run.

        Args:
            tokens: Length of each row's prefix in tokens; a row of length 0 gives None.
            dtype: Dtype of the stored keys and values.
        """
        stacked = torch.stack(self._states)
        self._states.clear()
        layers, _, heads, _, width = stacked.shape
        rows: list[CachedPrefix | None] = []
        for row, count in enumerate(tokens):
            if count:
                states = stacked.new_empty((layers, heads, count, width), dtype=dtype)
                states.copy_(stacked[:, row, :, :count])
                rows.append(CachedPrefix(states.view(layers // 2, 2, heads, count, width)))
            else:
                rows.append(None)
        return rows


class PrefixReplay:
    """Prepends cached keys and values in a pass over the remaining tokens of each prompt; implements `KVCache`.

    All layers share one buffer with the size of one layer, so memory holds no second copy of the whole prefix.
    """

    def __init__(
        self, cached: Sequence[CachedPrefix], tokens: Sequence[int], following: int, decoder: DecoderFormat
    ) -> None:
        """Allocate the buffer and the mask of a batch.

        Args:
            cached: Cached prefix of each row.
            tokens: Number of cached tokens to use in each row.
            following: Number of new tokens in each row, padding included.
            decoder: Heads, dtype and device of the decoder.
        """
        self._cached = [prefix.states[:, :, :, :count].unbind(0) for prefix, count in zip(cached, tokens, strict=True)]
        self._equal_ranges = _equal_ranges(
            [(count, prefix.states.device, prefix.states.dtype) for prefix, count in zip(cached, tokens, strict=True)]
        )
        self._longest = longest = max(tokens)
        _, _, heads, _, width = cached[0].states.shape
        # Zeros, because uninitialized memory may contain NaN, which the mask cannot hide in rows with a shorter prefix.
        self._states = torch.zeros(
            (2, len(cached), heads, longest + following, width), dtype=decoder.dtype, device=decoder.device
        )
        position = torch.arange(longest + following, device=decoder.device)
        is_prefix = position < to_device(np.array(tokens, dtype=np.int64), decoder.device)[:, None]
        row = torch.arange(following, device=decoder.device)[:, None]
        is_visible = is_prefix[:, None] | ((position >= longest) & (position <= longest + row))
        mask = torch.zeros(is_visible.shape, dtype=decoder.dtype, device=decoder.device).masked_fill_(
            ~is_visible, -torch.inf
        )
        self.mask: torch.Tensor | None = mask[:, None].repeat(1, 1, decoder.heads // heads, 1)
        """Mask to add to the logits, shape (batch, 1, heads per key head x following, longest + following)."""

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, /, *_args: object, **_rest: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cached keys and values of a layer, followed by the new ones; see `KVCache.update`.

        Args:
            keys: Keys of the new tokens, shape (batch, heads, tokens, width).
            values: Values of the new tokens, in the shape of `keys`.
            layer: Index of the layer.

        Returns:
            Keys and values, each of shape (batch, heads, cached + tokens, width), in the dtype of the decoder.
        """
        for start, stop in self._equal_ranges:
            states = torch.stack([self._cached[row][layer] for row in range(start, stop)], dim=1)
            self._states[:, start:stop, :, : states.shape[3]].copy_(states, non_blocking=self._states.is_cuda)
        self._states[0, :, :, self._longest :].copy_(keys)
        self._states[1, :, :, self._longest :].copy_(values)
        return self._states[0], self._states[1]


def _equal_ranges(kinds: Sequence[object]) -> list[tuple[int, int]]:
    """Return the range (start, stop) of each run of equal elements; the prefixes of a run are copied in one call.

    >>> _equal_ranges(["a", "a", "b"])
    [(0, 2), (2, 3)]
    """
    starts = [i for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    return list(zip(starts, [*starts[1:], len(kinds)], strict=True))


@dataclass(frozen=True, slots=True)
class DecoderFormat:
    """Attention heads, dtype and device of a decoder.

    Attributes:
        heads: Number of attention heads, that is, of query heads.
        dtype: Dtype of the activations.
        device: Device of the decoder.
    """

    heads: int
    dtype: torch.dtype
    device: torch.device


@contextmanager
def attend_with_cache(config: Any, kv_cache: KVCache | None) -> Iterator[None]:  # noqa: ANN401  # transformers' config
    """Let a decoder attend to cached keys and values without copies for each query head, until the context ends.

    The stock attention function copies keys and values for each query head if a mask is present. For few new tokens
    after a long cached prefix, the copies cost more than the rest of the pass. The caller holds the model's lock.

    Args:
        config: The decoder's config, modified until the context ends.
        kv_cache: Cache of the pass. The context has no effect if `kv_cache` or `kv_cache.mask` is None.
    """
    if kv_cache is None or kv_cache.mask is None:
        yield
        return
    from transformers import AttentionInterface

    AttentionInterface.register(_SHARED_HEADS, _shared_heads)
    previous = config._attn_implementation
    config._attn_implementation = _SHARED_HEADS
    try:
        yield
    finally:
        config._attn_implementation = previous


def _shared_heads(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **_rest: object,
) -> tuple[torch.Tensor, None]:
    """Return the output of grouped-query attention, shape (batch, tokens, heads, width).

    The query heads that share a key head are stacked along the token dimension, so that keys and values are not copied.
    """
    batch, heads, tokens, width = query.shape
    rows = query.reshape(batch, key.shape[1], -1, width)
    attention = torch.nn.functional.scaled_dot_product_attention(
        rows, key, value, attn_mask=attention_mask, scale=scaling
    )
    return attention.reshape(batch, heads, tokens, width).transpose(1, 2).contiguous(), None
