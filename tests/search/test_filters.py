"""Filters in search: ranges of pages and metadata, after changes and in copies of the index."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from jina_rag import DocumentIndex
from jina_rag.catalog.document_filter import document_matcher, select_by_filter
from jina_rag.catalog.manifest import SCHEMA_VERSION, DocumentRecord
from jina_rag.config import IngestSettings
from jina_rag.errors import IndexMismatchError, InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import matches
from jina_rag.testing import FakeEmbedder, sample_pdf
from jina_rag.types import Range

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=40)
YEARS = {"old": 1999, "new": 2021, "newest": 2024.5, "text": "2022", "flag": True}


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in YEARS:
        sample_pdf(folder / f"{name}.pdf", [f"whales of {name}", f"ships of {name}", f"storms of {name}"])
    return folder


def year_metadata(path):
    return {"year": YEARS[Path(path).stem], "size x.y": {"pages": [len(Path(path).stem)]}}


def hit_pages(index, **where):
    return sorted({(hit.path.stem, hit.page) for hit in index.search("whales", k=99, filter=where)})


def test_range_filter_matches_page_and_metadata(docs, tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR, metadata=year_metadata)
        assert hit_pages(index, page=Range(gte=3)) == [(name, 3) for name in sorted(YEARS)]
        assert hit_pages(index, year=Range(gte=2000)) == [(name, n) for name in ("new", "newest") for n in (1, 2, 3)]
        assert hit_pages(index, year=Range(gte=2021, lt=2024.5), page=Range(lt=2)) == [("new", 1)]
        assert hit_pages(index, **{"size x.y.pages": Range(gt=4)}) == [("newest", n) for n in (1, 2, 3)]
        assert hit_pages(index, year=Range(gt=3000)) == []
        assert hit_pages(index, path="new*.pdf", page=Range(gte=2, lte=2)) == [("new", 2), ("newest", 2)]
        with pytest.raises(InvalidInputError, match="or a date or time, for example 2024-01-31"):
            index.search("whales", filter={"year": Range(gte="31.1.2024")})


def test_range_filter_follows_changed_metadata_copies_and_moves(docs, tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR, metadata=year_metadata)
        (docs / "copy.pdf").write_bytes((docs / "old.pdf").read_bytes())
        (docs / "new.pdf").rename(docs / "moved.pdf")
        years = {**YEARS, "copy": 2030, "moved": 1980, "newest": 1990}
        index.ingest(docs, settings=NO_OCR, metadata=lambda path: {"year": years[Path(path).stem]})
        # The hit contains the path of the copy that matches the filter, not of the other copy.
        assert {hit.path.stem for hit in index.search("whales", k=99, filter={"year": Range(gte=2025)})} == {"copy"}
        assert hit_pages(index, year=Range(lt=1985)) == [("moved", n) for n in (1, 2, 3)]
        assert hit_pages(index, year=Range(gte=1990, lte=1999), page=Range(lte=1)) == [("newest", 1), ("old", 1)]
        assert hit_pages(index, **{"size x.y.pages": Range(gt=0)}) == [], "removed metadata no longer matches"
        assert index.verify() == []
        index.copy(tmp_path / "copy of kb")
    with DocumentIndex.open(tmp_path / "copy of kb", embedder=FakeEmbedder()) as index:
        assert hit_pages(index, year=Range(lt=1985)) == [("moved", n) for n in (1, 2, 3)]
        assert index.verify() == []


RECORDS = [
    DocumentRecord(f"{n}.pdf", Path(f"/docs/{n}.pdf"), "1" * 64, 1, 1, metadata=metadata)
    for n, metadata in enumerate([{"year": 2019}, {"year": 2024, "by": "Ann"}, {"year": "2024"}, {}])
]


def test_select_by_filter_with_metadata_ranges():
    def selected_ids(where):
        return [record.doc_id for record in select_by_filter(RECORDS, where)]

    assert selected_ids({"year": Range(gte=2019)}) == ["0.pdf", "1.pdf"]
    assert selected_ids({"year": Range(gt=2019)}) == ["1.pdf"]
    assert selected_ids({"year": Range(lt=2024), "path": "?.pdf"}) == ["0.pdf"]
    assert selected_ids({"year": Range(gte=0), "by": ["Ann", "Bo"]}) == ["1.pdf"]
    assert selected_ids({"year": Range(gt=9, lt=8)}) == selected_ids({"doc_id": Range(gte=0)}) == []
    for invalid in ({"year": Range()}, {"year": Range(gte=float("nan"))}, {"path": Range(gte=1)}):
        with pytest.raises(InvalidInputError):
            selected_ids(invalid)


@pytest.mark.parametrize("where", [{"page": 1}, {"page": Range(gte=1)}, {"has": "chart"}])
def test_select_by_filter_rejects_page_conditions(where):
    assert document_matcher(where)("0.pdf", Path("/docs/0.pdf"), {})
    with pytest.raises(InvalidInputError, match="applies to pages"):
        select_by_filter(RECORDS, where)


def test_exact_path_wins_over_a_glob_in_filters_and_delete(tmp_path, monkeypatch):
    """A name with wildcards selects only the document of this name, written in any way; see `jina_rag.globs`."""
    monkeypatch.chdir(tmp_path)
    names = ["[2024] report.pdf", "2 report.pdf", "a*.pdf", "ab.pdf", "sub/[2024] report.pdf", "sub/4 report.pdf"]
    for n, name in enumerate(names):
        Path("docs", name).parent.mkdir(parents=True, exist_ok=True)
        sample_pdf(Path("docs", name), [f"whales {n}"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest("docs", settings=NO_OCR)

        def ids(path):
            hits = index.search("whales", k=99, filter={"path": path})
            assert {hit.doc_id for hit in index.nearest(np.ones(index.dim), k=99, filter={"path": path})} == {
                hit.doc_id for hit in hits
            }
            return sorted(hit.doc_id for hit in hits)

        for name in (names[0], names[2], names[4]):
            for path in (
                name,
                f"docs/{name}",
                f"./docs/{name}",
                tmp_path / "docs" / name,
                [name],
                [f"docs/{name}"] * 2,
            ):
                assert ids(path) == [name], path
        assert ids([names[0], "ab*.pdf"]) == ["[2024] report.pdf", "ab.pdf"]
        assert ids("[24] report.pdf") == ["2 report.pdf"]
        assert ids("**/[24] report.pdf") == ["2 report.pdf", "sub/4 report.pdf"]
        assert ids("docs/sub") == ids("sub") == ids("sub/*.pdf") == sorted(names[4:])
        assert index.delete("docs/[2024] report.pdf") == 1
        assert index.delete("docs/[2024] report.pdf") == index.delete("[2024] report.pdf") == 0, "still a name, no glob"
        assert index.delete(filter={"path": ["sub/[2024] report.pdf", "docs/a*.pdf"]}) == 2
        assert [record.doc_id for record in index.documents()] == ["2 report.pdf", "ab.pdf", "sub/4 report.pdf"]
        assert index.delete("[24] report.pdf") == 1


def test_delete_by_date_finds_other_spellings_of_the_date(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        whens = [dt.date(2025, 1, 31), dt.datetime(2025, 1, 31, 9, 30), "2025-01-31T10:30:00+01:00", "2025-02-01"]
        index.add(["words"] * 4, ids=list("abcd"), metadata=[{"when": when} for when in whens])
        assert index.delete(filter={"when": "2025-01-31 09:30"}) == 2
        assert index.delete(filter={"when": "2025-01-31"}) == 1
        assert [record.doc_id for record in index.documents()] == ["d"]


def test_delete_accepts_a_range_filter(docs, tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR, metadata=year_metadata)
        assert index.delete(filter={"year": Range(lte=2021)}) == 2
        assert {record.path.stem for record in index.documents()} == {"newest", "text", "flag"}


def test_older_index_format_raises_mismatch_error_with_a_remedy(docs, tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index._session.resources.manifest.write_settings({"schema": SCHEMA_VERSION - 1})
    # An older index lacks payload keys, so a filter would silently match nothing.
    message = (
        rf"has the format {SCHEMA_VERSION - 1} .* reads {SCHEMA_VERSION}\. .*`jina-rag ingest PATH --index NEW_INDEX`"
    )
    with pytest.raises(IndexMismatchError, match=message):
        DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder())


def test_matches_evaluates_filters_on_a_payload():
    payload = {"page": 3, schema.HAS: ["chart", "table"], "meta": [{"n": np.float64(2.5)}, {"n": 9}]}
    for where, expected in [
        ({"page": Range(gte=3), "has": "chart"}, True),
        ({"page": Range(gt=3), "has": "chart"}, False),
        ({"has": ["figure", "table"]}, True),
        ({"has": "figure"}, False),
        ({"meta.n": Range(gt=2, lt=3)}, True),
        ({"meta.n": Range(gt=3, lt=9)}, False),
        ({}, True),
    ]:
        assert matches(payload, where) is expected, where


def test_unknown_metadata_key_adds_a_note(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.add(["words"], ids=["a"], metadata=[{"year": 2024, "deep": {"by": "Cy"}}])
        assert index.search("words", filter={"yaer": 2024}).notes == ("No document has the metadata key 'yaer'.",)
        assert index.search("words", filter={"meta.deep.bx": "Cy", "has": "table"}).notes == (
            "No document has the metadata key 'meta.deep.bx'.",
        )
        assert index.search("words", filter={"year": 1900, "deep.by": "Cy", "path": "a", "page": 3}).notes == ()
