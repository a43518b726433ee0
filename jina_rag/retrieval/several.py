"""One path or many."""

from __future__ import annotations

import os
from collections.abc import Sequence


def several(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """The paths as a list."""
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)
