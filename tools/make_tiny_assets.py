"""Pack the tiny checkpoints of the package together with reference outputs of the published code.

    python tools/make_tiny_assets.py GOLDEN_DIR

GOLDEN_DIR contains the checkpoint folders and the reference outputs ``{v4,m0,colbert,v1}_golden.{json,npz}``. The
archives are deterministic.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

TARGET = Path(__file__).parent.parent / "jina_rag" / "models" / "_assets" / "tiny"
FOLDERS = {
    "v4": "jina-embeddings-v4",
    "m0": "jina-reranker-m0",
    "colbert-v2": "jina-colbert-v2",
    "v1": "jina-embedding-b-en-v1",
}
REDUNDANT = {"vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "spiece.model"}
REDUNDANT |= {"sentencepiece.bpe.model"}  # omitted, because tokenizer.json has the same content
IMAGES = ("tiny_30x30.png", "photo_320x240.png", "odd_57x43.png", "palette_128x96_P.png")
SOURCE = "the published code, float32 on the CPU (transformers 4.52.4, peft 0.15.2, sentence-transformers 5.1.2)"


def main(golden: Path) -> None:
    """Write the four archives from the reference outputs in `golden`."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for family, folder in FOLDERS.items():
        name = family.split("-")[0]
        spec = json.loads((golden / f"{name}_golden.json").read_text(encoding="utf-8"))
        with np.load(golden / f"{name}_golden.npz") as arrays:
            checks, expected_arrays = {"v4": _v4, "m0": _m0, "colbert": _colbert, "v1": _v1}[name](spec, arrays)
        files = dict(_checkpoint(golden / folder))
        files["expected.json"] = _json({"model": folder, "source": SOURCE, "checks": checks})
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{key: value.astype(np.float32) for key, value in expected_arrays.items()})
        files["expected.npz"] = buffer.getvalue()
        if name in ("v4", "m0"):
            files |= {f"images/{image}": (golden / "images" / image).read_bytes() for image in IMAGES}
        path = TARGET / f"{family}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for inner, data in sorted(files.items()):
                entry = zipfile.ZipInfo(inner, (2026, 1, 1, 0, 0, 0))
                archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)
        sys.stdout.write(f"{path.name} {path.stat().st_size:,} bytes\n")


def _checkpoint(folder: Path) -> Iterable[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in REDUNDANT:
            data = path.read_bytes()
            yield path.relative_to(folder).as_posix(), _json(json.loads(data)) if path.suffix == ".json" else data


def _json(value: Any) -> bytes:  # noqa: ANN401
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _check(key: str, call: str, inputs: list[Any], output: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"key": key, "call": call, "inputs": inputs, "output": output, "options": options, "tolerance": 1e-4}


def _v4(spec: dict[str, Any], arrays: Any) -> tuple[list[Any], dict[str, Any]]:  # noqa: ANN401
    texts, selected = spec["texts"], [0, 1, 2, 6]
    expected_arrays = {
        "queries": arrays["text/single/retrieval/query"][selected],
        "passages": arrays["text/single/retrieval/passage"][selected],
        "short": arrays["text/single/retrieval/query/dim16"][:4],
        **{f"rows/{i}": arrays[f"text/multi/retrieval/query/{i}"] for i in range(4)},
        **{f"passage-rows/{i}": arrays[f"text/multi/retrieval/passage/{i}"] for i in range(4)},
        "images": arrays["image/single/retrieval"][[spec["images"].index(image) for image in IMAGES]],
        **{
            f"image-rows/{i}": arrays[f"image/multi/retrieval/{spec['images'].index(image)}"]
            for i, image in enumerate(IMAGES)
        },
    }
    images = [{"image": image} for image in IMAGES]
    inputs = [texts[i] for i in selected]
    return [
        _check("queries", "encode_query", inputs, "single"),
        _check("passages", "encode_document", inputs, "single"),
        _check("short", "encode_query", texts[:4], "single", truncate_dim=16),
        _check("rows", "encode_query", inputs, "multi"),
        _check("passage-rows", "encode_document", inputs, "multi"),
        _check("images", "encode_document", images, "single"),
        _check("image-rows", "encode_document", images, "multi"),
    ], expected_arrays


def _m0(spec: dict[str, Any], arrays: Any) -> tuple[list[Any], dict[str, Any]]:  # noqa: ANN401
    checks, expected_arrays = [], {}
    entries = {"text_text/bs8": 6, "text_image/bs4": 11, "image_text/bs4": 10, "image_image/bs3": 7}
    for name, maximum in entries.items():
        kinds = name.split("/")[0].split("_")
        pairs, rows = [], []
        for row, pair in enumerate(spec["entries"][name]["pairs"]):
            sides = [
                side if kind == "text" else {"image": Path(side).name} for side, kind in zip(pair, kinds, strict=True)
            ]
            if all(isinstance(side, str) or side["image"] in IMAGES for side in sides) and len(rows) < maximum:
                pairs.append(sides)
                rows.append(row)
        for output, tolerance in (("raw", 3e-4), ("score", 1e-4)):
            key = f"{name.split('/')[0]}-{output}"
            checks.append({"key": key, "call": "score", "pairs": pairs, "output": output, "tolerance": tolerance})
            expected_arrays[key] = arrays[f"{name}/{output}"][rows]
    return checks, expected_arrays


def _colbert(spec: dict[str, Any], arrays: Any) -> tuple[list[Any], dict[str, Any]]:  # noqa: ANN401
    texts = spec["texts"]
    expected_arrays = {f"queries/{i}": arrays[f"query/pylate/{i}"] for i in range(4)}
    expected_arrays |= {f"documents/{i}": arrays[f"doc/pylate/{i}"] for i in range(4)}
    return [
        _check("queries", "encode_query", [texts[i] for i in (0, 1, 2, 3)], "multi"),
        _check("documents", "encode_document", texts[:4], "multi"),
    ], expected_arrays


def _v1(spec: dict[str, Any], arrays: Any) -> tuple[list[Any], dict[str, Any]]:  # noqa: ANN401
    return [_check("texts", "encode_document", spec["texts"][:8], "single")], {"texts": arrays["single/normalized"][:8]}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
