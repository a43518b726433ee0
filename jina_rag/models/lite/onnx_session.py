"""onnxruntime sessions on the CPU that leave idle cores to other work and work in forked children."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag._extras import require_onnxruntime
from jina_rag._forks import RenewedLock, keep_in_children, make_immortal
from jina_rag.errors import CheckpointError


class Session:
    """An ``onnxruntime.InferenceSession``. Thread-safe.

    A forked child has none of the threads of the session of its parent, and opens a session of its own at the first
    run.
    """

    def __init__(
        self,
        graph: Path,
        *,
        model_name: str,
        threads: int | None = None,
        tensors: Callable[[], Mapping[str, npt.NDArray[np.generic]]] | None = None,
    ) -> None:
        """Open a model file on the CPU.

        Args:
            graph: ONNX file.
            model_name: Model name in error messages.
            threads: Threads per run. None: one per core.
            tensors: Function that returns the weights that the ONNX file refers to but does not contain (external
                initializers), by tensor name. Shapes and dtypes must equal the declarations in the graph.

        Raises:
            CheckpointError: If onnxruntime cannot open the file.
            MissingDependencyError: If onnxruntime is not installed.
        """
        self._options: dict[str, Any] = {"model_name": model_name, "threads": threads}
        self._graph, self._tensors = graph, tensors
        self._lock = RenewedLock()
        self._open()

    def run(self, outputs: Sequence[str], feed: Mapping[str, npt.NDArray[np.generic]]) -> list[Any]:
        """Return the outputs of the model, one array per name.

        Args:
            outputs: Names of the outputs.
            feed: Input arrays by name, with the shapes and dtypes that the model declares.
        """
        if os.getpid() != self._process:
            with self._lock:
                if os.getpid() != self._process:
                    make_immortal(self._session)
                    self._open()
        results: list[Any] = self._session.run(outputs, feed)
        return results

    def input_names(self) -> set[str]:
        """Return the names of the inputs of the model."""
        return {tensor.name for tensor in self._session.get_inputs()}

    def _open(self) -> None:
        tensors = None if self._tensors is None else self._tensors()
        self._session = _native_session(self._graph, **self._options, tensors=tensors)
        # The destructor waits for the threads of the session.
        keep_in_children(self._session)
        self._process = os.getpid()


def _native_session(
    graph: Path, *, model_name: str, threads: int | None, tensors: Mapping[str, npt.NDArray[np.generic]] | None
) -> Any:  # noqa: ANN401  # an onnxruntime.InferenceSession
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
