"""onnxruntime sessions on the CPU that leave idle cores to other work."""

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
    model_name: str,
    threads: int | None = None,
    tensors: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> Any:  # noqa: ANN401  # an onnxruntime.InferenceSession
    """Open a model file on the CPU.

    Args:
        graph: ONNX file.
        model_name: Model name in error messages.
        threads: Threads per run. None: one per core.
        tensors: Weights that the ONNX file refers to but does not contain (external initializers), by tensor name.
            Shapes and dtypes must equal the declarations in the graph.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        CheckpointError: If onnxruntime cannot open the file.
        MissingDependencyError: If onnxruntime is not installed.
    """
    ort = require_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Spinning threads would occupy cores that rendering and OCR need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    if tensors is not None:
        # The graph is already fused (tools/build_lite_graph.py). Higher optimization levels would undo the fusions.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        values = [ort.OrtValue.ortvalue_from_numpy(value) for value in tensors.values()]
        options.add_external_initializers(list(tensors), values)
    try:
        return ort.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime's error classes have no common base class
        raise CheckpointError(
            f"onnxruntime {ort.__version__} cannot open {model_name!r} from {graph}: {exc}. "
            "Reinstall the package that contains the file."
        ) from exc
