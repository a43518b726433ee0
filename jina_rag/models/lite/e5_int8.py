"""Requantization of the e5 weights from 4 bits to int8 at every load, for 8-bit matrix products.

The int8 weights are not cached on disk, because the conversion takes a fraction of a second, less than the verification
of a cache file. A cache file could also be outdated or incomplete.
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
"""Largest absolute int8 weight. With this limit, the sum of two products of weight and activation fits into 16 bits
(see tools/build_lite_graph.py).
"""
PRODUCTS = {"qkv": ("q", "k", "v"), "ao": ("ao",), "fi": ("fi",), "fo": ("fo",)}
"""The four matrix products of a layer, by name. The value lists the tensors of the weight file whose
concatenation is the weight matrix of the product.
"""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Quantization parameters of the activations, measured by tools/calibrate_lite.py.

    Each attribute maps the name of a matrix product (a key of `PRODUCTS`) to an array.

    Attributes:
        smooth: Smoothing factor per channel, shape (layers, columns), float32. Activations of a channel are divided by
            the factor, and the weights of the channel's column are multiplied by the factor.
        scale: Quantization step of the activation, shape (layers,), float32.
        zero: Zero point of the activation, shape (layers,), uint8.
    """

    smooth: dict[str, Float32]
    scale: dict[str, Float32]
    zero: dict[str, npt.NDArray[np.uint8]]

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read a calibration file.

        Args:
            path: File in NumPy's ``.npz`` format.

        Raises:
            CheckpointError: If the file is missing or not a calibration.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(
                    {name: arrays[f"{name}.smooth"].astype(np.float32) for name in PRODUCTS},
                    {name: arrays[f"{name}.scale"] for name in PRODUCTS},
                    {name: arrays[f"{name}.zero"] for name in PRODUCTS},
                )
        except (OSError, KeyError, ValueError) as exc:
            raise CheckpointError(f"The calibration file {path} cannot be read ({exc}). Reinstall jina-rag.") from exc

    def write(self, path: Path) -> None:
        """Write a calibration file.

        The smoothing factors are stored as float16; factors that are already rounded to float16 are stored exactly.

        Args:
            path: File to write, in NumPy's ``.npz`` format.
        """
        arrays: dict[str, Any] = {}
        for name in PRODUCTS:
            arrays[f"{name}.smooth"] = self.smooth[name].astype(np.float16)
            arrays[f"{name}.scale"] = self.scale[name]
            arrays[f"{name}.zero"] = self.zero[name]
        np.savez_compressed(path, **arrays)


def layer_tensors(weights: E5Weights, calibration: Calibration, layer: int) -> dict[str, npt.NDArray[Any]]:
    """Return all tensors of one layer.

    Args:
        weights: The mapped weight file.
        calibration: Quantization parameters of the activations.
        layer: Index of the layer, from 0.

    Returns:
        Arrays by tensor name in the graph: weights of shape (columns, outputs), int8; scalar zero points, uint8; scalar
        scales, float32; weight steps, biases, layer norms and reciprocal smoothing factors of shape (n,), float32.

    Raises:
        CheckpointError: If the weight file lacks a tensor.
    """
    tensors: dict[str, npt.NDArray[Any]] = {}
    prefix = f"l{layer}"
    for name, parts in PRODUCTS.items():
        rows = weights.ffn if name == "fi" else weights.hidden
        blocks = np.concatenate([weights.blocks(f"{prefix}.{part}.w", rows) for part in parts])
        bias = np.concatenate([weights.floats(f"{prefix}.{part}.b") for part in parts])
        smooth = calibration.smooth[name][layer]
        quantised, steps = quantise(blocks, smooth)
        if name == "qkv":
            # The attention output is a weighted mean of the value vectors, so the division by the smoothing factors of
            # the product "ao" is moved into the weights that compute the value vectors.
            values = slice(2 * weights.hidden, None)
            steps[values] /= calibration.smooth["ao"][layer]
            bias[values] /= calibration.smooth["ao"][layer]
        if name != "ao":
            tensors[f"{prefix}.{name}.smooth"] = 1 / smooth
        tensors[f"{prefix}.{name}.scale"] = calibration.scale[name][layer, ...]
        tensors[f"{prefix}.{name}.zero"] = calibration.zero[name][layer, ...]
        tensors[f"{prefix}.{name}.w"] = quantised
        tensors[f"{prefix}.{name}.steps"] = steps
        tensors[f"{prefix}.{name}.b"] = bias
    for norm in ("aln", "oln"):
        for part in ("w", "b"):
            tensors[f"{prefix}.{norm}.{part}"] = weights.floats(f"{prefix}.{norm}.{part}")
    return tensors


def quantise(blocks: npt.NDArray[np.uint8], smooth: Float32) -> tuple[npt.NDArray[np.int8], Float32]:
    """Requantize a 4-bit matrix to int8 with one quantization step per output.

    Args:
        blocks: 4-bit blocks, shape (rows, n, 18), uint8. A row has the weights of one output of the layer.
        smooth: Smoothing factor of each column, shape (32 n,), float32.

    Returns:
        The transposed matrix, shape (32 n, rows), int8 from -`LEVELS` to `LEVELS`; and the quantization step of each
        output, shape (rows,), float32.
    """
    rows, count, _ = blocks.shape
    # Transpose while the weights are packed, so that all later operations run along contiguous rows.
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
