"""The two stages of rapidocr: where their weights lie, whether those are what they should be, how they run."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import threading
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from jina_rag._extras import require
from jina_rag.errors import CheckpointError, MissingDependencyError

# onnxruntime.InferenceSession, imported only when used.
Session: TypeAlias = Any

log = logging.getLogger(__name__)

# Lines are read so many at once, each this high; a batch of short ones is this wide at least.
_BATCH = 6
_LINE_SHAPE = (3, 48, 32)

# By the version of the rapidocr wheel. Another version has other files, which is no error.
_SHA256 = {
    "3.10.0": {
        "PP-OCRv6_det_small.onnx": "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        "PP-OCRv6_rec_small.onnx": "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    },
}


@dataclass(frozen=True, slots=True)
class Models:
    """rapidocr's TextDetector and TextRecognizer; safe to call from many threads, as they only read their state."""

    detector: Any
    recognizer: Any


class _Settings(dict[str, Any]):
    """Read as rapidocr reads its settings: by item and by attribute."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # of any type
        return self[name]


_models: Models | None = None
_lock = threading.Lock()


def models() -> Models:
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


def _folder() -> Path:
    # Found, not imported: that takes a second and a half, and the weights are checked first.
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("OCR needs the package 'rapidocr', which is not installed: pip install rapidocr")
    return Path(spec.submodule_search_locations[0]) / "models"


def _load(folder: Path, release: str) -> Models:
    require("cv2", package="opencv-python")
    finder = _session(_verified(folder, "det", release))
    reader = _session(_verified(folder, "rec", release))
    from rapidocr import EngineType
    from rapidocr.ch_ppocr_det import TextDetector
    from rapidocr.ch_ppocr_rec import TextRecognizer

    # Its logger writes to stderr, from the import on.
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)

    # With a session of ours rapidocr looks for no file and no download. Sides: `find_lines` scales.
    shared = {"engine_type": EngineType.ONNXRUNTIME, "lang_type": "ch", "font_path": None}
    detector = TextDetector(_Settings(shared, session=finder, limit_side_len=0, limit_type="min"))
    recognizer = TextRecognizer(_Settings(shared, session=reader, rec_batch_num=_BATCH, rec_img_shape=_LINE_SHAPE))
    outputs, known = reader.get_outputs()[0].shape[-1], len(recognizer.postprocess_op.character)
    if known != outputs:
        raise CheckpointError(
            f"The OCR model of rapidocr {release} has {outputs} outputs for {known} characters: "
            'reinstall it with pip install --force-reinstall "rapidocr==3.10.*".'
        )
    return Models(detector, recognizer)


def _verified(folder: Path, task: str, release: str) -> bytes:
    found = sorted(folder.glob(f"*_{task}_*.onnx"))
    if len(found) != 1:
        raise CheckpointError(
            f"The wheel of rapidocr {release} should hold one {task} model, it holds {len(found)}: "
            'reinstall it with pip install --force-reinstall "rapidocr==3.10.*".'
        )
    data = found[0].read_bytes()
    known = _SHA256.get(release)
    if known is None:
        log.info("rapidocr %s is newer or older than the versions whose weights we know by hash.", release)
    elif hashlib.sha256(data).hexdigest() != known.get(found[0].name):
        raise CheckpointError(
            f"The OCR weights {found[0].name} of rapidocr {release} are damaged or altered: "
            "reinstall it with pip install --force-reinstall rapidocr."
        )
    return data


def _session(data: bytes) -> Session:
    ort = require("onnxruntime")
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
