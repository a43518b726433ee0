"""Plausibility of words by their characters: a statistic of character sequences over about 100 languages.

Words of letters A to Z, also with accents, are scored by the mean log probability of their trigrams. Words of other
scripts are scored by the share of neighboring characters that are a common pair. The statistics were computed from the
word pieces and piece probabilities of the tokenizer of the default embedder by ``tools/build_character_statistics.py``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jina_rag.types import Float32

LETTERS = 27
"""Number of classes of a Latin trigram: the boundary of a word (0) and the letters A to Z (1 to 26)."""
PAIR_BITS = 19
"""Logarithm of the number of bits in the table of the common pairs."""
_LETTERS_PER_DIGIT = 4
_OTHER_LETTER, _DIGIT, _SYMBOL, _PRIVATE = 27, 28, 29, 30
# Punctuation outside ASCII: quotation marks, dashes, ellipsis, bullets, ideographic and full-width punctuation.
_PUNCTUATION = (
    *map(ord, "\u00ab\u00bb\u00b7\u00bf\u00a1\u00b0\u2026\u2022\u2032\u2033\u00ad"),
    *range(0x2010, 0x2020),
    *range(0x3000, 0x3030),
    *range(0xFF01, 0xFF66),
)
_PRIME = np.uint64(0x9E3779B97F4A7C15)
# Latin letters that Unicode does not decompose.
_FOLDED = dict(zip("ßøłđıæœþðħŋəɛɔ", "soldiaotdhneeo", strict=True))
_TABLE_SIZE = 0x10000
# Chinese, Japanese and Korean characters.
_FIRST_LARGE_SCRIPT = 0x2E80
# Chinese characters, Hangul syllables, surrogates and private use: the class is known without the Unicode database.
_LARGE_BLOCKS = (range(0x3400, 0xA000), range(0xAC00, 0xD7A4), range(0xD800, 0xF900))


class Statistics(NamedTuple):
    """Statistics of character sequences, computed by ``tools/build_character_statistics.py``.

    Attributes:
        trigrams: Log probability of a class of letters given the two before, shape (27, 27, 27), float32.
        pairs: Bits of the common pairs at the positions of `pair_hashes`, shape (65,536,), uint8.
        classes: Class of each code point below 0x10000, and one class for all others, shape (65,537,), uint8.
    """

    trigrams: Float32
    pairs: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class WordScores:
    """Properties of the words of a page, one value per word.

    Attributes:
        latin: Mean log probability of the trigrams, shape (words,), float32; NaN for words with fewer than three
            letters A to Z, with other letters, or with a digit for fewer than four letters.
        reversed_latin: The same for the letters in reverse order, shape (words,), float32.
        pairs: Share of the neighboring letters of other scripts that are a common pair, shape (words,), float32; NaN
            for words without such a pair.
        pair_counts: Number of neighboring letters of other scripts, shape (words,), int64.
        is_large_script: Whether the word has a character of a script with thousands of characters, shape (words,),
            bool.
        is_symbols: Whether the word has at least two different symbols and no letter or digit, or a third of its
            characters are rare symbols, shape (words,), bool.
        is_private: Whether at least half of the characters are in a private-use area, shape (words,), bool.
    """

    latin: Float32
    reversed_latin: Float32
    pairs: Float32
    pair_counts: npt.NDArray[np.int64]
    is_large_script: npt.NDArray[np.bool_]
    is_symbols: npt.NDArray[np.bool_]
    is_private: npt.NDArray[np.bool_]


def score_words(texts: Sequence[str]) -> WordScores:
    """Return the scores of words.

    Args:
        texts: Words without white space. A page has a few hundred.
    """
    trigrams, bits, table = statistics()
    joined = "\n" + "".join(text + "\n" for text in texts)
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    classes = table[np.where(codes < _TABLE_SIZE, codes, _TABLE_SIZE)]
    breaks = np.flatnonzero(codes == 10)
    starts, ends = breaks[:-1] + 1, breaks[1:]
    lengths = ends - starts
    if len(texts) == 0:
        empty = np.zeros(0, np.float32)
        no = np.zeros(0, bool)
        return WordScores(empty, empty, empty, np.zeros(0, np.int64), no, no, no)

    def count(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        total = np.concatenate(([0], np.cumsum(mask)))
        return np.asarray(total[ends] - total[starts], np.int64)

    is_latin = (classes > 0) & (classes < LETTERS)
    latin_count, other_count = count(is_latin), count(classes == _OTHER_LETTER)
    digit_count, private_count = count(classes == _DIGIT), count(classes == _PRIVATE)
    letters = np.where(is_latin, classes, 0).astype(np.int64)
    # Shifted codes turn capital letters into digits, so a word with few digits is a word of letters.
    is_word = (
        (latin_count >= 3) & (other_count + private_count == 0) & (_LETTERS_PER_DIGIT * digit_count <= latin_count)
    )
    latin = _mean_trigrams(trigrams, letters, starts, ends, is_word)
    reversed_latin = _mean_trigrams(trigrams.transpose(2, 1, 0), letters, starts, ends, is_word)

    is_pair = (classes[:-1] == _OTHER_LETTER) & (classes[1:] == _OTHER_LETTER)
    is_common = np.zeros(len(is_pair), bool)
    at = np.flatnonzero(is_pair)
    if len(at):
        folded = _fold_codes(codes)
        hashes = pair_hashes(folded[at], folded[at + 1])
        is_common[at] = (bits[hashes >> 3] >> (hashes & 7).astype(np.uint8)) & 1
    pair_counts = count(np.append(is_pair, False))
    common_counts = count(np.append(is_common, False))
    pairs = np.where(pair_counts > 0, common_counts / np.maximum(pair_counts, 1), np.nan).astype(np.float32)

    symbol_count = count(classes == _SYMBOL)
    is_varied = np.array([len(set(text)) >= 2 for text in texts], bool)
    odd_count = count((classes == _SYMBOL) & (codes >= 0xA0) & ~np.isin(codes, _PUNCTUATION))
    is_symbols = (symbol_count == lengths) & (lengths >= 2) & is_varied
    is_symbols |= (odd_count >= 2) & (3 * odd_count >= lengths)
    is_private = (2 * private_count >= lengths) & (lengths >= 2) & is_varied
    is_large = count((codes >= _FIRST_LARGE_SCRIPT) & (classes == _OTHER_LETTER)) > 0
    return WordScores(latin, reversed_latin, pairs, pair_counts, is_large, is_symbols, is_private)


def _mean_trigrams(
    trigrams: Float32,
    letters: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    is_word: npt.NDArray[np.bool_],
) -> Float32:
    """Return the mean log probability of the trigrams around the letters of each word; NaN outside `is_word`."""
    values = np.zeros(len(letters), np.float64)
    values[1:-1] = trigrams[letters[:-2], letters[1:-1], letters[2:]]
    # A trigram without a letter in the middle is a hyphen or an apostrophe.
    values[letters == 0] = 0
    totals = np.concatenate(([0.0], np.cumsum(values)))
    counts = np.concatenate(([0], np.cumsum(letters > 0)))
    number = np.maximum(counts[ends] - counts[starts], 1)
    return np.where(is_word, (totals[ends] - totals[starts]) / number, np.nan).astype(np.float32)


def character_classes() -> npt.NDArray[np.uint8]:
    """Return the class of each code point below 0x10000, and one class for all others: shape (65,537,), uint8.

    The table takes 50 ms to compute, so it is stored with the statistics.
    """
    classes = np.full(_TABLE_SIZE + 1, _OTHER_LETTER, np.uint8)
    classes[0xD800:0xE000] = _PRIVATE
    classes[0xE000:0xF900] = _PRIVATE
    for code in range(_TABLE_SIZE):
        if any(code in block for block in _LARGE_BLOCKS):
            continue
        character = chr(code)
        category = unicodedata.category(character)
        if letter := fold_latin(character):
            classes[code] = ord(letter) - 96
        elif category[0] == "N":
            classes[code] = _DIGIT
        elif 0x300 <= code < 0x370:
            classes[code] = 0  # a combining accent; ignored in Latin words
        elif category[0] not in "LM" and category != "Cf":
            classes[code] = _SYMBOL
    classes[10] = 0
    return classes


def pair_hashes(first: npt.NDArray[np.uint32], second: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return the positions of pairs of code points in the table of the common pairs, shape (n,), int64.

    Args:
        first: Code points, shape (n,), uint32.
        second: The code points that follow, shape (n,), uint32.
    """
    keys = (first.astype(np.uint64) << np.uint64(21)) | second.astype(np.uint64)
    return np.asarray((keys * _PRIME) >> np.uint64(64 - PAIR_BITS), np.int64)


def fold_latin(character: str) -> str:
    """Return the letter A to Z, in lower case, that a Latin letter is derived from; "" for other characters.

    Args:
        character: A character.
    """
    lower = character.lower()[:1]
    base = unicodedata.normalize("NFKD", _FOLDED.get(lower, lower))[:1]
    return base if "a" <= base <= "z" else ""


def _fold_codes(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the code points in lower case, for the scripts with upper case letters."""
    greek_or_cyrillic = (codes >= 0x370) & (codes < 0x590)
    if not greek_or_cyrillic.any():
        return codes
    folded = codes.copy()
    folded[greek_or_cyrillic] = [ord(chr(code).lower()[0]) for code in codes[greek_or_cyrillic].tolist()]
    return folded


@cache
def statistics() -> Statistics:
    """Return the statistics in the package."""
    data = (files("jina_rag.parsing.text_layer") / "_assets" / "characters.npz").read_bytes()
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        trigrams = arrays["trigrams"].astype(np.float32) / -16
        return Statistics(trigrams.reshape(LETTERS, LETTERS, LETTERS), arrays["pairs"], arrays["classes"])
