"""Optional packages, imported at first use; a missing one ends in one sentence with the pip line."""

from __future__ import annotations

import importlib
import os
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


def require_onnxruntime() -> ModuleType:
    """Import onnxruntime, which then reports nothing to anybody.

    The environment variable that `jina_rag` sets when it is imported does that; where onnxruntime was loaded before,
    its own switch ends what has begun.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    runtime = require("onnxruntime")
    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        runtime.disable_telemetry_events()
    return runtime
