"""Lock state of an index folder, as seen by another process."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from jina_rag import DocumentIndex
from jina_rag.errors import IndexLockedError
try:
    DocumentIndex.open(sys.argv[1], create=False).close()
except IndexLockedError:
    sys.exit(3)
"""


def is_locked(folder) -> bool:
    """Return whether another process gets IndexLockedError for the index in a folder."""
    process = subprocess.run([sys.executable, "-c", CODE, str(folder)], capture_output=True, text=True)
    assert process.returncode in (0, 3), process.stderr
    return process.returncode == 3
