"""The search pipeline as an mteb search model, on texts, images and the files of a judged folder."""

import json

import mteb
import pytest
from datasets import Features, Image, Value
from helpers.mteb_tasks import QUERIES, CountingEmbedder, SmallTask, judged_folder, text_task

from jina_rag import DocumentIndex, Rescore
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import read_folder
from jina_rag.evaluation.mteb import FolderTask, JinaRagSearch
from jina_rag.evaluation.runner import evaluate
from jina_rag.testing import FakeEmbedder, FakeReranker, make_page


def evaluate_task(model, task, predictions=None):
    result = mteb.evaluate(
        model, task, cache=None, show_progress_bar=False, co2_tracker=False, prediction_folder=predictions
    )
    return result.task_results[0]


def rankings(predictions, task) -> dict[str, dict[str, float]]:
    return json.loads((predictions / task.prediction_file_name).read_text())["default"]["test"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return judged_folder(tmp_path_factory.mktemp("judged folder"))


def test_search_model_implements_the_mteb_protocol(tmp_path) -> None:
    model = JinaRagSearch(tmp_path, FakeEmbedder())
    assert isinstance(model, mteb.SearchProtocol)
    assert not isinstance(model, mteb.EncoderProtocol)
    with pytest.raises(InvalidInputError, match="depth"):
        JinaRagSearch(tmp_path, FakeEmbedder(), depth=0)
    with pytest.raises(InvalidInputError, match="Call `index`"):
        model.search({"id": []}, task_metadata=None, hf_split="", hf_subset="", top_k=1)


# A judged folder


@pytest.mark.parametrize(
    "options",
    [{}, {"reranker": FakeReranker()}, {"storage": "compact"}, {"stages": (Rescore(dense=0.9, identifiers=0.0),)}],
    ids=["default", "reranker", "compact", "stages"],
)
def test_folder_task_score_equals_evaluate(folder, tmp_path, options) -> None:
    task = FolderTask(folder, tmp_path / "work")
    result = evaluate_task(JinaRagSearch(tmp_path / "indexes", FakeEmbedder(), **options), task, tmp_path)
    open_options = {name: value for name, value in options.items() if name != "stages"}
    with DocumentIndex.open(tmp_path / "index", embedder=FakeEmbedder(), **open_options) as index:
        if "stages" not in options:
            expected = evaluate(read_folder(folder), index).measures["nDCG@5"]
            assert result.get_score() == pytest.approx(expected, abs=1e-5)
            assert 0.5 < expected < 1  # the relevant page of q4 shares no more words with the query than other pages
        else:
            index.ingest([folder])
            hits = index.search(QUERIES[3][1], k=7, stages=options["stages"])
            order = [f"{hit.path.stem}/{hit.page}" for hit in hits]
            scores = rankings(tmp_path, task)["q4"]
            assert sorted(scores, key=scores.get, reverse=True) == order
    for scores in rankings(tmp_path, task).values():
        assert list(scores.values()) == sorted(set(scores.values()), reverse=True)  # strictly decreasing


def test_folder_task_converts_grades_to_gains(folder, tmp_path) -> None:
    task = FolderTask(folder, tmp_path)
    task.load_data()
    split = task.dataset["default"]["test"]
    assert split["relevant_docs"]["q1"] == {"fruit/1": 3, "fruit/2": 1}
    assert split["corpus"]["id"][:4] == ["fruit/1", "fruit/2", "fruit/3", "tools/1"]
    row = split["corpus"][4]
    assert (row["path"], row["page"]) == (str((folder / "tools.pdf").resolve()), 2)
    assert row["image"].size[0] > 100


def test_folder_task_content_text_and_both(folder, tmp_path) -> None:
    text_only = FolderTask(folder, tmp_path, content="text")
    text_only.load_data()
    corpus = text_only.dataset["default"]["test"]["corpus"]
    assert corpus["text"][0] == "apples pears and plums"
    assert "image" not in corpus.column_names
    both = FolderTask(folder, tmp_path, content="both")
    both.load_data()
    assert {"image", "text"} <= set(both.dataset["default"]["test"]["corpus"].column_names)
    assert text_only.metadata.name == both.metadata.name
    with pytest.raises(InvalidInputError, match="content"):
        FolderTask(folder, tmp_path, content="sound")


def test_folder_task_renders_once_and_renames_changed_folders(tmp_path, monkeypatch) -> None:
    from jina_rag.evaluation.mteb import folder_pages

    folder = judged_folder(tmp_path / "folder")
    document_counts: list[int] = []
    read_pages = folder_pages.read_pages
    monkeypatch.setattr(
        folder_pages, "read_pages", lambda s, *a, **o: document_counts.append(len(s)) or read_pages(s, *a, **o)
    )
    first = FolderTask(folder, tmp_path / "work")
    first.load_data()
    FolderTask(folder, tmp_path / "work").load_data()
    assert document_counts == [3]
    (folder / "queries.jsonl").write_text((folder / "queries.jsonl").read_text() + "\n", encoding="utf-8")
    changed_task = FolderTask(folder, tmp_path / "work")
    assert changed_task.metadata.name != first.metadata.name
    assert changed_task.metadata.revision != first.metadata.revision


def test_folder_task_skips_unreadable_documents_with_a_warning(tmp_path, caplog) -> None:
    folder = judged_folder(tmp_path / "folder")
    (folder / "rivers.pdf").write_bytes(b"%PDF-1.4 and nothing")
    task = FolderTask(folder, tmp_path / "work")
    with caplog.at_level("WARNING", "jina_rag"):
        task.load_data()
    assert "rivers.pdf" in caplog.text
    assert len(task.dataset["default"]["test"]["corpus"]) == 5
    for name in ("fruit", "tools"):
        (folder / f"{name}.pdf").write_bytes(b"%PDF-1.4 and nothing")
    with pytest.raises(InvalidInputError, match="No page"):
        FolderTask(folder, tmp_path / "work").load_data()


# mteb corpora


def test_search_finds_texts_by_title_and_deletes_its_index(tmp_path) -> None:
    task = text_task(["plums", "saws", "danube"], ["fruit plums", "", "danube"])
    task._data[0][1]["title"] = "wood and steel"
    task._data[1].append({"id": "q3", "text": "steel"})
    task._data[2]["q3"] = {"d1": 1}
    result = evaluate_task(JinaRagSearch(tmp_path / "indexes", FakeEmbedder()), task, tmp_path)
    scores = rankings(tmp_path, task)
    assert max(scores["q3"], key=scores["q3"].get) == "d1"
    assert scores["q1"] == {}  # an empty query
    assert result.get_score() == pytest.approx(0.75)
    assert not list((tmp_path / "indexes").iterdir())  # the index is deleted after the search


def test_search_finds_images_by_their_text(tmp_path) -> None:
    images = [make_page(text).screenshot.image for text in ("a", "b c d e f", "g h")]
    task = SmallTask(
        [
            {"id": f"d{i}", "text": text, "image": image}
            for i, (text, image) in enumerate(zip("xyz", images, strict=True))
        ],
        [{"id": "q0", "text": "y"}],
        {"q0": {"d1": 1}},
        category="t2it",
        modalities=["text", "image"],
        features=Features({"id": Value("string"), "text": Value("string"), "image": Image()}),
    )
    fake = FakeEmbedder()
    assert evaluate_task(JinaRagSearch(tmp_path, fake), task).get_score() == 1.0
    pages = [item for side, items in fake.history if side == "document" for item in items]
    assert [page.text for page in pages] == ["x", "y", "z"]
    assert pages[0].screenshot.image.size == images[0].size


def test_search_ranks_only_candidates_of_a_reranking_task(tmp_path) -> None:
    candidates = {"q0": ["d2", "d1"], "q1": ["d0", "unknown"]}
    task = text_task(["apples", "apples pears", "apples plums"], ["apples plums", "apples"], top_ranked=candidates)
    evaluate_task(JinaRagSearch(tmp_path / "indexes", FakeEmbedder()), task, tmp_path)
    scores = rankings(tmp_path, task)
    assert list(scores["q0"]) == ["d2", "d1"]
    assert set(scores["q1"]) == {"d0"}


def test_depth_limits_the_ranking(tmp_path) -> None:
    task = text_task([f"apples {i}" for i in range(9)], ["apples"])
    evaluate_task(JinaRagSearch(tmp_path / "indexes", FakeEmbedder(), depth=4), task, tmp_path)
    assert len(rankings(tmp_path, task)["q0"]) == 4


def test_interrupted_indexing_resumes(tmp_path, monkeypatch) -> None:
    from jina_rag.evaluation.mteb import pipeline

    monkeypatch.setattr(pipeline, "_DOCUMENT_BATCH", 2)
    texts = [f"text number{i}" for i in range(7)]
    first = CountingEmbedder(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        evaluate_task(JinaRagSearch(tmp_path, first), text_task(texts, ["number5"]))
    second = CountingEmbedder()
    assert evaluate_task(JinaRagSearch(tmp_path, second), text_task(texts, ["number5"])).get_score() == pytest.approx(
        0.3869, 1
    )
    documents = [item["text"] for item in [*first.inputs, *second.inputs] if isinstance(item, dict)]
    assert sorted(documents) == texts
