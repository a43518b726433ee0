"""Near-duplicate detection for query-passage pairs, with MinHash signatures and locality-sensitive hashing on disk."""

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
"""Maximum number of earlier pairs to compare with a pair. Earlier pairs that share more bands take precedence."""


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """A step that drops a pair if query and passage are similar to the query and passage of one earlier pair.

    Several queries for one passage, or several passages for one query, are not duplicates, so query and passage must
    both be similar. Similarity is the Jaccard similarity of character n-grams over letters and digits, estimated from
    MinHash signatures of 96 positions for a passage and 72 positions for a query.

    The step compares two pairs if the signatures agree in at least one of 24 bands. A band consists of 3 positions of
    the query's signature and 4 positions of the passage's signature. The probability that two pairs are compared is
    0.9999 if both similarities are 0.85, 0.97 at the default thresholds (0.8 for passages, 0.7 for queries), and 0.04
    if both similarities are 0.4. The bands only select the pairs to compare. The estimated similarities decide which
    pairs are dropped.

    The step compares a pair only with earlier pairs that the step has kept. In a chain of pairs in which each pair
    resembles only the previous pair, some pairs are therefore kept.

    State: a file with two signatures (336 bytes in total) and 24 index rows for each kept pair, about 800 bytes per
    kept pair. Memory does not grow with the input.

    Attributes:
        passage: Minimum similarity of near-duplicate passages, above 0 and at most 1.
        query: Minimum similarity of near-duplicate queries, above 0 and at most 1. The default is lower than the
            default of `passage`, because one changed word is a larger fraction of a short text.
        passage_ngram: Characters per n-gram of a passage.
        query_ngram: Characters per n-gram of a query.
        seed: Seed of the hash functions.

    Raises:
        InvalidInputError: If a threshold is outside (0, 1], or an n-gram length is below 1.

    Source: Broder, 1997 (MinHash); Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3 (bands).
    """

    name: ClassVar[str] = "near duplicates"
    passage: float = 0.8
    query: float = 0.7
    passage_ngram: int = 5
    query_ngram: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("passage (--near)", self.passage), ("query (--near-query)", self.query)):
            if not 0 < value <= 1:
                raise InvalidInputError(
                    f"The similarity threshold {name} is {value}; expected a number above 0 and at most 1."
                )
        if min(self.passage_ngram, self.query_ngram) < 1:
            raise InvalidInputError(
                f"passage_ngram is {self.passage_ngram} and query_ngram is {self.query_ngram}; expected both to be at "
                "least 1."
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the step: similarity thresholds, n-gram lengths, seed, and number and size of the bands."""
        return asdict(self) | {"bands": _BANDS, "passage_rows": _PASSAGE_ROWS, "query_rows": _QUERY_ROWS}

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield the pairs without an earlier near-duplicate, in input order.

        Args:
            pairs: Input pairs, which the step reads once.
            drop: Called with each near-duplicate.
            scratch: An empty folder for the file of signatures.
        """
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
                    # Insertion into the B-tree is faster in sorted order.
                    table.executemany(
                        "INSERT OR IGNORE INTO bands VALUES (?, ?)", [(key, pair.number) for key in sorted(keys)]
                    )
                    yield pair
                    continue
                number, query_score, passage_score = match
                detail = {"query_similarity": round(query_score, 3), "passage_similarity": round(passage_score, 3)}
                drop(Dropped(pair.number, self.name, "near duplicate", number, detail, pair.record))

    def _match(
        self, table: sqlite3.Connection, keys: list[int], query: Signature, passage: Signature
    ) -> tuple[int, float, float] | None:
        """Return (pair number, query similarity, passage similarity) of the most similar earlier pair, or None."""
        best: tuple[int, float, float] | None = None
        for number, query_bytes, passage_bytes in table.execute(_CANDIDATES_SQL, (*keys, _CANDIDATES)):
            query_score = agreement(query, np.frombuffer(query_bytes, dtype=np.uint16))
            passage_score = agreement(passage, np.frombuffer(passage_bytes, dtype=np.uint16))
            if query_score < self.query or passage_score < self.passage:
                continue
            if best is None or query_score + passage_score > best[1] + best[2]:
                best = (int(number), query_score, passage_score)
        return best


_CANDIDATES_SQL = (
    "SELECT signed.* FROM (SELECT number FROM bands WHERE key IN ("  # noqa: S608  # holds question marks only
    + ",".join("?" * _BANDS)
    + ") GROUP BY number ORDER BY COUNT(*) DESC, number LIMIT ?) AS candidates "
    "JOIN signed USING (number) ORDER BY number"
)


def _keys(query: Signature, passage: Signature) -> list[int]:
    """Return one 63-bit key per band. Two pairs share the key of a band if all positions of the band agree."""
    rows: npt.NDArray[np.uint64] = np.concatenate(
        [query.reshape(_BANDS, _QUERY_ROWS), passage.reshape(_BANDS, _PASSAGE_ROWS)], axis=1
    ).astype(np.uint64)
    keys = np.arange(1, _BANDS + 1, dtype=np.uint64)
    for column in rows.T:
        keys = (keys ^ column) * np.uint64(0xD6E8FEB86659FD93)
        keys ^= keys >> np.uint64(32)
    return [int(key) for key in keys >> np.uint64(1)]
