"""Steps that drop incomplete pairs and exact duplicates.

Source: Günther et al., arXiv 2307.11224, de-duplication.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jina_rag.evaluation.cleaning.pairs import Dropped, OnDrop, Pair, same_text
from jina_rag.evaluation.cleaning.sqlite_scratch import scratch_table


@dataclass(frozen=True, slots=True)
class Complete:
    """A step that drops pairs with an empty side, and pairs whose query and passage are the same text.

    Source: Günther et al., arXiv 2307.11224, de-duplication.
    """

    name: ClassVar[str] = "complete"

    settings: ClassVar[Mapping[str, Any]] = {}

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield the complete pairs in order.

        Args:
            pairs: Input pairs; read once.
            drop: Called with each pair that the step drops.
            scratch: Unused.
        """
        for pair in pairs:
            query, passage = same_text(pair.query), same_text(pair.passage)
            if query and passage and query != passage:
                yield pair
                continue
            reason = "both sides are the same text" if query and passage else "no passage" if query else "no question"
            drop(Dropped(pair.number, self.name, reason, record=pair.record))


@dataclass(frozen=True, slots=True)
class ExactDuplicates:
    """A step that keeps the first of identical pairs and drops the others.

    Pairs are identical if they differ only in case, white space, invisible characters and Unicode form. The paper
    compares hashes after normalizing white space and case; this step also normalizes Unicode form (NFKC) and removes
    invisible characters.

    State: a file with a 128-bit hash and a number for each pair that stays, about 30 bytes per pair. Memory does not
    grow with the input. Among 10^12 different pairs, the probability of a hash collision is below 10^-14.

    Source: Günther et al., arXiv 2307.11224, de-duplication.
    """

    name: ClassVar[str] = "exact duplicates"

    settings: ClassVar[Mapping[str, Any]] = {
        "normalised": ["NFKC", "case", "white space", "invisible marks"], "hash": "blake2b-128",
    }  # fmt: skip

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield each pair once, in order.

        Args:
            pairs: Input pairs; read once.
            drop: Called with each duplicate.
            scratch: An empty folder for the file of hashes.
        """
        with scratch_table(
            scratch / "exact.sqlite",
            "CREATE TABLE seen (hash BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID",
        ) as table:
            for pair in pairs:
                key = digest(pair.query, pair.passage)
                row = table.execute("SELECT number FROM seen WHERE hash = ?", (key,)).fetchone()
                if row is not None:
                    drop(Dropped(pair.number, self.name, "exact duplicate", int(row[0]), record=pair.record))
                    continue
                table.execute("INSERT INTO seen VALUES (?, ?)", (key, pair.number))
                yield pair


def digest(*texts: str) -> bytes:
    """Return a 16-byte BLAKE2b hash of the normalized texts.

    Args:
        *texts: Texts to hash in order, each normalized with `same_text`.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for text in texts:
        part = same_text(text).encode("utf-8", "surrogatepass")
        # The length prefix keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()
