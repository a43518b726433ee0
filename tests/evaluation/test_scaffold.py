"""The beginning of a judged folder: documents listed, pages shown, a sheet that a person fills in."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from helpers.judged_sets import entry, write_judged, write_lines
from PIL import Image

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import query_entries, read_folder, read_queries
from jina_rag.evaluation.queries_csv import COLUMNS, read_queries_csv
from jina_rag.evaluation.scaffold import make_scaffold, write_queries
from jina_rag.testing import sample_pdf


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "documents"
    (folder / "old").mkdir(parents=True)
    sample_pdf(folder / "report.pdf", ["growth by region", "risks"])
    sample_pdf(folder / "old" / "report.pdf", ["growth of last year"])
    sample_pdf(folder / 'a "b" & <c>.pdf', ["a name that HTML must escape"])
    Image.new("RGB", (300, 200), "navy").save(folder / "scan.png")
    (folder / "scan.txt").write_text("no document")
    return folder


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(unquote(dict(attrs)["src"]))


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_rows(path, *rows, delimiter=",", encoding="utf-8-sig", columns=COLUMNS):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(rows)


def test_a_folder_is_made_and_evaluated_as_it_is(documents, tmp_path):
    root = tmp_path / "judged"
    calls = []
    made = make_scaffold(root, [documents], progress=lambda done, total: calls.append((done, total)))
    assert (made.documents, made.pages, made.failed) == (4, 5, ())
    assert calls[-1] == (4, 4)
    listed = {line["doc"]: line for line in lines(root / "docs.jsonl")}
    assert set(listed) == {"report", "old/report", 'a "b" & <c>', "scan"}
    assert listed["report"] | {"sha256": ""} == {
        "doc": "report", "file": "../documents/report.pdf", "pages": 2, "sha256": "",
    }  # fmt: skip
    assert len(listed["report"]["sha256"]) == 64
    html = made.contact_sheet.read_text("utf-8")
    sheet = Links(html)
    assert len(sheet.images) == 5
    for image in sheet.images:
        with Image.open(root / image) as photo:
            assert photo.format == "JPEG"
            assert max(photo.size) <= 1000
    assert "script" not in sheet.tags
    assert "http" not in html
    assert "<c>" not in html
    assert "a &#34;b&#34; &amp; &lt;c&gt;" in html
    assert read_queries_csv(made.sheet) == [], "the remarks and the example are no questions"
    assert made.sheet.read_text("utf-8-sig").split("\n")[0].split(",") == [*COLUMNS]
    write_rows(made.sheet, ["# a remark"], ["Where did it grow?", "report", "1"], ["", "old/report", "1", "1"])
    folder = read_folder(root)
    assert folder.queries[0].relevant == {("report", 1): 2, ("old/report", 1): 1}
    assert folder.documents["report"].resolve() == documents / "report.pdf"


def test_again_takes_up_what_is_new_and_leaves_the_rest(documents, tmp_path):
    root = tmp_path / "judged"
    made = make_scaffold(root, [documents / "report.pdf"])
    write_rows(made.sheet, ["Where did it grow?", "mine", "1"])
    line = lines(root / "docs.jsonl")[0] | {"doc": "mine", "licence": "CC0"}
    write_lines(root / "docs.jsonl", [line])
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    again = make_scaffold(root, [documents / "report.pdf", documents / "old"])
    assert (again.documents, again.pages) == (2, 3)
    listed = lines(root / "docs.jsonl")
    assert listed[0] == line
    assert listed[1]["doc"] == "report", "the name is free"
    assert read_queries(made.sheet)[0].query == "Where did it grow?"
    make_scaffold(root, [documents / "report.pdf", documents / "old"])
    kept = {path: path.stat().st_mtime_ns for path in root.rglob("mine*/*.jpg")}
    assert len(kept) == 2, "under the name that judgements use"
    make_scaffold(root, [documents])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "pictures are made once"
    assert all(path.exists() for path in before)


def test_documents_in_the_folder_itself(documents):
    made = make_scaffold(documents, [documents])
    assert made.documents == 4
    again = make_scaffold(documents, [documents])
    assert again.documents == 4, "pictures of pages are no documents"
    assert {line["file"] for line in lines(documents / "docs.jsonl")} >= {"report.pdf", "old/report.pdf"}


def test_without_pictures_and_with_files_that_fail(documents, tmp_path):
    (documents / "broken.pdf").write_text("no pdf")
    (documents / "cut.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    made = make_scaffold(tmp_path / "judged", [documents], images=False)
    assert (made.documents, made.pages, made.contact_sheet) == (4, 5, None)
    assert sorted(failure.path.name for failure in made.failed) == ["broken.pdf", "cut.pdf"]
    assert sorted(path.name for path in (tmp_path / "judged").iterdir()) == ["docs.jsonl", "queries.csv"]
    assert made.to_json()["failed"][0]["reason"]


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="say where the documents lie with --documents"):
        make_scaffold(tmp_path / "none", [tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="There is no document in"):
        make_scaffold(tmp_path / "judged", [tmp_path / "empty"])
    assert not (tmp_path / "judged").exists()
    with pytest.raises(InvalidInputError, match="check the path"):
        make_scaffold(tmp_path / "judged", [tmp_path / "nothing"])


def test_a_folder_with_questions_gets_no_sheet(tmp_path):
    root = write_judged(tmp_path / "judged")
    made = make_scaffold(root, [root], images=False)
    assert made.sheet is None
    assert not (root / "queries.csv").exists()
    assert [line["pages"] for line in lines(root / "docs.jsonl")] == [2, 2]


# -- the sheet -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "utf-16"])
def test_a_sheet_is_read_as_spreadsheets_write_it(tmp_path, delimiter, encoding):
    path = tmp_path / "queries.csv"
    write_rows(
        path,
        ["Wie viele, und wo?", "a; b, c", "2 3", "", "table", "de", "en", "12 %"],
        ["", "other", "7", "1"],
        [],
        ["# remark", "x"],
        ["Which one?", "a; b, c", "1", "2", "chart", "en", "EN"],
        ["Wie viele, und wo?", "third", "1; 2"],
        delimiter=delimiter,
        encoding=encoding,
    )
    first, second = read_queries(path)
    assert (first.query_id, first.query) == ("q001", "Wie viele, und wo?")
    assert first.relevant == {
        ("a; b, c", 2): 2, ("a; b, c", 3): 2, ("other", 7): 1, ("third", 1): 2, ("third", 2): 2,
    }  # fmt: skip
    assert (first.modality, first.cross_language, first.extra["answer"], first.extra["lang"]) == (
        "table", True, "12 %", "de",
    )  # fmt: skip
    assert (second.query_id, second.cross_language) == ("q002", False)


def test_a_column_of_ids_is_kept(tmp_path):
    write_rows(tmp_path / "q.csv", ["x7", "What?", "a", "1"], columns=("QID", "Query", "Doc ", "page"))
    assert read_queries(tmp_path / "q.csv")[0].query_id == "x7"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["", "a", "1"], "row 2: there is no question above"),
        (["What?", "a", ""], "row 2: a page needs both"),
        (["What?", "", "1"], "row 2: a page needs both"),
        (["What?", "a", "0"], "the page is '0'"),
        (["What?", "a", "3-5"], "the page is '3-5'"),
        (["What?", "a", "1", "3"], "the grade is '3'"),
        (["What?", "a", "1 1", "good"], "the grade is 'good'"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(tmp_path, row, words):
    write_rows(tmp_path / "queries.csv", row)
    with pytest.raises(InvalidInputError, match=words):
        read_queries_csv(tmp_path / "queries.csv")


def test_a_sheet_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "queries.csv"
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_queries_csv(path)
    path.write_bytes("Größe,doc,page".encode("cp1252"))
    with pytest.raises(InvalidInputError, match="CSV UTF-8"):
        read_queries_csv(path)
    path.write_text("question,doc\nx,y\n")
    with pytest.raises(InvalidInputError, match="no column query, page"):
        read_queries_csv(path)
    path.write_text("")
    with pytest.raises(InvalidInputError, match="no column query"):
        read_queries_csv(path)
    path.write_text('query,doc,page\n"open,1\n')
    with pytest.raises(InvalidInputError, match="is not a table"):
        read_queries_csv(path)
    write_rows(path, ["What?", "a", "1", "2"], ["What?", "a", "1", "1"])
    with pytest.raises(InvalidInputError, match="has another grade further up"):
        read_queries_csv(path)


def test_questions_for_other_programs(tmp_path):
    root = write_judged(tmp_path / "judged")
    (root / "queries.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"has no queries\.csv"):
        write_queries(root)
    write_rows(root / "queries.csv", ["Where?", "animals", "2", "", "text", "en", "en"])
    sheet = read_folder(root).queries
    assert write_queries(root) == (root / "queries.jsonl", 1)
    assert query_entries(root)[0].name == "queries.jsonl"
    assert read_folder(root).queries == sheet
    # A sheet that was changed since must not be left out in silence.
    write_rows(root / "queries.csv", ["Where?", "animals", "1"])
    with pytest.raises(InvalidInputError, match=r"two sets of questions.*evaluate check .* --write"):
        read_folder(root)
    write_queries(root)
    assert read_folder(root).queries[0].relevant == {("animals", 1): 2}
    write_lines(root / "queries.jsonl", [entry("a", "Where?", [])])
    with pytest.raises(InvalidInputError, match="two sets of questions"):
        read_folder(root)
