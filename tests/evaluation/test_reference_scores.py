"""Published scores: completeness, agreement with the sources, and comparison with measured scores."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.reference_scores import (
    compare,
    compare_mean,
    load_targets,
    means_for,
    mteb_from_paper,
    paper_from_mteb,
    targets_for,
)

V4, M0, COLBERT = "jinaai/jina-embeddings-v4", "jinaai/jina-reranker-m0", "jinaai/jina-colbert-v2"
LARGE, BASE, SMALL = (f"jinaai/jina-embedding-{size}-en-v1" for size in "lbs")
COLQWEN, COLPALI, TOMORO = "vidore/colqwen2.5-v0.2", "vidore/colpali-v1.3", "TomoroAI/tomoro-colqwen3-embed-4b"
VOYAGE = "voyageai/voyage-multimodal-3"
PUBLISHED = load_targets()
TASKS_WITH_EMPTY_QUERY = [
    "JinaVDRArxivQARetrieval",
    "JinaVDRDocQAAI",
    "JinaVDRDocQAEnergyRetrieval",
    "JinaVDRDocQAGovReportRetrieval",
    "JinaVDRDocQAHealthcareIndustryRetrieval",
    "JinaVDRDocVQARetrieval",
    "JinaVDRShiftProjectRetrieval",
    "JinaVDRTatQARetrieval",
]
MEASURES = {
    "nDCG@1": "ndcg_at_1",
    "nDCG@5": "ndcg_at_5",
    "nDCG@10": "ndcg_at_10",
    "Spearman": "cosine_spearman",
}


@pytest.fixture(scope="module")
def mteb():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def tasks(mteb):
    """Task in ``targets.json`` that mteb has → main score that mteb reports."""
    names = {target.task for target in PUBLISHED.targets if target.in_mteb}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = mteb.get_tasks(tasks=sorted(names), exclude_superseded=False, exclude_private=False)
    return {task.metadata.name: task.metadata.main_score for task in result}


def task_names(mteb, benchmark):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {task.metadata.name for task in mteb.get_benchmark(benchmark).tasks}


def scored_tasks(benchmark, model, **filters):
    return [t.task for t in PUBLISHED.targets if (t.benchmark, t.model) == (benchmark, model) and matches(t, filters)]


def matches(entry, filters):
    return all(getattr(entry, name) == value for name, value in filters.items())


# Completeness


@pytest.mark.parametrize(
    ("collection", "filter_sets"),
    [
        (
            "JinaVDR",
            [
                (V4, {"vectors": "dense", "loader": "paper"}),
                (V4, {"vectors": "multi", "loader": "paper"}),
                (V4, {"vectors": "multi", "loader": "mteb"}),
                *((model, {"loader": "mteb"}) for model in (COLQWEN, COLPALI, VOYAGE)),
            ],
        ),
        (
            "ViDoRe(v1)",
            [
                (V4, {"vectors": "dense", "loader": "paper"}),
                (V4, {"vectors": "multi", "loader": "paper"}),
                *((model, {"vectors": "multi", "loader": "mteb"}) for model in (V4, COLQWEN, COLPALI, TOMORO)),
            ],
        ),
        ("ViDoRe(v2)", [(model, {"vectors": "multi"}) for model in (V4, COLQWEN, COLPALI, TOMORO)]),
        (
            "ViDoRe(v3)",
            [
                (V4, {"vectors": "dense"}),
                *((model, {"vectors": "multi"}) for model in (V4, COLQWEN, COLPALI, TOMORO)),
            ],
        ),
        ("ViDoRe(v3.1)", [(V4, {"vectors": "dense"}), (V4, {"vectors": "multi"})]),
        ("MTEB(eng, v2)", [(V4, {"kind": "paper"}), (LARGE, {"kind": "paper"})]),
        ("CoIR", [(V4, {"kind": "paper"})]),
        ("LongEmbed", [(V4, {"loader": "paper"}), (V4, {"loader": "mteb"})]),
    ],
)
def test_every_task_of_a_benchmark_has_a_score(mteb, collection, filter_sets):
    expected = task_names(mteb, collection)
    if collection == "MTEB(eng, v2)":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = {t.metadata.name for t in mteb.get_benchmark(collection).tasks if t.metadata.type == "Retrieval"}
    for model, filters in filter_sets:
        result = scored_tasks(collection, model, **filters)
        assert sorted(result) == sorted(expected), f"{model} {filters}"


def test_benchmark_sizes():
    assert len(scored_tasks("JinaVDR", V4, vectors="multi", loader="mteb")) == 43
    sizes = {name: len(scored_tasks(name, V4, vectors="multi", loader="mteb")) for name in ("ViDoRe(v1)", "ViDoRe(v2)")}
    assert sizes == {"ViDoRe(v1)": 10, "ViDoRe(v2)": 4}
    assert len(scored_tasks("ViDoRe(v3)", V4, vectors="multi")) == 10


def test_beir_tasks(mteb):
    beir = task_names(mteb, "BEIR")
    colbert_tasks = set(scored_tasks("BEIR", COLBERT, dimensions=None))
    assert len(colbert_tasks) == 13
    assert colbert_tasks == beir - {"CQADupstackRetrieval", "MSMARCO"}
    for model in (BASE, SMALL):
        assert set(scored_tasks("BEIR", model)) == beir
    # The results repository lacks four BEIR tasks for v4; the hard-negative variants belong to MTEB(eng, v2).
    assert beir - set(scored_tasks("BEIR", V4)) == {"FEVER", "HotpotQA", "MSMARCO", "CQADupstackRetrieval"}
    assert len(scored_tasks("CQADupstack", V4)) == 12


def test_means_without_task_scores():
    page = {(mean.benchmark, mean.vectors): mean.value for mean in PUBLISHED.means if mean.model == M0}
    assert page == {
        ("BEIR", "rerank"): 58.95,
        ("MIRACL", "rerank"): 66.75,
        ("MLDR", "rerank"): 59.83,
        ("CoIR", "rerank"): 63.55,
        ("ViDoRe(v1)", "rerank"): 91.02,
    }
    assert [t.value for t in targets_for("Winoground", model=M0)] == [43.92]
    assert [(t.task, t.value) for t in PUBLISHED.targets if t.benchmark == "Negation"] == [
        ("EasyNegation", 98.2),
        ("HardNegation", 65.4),
    ]
    assert {m.vectors: m.value for m in means_for("BEIR", model="jinaai/jina-embeddings-v3")} == {"dense": 55.81}


def test_colbert_languages_and_dimensions():
    assert len(targets_for("MIRACLRetrieval", model=COLBERT)) == 18
    assert len(targets_for("mMARCO", model=COLBERT)) == 13
    by_dimensions = {t.dimensions: t.value for t in targets_for("MSMARCO", model=COLBERT)}
    assert by_dimensions == {None: 39.6, 128: 39.6, 96: 39.1, 64: 38.8}
    for dimensions in (128, 96, 64):
        assert len(scored_tasks("BEIR", COLBERT, dimensions=dimensions)) == 5


# Single scores, transcribed from the publications a second time

SCORES = [
    ("JinaVDRAirbnbSyntheticRetrieval", V4, "dense", "paper", 8.18),
    ("JinaVDRAirbnbSyntheticRetrieval", V4, "multi", "paper", 37.51),
    ("JinaVDRAirbnbSyntheticRetrieval", V4, "multi", "mteb", 37.34),
    ("JinaVDRAirbnbSyntheticRetrieval", COLQWEN, "multi", "mteb", 42.47),
    ("JinaVDRAirbnbSyntheticRetrieval", COLPALI, "multi", "mteb", 17.08),
    ("JinaVDRAirbnbSyntheticRetrieval", VOYAGE, "dense", "mteb", 4.81),
    ("JinaVDRStanfordSlideRetrieval", V4, "dense", "paper", 100),
    ("VidoreTatdqaRetrieval", V4, "dense", "paper", 65.35),
    ("VidoreTatdqaRetrieval", V4, "multi", "paper", 80.34),
    ("VidoreTatdqaRetrieval", V4, "multi", "mteb", 80.35),
    ("Vidore3ComputerScienceRetrieval", V4, "dense", "mteb", 61.48),
    ("Vidore3ComputerScienceRetrieval", V4, "multi", "mteb", 67.15),
    ("Vidore3TelecomRetrieval.v2", V4, "multi", "mteb", 57.42),
    ("Vidore2ESGReportsHLRetrieval", TOMORO, "multi", "mteb", 74.65),
    ("Touche2020Retrieval.v3", LARGE, "dense", "mteb", 62.34),
    ("LEMBWikimQARetrieval", V4, "dense", "paper", 85.08),
    ("LEMBPasskeyRetrieval", V4, "dense", "mteb", 100),
    ("SyntheticText2SQL", V4, "dense", "mteb", 70.45),
    ("STSBenchmark", V4, "dense", "mteb", 88.58),
    ("CQADupstackWordpressRetrieval", V4, "dense", "mteb", 33.18),
    ("NQ", COLBERT, "multi", "paper", 64.0),
    ("Touche2020", "BM25", "sparse", "paper", 36.7),
    ("STSB", SMALL, "dense", "mteb", -1.63),
    ("Touche2020Retrieval.v3", BASE, "dense", "mteb", 58.86),
]


@pytest.mark.parametrize(("task", "model", "vectors", "loader", "value"), SCORES)
def test_score_matches_its_publication(task, model, vectors, loader, value):
    result = targets_for(task, model=model, vectors=vectors, loader=loader)
    assert value in [target.value for target in result]
    assert {target.dimensions for target in result if target.value != value} <= {128, 96, 64}


# Means

MEANS = [
    ("JinaVDR", V4, "dense", "paper", 73.98),
    ("JinaVDR", V4, "multi", "paper", 80.55),
    ("JinaVDR", V4, "multi", "mteb", 80.98),
    ("JinaVDR", COLQWEN, "multi", "mteb", 75.60),
    ("JinaVDR", VOYAGE, "dense", "mteb", 69.52),
    ("JinaVDR", COLPALI, "multi", "mteb", 66.14),
    ("ViDoRe(v1)", V4, "dense", "paper", 84.11),
    ("ViDoRe(v1)", V4, "multi", "paper", 90.17),
    *(
        (benchmark, model, "multi", "mteb", value)
        for benchmark, values in {
            "ViDoRe(v1)": (90.35, 89.54, 84.75, 90.58),
            "ViDoRe(v2)": (58.23, 60.06, 54.72, 64.69),
            "ViDoRe(v3)": (56.99, 52.45, 42.95, 60.16),
        }.items()
        for model, value in zip((V4, COLQWEN, COLPALI, TOMORO), values, strict=True)
    ),
    ("ViDoRe(v3)", V4, "dense", "mteb", 49.61),
    ("CLIP benchmark", V4, "dense", "paper", 84.11),
    ("LongEmbed", V4, "dense", "paper", 67.11),
    ("CoIR", V4, "dense", "mteb", 71.59),
    ("STS", V4, "dense", "mteb", 85.89),
    ("MTEB(eng, v2)", LARGE, "dense", "mteb", 47.52),
    ("BEIR", COLBERT, "multi", "paper", 53.1),
    ("BEIR", "jinaai/jina-colbert-v1-en", "multi", "paper", 50.2),
    ("BEIR", "colbert-ir/colbertv2.0", "multi", "paper", 49.6),
    ("BEIR", "BM25", "sparse", "paper", 44.0),
    ("mMARCO", COLBERT, "multi", "paper", 31.3),
]
DISAGREEING_MEANS = [
    # benchmark, model, vectors, published mean, mean of the averaged scores
    ("JinaVDR", V4, "dense", 75.47, 73.98),
    ("JinaVDR", V4, "multi", 81.52, 80.55),
    ("MTEB(eng, v2)", V4, "dense", 55.97, 55.91),
    ("MIRACL", COLBERT, "multi", 62.7, 62.3),
    ("CQADupstack", BASE, "dense", 36.77, 37.57),
    ("CQADupstack", SMALL, "dense", 32.9, 33.72),
]


@pytest.mark.parametrize(("collection", "model", "vectors", "loader", "value"), MEANS)
def test_published_mean_is_the_mean_of_its_scores(collection, model, vectors, loader, value):
    result = means_for(collection, model=model, vectors=vectors, loader=loader)
    (mean,) = [m for m in result if m.value == value]
    assert mean.agrees
    rows = PUBLISHED.rows(mean)
    assert len(rows) == mean.count
    # The published mean has `decimals` decimals; a trailing five may be rounded up or down.
    assert fmean(row.value for row in rows) == pytest.approx(value, abs=0.5 * 10**-mean.decimals + 1e-9)
    assert {(row.model, row.vectors, row.loader, row.measure) for row in rows} == {
        (mean.model, mean.vectors, mean.loader, mean.measure)
    }


def test_colbert_means_per_dimension():
    result = {m.dimensions: m for m in means_for("BEIR", model=COLBERT) if m.dimensions}
    assert {size: mean.value for size, mean in result.items()} == {128: 59.9, 96: 59.1, 64: 58.9}
    for mean in result.values():
        rows = PUBLISHED.rows(mean)
        assert len(rows) == 5
        assert fmean(row.value for row in rows) == pytest.approx(mean.value, abs=0.05 + 1e-9)


@pytest.mark.parametrize(("collection", "model", "vectors", "published_value", "mean_of_rows"), DISAGREEING_MEANS)
def test_disagreeing_mean_is_marked_and_explained(collection, model, vectors, published_value, mean_of_rows):
    (mean,) = [m for m in means_for(collection, model=model, vectors=vectors) if m.value == published_value]
    assert mean.agrees is False
    calculated_mean = fmean(row.value for row in PUBLISHED.rows(mean))
    assert round(calculated_mean, mean.decimals) == mean_of_rows
    assert abs(calculated_mean - published_value) > 0.5 * 10**-mean.decimals
    assert str(mean_of_rows) in mean.note


def test_every_mean_with_scores_is_tested():
    with_rows = [m for m in PUBLISHED.means if m.table]
    assert all(PUBLISHED.rows(m) for m in with_rows)
    assert sum(m.agrees is True for m in with_rows) == len(MEANS) + 3  # plus three dimensions of colbert-v2
    assert sum(m.agrees is False for m in with_rows) == len(DISAGREEING_MEANS)
    assert all(m.agrees is None for m in PUBLISHED.means if not m.table)
    assert all(not PUBLISHED.rows(m) for m in PUBLISHED.means if not m.table)


def test_coir_mean_covers_nine_tasks_and_notes_the_mean_of_ten():
    (mean,) = means_for("CoIR", model=V4)
    everything = [t.value for t in PUBLISHED.targets if t.table == mean.table]
    assert len(everything) == 10
    assert f"{fmean(everything):.2f}" == "72.84"
    assert "72.84" in mean.note
    assert "COIRCodeSearchNetRetrieval" in mean.of
    assert "COIRCodeSearchNetRetrieval" not in mean.tasks


def test_vidore_v3_mean_excludes_nuclear_and_telecom(mteb):
    (mean,) = means_for("ViDoRe(v3)", model=V4, vectors="multi")
    private_tasks = task_names(mteb, "ViDoRe(v3)") - set(mean.tasks)
    assert private_tasks == {"Vidore3NuclearRetrieval", "Vidore3TelecomRetrieval"}


# Consistency of all entries


def test_task_names_match_mteb(mteb, tasks):
    assert {t.task for t in PUBLISHED.targets if t.in_mteb} == tasks.keys()
    other_tasks = {t.task for t in PUBLISHED.targets if not t.in_mteb}
    assert other_tasks == {
        *("flickr30k", "mscoco", "crossmodal3600", "xtd10"),
        *("Flickr30k", "COCO", "CIFAR", "mMARCO", "EasyNegation", "HardNegation"),
    }


def test_mteb_results_use_the_main_score_of_mteb(tasks):
    results = [t for t in PUBLISHED.targets if t.kind == "results"]
    assert len(results) > 300
    other_measures = {t.task: t.measure for t in results if MEASURES[t.measure] != tasks[t.task]}
    assert not other_measures


def test_scores_are_unique():
    def key(t):
        return (t.task, t.model, t.vectors, t.measure, t.loader, t.kind, t.language, t.dimensions, t.setting)

    assert [k for k, n in Counter(map(key, PUBLISHED.targets)).items() if n > 1] == []

    def mean_key(m):
        return (m.benchmark, m.model, m.vectors, m.measure, m.loader, m.kind, m.dimensions, m.setting)

    assert [k for k, n in Counter(map(mean_key, PUBLISHED.means)).items() if n > 1] == []


def test_values_are_percentage_points_with_a_source():
    for entry in (*PUBLISHED.targets, *PUBLISHED.means):
        assert entry.source.strip()
        assert entry.loader in ("mteb", "paper")
        # STSB has negative Spearman correlations: an English model on Chinese pairs.
        assert 0 < entry.value <= 100 or entry.task == "STSB"
        assert round(entry.value, 2) == entry.value, "at most two decimals"
        assert entry.tolerance == (2.0 if getattr(entry, "task", "") == "JinaVDRDonutVQAISynHMPRetrieval" else 0.5)
    assert all(t.loader == "mteb" for t in PUBLISHED.targets if t.kind == "results")
    pages = [t for t in PUBLISHED.targets if t.model == V4 and t.benchmark.startswith(("JinaVDR", "ViDoRe"))]
    assert {t.max_pixels for t in pages if t.loader == "mteb"} == {37_788_800}
    assert all(t.revision for t in pages if t.loader == "mteb")


def test_correlations_have_no_query_count():
    assert all(t.queries is None for t in PUBLISHED.targets if t.measure == "Spearman")
    assert all(t.queries for t in PUBLISHED.targets if t.benchmark == "JinaVDR")


# Conversion between loaders


@pytest.mark.parametrize("task", TASKS_WITH_EMPTY_QUERY)
def test_paper_counts_one_query_more_than_mteb(task):
    (paper,) = targets_for(task, model=V4, vectors="multi", loader="paper")
    (mteb,) = targets_for(task, model=V4, vectors="multi", loader="mteb")
    assert (paper.queries, paper.empty_queries) == (mteb.queries + 1, 1)
    assert mteb.empty_queries == 0
    # Both scores are published with two decimals.
    assert mteb_from_paper(paper.value, paper.queries) == pytest.approx(mteb.value, abs=0.0105)
    assert paper_from_mteb(mteb.value, paper.queries) == pytest.approx(paper.value, abs=0.0105)
    assert abs(paper.value - mteb.value) > 0.5, "without conversion, the difference exceeds the tolerance"


def test_empty_queries_occur_only_in_listed_tasks():
    tasks_with_empty_query = {t.task for t in PUBLISHED.targets if t.empty_queries}
    assert tasks_with_empty_query == set(TASKS_WITH_EMPTY_QUERY)
    assert all(t.loader == "paper" for t in PUBLISHED.targets if t.empty_queries)


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_conversion_accounts_for_one_empty_query(scores):
    with_empty = [*scores, 0.0]
    n = len(with_empty)
    assert paper_from_mteb(100 * fmean(scores), n) == pytest.approx(100 * fmean(with_empty))
    assert mteb_from_paper(100 * fmean(with_empty), n) == pytest.approx(100 * fmean(scores))


def test_conversion_requires_at_least_two_queries():
    for convert in (paper_from_mteb, mteb_from_paper):
        with pytest.raises(InvalidInputError, match="includes the empty query"):
            convert(50.0, 1)


# Comparisons


@pytest.mark.parametrize("task", TASKS_WITH_EMPTY_QUERY)
def test_value_is_compared_with_the_score_of_its_loader(task):
    (paper,) = targets_for(task, model=V4, vectors="multi", loader="paper")
    (mteb,) = targets_for(task, model=V4, vectors="multi", loader="mteb")
    with_mteb = compare(task, V4, "multi", mteb.value, mteb.queries, "mteb")
    with_paper = compare(task, V4, "multi", mteb.value, paper.queries, "paper")
    assert (with_mteb.target, with_mteb.difference) == (mteb, 0)
    assert with_paper.target == paper
    assert with_paper.difference == pytest.approx(mteb.value - paper.value)
    assert "data read by mteb" in with_mteb.source
    assert "authors' program" in with_paper.source


def test_score_of_the_other_loader_is_not_used():
    assert compare("JinaVDRArxivQARetrieval", V4, "dense", 95.44, 29, "mteb") is None
    assert compare("JinaVDRArxivQARetrieval", V4, "dense", 95.44, 30, "paper").within
    assert compare("JinaVDRArxivQARetrieval", "some/model", "multi", 95.44, 29, "mteb") is None
    assert compare("NoSuchTask", V4, "multi", 95.44, 29, "mteb") is None


@pytest.mark.parametrize(
    ("task", "n", "tolerance"),
    [
        ("JinaVDRChartQARetrieval", 996, 0.5),
        ("JinaVDRStanfordSlideRetrieval", 13, 100 / 13),
        ("JinaVDRDonutVQAISynHMPRetrieval", 704, 2.0),
        ("JinaVDRDonutVQAISynHMPRetrieval", 20, 5.0),
    ],
)
def test_tolerance_is_the_largest_of_three_limits(task, n, tolerance):
    (target,) = targets_for(task, model=V4, vectors="multi", loader="mteb")
    for sign in (1, -1):
        result = compare(task, V4, "multi", min(100, target.value - sign * tolerance), n, "mteb")
        assert result.tolerance == pytest.approx(tolerance)
        assert result.within
    outside_result = compare(task, V4, "multi", target.value - tolerance - 0.01, n, "mteb")
    assert not outside_result.within
    assert outside_result.difference == pytest.approx(-tolerance - 0.01)
    assert "outside" in str(outside_result)


def test_results_repository_takes_precedence_over_papers():
    kinds = [t.kind for t in targets_for("ArguAna", model=V4, loader="mteb")]
    assert sorted(kinds) == ["paper", "results"]
    result = compare("ArguAna", V4, "dense", 67.0, 1406, "mteb")
    assert (result.target.kind, result.target.value) == ("results", 66.96)


def test_language_and_dimensions_must_match():
    assert compare("MIRACLRetrieval", COLBERT, "multi", 50.4, 305, "paper") is None
    assert compare("MIRACLRetrieval", COLBERT, "multi", 50.4, 305, "paper", language="de").target.value == 50.4
    assert compare("NFCorpus", COLBERT, "multi", 34.7, 323, "paper").target.value == 34.6
    by_dimensions = compare("NFCorpus", COLBERT, "multi", 34.7, 323, "paper", dimensions=64)
    assert (by_dimensions.target.value, by_dimensions.difference) == (34.7, 0)
    assert "64 dimensions" in by_dimensions.source
    assert compare("MSMARCO", COLBERT, "multi", 39.6, 6980, "paper", measure="nDCG@10") is None


def test_comparison_source_sentence():
    result = compare("JinaVDRDocVQARetrieval", V4, "multi", 95.0, 38, "mteb")
    assert result.source == (
        "Published: 95.43 nDCG@5 (mteb results repository (github.com/embeddings-benchmark/results); revision "
        "26239889730c735ed7e9a4db9180c8935faf4ba0; at most 37,788,800 pixels per page; data read by mteb)."
    )
    assert str(result) == "95.00, -0.43 from 95.43, within ±2.63"
    empty = compare("JinaVDRDocVQARetrieval", V4, "multi", 95.0, 39, "paper")
    assert empty.source.endswith("One query is empty and scores 0; mteb omits it.")


def test_compare_mean_selects_the_matching_mean():
    result = compare_mean("JinaVDR", V4, "multi", 80.6, "mteb")
    assert (result.target.value, result.within) == (80.98, True)
    assert compare_mean("JinaVDR", V4, "multi", 80.6, "paper").target.value == 80.55
    assert compare_mean("JinaVDR", V4, "dense", 73.0, "mteb") is None
    assert "mean of the 43 tasks" in result.source
    assert compare_mean("BEIR", M0, "rerank", 58.5, "paper").target.value == 58.95
    # Means over other tasks are not used.
    public_tasks = [
        t for t in scored_tasks("ViDoRe(v3)", V4, vectors="multi") if "Nuclear" not in t and "Telecom" not in t
    ]
    assert compare_mean("ViDoRe(v3)", V4, "multi", 57.0, "mteb", tasks=public_tasks).target.value == 56.99
    all_tasks = scored_tasks("ViDoRe(v3)", V4, vectors="multi")
    assert compare_mean("ViDoRe(v3)", V4, "multi", 57.0, "mteb", tasks=all_tasks) is None
    assert compare_mean("BEIR", COLBERT, "multi", 59.0, "paper", dimensions=64).target.value == 58.9


@pytest.mark.parametrize("value", [101.0, -101.0, float("nan")])
def test_value_outside_percentage_points_raises_invalid_input(value):
    with pytest.raises(InvalidInputError, match="percentage points"):
        compare("NQ", V4, "dense", value, 3452, "mteb")
    with pytest.raises(InvalidInputError, match="percentage points"):
        compare_mean("JinaVDR", V4, "multi", value, "mteb")


def test_perfect_score_may_exceed_100_by_rounding():
    assert compare("NQ", V4, "dense", 100 * (0.1 + 0.2) / 0.3, 3452, "mteb").value > 100


def test_zero_queries_raise_invalid_input():
    with pytest.raises(InvalidInputError, match="at least 1"):
        compare("NQ", V4, "dense", 61.0, 0, "mteb")


# Custom score files

ROW = {"task": "Mine", "value": 40.0}
TABLE = {
    "id": "mine",
    "benchmark": "Own",
    "model": "own/model",
    "vectors": "dense",
    "measure": "nDCG@5",
    "kind": "paper",
    "loader": "mteb",
    "source": "own paper",
    "queries": 10,
}


def write_targets(tmp_path, table, rows, means=()):
    path = tmp_path / "targets.json"
    path.write_text(json.dumps({"tables": [{**table, "rows": list(rows)}], "means": list(means)}))
    return path


def test_load_targets_from_another_file(tmp_path):
    scores = load_targets(write_targets(tmp_path, TABLE, [ROW, {**ROW, "task": "Other", "queries": 20}]))
    assert [(t.task, t.queries, t.source) for t in scores.targets] == [
        ("Mine", 10, "own paper"),
        ("Other", 20, "own paper"),
    ]
    result = compare("Mine", "own/model", "dense", 45.0, 10, "mteb", published=scores)
    assert (result.difference, result.within) == (5.0, True)
    assert compare("NQ", V4, "dense", 61.0, 3452, "mteb", published=scores) is None


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ({}, {"value": 140.0}, "from -100 to 100"),
        ({}, {"value": "40"}, "from -100 to 100"),
        ({"loader": "other"}, {}, "loader is 'other'; expected one of mteb, paper"),
        ({"vectors": "late"}, {}, "vectors is 'late'; expected one of"),
        ({"kind": "blog"}, {}, "kind is 'blog'; expected one of"),
        ({"source": ""}, {}, "source is empty"),
        ({}, {"colour": "red"}, "Target has no field colour"),
    ],
)
def test_invalid_entry_is_named_in_the_error(tmp_path, table, row, message):
    with pytest.raises(InvalidInputError, match=message) as error:
        load_targets(write_targets(tmp_path, {**TABLE, **table}, [{**ROW, **row}]))
    assert "targets.json, mine, Mine" in str(error.value)


def test_invalid_targets_file_raises_invalid_input(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_targets(tmp_path / "none.json")
    for content, message in [(b"{", "expected a JSON object"), (b"[]", "expected"), (b"\xff\xfe\xff", "not UTF-8")]:
        path = tmp_path / "bad.json"
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=message):
            load_targets(path)
    incomplete = {k: v for k, v in TABLE.items() if k != "model"}
    with pytest.raises(InvalidInputError, match="model"):
        load_targets(write_targets(tmp_path, incomplete, [ROW]))
    with pytest.raises(InvalidInputError, match="Mean has no field extra"):
        load_targets(write_targets(tmp_path, TABLE, [ROW], means=[{"benchmark": "Own", "extra": 1}]))
