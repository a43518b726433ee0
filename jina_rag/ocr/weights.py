"""The two networks of OCR: where their weights lie, whether those are what they should be, how they run."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import threading
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jina_rag._extras import require, require_onnxruntime
from jina_rag.errors import CheckpointError, MissingDependencyError
from jina_rag.ocr.onnx_graph import Graph, Node
from jina_rag.types import Float32

# onnxruntime.InferenceSession, imported only when used.
Session: TypeAlias = Any

log = logging.getLogger(__name__)

# By the version of the rapidocr wheel. Another version has other files, which is no error.
_SHA256 = {
    "3.10.0": {
        "PP-OCRv6_det_small.onnx": "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        "PP-OCRv6_rec_small.onnx": "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    },
}
_AGAIN = 'reinstall it with pip install --force-reinstall "rapidocr==3.10.*".'
# Of rapidocr's DBPostProcess, as its pipeline sets them.
_OUTLINES = {"thresh": 0.3, "box_thresh": 0.5, "unclip_ratio": 1.6, "use_dilation": True}


@dataclass(frozen=True, slots=True)
class Models:
    """Everything is safe to use from many threads, as it only reads its state.

    Attributes:
        detector: From an image to the certainty of each of its pixels to be text.
        outlines: rapidocr's DBPostProcess: from those to the corners of lines.
        encoder: From a line, 48 pixels high, to a vector for each of its steps.
        classifier: From such vectors to a value for each character, the greater the more certain.
        blank: The part of `classifier` that tells "no character": factors of a vector, then a constant. All
            zero for weights of which we do not know how large those values get.
        characters: What the classifier's values stand for; the first is "no character".
    """

    detector: Session
    outlines: Any
    encoder: Session
    classifier: Session
    blank: Float32
    characters: tuple[str, ...]


_models: Models | None = None
_lock = threading.Lock()


def load_models() -> Models:
    """The models, loaded at the first call and shared by all threads.

    Raises:
        MissingDependencyError: If rapidocr, onnxruntime or OpenCV is not installed.
        CheckpointError: If a file is missing or is not what it should be.
    """
    global _models
    with _lock:
        if _models is None:
            _models = _load(_folder(), version("rapidocr"))
    return _models


@cache
def digest() -> str:
    """The sha256 of both networks, which needs none of them loaded.

    Raises:
        MissingDependencyError: As `load_models`.
        CheckpointError: As `load_models`.
    """
    folder, release = _folder(), version("rapidocr")
    files = (_verified_model(folder, task, release) for task in ("det", "rec"))
    return hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in files)).hexdigest()


def _folder() -> Path:
    # Found, not imported: that takes half a second, and the weights are checked first.
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("OCR needs the package 'rapidocr', which is not installed: pip install rapidocr")
    return Path(spec.submodule_search_locations[0]) / "models"


def _load(folder: Path, release: str) -> Models:
    require("cv2", package="opencv-python")
    detector = Graph(_verified_model(folder, "det", release))
    recognizer = Graph(_verified_model(folder, "rec", release))
    for graph in (detector, recognizer):
        # A quarter of a million of the detector's weights are so small that they make it three times as slow.
        graph.flush_denormals()
    from rapidocr.ch_ppocr_det.utils import DBPostProcess

    # Its logger writes to stderr, from the import on.
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    head = _head(recognizer, release)
    encoder = _session(recognizer.part({"x": ("n", 3, 48, "width")}, {head.vectors: ("n", "steps", "size")}))
    return Models(
        detector=_session(detector.whole()),
        outlines=DBPostProcess(**_OUTLINES),
        encoder=encoder,
        classifier=_session(recognizer.part({head.vectors: ("n", "size")}, {head.values: ("n", "characters")})),
        blank=head.blank if release in _SHA256 else np.zeros_like(head.blank),
        characters=_characters(encoder, head.outputs, release),
    )


@dataclass(frozen=True, slots=True)
class _Head:
    """The end of the recognizer's graph: names of the tensors before and after the classifier, and its size."""

    vectors: str
    values: str
    blank: Float32
    outputs: int


def _head(graph: Graph, release: str) -> _Head:
    """Find the classifier: vectors times weights plus biases, then the softmax, which nobody needs for all steps."""
    makers = {name: node for node in graph.nodes for name in node.outputs}

    def maker(name: str, kind: str) -> Node | None:
        node = makers.get(name)
        while node is not None and node.kind == "Identity":
            node = makers.get(node.inputs[0])
        return node if node is not None and node.kind == kind else None

    add = maker(graph.nodes[-1].inputs[0], "Add") if graph.nodes[-1].kind == "Softmax" else None
    product = maker(add.inputs[0], "MatMul") if add else None
    biases = graph.weight(add.inputs[1]) if add else None
    factors = graph.weight(product.inputs[1]) if product else None
    if add is None or product is None or biases is None or factors is None:
        raise CheckpointError(f"The OCR model of rapidocr {release} is built in another way than known: {_AGAIN}")
    blank = np.append(factors.reshape(-1, len(biases))[:, 0], biases[0]).astype(np.float32)
    return _Head(product.inputs[0], add.outputs[0], blank, len(biases))


def _characters(encoder: Session, outputs: int, release: str) -> tuple[str, ...]:
    lines = encoder.get_modelmeta().custom_metadata_map.get("character", "").splitlines()
    characters = ("", *lines, " ")
    if len(characters) != outputs:
        raise CheckpointError(
            f"The OCR model of rapidocr {release} has {outputs} outputs for {len(characters)} characters: {_AGAIN}"
        )
    return characters


def _verified_model(folder: Path, task: str, release: str) -> bytes:
    files = sorted(folder.glob(f"*_{task}_*.onnx"))
    if len(files) != 1:
        raise CheckpointError(
            f"The wheel of rapidocr {release} should hold one {task} model, it holds {len(files)}: {_AGAIN}"
        )
    data = files[0].read_bytes()
    hashes = _SHA256.get(release)
    if hashes is None:
        log.info("rapidocr %s is newer or older than the versions whose weights we know by hash.", release)
    elif hashlib.sha256(data).hexdigest() != hashes.get(files[0].name):
        raise CheckpointError(
            f"The OCR weights {files[0].name} of rapidocr {release} are damaged or altered: "
            "reinstall it with pip install --force-reinstall rapidocr."
        )
    return data


def _session(data: bytes) -> Session:
    ort = require_onnxruntime()
    options = ort.SessionOptions()
    # Pages are read in parallel, one processor each; a thread that spins would take it from the others.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Every line has another width: memory kept per shape would only grow.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
