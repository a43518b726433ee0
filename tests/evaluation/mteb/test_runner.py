"""Runs of benchmarks: done tasks are skipped, killed runs go on, failures are listed; published figures beside."""

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
from helpers.mteb_tasks import Counting, PairsTask, judged_folder, text_task
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
    """Two searches that share no text."""
    return [
        text_task(TEXTS, QUERIES, name="First"),
        text_task([f"other {text}" for text in TEXTS], [f"other {text}" for text in QUERIES], name="Second"),
    ]


@pytest.fixture
def small_batches(monkeypatch) -> None:
    from jina_rag.evaluation.mteb import runner

    monkeypatch.setattr(runner, "_BATCH", {"text": 8, "image": 2})


# -- results, and going on -------------------------------------------------------------------------------------


def test_results_are_mtebs_and_done_tasks_are_skipped(tmp_path) -> None:
    fake = Counting()
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
    again = run_benchmark(setting=BenchmarkSetting(model=Counting(), vectors="multi"), output=tmp_path, tasks=tasks())
    assert again.embedded == 0
    assert [(o.value, o.queries, o.resumed) for o in again.outcomes] == [(100.0, 5, True)] * 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tasks"][0]["task"] == "First"
    assert summary["versions"]["mteb"] == mteb.__version__
    assert summary["setting"] == {"embedder": "fake", "vectors": "multi"}
    other = run_benchmark(setting=BenchmarkSetting(model=Counting(), vectors="single"), output=tmp_path, tasks=tasks())
    assert not any(o.resumed for o in other.outcomes)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("call", [1, 4, 9])
def test_an_interrupted_run_goes_on_and_embeds_nothing_twice(tmp_path, call) -> None:
    first = Counting(stop_at=call)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(setting=BenchmarkSetting(model=first), output=tmp_path, tasks=tasks())
    second = Counting()
    run = run_benchmark(setting=BenchmarkSetting(model=second), output=tmp_path, tasks=tasks())
    assert [outcome.value for outcome in run.outcomes] == [100.0, 100.0]
    assert first.seen or call == 1
    assert len(first.seen) + len(second.seen) == 90
    assert not set(first.seen) & set(second.seen)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_killed_run_goes_on_and_embeds_nothing_twice(tmp_path) -> None:
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT / "tests")!r})
        from helpers.mteb_tasks import Counting
        from evaluation.mteb.test_runner import tasks
        from jina_rag.evaluation.mteb import BenchmarkSetting, run_benchmark, runner
        runner._BATCH = {{"text": 8, "image": 2}}

        class Killed(Counting):
            def _count(self, items):
                if self.calls == 9:
                    os.kill(os.getpid(), signal.SIGKILL)
                super()._count(items)
                with open({str(tmp_path / "seen")!r}, "a") as file:
                    file.writelines(item + chr(10) for item in items)

        run_benchmark(setting=BenchmarkSetting(model=Killed()), output={str(tmp_path / "out")!r}, tasks=tasks())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = (tmp_path / "seen").read_text().splitlines()
    second = Counting()
    run = run_benchmark(setting=BenchmarkSetting(model=second), output=tmp_path / "out", tasks=tasks())
    assert [outcome.value for outcome in run.outcomes] == [100.0, 100.0]
    assert len(before) > 45
    assert len(before) + len(second.seen) == 90
    assert not set(before) & set(second.seen)


def test_a_reranker_judges_the_best_of_the_vectors(tmp_path) -> None:
    judge, fake = FakeReranker(), Counting()
    setting = BenchmarkSetting(model=fake, vectors="multi", reranker=judge, rerank_top=3)
    run = run_benchmark(setting=setting, output=tmp_path, tasks=tasks())
    assert [outcome.value for outcome in run.outcomes] == [100.0, 100.0]
    assert {len(documents) for _, documents in judge.history} == {3}
    assert "top_3" in str(run.outcomes[0].file)
    # Rankings that a killed run left half written are made again, from what was embedded.
    for file in (tmp_path / "predictions").rglob("*.json"):
        file.write_text('{"half')
    for file in (tmp_path / "results").rglob("First.json"):
        file.unlink()
    calls = len(judge.history)
    again = run_benchmark(setting=setting, output=tmp_path, tasks=tasks())
    assert [outcome.resumed for outcome in again.outcomes] == [False, True]
    assert again.outcomes[0].value == 100.0
    assert again.embedded == 0
    assert len(judge.history) == calls


def test_a_callers_task_stays_as_it_was(tmp_path) -> None:
    [task, _] = tasks()
    task.load_data()
    for _ in range(2):
        setting = BenchmarkSetting(model=FakeEmbedder(), reranker=FakeReranker(), rerank_top=3)
        run_benchmark(setting=setting, output=tmp_path, tasks=[task])
        assert task.data_loaded
        assert task.dataset["default"]["test"]["top_ranked"] is None


def test_options_are_those_of_the_model_that_is_no_lite_one(tmp_path, tiny) -> None:
    from jina_rag.evaluation.mteb.cache import VectorCache
    from jina_rag.evaluation.mteb.models import Models

    options = ModelOptions(device="cpu", dtype="bfloat16", max_pixels=20_000)
    setting = BenchmarkSetting(model="lite", reranker=tiny["m0"], options=options)
    with VectorCache(tmp_path / "v.sqlite3") as store:
        meta = Models(setting, tmp_path, store).meta(tasks()[0])
    assert meta.experiment_kwargs.items() >= {"max_pixels": 20_000, "dtype": "bfloat16", "top": 100}.items()
    assert "first_max_pixels" not in meta.experiment_kwargs
    assert meta.experiment_kwargs["first"].startswith("jina_rag/lite@")


def test_the_whole_search_and_a_judged_folder(tmp_path) -> None:
    folder = judged_folder(tmp_path / "folder")
    values = {}
    for name, options in {"vectors": {"vectors": "multi"}, "whole": {"pipeline": True, "storage": "compact"}}.items():
        setting = BenchmarkSetting(model=FakeEmbedder(), **options)
        run = run_benchmark(folder=folder, setting=setting, output=tmp_path / "out")
        [outcome] = run.outcomes
        values[name] = outcome.value
        assert outcome.queries == 4
        assert not run.failed
        assert mteb.TaskResult.from_disk(outcome.file).task_name == outcome.task
    assert values["vectors"] == pytest.approx(values["whole"], abs=15)
    assert run.setting == {"embedder": "fake", "search": "whole", "storage": "compact"}


# -- what cannot be done ---------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_listed_and_the_rest_goes_on(tmp_path) -> None:
    pairs = PairsTask([("a b", "a b", 5.0), ("a b", "c d", 1.0), ("e", "f", 0.0)])
    broken = text_task(["a"], ["a"], name="Broken")
    broken.load_data = lambda **_: (_ for _ in ()).throw(RuntimeError("no such config.\nmore"))
    setting = BenchmarkSetting(model=FakeEmbedder(), vectors="multi")
    run = run_benchmark(setting=setting, output=tmp_path, tasks=[pairs, broken, tasks()[0]])
    assert [outcome.task for outcome in run.outcomes] == ["First"]
    assert "single vectors" in run.failed["PairsTask"]
    assert run.failed["Broken"] == "The data of Broken cannot be loaded: RuntimeError: no such config."
    auto = run_benchmark(setting=BenchmarkSetting(model=FakeEmbedder()), output=tmp_path, tasks=[pairs])
    assert auto.outcomes[0].measure == "cosine_spearman"
    for options in ({"pipeline": True}, {"reranker": FakeReranker()}):
        whole = BenchmarkSetting(model=FakeEmbedder(), **options)
        assert "searches only" in run_benchmark(setting=whole, output=tmp_path, tasks=[pairs]).failed["PairsTask"]


def test_a_model_that_reads_texts_is_not_given_images(tmp_path, tiny) -> None:
    with pytest.raises(JinaRagError, match="cannot be reached"):
        run_benchmark(["BIOSSES"], BenchmarkSetting(model=tiny["v1"]), output=tmp_path)
    run = run_benchmark(smoke=True, setting=BenchmarkSetting(model=tiny["v1"]), output=tmp_path)
    assert set(run.failed) == set(SMOKE)
    assert run.failed[SMOKE[0]] == "jina_rag/v1 reads text; the task has image."


def test_without_a_network_a_real_benchmark_is_one_sentence(tmp_path, capfd) -> None:
    with pytest.raises(JinaRagError, match=r"^The data of JinaVDRRamens\w+ are not on this machine, .* is kept\.$"):
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
def test_settings_that_make_no_sense_are_refused(options) -> None:
    with pytest.raises(InvalidInputError):
        BenchmarkSetting(model=FakeEmbedder(), **options)


def test_a_setting_says_what_differs() -> None:
    setting = BenchmarkSetting(model="lite", reranker="lite", options=ModelOptions(max_pixels=9, device="cpu"))
    assert setting.described() == {"embedder": "lite", "reranker": "lite", "rerank_top": "100", "max_pixels": "9"}


# -- names -----------------------------------------------------------------------------------------------------


def test_short_names_are_those_of_mteb() -> None:
    sizes = {"JinaVDR": 43, "vidore v1": 10, "ViDoRe(v2)": 4, "ViDoRe(v3)": 10, "BEIR": 15, "MTEB(eng)": 41}
    sizes |= {"MIRACL": 1, "MLDR": 1, "CoIR": 10, "LongEmbed": 6, "STS": 10, "JinaVDRTQARetrieval": 1}
    assert {name: len(find_tasks([name])) for name in sizes} == sizes
    assert [task.metadata.name for task in find_tasks([], smoke=True)] == list(SMOKE)
    assert len(find_tasks(["STS", "STS12"])) == 10
    assert [t.metadata.name for t in find_tasks(["JinaVDRTabFQuadRetrieval", "SciFact"], smoke=True)] == [SMOKE[5]]


def test_languages_choose_parts_of_tasks_for_this_call_only() -> None:
    [task] = find_tasks(["MIRACL"], languages=["deu", "yor"])
    assert task.hf_subsets == ["de", "yo"]
    assert len(find_tasks(["MIRACL"])[0].hf_subsets) == 18
    before = {task.metadata.name: list(task.hf_subsets) for task in find_tasks(["STS"])}
    assert [task.metadata.name for task in find_tasks(["STS"], languages=["deu"])] == ["STS17", "STS22"]
    assert {task.metadata.name: list(task.hf_subsets) for task in find_tasks(["STS"])} == before
    with pytest.raises(InvalidInputError, match="three letters"):
        find_tasks(["MIRACL"], languages=["de"])
    with pytest.raises(InvalidInputError, match="No task is left"):
        find_tasks(["SciFact"], languages=["deu"])


@pytest.mark.parametrize(
    ("name", "hint"), [("JinaVDT", "did you mean JinaVDR"), ("Ramen", "Ramens"), ("??", "are JinaVDR")]
)
def test_an_unknown_name_has_a_hint(name, hint) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        find_tasks([name])


# -- published figures -----------------------------------------------------------------------------------------


def test_published_figures_stand_beside(tmp_path, monkeypatch) -> None:
    own = loading.Identity("jinaai/jina-embeddings-v4", "0" * 40, "", "text")
    monkeypatch.setattr(loading, "_identity_of", lambda *_: own)
    task = text_task(TEXTS, QUERIES, name="JinaVDRTQARetrieval")
    setting = BenchmarkSetting(model=FakeEmbedder(), vectors="multi")
    run = run_benchmark(setting=setting, output=tmp_path, tasks=[task])
    beside = run.outcomes[0].reference
    [target] = targets_for("JinaVDRTQARetrieval", model=own.name, vectors="multi", loader="mteb")
    assert beside.target == target
    assert beside.difference == pytest.approx(100 - target.value)
    assert run.to_json()["tasks"][0]["published"]["source"] == beside.source
    assert beside.tolerance == 20  # one of five questions
    assert (
        run_benchmark(
            setting=BenchmarkSetting(model=FakeEmbedder(), vectors="multi", options=ModelOptions(truncate_dim=64)),
            output=tmp_path,
            tasks=[text_task(TEXTS, QUERIES, name="JinaVDRTQARetrieval")],
        )
        .outcomes[0]
        .reference
        is None
    )  # no figure of so short vectors


# -- surroundings ----------------------------------------------------------------------------------------------


def test_without_mteb_it_is_one_sentence(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "jina_rag.evaluation.mteb")
    with pytest.raises(MissingDependencyError, match=r'"jina-rag\[eval\]"'):
        importlib.import_module("jina_rag.evaluation.mteb")


def test_nothing_else_imports_mteb() -> None:
    code = "import sys, jina_rag.cli.app, jina_rag.cli.benchmark, jina_rag.evaluation.runner as _; "
    code += "sys.exit('mteb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_quiet_leaves_things_as_they_were() -> None:
    level, bars = logging.getLogger("mteb").level, datasets.are_progress_bars_disabled()
    with quiet():
        assert not logging.getLogger("mteb").isEnabledFor(logging.WARNING)
        assert datasets.are_progress_bars_disabled()
    assert (logging.getLogger("mteb").level, datasets.are_progress_bars_disabled()) == (level, bars)


# -- command line ----------------------------------------------------------------------------------------------


def command(*words: str):
    app = typer.Typer()
    app.command()(benchmark)
    return CliRunner().invoke(app, list(words))


def test_the_command_prints_a_table_or_json(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loading, "load_embedder", lambda *_, **__: FakeEmbedder())
    folder = judged_folder(tmp_path / "folder")
    words = ["--folder", str(folder), "--output", str(tmp_path / "out"), "--embedder", "lite"]
    shown = command(*words)
    assert shown.exit_code == 0, shown.output
    assert "ndcg_at_5" in shown.stdout
    assert "input" in shown.stderr
    told = command(*words, "--json")
    assert told.exit_code == 0
    value = json.loads(told.stdout)
    assert value["tasks"][0]["queries"] == 4
    assert value["tasks"][0]["resumed"]
    assert command().exit_code == 2


def test_the_command_lists_what_failed(tmp_path, tiny) -> None:
    told = command("--smoke", "--output", str(tmp_path), "--embedder", tiny["v1"], "--json")
    assert told.exit_code == 1
    assert len(json.loads(told.stdout)["failed"]) == 9
    shown = command("--smoke", "--output", str(tmp_path), "--embedder", tiny["v1"])
    assert "Failed" in shown.stderr
