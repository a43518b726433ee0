"""Pairs that nearly repeat an earlier one, found by MinHash and locality-sensitive hashing in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.cleaning.minhash import Signature, agreement, near_text, signature
from jina_rag.evaluation.cleaning.pairs import Dropped, OnDrop, Pair
from jina_rag.evaluation.cleaning.sqlite_scratch import scratch_table

_BANDS = 24
_QUERY_ROWS, _PASSAGE_ROWS = 3, 4
_CANDIDATES = 32
"""Earlier pairs that one is held against, those that share the most bands first: a bound where thousands are alike."""


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Drop pairs whose question and passage both nearly repeat those of an earlier pair that stayed.

    Both, because many questions about one passage are no duplicates, nor are many passages for one question.
    Similarity is the Jaccard similarity of character n-grams, letters and digits only, estimated from signatures of
    96 (passage) and 72 (question) positions. Two pairs are compared if all of 3 positions of the question's and 4
    of the passage's signature agree in any of 24 bands: for pairs at 0.85 and 0.85 that is a chance of 0.9999, at the
    thresholds of 0.8 and 0.7 of 0.97, at 0.4 and 0.4 of 0.04. Comparing decides; the bands only find.

    Pairs are compared with those that stayed, not with those that were dropped, so similarity does not creep on from
    one to the next.

    State: a signature of 336 bytes and 24 rows of an index for each kept pair, about 800 bytes a pair in a file;
    memory does not grow.

    Attributes:
        passage: Similarity of the passages from which on they are nearly the same, 0 to 1.
        query: The same for the questions; lower, because one word is more of a short text.
        passage_ngram: Characters of a passage's n-grams.
        query_ngram: Characters of a question's n-grams.
        seed: Of the hash functions.

    Source: Broder, 1997 (MinHash); Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3 (bands).
    """

    name: ClassVar[str] = "near duplicates"
    passage: float = 0.8
    query: float = 0.7
    passage_ngram: int = 5
    query_ngram: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for value in (self.passage, self.query):
            if not 0 < value <= 1:
                raise InvalidInputError(
                    f"A similarity from which on pairs are near-duplicates is in (0, 1], not {value}."
                )
        if min(self.passage_ngram, self.query_ngram) < 1:
            raise InvalidInputError("An n-gram has at least one character.")

    @property
    def settings(self) -> Mapping[str, Any]:
        """Thresholds, n-grams, sizes and the seed."""
        return asdict(self) | {"bands": _BANDS, "passage_rows": _PASSAGE_ROWS, "query_rows": _QUERY_ROWS}

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Give the pairs that repeat no earlier one."""
        with scratch_table(
            scratch / "near.sqlite",
            "CREATE TABLE signed (number INTEGER PRIMARY KEY, query BLOB, passage BLOB)",
            "CREATE TABLE bands (key INTEGER, number INTEGER, PRIMARY KEY (key, number)) WITHOUT ROWID",
        ) as table:
            for pair in pairs:
                query = signature(near_text(pair.query), n=self.query_ngram, size=_BANDS * _QUERY_ROWS, seed=self.seed)
                passage = signature(
                    near_text(pair.passage), n=self.passage_ngram, size=_BANDS * _PASSAGE_ROWS, seed=self.seed
                )
                keys = _keys(query, passage)
                match = self._match(table, keys, query, passage)
                if match is None:
                    table.execute(
                        "INSERT INTO signed VALUES (?, ?, ?)", (pair.number, query.tobytes(), passage.tobytes())
                    )
                    # Sorted rows go faster into a tree.
                    table.executemany(
                        "INSERT OR IGNORE INTO bands VALUES (?, ?)", [(key, pair.number) for key in sorted(keys)]
                    )
                    yield pair
                    continue
                number, like_query, like_passage = match
                detail = {"query_similarity": round(like_query, 3), "passage_similarity": round(like_passage, 3)}
                drop(Dropped(pair.number, self.name, "near duplicate", number, detail, pair.record))

    def _match(
        self, table: sqlite3.Connection, keys: list[int], query: Signature, passage: Signature
    ) -> tuple[int, float, float] | None:
        """(number, similarity of the questions, of the passages) of the most similar earlier pair, if any is near."""
        best: tuple[int, float, float] | None = None
        for number, query_bytes, passage_bytes in table.execute(_FIND, (*keys, _CANDIDATES)):
            like_query = agreement(query, np.frombuffer(query_bytes, dtype=np.uint16))
            like_passage = agreement(passage, np.frombuffer(passage_bytes, dtype=np.uint16))
            if like_query < self.query or like_passage < self.passage:
                continue
            if best is None or like_query + like_passage > best[1] + best[2]:
                best = (int(number), like_query, like_passage)
        return best


_FIND = (
    "SELECT signed.* FROM (SELECT number FROM bands WHERE key IN ("  # noqa: S608  # holds question marks only
    + ",".join("?" * _BANDS)
    + ") GROUP BY number ORDER BY COUNT(*) DESC, number LIMIT ?) AS candidates "
    "JOIN signed USING (number) ORDER BY number"
)


def _keys(query: Signature, passage: Signature) -> list[int]:
    """One number in 63 bits for each band; equal where all of its positions are."""
    rows: npt.NDArray[np.uint64] = np.concatenate(
        [query.reshape(_BANDS, _QUERY_ROWS), passage.reshape(_BANDS, _PASSAGE_ROWS)], axis=1
    ).astype(np.uint64)
    keys = np.arange(1, _BANDS + 1, dtype=np.uint64)
    for column in rows.T:
        keys = (keys ^ column) * np.uint64(0xD6E8FEB86659FD93)
        keys ^= keys >> np.uint64(32)
    return [int(key) for key in keys >> np.uint64(1)]
