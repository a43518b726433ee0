"""Which part of a page carried the score that jina-reranker-m0 gave it.

Two readings. ``"gradient"``: integrated gradients (Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks",
2017) from an image of one colour, its own mean, to the image as it is: what each token's pixels add to the raw score.
``"attention"``: how much of the score token's attention rests on each image token, the mean over layers and heads. The
first says what the score would lose without a place, for several passes forward and back; the second costs one pass
forward, and says where the model looked.
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
from torch.utils.checkpoint import checkpoint as recomputed

from jina_rag._checks import check_whole_number
from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.models.jina.qwen_vl import Batch, QwenVL
from jina_rag.models.jina.vl_prompts import Prompt, grid_of
from jina_rag.models.runtime.devices import is_out_of_memory, own_precision, release_memory
from jina_rag.types import Attribution, Float32

Method = Literal["gradient", "attention"]
STEPS = 4
"""Points on the way from the plain image to the page; each costs a pass forward and back. Measured on the tiny
checkpoint and 200 pairs: covering the best place changed the score more than covering another one in 86, 89 and 91 %
of the pairs with 1, 2 and 4 points."""


def attribute(
    model: QwenVL,
    score: torch.nn.Module,
    prompt: Prompt,
    images: int,
    *,
    method: Method = "gradient",
    steps: int = STEPS,
) -> Attribution:
    """Spread the score of one prompt over the tokens of its first images.

    The caller holds the model's turn and its lock. Parameters stay without gradients. The gradient is computed back to
    the pixels with each layer's inside recomputed, so that memory holds one layer at a time.

    Args:
        model: The backbone.
        score: The head, from the last token's hidden state to the raw score.
        prompt: With the score token at its end.
        images: How many of the prompt's images belong to the document; they come first.
        method: ``"gradient"`` or ``"attention"``.
        steps: Passes of the gradient, at least 1.

    Raises:
        InvalidInputError: If the method is unknown, `steps` is below 1, or the document has no image.
        ModelError: If it does not fit into memory, or the result is not a number.
    """
    if method not in ("gradient", "attention"):
        raise InvalidInputError(f"method is 'gradient' or 'attention', got {method!r}.")
    check_whole_number("steps", steps, minimum=1)
    grid = grid_of(prompt) if images else None
    if grid is None:
        raise InvalidInputError("The document has no image, so no part of one carried its score: give a page or image.")
    owner = np.zeros(len(grid), np.int32) if grid.images is None else grid.images
    mask = ~np.isnan(grid.boxes).any(axis=1) & (owner < images)

    def read(batch: Batch) -> tuple[Float32, float]:
        if method == "attention":
            return _attention(model, score, batch, mask)
        return _gradient(model, score, batch, prompt, images, steps)

    for tries in (1, 2):
        try:
            # A caller's own inference mode would leave nothing to differentiate.
            with torch.inference_mode(False), own_precision(model.placement.device):
                weights, raw = read(model.prepare([prompt]))
            break
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            if tries == 2 or not model.offload_others():
                release_memory(model.placement.device)
                raise ModelError(
                    f"Explaining a pair of {len(prompt)} tokens does not fit into the memory of "
                    f"{model.placement.device}: lower max_pixels, or use method='attention'."
                ) from exc
        release_memory(model.placement.device)  # outside of `except`, whose traceback holds what was computed so far
    if not (np.isfinite(weights).all() and np.isfinite(raw)):
        raise ModelError(
            f"An explanation on {model.placement.device} is not made of numbers: load the model with dtype='bfloat16' "
            "or 'float32', or use method='attention'."
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
    patches = batch.patches
    with torch.no_grad():
        raw = float(_raw_score(model, score, batch))
    away = patches - _plain(patches, batch.grids)
    gains = torch.zeros(len(patches))
    with torch.enable_grad(), _recomputing(model.module.model):
        for step in range(steps):
            # The middle of each of `steps` equal pieces: the midpoint rule of the integral.
            at = (patches - (step + 0.5) / steps * away).requires_grad_(True)
            (slope,) = torch.autograd.grad(_raw_score(model, score, replace(batch, patches=at)), at)
            gains += (slope * away).sum(dim=1) / steps
    # Patches come in blocks of those that one token stands for.
    tokens = gains.view(-1, model.patcher.merge**2).sum(dim=1)
    assert batch.sources is not None
    count = sum(image.tokens for image in prompt.images[:images])
    return tokens[batch.sources[:count]].numpy(), raw


def _plain(patches: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """The same images in one colour each, their own mean; shape of `patches`."""
    plain = []
    for part in torch.split(patches, grids.prod(dim=1).tolist()):
        colour = part.view(len(part), 3, -1).mean(dim=(0, 2))
        plain.append(colour.repeat_interleave(part.shape[1] // 3).expand_as(part))
    return torch.cat(plain)


@contextmanager
def _recomputing(base: Any) -> Iterator[None]:  # noqa: ANN401  # one of two stock classes
    """Let each layer keep only what comes in, and run again on the way back (Chen et al. 2016).

    transformers does so in training only; the caller's lock keeps others from meeting the change.
    """
    layers = [*base.visual.blocks, *base.language_model.layers]
    for layer in layers:
        inside: Callable[..., Any] = layer.forward
        layer.forward = partial(recomputed, inside, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own is there again


def _attention(
    model: QwenVL, score: torch.nn.Module, batch: Batch, mask: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[Float32, float]:
    with torch.no_grad(), _LastRows() as recorder:
        raw = float(_raw_score(model, score, batch))
    base: Any = model.module.model
    layers = len(base.language_model.layers)
    if len(recorder.rows) != layers:
        raise ModelError(
            f"{len(recorder.rows)} of {layers} layers showed their attention: this version of transformers computes it "
            "elsewhere. Use method='gradient'."
        )
    mean: Float32 = torch.stack(recorder.rows).mean(dim=0).cpu().numpy()
    return mean[mask], raw


class _LastRows(TorchFunctionMode):
    """Computes, beside each causal attention in its reach, the last token's weights: the kernels give none.

    Only this thread is watched. The vision tower's attention, which is not causal, is let pass.

    Attributes:
        rows: For each layer, shape (tokens,): the mean over the heads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and kwargs.get("is_causal"):
            # (batch, heads, tokens, width); several heads share one of the keys'.
            query, key = (
                args[place] if place < len(args) else kwargs[name] for place, name in enumerate(("query", "key"))
            )
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            scale = kwargs.get("scale") or query.shape[-1] ** -0.5
            alike = torch.einsum("hd,hnd->hn", query[0, :, -1].float(), key[0].float()) * scale
            self.rows.append(alike.softmax(dim=-1).mean(dim=0))
        return func(*args, **kwargs)
