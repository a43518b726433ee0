"""Attribution of a jina-reranker-m0 score to the image tokens of a document.

The method ``"gradient"`` computes the contribution of each image token to the raw score by integrated gradients. The
gradients are integrated from an image filled with the mean color to the original image. Each integration step costs one
forward and one backward pass.

The method ``"attention"`` computes the attention of the score token to each image token, averaged over layers and
heads. This method costs only one forward pass, but does not measure the effect of an image token on the score.

Source: Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks (2017), for ``"gradient"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint as activation_checkpoint

from jina_rag._checks import check_whole_number
from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.models.jina.qwen_vl import Batch, QwenVL
from jina_rag.models.jina.vl_prompts import Prompt, grid_of
from jina_rag.models.runtime.devices import is_out_of_memory, no_autocast, release_memory
from jina_rag.types import Attribution, Float32

Method = Literal["gradient", "attention"]
STEPS = 4
"""Number of integration steps of the gradient method; each step costs a forward and a backward pass. Measured on 200
pairs with the tiny checkpoint: covering the region of highest attribution changed the score more than covering another
region of equal size in 86 % of the pairs with 1 step, in 89 % with 2 steps, and in 91 % with 4 steps."""


def attribute(
    model: QwenVL,
    score: torch.nn.Module,
    prompt: Prompt,
    images: int,
    *,
    method: Method = "gradient",
    steps: int = STEPS,
) -> Attribution:
    """Attribute the score of a (query, document) pair to the image tokens of the document.

    The caller keeps the model's weights on the device and holds the model's lock. Parameters get no gradients. The
    backward pass recomputes the activations of each layer, so memory holds the activations of only one layer at a time.

    Args:
        model: Backbone of the reranker.
        score: Head that maps the last token's hidden state to the raw score.
        prompt: Prompt of the pair, which ends with the score token.
        images: Number of images of the document. In the prompt, the document's images precede the query's images.
        method: ``"gradient"`` or ``"attention"``.
        steps: Number of integration steps of the gradient method, at least 1.

    Returns:
        Box, weight and image index of each image token of the document, and the raw score of the pair.

    Raises:
        InvalidInputError: If the method is unknown, `steps` is below 1, or the document has no image.
        ModelError: If the computation does not fit into memory, or the result contains NaN or infinity.
    """
    if method not in ("gradient", "attention"):
        raise InvalidInputError(f"method is {method!r}; expected one of gradient, attention.")
    check_whole_number("steps", steps, minimum=1)
    grid = grid_of(prompt) if images else None
    if grid is None:
        raise InvalidInputError("The document has no image to explain. Pass a page or an image.")
    owner = np.zeros(len(grid), np.int32) if grid.images is None else grid.images
    mask = ~np.isnan(grid.boxes).any(axis=1) & (owner < images)

    def explain(batch: Batch) -> tuple[Float32, float]:
        if method == "attention":
            return _attention(model, score, batch, mask)
        return _gradient(model, score, batch, prompt, images, steps)

    for attempt in (1, 2):
        try:
            # Disable a caller's inference mode, because tensors created in inference mode cannot be differentiated.
            with torch.inference_mode(False), no_autocast(model.placement.device):
                weights, raw = explain(model.prepare([prompt]))
            break
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            if attempt == 2 or not model.offload_others():
                release_memory(model.placement.device)
                raise ModelError(
                    f"Explaining a pair of {len(prompt)} tokens does not fit into the memory of "
                    f"{model.placement.device}. Lower max_pixels, or pass method='attention'."
                ) from exc
        release_memory(model.placement.device)  # after `except`, so that the activations can be freed
    if not (np.isfinite(weights).all() and np.isfinite(raw)):
        raise ModelError(
            f"The explanation contains NaN or infinity on {model.placement.device}. Load the model with "
            "dtype='bfloat16' or 'float32', or pass method='attention'."
        )
    return Attribution(grid.boxes[mask], weights, owner[mask], raw)


def _raw_score(model: QwenVL, score: torch.nn.Module, batch: Batch) -> torch.Tensor:
    hidden = model.hidden(batch)
    raw: torch.Tensor = score(hidden[:, batch.lengths[0] - 1])[0, 0]
    return raw


def _gradient(
    model: QwenVL, score: torch.nn.Module, batch: Batch, prompt: Prompt, images: int, steps: int
) -> tuple[Float32, float]:
    assert batch.patches is not None
    assert batch.grids is not None
    # Normalized values, which have gradients, unlike bytes.
    patches = model.patcher.pixel_values(batch.patches, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        raw = float(_raw_score(model, score, batch))
    difference = patches - _mean_color_images(patches, batch.grids)
    contributions = torch.zeros(len(patches))
    with torch.enable_grad(), _activation_checkpointing(model.module.model):
        for step in range(steps):
            # Midpoint rule: the middle of each of `steps` equal intervals.
            point = (patches - (step + 0.5) / steps * difference).requires_grad_(True)
            (gradient,) = torch.autograd.grad(_raw_score(model, score, replace(batch, patches=point)), point)
            contributions += (gradient * difference).sum(dim=1) / steps
    # The patches of one token are consecutive, so the sum over each group of patches belongs to one token.
    tokens = contributions.view(-1, model.patcher.merge**2).sum(dim=1)
    assert batch.feature_rows is not None
    count = sum(image.tokens for image in prompt.images[:images])
    return tokens[batch.feature_rows[:count]].numpy(), raw


def _mean_color_images(patches: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Return `patches` with each pixel replaced by the mean color of the image; shape and dtype are unchanged."""
    mean_images = []
    for part in torch.split(patches, grids.prod(dim=1).tolist()):
        color = part.view(len(part), 3, -1).mean(dim=(0, 2))
        mean_images.append(color.repeat_interleave(part.shape[1] // 3).expand_as(part))
    return torch.cat(mean_images)


@contextmanager
def _activation_checkpointing(base: Any) -> Iterator[None]:  # noqa: ANN401  # Qwen2VLModel or Qwen2_5_VLModel
    """Store only the input of each layer until the context ends; the backward pass recomputes the activations.

    transformers supports activation checkpointing in training mode only, so this function patches the layers. The
    caller holds the model's lock.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost (2016).
    """
    layers = [*base.visual.blocks, *base.language_model.layers]
    for layer in layers:
        forward: Callable[..., Any] = layer.forward
        layer.forward = partial(activation_checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # restores the method of the class


def _attention(
    model: QwenVL, score: torch.nn.Module, batch: Batch, mask: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[Float32, float]:
    with torch.no_grad(), _LastTokenAttention() as recorder:
        raw = float(_raw_score(model, score, batch))
    base: Any = model.module.model
    layers = len(base.language_model.layers)
    if len(recorder.rows) != layers:
        raise ModelError(
            f"Attention was recorded for {len(recorder.rows)} of {layers} layers. This version of transformers is not "
            "supported. Pass method='gradient'."
        )
    mean: Float32 = torch.stack(recorder.rows).mean(dim=0).cpu().numpy()
    return mean[mask], raw


class _LastTokenAttention(TorchFunctionMode):
    """Records the attention weights of the last token in each causal attention call.

    PyTorch's attention functions return no weights, so the weights are computed a second time. The
    `TorchFunctionMode` affects the current thread only. Calls of the vision tower are ignored, because attention in the
    vision tower is not causal.

    Attributes:
        rows: Attention weights of each layer, averaged over the heads; shape (tokens,), float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and kwargs.get("is_causal"):
            # Shape (batch, heads, tokens, width); several query heads share one key head.
            query, key = (
                args[index] if index < len(args) else kwargs[name] for index, name in enumerate(("query", "key"))
            )
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            scale = kwargs.get("scale") or query.shape[-1] ** -0.5
            logits = torch.einsum("hd,hnd->hn", query[0, :, -1].float(), key[0].float()) * scale
            self.rows.append(logits.softmax(dim=-1).mean(dim=0))
        return func(*args, **kwargs)
