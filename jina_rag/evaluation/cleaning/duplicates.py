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
    """A step that drops pairs with an empty query or passage, and pairs with the same text as query and passage.

    Texts are normalized with `same_text` before the comparison.

    Source: Günther et al., arXiv 2307.11224, de-duplication.
    """

    name: ClassVar[str] = "complete"

    settings: ClassVar[Mapping[str, Any]] = {}

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield the complete pairs in input order.

        Args:
            pairs: Input pairs, which the step reads once.
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
    """A step that drops each pair that is identical to an earlier pair.

    Pairs are identical if the texts differ at most in case, white space, invisible characters and Unicode form. The
    cited paper normalizes white space and case before hashing. This step also normalizes the Unicode form (NFKC) and
    removes invisible characters.

    State: a file with the 128-bit hash and the number (`Pair.number`) of each kept pair, about 30 bytes per kept pair.
    Memory does not grow with the input. Among 10^12 different pairs, the probability of a hash collision is below
    10^-14.

    Source: Günther et al., arXiv 2307.11224, de-duplication.
    """

    name: ClassVar[str] = "exact duplicates"

    settings: ClassVar[Mapping[str, Any]] = {
        "normalised": ["NFKC", "case", "white space", "invisible marks"], "hash": "blake2b-128",
    }  # fmt: skip

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield the pairs that are not identical to an earlier pair, in input order.

        Args:
            pairs: Input pairs, which the step reads once.
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
        # The length prefix gives ("ab", "c") and ("a", "bc") different hashes.
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()
