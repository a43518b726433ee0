"""Unigram tokenizer of XLM-RoBERTa and multilingual-e5 with 250,000 pieces, applied word by word.

The `tokenizers` package takes two seconds to build this model, longer than the rest of a search. This implementation
looks up pieces by a rolling hash: prefix sums over the characters give the hashes of all pieces, and of all substrings
of the words, in a few array operations. Each match is verified character by character. A property test verifies that
this implementation and `tokenizers` return the same pieces.

Source: Kudo, Subword Regularization (ACL 2018), section 3.2. The normalization follows SentencePiece's nmt_nfkc.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

META = "\u2581"
"""Marker of a word start, in place of the space before the word."""
_UNKNOWN_PENALTY = 10.0
_SPACES = "\u200b\u200c\u200d\u200e\u200f\u2581\ufeff\ufffd\x00"
_DROPPED = "".join(map(chr, (*range(1, 9), 11, *range(14, 32), 127, 0x8F, 0x9F)))
# Characters that were replaced by spaces or removed in the training text. Lone surrogates are not valid text and become
# spaces.
_CLEAN = str.maketrans(dict.fromkeys(_SPACES, " ") | dict.fromkeys(_DROPPED, ""))
_CLEAN.update(dict.fromkeys(range(0xD800, 0xE000), " "))
_FULLWIDTH_TILDE = "\uff5e"
_PRIME = 0x9E3779B97F4A7C15
_INVERSE = pow(_PRIME, -1, 1 << 64)
_SIEVE_BITS = 21
_SHIFT = np.uint64(64 - _SIEVE_BITS)

_Ints = npt.NDArray[np.int64]
_Hashes = npt.NDArray[np.uint64]
Piece = tuple[int, int, int]
"""Piece id, start and end of the characters that the piece covers."""


def normalise_text(text: str) -> str:
    r"""Return a text in NFKC form, without control characters and with spaces for invisible separators.

    Args:
        text: Any text.

    >>> normalise_text("ﬁne\u200bprint")
    'fine print'
    """
    if text.isascii():
        return text.translate(_CLEAN)
    # The full-width tilde marks ranges in Japanese and Korean and has a piece. NFKC would replace the tilde.
    parts = text.translate(_CLEAN).split(_FULLWIDTH_TILDE)
    return _FULLWIDTH_TILDE.join(unicodedata.normalize("NFKC", part) for part in parts)


class Unigram:
    """Unigram tokenizer that splits a word into the most probable pieces. Takes 10 MB of memory; thread-safe."""

    def __init__(
        self,
        letters: npt.NDArray[np.uint32],
        offsets: npt.NDArray[np.int32],
        scores: npt.NDArray[np.float32],
        *,
        unk: int,
        reserved: Sequence[int],
    ) -> None:
        """Create a tokenizer from a table of pieces, in the order of the piece ids.

        Args:
            letters: Concatenated code points of all pieces, shape (characters,), uint32.
            offsets: Start of each piece in `letters`, and the end of the last piece, shape (pieces + 1,), int32.
            scores: Log probability of each piece, shape (pieces,), float32.
            unk: Id for characters that no piece covers.
            reserved: Ids of special tokens, for example ``<s>``. The characters ``<s>`` in a text are split into
                ordinary pieces.
        """
        self._letters, self._scores = letters, scores
        self._offsets: _Ints = offsets.astype(np.int64)
        self._unk = unk
        self._unk_score = float(scores.min()) - _UNKNOWN_PENALTY
        lengths = np.diff(offsets)
        self._longest = int(lengths.max())
        sums, inverse = _prefix_hashes(letters)
        hashes = (sums[offsets[1:]] - sums[offsets[:-1]]) * inverse[offsets[:-1]]
        usable = lengths > 0
        usable[[*reserved, unk]] = False
        order = np.argsort(hashes)
        order = order[usable[order]]
        self._hashes: _Hashes = hashes[order]
        self._order = order.astype(np.int32)
        # A lookup by hash prefix rejects most substrings that are not pieces before the slower binary search.
        self._sieve = np.zeros(1 << _SIEVE_BITS, dtype=bool)
        self._sieve[(self._hashes >> _SHIFT).astype(np.int64)] = True

    def split(self, words: Sequence[str]) -> list[list[Piece]]:
        """Return the most probable segmentation of ``META + word`` for each word.

        Args:
            words: Words in the form of `normalise_text`, without white space.

        Returns:
            The pieces of each word: id, start and end. Start and end are character positions in the word without
            ``META``. For a piece that is only ``META``, start and end are equal. Adjacent unknown characters form one
            piece.
        """
        pieces_of_words: list[list[Piece]] = [[] for _ in words]
        # Each batch contains words of similar length, because the longest word sets the number of steps of a batch.
        for batch in _batches(words):
            for index, pieces in zip(batch, self._split([META + words[i] for i in batch]), strict=True):
                pieces_of_words[index] = pieces
        return pieces_of_words

    def _split(self, texts: list[str]) -> Iterator[list[Piece]]:
        """Yield the pieces of each text, by a Viterbi search over the character positions of all texts at once."""
        sizes = np.array([len(text) for text in texts])
        word, end, length, index = self._edges("".join(texts), sizes)
        steps, longest = int(sizes.max()), min(self._longest, int(sizes.max()))
        # Column longest - n contains the piece of n characters that ends at a position, so that argmax breaks ties
        # in favor of the longest piece, as SentencePiece does.
        scores = np.full((len(texts), steps + 1, longest), -np.inf)
        ids = np.full(scores.shape, self._unk, dtype=np.int32)
        scores[word, end, longest - length] = self._scores[index]
        ids[word, end, longest - length] = index
        # A character without a piece becomes the unknown piece, so every position is reachable.
        unknown_column = scores[:, :, -1]
        unknown_column[np.isneginf(unknown_column)] = self._unk_score
        best_scores = np.full((len(texts), longest + steps + 1), -np.inf)
        best_scores[:, longest] = 0.0
        choice = np.zeros((len(texts), steps + 1), dtype=np.int64)
        rows = np.arange(len(texts))
        for step in range(1, steps + 1):
            candidates = best_scores[:, step : step + longest] + scores[:, step]
            choice[:, step] = column = candidates.argmax(axis=1)
            best_scores[:, longest + step] = candidates[rows, column]
        best_ids = np.take_along_axis(ids, choice[:, :, None], axis=2)[:, :, 0]
        for size, back, piece in zip(sizes.tolist(), (longest - choice).tolist(), best_ids.tolist(), strict=True):
            yield self._path(size, back, piece)

    def _path(self, end: int, back: list[int], piece: list[int]) -> list[Piece]:
        """Return the pieces of the best path; `back[i]` and `piece[i]` are length and id of the piece ending at i."""
        path: list[Piece] = []
        while end:
            start = end - back[end]
            if path and piece[end] == self._unk == path[-1][0]:
                path[-1] = (self._unk, max(start - 1, 0), path[-1][2])
            else:
                path.append((piece[end], max(start - 1, 0), max(end - 1, 0)))
            end = start
        path.reverse()
        return path

    def _edges(self, text: str, sizes: _Ints) -> tuple[_Ints, _Ints, _Ints, _Ints]:
        """Return all pieces in the words of `text`: word, end in the word, length and id, each of shape (matches,)."""
        letters = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
        sums, inverse = _prefix_hashes(letters)
        stops = np.cumsum(sizes)
        remaining = np.repeat(stops, sizes) - np.arange(len(letters))
        starts, lengths, ids = [], [], []
        for length in range(1, min(self._longest, int(sizes.max())) + 1):
            pos = np.flatnonzero(remaining >= length)
            hashes = (sums[pos + length] - sums[pos]) * inverse[pos]
            likely = self._sieve[(hashes >> _SHIFT).astype(np.int64)]
            pos, hashes = pos[likely], hashes[likely]
            slots = np.searchsorted(self._hashes, hashes)
            slots[slots == len(self._hashes)] = 0
            has_same_hash = self._hashes[slots] == hashes
            pos, index = pos[has_same_hash], self._order[slots[has_same_hash]].astype(np.int64)
            # Hashes can collide, so the characters are compared.
            begins = self._offsets[index]
            is_match = self._offsets[index + 1] - begins == length
            for step in range(length):
                is_match &= self._letters[np.minimum(begins + step, len(self._letters) - 1)] == letters[pos + step]
            starts.append(pos[is_match])
            ids.append(index[is_match])
            lengths.append(np.full(len(starts[-1]), length))
        start, span = np.concatenate(starts), np.concatenate(lengths)
        word = np.searchsorted(stops, start, side="right")
        return word, start - (stops - sizes)[word] + span, span, np.concatenate(ids)


def _prefix_hashes(letters: npt.NDArray[np.uint32]) -> tuple[_Hashes, _Hashes]:
    """Return `sums` and `inverse`: the hash of letters[a:b] is (sums[b] - sums[a]) * inverse[a], modulo 2**64.

    The hash of characters c is the sum of c[i] * PRIME**i.
    """
    size = len(letters)
    powers = _powers(_PRIME, size)
    sums = np.zeros(size + 1, dtype=np.uint64)
    np.cumsum(letters * powers, out=sums[1:])
    return sums, _powers(_INVERSE, size + 1)


def _powers(base: int, count: int) -> _Hashes:
    """Return base**0 to base**(count - 1), modulo 2**64, shape (count,), uint64."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, out=powers)


def _batches(words: Sequence[str], cells: int = 20_000) -> Iterator[list[int]]:
    """Yield the indices of words, ordered by length, in batches of at most `cells` characters, padding included."""
    batch: list[int] = []
    for index in sorted(range(len(words)), key=lambda i: len(words[i])):
        if batch and (len(batch) + 1) * (len(words[index]) + 1) > cells:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
