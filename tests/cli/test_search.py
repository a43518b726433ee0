"""Command line: ``jina-rag search``: hits, filters, stages, run files, heat maps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.command_line import NO_OCR
from PIL import Image

from jina_rag import DocumentIndex
from jina_rag.testing import sample_pdf


def test_stage_options_and_explain_print_each_stage(cli, corpus):
    kb = corpus / "kb"
    result = cli("search", "where do whales sing?", "-i", kb, "-k", "2", "--explain", "--stage", "rescore:dense=0.5")
    assert result.code == 0
    assert "Score and rank in each stage" in result.out
    assert all(stage in result.out for stage in ("dense", "lexical", "maxsim", "rescore"))
    assert "every page is scored" in result.out
    assert "candidates" in result.err
    incomplete = cli("search", "where do whales sing?", "-i", kb, "--reranker", "lite", "--max-ms", "0", "--json").json
    assert not incomplete["complete"]
    assert "max_ms=0" in incomplete["notes"][0]
    complete = cli("search", "where do whales sing?", "-i", kb, "--reranker", "lite", "--json").json
    assert {hit["stage"] for hit in complete["hits"]} == {"rerank"}
    assert (complete["hits"][0]["doc_id"], complete["hits"][0]["page"]) == ("animals.pdf", 2)
    message = cli("search", "whales", "-i", kb, "--reranker", "lite", "--stage", "rerank:max_ms=0")
    assert "Note: rerank: 4 pages were not" in message.err


def test_offset_group_by_and_min_score_select_hits(cli, corpus):
    kb = corpus / "kb"
    content = cli("search", "whales", "-i", kb, "-k", "4", "--json").json["hits"]
    later_hits = cli("search", "whales", "-i", kb, "-k", "2", "--offset", "2", "--json").json["hits"]
    assert [(hit["rank"], hit["page"]) for hit in later_hits] == [(hit["rank"], hit["page"]) for hit in content[2:]]
    assert cli("search", "whales", "-i", kb, "-k", "2").err == "More hits are available. Pass --offset 2.\n"
    assert (
        cli("search", "whales", "-i", kb, "-k", "1", "--offset", "2").err
        == "More hits are available. Pass --offset 3.\n"
    )
    assert cli("search", "whales", "-i", kb, "-k", "2", "--offset", "2").err == ""
    assert cli("search", "whales", "-i", kb, "-k", "2", "--json").err == ""
    document_hits = cli("search", "whales", "-i", kb, "--group-by", "document", "--json").json["hits"]
    assert [hit["doc_id"] for hit in document_hits] == ["animals.pdf", "energy.pdf"]
    assert document_hits[0]["other_pages"] == [1]
    assert "also page 1" in cli("search", "whales", "-i", kb, "--group-by", "document").out
    best = cli("search", "whales", "-i", kb, "--min-score", str(content[0]["score"] - 1e-4), "--json").json["hits"]
    assert len(best) == 1


def test_long_query_is_truncated_with_a_note(cli, corpus):
    content = cli("search", "whales sing " * 400, "-i", corpus / "kb", "--json").json
    assert content["notes"] == ["The query is too long and was truncated."]
    assert content["hits"][0]["page"] == 2
    assert cli("search", "whales sing", "-i", corpus / "kb", "--json").json["notes"] == []


def test_image_query_finds_its_page(cli, corpus, tmp_path):
    image = cli("search", "whales", "-i", corpus / "kb", "-k", "1", "--json").json["hits"][0]["image"]
    content = cli("search", "-i", corpus / "kb", "-k", "1", "--image", image, "--json").json
    assert (content["query"], content["hits"][0]["page"]) == (image, 2)
    both = cli("search", "whales", "-i", corpus / "kb", "-k", "1", "--image", image, "--json").json
    assert both["hits"][0]["page"] == 2
    cli("search", "-i", corpus / "kb", "--image", tmp_path / "none.png").assert_usage_error("none.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "rescore:dence=1"], "dense=…"),
        (["--stage", "guess"], "prefetch, rescore, rerank"),
        (["--max-ms", "5"], "--max-ms requires a reranker. Pass --reranker NAME"),
        (["--max-images", "5", "--max-ms", "5"], "--max-ms and --max-images require a reranker. Pass --reranker"),
        (["--max-images", "5", "--stage", "rerank:limit=0"], "--max-images requires a reranker"),
        (
            ["--max-ms", "5", "-r", "lite", "--stage", "rerank:max_ms=3"],
            "max_ms is set twice. Pass either --max-ms or --stage rerank:max",
        ),
        (
            ["--max-images", "5", "--stage", "rerank:model=lite,max_images=0"],
            "max_images is set twice. Pass either --max-images or",
        ),
        (["--reranker", "lite", "--stage", "rerank:model=lite-en"], "The reranker is set twice"),
        (["--group-by", "chapter"], "chapter"),
        (["--stage", "rerank"], "--stage rerank requires a reranker. Pass --reranker NAME"),
        (["--stage", "rerank:limit=3"], "--stage rerank requires a reranker. Pass --reranker NAME"),
        (["--stage", "rescore:dense=1", "--stage", "Rescore:identifiers=1"], "--stage rescore is set twice"),
        (["--stage", "prefetch:limit=true"], "--stage 'prefetch:limit=true': Prefetch.limit is True"),
        (["--stage", "prefetch:exhaustive=false"], "Prefetch.exhaustive is False; expected an integer"),
    ],
)
def test_invalid_options_are_rejected(cli, corpus, options, message):
    cli("search", "whales", "-i", corpus / "kb", *options).assert_usage_error(message)


@pytest.mark.parametrize(
    "options",
    [
        ["-r", "lite", "--stage", "rerank:limit=3", "--max-ms", "0"],
        ["--stage", "rerank:limit=3,model=lite", "--max-ms", "0"],
        ["--stage", "rerank:limit=3,max_ms=0", "-r", "lite", "--max-images", "9"],
    ],
)
def test_reranker_limits_are_added_to_the_rerank_stage(cli, corpus, options):
    content = cli("search", "whales", "-i", corpus / "kb", *options, "--json").json
    assert not content["complete"]
    assert "3 pages" in content["notes"][0]
    assert "max_ms=0" in content["notes"][0]
    assert {hit["stage"] for hit in content["hits"]} == {"rescore"}


def test_prefetch_and_rescore_stages_require_no_reranker(cli, corpus):
    options = ["--stage", "prefetch:lexical=false,regions=true,limit=3,exhaustive=0", "--stage", "rerank:limit=0"]
    content = cli("search", "whales", "-i", corpus / "kb", *options, "--json").json
    assert (content["hits"][0]["page"], content["hits"][0]["stage"]) == (2, "rescore")


def test_json_contains_every_field_of_a_hit(cli, corpus):
    result = cli("search", "where do whales sing?", "-i", corpus / "kb", "-k", "3", "--json")
    assert (result.code, result.err) == (0, "")
    content = result.json
    assert set(content) == {"query", "hits", "notes", "complete", "more", "milliseconds"}
    assert (content["notes"], content["complete"], content["more"]) == ([], True, True)
    assert content["query"] == "where do whales sing?"
    assert [hit["rank"] for hit in content["hits"]] == [1, 2, 3]
    best = content["hits"][0]
    assert set(best) == {
        "rank", "score", "doc_id", "path", "page", "region", "image", "snippet", "copies", "repeats",
        "stage", "scores", "other_pages", "similar",
    }  # fmt: skip
    assert best["scores"][best["stage"]] == best["score"]
    assert (best["copies"], best["repeats"]) == ([], None)
    assert (best["doc_id"], best["page"], best["region"]) == ("animals.pdf", 2, None)
    assert Path(best["path"]) == corpus / "docs" / "animals.pdf"
    assert Path(best["image"]).is_file()
    assert "whales" in best["snippet"]
    assert best["score"] > content["hits"][1]["score"]


@pytest.mark.parametrize("width", [80, 140])
def test_table_fits_the_terminal(cli, corpus, width):
    result = cli("search", "order KX-4471-B", "-i", corpus / "kb", width=width)
    assert (result.code, result.err) == (0, "")
    assert "energy.pdf" in result.out
    assert "page 2 of 2" in result.out
    assert "order KX-4471-B was shipped" in result.out
    assert max(map(len, result.out.splitlines())) <= width


def test_search_without_hits_succeeds(cli, corpus):
    result = cli("search", "whales", "-i", corpus / "kb", "--filter", "year=1066")
    assert (result.code, result.out) == (0, "No hits.\n")
    assert cli("search", "whales", "-i", corpus / "kb", "--filter", "year=1066", "--json").json["hits"] == []


@pytest.mark.parametrize("query", ["", "   "])
def test_empty_query_is_rejected(cli, corpus, query):
    cli("search", query, "-i", corpus / "kb").assert_usage_error("is empty")


def test_heatmap_is_written_as_png(cli, corpus, tmp_path):
    path = tmp_path / "heatmap.png"
    result = cli("search", "whales", "-i", corpus / "kb", "--heatmap", path)
    assert result.code == 0
    assert "Wrote the heat map of hit 1 to " in result.err
    with Image.open(path) as image:
        assert image.format == "PNG"
        colors = image.convert("RGB").getcolors(1 << 24)
    # Without a heat map, the page is black on white.
    assert any(max(rgb) - min(rgb) > 60 for _, rgb in colors)
    json_result = cli("search", "whales", "-i", corpus / "kb", "--heatmap", tmp_path / "again.png", "--json")
    assert len(json_result.json["hits"]) == 4
    assert (tmp_path / "again.png").is_file()


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_search_without_hits_writes_no_heatmap(cli, corpus, tmp_path, extra):
    image = tmp_path / "heatmap.png"
    result = cli("search", "whales", "-i", corpus / "kb", "--filter", "year=1066", "--heatmap", image, *extra)
    assert (result.code, result.err) == (0, "Wrote no heat map, because the search has no hits.\n")
    assert not image.exists()


def test_unwritable_heatmap_is_reported(cli, corpus, tmp_path):
    (tmp_path / "folder.png").mkdir()
    cli("search", "whales", "-i", corpus / "kb", "--heatmap", tmp_path / "folder.png").assert_usage_error(
        "is a directory"
    )
    too_long = tmp_path / ("n" * 300 + ".png")
    cli("search", "whales", "-i", corpus / "kb", "--heatmap", too_long).assert_usage_error(
        "cannot be written", "name too long"
    )


def test_queries_file_writes_a_run(cli, corpus, tmp_path):
    queries, run_path = tmp_path / "q.jsonl", tmp_path / "run.jsonl"
    lines = [{"qid": "a", "query": "whales"}, {"qid": "ü", "query": "solar power"}]
    queries.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    result = cli("search", "-i", corpus / "kb", "--queries", queries, "--run", run_path, "--json")
    assert (result.code, result.json) == (0, {"queries": 2, "run": str(run_path)})
    command = (
        "search",
        "-i",
        corpus / "kb",
        "--queries",
        queries,
        "--run",
        run_path,
        "--reranker",
        "lite",
        "--max-ms",
        "0",
    )
    notes = cli(*command, "--json").json["notes"]
    assert len(notes) == 2
    assert all("max_ms=0" in note for message in notes.values() for note in message)
    assert cli(*command).err.count("max_ms=0") == 2
    run = [json.loads(line) for line in run_path.read_text("utf-8").splitlines()]
    assert [line["qid"] for line in run] == ["a", "ü"]
    assert run[0]["ranking"][0] == ["animals", 2]
    assert run[1]["ranking"][0] == ["energy", 1]
    assert len(run[0]["ranking"]) == 4
    queries.write_text(json.dumps(lines[0]), encoding="utf-8")
    message = cli("search", "-i", corpus / "kb", "--queries", queries, "--run", run_path)
    assert (message.out, message.err.startswith("Wrote the rankings of 1 query to ")) == ("", True)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b'{"qid": "a", "query": "x"}\n{"qid": "b", "query"', ["line 2", "not JSON"]),
        (b'["a", "x"]', ["line 1", "JSON object"]),
        (b'{"qid": "a"}', ["line 1", '"query"']),
        (b'{"qid": "a", "query": "x"}\n{"qid": "a", "query": "y"}', ["line 2", "twice"]),
        (b"\xff\xfe\x00", ["UTF-8"]),
        (None, ["cannot be read", "No such file"]),
    ],
)
def test_invalid_queries_file_is_reported(cli, corpus, tmp_path, content, parts):
    queries, run = tmp_path / "q.jsonl", tmp_path / "run.jsonl"
    if content is not None:
        queries.write_bytes(content)
    cli("search", "-i", corpus / "kb", "--queries", queries, "--run", run).assert_usage_error("q.jsonl", *parts)
    assert not run.exists()


@pytest.fixture(scope="module")
def near_duplicates(tmp_path_factory):
    """An index of 13 pages with three near-duplicates, two of them in one document."""
    root = tmp_path_factory.mktemp("near_duplicates")
    same = "whales sing in the deep sea, and nobody knows what their long songs are about"
    entries = ("solar power", "old bridges", "tax forms", "apple pie", "chess", "tides", "glass", "wool", "copper")
    sample_pdf(root / "songs.pdf", [same, same, *(f"a page about {entry}" for entry in entries)])
    sample_pdf(root / "more.pdf", ["order KX-4471-B was shipped", same])
    with DocumentIndex.open(root / "kb") as index:
        index.ingest(root / "songs.pdf", metadata={"year": 2024})
        index.ingest(root / "more.pdf", metadata={"year": 2025})
    return root


def test_dedup_merges_near_duplicates(cli, near_duplicates):
    hit, other = cli("search", "whales sing", "-i", near_duplicates / "kb", "-k", "2", "--dedup", "--json").json["hits"]
    pages = {("songs.pdf", 1), ("songs.pdf", 2), ("more.pdf", 2)}
    assert {(hit["doc_id"], hit["page"])} | {(s["doc_id"], s["page"]) for s in hit["similar"]} == pages
    assert (other["doc_id"], other["page"]) not in pages
    for similar in hit["similar"]:
        assert set(similar) == {"doc_id", "path", "page", "similarity"}
        assert Path(similar["path"]) == near_duplicates / similar["doc_id"]
        assert similar["similarity"] > 0.9


def test_queries_file_uses_the_options_of_a_single_query(cli, near_duplicates, tmp_path):
    queries, run = tmp_path / "q.jsonl", tmp_path / "run.jsonl"
    queries_by_id = {"a": "whales sing", "b": "order KX-4471-B"}
    lines = [json.dumps({"qid": qid, "query": query}) for qid, query in queries_by_id.items()]
    queries.write_text("\n".join(lines), encoding="utf-8")

    def many(*options: object) -> dict[str, list]:
        result = cli("search", "-i", near_duplicates / "kb", "--queries", queries, "--run", run, *options)
        assert result.code == 0, result.err
        return {line["qid"]: line["ranking"] for line in map(json.loads, run.read_text("utf-8").splitlines())}

    def one_by_one(*options: object) -> dict[str, list]:
        hits = {
            qid: cli("search", query, "-i", near_duplicates / "kb", *options, "--json").json["hits"]
            for qid, query in queries_by_id.items()
        }
        return {qid: [[Path(hit["doc_id"]).stem, hit["page"]] for hit in content] for qid, content in hits.items()}

    plain = many("-k", "13")
    assert plain == one_by_one("-k", "13")
    assert {qid: len(pages) for qid, pages in plain.items()} == {"a": 13, "b": 13}
    assert many() == {qid: pages[:10] for qid, pages in plain.items()}
    assert many("-k", "3") == {qid: pages[:3] for qid, pages in plain.items()}
    best = cli("search", queries_by_id["a"], "-i", near_duplicates / "kb", "--json").json["hits"][0]["score"]
    for options in (
        ["--group-by", "document"],
        ["--dedup"],
        ["--min-score", best - 0.01],
        ["--filter", "year=2025"],
        ["--stage", "rescore:identifiers=0,hubness=0,dense=9"],
        ["--reranker", "lite", "--stage", "rerank:limit=2", "--min-score", "0"],
    ):
        content = many("-k", "13", *options)
        assert content == one_by_one("-k", "13", *options), options
        assert content != plain, options


def test_unwritable_run_file_is_reported(cli, corpus, tmp_path):
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"qid": "a", "query": "whales"}', encoding="utf-8")
    result = cli("search", "-i", corpus / "kb", "--queries", queries, "--run", tmp_path / "no" / "run.jsonl")
    result.assert_usage_error("cannot be written", "does not exist")
    long = cli("search", "-i", corpus / "kb", "--queries", queries, "--run", tmp_path / ("n" * 300))
    long.assert_usage_error("cannot be written", "name too long")


def test_filter_matches_numbers_and_booleans(cli, docs, tmp_path):
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(docs / "animals.pdf", metadata={"year": 2024, "draft": True, "share": 0.5})
    for entry, count in (("year=2024", 2), ("draft=true", 2), ("share=0.5", 2), ("year=2023", 0), ("draft=1e999", 0)):
        hits = cli("search", "whales", "-i", tmp_path / "kb", "--filter", entry, "--json").json["hits"]
        assert len(hits) == count, entry


def test_filter_matches_dates_and_times(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    cli("ingest", docs / "animals.pdf", "-i", kb, "--metadata", "when=2025-01-31T09:30:00+01:00", *NO_OCR)
    cli(
        "ingest",
        docs / "reports" / "energy.pdf",
        "-i",
        kb,
        "--metadata",
        "when=2024-12-31",
        "--metadata",
        "at=09:30",
        *NO_OCR,
    )
    animals, energy = {"animals.pdf"}, {"energy.pdf"}
    for options, expected in (
        (["when>=2025-01-01"], animals),
        (["when<2025-01-01"], energy),
        (["when>2024-12-31"], animals),
        (["when<=2024-12-31"], energy),
        (["when>=2024-12-31", "when<=2025-01-31"], animals | energy),
        (["when>=2025-01-31T08:30Z", "when<2025-01-31T09:30:01+01:00"], animals),
        (["when=2025-01-31"], animals),
        (["when=2025-01-31 08:30"], animals),
        (["when=2025-01-31", "when=2024-12-31"], animals | energy),
        (["at<10:00"], energy),
        (["when>=20250101"], set()),
    ):
        arguments = [argument for option in options for argument in ("--filter", option)]
        hits = cli("search", "whales power", "-i", kb, "-k", 9, *arguments, "--json").json["hits"]
        assert {Path(hit["path"]).name for hit in hits} == expected, options
    cli("search", "x", "-i", kb, "--filter", "when>=2025-01-01", "--filter", "when<5").assert_usage_error("only dates")
    assert cli("delete", "-i", kb, "--filter", "when=2024-12-31", "--json").json["removed"] == 1


def test_hit_lists_its_copies(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    cli("ingest", docs, "-i", kb, *NO_OCR)
    content = cli("search", "whales", "-i", kb, "-k", 1, "--json").json["hits"][0]
    assert content["copies"] == [str(docs / "copy.pdf")]
    assert "1 copy" in cli("search", "whales", "-i", kb, "-k", 1).out
