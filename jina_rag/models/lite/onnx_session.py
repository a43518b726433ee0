"""Opens onnxruntime sessions the way a program that shares a laptop with other work should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag._extras import require_onnxruntime
from jina_rag.errors import CheckpointError


def open_session(
    graph: Path,
    *,
    what: str,
    threads: int | None = None,
    tensors: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> Any:  # noqa: ANN401  # an onnxruntime.InferenceSession
    """Open a model file on the CPU.

    Args:
        graph: The file.
        what: Name of the model, for messages.
        threads: Threads per run; None for one per core.
        tensors: Weights that the file names but does not hold.

    Raises:
        CheckpointError: If onnxruntime cannot open it.
        MissingDependencyError: If onnxruntime is not installed.
    """
    ort = require_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Waiting threads would otherwise spin, and burn the cores that rendering and OCR need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    if tensors is not None:
        # The graph is already fused by hand; higher levels would undo its choices
        # (tools/build_lite_graph.py).
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        values = [ort.OrtValue.ortvalue_from_numpy(value) for value in tensors.values()]
        options.add_external_initializers(list(tensors), values)
    try:
        return ort.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime's error classes share no base of their own
        raise CheckpointError(
            f"onnxruntime {ort.__version__} cannot open the model {what!r} from {graph}: {exc}"
        ) from exc
