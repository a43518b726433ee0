"""Vision towers of Qwen2-VL and Qwen2.5-VL, with few attention calls and without waiting for the device.

The tower is composed of the layers and weights of the stock transformers tower. The stock tower calls attention for
each window and each image, and reads the sizes back from the device in each layer. Here, the sequences of a layer
attend in one call of a variable-length kernel, or in at most `vision_layout.MAX_CALLS` batched calls. The index tensors
and rotary tables of a batch are computed from the image sizes in host memory, and stay on the device for the next batch
with images of these sizes.

The variable-length kernels need CUDA and half precision. The selection, the shapes and the dtypes of that path are
tested with stand-ins; see the notes on `varlen_kernel`.

Source: Wang et al., Qwen2-VL (2024); Bai et al., Qwen2.5-VL Technical Report (2025), section 2.1.1.
"""

from __future__ import annotations

import importlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from jina_rag.models.jina.vision_layout import Grid, SequenceSet, tower_layout
from jina_rag.models.runtime.devices import Placement, is_out_of_memory, to_device

_log = logging.getLogger("jina_rag")

Kernel: TypeAlias = "Callable[..., torch.Tensor]"
"""Attention over sequences of different lengths. Arguments: query, key and value, each of shape (rows, heads, width);
boundaries of the sequences for queries and keys, int32; longest sequence for queries and keys."""
_KERNELS = (("torch.nn.attention.varlen", "varlen_attn"), ("flash_attn", "flash_attn_varlen_func"))
_CACHED_PATCHES = 131_072
"""Number of patches in the inputs that a tower keeps on the device, about 45 MB for heads of 80 elements."""


class Attention(Protocol):
    """Attention of a layer in a batch."""

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend within each sequence.

        Args:
            query: Queries, shape (rows, heads, width); the last dimension is contiguous.
            key: Keys, in the shape and dtype of `query`.
            value: Values, in the shape and dtype of `query`.

        Returns:
            Shape (rows, heads x width), in the dtype of `query`.
        """
        ...


class VarlenAttention:
    """Attention of a layer in one call of a kernel for sequences of different lengths; implements `Attention`."""

    def __init__(self, sequences: SequenceSet, kernel: Kernel, device: torch.device) -> None:
        """Copy the boundaries of the sequences to the device.

        Args:
            sequences: Sequences in order.
            kernel: Kernel to call.
            device: Device of the tower.
        """
        assert sequences.rows is None
        self._kernel, self._longest = kernel, int(sequences.lengths.max())
        self._boundaries = to_device(sequences.boundaries().astype("int32"), device)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend within each sequence; see `Attention`."""
        limits, longest = self._boundaries, self._longest
        return self._kernel(query, key, value, limits, limits, longest, longest).flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A `vision_layout.Group` on the device: rows to gather, mask to add to the logits, and rows without padding."""

    start: int
    count: int
    longest: int
    rows: torch.Tensor | None
    mask: torch.Tensor | None
    unpadded: torch.Tensor | None

    def select(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states of the sequences, shape (count, heads, longest, width); a view if the rows are adjacent."""
        if self.rows is None:
            states = states[self.start : self.start + self.count * self.longest]
        else:
            states = states.index_select(0, self.rows)
        return states.view(self.count, self.longest, *states.shape[1:]).transpose(1, 2)


class BatchedAttention:
    """Attention of a layer in one call for each group of sequences of similar length; implements `Attention`."""

    def __init__(self, sequences: SequenceSet, device: torch.device, dtype: torch.dtype) -> None:
        """Copy rows and masks to the device.

        Args:
            sequences: Sequences of the layer.
            device: Device of the tower.
            dtype: Dtype of the queries.
        """
        groups, order = sequences.groups()
        self._order = None if order is None else to_device(order, device)
        self._calls = []
        for group in groups:
            rows, is_patch = group.rows, group.is_patch
            mask = unpadded = None
            if is_patch is not None:
                mask = to_device(is_patch, device)[:, None, None]
                mask = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, -torch.inf)
                unpadded = to_device(is_patch.reshape(-1).nonzero()[0], device)
            device_rows = None if rows is None else to_device(rows, device)
            self._calls.append(_Call(group.start, group.count, group.longest, device_rows, mask, unpadded))

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend within each sequence; see `Attention`."""
        outputs = []
        for call in self._calls:
            output = functional.scaled_dot_product_attention(
                call.select(query), call.select(key), call.select(value), attn_mask=call.mask
            )
            output = output.transpose(1, 2).flatten(2).flatten(0, 1)
            outputs.append(output if call.unpadded is None else output.index_select(0, call.unpadded))
        result = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return result if self._order is None else result.index_select(0, self._order)


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """Tensors on the device that depend on the image sizes of a batch only.

    Attributes:
        order: Patch of each row, shape (patches,), int64; None if the patches keep their order.
        cosines: Cosines of the rotary angles, shape (patches, 1, 1, width / 2), float32.
        sines: Sines of the rotary angles, like `cosines`.
        windows: Attention of the windowed layers; None for a tower without windows.
        images: Attention of the other layers.
        restore: Row of each token after merging, shape (tokens,), int64; None if the tokens keep their order.
    """

    order: torch.Tensor | None
    cosines: torch.Tensor
    sines: torch.Tensor
    windows: Attention | None
    images: Attention
    restore: torch.Tensor | None


class VisionTower(nn.Module):
    """Vision tower of either architecture, with the layers and weights of the stock tower under the same names.

    Not thread-safe; callers hold the lock of the model.
    """

    def __init__(self, stock: Any, placement: Placement) -> None:  # noqa: ANN401  # the tower of either architecture
        """Compose the tower and select the attention kernel. The weights are loaded.

        Args:
            stock: Stock tower.
            placement: Device and dtype of the tower.
        """
        super().__init__()
        self.patch_embed = LinearPatches(stock.patch_embed)
        self.rotary_pos_emb = stock.rotary_pos_emb
        self.blocks = nn.ModuleList(VisionBlock(block) for block in stock.blocks)
        self.merger = stock.merger
        self._merge = int(stock.spatial_merge_size)
        self._window: int | None = None
        if hasattr(stock, "fullatt_block_indexes"):
            self._window = int(stock.window_size) // self._merge // int(stock.patch_size)
            self._image_blocks = frozenset(stock.fullatt_block_indexes)
        else:
            self._image_blocks = frozenset(range(len(self.blocks)))
        attention: Any = self.blocks[0].attn
        self._placement = placement
        self._kernel = varlen_kernel(placement.device, placement.dtype, attention.heads, attention.width)
        self._inputs: OrderedDict[tuple[Grid, ...], _Inputs] = OrderedDict()

    def forward(self, pixels: torch.Tensor, grid_thw: torch.Tensor) -> torch.Tensor:
        """Return the features of the images' tokens.

        Args:
            pixels: Normalized patches of all images, shape (patches, channels x 2 x patch x patch), on the device; or
                one of two equal frames, shape (patches, channels x patch x patch).
            grid_thw: Time, height and width of each image in patches, shape (images, 3), int64, in host memory.

        Returns:
            Shape (tokens, width of the decoder), in the order of the images, in the dtype of the weights.
        """
        inputs = self._inputs_of(_sizes(grid_thw))
        hidden = self.patch_embed(pixels)
        if inputs.order is not None:
            hidden = hidden.index_select(0, inputs.order)
        for index, block in enumerate(self.blocks):
            attend = inputs.images if inputs.windows is None or index in self._image_blocks else inputs.windows
            hidden = block(hidden, inputs.cosines, inputs.sines, attend)
        features: torch.Tensor = self.merger(hidden)
        return features if inputs.restore is None else features.index_select(0, inputs.restore)

    def _inputs_of(self, grids: tuple[Grid, ...]) -> _Inputs:
        """Return the inputs of a batch, from the cache if the last batches had images of the same sizes."""
        if grids not in self._inputs:
            # Tensors that are created in inference mode could not be used for gradients later.
            with torch.inference_mode(False), torch.no_grad():
                self._inputs[grids] = self._create_inputs(grids)
        self._inputs.move_to_end(grids)
        patches = sum(inputs.cosines.shape[0] for inputs in self._inputs.values())
        while patches > _CACHED_PATCHES and len(self._inputs) > 1:
            patches -= self._inputs.popitem(last=False)[1].cosines.shape[0]
        return self._inputs[grids]

    def _create_inputs(self, grids: Sequence[Grid]) -> _Inputs:
        device = self._placement.device
        layout = tower_layout(grids, merge=self._merge, window=self._window, by_length=self._kernel is None)
        frequencies = self.rotary_pos_emb.inv_freq
        positions = to_device(layout.positions, device)
        # The first half of the angles depends on the row of the patch, and the second half on the column.
        angles = (positions[:, :, None] * frequencies.float()).flatten(1)[:, None, None]
        return _Inputs(
            order=None if layout.order is None else to_device(layout.order, device),
            cosines=angles.cos(),
            sines=angles.sin(),
            windows=None if layout.windows is None else self._attention(layout.windows),
            images=self._attention(layout.images),
            restore=None if layout.restore is None else to_device(layout.restore, device),
        )

    def _attention(self, sequences: SequenceSet) -> Attention:
        if self._kernel is not None:
            return VarlenAttention(sequences, self._kernel, self._placement.device)
        return BatchedAttention(sequences, self._placement.device, self._placement.dtype)


def _sizes(grid_thw: torch.Tensor) -> tuple[Grid, ...]:
    return tuple((time, height, width) for time, height, width in grid_thw.tolist())


class VisionBlock(nn.Module):
    """A transformer layer of the tower, with the norms and the feed-forward layer of the stock layer."""

    def __init__(self, stock: Any) -> None:  # noqa: ANN401  # the block of either architecture
        super().__init__()
        self.norm1, self.norm2, self.mlp = stock.norm1, stock.norm2, stock.mlp
        self.attn = VisionAttention(stock.attn)

    def forward(
        self, hidden: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, attend: Attention
    ) -> torch.Tensor:
        """Return the output of the layer.

        Args:
            hidden: Hidden states, shape (rows, width of the tower), in the dtype of the weights.
            cosines: Cosines of the rotary angles, shape (rows, 1, 1, head width / 2), float32.
            sines: Sines of the rotary angles, shape (rows, 1, 1, head width / 2), float32.
            attend: Attention within the sequences of the layer.

        Returns:
            Shape and dtype of `hidden`.
        """
        attention: torch.Tensor = self.attn(self.norm1(hidden), cosines, sines, attend)
        attention += hidden  # in place, because allocating the sum costs as much time as the addition
        output: torch.Tensor = self.mlp(self.norm2(attention))
        output += attention
        return output


class VisionAttention(nn.Module):
    """Self-attention of a layer of the tower, with the projections of the stock layer.

    Attributes:
        heads: Number of attention heads.
        width: Elements of a head.
    """

    def __init__(self, stock: Any) -> None:  # noqa: ANN401  # the attention of either architecture
        super().__init__()
        self.qkv, self.proj = stock.qkv, stock.proj
        self.heads = int(stock.num_heads)
        self.width = self.proj.in_features // self.heads

    def forward(
        self, hidden: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, attend: Attention
    ) -> torch.Tensor:
        """Return the projected attention output; see `VisionBlock.forward`.

        Args:
            hidden: Normalized hidden states, shape (rows, width of the tower), in the dtype of the weights.
            cosines: Cosines of the rotary angles, shape (rows, 1, 1, head width / 2), float32.
            sines: Sines of the rotary angles, shape (rows, 1, 1, head width / 2), float32.
            attend: Attention within the sequences of the layer.
        """
        states = self.qkv(hidden).view(-1, 3, self.heads, self.width)
        query, key = _rotate(states[:, :2], cosines, sines).unbind(1)
        output: torch.Tensor = self.proj(attend(query, key, states[:, 2]))
        return output


class LinearPatches(nn.Module):
    """Patch embedding of the vision tower, computed as a matrix product.

    The stock class calls a three-dimensional convolution. Because stride and kernel size are equal, the convolution
    equals a matrix product, but is several times slower on the CPU, and on GPUs in half precision.
    """

    def __init__(self, stock: Any) -> None:  # noqa: ANN401  # PatchEmbed of either architecture
        super().__init__()
        self.proj = stock.proj

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of patches, shape (n, width), in the dtype of the weights.

        Args:
            patches: Values of all frames, shape (n, channels x frames x patch x patch); or of one of several equal
                frames, shape (n, channels x patch x patch).
        """
        weight = self.proj.weight
        channels, frames = weight.shape[1:3]
        patches = patches.to(weight.dtype)
        if patches.shape[1] * frames == weight[0].numel():
            if weight.dtype == torch.float32:
                weight = weight.sum(dim=2)  # half of the products; in half precision, the sum would be rounded
            else:
                patches = patches.view(len(patches), channels, 1, -1).expand(-1, -1, frames, -1).flatten(1)
        return functional.linear(patches, weight.flatten(1), self.proj.bias)


def _rotate(states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Return queries and keys with rotary positions, in shape and dtype of `states`, (rows, 2, heads, width).

    Computed in float32. Element i of a head and element i + width / 2 are rotated together, by the same angle.

    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding (2021), section 3.2.
    """
    halves = states.view(*states.shape[:-1], 2, -1)
    if states.device.type == "mps":
        halves = halves.float()  # the type promotion below is tested on the CPU only
    rotated = halves * cosines[..., None, :]  # float32, by type promotion
    first, second = halves.unbind(-2)
    rotated[..., 0, :].addcmul_(second, sines, value=-1)
    rotated[..., 1, :].addcmul_(first, sines)
    return rotated.flatten(-2).to(states.dtype)


def varlen_kernel(device: torch.device, dtype: torch.dtype, heads: int, width: int) -> Kernel | None:
    """Return a kernel for sequences of different lengths that works on this device, or None.

    The kernel of PyTorch (2.10 or later) is preferred to the package flash-attn. A kernel is called once on a small
    input, and returned only if the output agrees with PyTorch's attention. The reasons why a kernel cannot be used
    differ: an older PyTorch, a build without the kernel, a GPU without support, an unsupported width.

    The arguments that are passed are the ones that PyTorch 2.10 to 2.13 and flash-attn 2 have in common. No kernel has
    been run on a GPU by the tests; they replace the kernels by stand-ins on the CPU.

    Args:
        device: Device of the tower.
        dtype: Dtype of queries, keys and values.
        heads: Number of attention heads.
        width: Elements of a head.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    kernel = _working_kernel(device, dtype, heads, width)
    if kernel is None:
        _log.info("No kernel for sequences of different lengths on %s; images attend in batches.", device)
    return kernel


def _working_kernel(device: torch.device, dtype: torch.dtype, heads: int, width: int) -> Kernel | None:
    """Return the first kernel that gives the right result on a device; see `varlen_kernel`."""
    for module, name in _KERNELS:
        try:
            kernel: Kernel = getattr(importlib.import_module(module), name)
            if _agrees_with_sdpa(kernel, device, dtype, heads, width):
                return kernel
            _log.warning("%s.%s returns wrong results on %s and is not used.", module, name, device)
        except (ImportError, AttributeError, AssertionError, TypeError, ValueError, RuntimeError, OSError) as exc:
            if is_out_of_memory(exc):
                raise
            _log.debug("%s.%s cannot be used on %s: %s", module, name, device, exc)
    return None


def _agrees_with_sdpa(kernel: Kernel, device: torch.device, dtype: torch.dtype, heads: int, width: int) -> bool:
    """Return whether a kernel gives the same result as PyTorch's attention for sequences of 3 and 5 rows."""
    with torch.inference_mode():
        # Cosines instead of random numbers, so that the caller's random state does not change.
        states = torch.arange(8 * 3 * heads * width, device=device).cos().view(8, 3, heads, width).to(dtype)
        limits = torch.tensor([0, 3, 8], dtype=torch.int32, device=device)
        output = kernel(*states.unbind(1), limits, limits, 5, 5)
        expected = []
        for rows in (states[:3], states[3:]):
            query, key, value = rows.float().transpose(0, 2)[None].unbind(2)
            expected.append(functional.scaled_dot_product_attention(query, key, value)[0])
        reference = torch.cat(expected, dim=1).transpose(0, 1)
        return output.shape == reference.shape and bool((output.float() - reference).abs().max() < 0.05)
