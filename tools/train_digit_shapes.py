"""Write jina_rag/parsing/text_layer/_assets/digit_shapes.npz: a network that classifies the picture of a digit.

The digits are rendered from the fonts inside PyMuPDF (URW base 35, AGPL with font exception) and matplotlib (DejaVu,
STIX and Computer Modern, freely licensed), and from the fonts in the folders given as arguments. The asset was made
with the fonts of these packages of PyPI (SIL Open Font License or Apache-2.0): font-roboto 0.0.1,
font-source-sans-pro 0.0.1, font-source-serif-pro 0.0.1, font-hanken-grotesk 0.0.2, font-manrope 0.0.2 and font-caladea
0.0.2. The asset contains no outlines and no images of a font.

Run: python tools/train_digit_shapes.py FOLDER …
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from jina_rag.parsing.text_layer.digits import FEATURES, word_features
from jina_rag.types import Float32

ASSET = Path(__file__).parents[1] / "jina_rag" / "parsing" / "text_layer" / "_assets" / "digit_shapes.npz"
HIDDEN = 32
WORDS_PER_FONT = 80
EPOCHS = 25
# Symbol and decorative fonts, whose digits are not digits or have unusual shapes.
_EXCLUDED = ("Size", "NonUni", "cmex", "cmsy", "cmmi", "Display", "Math", "amatic", "intuitive", "Intuitive", "Amatic")
_BUILT_IN = ("helv", "hebo", "heit", "hebi", "tiro", "tibo", "tiit", "tibi", "cour", "cobo", "coit", "cobi")


def fonts(folders: list[Path]) -> Iterator[bytes]:
    """Yield the font files."""
    import matplotlib
    import pymupdf

    for name in _BUILT_IN:
        yield pymupdf.Font(name).buffer
    for folder in (Path(matplotlib.get_data_path()) / "fonts" / "ttf", *folders):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in (".ttf", ".otf") and not any(part in path.name for part in _EXCLUDED):
                yield path.read_bytes()


def sample(font: bytes, random: np.random.Generator) -> tuple[list[Float32], list[int]]:
    """Return feature vectors and labels of random numbers rendered with one font."""
    features: list[Float32] = []
    labels: list[int] = []
    for _ in range(WORDS_PER_FONT):
        # Rendering at several times the size and scaling down gives positions and sizes of fractions of a pixel.
        factor = 4
        face = ImageFont.truetype(io.BytesIO(font), int(random.integers(9 * factor, 42 * factor)))
        text = "".join(map(str, random.integers(0, 10, int(random.integers(2, 6)))))
        ascent, descent = face.getmetrics()
        width, height = face.getlength(text), ascent + descent
        size = (int(width) + 60 * factor, height + 40 * factor)
        image = Image.new("L", size, 255)
        left, top = random.uniform(10, 30, 2) * factor
        ImageDraw.Draw(image).text((left, top), text, fill=int(random.integers(0, 90)), font=face)
        small = image.resize((size[0] // factor, size[1] // factor), Image.Resampling.BOX)
        if random.random() < 0.2:
            small = small.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.8)))
        if random.random() < 0.2:
            small = small.point(lambda value: 255 - value)
        jitter = random.normal(0, 0.02, 4) * height / factor
        sides = np.array((left, top, left + width, top + height)) / factor + jitter
        box = tuple(sides / (small.width, small.height, small.width, small.height))
        vectors = word_features(small.convert("RGB"), box, len(text))  # type: ignore[arg-type]
        if vectors:
            features += vectors
            labels += map(int, text)
    return features, labels


def train(features: Float32, labels: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the weights of a network with one hidden layer, trained with Adam."""
    shapes = {"hidden_weights": (FEATURES, HIDDEN), "hidden_bias": (HIDDEN,), "weights": (HIDDEN, 10), "bias": (10,)}
    values = {name: random.normal(0, (2 / shape[0]) ** 0.5, shape) * (len(shape) > 1) for name, shape in shapes.items()}
    first = {name: np.zeros(shape) for name, shape in shapes.items()}
    second = {name: np.zeros(shape) for name, shape in shapes.items()}
    step = 0
    for epoch in range(EPOCHS):
        order = random.permutation(len(features))
        rate = 2e-3 * (1 - epoch / EPOCHS) + 1e-5
        for start in range(0, len(order), 256):
            batch = order[start : start + 256]
            x, y = features[batch], labels[batch]
            hidden = np.maximum(x @ values["hidden_weights"] + values["hidden_bias"], 0)
            logits = hidden @ values["weights"] + values["bias"]
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            error = odds / odds.sum(axis=1, keepdims=True)
            error[np.arange(len(y)), y] -= 1
            error /= len(y)
            back = (error @ values["weights"].T) * (hidden > 0)
            gradients = {
                "weights": hidden.T @ error,
                "bias": error.sum(axis=0),
                "hidden_weights": x.T @ back + 1e-4 * values["hidden_weights"],
                "hidden_bias": back.sum(axis=0),
            }
            step += 1
            for name, gradient in gradients.items():
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                mean, variance = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                values[name] -= rate * mean / (np.sqrt(variance) + 1e-8)
    return values


def main() -> None:
    """Train the network, print its accuracy on the training fonts, and write the asset."""
    random = np.random.default_rng(18)
    features: list[Float32] = []
    labels: list[int] = []
    for font in fonts([Path(name) for name in sys.argv[1:]]):
        vectors, digits = sample(font, random)
        features += vectors
        labels += digits
    x, y = np.stack(features), np.array(labels)
    values = train(x, y, random)
    hidden = np.maximum(x @ values["hidden_weights"] + values["hidden_bias"], 0)
    accuracy = ((hidden @ values["weights"] + values["bias"]).argmax(axis=1) == y).mean()
    ASSET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(ASSET, **{name: value.astype(np.float16) for name, value in values.items()})
    print(f"{len(y):,} digits, accuracy {accuracy:.4f}; wrote {ASSET} ({ASSET.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
