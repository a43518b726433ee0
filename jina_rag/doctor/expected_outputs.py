"""Known outputs of a model, in a file, and how far this machine's are from them.

The file is a zip: ``expected.json`` names the calls and their inputs, ``expected.npz`` has the arrays that came back,
``images/`` the pictures that the inputs name. Tiny checkpoints bring one along; `write_known_outputs` makes one of any
model, so that two machines, or two versions, can be compared.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from jina_rag._version import __version__
from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder, PairReranker, Reranker
from jina_rag.types import Float32

SPEC, ARRAYS = "expected.json", "expected.npz"
MOST_BYTES = 256 * 1024**2
_COSINE = 0.999
_CALLS = ("encode_query", "encode_document", "score")
_OUTPUTS = ("single", "multi", "raw", "score")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One known output and what this machine made of it.

    Attributes:
        key: Which one.
        difference: Greatest absolute difference; infinite where shapes differ.
        cosine: Smallest cosine of any vector with the known one, of rows their mean per input; 1 for scores.
        tolerance: What `difference` may be in float32.
        passed: Whether it is near enough: within the tolerance, or, in a shorter number format, with a cosine of
            at least 0.999 (scores: within 0.02, raw ones 0.1).
    """

    key: str
    difference: float
    cosine: float
    tolerance: float
    passed: bool


@dataclass(frozen=True, slots=True)
class KnownOutputs:
    """Known outputs, read from a file.

    Attributes:
        model: What they were made with.
        checks: The calls, as in ``expected.json``.
        arrays: What came back, by key.
        images: The pictures that inputs name, by file name.
    """

    model: str
    checks: Sequence[Mapping[str, Any]]
    arrays: Mapping[str, Float32]
    images: Mapping[str, bytes]


def read_known_outputs(path: Path) -> KnownOutputs:
    """Read a file of known outputs.

    Raises:
        InvalidInputError: If it is not one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = [i for i in archive.infolist() if i.filename in (SPEC, ARRAYS) or i.filename.startswith("images/")]
            if sum(item.file_size for item in files) > MOST_BYTES:
                raise InvalidInputError(f"{path} unpacks to more than {MOST_BYTES:,} bytes.")
            spec = json.loads(archive.read(SPEC))
            with np.load(BytesIO(archive.read(ARRAYS)), allow_pickle=False) as arrays:
                values = {key: arrays[key].astype(np.float32) for key in arrays.files}
            images = {
                item.filename.removeprefix("images/"): archive.read(item)
                for item in files
                if item.filename.startswith("images/") and not item.is_dir()
            }
        checks = spec["checks"]
        for check in checks:
            if check["call"] not in _CALLS or check["output"] not in _OUTPUTS:
                raise KeyError(f"{check['call']} → {check['output']}")
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as exc:
        raise InvalidInputError(
            f"{path} is not a file of known outputs (`doctor --write-expected` makes one): {exc}"
        ) from exc
    return KnownOutputs(str(spec.get("model", "")), checks, values, images)


def compare(model: Embedder | Reranker, outputs: KnownOutputs, *, exact: bool) -> list[Comparison]:
    """Call the model as the known outputs were made, and compare.

    Args:
        model: An embedder, or a reranker, as the calls need.
        outputs: The known outputs.
        exact: Whether it runs in float32, where the tolerance holds.
    """
    return [_compare(check, outputs, _call(model, check, outputs.images), exact=exact) for check in outputs.checks]


def write_known_outputs(
    path: Path, model: Embedder | Reranker, checks: Sequence[Mapping[str, Any]], images: Mapping[str, bytes]
) -> None:
    """Call the model and keep what comes back.

    Args:
        path: The file; replaced if it exists.
        model: An embedder or a reranker.
        checks: As in ``expected.json``.
        images: The pictures that inputs name.
    """
    arrays: dict[str, Float32] = {}
    for check in checks:
        output, key = _call(model, check, images), check["key"]
        is_list = check["output"] == "multi"
        arrays |= {f"{key}/{i}": value for i, value in enumerate(output)} if is_list else {key: output}
    buffer = BytesIO()
    np.savez_compressed(buffer, **cast(Any, arrays))
    source = f"jina-rag {__version__}, {model.fingerprint}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(SPEC, json.dumps({"model": model.name, "source": source, "checks": list(checks)}, indent=1))
        archive.writestr(ARRAYS, buffer.getvalue())
        for name, data in images.items():
            archive.writestr(f"images/{name}", data)


def _call(model: Embedder | Reranker, check: Mapping[str, Any], images: Mapping[str, bytes]) -> Any:  # noqa: ANN401
    options = dict(check.get("options") or {})
    output = check["output"]
    if check["call"] == "score":
        pairs = [(_input(query, images), _input(document, images)) for query, document in check["pairs"]]
        if not isinstance(model, PairReranker):
            raise InvalidInputError(f"{model.name} is no reranker that takes pairs: these known outputs are not its.")
        return model.score_pairs(pairs, raw=output == "raw", **options)
    if not isinstance(model, Embedder):
        raise InvalidInputError(f"{model.name} is no embedder: these known outputs are not its.")
    encode = model.encode_query if check["call"] == "encode_query" else model.encode_document
    inputs = [_input(item, images) for item in check["inputs"]]
    embeddings = encode(inputs, single=output == "single", multi=output == "multi", **options)
    return embeddings.single if output == "single" else embeddings.multi


def _input(item: Any, images: Mapping[str, bytes]) -> Any:  # noqa: ANN401  # JSON in, Input out
    if isinstance(item, Mapping) and isinstance(item.get("image"), str):
        if item["image"] not in images:
            raise InvalidInputError(
                f"The known outputs name the picture {item['image']!r}, which is not in their file."
            )
        return images[item["image"]]
    return item


def _compare(check: Mapping[str, Any], outputs: KnownOutputs, output: Any, *, exact: bool) -> Comparison:  # noqa: ANN401
    key, tolerance = str(check["key"]), float(check.get("tolerance", 1e-4))
    pairs = list(_pairs(key, outputs, output))
    if not pairs or any(ours.shape != theirs.shape for ours, theirs in pairs):
        return Comparison(key, float("inf"), 0.0, tolerance, passed=False)
    difference = max(float(np.abs(ours - theirs).max(initial=0)) for ours, theirs in pairs)
    if check["output"] in ("raw", "score"):
        loose = 0.1 if check["output"] == "raw" else 0.02
        return Comparison(key, difference, 1.0, tolerance, difference <= (tolerance if exact else loose))
    # A single row of hundreds may turn a little in a shorter format; what is compared in search is their sum.
    rows = check["output"] == "multi"
    cosine = min(float(c.mean() if rows else c.min(initial=1)) for c in (_cosines(*pair) for pair in pairs))
    return Comparison(key, difference, cosine, tolerance, difference <= tolerance if exact else cosine >= _COSINE)


def _pairs(key: str, outputs: KnownOutputs, output: Any) -> Iterator[tuple[Float32, Float32]]:  # noqa: ANN401
    if isinstance(output, list):
        for i, ours in enumerate(output):
            yield ours, outputs.arrays.get(f"{key}/{i}", np.zeros(0, np.float32))
    else:
        yield output, outputs.arrays.get(key, np.zeros(0, np.float32))


def _cosines(ours: Float32, theirs: Float32) -> Float32:
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    cosines: Float32 = (ours * theirs).sum(axis=-1) / np.maximum(norms, 1e-12)
    return cosines
