"""Keys and values of a prompt's beginning: taken out of a forward pass, and put before what follows in a later one.

In a causal decoder what a token gives to later ones, its key and value in each layer, depends on earlier tokens only.
So a beginning that many prompts share is computed once (prefix caching; Kwon et al., "Efficient Memory Management for
Large Language Model Serving with PagedAttention", 2023, section 4.4). Both classes here take the place of the cache of
a stock transformers decoder, which hands them each layer's keys and values and attends to what they return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch

from jina_rag.models.runtime.devices import available_memory, free_memory, is_out_of_memory
from jina_rag.models.runtime.prefix_cache import PrefixCache, TwoTiers

_SHARED_HEADS = "jina_rag_shared_heads"
_DEVICE_SHARE, _HOST_SHARE = 0.25, 0.2


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """The keys and values of a prompt's beginning.

    Attributes:
        states: Shape (layers, 2, heads, tokens, width): keys, with their positions turned in, and values.
    """

    states: torch.Tensor

    @property
    def tokens(self) -> int:
        """Length of the beginning."""
        return self.states.shape[3]

    @property
    def bytes(self) -> int:
        """Of memory."""
        return self.states.nbytes


PrefixTiers: TypeAlias = "TwoTiers[CachedPrefix]"


def make_tiers(settings: PrefixCache, device: torch.device) -> PrefixTiers:
    """A memory for what a model on this device may keep; shares are those of what is free now."""
    near, host = settings.device_bytes, settings.host_bytes
    if near is None:
        near = 0 if device.type == "cpu" else int(_DEVICE_SHARE * max(0, free_memory(device)))
    return TwoTiers(
        near,
        int(_HOST_SHARE * available_memory()) if host is None else host,
        to_device=lambda prefix: _copied_to(prefix, device),
        to_host=lambda prefix: _copied_to(prefix, torch.device("cpu")),
    )


def _copied_to(prefix: CachedPrefix, device: torch.device) -> CachedPrefix | None:
    try:
        return CachedPrefix(prefix.states.to(device))
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        return None  # one page less is kept, or it is read from where it is


class LayerKeys(Protocol):
    """What a forward pass does with keys and values.

    Attributes:
        mask: Added to the attention's weights, None for a plain causal one.
    """

    mask: torch.Tensor | None

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, /, *args: object, **rest: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by each layer.

        Args:
            keys: Of the pass's tokens, shape (batch, heads, tokens, width).
            values: Likewise.
            layer: Its number.
            args: Not used.
            rest: Not used.

        Returns:
            The keys and values to attend to.
        """
        ...


class PrefixRecorder:
    """Takes the beginnings' keys and values out of a pass over whole prompts; implements `LayerKeys`."""

    mask: torch.Tensor | None = None

    def __init__(self) -> None:
        self._states: list[torch.Tensor] = []

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, _layer: int, /, *_args: object, **_rest: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `LayerKeys`."""
        self._states += (keys, values)
        return keys, values

    def prefixes(self, tokens: Sequence[int], dtype: torch.dtype) -> list[CachedPrefix | None]:
        """What is kept of each row, after the pass; to be called once.

        Copies, because a view would hold the whole batch. All layers are first put together, because a copy for each
        row and layer would take a GPU longer to start than to do.

        Args:
            tokens: How many of each row are kept; None is for 0.
            dtype: In which they are kept.
        """
        every = torch.stack(self._states)
        self._states.clear()
        layers, _, heads, _, width = every.shape
        rows: list[CachedPrefix | None] = []
        for row, count in enumerate(tokens):
            if count:
                states = every.new_empty((layers, heads, count, width), dtype=dtype)
                states.copy_(every[:, row, :, :count])
                rows.append(CachedPrefix(states.view(layers // 2, 2, heads, count, width)))
            else:
                rows.append(None)
        return rows


class PrefixReplay:
    """Puts kept keys and values before those of a pass over what follows; implements `LayerKeys`.

    All layers use one buffer in turn: what is kept is never there twice.
    """

    def __init__(
        self, before: Sequence[CachedPrefix], tokens: Sequence[int], following: int, decoder: DecoderFormat
    ) -> None:
        """Room for a batch.

        Args:
            before: What is kept of each row's beginning.
            tokens: How many tokens of it precede the row.
            following: Tokens of the pass, padded.
            decoder: What the pass computes with.
        """
        self._before = [prefix.states[:, :, :, :count].unbind(0) for prefix, count in zip(before, tokens, strict=True)]
        self._runs = _runs(
            [(count, prefix.states.device, prefix.states.dtype) for prefix, count in zip(before, tokens, strict=True)]
        )
        self._longest = longest = max(tokens)
        _, _, heads, _, width = before[0].states.shape
        # Zeros, because rows with a shorter beginning leave places that the mask must be able to hide.
        self._states = torch.zeros(
            (2, len(before), heads, longest + following, width), dtype=decoder.dtype, device=decoder.device
        )
        place = torch.arange(longest + following, device=decoder.device)
        is_prefix = place < torch.tensor(tokens, device=decoder.device)[:, None]
        row = torch.arange(following, device=decoder.device)[:, None]
        is_visible = is_prefix[:, None] | ((place >= longest) & (place <= longest + row))
        mask = torch.zeros(is_visible.shape, dtype=decoder.dtype, device=decoder.device).masked_fill_(
            ~is_visible, -torch.inf
        )
        self.mask: torch.Tensor | None = mask[:, None].repeat(1, 1, decoder.heads // heads, 1)
        """Shape (batch, 1, sharing heads x following, longest + following)."""

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, /, *_args: object, **_rest: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `LayerKeys`."""
        for start, stop in self._runs:
            states = torch.stack([self._before[row][layer] for row in range(start, stop)], dim=1)
            self._states[:, start:stop, :, : states.shape[3]].copy_(states)
        self._states[0, :, :, self._longest :].copy_(keys)
        self._states[1, :, :, self._longest :].copy_(values)
        return self._states[0], self._states[1]


def _runs(kinds: Sequence[object]) -> list[tuple[int, int]]:
    """From where to where neighbours are alike: they are copied as one.

    >>> _runs(["a", "a", "b"])
    [(0, 2), (2, 3)]
    """
    starts = [i for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    return list(zip(starts, [*starts[1:], len(kinds)], strict=True))


@dataclass(frozen=True, slots=True)
class DecoderFormat:
    """What a decoder computes with.

    Attributes:
        heads: Of its queries.
        dtype: Of its numbers.
        device: Where it runs.
    """

    heads: int
    dtype: torch.dtype
    device: torch.device


@contextmanager
def attending(config: Any, keys: LayerKeys | None) -> Iterator[None]:  # noqa: ANN401  # transformers' config
    """Let a decoder attend to kept keys without copying them for each head that shares them.

    The stock function repeats keys and values wherever there is a mask, which for a short question after a long page
    costs more than all else. The caller holds the model's lock.
    """
    if keys is None or keys.mask is None:
        yield
        return
    from transformers import AttentionInterface

    AttentionInterface.register(_SHARED_HEADS, _shared_heads)
    before = config._attn_implementation
    config._attn_implementation = _SHARED_HEADS
    try:
        yield
    finally:
        config._attn_implementation = before


def _shared_heads(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **_rest: object,
) -> tuple[torch.Tensor, None]:
    """Grouped-query attention with the heads that share a key as further rows of one query; the same numbers."""
    batch, heads, tokens, width = query.shape
    rows = query.reshape(batch, key.shape[1], -1, width)
    attention = torch.nn.functional.scaled_dot_product_attention(
        rows, key, value, attn_mask=attention_mask, scale=scaling
    )
    return attention.reshape(batch, heads, tokens, width).transpose(1, 2).contiguous(), None
