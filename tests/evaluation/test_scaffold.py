"""Scaffold of a judged folder: list of documents, contact sheet, and ``queries.csv``."""

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
    (folder / "scan.log").write_text("no document")
    return folder


class ImageLinks(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(unquote(dict(attrs)["src"]))


def read_json_lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_rows(path, *rows, delimiter=",", encoding="utf-8-sig", columns=COLUMNS):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(rows)


def test_scaffold_is_a_valid_judged_folder(documents, tmp_path):
    root = tmp_path / "judged"
    calls = []
    scaffold = make_scaffold(root, [documents], progress=lambda done, total: calls.append((done, total)))
    assert (scaffold.documents, scaffold.pages, scaffold.failed) == (4, 5, ())
    assert calls[-1] == (4, 4)
    documents_by_name = {line["doc"]: line for line in read_json_lines(root / "docs.jsonl")}
    assert set(documents_by_name) == {"report", "old/report", 'a "b" & <c>', "scan"}
    assert documents_by_name["report"] | {"sha256": ""} == {
        "doc": "report", "file": "../documents/report.pdf", "pages": 2, "sha256": "",
    }  # fmt: skip
    assert len(documents_by_name["report"]["sha256"]) == 64
    html = scaffold.contact_sheet.read_text("utf-8")
    sheet = ImageLinks(html)
    assert len(sheet.images) == 5
    for image in sheet.images:
        with Image.open(root / image) as page_image:
            assert page_image.format == "JPEG"
            assert max(page_image.size) <= 1000
    assert "script" not in sheet.tags
    assert "http" not in html
    assert "<c>" not in html
    assert "a &#34;b&#34; &amp; &lt;c&gt;" in html
    assert read_queries_csv(scaffold.sheet) == [], "comments and the example are not queries"
    assert scaffold.sheet.read_text("utf-8-sig").split("\n")[0].split(",") == [*COLUMNS]
    write_rows(scaffold.sheet, ["# a comment"], ["Where did it grow?", "report", "1"], ["", "old/report", "1", "1"])
    folder = read_folder(root)
    assert folder.queries[0].relevant == {("report", 1): 2, ("old/report", 1): 1}
    assert folder.documents["report"].resolve() == documents / "report.pdf"


def test_repeated_scaffold_adds_new_documents_only(documents, tmp_path):
    root = tmp_path / "judged"
    scaffold = make_scaffold(root, [documents / "report.pdf"])
    write_rows(scaffold.sheet, ["Where did it grow?", "mine", "1"])
    line = read_json_lines(root / "docs.jsonl")[0] | {"doc": "mine", "licence": "CC0"}
    write_lines(root / "docs.jsonl", [line])
    first_images = list(root.rglob("*.jpg"))
    second_scaffold = make_scaffold(root, [documents / "report.pdf", documents / "old"])
    assert (second_scaffold.documents, second_scaffold.pages) == (2, 3)
    documents_by_name = read_json_lines(root / "docs.jsonl")
    assert documents_by_name[0] == line
    assert documents_by_name[1]["doc"] == "report", "the renamed document frees this name"
    assert read_queries(scaffold.sheet)[0].query == "Where did it grow?"
    make_scaffold(root, [documents / "report.pdf", documents / "old"])
    image_times = {path: path.stat().st_mtime_ns for path in root.rglob("mine*/*.jpg")}
    assert len(image_times) == 2, "image folders use the name in the judgments"
    make_scaffold(root, [documents])
    assert {path: path.stat().st_mtime_ns for path in image_times} == image_times, "images are rendered once"
    assert all(path.exists() for path in first_images)


def test_scaffold_inside_the_documents_folder(documents):
    scaffold = make_scaffold(documents, [documents])
    assert scaffold.documents == 4
    second_scaffold = make_scaffold(documents, [documents])
    assert second_scaffold.documents == 4, "page images are not ingested as documents"
    assert {line["file"] for line in read_json_lines(documents / "docs.jsonl")} >= {"report.pdf", "old/report.pdf"}


def test_scaffold_without_images_reports_failed_files(documents, tmp_path):
    (documents / "broken.pdf").write_text("no pdf")
    (documents / "cut.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    scaffold = make_scaffold(tmp_path / "judged", [documents], images=False)
    assert (scaffold.documents, scaffold.pages, scaffold.contact_sheet) == (4, 5, None)
    assert sorted(failure.path.name for failure in scaffold.failed) == ["broken.pdf", "cut.pdf"]
    assert sorted(path.name for path in (tmp_path / "judged").iterdir()) == ["docs.jsonl", "queries.csv"]
    assert scaffold.to_json()["failed"][0]["reason"]


def test_missing_documents_raise_invalid_input(tmp_path):
    with pytest.raises(InvalidInputError, match="Pass the folder of the documents"):
        make_scaffold(tmp_path / "none", [tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="No document found in"):
        make_scaffold(tmp_path / "judged", [tmp_path / "empty"])
    assert not (tmp_path / "judged").exists()
    with pytest.raises(InvalidInputError, match="Check the path"):
        make_scaffold(tmp_path / "judged", [tmp_path / "nothing"])


def test_folder_with_queries_jsonl_gets_no_queries_csv(tmp_path):
    root = write_judged(tmp_path / "judged")
    scaffold = make_scaffold(root, [root], images=False)
    assert scaffold.sheet is None
    assert not (root / "queries.csv").exists()
    assert [line["pages"] for line in read_json_lines(root / "docs.jsonl")] == [2, 2]


# queries.csv


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "utf-16"])
def test_queries_csv_delimiters_and_encodings(tmp_path, delimiter, encoding):
    path = tmp_path / "queries.csv"
    write_rows(
        path,
        ["Wie viele, und wo?", "a; b, c", "2 3", "", "table", "de", "en", "12 %"],
        ["", "other", "7", "1"],
        [],
        ["# comment", "x"],
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


def test_queries_csv_id_column_is_used(tmp_path):
    write_rows(tmp_path / "q.csv", ["x7", "What?", "a", "1"], columns=("QID", "Query", "Doc ", "page"))
    assert read_queries(tmp_path / "q.csv")[0].query_id == "x7"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["", "a", "1"], "row 2: the query is empty"),
        (["What?", "a", ""], "row 2: doc or page is empty"),
        (["What?", "", "1"], "row 2: doc or page is empty"),
        (["What?", "a", "0"], "page is '0'"),
        (["What?", "a", "3-5"], "page is '3-5'"),
        (["What?", "a", "1", "3"], "grade is '3'"),
        (["What?", "a", "1 1", "good"], "grade is 'good'"),
    ],
)
def test_invalid_row_is_named_in_the_error(tmp_path, row, message):
    write_rows(tmp_path / "queries.csv", row)
    with pytest.raises(InvalidInputError, match=message):
        read_queries_csv(tmp_path / "queries.csv")


def test_invalid_queries_csv_raises_invalid_input(tmp_path):
    path = tmp_path / "queries.csv"
    with pytest.raises(InvalidInputError, match=r"cannot be read: .*\. Check the path and the permissions\."):
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
    with pytest.raises(InvalidInputError, match="is not valid CSV"):
        read_queries_csv(path)
    write_rows(path, ["What?", "a", "1", "2"], ["What?", "a", "1", "1"])
    with pytest.raises(InvalidInputError, match="has a different grade in a row above"):
        read_queries_csv(path)


def test_write_queries_and_contradicting_query_files(tmp_path):
    root = write_judged(tmp_path / "judged")
    (root / "queries.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"has no queries\.csv"):
        write_queries(root)
    write_rows(root / "queries.csv", ["Where?", "animals", "2", "", "text", "en", "en"])
    sheet = read_folder(root).queries
    assert write_queries(root) == (root / "queries.jsonl", 1)
    assert query_entries(root)[0].name == "queries.jsonl"
    assert read_folder(root).queries == sheet
    # A later change of queries.csv must not be ignored.
    write_rows(root / "queries.csv", ["Where?", "animals", "1"])
    with pytest.raises(InvalidInputError, match=r"differ.*evaluate check .* --write"):
        read_folder(root)
    write_queries(root)
    assert read_folder(root).queries[0].relevant == {("animals", 1): 2}
    write_lines(root / "queries.jsonl", [entry("a", "Where?", [])])
    with pytest.raises(InvalidInputError, match=r"queries\.jsonl and queries\.csv differ"):
        read_folder(root)
