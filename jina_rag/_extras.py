"""Import of optional packages at first use. The error for a missing package contains the pip command."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from jina_rag.errors import MissingDependencyError


def require(module: str, *, extra: str | None = None, package: str | None = None) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Name of the module, for example ``"pymupdf"``.
        extra: Extra of jina-rag that installs the package; None if the base installation includes the package.
        package: Name of the package on PyPI, if different from `module`.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: If the module is not installed. An ImportError raised inside an installed module
            propagates unchanged, because installing the package would not fix the error.
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
        raise MissingDependencyError(f"The package {name!r} is not installed. Run: {line}") from exc


def require_onnxruntime() -> ModuleType:
    """Import onnxruntime and disable the telemetry of onnxruntime.

    At import, `jina_rag` sets an environment variable that disables the telemetry if onnxruntime is imported later. If
    onnxruntime was imported before `jina_rag`, the first call of this function disables the telemetry.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: If onnxruntime is not installed.
    """
    runtime = require("onnxruntime")
    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        runtime.disable_telemetry_events()
    return runtime
