"""MinHash signatures over character n-grams, for estimating the Jaccard similarity of two texts.

The fraction of positions at which two signatures agree is an unbiased estimate of the Jaccard similarity J of the
texts' n-gram sets. The standard error of the estimate is sqrt(J (1 − J) / size). A signature stores 16 bits of each
minimum. Different minima with the same 16 bits increase the expected estimate by at most 1/65536.

Source: Broder, 1997 (MinHash); Li and König, 2010 (b-bit minwise hashing).
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
_NGRAM_BATCH = 2048
"""Number of n-grams to hash at once. The limit keeps memory independent of the length of a text."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def near_text(text: str) -> str:
    """Return the letters and digits of `text` in NFKC, case-folded, with one space for each run of other characters."""
    return _GAP.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def ngrams(text: str, n: int) -> UInt64:
    """Return a 64-bit hash of each character n-gram of a text.

    Args:
        text: A text from `near_text`.
        n: Characters per n-gram.

    Returns:
        Hashes in text order, shape (n-grams,), uint64. A repeated n-gram has one hash per occurrence. A text of at most
        `n` characters has one n-gram, and an empty text has no n-gram.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if len(codes) == 0:
        return codes
    n = min(n, len(codes))
    hashes: UInt64 = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    for offset in range(n):
        hashes = hashes * _MULTIPLIER + codes[offset : len(codes) - n + 1 + offset]
    # The finalizer of SplitMix64 mixes each bit of the n-gram into each bit of the hash.
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def signature(text: str, *, n: int, size: int, seed: int) -> Signature:
    """Return the MinHash signature of a text.

    Args:
        text: A text from `near_text`.
        n: Characters per n-gram.
        size: Number of hash functions.
        seed: Seed of the hash functions.

    Returns:
        Shape (size,), uint16; zeros for an empty text.

    Raises:
        InvalidInputError: If `n` or `size` is below 1.
    """
    if n < 1 or size < 1:
        raise InvalidInputError(f"n is {n} and size is {size}; expected both to be at least 1.")
    # A repeated n-gram does not change a minimum, so each distinct n-gram is hashed once.
    hashes = np.unique(ngrams(text, n))
    factors, offsets = _functions(size, seed)
    lowest = np.full(size, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(hashes), _NGRAM_BATCH):
        batch = hashes[start : start + _NGRAM_BATCH]
        np.minimum(lowest, (factors[:, None] * batch + offsets[:, None]).min(axis=1), out=lowest)
    if len(hashes) == 0:
        lowest[:] = 0
    # Use middle bits, because the high bits of a minimum are nearly all zero and would agree by chance.
    return ((lowest >> np.uint64(24)) & np.uint64(0xFFFF)).astype(np.uint16)


def agreement(one: Signature, other: Signature) -> float:
    """Return the estimated Jaccard similarity (0 to 1) of two texts from signatures of equal size."""
    return float(np.mean(one == other))


@functools.lru_cache(maxsize=8)
def _functions(size: int, seed: int) -> tuple[UInt64, UInt64]:
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, 2**63, size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return factors, rng.integers(0, 2**63, size, dtype=np.uint64)
