"""Points of pages: regions as separate points, pooled rows, and pages whose vectors exceed the limit of the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pymupdf
import pytest

from jina_rag import DocumentIndex
from jina_rag.catalog.manifest import DocumentRecord
from jina_rag.config import IngestSettings, Storage
from jina_rag.errors import IndexMismatchError, InvalidInputError
from jina_rag.indexing.point_builder import EncodedPage, PointBuilder
from jina_rag.scoring import normalise
from jina_rag.search.fusion import Rescore
from jina_rag.search.late_interaction import PageRanker
from jina_rag.search.snippets import words_of
from jina_rag.search.stages import Stages
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.testing import FakeEmbedder, make_page, sample_pdf
from jina_rag.types import Embeddings, Prefetch, Range, Region, TokenGrid

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=60)
RECORDS = [DocumentRecord("a.pdf", Path("/docs/a.pdf"), "1" * 64, 1, 1, metadata={"year": 2024})]
LEFT, RIGHT = (0.0, 0.0, 0.48, 0.2), (0.48, 0.0, 1.0, 0.2)
WORDS = "sun sun sun sun rain rain rain rain"


class EqualDimEmbedder(FakeEmbedder):
    """An embedder whose dense vectors are as long as the rows, so that regions reuse the rows of the page."""

    def __init__(self) -> None:
        super().__init__(dim=64, multi_dim=64, name="square")


class QuadrantEmbedder(FakeEmbedder):
    """An image embedder with one row per quadrant of the image. The row depends on the mean gray value."""

    modality = "image"
    dim = multi_dim = 8

    def __init__(self) -> None:
        super().__init__(dim=8, multi_dim=8, name="looking")

    def encode_document(self, documents, **options):
        self.history.append(("document", tuple(documents)))
        rows = [self._rows(getattr(item, "screenshot", None) or item) for item in documents]
        quarters = np.array([[x / 2, y / 2, x / 2 + 0.5, y / 2 + 0.5] for y in (0, 1) for x in (0, 1)], "f4")
        return Embeddings(
            normalise([r.mean(axis=0) for r in rows]), rows, [TokenGrid(quarters, "patches") for _ in documents]
        )

    def _rows(self, photo):
        image = getattr(photo, "image", photo).convert("L").resize((2, 2))
        return normalise([self._code(255 - grey) for grey in np.asarray(image).reshape(-1)])

    def _code(self, darkness):
        return np.eye(8)[min(int(darkness) // 32, 7)] + 1e-3

    def encode_query(self, queries, **options):
        rows = [normalise([self._code(255)]) for _ in queries]
        return Embeddings(normalise([r.mean(axis=0) for r in rows]), rows, [None] * len(queries))


def build_points(embedder, page, tmp_path, storage=None, **options):
    builder = PointBuilder(
        embedder, ImageFiles(tmp_path / "images"), dim=embedder.dim, quality=80, storage=storage, **options
    )
    return builder, builder.build(RECORDS, [(page, builder.encode([page])[0])], {})


def test_region_points_precede_their_page_point(tmp_path):
    page = make_page(WORDS, regions=[Region("table", LEFT, caption="Table 1"), Region("chart", RIGHT)])
    embedder = EqualDimEmbedder()
    _, built = build_points(embedder, page, tmp_path)
    assert len(embedder.history) == 1, "only the page is embedded"
    kinds = [point.payload["kind"] for point, _ in built]
    assert kinds == ["table", "chart", "page"]
    table, chart, page_point = [point for point, _ in built]
    assert {point.payload["page_id"] for point, _ in built} == {page_point.id}
    assert table.payload["caption"] == "Table 1"
    assert table.payload["box"] == list(LEFT)
    assert [point_record.kind for _, point_record in built] == kinds
    # Four equal words pool into one row.
    np.testing.assert_allclose(table.multi, page_point.multi[:1], atol=1e-6)
    np.testing.assert_allclose(chart.multi, page_point.multi[4:5], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(table.dense), 1, rtol=1e-5)
    assert set(table.lexical.indices) != set(chart.lexical.indices)
    assert all((tmp_path / "images" / point.payload["image"]).is_file() for point, _ in built)
    assert {tuple(point.payload["has"]) for point, _ in built} == {("chart", "table")}, (
        "page and regions match the same filter"
    )
    for point, _ in built:
        assert (point.payload["doc_id"], point.payload["meta"]) == (["a.pdf"], [{"year": 2024}])


def test_caption_words_belong_to_the_region(tmp_path):
    page = make_page(WORDS + " Figure 2 snow", regions=[Region("chart", RIGHT, caption="Figure 2 snow")])
    _, built = build_points(EqualDimEmbedder(), page, tmp_path)
    chart, page_point = [point for point, _ in built]
    np.testing.assert_allclose(chart.dense, normalise(page_point.multi[4:].mean(axis=0)), rtol=1e-5)
    assert len(chart.multi) == 2  # the seven rows of the words are pooled by a factor of 4


def test_embedder_without_positions_embeds_the_text_of_regions(tmp_path):
    page = make_page(WORDS, regions=[Region("table", LEFT, caption="Table 1"), Region("chart", (0.0, 0.9, 1.0, 1.0))])
    embedder = FakeEmbedder()  # dense vectors and rows differ in length, so regions are embedded separately
    _, built = build_points(embedder, page, tmp_path)
    assert embedder.history[-1] == ("document", ({"text": "Table 1 sun sun sun sun"},))
    assert built[0][0].dense.shape == (128,)
    assert built[1][0].multi is None, "without text, only the image is stored"


def test_image_embedder_embeds_the_crop_and_the_better_score_counts(tmp_path):
    with pymupdf.open() as document:
        page = document.new_page(width=400, height=400)
        page.insert_text((20, 30), "a line of text here", fontsize=8)
        for bar in range(6):
            page.draw_rect(pymupdf.Rect(60 + bar * 40, 150, 90 + bar * 40, 330), fill=(0, 0, 0))
        document.new_page(width=400, height=400).draw_rect(pymupdf.Rect(0, 0, 400, 400), fill=(0.5, 0.5, 0.5))
        document.save(tmp_path / "bars.pdf")
    embedder = QuadrantEmbedder()
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        report = index.ingest(tmp_path / "bars.pdf", settings=NO_OCR)
        assert report.regions >= 1
        assert len([item for _, items in embedder.history for item in items]) == report.pages + report.regions
        hits = index.search("black", k=2)
        assert hits[0].page == 1
        assert hits[0].region is not None, "the crop is darker than the page"
        assert hits[0].region.image_path.is_file()
        assert len(hits) == 2, "page and region are one hit"


def test_region_surfaces_a_page_that_is_not_a_candidate(tmp_path):
    page = make_page("rain " * 4 + "moon stars night " * 20, regions=[Region("table", LEFT)])
    other_pages = [make_page(f"storm rain hail number{n}", number=n) for n in (2, 3, 4)]
    embedder = EqualDimEmbedder()
    builder = PointBuilder(embedder, ImageFiles(tmp_path / "images"), dim=64, quality=80)
    pages = [page, *other_pages]
    built = builder.build(RECORDS, list(zip(pages, builder.encode(pages), strict=True)), {})
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        resources = index._session.resources
        resources.manifest.begin(RECORDS[0])
        resources.manifest.add_points(RECORDS[0].sha256, [point_record for _, point_record in built])
        resources.store.upsert([point for point, _ in built])
        resources.manifest.finish(RECORDS[0])
        query_embeddings = embedder.encode_query(["rain"])

        def candidates(regions):
            stages = Stages(Prefetch(limit=2, lexical=False, regions=regions, exhaustive=0), Rescore(limit=2))
            [query] = index._searcher.embed(["rain"])
            ranking = PageRanker(resources, embedder).rank(query, {}, 3, stages)
            return {candidate.page_id: candidate.score for candidate in ranking}

        first = schema.point_id(RECORDS[0].sha256, 1)
        nearest = resources.store.nearest(query_embeddings.single[0], limit=2, where={"kind": "page"})
        assert first not in [hit.id for hit in nearest], "the page itself is not a candidate"
        with_regions = candidates(1)
        assert len(with_regions) == 3, "regions do not displace pages"
        # The score equals that of an exhaustive search.
        exact = {hit.page_id: hit.score for hit in index.search("rain", k=4)}
        assert with_regions[first] == pytest.approx(exact[first], abs=1e-3)


def test_search_returns_k_pages_despite_many_regions(tmp_path):
    narrow = Prefetch(limit=10, lexical=5, regions=5, exhaustive=10)
    embedder = EqualDimEmbedder()
    builder = PointBuilder(embedder, ImageFiles(tmp_path / "images"), dim=64, quality=80)
    boxes = [(0.0, 0.2 * n, 1.0, 0.2 * n + 0.2) for n in range(4)]
    regions = [Region("table", box) for box in boxes]
    pages = [make_page(f"sun number{n} " * 16, number=n, regions=regions) for n in range(1, 61)]
    built = builder.build(RECORDS, list(zip(pages, builder.encode(pages), strict=True)), {})
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        resources = index._session.resources
        resources.manifest.begin(RECORDS[0])
        resources.manifest.add_points(RECORDS[0].sha256, [point_record for _, point_record in built])
        for batch in schema.batches([point for point, _ in built]):
            resources.store.upsert(batch)
        resources.manifest.finish(RECORDS[0])
        for k in (5, 50, 60, 100):
            hits = index.search("sun", k=k, stages=[narrow])
            assert len({hit.page for hit in hits}) == len(hits) == min(k, 60)


def test_pooled_rows_keep_the_boxes_of_all_words(tmp_path):
    page = make_page(" ".join(f"word{n // 2}" for n in range(60)), regions=[Region("table", LEFT)])
    embedder = EqualDimEmbedder()
    for storage in (Storage(pool_factor=2), Storage(pool_factor=2, sign_codes=False)):
        _, built = build_points(embedder, page, tmp_path, storage)
        point = built[-1][0]
        assert len(point.multi) == 30
        assert len(schema.decode_grid(point.payload["grid"])) == 60
        assert ("signs" in point.payload) is storage.sign_codes


@pytest.mark.parametrize("name", ["exact", "balanced", "compact"])
def test_search_explain_and_snippets_work_with_every_storage(tmp_path, name):
    texts = [" ".join(f"w{n}" for n in range(first, first + 60)) for first in range(0, 600, 60)]
    sample_pdf(tmp_path / "long.pdf", [*texts, "padding " * 40 + "whales sing in the deep sea " + "filler " * 40])
    embedder = EqualDimEmbedder()
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder, storage=name) as index:
        index.ingest(tmp_path / "long.pdf", settings=NO_OCR)
        hit = index.search("whales sing", k=1)[0]
        assert hit.page == 11
        assert "whales sing" in hit.snippet
        explanation = index.explain("whales sing", hit)
        assert len(explanation.boxes) == len(explanation.weights) > 80
        assert explanation.brightest is not None
        assert index.info().storage == name
        assert index.verify() == []
    with pytest.raises(IndexMismatchError, match="was built with storage"):
        DocumentIndex.open(tmp_path / "kb", embedder=embedder, storage="compact" if name != "compact" else "exact")
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        assert index.search("whales sing", k=1)[0].page == 11


def test_heat_map_of_pooled_rows_has_the_same_maximum(tmp_path):
    text = " ".join([*(f"w{n}" for n in range(40)), "whales sing", *(f"v{n}" for n in range(40))])
    sample_pdf(tmp_path / "a.pdf", [text])
    brightest = []
    for storage in (Storage(), Storage(pool_factor=2)):
        with DocumentIndex.open(
            tmp_path / f"kb{storage.pool_factor}", embedder=EqualDimEmbedder(), storage=storage
        ) as index:
            index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
            brightest.append(index.explain("whales sing", index.search("whales sing", k=1)[0]).brightest)
    assert brightest[0] == pytest.approx(brightest[1], abs=0.05)


class LongPageEmbedder(EqualDimEmbedder):
    """An embedder that returns 40,000 vectors of length 128 per page, five times the limit of the store."""

    def __init__(self) -> None:
        FakeEmbedder.__init__(self, dim=128, multi_dim=128, name="huge")

    def encode_document(self, documents, **options):
        embeddings = super().encode_document(documents, **options)
        rng = np.random.default_rng(0)
        multi = []
        for item, rows in zip(documents, embeddings.multi, strict=True):
            is_long = "giant" in getattr(item, "text", "")
            multi.append(
                np.concatenate([rows, normalise(rng.normal(size=(40_000 - len(rows), 128)))]) if is_long else rows
            )
        grids = [TokenGrid(np.tile(np.array([[0.1, 0.1, 0.2, 0.2]], "f4"), (len(rows), 1)), "words") for rows in multi]
        return replace(embeddings, multi=multi, grids=grids)


def test_page_of_40_000_rows_is_pooled_with_a_warning(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["the giant page about penguins", "a page of usual size about whales"])
    with DocumentIndex.open(tmp_path / "kb", embedder=LongPageEmbedder()) as index:
        report = index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        assert report.failed == ()
        (warning,) = report.warnings
        assert (warning.page, "40,000 vectors" in warning.reason, "8,191" in warning.reason) == (1, True, True)
        point = index._session.resources.store.fetch([schema.point_id(index.documents()[0].sha256, 1)])[0]
        assert point.multi.shape == (8191, 128)
        hit = index.search("penguins", k=1)[0]
        assert hit.page == 1
        assert len(index.explain("penguins", hit).boxes) == 40_000
        # The document keeps the warning after the run.
        assert index.documents()[0].warnings == report.warnings


def test_multi_dim_must_be_a_matryoshka_dim_of_the_embedder(tmp_path):
    with pytest.raises(InvalidInputError, match="multi_dim is 32"):
        DocumentIndex.open(tmp_path / "kb", embedder=EqualDimEmbedder(), storage=Storage(multi_dim=32))
    assert not (tmp_path / "kb").exists()

    class MatryoshkaRowsEmbedder(EqualDimEmbedder):
        multi_matryoshka_dims = (64, 32)

    sample_pdf(tmp_path / "a.pdf", ["cats and dogs", "whales sing"])
    with DocumentIndex.open(tmp_path / "kb", embedder=MatryoshkaRowsEmbedder(), storage=Storage(multi_dim=32)) as index:
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        hit = index.search("whales", k=1)[0]
        assert hit.page == 2
        assert index.explain("whales", hit).brightest is not None
    with pytest.raises(InvalidInputError, match="one of exact, balanced, compact"):
        DocumentIndex.open(tmp_path / "other", embedder=EqualDimEmbedder(), storage="tiny")


def test_has_filter_finds_pages_by_their_regions(tmp_path):
    embedder = EqualDimEmbedder()
    builder = PointBuilder(embedder, ImageFiles(tmp_path / "images"), dim=64, quality=80)
    kinds = [["chart", "chart"], ["table"], [], ["chart", "table", "figure"]]
    pages = [
        make_page(
            WORDS,
            number=n,
            regions=[Region(kind, (0.0, 0.0, 1.0, 0.1 * i + 0.1)) for i, kind in enumerate(kinds_of_page)],
        )
        for n, kinds_of_page in enumerate(kinds, start=1)
    ]
    built = builder.build(RECORDS, list(zip(pages, builder.encode(pages), strict=True)), {})
    assert [point.payload["has"] for point, point_record in built if point_record.kind == "page"] == [
        sorted(set(kinds_of_page)) for kinds_of_page in kinds
    ]
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        store = index._session.resources.store
        store.upsert([point for point, _ in built])

        def page_numbers(kind, **conditions):
            return sorted(hit.payload["page"] for hit in store.scroll({"has": kind, "kind": "page", **conditions}))

        assert page_numbers("chart") == [1, 4]
        assert page_numbers(["table", "figure"]) == [2, 4]
        assert page_numbers("chart", page=Range(gt=1)) == [4]
        # Regions of other pages are not candidates.
        region_hits = store.nearest(
            np.ones(64, "f4"), limit=99, where={"has": "table", "kind": ["chart", "table", "figure"]}
        )
        assert {hit.payload["page"] for hit in region_hits} == {2, 4}
        assert len(region_hits) == 4


def test_words_are_stored_with_their_boxes(tmp_path):
    page = make_page("rain over the hills", regions=[Region("table", LEFT)])
    for embedder in (EqualDimEmbedder(), QuadrantEmbedder()):
        _, built = build_points(embedder, page, tmp_path)
        table, page_payload = [point.payload for point, _ in built]
        assert "words" not in table
        texts, boxes = words_of(page_payload)
        assert texts == ["rain", "over", "the", "hills"]
        np.testing.assert_allclose(boxes, [word.box for word in page.words], atol=1e-4)


def test_page_without_rows_is_stored_without_multi_vector(tmp_path):
    page = make_page("", regions=[Region("figure", (0.0, 0.0, 1.0, 1.0))])
    builder = PointBuilder(EqualDimEmbedder(), ImageFiles(tmp_path / "images"), dim=64, quality=80)
    empty_encoding = EncodedPage(
        np.zeros(64, "f4"), np.zeros((0, 64), "f4"), TokenGrid(np.zeros((0, 4), "f4"), "words")
    )
    built = builder.build(RECORDS, [(page, empty_encoding)], {})
    assert [point.multi for point, _ in built] == [None, None]
