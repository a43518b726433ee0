"""Loading of the OCR models: location and hashes of the model files, and the onnxruntime sessions."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jina_rag._extras import require, require_onnxruntime
from jina_rag._forks import RenewedLock
from jina_rag.errors import CheckpointError, MissingDependencyError
from jina_rag.ocr.onnx_graph import Graph, Node
from jina_rag.types import Float32

# An onnxruntime.InferenceSession. The type is Any, because onnxruntime is imported only when a session is opened.
Session: TypeAlias = Any

log = logging.getLogger(__name__)

# sha256 of the model files by version of the rapidocr wheel. The files of other versions are not verified.
_SHA256 = {
    "3.10.0": {
        "PP-OCRv6_det_small.onnx": "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        "PP-OCRv6_rec_small.onnx": "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    },
}
_REINSTALL = 'Run: pip install --force-reinstall "rapidocr==3.10.*"'
# Arguments that the pipeline of rapidocr passes to DBPostProcess.
_OUTLINES = {"thresh": 0.3, "box_thresh": 0.5, "unclip_ratio": 1.6, "use_dilation": True}


@dataclass(frozen=True, slots=True)
class Models:
    """The loaded OCR models. Stateless and thread-safe.

    Attributes:
        detector: Session that maps an image to the text probability of each pixel.
        outlines: rapidocr's DBPostProcess, which maps text probabilities to the corners of lines.
        encoder: Session that maps a line image of height 48 pixels to one vector per time step.
        classifier: Session that maps the vectors from `encoder` to one logit per character.
        blank: Weights and bias of the blank class in `classifier`, concatenated, shape (dim + 1,), float32. All zeros
            for model files with unknown hashes, because the range of the blank logits was not measured; OCR then
            classifies every time step.
        characters: Character of each class; the first class is the blank.
    """

    detector: Session
    outlines: Any
    encoder: Session
    classifier: Session
    blank: Float32
    characters: tuple[str, ...]


_models: Models | None = None
_lock = RenewedLock()


def load_models() -> Models:
    """Return the OCR models, loaded at the first call and shared by all threads.

    Raises:
        MissingDependencyError: If rapidocr, onnxruntime or OpenCV is not installed.
        CheckpointError: If a model file is missing or damaged, or has an unknown graph.
    """
    global _models
    with _lock:
        if _models is None:
            _models = _load(_folder(), version("rapidocr"))
    return _models


@cache
def digest() -> str:
    """Return the sha256 of both model files, without loading the models.

    Raises:
        MissingDependencyError: If rapidocr is not installed.
        CheckpointError: If a model file is missing or damaged.
    """
    folder, release = _folder(), version("rapidocr")
    files = (_verified_model(folder, task, release) for task in ("det", "rec"))
    return hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in files)).hexdigest()


def _folder() -> Path:
    # Find the folder without importing rapidocr: the import takes half a second, and the weights are verified first.
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("The package 'rapidocr' is not installed. Run: pip install rapidocr")
    return Path(spec.submodule_search_locations[0]) / "models"


def _load(folder: Path, release: str) -> Models:
    require("cv2", package="opencv-python")
    detector = Graph(_verified_model(folder, "det", release))
    recognizer = Graph(_verified_model(folder, "rec", release))
    for graph in (detector, recognizer):
        # The detector has about 250,000 denormal weights and is three times as fast without denormals.
        graph.flush_denormals()
    from rapidocr.ch_ppocr_det.utils import DBPostProcess

    # The logger of rapidocr would write messages to stderr.
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    head = _head(recognizer, release)
    encoder = _session(recognizer.subgraph({"x": ("n", 3, 48, "width")}, {head.vectors: ("n", "steps", "size")}))
    return Models(
        detector=_session(detector.to_bytes()),
        outlines=DBPostProcess(**_OUTLINES),
        encoder=encoder,
        classifier=_session(recognizer.subgraph({head.vectors: ("n", "size")}, {head.values: ("n", "characters")})),
        blank=head.blank if release in _SHA256 else np.zeros_like(head.blank),
        characters=_characters(encoder, head.outputs, release),
    )


@dataclass(frozen=True, slots=True)
class _Head:
    """The classifier in the graph of the recognizer: input and output tensor, blank weights, number of classes."""

    vectors: str
    values: str
    blank: Float32
    outputs: int


def _head(graph: Graph, release: str) -> _Head:
    """Return the classifier: MatMul and Add. The final Softmax is excluded, because few probabilities are needed."""
    producers = {name: node for node in graph.nodes for name in node.outputs}

    def producer(name: str, kind: str) -> Node | None:
        node = producers.get(name)
        while node is not None and node.kind == "Identity":
            node = producers.get(node.inputs[0])
        return node if node is not None and node.kind == kind else None

    add = producer(graph.nodes[-1].inputs[0], "Add") if graph.nodes[-1].kind == "Softmax" else None
    product = producer(add.inputs[0], "MatMul") if add else None
    biases = graph.weight(add.inputs[1]) if add else None
    factors = graph.weight(product.inputs[1]) if product else None
    if add is None or product is None or biases is None or factors is None:
        raise CheckpointError(f"The OCR model of rapidocr {release} has an unknown graph. {_REINSTALL}")
    blank = np.append(factors.reshape(-1, len(biases))[:, 0], biases[0]).astype(np.float32)
    return _Head(product.inputs[0], add.outputs[0], blank, len(biases))


def _characters(encoder: Session, outputs: int, release: str) -> tuple[str, ...]:
    lines = encoder.get_modelmeta().custom_metadata_map.get("character", "").splitlines()
    characters = ("", *lines, " ")
    if len(characters) != outputs:
        raise CheckpointError(
            f"The OCR model of rapidocr {release} has {outputs} outputs; expected {len(characters)}, one per "
            f"character. {_REINSTALL}"
        )
    return characters


def _verified_model(folder: Path, task: str, release: str) -> bytes:
    files = sorted(folder.glob(f"*_{task}_*.onnx"))
    if len(files) != 1:
        raise CheckpointError(
            f"{folder} has {len(files)} model files *_{task}_*.onnx of rapidocr {release}; expected one. {_REINSTALL}"
        )
    data = files[0].read_bytes()
    hashes = _SHA256.get(release)
    if hashes is None:
        log.info("The hashes of the OCR weights of rapidocr %s are unknown. The weights are not verified.", release)
    elif hashlib.sha256(data).hexdigest() != hashes.get(files[0].name):
        raise CheckpointError(
            f"The OCR weights {files[0].name} of rapidocr {release} are damaged or altered. "
            "Run: pip install --force-reinstall rapidocr"
        )
    return data


def _session(data: bytes) -> Session:
    ort = require_onnxruntime()
    options = ort.SessionOptions()
    # Pages are read in parallel on one core each. A spinning thread would occupy the core of another page.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # onnxruntime would keep memory for each input shape. The widths of lines differ, so the memory would grow without
    # limit.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
