"""The tokenizer of XLM-RoBERTa (and so of multilingual-e5): Unigram over 250,000 pieces, word by word.

The `tokenizers` package needs two seconds to build this model, longer than everything else a search does.
Here a piece is found by its hash: the hashes of all pieces come out of one running sum over their letters,
and so do the hashes of all stretches of the words at hand, which makes both a few array operations. The
pieces found are compared letter by letter, so the hash only saves time. It gives the same pieces as
`tokenizers` (a property test holds it to that).

Source: Kudo, Subword Regularization (ACL 2018), section 3.2; normalisation as SentencePiece's nmt_nfkc.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

META = "\u2581"
"""Stands for the space before a word."""
_UNKNOWN_PENALTY = 10.0
_SPACES = "\u200b\u200c\u200d\u200e\u200f\u2581\ufeff\ufffd\x00"
_DROPPED = "".join(map(chr, (*range(1, 9), 11, *range(14, 32), 127, 0x8F, 0x9F)))
# Characters that the model never saw, because its training text had them removed or turned into spaces.
# Lone surrogates cannot be text at all.
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
"""Id, and the characters it covers: start, end."""


def normalise_text(text: str) -> str:
    r"""NFKC, without control characters; invisible separators become spaces.

    >>> normalise_text("ﬁne\u200bprint")
    'fine print'
    """
    if text.isascii():
        return text.translate(_CLEAN)
    # The full-width tilde joins Japanese and Korean ranges and is a piece of its own: NFKC would lose it.
    parts = text.translate(_CLEAN).split(_FULLWIDTH_TILDE)
    return _FULLWIDTH_TILDE.join(unicodedata.normalize("NFKC", part) for part in parts)


class Unigram:
    """Splits words into the most probable pieces. Holds 10 MB; safe to share between threads."""

    def __init__(
        self,
        letters: npt.NDArray[np.uint32],
        offsets: npt.NDArray[np.int32],
        scores: npt.NDArray[np.float32],
        *,
        unk: int,
        reserved: Sequence[int],
    ) -> None:
        """Take the pieces by id.

        Args:
            letters: Their code points, one after the other.
            offsets: Where each begins in `letters`, and the end: shape (pieces + 1,).
            scores: Their log probabilities, shape (pieces,).
            unk: Id for what no piece covers.
            reserved: Ids that text never becomes, such as ``<s>``: a document that contains those letters is
                not markup.
        """
        self._letters, self._scores = letters, scores
        self._offsets: _Ints = offsets.astype(np.int64)
        self._unk = unk
        self._unk_score = float(scores.min()) - _UNKNOWN_PENALTY
        lengths = np.diff(offsets)
        self._longest = int(lengths.max())
        sums, inverse = _running(letters)
        hashes = (sums[offsets[1:]] - sums[offsets[:-1]]) * inverse[offsets[:-1]]
        usable = lengths > 0
        usable[[*reserved, unk]] = False
        order = np.argsort(hashes)
        order = order[usable[order]]
        self._hashes: _Hashes = hashes[order]
        self._order = order.astype(np.int32)
        # Most stretches of a word are no piece: one bit looked up says so before the binary search.
        self._sieve = np.zeros(1 << _SIEVE_BITS, dtype=bool)
        self._sieve[(self._hashes >> _SHIFT).astype(np.int64)] = True

    def split(self, words: Sequence[str]) -> list[list[Piece]]:
        """The best segmentation of ``META + word`` for each word.

        Args:
            words: Normalised, without white space.

        Returns:
            Per word its pieces: id, start, end; the characters are those of the word, and a lone ``META``
            covers none. Neighbouring unknown characters are one piece.
        """
        pieces_of_words: list[list[Piece]] = [[] for _ in words]
        # Words of like length go together, because all words of a batch take as many steps as its longest.
        for batch in _batches(words):
            for index, pieces in zip(batch, self._split([META + words[i] for i in batch]), strict=True):
                pieces_of_words[index] = pieces
        return pieces_of_words

    def _split(self, texts: list[str]) -> Iterator[list[Piece]]:
        """Viterbi over all texts at once, one character position after the other."""
        sizes = np.array([len(text) for text in texts])
        word, end, length, index = self._edges("".join(texts), sizes)
        steps, longest = int(sizes.max()), min(self._longest, int(sizes.max()))
        # The way into a position by a piece of n letters stands in column longest - n, so that of equally
        # good ways the longest piece is found first, as in SentencePiece.
        scores = np.full((len(texts), steps + 1, longest), -np.inf)
        ids = np.full(scores.shape, self._unk, dtype=np.int32)
        scores[word, end, longest - length] = self._scores[index]
        ids[word, end, longest - length] = index
        # A character that is no piece may be unknown, so every position can be reached.
        single = scores[:, :, -1]
        single[np.isneginf(single)] = self._unk_score
        best = np.full((len(texts), longest + steps + 1), -np.inf)
        best[:, longest] = 0.0
        choice = np.zeros((len(texts), steps + 1), dtype=np.int64)
        rows = np.arange(len(texts))
        for step in range(1, steps + 1):
            ways = best[:, step : step + longest] + scores[:, step]
            choice[:, step] = column = ways.argmax(axis=1)
            best[:, longest + step] = ways[rows, column]
        best_ids = np.take_along_axis(ids, choice[:, :, None], axis=2)[:, :, 0]
        for size, back, piece in zip(sizes.tolist(), (longest - choice).tolist(), best_ids.tolist(), strict=True):
            yield self._path(size, back, piece)

    def _path(self, end: int, back: list[int], piece: list[int]) -> list[Piece]:
        """Walk back from `end`: `back` has the length of the piece that leads somewhere, `piece` its id."""
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
        """All pieces inside the words of `text`: word, end in the word, length, id; each (found,)."""
        letters = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
        sums, inverse = _running(letters)
        stops = np.cumsum(sizes)
        room = np.repeat(stops, sizes) - np.arange(len(letters))
        starts, lengths, ids = [], [], []
        for length in range(1, min(self._longest, int(sizes.max())) + 1):
            at = np.flatnonzero(room >= length)
            hashes = (sums[at + length] - sums[at]) * inverse[at]
            likely = self._sieve[(hashes >> _SHIFT).astype(np.int64)]
            at, hashes = at[likely], hashes[likely]
            slots = np.searchsorted(self._hashes, hashes)
            slots[slots == len(self._hashes)] = 0
            same = self._hashes[slots] == hashes
            at, index = at[same], self._order[slots[same]].astype(np.int64)
            # Equal hashes are almost certainly equal letters; almost is not enough.
            begins = self._offsets[index]
            right = self._offsets[index + 1] - begins == length
            for step in range(length):
                right &= self._letters[np.minimum(begins + step, len(self._letters) - 1)] == letters[at + step]
            starts.append(at[right])
            ids.append(index[right])
            lengths.append(np.full(len(starts[-1]), length))
        start, span = np.concatenate(starts), np.concatenate(lengths)
        word = np.searchsorted(stops, start, side="right")
        return word, start - (stops - sizes)[word] + span, span, np.concatenate(ids)


def _running(letters: npt.NDArray[np.uint32]) -> tuple[_Hashes, _Hashes]:
    """Sums from which the hash of letters[a:b] is (sums[b] - sums[a]) * inverse[a], modulo 2**64.

    The hash of letters c is the sum of c[i] * PRIME**i.
    """
    size = len(letters)
    powers = _powers(_PRIME, size)
    sums = np.zeros(size + 1, dtype=np.uint64)
    np.cumsum(letters * powers, out=sums[1:])
    return sums, _powers(_INVERSE, size + 1)


def _powers(base: int, count: int) -> _Hashes:
    """base**0 to base**(count - 1), modulo 2**64: shape (count,)."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, out=powers)


def _batches(words: Sequence[str], cells: int = 20_000) -> Iterator[list[int]]:
    """Indices of words, by length, in groups whose padded size stays near `cells` characters."""
    batch: list[int] = []
    for index in sorted(range(len(words)), key=lambda i: len(words[i])):
        if batch and (len(batch) + 1) * (len(words[index]) + 1) > cells:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
