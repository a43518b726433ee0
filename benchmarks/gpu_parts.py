"""The parts of `benchmarks/gpu.py`: each part measures one aspect of the models on a device and reports figures."""

from __future__ import annotations

import functools
import gc
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gpu_measure
import models as inputs
import numpy as np
import torch
from gpu_measure import Device, Operations, StageTimes, time_limit
from published import PublishedM0, PublishedV4

from jina_rag.doctor.expected_outputs import compare, read_known_outputs
from jina_rag.models.factory import LoadOptions, build
from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.models.runtime.checkpoints import Checkpoint, open_checkpoint
from jina_rag.models.runtime.offload import shared_device
from jina_rag.models.runtime.weights import open_weights
from jina_rag.models.tiny_checkpoints import TINY_FAMILIES, tiny_archive, unpack_tiny
from jina_rag.testing import random_checkpoint

QUERY = "Which region grew fastest?"


class NotApplicable(Exception):
    """A part that this device or size cannot measure. The message is the reason."""


@dataclass(frozen=True)
class Workload:
    """Numbers of inputs and the batch budgets of one size.

    Attributes:
        pages: Pages to encode.
        published_pages: Pages to encode with the published way.
        texts: Texts, whose lengths follow a lognormal distribution (median 50 tokens).
        queries: Queries (median 12 tokens).
        pairs: Pairs of a query and a text.
        remembered: Pages whose prefixes are cached.
        queries_per_page: Queries for each remembered page.
        page_budgets: Token budgets of batches of pages and of long texts.
        query_budgets: Token budgets of batches of queries.
        longest: Length of the longest text in tokens.
        matrix: Side of the matrices whose product is measured.
        seconds: Time for the repetitions of one measurement.
        page_size: Width and height of the pages in pixels; None for 850 x 1100 (about 768 tokens).
    """

    pages: int
    published_pages: int
    texts: int
    queries: int
    pairs: int
    remembered: int
    queries_per_page: int
    page_budgets: tuple[int, ...]
    query_budgets: tuple[int, ...]
    longest: int
    matrix: int
    seconds: float
    page_size: tuple[int, int] | None = None


WORKLOADS = {
    "full": Workload(
        128, 24, 600, 1500, 400, 24, 24, (4_096, 8_192, 16_384, 32_768), (1_024, 4_096, 16_384), 1500, 8_192, 1.2
    ),
    "mid": Workload(12, 12, 100, 200, 60, 6, 6, (1_024, 2_048, 4_096), (512, 1_024, 2_048), 1000, 1_024, 1.2),
    "tiny": Workload(3, 3, 8, 8, 8, 2, 3, (512, 1_024), (64, 256), 100, 256, 0.1, page_size=(212, 275)),
}


@dataclass
class Figure:
    """One measured value.

    Attributes:
        name: What was measured.
        value: Value in `unit`; None if the measurement failed.
        unit: Unit of the value.
        setting: Conditions of the measurement, for example the batch budget.
        note: Further information, or the reason of a failure.
        inputs: Number of inputs of the measured call; 0 if not counted.
        matrix_share: Operations per second as a fraction of the matrix rate of the device, from 0 to 1.
        peak_gb: Peak memory during the call, above the memory in use before the call, in GB.
    """

    name: str
    value: float | None
    unit: str
    setting: str = ""
    note: str = ""
    inputs: int = 0
    matrix_share: float | None = None
    peak_gb: float | None = None


@dataclass
class Bench:
    """The device, the models and the inputs that the parts share, and the figures of the current part.

    Use as a context manager, which removes the folders of the checkpoints at the end. Models are loaded when a part
    needs them. The published way of one model is kept until the other model is measured.

    Attributes:
        device: Device to measure.
        size: Size of the random checkpoints.
        dtype: Name of the dtype of the models.
        is_selected: Whether the user selected the parts, instead of running all parts.
        figures: Figures of the current part.
        failures: Reasons of failed measurements of the current part.
    """

    device: Device
    size: str
    dtype: str
    is_selected: bool = False
    figures: list[Figure] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _models: dict[str, Any] = field(default_factory=dict)
    _scratch: Any = field(default_factory=lambda: tempfile.TemporaryDirectory(prefix="jina-rag-gpu-"))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    @property
    def workload(self) -> Workload:
        return WORKLOADS[self.size]

    def add(self, name: str, value: float | None, unit: str, setting: str = "", note: str = "", **numbers: Any) -> None:
        """Add a figure to the current part; `numbers` are further attributes of `Figure`."""
        rounded = None if value is None else float(f"{value:.5g}")
        self.figures.append(Figure(name, rounded, unit, setting, note, **numbers))

    def fail(self, name: str, unit: str, setting: str, exc: BaseException) -> None:
        """Add a figure without value, because the measurement raised an error."""
        reason = describe(exc)
        self.failures.append(f"{name}, {setting}: {reason}" if setting else f"{name}: {reason}")
        self.add(name, None, unit, setting, f"failed: {reason}")

    def checkpoint(self, family: str) -> Checkpoint:
        """Return the random checkpoint of a family, whose tensors are drawn on the device."""
        if family not in self._models:
            folder = Path(self._scratch.name) / family
            self._models[family] = random_checkpoint(
                family, self.size, folder, device=str(self.device.device), dtype=self.dtype
            )
        return self._models[family]

    def ours(self, family: str) -> Any:
        """Return jina_rag's model of a family."""
        return self._load(
            f"jina_rag {family}",
            lambda: build(self.checkpoint(family), LoadOptions(device=str(self.device.device), dtype=self.dtype)),
        )

    def published(self, family: str) -> Any:
        """Return the published way of a family, with the weights of `ours`."""
        for other in ("v4", "m0"):
            if other != family:
                self.drop(f"published {other}")
        checkpoint = self.checkpoint(family)

        def read(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
            name = "adapter_model.safetensors" if folder.name == "adapters" else "model.safetensors"
            with open_weights(checkpoint, [folder / name]) as source:
                return {key.removeprefix(prefix): source.tensor(key) for key in source if key.startswith(prefix)}

        dtype = getattr(torch, self.dtype)
        if family == "v4":
            return self._load(
                "published v4", lambda: PublishedV4(checkpoint.folder, dtype, read=read, tasks=["retrieval"])
            )
        return self._load("published m0", lambda: PublishedM0(checkpoint.folder, dtype, read=read))

    def drop(self, name: str) -> None:
        """Free a model."""
        if self._models.pop(name, None) is not None:
            gc.collect()
            self.device.release()

    def drop_published(self) -> None:
        """Free the models of the published way."""
        for family in ("v4", "m0"):
            self.drop(f"published {family}")

    def _load(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self._models:
            start = time.perf_counter()
            self._models[name] = load()
            self.device.synchronize()
            self.add("loading", time.perf_counter() - start, "s", name)
        return self._models[name]

    @functools.cached_property
    def matrix_rate(self) -> float:
        """Operations per second of the device in `dtype`, measured once."""
        rate = gpu_measure.matrix_rate(self.device, getattr(torch, self.dtype), self.workload.matrix)
        side = f"{self.workload.matrix:,}"
        self.add("matrix products", rate / 1e12, "TFLOP/s", f"{self.dtype}, {side} x {side} x {side}")
        return rate

    @functools.cached_property
    def operations(self) -> dict[str, Operations]:
        return {family: Operations(family, self.checkpoint(family).config) for family in ("v4", "m0")}

    @functools.cached_property
    def pages(self) -> list[Any]:
        pages = inputs.pages(self.workload.pages, seed=1)
        size = self.workload.page_size
        return pages if size is None else [page.resize(size) for page in pages]

    def texts(self, count: int, median: float, sigma: float, longest: int, seed: int) -> list[str]:
        """Return random texts whose lengths in tokens of v4's tokenizer follow a lognormal distribution."""
        tokenizer = TextTokenizer(self.checkpoint("v4").folder, fallback="Qwen2Tokenizer")
        return inputs.texts(count, median, sigma, longest, seed, functools.cache(lambda x: len(tokenizer.encode(x))))

    @functools.cached_property
    def queries(self) -> list[str]:
        return self.texts(self.workload.queries, 12, 0.4, 60, 2)

    def fitted(self, run: Callable[[Sequence[Any]], Any], items: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return as many `items` as one call handles in about `seconds`, at least 8; the calls are also a warm-up."""
        first = items[:8]
        run(first)
        taken = self.device.seconds(lambda: run(first))
        return items[: max(len(first), int(len(first) * seconds / max(taken, 1e-6)))]

    def rate(
        self, name: str, unit: str, setting: str, run: Callable[[], Any], count: int, operations: float = 0
    ) -> float | None:
        """Measure inputs per second, the share of the matrix rate, and the peak memory, and add the figures.

        Args:
            name: What is measured.
            unit: Unit of the rate.
            setting: Conditions of the measurement.
            run: Function that handles all inputs.
            count: Number of inputs.
            operations: Floating-point operations of `run`; 0 if not counted.

        Returns:
            Inputs per second, or None if the measurement failed.
        """
        try:
            peak = self.device.peak_bytes(run) if self.device.is_cuda else None  # also a warm-up
            seconds = self.device.median_seconds(run, self.workload.seconds)
        except gpu_measure.TimeLimitExceeded:
            raise
        except Exception as exc:
            self.fail(name, unit, setting, exc)
            self.device.release()
            return None
        share = round(operations / seconds / self.matrix_rate, 4) if operations else None
        peak_gb = None if peak is None else round(peak / 1e9, 3)
        self.add(name, count / seconds, unit, setting, inputs=count, matrix_share=share, peak_gb=peak_gb)
        return count / seconds


def describe(exc: BaseException) -> str:
    """Return the type and the first line of the message of an error."""
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0][:200]}" if lines else type(exc).__name__


def _best(rates: Sequence[float | None]) -> float | None:
    return max((rate for rate in rates if rate is not None), default=None)


def _ratio(bench: Bench, name: str, ours: float | None, theirs: float | None, setting: str) -> None:
    if ours is not None and theirs is not None:
        bench.add(name, ours / theirs, "x", setting)


def matrix(bench: Bench) -> None:
    """Measure the rate of matrix products, which bounds all other rates, and the rates of copies."""
    _ = bench.matrix_rate
    if bench.device.is_cuda:
        for kind, rate in gpu_measure.copy_rates(bench.device).items():
            bench.add("copies", rate / 1e9, "GB/s", kind)


def goldens(bench: Bench) -> None:
    """Compare the tiny checkpoints on the device with the recorded outputs of the published code."""
    for family in TINY_FAMILIES:
        outputs = read_known_outputs(tiny_archive(family))
        with tempfile.TemporaryDirectory(prefix="jina-rag-tiny-") as scratch:
            checkpoint = open_checkpoint(unpack_tiny(family, Path(scratch) / family), name=family)
            for dtype in ("float32", "bfloat16"):
                setting = f"{family}, {dtype}"
                try:
                    model = build(checkpoint, LoadOptions(device=str(bench.device.device), dtype=dtype))
                    comparisons = compare(model, outputs, exact=dtype == "float32")
                except gpu_measure.TimeLimitExceeded:
                    raise
                except Exception as exc:
                    bench.fail("difference from the recorded outputs", "", setting, exc)
                    continue
                worst = max(comparisons, key=lambda c: c.difference)
                cosine = min(comparison.cosine for comparison in comparisons)
                note = f"{len(comparisons)} outputs, largest in {worst.key}"
                bench.add("difference from the recorded outputs", worst.difference, "", setting, note)
                bench.add("lowest cosine with the recorded outputs", cosine, "", setting)
                wrong = [comparison.key for comparison in comparisons if not comparison.passed]
                if wrong:
                    bench.failures.append(f"{setting}: {', '.join(wrong)} differ")


def pages(bench: Bench) -> None:
    """Measure pages per second of v4, dense and multi-vectors, for several batch budgets, and the published way."""
    workload, model = bench.workload, bench.ours("v4")

    def encode(items: Sequence[Any], budget: int) -> Any:
        return model.encode_document(items, batch_tokens=budget)

    # Enough pages for several batches of the largest budget: the preparation of the first batch overlaps with nothing.
    items = bench.fitted(lambda x: encode(x, workload.page_budgets[0]), bench.pages, 2 * workload.seconds)
    operations = _page_operations(bench, "v4", encode(items[:1], workload.page_budgets[0])) * len(items)
    rates = [
        bench.rate("v4 pages", "pages/s", f"budget {b:,} tokens", lambda b=b: encode(items, b), len(items), operations)
        for b in workload.page_budgets
    ]
    published = bench.published("v4")
    theirs = bench.fitted(
        lambda x: published.encode_image(x, multi=True), bench.pages[: workload.published_pages], workload.seconds
    )
    rate = bench.rate(
        "v4 pages, published way", "pages/s", "batches of 8",
        lambda: published.encode_image(theirs, multi=True), len(theirs), operations / len(items) * len(theirs),
    )  # fmt: skip
    _ratio(bench, "v4 pages against the published way", _best(rates), rate, "best budget")
    ours = np.stack([rows.mean(axis=0) for rows in encode(theirs[:4], workload.page_budgets[0]).multi])
    reference = np.stack([rows.mean(axis=0) for rows in published.encode_image(theirs[:4], multi=True)])
    bench.add("v4 pages, lowest cosine with the published way", _lowest_cosine(ours, reference), "", "mean of the rows")


def _page_operations(bench: Bench, family: str, embeddings: Any) -> int:
    image_tokens = int(np.isfinite(embeddings.grids[0].boxes[:, 0]).sum())
    return bench.operations[family].total(len(embeddings.multi[0]), image_tokens)


def _lowest_cosine(left: np.ndarray, right: np.ndarray) -> float:
    products = (left * right).sum(axis=1)
    return float((products / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)).min())


def _texts_part(bench: Bench, name: str, items: Sequence[str], budgets: Sequence[int]) -> None:
    workload, model = bench.workload, bench.ours("v4")

    def encode(texts: Sequence[str], budget: int) -> Any:
        return model.encode_query(texts, multi=False, batch_tokens=budget)

    items = bench.fitted(lambda x: encode(x, budgets[0]), items, workload.seconds)
    tokens = [len(rows) for rows in model.encode_query(items).multi]
    operations = sum(bench.operations["v4"].total(count) for count in tokens)
    unit = f"{name}/s"
    rates = [
        bench.rate(f"v4 {name}", unit, f"budget {b:,} tokens", lambda b=b: encode(items, b), len(items), operations)
        for b in budgets
    ]
    published = bench.published("v4")
    theirs = bench.fitted(published.encode_text, items, workload.seconds)
    rate = bench.rate(
        f"v4 {name}, published way", unit, "batches of 8", lambda: published.encode_text(theirs), len(theirs),
        sum(bench.operations["v4"].total(count) for count in tokens[: len(theirs)]),
    )  # fmt: skip
    _ratio(bench, f"v4 {name} against the published way", _best(rates), rate, "best budget")
    some = theirs[:16]
    cosine = _lowest_cosine(encode(some, budgets[0]).single, published.encode_text(some))
    bench.add(f"v4 {name}, lowest cosine with the published way", cosine, "")


def texts(bench: Bench) -> None:
    """Measure texts per second of v4 for several batch budgets, and the published way."""
    workload = bench.workload
    items = bench.texts(workload.texts, 50, 1.1, workload.longest, 0)
    _texts_part(bench, "texts", items, workload.page_budgets)


def queries(bench: Bench) -> None:
    """Measure queries per second of v4 for several batch budgets, the published way, and the time of one query."""
    _texts_part(bench, "queries", bench.queries, bench.workload.query_budgets)
    model, published = bench.ours("v4"), bench.published("v4")
    for name, run in (
        ("v4, one query", lambda: model.encode_query([QUERY])),
        ("v4, one query, published way", lambda: published.encode_text([QUERY])),
    ):
        run()
        seconds = [bench.device.seconds(run) for _ in range(10)]
        bench.add(name, statistics.median(seconds) * 1000, "ms", "median of 10")


def pairs(bench: Bench) -> None:
    """Measure (query, document) pairs per second of m0: texts, fresh pages, remembered pages, and the published way."""
    workload, model = bench.workload, bench.ours("m0")
    documents = bench.texts(workload.pairs, 50, 1.1, workload.longest, 3)
    text_pairs = list(zip((bench.queries * workload.pairs)[: workload.pairs], documents, strict=True))

    def score(items: Sequence[Any], budget: int) -> Any:
        model.prefix_cache.clear()
        return model.score_pairs(items, batch_tokens=budget)

    budget = workload.page_budgets[-2]
    text_pairs = list(bench.fitted(lambda x: score(x, budget), text_pairs, workload.seconds))
    text_rates = [
        bench.rate("m0 pairs with texts", "pairs/s", f"budget {b:,} tokens", lambda b=b: score(text_pairs, b),
                   len(text_pairs))
        for b in workload.page_budgets
    ]  # fmt: skip
    page_pairs = [(QUERY, page) for page in bench.pages]
    page_pairs = list(bench.fitted(lambda x: score(x, budget), page_pairs, workload.seconds))
    patcher = model._model.patcher
    image_tokens = int(np.prod(patcher.tokens(bench.pages[0].size, patcher.max_pixels)))
    operations = bench.operations["m0"].total(image_tokens, image_tokens) * len(page_pairs)  # few tokens of text
    fresh = [
        bench.rate("m0 pairs with fresh pages", "pairs/s", f"budget {b:,} tokens", lambda b=b: score(page_pairs, b),
                   len(page_pairs), operations)
        for b in workload.page_budgets
    ]  # fmt: skip
    kept = bench.pages[: workload.remembered]
    remembered_pairs = [(query, page) for query in bench.queries[: workload.queries_per_page] for page in kept]
    score([(QUERY, page) for page in kept], budget)
    use = model.prefix_cache.use
    remembered = [
        bench.rate("m0 pairs with remembered pages", "pairs/s", f"budget {b:,} tokens",
                   lambda b=b: model.score_pairs(remembered_pairs, batch_tokens=b), len(remembered_pairs))
        for b in workload.page_budgets
    ]  # fmt: skip
    if model.prefix_cache.use.misses != use.misses:
        bench.failures.append(f"{model.prefix_cache.use.misses - use.misses} remembered pages were computed again")
    published = bench.published("m0")
    rates = {}
    for kind, items in (("text", text_pairs), ("image", page_pairs)):
        theirs = bench.fitted(
            lambda x, kind=kind: published.compute_score(x, doc_type=kind), items[:64], workload.seconds
        )
        rates[kind] = bench.rate(
            f"m0 pairs with {'texts' if kind == 'text' else 'pages'}, published way", "pairs/s", "batches of 8",
            lambda x=theirs, kind=kind: published.compute_score(x, doc_type=kind), len(theirs),
        )  # fmt: skip
    for name, ours, kind in (
        ("texts", text_rates, "text"),
        ("fresh pages", fresh, "image"),
        ("remembered pages", remembered, "image"),
    ):
        _ratio(bench, f"m0 pairs with {name} against the published way", _best(ours), rates[kind], "best budget")
    ours_raw = model.score_pairs(page_pairs[:4], raw=True)
    reference = published.compute_score(page_pairs[:4], doc_type="image", raw=True)
    bench.add("m0 raw scores, largest difference from the published way", np.abs(ours_raw - reference).max(), "")


def memory(bench: Bench) -> None:
    """Measure the peak memory above the weights, jina_rag and the published way, on pages and texts."""
    if not bench.device.is_cuda:
        raise NotApplicable("PyTorch counts the memory of CUDA devices only; benchmarks/models.py measures the CPU")
    workload, model, published = bench.workload, bench.ours("v4"), bench.published("v4")
    bench.add("weights", model._model.weights.bytes / 1e9, "GB", "jina_rag v4")
    some_pages = bench.pages[: workload.published_pages]
    some_texts = bench.texts(workload.texts, 50, 1.1, workload.longest, 0)[:200]
    cases: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        ("pages", lambda: model.encode_document(some_pages), lambda: published.encode_image(some_pages, multi=True)),
        ("texts", lambda: model.encode_query(some_texts), lambda: published.encode_text(some_texts)),
    ]
    for name, run, theirs in cases:
        ours_bytes, their_bytes = bench.device.peak_bytes(run), bench.device.peak_bytes(theirs)
        bench.add(f"v4 {name}, peak memory above the weights", ours_bytes / 1e9, "GB", "default budget")
        bench.add(f"v4 {name}, published way", their_bytes / 1e9, "GB", "batches of 8")
        bench.add(f"v4 {name}, peak against the published way", ours_bytes / their_bytes, "x")
    bench.drop_published()


def _cases(bench: Bench) -> list[tuple[str, Any, Callable[[], Any], int]]:
    """Return name, model, call and number of inputs of three typical calls, for the parts that look inside."""
    v4, m0 = bench.ours("v4"), bench.ours("m0")
    some_pages = bench.pages[: max(1, bench.workload.pages // 3)]
    some_queries = bench.queries[: bench.workload.queries // 2]

    def score() -> Any:
        m0.prefix_cache.clear()
        return m0.score(QUERY, some_pages)

    return [
        ("v4 pages", v4, lambda: v4.encode_document(some_pages), len(some_pages)),
        ("v4 queries", v4, lambda: v4.encode_query(some_queries), len(some_queries)),
        ("m0 pairs with fresh pages", m0, score, len(some_pages)),
    ]


def _stages_of(model: Any) -> dict[str, torch.nn.Module]:
    module = model._model.module
    heads = {"multi_vector_projector", "score"}
    return {
        "tower": module.model.visual,
        "decoder": module.model.language_model,
        "heads": next(child for name, child in module.named_children() if name in heads),
    }


@contextmanager
def _timed_prepare(model: Any) -> Iterator[list[float]]:
    """Collect the wall seconds of each call that prepares a batch on the host, in any thread."""
    seconds: list[float] = []
    lock, prepare = threading.Lock(), model._model.prepare

    def timed(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return prepare(*args, **options)
        finally:
            with lock:
                seconds.append(time.perf_counter() - start)

    model._model.prepare = timed
    try:
        yield seconds
    finally:
        del model._model.prepare


def stages(bench: Bench) -> None:
    """Measure where the time goes: preparation on the host, copies, vision tower, decoder and heads."""
    for name, model, run, count in _cases(bench):
        run()
        with _timed_prepare(model) as prepare, StageTimes(bench.device, _stages_of(model)) as times:
            wall = bench.device.seconds(run)
        seconds = times.seconds()
        bench.add(name, 1000 * wall / count, "ms per input", "whole call", inputs=count)
        note = f"{len(prepare)} batches on the host, while the device computes others"
        bench.add(name, 1000 * sum(prepare) / count, "ms per input", "prepare", note)
        for stage, value in seconds.items():
            calls = times.calls[stage]
            if calls:
                bench.add(name, 1000 * value / count, "ms per input", stage, f"{calls} calls, {value / wall:.0%}")
        if bench.device.is_cuda:
            recorded = gpu_measure.profile(bench.device, run)
            for direction, value in sorted(recorded.copy_seconds.items()):
                bench.add(name, 1000 * value / count, "ms per input", f"copies {direction}", "time on the device")
            bench.add(name, 1000 * recorded.kernel_seconds / count, "ms per input", "all kernels")
            bench.add(name, 100 * recorded.kernel_seconds / wall, "%", "device busy", "kernels / whole call")


def launches(bench: Bench) -> None:
    """Count kernel launches, attention calls and synchronisations of the host with the device, in one forward pass."""
    v4, m0 = bench.ours("v4"), bench.ours("m0")
    page_count, query_count = min(8, bench.workload.pages), min(32, bench.workload.queries)
    some_pages, some_queries = bench.pages[:page_count], bench.queries[:query_count]
    budget = 1_000_000

    def score() -> Any:
        m0.prefix_cache.clear()
        return m0.score(QUERY, some_pages, batch_tokens=budget)

    cases = [
        (f"v4, {page_count} pages", v4, lambda: v4.encode_document(some_pages, batch_tokens=budget)),
        (f"v4, {query_count} queries", v4, lambda: v4.encode_query(some_queries, batch_tokens=budget)),
        (f"m0, {page_count} fresh pages", m0, score),
    ]
    for setting, model, run in cases:
        run()
        recorded = gpu_measure.profile(bench.device, run)
        tower, decoder = (_stages_of(model)[name] for name in ("tower", "decoder"))
        layers = [len(_blocks(stage) or ()) for stage in (tower, decoder)]
        kernel = getattr(tower, "_kernel", None)
        note = f"{layers[0]} layers in the tower, {layers[1]} in the decoder"
        if kernel is not None:
            note += f"; tower: {kernel.__module__}.{kernel.__name__}"
        bench.add("attention calls", recorded.attention_calls, "calls", setting, note)
        if bench.device.is_cuda:
            bench.add("kernel launches", recorded.launches, "calls", setting, f"{recorded.kernels} kernels ran")
            places = gpu_measure.synchronisations(bench.device, run)
            note = ", ".join(f"{place} ({count} x)" for place, count in places.most_common(4))
            bench.add("waits of the host for the device", sum(places.values()), "calls", setting, note)
        else:
            bench.add("operators", recorded.operators, "calls", setting, "nested calls included")
        bench.add("values read by the host (_local_scalar_dense)", recorded.host_reads, "calls", setting)


def oom(bench: Bench) -> None:
    """Encode pages under a memory limit that one batch exceeds: smaller batches must give the same vectors."""
    if not bench.device.is_cuda:
        raise NotApplicable("PyTorch limits the memory of CUDA devices only")
    bench.drop_published()
    bench.drop("jina_rag m0")
    device, model = bench.device.device, bench.ours("v4")
    some_pages = bench.pages[: max(8, bench.workload.pages // 2)]

    def encode(count: int) -> Any:
        return model.encode_document(some_pages[:count], batch_tokens=1_000_000)

    expected = encode(len(some_pages))
    free_seconds = bench.device.seconds(lambda: encode(len(some_pages)))
    peak, single = bench.device.peak_bytes(lambda: encode(len(some_pages))), bench.device.peak_bytes(lambda: encode(1))
    bench.device.release()
    reserved, total = torch.cuda.memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
    limit = reserved + max(peak // 3, 2 * single)
    failed_allocations = torch.cuda.memory_stats(device)["num_ooms"]
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
    try:
        start = time.perf_counter()
        actual = encode(len(some_pages))
        seconds = time.perf_counter() - start
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    failed_allocations = torch.cuda.memory_stats(device)["num_ooms"] - failed_allocations
    bench.add("peak without a limit", peak / 1e9, "GB", f"{len(some_pages)} pages in one batch")
    bench.add("limit above the weights", (limit - reserved) / 1e9, "GB")
    bench.add("allocations that failed", failed_allocations, "calls")
    bench.add("time against no limit", seconds / free_seconds, "x", note="failed batches included")
    cosine = _lowest_cosine(actual.single, expected.single)
    bench.add("lowest cosine with the vectors without a limit", cosine, "")
    if not failed_allocations:
        bench.failures.append("the limit did not make any allocation fail, so nothing was tested")
    if cosine < 0.999:
        bench.failures.append(f"the vectors under the limit differ (cosine {cosine:.5f})")


def turns(bench: Bench) -> None:
    """Let v4 and m0 take turns on a card that has room for one of them; the rest of the card is occupied."""
    if not bench.device.is_cuda:
        raise NotApplicable("models on the CPU are never offloaded")
    bench.drop_published()
    v4, m0 = bench.ours("v4"), bench.ours("m0")
    documents = ["Revenue grew by 12 % in the north.", "A recipe for onion soup."]
    calls: dict[str, Callable[[], np.ndarray]] = {
        "v4": lambda: v4.encode_query([QUERY], multi=False).single,
        "m0": lambda: m0.score(QUERY, documents, raw=True),
    }
    expected = {name: call() for name, call in calls.items()}
    shared = shared_device(bench.device.device)
    sizes = {"v4": v4._model.weights.bytes, "m0": m0._model.weights.bytes}
    room = max(sizes.values()) + shared.margin + 512 * 1024**2
    if room >= sum(sizes.values()):
        raise NotApplicable(
            f"both models ({sum(sizes.values()) / 1e9:.1f} GB) fit into the room of one ({room / 1e9:.1f} GB, reserve "
            "included)"
        )
    shared.offload_idle("the benchmark")
    gc.collect()
    bench.device.release()
    occupied = torch.empty(torch.cuda.mem_get_info()[0] - room, dtype=torch.uint8, device=bench.device.device)
    try:
        for name, size in sizes.items():
            bench.add("weights", size / 1e9, "GB", name)
        bench.add("free memory", room / 1e9, "GB")
        for turn in range(2):
            for name, call in calls.items():
                switch = bench.device.seconds(lambda name=name, call=call: _check_equal(bench, name, call, expected))
                again = bench.device.seconds(call)
                moved = sum(sizes.values()) if turn or name == "m0" else sizes[name]
                note = f"{moved / 1e9:.1f} GB moved; {again * 1000:.0f} ms if already on the card"
                bench.add(f"call of {name} after the other model", switch, "s", f"turn {turn + 1}", note)
    finally:
        del occupied
        bench.device.release()


def _check_equal(bench: Bench, name: str, call: Callable[[], np.ndarray], expected: dict[str, np.ndarray]) -> None:
    difference = float(np.abs(call() - expected[name]).max())
    if difference > 0:
        bench.failures.append(f"{name} differs by {difference:.1e} after the models took turns")


@dataclass(frozen=True)
class _ModuleCall:
    """A module with the arguments of one call."""

    module: torch.nn.Module
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __call__(self) -> Any:
        with torch.inference_mode():
            return self.module(*self.args, **self.options)


def _first_call(module: torch.nn.Module, run: Callable[[], Any]) -> _ModuleCall:
    """Return the arguments of the first call of `module` during `run`."""
    calls: list[_ModuleCall] = []

    def keep(_: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        calls.append(_ModuleCall(module, args, dict(options)))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    if not calls:
        raise RuntimeError(f"{type(module).__name__} was not called as a module")
    return calls[0]


def _blocks(module: torch.nn.Module) -> Sequence[torch.nn.Module] | None:
    """Return the equal layers of a stack: its longest list of modules."""
    lists = [child for child in module.modules() if isinstance(child, torch.nn.ModuleList)]
    return max(lists, key=len, default=None)


@contextmanager
def _compiled(module: torch.nn.Module) -> Iterator[None]:
    """Compile the layers of a module until the context ends; equal layers share compiled code."""
    blocks = _blocks(module)
    if blocks is None:
        raise RuntimeError(f"{type(module).__name__} has no list of layers")
    torch._dynamo.reset()
    try:
        for block in blocks:
            block.compile(dynamic=False)
        yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None
        torch._dynamo.reset()


def _captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """Record a call as a CUDA graph, and return a function that replays the graph and returns the output."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay() -> Any:
        graph.replay()
        return output

    return replay


def _output(result: Any) -> torch.Tensor:
    value = getattr(result, "pooler_output", None)
    value = getattr(result, "last_hidden_state", result) if value is None else value
    return (value[0] if isinstance(value, tuple | list) else value).float().clone()


def compilation(bench: Bench) -> None:
    """Measure vision tower and decoder with and without torch.compile and CUDA graphs."""
    if not bench.device.is_cuda and not bench.is_selected:
        raise NotApplicable("CUDA graphs need CUDA; --only compile measures torch.compile on the CPU, for minutes")
    model = bench.ours("v4")
    tower, decoder = (_stages_of(model)[name] for name in ("tower", "decoder"))
    page_count, query_count = min(8, bench.workload.pages), min(32, bench.workload.queries)

    def encode(items: Sequence[Any]) -> Callable[[], Any]:
        call = model.encode_query if isinstance(items[0], str) else model.encode_document
        return lambda: call(items, batch_tokens=1_000_000)

    runs = {
        f"tower, {page_count} pages": (tower, encode(bench.pages[:page_count])),
        f"decoder, {query_count} queries": (decoder, encode(bench.queries[:query_count])),
        "decoder, 1 query": (decoder, encode([QUERY])),
        "tower, 1 page": (tower, encode(bench.pages[:1])),
    }
    calls, eager, outputs = {}, {}, {}
    for setting, (module, run) in runs.items():
        calls[setting] = call = _first_call(module, run)
        outputs[setting] = _output(call())
        eager[setting] = bench.device.mean_seconds(call)
        bench.add("eager", eager[setting] * 1000, "ms", setting)

    def measure(name: str, setting: str, make: Callable[[], Callable[[], Any]]) -> None:
        try:
            start = time.perf_counter()
            with time_limit(40 if bench.device.is_cuda else 300):
                variant = make()
                variant()
                ready = time.perf_counter() - start
                seconds = bench.device.mean_seconds(variant)
            difference = float((_output(variant()) - outputs[setting]).abs().max())
        except Exception as exc:
            if isinstance(exc, gpu_measure.TimeLimitExceeded) and exc.limit.is_active:
                raise  # the limit of the part, not of this measurement
            bench.fail(name, "ms", setting, exc)
            return
        speed = f"{eager[setting] / seconds:.2f} x eager"
        note = f"{speed}, ready after {ready:.1f} s, largest difference {difference:.1e}"
        bench.add(name, seconds * 1000, "ms", setting, note)

    if bench.device.is_cuda:
        for setting, call in calls.items():
            measure("CUDA graph", setting, lambda call=call: _captured(call))
    for setting, call in list(calls.items())[:3]:
        with _compiled(call.module):
            measure("torch.compile", setting, lambda call=call: call)
            if bench.device.is_cuda:
                measure("torch.compile and CUDA graph", setting, lambda call=call: _captured(call))


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        run: Function that measures and adds figures.
        seconds: Time limit of the part on a CUDA device.
    """

    run: Callable[[Bench], None]
    seconds: float

    @property
    def title(self) -> str:
        """First line of the docstring of `run`."""
        return str(self.run.__doc__).splitlines()[0]


PARTS = {
    "matrix": Part(matrix, 20),
    "goldens": Part(goldens, 60),
    "pages": Part(pages, 75),
    "texts": Part(texts, 45),
    "queries": Part(queries, 40),
    "memory": Part(memory, 40),
    "pairs": Part(pairs, 75),
    "stages": Part(stages, 40),
    "launches": Part(launches, 40),
    "oom": Part(oom, 30),
    "turns": Part(turns, 50),
    "compile": Part(compilation, 90),
}
"""Parts in the order of a run: the most important figures first, because a card may be at hand for minutes only."""


def as_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return figures as JSON objects, without the optional values that are empty."""
    return [
        {key: value for key, value in asdict(figure).items() if key in ("name", "value", "unit") or value}
        for figure in figures
    ]
