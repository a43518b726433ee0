"""Benchmark runs with mteb: results, resuming, failed tasks, task names, published scores and the command."""

import importlib
import json
import logging
import signal
import subprocess
import sys
import textwrap

import datasets
import mteb
import pytest
import typer
from helpers.mteb_tasks import CountingEmbedder, PairsTask, judged_folder, text_task
from helpers.paths import ROOT
from typer.testing import CliRunner

from jina_rag.cli.benchmark import benchmark
from jina_rag.errors import InvalidInputError, JinaRagError, MissingDependencyError
from jina_rag.evaluation.mteb import SMOKE, BenchmarkSetting, ModelOptions, find_tasks, loading, run_benchmark
from jina_rag.evaluation.mteb.logging import quiet
from jina_rag.evaluation.reference_scores import targets_for
from jina_rag.testing import FakeEmbedder, FakeReranker

TEXTS = [f"text number{i} of many" for i in range(40)]
QUERIES = [f"number{i}" for i in range(5)]


def tasks() -> list:
    """Return two retrieval tasks without a common text."""
    return [
        text_task(TEXTS, QUERIES, name="First"),
        text_task([f"other {text}" for text in TEXTS], [f"other {text}" for text in QUERIES], name="Second"),
    ]


@pytest.fixture
def small_batches(monkeypatch) -> None:
    from jina_rag.evaluation.mteb import runner

    monkeypatch.setattr(runner, "_BATCH", {"text": 8, "image": 2})


# Results and resuming


def test_run_writes_mteb_results_and_skips_finished_tasks(tmp_path) -> None:
    fake = CountingEmbedder()
    setting = BenchmarkSetting(model=fake, vectors="multi")
    run = run_benchmark(setting=setting, output=tmp_path, tasks=tasks())
    assert [(o.task, o.value, o.queries, o.resumed) for o in run.outcomes] == [
        ("First", 100.0, 5, False),
        ("Second", 100.0, 5, False),
    ]
    assert run.embedded == 90
    assert run.mean == 100.0
    result = mteb.TaskResult.from_disk(run.outcomes[0].file)
    assert result.get_score() == 1.0
    meta = json.loads((run.outcomes[0].file.parent / "model_meta.json").read_text())
    assert (meta["name"], meta["revision"]) == (run.model, run.revision) == ("jina_rag/fake", run.revision)
    loaded = mteb.ResultCache(tmp_path).load_results(load_experiments="match_name")
    assert {task.task_name for model in loaded.model_results for task in model.task_results} == {"First", "Second"}
    resumed = run_benchmark(
        setting=BenchmarkSetting(model=CountingEmbedder(), vectors="multi"), output=tmp_path, tasks=tasks()
    )
    assert resumed.embedded == 0
    assert [(o.value, o.queries, o.resumed) for o in resumed.outcomes] == [(100.0, 5, True)] * 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tasks"][0]["task"] == "First"
    assert summary["versions"]["mteb"] == mteb.__version__
    assert summary["setting"] == {"embedder": "fake", "vectors": "multi"}
    other = run_benchmark(
        setting=BenchmarkSetting(model=CountingEmbedder(), vectors="single"), output=tmp_path, tasks=tasks()
    )
    assert not any(o.resumed for o in other.outcomes)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("call", [1, 4, 9])
def test_interrupted_run_resumes_without_repeated_embedding(tmp_path, call) -> None:
    first = CountingEmbedder(stop_at=call)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(setting=BenchmarkSetting(model=first), output=tmp_path, tasks=tasks())
    second = CountingEmbedder()
    run = run_benchmark(setting=BenchmarkSetting(model=second), output=tmp_path, tasks=tasks())
    assert [outcome.value for outcome in run.outcomes] == [100.0, 100.0]
    assert first.inputs or call == 1
    assert len(first.inputs) + len(second.inputs) == 90
    assert not set(first.inputs) & set(second.inputs)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="requires SIGKILL")
def test_killed_run_resumes_without_repeated_embedding(tmp_path) -> None:
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT / "tests")!r})
        from helpers.mteb_tasks import CountingEmbedder
        from evaluation.mteb.test_runner import tasks
        from jina_rag.evaluation.mteb import BenchmarkSetting, run_benchmark, runner
        runner._BATCH = {{"text": 8, "image": 2}}

        class KilledEmbedder(CountingEmbedder):
            def _count(self, items):
                if self.calls == 9:
                    os.kill(os.getpid(), signal.SIGKILL)
                super()._count(items)
                with open({str(tmp_path / "seen")!r}, "a") as file:
                    file.writelines(item + chr(10) for item in items)

        run_benchmark(setting=BenchmarkSetting(model=KilledEmbedder()), output={str(tmp_path / "out")!r}, tasks=tasks())
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    embedded_before_kill = (tmp_path / "seen").read_text().splitlines()
    second = CountingEmbedder()
    run = run_benchmark(setting=BenchmarkSetting(model=second), output=tmp_path / "out", tasks=tasks())
    assert [outcome.value for outcome in run.outcomes] == [100.0, 100.0]
    assert len(embedded_before_kill) > 45
    assert len(embedded_before_kill) + len(second.inputs) == 90
    assert not set(embedded_before_kill) & set(second.inputs)


def test_reranker_scores_the_top_documents_of_the_vectors(tmp_path) -> None:
    reranker, embedder = FakeReranker(), CountingEmbedder()
    setting = BenchmarkSetting(model=embedder, vectors="multi", reranker=reranker, rerank_top=3)
    run = run_benchmark(setting=setting, output=tmp_path, tasks=tasks())
    assert [outcome.value for outcome in run.outcomes] == [100.0, 100.0]
    assert {len(documents) for _, documents in reranker.history} == {3}
    assert "top_3" in str(run.outcomes[0].file)
    # The run recomputes incomplete ranking files of a killed run from the cached vectors.
    for file in (tmp_path / "predictions").rglob("*.json"):
        file.write_text('{"half')
    for file in (tmp_path / "results").rglob("First.json"):
        file.unlink()
    calls = len(reranker.history)
    resumed = run_benchmark(setting=setting, output=tmp_path, tasks=tasks())
    assert [outcome.resumed for outcome in resumed.outcomes] == [False, True]
    assert resumed.outcomes[0].value == 100.0
    assert resumed.embedded == 0
    assert len(reranker.history) == calls


def test_run_leaves_the_task_of_the_caller_unchanged(tmp_path) -> None:
    [task, _] = tasks()
    task.load_data()
    for _ in range(2):
        setting = BenchmarkSetting(model=FakeEmbedder(), reranker=FakeReranker(), rerank_top=3)
        run_benchmark(setting=setting, output=tmp_path, tasks=[task])
        assert task.data_loaded
        assert task.dataset["default"]["test"]["top_ranked"] is None


def test_lite_embedder_ignores_options_of_the_reranker(tmp_path, tiny) -> None:
    from jina_rag.evaluation.mteb.cache import VectorCache
    from jina_rag.evaluation.mteb.models import Models

    options = ModelOptions(device="cpu", dtype="bfloat16", max_pixels=20_000)
    setting = BenchmarkSetting(model="lite", reranker=tiny["m0"], options=options)
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        meta = Models(setting, tmp_path, cache).meta(tasks()[0])
    assert meta.experiment_kwargs.items() >= {"max_pixels": 20_000, "dtype": "bfloat16", "top": 100}.items()
    assert "first_max_pixels" not in meta.experiment_kwargs
    assert meta.experiment_kwargs["first"].startswith("jina_rag/lite@")


def test_judged_folder_with_vectors_and_search_pipeline(tmp_path) -> None:
    folder = judged_folder(tmp_path / "folder")
    values = {}
    for name, options in {"vectors": {"vectors": "multi"}, "search": {"pipeline": True, "storage": "compact"}}.items():
        setting = BenchmarkSetting(model=FakeEmbedder(), **options)
        run = run_benchmark(folder=folder, setting=setting, output=tmp_path / "out")
        [outcome] = run.outcomes
        values[name] = outcome.value
        assert outcome.queries == 4
        assert not run.failed
        assert mteb.TaskResult.from_disk(outcome.file).task_name == outcome.task
    assert values["vectors"] == pytest.approx(values["search"], abs=15)
    assert run.setting == {"embedder": "fake", "search": "whole", "storage": "compact"}


# Failed tasks and invalid settings


def test_failed_tasks_are_listed_and_other_tasks_run(tmp_path) -> None:
    pairs = PairsTask([("a b", "a b", 5.0), ("a b", "c d", 1.0), ("e", "f", 0.0)])
    broken_task = text_task(["a"], ["a"], name="Broken")
    broken_task.load_data = lambda **_: (_ for _ in ()).throw(RuntimeError("no such config.\nmore"))
    setting = BenchmarkSetting(model=FakeEmbedder(), vectors="multi")
    run = run_benchmark(setting=setting, output=tmp_path, tasks=[pairs, broken_task, tasks()[0]])
    assert [outcome.task for outcome in run.outcomes] == ["First"]
    assert "vectors='single' (--vectors single)" in run.failed["PairsTask"]
    assert run.failed["Broken"] == "The data of Broken cannot be loaded: RuntimeError: no such config. Repeat the run."
    auto = run_benchmark(setting=BenchmarkSetting(model=FakeEmbedder()), output=tmp_path, tasks=[pairs])
    assert auto.outcomes[0].measure == "cosine_spearman"
    for options in ({"pipeline": True}, {"reranker": FakeReranker()}):
        setting = BenchmarkSetting(model=FakeEmbedder(), **options)
        assert (
            "retrieval tasks only" in run_benchmark(setting=setting, output=tmp_path, tasks=[pairs]).failed["PairsTask"]
        )


def test_text_model_fails_on_image_tasks(tmp_path, tiny) -> None:
    with pytest.raises(JinaRagError, match="cannot be reached"):
        run_benchmark(["BIOSSES"], BenchmarkSetting(model=tiny["v1"]), output=tmp_path)
    run = run_benchmark(smoke=True, setting=BenchmarkSetting(model=tiny["v1"]), output=tmp_path)
    assert set(run.failed) == set(SMOKE)
    assert run.failed[SMOKE[0]] == "jina_rag/v1 reads text, but the task has image. Pass another model (--embedder)."


def test_unreachable_hub_raises_without_other_output(tmp_path, capfd) -> None:
    with pytest.raises(JinaRagError, match=r"^The data of JinaVDRRamens\w+ are not on this machine, .* are skipped\.$"):
        run_benchmark(smoke=True, setting=BenchmarkSetting(model=FakeEmbedder()), output=tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options",
    [
        {"vectors": "both"},
        {"parts": "sound"},
        {"rerank_top": 0},
        {"storage": "compact"},
        {"pipeline": True, "vectors": "multi"},
    ],
)
def test_invalid_settings_raise(options) -> None:
    with pytest.raises(InvalidInputError):
        BenchmarkSetting(model=FakeEmbedder(), **options)


def test_described_omits_default_options() -> None:
    setting = BenchmarkSetting(model="lite", reranker="lite", options=ModelOptions(max_pixels=9, device="cpu"))
    assert setting.described() == {"embedder": "lite", "reranker": "lite", "rerank_top": "100", "max_pixels": "9"}


# Benchmark and task names


def test_find_tasks_resolves_short_names() -> None:
    sizes = {"JinaVDR": 43, "vidore v1": 10, "ViDoRe(v2)": 4, "ViDoRe(v3)": 10, "BEIR": 15, "MTEB(eng)": 41}
    sizes |= {"MIRACL": 1, "MLDR": 1, "CoIR": 10, "LongEmbed": 6, "STS": 10, "JinaVDRTQARetrieval": 1}
    assert {name: len(find_tasks([name])) for name in sizes} == sizes
    assert [task.metadata.name for task in find_tasks([], smoke=True)] == list(SMOKE)
    assert len(find_tasks(["STS", "STS12"])) == 10
    assert [t.metadata.name for t in find_tasks(["JinaVDRTabFQuadRetrieval", "SciFact"], smoke=True)] == [SMOKE[5]]


def test_find_tasks_languages_affect_only_the_current_call() -> None:
    [task] = find_tasks(["MIRACL"], languages=["deu", "yor"])
    assert task.hf_subsets == ["de", "yo"]
    assert len(find_tasks(["MIRACL"])[0].hf_subsets) == 18
    subsets = {task.metadata.name: list(task.hf_subsets) for task in find_tasks(["STS"])}
    assert [task.metadata.name for task in find_tasks(["STS"], languages=["deu"])] == ["STS17", "STS22"]
    assert {task.metadata.name: list(task.hf_subsets) for task in find_tasks(["STS"])} == subsets
    with pytest.raises(InvalidInputError, match="three-letter code"):
        find_tasks(["MIRACL"], languages=["de"])
    with pytest.raises(InvalidInputError, match="No task matches"):
        find_tasks(["SciFact"], languages=["deu"])


@pytest.mark.parametrize(
    ("name", "hint"), [("JinaVDT", "Did you mean JinaVDR"), ("Ramen", "Ramens"), ("??", "Benchmarks: JinaVDR")]
)
def test_unknown_benchmark_name_raises_with_a_hint(name, hint) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        find_tasks([name])


# Published scores


def test_outcome_compares_with_the_published_score(tmp_path, monkeypatch) -> None:
    identity = loading.Identity("jinaai/jina-embeddings-v4", "0" * 40, "", "text")
    monkeypatch.setattr(loading, "_identity_of", lambda *_: identity)
    task = text_task(TEXTS, QUERIES, name="JinaVDRTQARetrieval")
    setting = BenchmarkSetting(model=FakeEmbedder(), vectors="multi")
    run = run_benchmark(setting=setting, output=tmp_path, tasks=[task])
    comparison = run.outcomes[0].reference
    [target] = targets_for("JinaVDRTQARetrieval", model=identity.name, vectors="multi", loader="mteb")
    assert comparison.target == target
    assert comparison.difference == pytest.approx(100 - target.value)
    assert run.to_json()["tasks"][0]["published"]["source"] == comparison.source
    assert comparison.tolerance == 20  # one of five queries
    assert (
        run_benchmark(
            setting=BenchmarkSetting(model=FakeEmbedder(), vectors="multi", options=ModelOptions(truncate_dim=64)),
            output=tmp_path,
            tasks=[text_task(TEXTS, QUERIES, name="JinaVDRTQARetrieval")],
        )
        .outcomes[0]
        .reference
        is None
    )  # no score is published for 64 dimensions


# Imports and logging


def test_missing_mteb_raises_missing_dependency_error(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "jina_rag.evaluation.mteb")
    with pytest.raises(MissingDependencyError, match=r'"jina-rag\[eval\]"'):
        importlib.import_module("jina_rag.evaluation.mteb")


def test_other_modules_do_not_import_mteb() -> None:
    code = "import sys, jina_rag.cli.app, jina_rag.cli.benchmark, jina_rag.evaluation.runner as _; "
    code += "sys.exit('mteb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_quiet_restores_log_levels_and_progress_bars() -> None:
    level, bars = logging.getLogger("mteb").level, datasets.are_progress_bars_disabled()
    with quiet():
        assert not logging.getLogger("mteb").isEnabledFor(logging.WARNING)
        assert datasets.are_progress_bars_disabled()
    assert (logging.getLogger("mteb").level, datasets.are_progress_bars_disabled()) == (level, bars)


# Command line


def run_command(*args: str):
    app = typer.Typer()
    app.command()(benchmark)
    return CliRunner().invoke(app, list(args))


def test_command_prints_a_table_or_json(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loading, "load_embedder", lambda *_, **__: FakeEmbedder())
    folder = judged_folder(tmp_path / "folder")
    args = ["--folder", str(folder), "--output", str(tmp_path / "out"), "--embedder", "lite"]
    table = run_command(*args)
    assert table.exit_code == 0, table.output
    assert "ndcg_at_5" in table.stdout
    assert "input" in table.stderr
    resumed = run_command(*args, "--json")
    assert resumed.exit_code == 0
    value = json.loads(resumed.stdout)
    assert value["tasks"][0]["queries"] == 4
    assert value["tasks"][0]["resumed"]
    assert run_command().exit_code == 2


def test_command_lists_failed_tasks(tmp_path, tiny) -> None:
    json_result = run_command("--smoke", "--output", str(tmp_path), "--embedder", tiny["v1"], "--json")
    assert json_result.exit_code == 1
    assert len(json.loads(json_result.stdout)["failed"]) == 9
    text_result = run_command("--smoke", "--output", str(tmp_path), "--embedder", tiny["v1"])
    assert "Failed" in text_result.stderr
