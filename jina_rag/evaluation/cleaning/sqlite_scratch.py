"""A table on disk that answers at once and holds a fixed share of memory, however long it grows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

CACHE_BYTES = 8 * 2**20
"""Pages of a table that are held in memory."""


@contextmanager
def scratch_table(path: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """Make a SQLite file for the time of one run.

    It needs no protection against a crash, since nothing of it outlives the run: no journal, nothing is synced.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as table:
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            f"cache_size=-{CACHE_BYTES // 1024}",
        ):
            table.execute(f"PRAGMA {pragma}")
        for statement in statements:
            table.execute(statement)
        # One transaction, never committed page by page: the cache spills to the file when it is full.
        table.execute("BEGIN")
        yield table
        table.execute("COMMIT")
