"""How much of two texts is the same, estimated from a few hundred bytes of each: MinHash over character n-grams.

The share of positions in which two signatures agree is an unbiased estimate of the Jaccard similarity of the texts'
sets of n-grams, with a standard error of sqrt(J (1 − J) / size) (Broder, 1997). Of each minimum 16 bits are kept, which
adds 1/65536 (b-bit minwise hashing, Li and König, 2010).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError

UInt64 = npt.NDArray[np.uint64]
Signature = npt.NDArray[np.uint16]
_GAP: Final = re.compile(r"[\W_]+")
_TOGETHER = 2048
"""n-grams that are hashed at once: a long text must not take memory of its own."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def near_text(text: str) -> str:
    """Letters and digits in one case with single spaces between words: what punctuation does not change."""
    return _GAP.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def ngrams(text: str, n: int) -> UInt64:
    """Hash every n-gram of characters.

    Args:
        text: As `near_text` gives it.
        n: Characters of each.

    Returns:
        Shape (n-grams,), repeated ones included; one for a text that is not longer than n, none for an empty one.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if len(codes) == 0:
        return codes
    n = min(n, len(codes))
    hashes: UInt64 = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    for place in range(n):
        hashes = hashes * _MULTIPLIER + codes[place : len(codes) - n + 1 + place]
    # The finaliser of SplitMix64: each bit of the n-gram reaches each bit of the hash.
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def signature(text: str, *, n: int, size: int, seed: int) -> Signature:
    """Sign a text.

    Args:
        text: As `near_text` gives it.
        n: Characters of an n-gram.
        size: Number of hash functions.
        seed: Of the hash functions.

    Returns:
        Shape (size,) uint16; zeros for an empty text.

    Raises:
        InvalidInputError: If `n` or `size` is less than 1.
    """
    if n < 1 or size < 1:
        raise InvalidInputError(f"A signature needs n-grams and a size of at least 1, got {n} and {size}.")
    # A text may say the same a thousand times: each n-gram counts once, which changes no minimum.
    hashes = np.unique(ngrams(text, n))
    factors, offsets = _functions(size, seed)
    lowest = np.full(size, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(hashes), _TOGETHER):
        some = hashes[start : start + _TOGETHER]
        np.minimum(lowest, (factors[:, None] * some + offsets[:, None]).min(axis=1), out=lowest)
    if len(hashes) == 0:
        lowest[:] = 0
    # The minimum's high bits are nearly all zero; its middle bits are as good as random.
    return ((lowest >> np.uint64(24)) & np.uint64(0xFFFF)).astype(np.uint16)


def agreement(one: Signature, other: Signature) -> float:
    """The estimated Jaccard similarity, 0 to 1."""
    return float(np.mean(one == other))


@functools.lru_cache(maxsize=8)
def _functions(size: int, seed: int) -> tuple[UInt64, UInt64]:
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, 2**63, size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return factors, rng.integers(0, 2**63, size, dtype=np.uint64)
