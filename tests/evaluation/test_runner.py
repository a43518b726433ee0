"""Evaluation of settings: measures, comparisons, cached query results, and saved evaluations."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.judged_sets import entry, write_judged, write_lines

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.comparison import EvaluationHooks, compare_runs, evaluate_settings
from jina_rag.evaluation.datasets import data_hash, read_folder
from jina_rag.evaluation.measures import MEASURES
from jina_rag.evaluation.run_cache import CACHE_FILE, WARM_UP
from jina_rag.evaluation.runner import evaluate
from jina_rag.evaluation.serialization import load, save, to_json
from jina_rag.evaluation.settings import Setting
from jina_rag.evaluation.significance import difference, interval
from jina_rag.index.document_index import DocumentIndex
from jina_rag.testing import FakeEmbedder, FakeReranker
from jina_rag.types import Page


@pytest.fixture
def judged_folder(tmp_path):
    return read_folder(write_judged(tmp_path / "judged"))


def searched_queries(embedder: FakeEmbedder) -> list[str]:
    """Return the embedded queries, without the warm-up query."""
    return [text for kind, texts in embedder.history if kind == "query" for text in texts if text != WARM_UP]


def page_keys(embedder: FakeEmbedder) -> list[tuple[str, int]]:
    pages = [item for kind, items in embedder.history if kind == "document" for item in items]
    return [(page.doc_id, page.number) for page in pages if isinstance(page, Page)]


def test_single_setting_result_fields(judged_folder, tmp_path):
    embedder = FakeEmbedder()
    result = evaluate_settings(
        judged_folder, [Setting(embedder)], indexes=str(tmp_path / "kb"), command="the command", seed=3
    )
    setting = result.settings[0]
    assert (result.folder, result.command, result.seed) == (str(tmp_path / "judged"), "the command", 3)
    assert result.data_hash == data_hash(judged_folder)
    assert {"jina_rag", "python", "numpy", "platform", "qdrant-edge-py"} <= set(result.versions)
    assert (setting.name, setting.queries, setting.pages) == ("fake", 5, 4)
    assert setting.fingerprint == embedder.fingerprint
    assert tuple(setting.measures) == MEASURES
    assert setting.measures["Recall@1"] >= 0.8
    rows = [query_result.measures["nDCG@5"] for query_result in setting.per_query]
    assert setting.measures["nDCG@5"] == pytest.approx(sum(rows) / 5)
    assert setting.intervals["nDCG@5"] == interval(rows, seed=3)
    assert setting.by["modality"]["table"]["queries"] == 2
    assert set(setting.by["language"]) == {"same", "cross"}
    assert set(setting.latency) == {"p50", "p90", "p99", "mean"}
    assert 0 < setting.latency["p50"] <= setting.latency["p90"] <= setting.latency["p99"]
    assert setting.index_seconds > 0
    assert setting.bytes["images"] > 0
    assert setting.vector_bytes_per_page > 0
    first = setting.per_query[0]
    assert (first.query_id, first.ranking[0]) == ("a", ("animals", 2))
    assert len(first.scores) == len(first.images) == len(first.ranking) == 4
    assert first.scores == tuple(sorted(first.scores, reverse=True))
    assert all(image is not None and image.is_file() for image in first.images)
    assert first.unjudged == {1: 0, 5: 2, 10: 2}
    assert setting.unjudged[1] == pytest.approx(sum(a.unjudged[1] for a in setting.per_query) / 5)
    assert result.comparisons == ()
    assert result.queries["b"] == {
        "query": "Wo wuchs solar power?", "modality": "table", "language": "cross",
        "relevant": [["energy", 1, 2]], "answer": "",
    }  # fmt: skip
    assert searched_queries(embedder).count("do cats sleep") == 1, "each query runs once"
    assert ("query", ("do cats sleep",)) in embedder.history


def test_settings_share_an_index_and_are_compared_with_the_first(judged_folder, tmp_path):
    embedder, reranker = FakeEmbedder(), FakeReranker()
    settings = [Setting(embedder), Setting(embedder, stages="rescore:dense=1"), Setting(embedder, reranker=reranker)]
    result = evaluate_settings(
        judged_folder, settings, indexes=str(tmp_path / "kb"), measures=["nDCG@3", "rr@2"], seed=1
    )
    assert sorted(page_keys(embedder)) == [("animals.pdf", 1), ("animals.pdf", 2), ("energy.pdf", 1), ("energy.pdf", 2)]
    assert [setting.name for setting in result.settings] == [
        "fake, default, no reranker", "fake, rescore:dense=1, no reranker", "fake, default, fake",
    ]  # fmt: skip
    assert reranker.history, "the reranker scored pages"
    assert len({setting.index_seconds for setting in result.settings}) == 1, "shared ingestion time"
    assert [(c.first, c.second, c.measure) for c in result.comparisons] == [
        (result.settings[0].name, result.settings[position].name, measure)
        for position in (1, 2) for measure in ("nDCG@3", "RR@2")
    ]  # fmt: skip
    rows = [{a.query_id: a.measures["RR@2"] for a in setting.per_query} for setting in result.settings]
    assert result.comparisons[3].difference == difference(rows[0], rows[2], seed=1)


def test_each_storage_has_its_own_index(judged_folder, tmp_path):
    settings = [Setting(FakeEmbedder(), storage) for storage in ("exact", "compact")]
    result = evaluate_settings(judged_folder, settings, indexes=str(tmp_path / "kbs"), latency=False)
    assert sorted(path.name for path in (tmp_path / "kbs").iterdir()) == ["fake-compact", "fake-exact"]
    assert [setting.setting["storage"] for setting in result.settings] == ["exact", "compact"]
    assert result.settings[0].latency == {}


def test_batched_search_returns_the_same_pages(judged_folder, tmp_path):
    embedder = FakeEmbedder()
    one_by_one = evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "a"))
    batched_result = evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "b"), latency=False)
    assert ("query", tuple(query.query for query in judged_folder.queries)) in embedder.history
    for one, other in zip(one_by_one.settings[0].per_query, batched_result.settings[0].per_query, strict=True):
        assert one.ranking == other.ranking
        assert other.milliseconds == 0.0
    with DocumentIndex.open(tmp_path / "b", embedder=embedder) as index:
        report = evaluate(judged_folder, index)
    assert report.measures == batched_result.settings[0].measures
    assert report.run == {a.query_id: list(a.ranking) for a in batched_result.settings[0].per_query}


def raise_after(query_count: int) -> EvaluationHooks:
    """Return hooks that raise after a number of queries, as if the process were killed."""

    @contextmanager
    def search(name):
        def on_query(done, total):
            if done >= query_count:
                raise MemoryError("killed")

        yield on_query

    return EvaluationHooks(search=search)


def test_killed_run_resumes_without_repeating_queries(judged_folder, tmp_path):
    embedder = FakeEmbedder()
    options = {"indexes": str(tmp_path / "kb")}
    with pytest.raises(MemoryError):
        evaluate_settings(judged_folder, [Setting(embedder)], hooks=raise_after(3), **options)
    cache_file = tmp_path / "kb" / CACHE_FILE
    assert len(cache_file.read_text().splitlines()) == 3
    with cache_file.open("a") as file:
        file.write('{"key": "half a li')  # incomplete line of the killed process
    result = evaluate_settings(judged_folder, [Setting(embedder)], **options)
    queries = [query.query for query in judged_folder.queries]
    assert sorted(text for text in searched_queries(embedder) if text in queries) == sorted(queries)
    assert len(page_keys(embedder)) == 4
    assert result.settings[0].index_seconds == 0.0
    assert all(query_result.milliseconds > 0 for query_result in result.settings[0].per_query)
    repeated_result = evaluate_settings(judged_folder, [Setting(embedder)], **options)
    assert len([text for text in searched_queries(embedder) if text in queries]) == 5
    assert repeated_result.settings[0].per_query == result.settings[0].per_query
    # Without latency, timed results are reused. With latency, results without times are not reused.
    evaluate_settings(judged_folder, [Setting(embedder)], latency=False, **options)
    assert len([text for text in searched_queries(embedder) if text in queries]) == 5
    evaluate_settings(judged_folder, [Setting(embedder)], force=True, **options)
    assert len([text for text in searched_queries(embedder) if text in queries]) == 10


def test_untimed_cached_results_are_not_used_for_latency(judged_folder, tmp_path):
    embedder = FakeEmbedder()
    evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "kb"), latency=False)
    result = evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "kb"))
    assert searched_queries(embedder).count("submarines") == 2
    assert result.settings[0].latency["p50"] > 0


def test_cache_depends_on_stages_depth_and_documents(judged_folder, tmp_path):
    embedder = FakeEmbedder()
    options = {"indexes": str(tmp_path / "kb"), "latency": False}
    first_result = evaluate_settings(judged_folder, [Setting(embedder)], **options)

    def search_count() -> int:
        return searched_queries(embedder).count("submarines")

    assert search_count() == 1
    evaluate_settings(judged_folder, [Setting(embedder, stages="rescore:dense=1")], **options)
    assert search_count() == 2, "different stages"
    evaluate_settings(judged_folder, [Setting(embedder)], measures=["Recall@20"], **options)
    assert search_count() == 3, "greater depth"
    # Cached results remain valid if judgments change, because judgments are not cached.
    root = judged_folder.root
    write_lines(root / "queries.jsonl", [entry("a", "submarines", [("energy", 1, 2)]), entry("n", "new", [])])
    changed_folder = read_folder(root)
    result = evaluate_settings(changed_folder, [Setting(embedder)], **options)
    assert search_count() == 3
    assert searched_queries(embedder).count("new") == 1
    assert result.data_hash != first_result.data_hash
    assert result.settings[0].queries == 1
    assert result.settings[0].per_query[1].measures == {}
    # A change of the documents invalidates the cache.
    (root / "docs" / "animals.pdf").unlink()
    (root / "docs" / "energy.pdf").rename(root / "docs" / "animals.pdf")
    write_lines(root / "docs.jsonl", [{"doc": "energy", "file": "docs/animals.pdf"}])
    evaluate_settings(read_folder(root), [Setting(embedder)], indexes=str(tmp_path / "other"), latency=False)
    assert search_count() == 4


class InterruptedEmbedder(FakeEmbedder):
    """Raises KeyboardInterrupt once, while embedding the second document."""

    interrupt = True

    def encode_document(self, documents, **options):
        if self.interrupt and any(isinstance(item, Page) and item.doc_id == "energy.pdf" for item in documents):
            self.interrupt = False
            raise KeyboardInterrupt
        return super().encode_document(documents, **options)


def test_interrupted_ingestion_resumes_without_cached_results(judged_folder, tmp_path):
    embedder = InterruptedEmbedder()
    with pytest.raises(KeyboardInterrupt):
        evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "kb"))
    assert not (tmp_path / "kb" / CACHE_FILE).exists(), "a partial index is not searched"
    result = evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "kb"))
    assert result.settings[0].pages == 4
    pages = page_keys(embedder)
    assert len(pages) == len(set(pages)) == 4, "no page is embedded twice"


def test_invalid_settings_or_measures_raise_invalid_input(judged_folder, tmp_path):
    with pytest.raises(InvalidInputError, match="at least one setting"):
        evaluate_settings(judged_folder, [], indexes=str(tmp_path / "kb"))
    with pytest.raises(InvalidInputError, match="'nDCG' is not a measure"):
        evaluate_settings(judged_folder, [Setting()], indexes=str(tmp_path / "kb"), measures=["nDCG"])
    write_lines(judged_folder.root / "queries.jsonl", [entry("a", "what?", [])])
    with pytest.raises(InvalidInputError, match="has no judged query"):
        evaluate_settings(read_folder(judged_folder.root), [Setting()], indexes=str(tmp_path / "kb"))
    assert not (tmp_path / "kb").exists()


def test_index_with_other_documents_raises_invalid_input(judged_folder, tmp_path):
    other = write_judged(tmp_path / "more" / "judged")
    embedder = FakeEmbedder()
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        index.ingest(other / "docs")
        with pytest.raises(InvalidInputError, match="from outside"):
            evaluate(judged_folder, index)
    with pytest.raises(InvalidInputError, match="from outside"):
        evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "kb"))


def test_saved_evaluation_is_loaded_and_compared(judged_folder, tmp_path):
    embedder = FakeEmbedder()
    settings = [Setting(embedder), Setting(embedder, stages="rescore:dense=1")]
    result = evaluate_settings(judged_folder, settings, indexes=str(tmp_path / "kb"))
    save(tmp_path / "old.json", result)
    loaded_result = load(tmp_path / "old.json")
    assert to_json(loaded_result) == to_json(result)
    assert loaded_result.settings[0].per_query == result.settings[0].per_query
    assert loaded_result.settings[1].unjudged == result.settings[1].unjudged
    assert loaded_result.comparisons == result.comparisons
    comparisons = compare_runs(loaded_result, result, earlier_name="old.json")
    assert len(comparisons) == 2 * len(MEASURES)
    assert {(c.first, c.second) for c in comparisons} == {(f"{s.name} (old.json)", s.name) for s in result.settings}
    assert {c.difference.mean for c in comparisons} == {0.0}
    single = evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "kb"))
    assert {c.first for c in compare_runs(single, result)} == {"fake (before)"}, "the only setting is the baseline"
    with pytest.raises(InvalidInputError, match="has no setting or no measure in common"):
        compare_runs(result, single)


def test_evaluations_of_different_data_raise_invalid_input(judged_folder, tmp_path):
    embedder = FakeEmbedder()
    first_result = evaluate_settings(judged_folder, [Setting(embedder)], indexes=str(tmp_path / "kb"))
    with (judged_folder.root / "queries.jsonl").open("a") as file:
        file.write(json.dumps(entry("z", "dogs", [("animals", 1, 2)])))
    second_result = evaluate_settings(
        read_folder(judged_folder.root), [Setting(embedder)], indexes=str(tmp_path / "kb")
    )
    with pytest.raises(InvalidInputError, match="measured on different data"):
        compare_runs(first_result, second_result)


def test_data_hash_covers_lists_and_file_contents(tmp_path):
    one = data_hash(read_folder(write_judged(tmp_path / "a")))
    folder = tmp_path / "b"
    write_judged(folder)
    for file in ("animals.pdf", "energy.pdf"):
        (folder / "docs" / file).write_bytes((tmp_path / "a" / "docs" / file).read_bytes())
    assert data_hash(read_folder(folder)) == one, "the path does not matter"
    with (folder / "docs" / "energy.pdf").open("ab") as file:
        file.write(b"%")
    assert data_hash(read_folder(folder)) != one


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "not an evaluation in a supported format"),
        ('{"format": 99}', "not an evaluation in a supported format"),
        ('{"format": 1}', "is incomplete"),
        ('{"format": 1, "folder": "", "data_hash": "", "command": "", "versions": [1]}', "is incomplete"),
    ],
)
def test_load_of_invalid_file_raises_invalid_input(tmp_path, content, message):
    path = Path(tmp_path / "x.json")
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        load(path)
