"""Explainer: citations, chat contexts and reranker explanations for hits, including folded near-duplicates."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from jina_rag import DocumentIndex, Rerank
from jina_rag.config import IngestSettings
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.testing import FakeEmbedder, FakeReranker, sample_pdf

NO_OCR = IngestSettings(ocr="never")
FILLER = "notes on water supply and its history in nine chapters with tables of rivers and lakes"


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    pages = [f"{FILLER} part {n} whales sing in the deep sea {FILLER}" for n in range(3)]
    sample_pdf(folder / "first.pdf", [*pages, "the desert is dry"])
    # The page also occurs in a file with other bytes.
    sample_pdf(folder / "second.pdf", [pages[1], "one more page on sea birds"])
    return folder


@pytest.fixture(scope="module")
def index(docs, tmp_path_factory):
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
        yield index


def hit_pages(hits):
    return [(hit.doc_id, hit.page) for hit in hits]


def test_near_duplicates_fold_into_one_hit_with_all_locations(index):
    all_hits = index.search("whales sing part 1", k=9)
    assert set(hit_pages(all_hits)[:2]) == {("first.pdf", 2), ("second.pdf", 1)}
    folded_hits = index.search("whales sing part 1", k=9, dedup=True)
    assert len(folded_hits) == len(all_hits) - 1
    first = folded_hits[0]
    pages = {(first.doc_id, first.page), *((s.location.doc_id, s.page) for s in first.similar)}
    assert pages == {("first.pdf", 2), ("second.pdf", 1)}
    assert first.similar[0].similarity > 0.9
    assert all(not hit.similar for hit in folded_hits[1:]), "pages of other parts are no near-duplicates"
    assert hit_pages(index.search("whales sing part 1", k=2, dedup=True)) == hit_pages(folded_hits)[:2]
    assert hit_pages(index.search("whales sing part 1", k=2, offset=1, dedup=True)) == hit_pages(folded_hits)[1:3]


def test_citation_text_and_crop_match_its_box(index):
    hit = index.search("whales sing", k=1)[0]
    citation = index.cite("whales sing", hit)
    assert (citation.doc_id, citation.page, citation.path) == (hit.doc_id, hit.page, hit.path)
    assert "whales sing in the deep sea" in citation.text
    brightest = index.explain("whales sing", hit).brightest
    x0, y0, x1, y1 = citation.box
    assert x0 <= brightest[0] < brightest[2] <= x1
    assert y0 <= brightest[1] < brightest[3] <= y1
    assert (x1 - x0) * (y1 - y0) < 0.6
    with Image.open(hit.image_path) as page:
        assert citation.crop().size == pytest.approx(((x1 - x0) * page.width, (y1 - y0) * page.height), abs=2)


def test_build_context_returns_images_sources_and_fenced_text(index):
    hits = index.search("whales sing", k=3)
    context = index.build_context("whales sing", hits, max_images=2)
    assert [source.label for source in context.sources] == [f"{hit.path.name}, page {hit.page}" for hit in hits]
    assert len(context.images) == 2
    blocks = context.blocks()
    assert [block["type"] for block in blocks].count("image") == 2
    assert FILLER in context.text, "the text of the page, not a snippet"
    assert f"<{context.fence}" in context.text
    assert context.text.rstrip().endswith("Question: whales sing")
    with Image.open(BytesIO(context.images[0].data)) as image:
        page_size = image.size
    region_context = index.build_context("whales sing", hits, max_images=1, prefer="region")
    with Image.open(BytesIO(region_context.images[0].data)) as image:
        assert image.size[1] < page_size[1], "the cited box, not the page"


def test_build_context_without_page_ids_uses_own_text(index):
    hits = index.search("whales sing", k=4)
    hits_without_ids = [replace(hit, page_id="") for hit in hits]
    context = index.build_context("whales sing", [*hits_without_ids, hits[0]], max_images=0)
    parts = context.text.split("\n[")[1:]
    for hit, part in zip(hits, parts, strict=False):
        assert " ".join(word for word in hit.snippet.replace("…", "").split()[:4]) in part
    assert index.build_context("whales sing", hits_without_ids, prefer="region").images == (
        index.build_context("whales sing", hits, prefer="region").images
    )


def test_explanation_lists_query_words(index):
    hit = index.search("whales sing", k=1)[0]
    explanation = index.explain("whales sing", hit)
    assert [word for word, _ in explanation.words] == ["whales", "sing"]
    assert explanation.per_token.shape == (2, len(explanation.boxes))


def test_vision_reranker_explains_its_score(index, tiny):
    with DocumentIndex.open(index.location, embedder=index.embedder, reranker=tiny["m0"]) as m0_index:
        hits = m0_index.search("whales sing", k=2, stages=[Rerank(limit=2)])
        assert [hit.stage for hit in hits] == ["rerank", "rerank"]
        score = m0_index.reranker.score("whales sing", [hits[0].image_path])
        assert hits[0].score == pytest.approx(float(score[0]), abs=1e-5)
        for method in (None, "gradient", "attention"):
            explanation = m0_index.explain("whales sing", hits[0], by="reranker", method=method)
            assert explanation.kind == "patches"
            assert explanation.weights.max() == 1
            assert len(explanation.boxes) == len(explanation.weights) > 4
            with Image.open(hits[0].image_path) as page:
                assert explanation.image().size == page.size
        async_explanation = asyncio.run(m0_index.aexplain("whales sing", hits[0], by="reranker", method="attention"))
        np.testing.assert_allclose(async_explanation.weights, explanation.weights, atol=1e-5)


def test_unsupported_explanation_raises_invalid_input_error(index):
    hit = index.search("whales", k=1)[0]
    with pytest.raises(InvalidInputError, match="Open the index with reranker=NAME"):
        index.explain("whales", hit, by="reranker")
    with pytest.raises(InvalidInputError, match="expected one of embedder, reranker"):
        index.explain("whales", hit, by="oracle")
    with (
        DocumentIndex.open(index.location, embedder=index.embedder, reranker=FakeReranker()) as fake_index,
        pytest.raises(InvalidInputError, match="cannot explain its scores"),
    ):
        fake_index.explain("whales", hit, by="reranker")


def test_deleted_hit_raises_index_state_error(tmp_path, docs):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
        hit = index.search("desert", k=1)[0]
        index.delete(hit.doc_id)
        for call in (index.explain, index.cite, lambda query, hit: index.build_context(query, [hit])):
            with pytest.raises(IndexStateError, match="Repeat the search"):
                call("desert", hit)


def test_replaced_page_raises_index_state_error(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["the desert is dry"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        hit = index.search("desert", k=1)[0]
        sample_pdf(tmp_path / "a.pdf", ["bicycles and wheels"])
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        with pytest.raises(IndexStateError, match="replaced"):
            index.cite("desert", hit)


def test_deleted_document_with_identical_copy_can_be_cited(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        sample_pdf(tmp_path / name, ["the desert is dry"])
    (tmp_path / "b.pdf").write_bytes((tmp_path / "a.pdf").read_bytes())
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest([tmp_path / "a.pdf", tmp_path / "b.pdf"], settings=NO_OCR)
        hit = index.search("desert", k=1)[0]
        index.delete(hit.doc_id)
        assert "desert" in index.cite("desert", hit).text
