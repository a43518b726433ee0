"""Distribution of the inputs of a call over several devices, by approximate numbers of tokens."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jina_rag.types import Page

MIN_SHARE = 512
"""Minimum tokens per device in a call. A smaller share would not be faster, because a forward pass over a few hundred
tokens takes as long as a forward pass over a few tokens."""
MAX_SHARE = 16_384
"""Maximum tokens in a share, unless a single input has more: the tokens of a batch on a GPU. Large calls are split into
more shares than devices, so that few inputs are copied to the processes ahead of the computation."""
_BYTES_PER_TOKEN = 4
_PIXELS_PER_TOKEN = 28 * 28
_MAX_TOKENS = 32_768
_MAX_PIXELS = 602_112


@dataclass(slots=True)
class Share:
    """Inputs of a call that one process computes together.

    Attributes:
        indices: Indices of the inputs, ascending.
        cost: Approximate number of tokens.
        device: Index of the device; None for the device with the least work.
        is_reserved: Whether the load of the device already contains the tokens of the share.
    """

    indices: list[int]
    cost: int
    device: int | None = None
    is_reserved: bool = False


def share_out(costs: Sequence[int], loads: Sequence[int]) -> list[Share]:
    """Split the inputs of a call into shares.

    Args:
        costs: Approximate number of tokens of each input.
        loads: Number of tokens that each device is computing already.

    Returns:
        Shares that contain each input once. Up to `MAX_SHARE` tokens per device, each device gets at most one share,
        so that the devices finish at about the same time. Above, shares of inputs of similar length, the longest first,
        are not bound to a device.
    """
    total = sum(costs)
    longest_first = sorted(range(len(costs)), key=lambda index: -costs[index])
    if total > MAX_SHARE * len(loads):
        shares: list[Share] = []
        for index in longest_first:
            if not shares or shares[-1].cost + costs[index] > MAX_SHARE:
                shares.append(Share([], 0))
            shares[-1].indices.append(index)
            shares[-1].cost += costs[index]
    else:
        count = max(1, min(len(loads), len(costs), total // MIN_SHARE))
        heap = heapq.nsmallest(count, ((load, device) for device, load in enumerate(loads)))
        by_device = {device: Share([], 0, device) for _, device in heap}
        for index in longest_first:
            load, device = heap[0]
            heapq.heapreplace(heap, (load + costs[index], device))
            by_device[device].indices.append(index)
            by_device[device].cost += costs[index]
        shares = [share for share in by_device.values() if share.indices or not costs]
    for share in shares:
        share.indices.sort()
    return shares


def token_cost(item: object, modality: str, options: Mapping[str, Any]) -> int:
    """Return the approximate number of tokens of an input, without opening files or tokenizing texts.

    Args:
        item: The input.
        modality: Modality of the model, ``"text"`` or ``"image"``.
        options: Options of the call, of which ``max_length`` and ``max_pixels`` limit the tokens.
    """
    max_length, max_pixels = (
        value if isinstance(value := options.get(name), int) and value > 0 else default
        for name, default in (("max_length", _MAX_TOKENS), ("max_pixels", _MAX_PIXELS))
    )
    if isinstance(item, str):
        length = len(item) if item.isascii() else len(item.encode("utf-8", "surrogatepass"))
        return int(min(max_length, 8 + length // _BYTES_PER_TOKEN))
    if isinstance(item, Page):
        if modality == "text":
            return int(min(max_length, 8 + sum(len(word.text) // _BYTES_PER_TOKEN + 1 for word in item.words)))
        return token_cost(item.screenshot.image, modality, options)
    if isinstance(item, Mapping):
        # As an image, a str is the path, the URL or the data URI of an image.
        parts = (None if key == "image" and isinstance(part, str) else part for key, part in item.items())
        return sum(token_cost(part, modality, options) for part in parts)
    if isinstance(item, Sequence) and not isinstance(item, str | bytes | bytearray | memoryview):
        return sum(token_cost(part, modality, options) for part in item)
    pixels = max_pixels
    if hasattr(item, "getexif") and hasattr(item, "size"):  # a PIL image
        pixels = min(pixels, item.size[0] * item.size[1])
    return int(8 + pixels // _PIXELS_PER_TOKEN)
