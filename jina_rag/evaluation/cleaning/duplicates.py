"""Pairs that say nothing, and pairs that were there before."""

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
    """Drop pairs with an empty side, and pairs whose sides are the same text.

    Source: Günther et al., arXiv 2307.11224, de-duplication.
    """

    name: ClassVar[str] = "complete"

    settings: ClassVar[Mapping[str, Any]] = {}

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Give the pairs that have something to say on both sides."""
        for pair in pairs:
            query, passage = same_text(pair.query), same_text(pair.passage)
            if query and passage and query != passage:
                yield pair
                continue
            reason = "both sides are the same text" if query and passage else "no passage" if query else "no question"
            drop(Dropped(pair.number, self.name, reason, record=pair.record))


@dataclass(frozen=True, slots=True)
class ExactDuplicates:
    """Drop pairs that were there before, but for case, white space, invisible marks and Unicode form.

    Of pairs that are the same the first stays. The paper compares hashes after white space and case are
    normalised; Unicode form (NFKC) and invisible marks are added here.

    State: a 128-bit hash and a number for each kept pair in a file, about 30 bytes a pair; memory does not grow.
    Two different pairs have the same hash once in 10^20 for a million million pairs.

    Source: Günther et al., arXiv 2307.11224, de-duplication.
    """

    name: ClassVar[str] = "exact duplicates"

    settings: ClassVar[Mapping[str, Any]] = {
        "normalised": ["NFKC", "case", "white space", "invisible marks"], "hash": "blake2b-128",
    }  # fmt: skip

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Give each pair once."""
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
    """16 bytes that are the same for texts that differ in case, white space, invisible marks or Unicode form only."""
    whole = hashlib.blake2b(digest_size=16)
    for text in texts:
        part = same_text(text).encode("utf-8", "surrogatepass")
        # The length goes in first, else ("ab", "c") would be ("a", "bc").
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.digest()
