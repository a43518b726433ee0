"""The weights of the 12 layers as 8-bit matrix products want them, made from the 4-bit file at every load.

Nothing is cached on disk: the conversion takes a fraction of a second, which is less than checking a cache
would need to be trusted, and there is no file that could be stale, shared by mistake or half written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag.errors import CheckpointError
from jina_rag.models.lite.e5_weights import BLOCK, E5Weights
from jina_rag.types import Float32

LEVELS = 63
"""Of a weight, on either side of 0: two products must fit into 16 bits (see tools/build_lite_graph.py)."""
PRODUCTS = {"qkv": ("q", "k", "v"), "ao": ("ao",), "fi": ("fi",), "fo": ("fo",)}
"""The four matrix products of a layer, and the tensors of the file that make each up."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How activations are quantised, found once by tools/calibrate_lite.py.

    Attributes:
        smooth: Per product shape (layers, columns) float32: a channel is divided by its factor, and the
            weights that read it are multiplied with it.
        scale: Per product shape (layers,) float32: one step of the quantised activation.
        zero: Per product shape (layers,) uint8: the step that stands for 0.
    """

    smooth: dict[str, Float32]
    scale: dict[str, Float32]
    zero: dict[str, npt.NDArray[np.uint8]]

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read the file.

        Raises:
            CheckpointError: If it is missing or not a calibration.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(
                    {name: arrays[f"{name}.smooth"].astype(np.float32) for name in PRODUCTS},
                    {name: arrays[f"{name}.scale"] for name in PRODUCTS},
                    {name: arrays[f"{name}.zero"] for name in PRODUCTS},
                )
        except (OSError, KeyError, ValueError) as exc:
            raise CheckpointError(f"The calibration {path} cannot be read ({exc}): reinstall jina-rag.") from exc

    def write(self, path: Path) -> None:
        """Write the file; factors are kept in float16, and should have been rounded to it."""
        arrays: dict[str, Any] = {}
        for name in PRODUCTS:
            arrays[f"{name}.smooth"] = self.smooth[name].astype(np.float16)
            arrays[f"{name}.scale"] = self.scale[name]
            arrays[f"{name}.zero"] = self.zero[name]
        np.savez_compressed(path, **arrays)


def layer_tensors(weights: E5Weights, calibration: Calibration, layer: int) -> dict[str, npt.NDArray[Any]]:
    """All tensors of one layer, by their names in the graph."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    at = f"l{layer}"
    for name, parts in PRODUCTS.items():
        rows = weights.ffn if name == "fi" else weights.hidden
        blocks = np.concatenate([weights.blocks(f"{at}.{part}.w", rows) for part in parts])
        bias = np.concatenate([weights.floats(f"{at}.{part}.b") for part in parts])
        smooth = calibration.smooth[name][layer]
        quantised, steps = quantise(blocks, smooth)
        if name == "qkv":
            # The attention output is a mean of values, so the values themselves can be divided for it.
            values = slice(2 * weights.hidden, None)
            steps[values] /= calibration.smooth["ao"][layer]
            bias[values] /= calibration.smooth["ao"][layer]
        if name != "ao":
            tensors[f"{at}.{name}.smooth"] = 1 / smooth
        tensors[f"{at}.{name}.scale"] = calibration.scale[name][layer, ...]
        tensors[f"{at}.{name}.zero"] = calibration.zero[name][layer, ...]
        tensors[f"{at}.{name}.w"] = quantised
        tensors[f"{at}.{name}.steps"] = steps
        tensors[f"{at}.{name}.b"] = bias
    for norm in ("aln", "oln"):
        for part in ("w", "b"):
            tensors[f"{at}.{norm}.{part}"] = weights.floats(f"{at}.{norm}.{part}")
    return tensors


def quantise(blocks: npt.NDArray[np.uint8], smooth: Float32) -> tuple[npt.NDArray[np.int8], Float32]:
    """Requantise a 4-bit matrix with one step per output.

    Args:
        blocks: Shape (rows, n, 18) uint8; a row is an output.
        smooth: Shape (32 n,): factor of each column.

    Returns:
        The matrix transposed, shape (32 n, rows) int8 within ±`LEVELS`, and the size of a step, shape
        (rows,).
    """
    rows, count, _ = blocks.shape
    # Transposed first, while the weights are still packed: everything after runs along contiguous rows.
    packed = np.ascontiguousarray(blocks[..., 2:].transpose(1, 2, 0))
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0].astype(np.float32)
    half = BLOCK // 2
    values = np.empty((count, BLOCK, rows), dtype=np.float32)
    np.bitwise_and(packed, 15, out=values[:, :half], casting="unsafe")
    np.right_shift(packed, 4, out=values[:, half:], casting="unsafe")
    values -= 8
    values *= np.ascontiguousarray(scales.T)[:, None, :]
    values *= smooth.reshape(count, BLOCK, 1)
    steps = np.maximum(values.max(axis=(0, 1)), -values.min(axis=(0, 1))) / LEVELS
    steps[steps == 0] = 1
    values /= steps
    np.rint(values, out=values)
    return values.reshape(-1, rows).astype(np.int8), steps
