"""Temporary SQLite tables with a fixed cache size."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

CACHE_BYTES = 8 * 2**20
"""Size of SQLite's cache for one file, in bytes (8 MiB)."""


@contextmanager
def scratch_table(path: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """Create a SQLite file for the state of one step and return a context manager that yields the connection.

    Journaling and syncing are off. A crash may corrupt the file, which is temporary and deleted after the run.

    Args:
        path: Path of the new file.
        *statements: SQL statements that create the tables.
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
        # A single transaction avoids a commit per row. SQLite writes rows to the file when the cache is full.
        table.execute("BEGIN")
        yield table
        table.execute("COMMIT")
