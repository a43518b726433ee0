"""Validation of vectors and scores before a model returns them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from jina_rag.errors import ModelError
from jina_rag.models.runtime.devices import Placement
from jina_rag.types import Float32


def check_vectors(vectors: Iterable[Float32 | None], name: str, placement: Placement) -> None:
    """Raise an error if a vector contains NaN or infinity, or has norm 0.

    Args:
        vectors: Normalized vectors, each of shape (dim,) or (tokens, dim), float32; None is skipped.
        name: Name of the model, for the message.
        placement: Placement of the model, which selects the remedy in the message.

    Raises:
        ModelError: If a vector contains NaN or infinity, or has norm 0.
    """
    for array in vectors:
        if array is None or not array.size:
            continue
        norms = np.einsum("...d,...d->...", array, array)
        if not np.isfinite(norms).all():
            raise ModelError(f"{name} returned NaN or infinite vectors on {placement.device}. {_remedy(placement)}")
        if not norms.all():
            raise ModelError(f"{name} returned zero vectors on {placement.device}. {_remedy(placement)}")


def check_scores(scores: Float32, name: str, placement: Placement) -> None:
    """Raise an error if scores contain NaN or infinity.

    Args:
        scores: Scores, shape (n,), float32.
        name: Name of the model, for the message.
        placement: Placement of the model, which selects the remedy in the message.

    Raises:
        ModelError: If a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ModelError(f"{name} returned NaN or infinite scores on {placement.device}. {_remedy(placement)}")


def _remedy(placement: Placement) -> str:
    if placement.device.type == "mps":
        return "This is a known problem of some Macs. Pass device='cpu' (--device cpu)."
    if str(placement.dtype) == "torch.float16":
        return "The range of float16 is too small. Pass dtype='bfloat16' or 'float32' (--dtype)."
    return "The weights or the driver may be damaged. Run `jina-rag doctor`, or pass dtype='float32' or device='cpu'."
