"""Optional packages, imported at first use; a missing one ends in one sentence with the pip line."""

from __future__ import annotations

import importlib
from types import ModuleType

from jina_rag.errors import MissingDependencyError


def require(module: str, *, extra: str | None = None, package: str | None = None) -> ModuleType:
    """Import `module`, or say how to install it.

    Args:
        module: Name to import, for example ``"pymupdf"``.
        extra: The extra of jina-rag that brings it; None when the base install does.
        package: Name on PyPI where it differs from `module`.

    Raises:
        MissingDependencyError: If the module is not installed. An ImportError raised inside an installed
            module is passed on unchanged, because installing something would not mend it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] != module.split(".")[0]:
            raise
        name = package or module
        line = (
            f'pip install "jina-rag[{extra}]", or in a clone: pip install ".[{extra}]"'
            if extra
            else f"pip install {name}"
        )
        raise MissingDependencyError(f"This needs the package {name!r}, which is not installed: {line}") from exc
