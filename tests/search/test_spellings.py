"""Spellings that mean the same: searches, paths, ids, filters, deletion and the text that hits show."""

from __future__ import annotations

import random
import runpy
import unicodedata
from contextlib import closing

import numpy as np
import pytest
from helpers.paths import ROOT

from jina_rag import DocumentIndex
from jina_rag.catalog.document_filter import resolve
from jina_rag.catalog.manifest import Manifest
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.testing import FakeEmbedder, make_page, sample_pdf

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=60)
NFC = "Übersicht Müller.pdf"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.fixture(scope="module")
def default_index(tmp_path_factory):
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb") as index:
        yield index


def test_part_numbers_rank_first_in_each_spelling_of_page_and_query(default_index):
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "spellings.py"))
    spellings = list(benchmark["CODES"].values())
    codes = benchmark["part_numbers"](120, random.Random(7))
    page, query = "Spare part {}: gasket set for the feed pump, see drawing.", "Which gasket set is part {}?"
    texts = [page.format(spellings[number % len(spellings)](code)) for number, code in enumerate(codes)]
    default_index.add(texts, ids=[str(number) for number in range(120)])
    for step in (0, 1, 7):  # 0: plain queries
        queries = [
            query.format(spellings[(number + step) % len(spellings)](code) if step else code)
            for number, code in enumerate(codes[:40])
        ]
        results = default_index.search_many(queries, k=1, details=False)
        assert [hits[0].doc_id for hits in results] == [str(number) for number in range(40)]


@pytest.mark.parametrize(
    "name",
    ["Arabic, lam-alef reversed", "Arabic with points", "Devanagari, NFD", "Latin, ligatures", "Latin, soft hyphens"],
)
def test_words_rank_first_in_another_spelling_of_page_and_query(tmp_path, name):
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "spellings.py"))
    (page, query), letters, start, spelling = benchmark["WORDS"][name]
    words = benchmark["words"](letters, start, 120, random.Random(7))
    with DocumentIndex.open(tmp_path / "kb") as index:
        for pages, queries in ((map(spelling, words), words[:40]), (words, map(spelling, words[:40]))):
            index.add([page.format(word) for word in pages], ids=[str(number) for number in range(120)])
            results = index.search_many([query.format(word) for word in queries], k=1, details=False)
            assert [hits[0].doc_id for hits in results] == [str(number) for number in range(40)]


def test_hits_snippets_citations_and_heat_maps_show_the_text_of_the_page(default_index):
    words = ["Reference", "KX‑٤٤٧١–B", "Donau\u00addampf", "مَكْتَبَة", "ﬁne", "10²", "Müller’s"]
    page = make_page(" ".join(words), doc_id="spelled")
    assert [word.text for word in page.words] == words
    default_index.add([page], ids=["spelled"])
    [hit] = default_index.search("KX-4471-B مكتبة", k=1, filter={"doc_id": "spelled"})
    assert hit.text.split() == words
    assert hit.snippet.split() == words
    assert set(default_index.cite("KX-4471-B", hit).text.split()) <= set(words)
    explanation = default_index.explain("Donau\u00addampf KX–٤٤٧١", hit)
    assert "".join(explanation.tokens).split() == ["Donau\u00addampf", "KX–٤٤٧١"]

    embeddings = default_index.embedder.encode_document([page])
    tokens, grid = embeddings.tokens[0], embeddings.grids[0]
    shown = "".join(tokens).split()
    assert [word for word in words if word in shown] == words
    index = -1
    for text, box in zip(tokens, grid.boxes, strict=True):
        index += text.startswith(" ")
        word = next(word for word in page.words if word.text == shown[index])
        assert (box[:2] >= np.array(word.box[:2]) - 1e-6).all()
        assert (box[2:] <= np.array(word.box[2:]) + 1e-6).all()


@pytest.fixture
def documents(tmp_path):
    """Return a function that writes PDFs, each with one page, and an index of these files."""
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:

        def ingest(*names, **options):
            for name in names:
                path = tmp_path / "docs" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                sample_pdf(path, [f"bridges of {len(name)} {name.encode().hex()}"])
            index.ingest(tmp_path / "docs", settings=NO_OCR, **options)
            return index

        yield ingest


def found(index, **conditions):
    return {hit.doc_id for hit in index.search("bridges", k=10, filter=conditions)}


@pytest.mark.parametrize(("stored", "typed"), [(NFD, NFC), (NFC, NFD), ("Teil KX‑4471.pdf", "Teil KX-4471.pdf")])
def test_names_are_found_in_another_spelling(documents, tmp_path, stored, typed):
    index = documents(stored, "other.pdf")
    stem = typed.removesuffix(".pdf")
    for pattern in (typed, f"*{stem[3:]}*", f"{stem[:4]}*", str(tmp_path / "docs" / typed), f"**/{typed}"):
        assert found(index, path=pattern) == {stored}, pattern
    assert found(index, doc_id=typed) == {stored}
    assert found(index, doc_id=[typed, "other.pdf"]) == {stored, "other.pdf"}
    assert index.delete(filter={"doc_id": typed}, document=None) == 1
    assert index.ingest(tmp_path / "docs" / typed, settings=NO_OCR).documents == 1
    assert index.delete(str(tmp_path / "docs" / typed)) == 1


def test_folder_in_another_spelling(documents, tmp_path):
    folder = unicodedata.normalize("NFD", "Verträge")
    index = documents(f"{folder}/a.pdf", f"{folder}/b.pdf", "c.pdf")
    assert found(index, path="Verträge") == {f"{folder}/a.pdf", f"{folder}/b.pdf"}
    assert found(index, path="Verträge/a*") == {f"{folder}/a.pdf"}
    assert index.delete("Verträge") == 2


def test_two_files_that_differ_only_in_the_spelling_stay_two_documents(documents, tmp_path):
    index = documents(NFC, NFD)
    assert {record.doc_id for record in index.documents()} == {NFC, NFD}
    for name in (NFC, NFD):
        assert found(index, path=name) == found(index, doc_id=name) == {name}
        assert found(index, path=str(tmp_path / "docs" / name)) == {name}
    assert found(index, path="*Müller*") == {NFC, NFD}
    assert index.delete(NFC) == 1
    assert {record.doc_id for record in index.documents()} == {NFD}
    assert index.delete(NFC) == 1


def test_nearer_spelling_is_preferred(tmp_path):
    with closing(Manifest(tmp_path / "manifest.db")) as manifest:
        manifest.names = lambda: ["u\u0308-1.pdf", "u\u0308‑1.pdf", "x/[1] u\u0308.pdf"]
        assert resolve("ü-1.pdf", manifest) == ["u\u0308-1.pdf"]
        assert resolve("ü–1.pdf", manifest) == ["u\u0308-1.pdf", "u\u0308‑1.pdf"]
        assert resolve("x/[1] ü.pdf", manifest) == ["x/[[]1] u\u0308.pdf"]
        assert resolve("ü*", manifest) == ["ü*"]


def test_sync_keeps_and_removes_files_in_another_spelling(documents, tmp_path):
    index = documents(NFD, "other.pdf")
    report = index.ingest(tmp_path / "docs" / NFC, sync=True, settings=NO_OCR)
    assert (report.unchanged, report.removed) == (1, 0)
    (tmp_path / "docs" / NFD).unlink()
    with pytest.raises(InvalidInputError, match="does not exist"):
        index.ingest(tmp_path / "docs" / NFC, settings=NO_OCR)
    index.ingest(tmp_path / "docs", sync=True, settings=NO_OCR)
    assert {record.doc_id for record in index.documents()} == {"other.pdf"}


def test_metadata_filters_compare_spellings_of_keys_and_values(documents):
    key = unicodedata.normalize("NFD", "Größe")
    values = {"a.pdf": {key: "KX‑4471"}, "b.pdf": {key: "KX-4472", "Stück": 7}, "c.pdf": {"Autor": "Zoe\u0308"}}
    index = documents("a.pdf", "b.pdf", "c.pdf", metadata=lambda path: values[path.name])
    assert found(index, Größe="KX-4471") == {"a.pdf"}
    assert found(index, Größe="KX–4472") == {"b.pdf"}
    assert found(index, Autor="Zoë") == {"c.pdf"}
    assert found(index, **{unicodedata.normalize("NFD", "Stück"): 7}) == {"b.pdf"}
    assert found(index, Autor="Zoe") == found(index, Autor="zoë") == set()
    assert {record.doc_id: record.metadata for record in index.documents()}["c.pdf"] == {"Autor": "Zoe\u0308"}
    assert index.delete(filter={"Größe": "KX-4471"}) == 1


def test_added_entries_are_found_in_another_spelling(documents):
    index = documents("other.pdf")
    index.add(["bridges"], ids=[NFD])
    assert [page.doc_id for page in index.get([NFC])] == [NFD]
    assert index.delete(NFC) == 1
