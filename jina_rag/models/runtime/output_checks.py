"""What every model checks before it hands out vectors or scores."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from jina_rag.errors import ModelError
from jina_rag.models.runtime.devices import Placement
from jina_rag.types import Float32


def check_vectors(vectors: Iterable[Float32 | None], name: str, placement: Placement) -> None:
    """Refuse vectors that are not numbers, or have no direction.

    Args:
        vectors: Each of shape (dim,) or (tokens, dim), normalised; None is passed over.
        name: Of the model.
        placement: Where it runs; decides the way out that is named.

    Raises:
        ModelError: With the way out.
    """
    for array in vectors:
        if array is None or not array.size:
            continue
        norms = np.einsum("...d,...d->...", array, array)
        if not np.isfinite(norms).all():
            raise ModelError(f"{name} gave vectors with NaN on {placement.device}: {_way_out(placement)}")
        if not norms.all():
            raise ModelError(f"{name} gave vectors of zeros on {placement.device}: {_way_out(placement)}")


def check_scores(scores: Float32, name: str, placement: Placement) -> None:
    """Refuse scores that are not numbers.

    Raises:
        ModelError: With the way out.
    """
    if not np.isfinite(scores).all():
        raise ModelError(f"{name} gave scores that are not numbers on {placement.device}: {_way_out(placement)}")


def _way_out(placement: Placement) -> str:
    if placement.device.type == "mps":
        return "this happens on some Macs; load it with device='cpu'."
    if str(placement.dtype) == "torch.float16":
        return "float16 has too small a range for it; load it with dtype='bfloat16' or 'float32'."
    return "the weights or the driver may be damaged; `jina-rag doctor` tells. Try dtype='float32' or device='cpu'."
