"""Files of expected model outputs, and comparison of expected outputs with the outputs on this machine.

A file of expected outputs is a ZIP archive: ``expected.json`` has the calls with the inputs, ``expected.npz`` has the
returned arrays, and ``images/`` has the input images. The package includes a file of expected outputs for each
tiny checkpoint. `write_known_outputs` creates a file for any model, to compare two machines or two versions.
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
MAX_BYTES = 256 * 1024**2
_COSINE = 0.999
_CALLS = ("encode_query", "encode_document", "score")
_OUTPUTS = ("single", "multi", "raw", "score")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of one expected output with the output on this machine.

    Attributes:
        key: Key of the expected output.
        difference: Largest absolute difference between expected and actual values; infinite if the shapes differ.
        cosine: Lowest cosine of a vector with the expected vector. For multi-vectors, the cosines are averaged over the
            rows of each input before the lowest value is taken. 1 for scores.
        tolerance: Limit of `difference` in float32.
        passed: Whether the outputs agree. In float32, the difference must not exceed the tolerance. In other dtypes,
            the cosine must be at least 0.999, and the difference of scores at most 0.02 (raw scores: 0.1).
    """

    key: str
    difference: float
    cosine: float
    tolerance: float
    passed: bool


@dataclass(frozen=True, slots=True)
class KnownOutputs:
    """Content of a file of expected outputs.

    Attributes:
        model: Name of the model.
        checks: The calls, as in ``expected.json``.
        arrays: Returned arrays by key, float32, each in the shape that the call returned.
        images: Bytes of the input image files, by file name.
    """

    model: str
    checks: Sequence[Mapping[str, Any]]
    arrays: Mapping[str, Float32]
    images: Mapping[str, bytes]


def read_known_outputs(path: Path) -> KnownOutputs:
    """Read a file of expected outputs.

    Args:
        path: The ZIP archive, at most 256 MiB unpacked.

    Raises:
        InvalidInputError: If the file cannot be read, is too large or is not a file of expected outputs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = [i for i in archive.infolist() if i.filename in (SPEC, ARRAYS) or i.filename.startswith("images/")]
            if sum(item.file_size for item in files) > MAX_BYTES:
                raise InvalidInputError(
                    f"{path} has more than {MAX_BYTES:,} bytes unpacked. "
                    "Pass a file from `jina-rag doctor MODEL --write-expected FILE`."
                )
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
            f"{path} is not a file of expected outputs: {exc}. Create the file with `jina-rag doctor MODEL "
            "--write-expected FILE`."
        ) from exc
    return KnownOutputs(str(spec.get("model", "")), checks, values, images)


def compare(model: Embedder | Reranker, outputs: KnownOutputs, *, exact: bool) -> list[Comparison]:
    """Repeat the recorded calls with a model and return the comparison of each output, in the order of the calls.

    Args:
        model: An embedder for calls that encode, a reranker for calls that score.
        outputs: The expected outputs and the recorded calls.
        exact: Whether the model runs in float32. The tolerances apply in float32 only; see `Comparison.passed`.

    Raises:
        InvalidInputError: If the calls do not match the type of the model, or an image is missing.
    """
    return [_compare(check, outputs, _call(model, check, outputs.images), exact=exact) for check in outputs.checks]


def write_known_outputs(
    path: Path, model: Embedder | Reranker, checks: Sequence[Mapping[str, Any]], images: Mapping[str, bytes]
) -> None:
    """Run calls with a model and write the outputs to a file of expected outputs.

    Args:
        path: The ZIP archive to write; an existing file is replaced.
        model: An embedder or a reranker.
        checks: The calls, as in ``expected.json``.
        images: Bytes of the input image files, by file name.

    Raises:
        InvalidInputError: If the calls do not match the type of the model, or an image is missing.
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
            raise InvalidInputError(
                f"The expected outputs are from a reranker, but {model.name} cannot score pairs. "
                "Create a file for this model with `jina-rag doctor MODEL --write-expected FILE`."
            )
        return model.score_pairs(pairs, raw=output == "raw", **options)
    if not isinstance(model, Embedder):
        raise InvalidInputError(
            f"The expected outputs are from an embedder, but {model.name} is not an embedder. "
            "Create a file for this model with `jina-rag doctor MODEL --write-expected FILE`."
        )
    encode = model.encode_query if check["call"] == "encode_query" else model.encode_document
    inputs = [_input(item, images) for item in check["inputs"]]
    embeddings = encode(inputs, single=output == "single", multi=output == "multi", **options)
    return embeddings.single if output == "single" else embeddings.multi


def _input(item: Any, images: Mapping[str, bytes]) -> Any:  # noqa: ANN401  # JSON in, Input out
    if isinstance(item, Mapping) and isinstance(item.get("image"), str):
        if item["image"] not in images:
            raise InvalidInputError(
                f"The file of expected outputs does not contain the image {item['image']!r}. Create the file again "
                "with `jina-rag doctor MODEL --write-expected FILE`."
            )
        return images[item["image"]]
    return item


def _compare(check: Mapping[str, Any], outputs: KnownOutputs, output: Any, *, exact: bool) -> Comparison:  # noqa: ANN401
    key, tolerance = str(check["key"]), float(check.get("tolerance", 1e-4))
    pairs = list(_pairs(key, outputs, output))
    if not pairs or any(actual.shape != expected.shape for actual, expected in pairs):
        return Comparison(key, float("inf"), 0.0, tolerance, passed=False)
    difference = max(float(np.abs(actual - expected).max(initial=0)) for actual, expected in pairs)
    if check["output"] in ("raw", "score"):
        score_tolerance = 0.1 if check["output"] == "raw" else 0.02
        return Comparison(key, difference, 1.0, tolerance, difference <= (tolerance if exact else score_tolerance))
    # Check the mean cosine of the rows: in float16 and bfloat16, the cosine of a single row can be below the limit,
    # with little effect on MaxSim, a sum over many rows.
    is_multi = check["output"] == "multi"
    cosine = min(float(c.mean() if is_multi else c.min(initial=1)) for c in (_cosines(*pair) for pair in pairs))
    return Comparison(key, difference, cosine, tolerance, difference <= tolerance if exact else cosine >= _COSINE)


def _pairs(key: str, outputs: KnownOutputs, output: Any) -> Iterator[tuple[Float32, Float32]]:  # noqa: ANN401
    if isinstance(output, list):
        for i, actual in enumerate(output):
            yield actual, outputs.arrays.get(f"{key}/{i}", np.zeros(0, np.float32))
    else:
        yield output, outputs.arrays.get(key, np.zeros(0, np.float32))


def _cosines(actual: Float32, expected: Float32) -> Float32:
    norms = np.linalg.norm(actual, axis=-1) * np.linalg.norm(expected, axis=-1)
    cosines: Float32 = (actual * expected).sum(axis=-1) / np.maximum(norms, 1e-12)
    return cosines
