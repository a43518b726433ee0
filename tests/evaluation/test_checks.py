"""Validation of judged folders: each kind of problem is reported as a finding."""

from __future__ import annotations

import json

import pytest
from helpers.judged_sets import QUERIES, entry, write_judged, write_lines

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.checks import check_folder
from jina_rag.evaluation.query_leakage import find_leak, near_duplicate_queries, normalized_query
from jina_rag.testing import sample_pdf

PAGE = (
    "The committee on household energy reported in spring that heat pumps replaced one in six gas boilers across the "
    "northern districts, while subsidies for roof insulation were cut by a third. "
    "東京都の人口は二〇二〇年に一千四百万人を超えた。"
)


@pytest.fixture
def root(tmp_path):
    return write_judged(tmp_path / "judged")


def append_queries(root, *entries) -> None:
    with (root / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(query_entry) + "\n" for query_entry in entries))


def finding_kinds(check) -> list[str]:
    return [finding.kind for finding in check.findings]


def test_valid_folder_has_no_findings(root):
    calls = []
    check = check_folder(root, progress=lambda done, total: calls.append((done, total)))
    assert check.findings == ()
    assert check.notes[0] == "No problems found."
    assert check.notes[1] == "2 documents, 4 pages, 5 queries (1 cross-language), 4 relevant pages."
    assert check.notes[2] == "By modality: text 2, table 2, not stated 1."
    assert calls[-1] == (2, 2)
    assert check.to_json()["counts"]["questions"] == len(QUERIES)


@pytest.mark.parametrize(
    ("query_entry", "kind", "message"),
    [
        (
            entry("x", "what else?", [("animals", 3, 2)]),
            "missing page",
            "x: 'animals' has no page 3; expected 1 to 2",
        ),
        (entry("x", "what else?", [("animals", 0, 2)]), "missing page", "no page 0"),
        (entry("x", "what else?", [("birds", 1, 2)]), "unknown document", "x: 'birds' is not listed in docs.jsonl"),
        (entry("x", "Do CATS  sleep", [("animals", 1, 2)]), "asked twice", "d and x have the same text"),
        (entry("x", "do cats sleep?!", [("animals", 2, 2)]), "other pages", "have the same text, 'do cats sleep'"),
        (entry("x", "what else?", []), "no judgement", "x: no relevant page"),
        (entry("x", "what else?", [("animals", 1, 0)]), "no judgement", "x: no relevant page"),
        (entry("x", "what else?", [("animals", 1, 1)]), "grade", "no page has grade 2"),
        (entry("x", "what else?", [("animals", 1, 3), ("animals", 2, 2)]), "grade", "grade is 3"),
        (entry("x", "what else?", [("animals", 1, True), ("animals", 2, 2)]), "grade", "grade is True"),
        (entry("x", "what else?", [("animals", 1, 2), ("animals", 1, 1)]), "grade", "has two grades"),
        (entry("a", "what else?", [("animals", 1, 2)]), "id", "the query id 'a' occurs twice"),
        ({"qid": "x"}, "line", '"query" is missing'),
        ({"qid": "x", "query": "y", "relevant": "animals"}, "judgement", "judgment 'animals'; expected"),
    ],
)
def test_invalid_query_is_reported(root, query_entry, kind, message):
    append_queries(root, query_entry)
    check = check_folder(root)
    assert kind in finding_kinds(check), check.findings
    result = next(finding for finding in check.findings if finding.kind == kind)
    assert message in result.what
    assert result.what.endswith(".")
    assert "\n" not in result.what
    assert "No problems found." not in check.notes


def test_invalid_documents_are_reported(root):
    copy = root / "docs" / "copy.pdf"
    copy.write_bytes((root / "docs" / "animals.pdf").read_bytes())
    (root / "docs" / "broken.pdf").write_text("no pdf")
    (root / "docs" / "cut.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    write_lines(
        root / "docs.jsonl",
        [
            {"doc": "animals", "file": "docs/animals.pdf", "pages": 7},
            {"doc": "energy", "file": "docs/energy.pdf", "sha256": "0" * 64},
            {"doc": "copy", "file": "docs/copy.pdf"},
            {"doc": "copy", "file": "docs/copy.pdf"},
            {"doc": "gone", "file": "docs/gone.pdf"},
            {"doc": "broken", "file": "docs/broken.pdf"},
            {"doc": "cut", "file": "docs/cut.pdf"},
            {"file": "docs/x.pdf"},
        ],
    )
    result = {finding.kind: finding.what for finding in check_folder(root).findings}
    assert "animals has 2 pages, but docs.jsonl states 7" in result["pages"]
    assert "'docs/energy.pdf' has changed" in result["changed file"]
    assert "animals and copy are the same file" in result["same file"]
    assert "'copy' is listed twice" in result["document"]
    assert "'docs/gone.pdf' does not exist" in result["missing file"]
    assert '"doc" is missing' in result["line"]
    unreadable = [f.what for f in check_folder(root).findings if f.kind == "unreadable"]
    assert len(unreadable) == 2
    assert "not a PDF" in unreadable[0]


def test_missing_list_files_raise_invalid_input(root):
    (root / "queries.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"has no queries\.jsonl and no queries\.csv"):
        check_folder(root)
    (root / "docs.jsonl").unlink()
    with pytest.raises(InvalidInputError, match="evaluate init"):
        check_folder(root)


def test_query_copied_from_its_page_is_reported(root):
    sample_pdf(root / "docs" / "animals.pdf", [PAGE, ""])
    append_queries(
        root,
        entry("copied", "Who said that heat pumps replaced one in six gas boilers?", [("animals", 1, 2)]),
        entry("own", "How popular did electric heating become in the north?", [("animals", 1, 2)]),
        entry("elsewhere", "Who said that heat pumps replaced one in six gas boilers, again?", [("energy", 1, 2)]),
    )
    check = check_folder(root)
    leaks = [finding.what for finding in check.findings if finding.kind == "leaked words"]
    assert len(leaks) == 1
    assert leaks[0].startswith("copied: 8")
    assert "'that heat pumps replaced one in six gas boilers' verbatim" in leaks[0]
    assert (
        "1 judged page has no text layer to compare queries with. Pass ocr=True (--ocr) to read the pages by OCR."
        in check.notes
    )


def test_leak_share_and_longest_run():
    copied_query_leak = find_leak("subsidies for roof insulation were cut by a third", PAGE)
    assert (copied_query_leak.share, copied_query_leak.run_words, copied_query_leak.is_copied) == (1.0, 9, True)
    shuffled_query_leak = find_leak("insulation subsidies, roof: cut a third, districts northern?", PAGE)
    assert shuffled_query_leak.share == 1.0
    assert shuffled_query_leak.run_words < 6
    assert shuffled_query_leak.is_copied
    own = find_leak("How did electric heating spread among homes in the north?", PAGE)
    assert own.share < 0.4
    assert not own.is_copied
    assert not find_leak("gas boilers", PAGE).is_copied, "two words are too few for a copy"
    assert not find_leak("roof gas heat spring", PAGE).is_copied
    japanese = find_leak("東京都の人口は二〇二〇年にどうなった?", PAGE)
    assert japanese.run == "東京都の人口は二〇二〇年に"
    assert japanese.is_copied
    assert not find_leak("首都に住む人は何人か", PAGE).is_copied
    assert find_leak("", PAGE) == find_leak("?!", PAGE)
    assert find_leak("anything at all", "").share == 0


def test_near_duplicate_queries_ignore_numbers_and_short_queries():
    queries = {
        "a": "Which region had the highest sales growth in the second quarter of the year?",
        "b": "Which region had the highest sales growth in the second quarter of this year?",
        "c": "Which region had the lowest unemployment in the fourth quarter of the decade?",
        "d": "What was the profit of the northern branch in 2010 after all taxes?",
        "e": "What was the profit of the northern branch in 2011 after all taxes?",
        "f": "too short",
        "g": "too short!",
    }
    assert [(first, second) for first, second, _ in near_duplicate_queries(queries)] == [("a", "b")]
    ((_, _, share),) = near_duplicate_queries(queries)
    assert share == pytest.approx(12 / 13)
    assert normalized_query("Wie  VIELE, bitte?") == normalized_query("wie viele bitte")
    assert normalized_query("?") == "?"


def test_prefix_filter_finds_every_near_duplicate_pair():
    # The prefix filter must not lose a pair that a comparison of all pairs finds.
    import itertools
    import random

    from jina_rag.sparse import terms

    rng = random.Random(7)
    message = [f"word{chr(97 + n)}" for n in range(14)]
    queries = {f"q{n}": " ".join(rng.sample(message, rng.randint(5, 9))) for n in range(120)}
    result = {(first, second) for first, second, _ in near_duplicate_queries(queries)}
    sets = {query_id: set(terms(text)) for query_id, text in queries.items()}
    expected = {
        (first, second)
        for first, second in itertools.combinations(queries, 2)
        if len(sets[first] & sets[second]) / len(sets[first] | sets[second]) >= 0.8
    }
    assert result == expected
    assert len(expected) > 5


def test_near_duplicate_queries_are_reported(root):
    append_queries(
        root,
        entry("n1", "which animals sleep through all hours of a normal day", [("animals", 1, 2)]),
        entry("n2", "which animals sleep through all hours of the normal day", [("animals", 1, 2)]),
    )
    result = [finding.what for finding in check_folder(root).findings if finding.kind == "nearly asked twice"]
    assert len(result) == 1
    assert result[0].startswith("n1 and n2 share 8")


def test_ocr_finds_queries_copied_from_scans(root):
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (1400, 300), "white")
    font = ImageFont.load_default(size=40)
    ImageDraw.Draw(image).text((40, 100), "subsidies for roof insulation were cut by a third", "black", font=font)
    image.save(root / "docs" / "scan.png")
    with (root / "docs.jsonl").open("a") as file:
        file.write(json.dumps({"doc": "scan", "file": "docs/scan.png"}) + "\n")
    append_queries(root, entry("x", "subsidies for roof insulation were cut by a third", [("scan", 1, 2)]))
    assert finding_kinds(check_folder(root)) == []
    assert finding_kinds(check_folder(root, ocr=True)) == ["leaked words"]
