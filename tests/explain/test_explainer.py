"""What an index tells of its hits: folded copies, citations, contexts, and explanations by a reranker."""

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
    # The same pages in a file with other bytes.
    sample_pdf(folder / "second.pdf", [pages[1], "one more page on sea birds"])
    return folder


@pytest.fixture(scope="module")
def kb(docs, tmp_path_factory):
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
        yield index


def places(hits):
    return [(hit.doc_id, hit.page) for hit in hits]


def test_pages_that_show_the_same_become_one_hit_with_all_places(kb):
    every = kb.search("whales sing part 1", k=9)
    assert set(places(every)[:2]) == {("first.pdf", 2), ("second.pdf", 1)}
    folded = kb.search("whales sing part 1", k=9, dedup=True)
    assert len(folded) == len(every) - 1
    first = folded[0]
    both = {(first.doc_id, first.page), *((s.location.doc_id, s.page) for s in first.similar)}
    assert both == {("first.pdf", 2), ("second.pdf", 1)}
    assert first.similar[0].similarity > 0.9
    assert all(not hit.similar for hit in folded[1:]), "pages of other parts are other pages"
    assert places(kb.search("whales sing part 1", k=2, dedup=True)) == places(folded)[:2]
    assert places(kb.search("whales sing part 1", k=2, offset=1, dedup=True)) == places(folded)[1:3]


def test_a_citation_has_the_words_in_its_box(kb):
    hit = kb.search("whales sing", k=1)[0]
    cited = kb.cite("whales sing", hit)
    assert (cited.doc_id, cited.page, cited.path) == (hit.doc_id, hit.page, hit.path)
    assert "whales sing in the deep sea" in cited.text
    brightest = kb.explain("whales sing", hit).brightest
    x0, y0, x1, y1 = cited.box
    assert x0 <= brightest[0] < brightest[2] <= x1
    assert y0 <= brightest[1] < brightest[3] <= y1
    assert (x1 - x0) * (y1 - y0) < 0.6
    with Image.open(hit.image_path) as page:
        assert cited.crop().size == pytest.approx(((x1 - x0) * page.width, (y1 - y0) * page.height), abs=2)


def test_a_context_has_pictures_sources_and_words_as_data(kb):
    hits = kb.search("whales sing", k=3)
    context = kb.build_context("whales sing", hits, max_images=2)
    assert [source.label for source in context.sources] == [f"{hit.path.name}, page {hit.page}" for hit in hits]
    assert len(context.images) == 2
    blocks = context.blocks()
    assert [block["type"] for block in blocks].count("image") == 2
    assert FILLER in context.text, "the words of the page and not a snippet"
    assert f"<{context.fence}" in context.text
    assert context.text.rstrip().endswith("Question: whales sing")
    with Image.open(BytesIO(context.images[0].data)) as image:
        whole = image.size
    cut = kb.build_context("whales sing", hits, max_images=1, prefer="region")
    with Image.open(BytesIO(cut.images[0].data)) as image:
        assert image.size[1] < whole[1], "the cited place and not the page"


def test_each_page_has_its_own_words_also_without_an_id(kb):
    hits = kb.search("whales sing", k=4)
    by_hand = [replace(hit, page_id="") for hit in hits]
    context = kb.build_context("whales sing", [*by_hand, hits[0]], max_images=0)
    parts = context.text.split("\n[")[1:]
    for hit, part in zip(hits, parts, strict=False):
        assert " ".join(word for word in hit.snippet.replace("…", "").split()[:4]) in part
    assert kb.build_context("whales sing", by_hand, prefer="region").images == (
        kb.build_context("whales sing", hits, prefer="region").images
    )


def test_explanations_name_the_words_of_the_question(kb):
    hit = kb.search("whales sing", k=1)[0]
    explanation = kb.explain("whales sing", hit)
    assert [word for word, _ in explanation.words] == ["whales", "sing"]
    assert explanation.per_token.shape == (2, len(explanation.boxes))


def test_a_reranker_that_looks_at_pixels_explains_its_score(kb, tiny):
    with DocumentIndex.open(kb.location, embedder=kb.embedder, reranker=tiny["m0"]) as index:
        hits = index.search("whales sing", k=2, stages=[Rerank(limit=2)])
        assert [hit.stage for hit in hits] == ["rerank", "rerank"]
        alone = index.reranker.score("whales sing", [hits[0].image_path])
        assert hits[0].score == pytest.approx(float(alone[0]), abs=1e-5)
        for method in (None, "gradient", "attention"):
            explanation = index.explain("whales sing", hits[0], by="reranker", method=method)
            assert explanation.kind == "patches"
            assert explanation.weights.max() == 1
            assert len(explanation.boxes) == len(explanation.weights) > 4
            with Image.open(hits[0].image_path) as page:
                assert explanation.image().size == page.size
        found = asyncio.run(index.aexplain("whales sing", hits[0], by="reranker", method="attention"))
        np.testing.assert_allclose(found.weights, explanation.weights, atol=1e-5)


def test_explanations_that_nobody_can_give(kb):
    hit = kb.search("whales", k=1)[0]
    with pytest.raises(InvalidInputError, match="open the index with one"):
        kb.explain("whales", hit, by="reranker")
    with pytest.raises(InvalidInputError, match="'embedder'"):
        kb.explain("whales", hit, by="oracle")
    with (
        DocumentIndex.open(kb.location, embedder=kb.embedder, reranker=FakeReranker()) as index,
        pytest.raises(InvalidInputError, match="jina-reranker-m0 can"),
    ):
        index.explain("whales", hit, by="reranker")


def test_hits_that_are_gone(tmp_path, docs):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
        hit = index.search("desert", k=1)[0]
        index.delete(hit.doc_id)
        for ask in (index.explain, index.cite, lambda query, hit: index.build_context(query, [hit])):
            with pytest.raises(IndexStateError, match="search again"):
                ask("desert", hit)


def test_a_page_that_was_replaced_is_not_told_about_as_another(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["the desert is dry"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        hit = index.search("desert", k=1)[0]
        sample_pdf(tmp_path / "a.pdf", ["bicycles and wheels"])
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        with pytest.raises(IndexStateError, match="replaced"):
            index.cite("desert", hit)


def test_a_page_is_told_about_while_a_copy_of_its_file_is_there(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        sample_pdf(tmp_path / name, ["the desert is dry"])
    (tmp_path / "b.pdf").write_bytes((tmp_path / "a.pdf").read_bytes())
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest([tmp_path / "a.pdf", tmp_path / "b.pdf"], settings=NO_OCR)
        hit = index.search("desert", k=1)[0]
        index.delete(hit.doc_id)
        assert "desert" in index.cite("desert", hit).text
