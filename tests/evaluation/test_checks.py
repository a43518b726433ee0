"""Whether a judged folder can be trusted: each fault is planted, and found."""

from __future__ import annotations

import json

import pytest
from helpers.judged_sets import QUERIES, entry, write_judged, write_lines

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.checks import check_folder
from jina_rag.evaluation.query_leakage import leak, near_pairs, same_query
from jina_rag.testing import sample_pdf

PAGE = (
    "The committee on household energy reported in spring that heat pumps replaced one in six gas boilers across the "
    "northern districts, while subsidies for roof insulation were cut by a third. "
    "東京都の人口は二〇二〇年に一千四百万人を超えた。"
)


@pytest.fixture
def root(tmp_path):
    return write_judged(tmp_path / "judged")


def add(root, *entries) -> None:
    with (root / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in entries))


def kinds(checked) -> list[str]:
    return [finding.kind for finding in checked.findings]


def test_a_folder_in_order(root):
    calls = []
    checked = check_folder(root, progress=lambda done, total: calls.append((done, total)))
    assert checked.findings == ()
    assert checked.notes[0] == "In order."
    assert checked.notes[1] == ("2 documents, 4 pages, 5 questions about 4 pages; 1 in another language than the page.")
    assert checked.notes[2] == "By modality: text 2, table 2, not stated 1."
    assert calls[-1] == (2, 2)
    assert checked.to_json()["counts"]["questions"] == len(QUERIES)


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (
            entry("x", "what else?", [("animals", 3, 2)]),
            "missing page",
            "x: 'animals' has no page 3; its pages are 1 to 2",
        ),
        (entry("x", "what else?", [("animals", 0, 2)]), "missing page", "no page 0"),
        (entry("x", "what else?", [("birds", 1, 2)]), "unknown document", "x: 'birds' is no document"),
        (entry("x", "Do CATS  sleep", [("animals", 1, 2)]), "asked twice", "d and x ask the same"),
        (entry("x", "do cats sleep?!", [("animals", 2, 2)]), "other pages", "d and x ask the same, 'do cats sleep'"),
        (entry("x", "what else?", []), "no judgement", "x: no page answers it"),
        (entry("x", "what else?", [("animals", 1, 0)]), "no judgement", "x: no page answers it"),
        (entry("x", "what else?", [("animals", 1, 1)]), "grade", "no page has grade 2"),
        (entry("x", "what else?", [("animals", 1, 3), ("animals", 2, 2)]), "grade", "the grade is 3"),
        (entry("x", "what else?", [("animals", 1, True), ("animals", 2, 2)]), "grade", "the grade is True"),
        (entry("x", "what else?", [("animals", 1, 2), ("animals", 1, 1)]), "grade", "has two grades"),
        (entry("a", "what else?", [("animals", 1, 2)]), "id", "the question id 'a' occurs twice"),
        ({"qid": "x"}, "line", '"query" must be a text'),
        ({"qid": "x", "query": "y", "relevant": "animals"}, "judgement", "needs"),
    ],
)
def test_a_fault_in_a_question_is_found(root, line, kind, words):
    add(root, line)
    checked = check_folder(root)
    assert kind in kinds(checked), checked.findings
    result = next(finding for finding in checked.findings if finding.kind == kind)
    assert words in result.what
    assert result.what.endswith(".")
    assert "\n" not in result.what
    assert "In order." not in checked.notes


def test_faults_in_documents_are_found(root):
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
    assert "animals has 2 pages, and docs.jsonl says 7" in result["pages"]
    assert "'docs/energy.pdf' is not the file that was listed" in result["changed file"]
    assert "animals and copy are the same file" in result["same file"]
    assert "'copy' is listed twice" in result["document"]
    assert "'docs/gone.pdf' does not exist" in result["missing file"]
    assert '"doc" must be a text' in result["line"]
    unreadable = [f.what for f in check_folder(root).findings if f.kind == "unreadable"]
    assert len(unreadable) == 2
    assert "not a PDF" in unreadable[0]


def test_a_folder_without_its_lists_is_refused(root):
    (root / "queries.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"has no queries\.jsonl and no queries\.csv"):
        check_folder(root)
    (root / "docs.jsonl").unlink()
    with pytest.raises(InvalidInputError, match="evaluate init"):
        check_folder(root)


def test_questions_copied_from_their_page_are_found(root):
    sample_pdf(root / "docs" / "animals.pdf", [PAGE, ""])
    add(
        root,
        entry("copied", "Who said that heat pumps replaced one in six gas boilers?", [("animals", 1, 2)]),
        entry("own", "How popular did electric heating become in the north?", [("animals", 1, 2)]),
        entry("elsewhere", "Who said that heat pumps replaced one in six gas boilers, again?", [("energy", 1, 2)]),
    )
    checked = check_folder(root)
    leaked = [finding.what for finding in checked.findings if finding.kind == "leaked words"]
    assert len(leaked) == 1
    assert leaked[0].startswith("copied: 8")
    assert "'that heat pumps replaced one in six gas boilers' word for word" in leaked[0]
    assert "1 judged page has no text to hold questions against; --ocr reads it." in checked.notes


def test_how_much_a_question_has_in_common_with_its_page():
    copied = leak("subsidies for roof insulation were cut by a third", PAGE)
    assert (copied.share, copied.run_words, copied.is_copied) == (1.0, 9, True)
    shuffled = leak("insulation subsidies, roof: cut a third, districts northern?", PAGE)
    assert shuffled.share == 1.0
    assert shuffled.run_words < 6
    assert shuffled.is_copied
    own = leak("How did electric heating spread among homes in the north?", PAGE)
    assert own.share < 0.4
    assert not own.is_copied
    assert not leak("gas boilers", PAGE).is_copied, "two words are no copy"
    assert not leak("roof gas heat spring", PAGE).is_copied
    japanese = leak("東京都の人口は二〇二〇年にどうなった?", PAGE)
    assert japanese.run == "東京都の人口は二〇二〇年に"
    assert japanese.is_copied
    assert not leak("首都に住む人は何人か", PAGE).is_copied
    assert leak("", PAGE) == leak("?!", PAGE)
    assert leak("anything at all", "").share == 0


def test_questions_that_nearly_repeat_each_other():
    queries = {
        "a": "Which region had the highest sales growth in the second quarter of the year?",
        "b": "Which region had the highest sales growth in the second quarter of this year?",
        "c": "Which region had the lowest unemployment in the fourth quarter of the decade?",
        "d": "What was the profit of the northern branch in 2010 after all taxes?",
        "e": "What was the profit of the northern branch in 2011 after all taxes?",
        "f": "too short",
        "g": "too short!",
    }
    assert [(first, second) for first, second, _ in near_pairs(queries)] == [("a", "b")]
    ((_, _, share),) = near_pairs(queries)
    assert share == pytest.approx(12 / 13)
    assert same_query("Wie  VIELE, bitte?") == same_query("wie viele bitte")
    assert same_query("?") == "?"


def test_near_pairs_are_those_of_all_pairs():
    # The filter by rare words may drop no pair that a comparison of all pairs finds.
    import itertools
    import random

    from jina_rag.sparse import terms

    rng = random.Random(7)
    words = [f"word{chr(97 + n)}" for n in range(14)]
    queries = {f"q{n}": " ".join(rng.sample(words, rng.randint(5, 9))) for n in range(120)}
    result = {(first, second) for first, second, _ in near_pairs(queries)}
    sets = {query_id: set(terms(text)) for query_id, text in queries.items()}
    expected = {
        (first, second)
        for first, second in itertools.combinations(queries, 2)
        if len(sets[first] & sets[second]) / len(sets[first] | sets[second]) >= 0.8
    }
    assert result == expected
    assert len(expected) > 5


def test_near_repetitions_are_findings(root):
    add(
        root,
        entry("n1", "which animals sleep through all hours of a normal day", [("animals", 1, 2)]),
        entry("n2", "which animals sleep through all hours of the normal day", [("animals", 1, 2)]),
    )
    result = [finding.what for finding in check_folder(root).findings if finding.kind == "nearly asked twice"]
    assert len(result) == 1
    assert result[0].startswith("n1 and n2 share 8")


def test_ocr_reads_what_has_no_text(root):
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (1400, 300), "white")
    font = ImageFont.load_default(size=40)
    ImageDraw.Draw(image).text((40, 100), "subsidies for roof insulation were cut by a third", "black", font=font)
    image.save(root / "docs" / "scan.png")
    with (root / "docs.jsonl").open("a") as file:
        file.write(json.dumps({"doc": "scan", "file": "docs/scan.png"}) + "\n")
    add(root, entry("x", "subsidies for roof insulation were cut by a third", [("scan", 1, 2)]))
    assert kinds(check_folder(root)) == []
    assert kinds(check_folder(root, ocr=True)) == ["leaked words"]
