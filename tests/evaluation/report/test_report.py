"""Reports of an evaluation: conclusions, plots, HTML, page images, Markdown tables and escaping of hostile text."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import re
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jina_rag._display import displayed
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.report import (
    findings,
    formatting,
    html,
    markdown,
    page_images,
    plots,
    queries,
    write_html,
)
from jina_rag.evaluation.report.page_images import Bounds
from jina_rag.evaluation.results import Evaluation, PairedComparison, QueryResult, SettingResult
from jina_rag.evaluation.significance import Difference, difference
from jina_rag.images import _jpeg
from jina_rag.testing import sample_pdf
from jina_rag.types import Failure

EVIL = "\"'><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>|`{{ 7 * 7 }}\u202egpj.exe"
QUERIES = 12


def setting(
    name: str, ranks: list[int | None], *, images=None, milliseconds=20.0, size=1000, **fields
) -> SettingResult:
    """A setting whose i-th query has its relevant page at ``ranks[i]``; other pages are of the same document."""
    results = []
    for position, rank in enumerate(ranks):
        pages = [("report", 100 + n) for n in range(5)]
        if rank is not None:
            pages[rank - 1] = ("report", position % 2 + 1)
        results.append(
            QueryResult(
                query_id=f"q{position:02d}",
                ranking=tuple(pages),
                measures={
                    "nDCG@5": 0.0 if rank is None else 1 / float(np.log2(rank + 1)),
                    "Recall@1": float(rank == 1),
                    "Recall@5": float(rank is not None),
                },
                milliseconds=milliseconds + position % 3,
                unjudged={5: 5 - (rank is not None)},
                scores=tuple(0.9 - 0.1 * n for n in range(5)),
                images=tuple((images or {}).get(page) for page in pages),
            )
        )
    values = {name: [result.measures[name] for result in results] for name in results[0].measures}
    mean = {name: float(np.mean(column)) for name, column in values.items()}
    kinds = {"text": results[0::2], "table": results[1::2]}
    defaults = {
        "name": name,
        "setting": {"embedder": "fake", "storage": name},
        "fingerprint": "fake@1",
        "queries": len(results),
        "measures": mean,
        "intervals": {name: (max(0.0, value - 0.1), min(1.0, value + 0.1)) for name, value in mean.items()},
        "by": {
            "modality": {
                kind: {"queries": len(group), "nDCG@5": float(np.mean([r.measures["nDCG@5"] for r in group]))}
                for kind, group in kinds.items()
                if group
            },
            "language": {"same": {"queries": len(results), "nDCG@5": mean["nDCG@5"]}},
        },
        "per_query": tuple(results),
        "latency": {"p50": milliseconds, "p90": milliseconds * 2, "p99": milliseconds * 3, "mean": milliseconds + 1},
        "pages": 10,
        "bytes": {"vectors: multi": size * 10, "images": 10**9},
        "index_seconds": 3.0,
        "unjudged": {5: 4.5},
    }
    return SettingResult(**{**defaults, **fields})


def evaluation(*settings: SettingResult, **fields) -> Evaluation:
    def values(setting_result, name):
        return {result.query_id: result.measures[name] for result in setting_result.per_query}

    defaults = {
        "folder": "judged",
        "data_hash": "ab" * 32,
        "command": "jina-rag evaluate judged --storage exact --storage compact",
        "versions": {"jina_rag": "1.2.3", "platform": "Linux"},
        "seed": 7,
        "settings": settings,
        "queries": {
            f"q{position:02d}": {
                "query": f"Query number {position}?",
                "modality": ("text", "table")[position % 2],
                "language": "same",
                "relevant": [["report", position % 2 + 1, 2]],
                "answer": "",
            }
            for position in range(QUERIES)
        },
        "seconds": 12.0,
        "when": "2026-03-01T10:00:00+00:00",
    }
    if "comparisons" not in fields:
        defaults["comparisons"] = tuple(
            PairedComparison(
                settings[0].name, other.name, name, difference(values(settings[0], name), values(other, name))
            )
            for other in settings[1:]
            for name in settings[0].measures
        )
    return Evaluation(**{**defaults, **fields})


GOOD: list[int | None] = [1] * QUERIES
BAD: list[int | None] = [3, None, 2, 4, None, 1, 2, 3, None, 2, 5, 2]


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> dict[str, Path]:
    return {
        "report": sample_pdf(tmp_path_factory.mktemp("documents") / "report.pdf", ["The first page.", "The second."])
    }


class ParsedPage(HTMLParser):
    """Tags and visible text of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open[-1:]):
            self.words += data

    @property
    def text(self) -> str:
        return " ".join(self.words.split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


# Conclusions


@pytest.mark.parametrize(
    ("outcome", "kind", "sentence"),
    [
        (Difference(0.03, 0.01, 0.052, 5, 1), "better", "B is better than A by 0.030 (0.010 to 0.052)."),
        (Difference(-0.03, -0.052, -0.01, 1, 5), "worse", "B is worse than A by 0.030 (0.010 to 0.052)."),
        (
            Difference(0.01, -0.02, 0.04, 3, 2),
            "open",
            "No significant difference between B and A: 0.020 worse to 0.040 better.",
        ),
        (Difference(0.0, 0.0, 0.0, 0, 0), "equal", "B and A are equal on every query."),
    ],
)
def test_verdict_follows_the_interval_of_the_difference(outcome, kind, sentence):
    verdict = findings.verdict(PairedComparison("A", "B", "nDCG@5", outcome), 10)
    assert (verdict.kind, verdict.sentence) == (kind, sentence)
    assert verdict.equal == 10 - outcome.better - outcome.worse


def test_verdict_is_open_if_the_interval_touches_zero():
    assert findings.verdict(PairedComparison("A", "B", "m", Difference(0.1, 0.0, 0.2, 2, 0)), 9).kind == "open"
    assert findings.verdict(PairedComparison("A", "B", "m", Difference(-0.1, -0.2, 0.0, 0, 2)), 9).kind == "open"


def test_best_requires_significance_against_every_other_setting():
    close = [*GOOD[:-1], 2]
    significant = findings.best(evaluation(setting("bad", BAD), setting("good", GOOD)))
    assert significant["nDCG@5"] == ("good",)
    not_significant = findings.best(evaluation(setting("bad", BAD), setting("good", GOOD), setting("close", close)))
    assert "nDCG@5" not in not_significant  # "good" is significantly better than "bad", but not than "close"
    assert "nDCG@5" not in findings.best(evaluation(setting("good", GOOD), setting("close", close)))
    assert findings.best(evaluation(setting("good", GOOD), setting("bad", BAD)))["nDCG@5"] == ("good",)
    assert findings.best(evaluation(setting("alone", GOOD))) == {}


def test_best_compares_all_pairs_of_settings():
    outcome = findings.best(evaluation(setting("a", BAD), setting("b", GOOD), setting("c", BAD)))
    assert outcome["nDCG@5"] == ("b",)


def test_best_compares_latency_by_query_and_bytes_by_size():
    slow, fast = setting("slow", GOOD, milliseconds=30), setting("fast", GOOD, size=5000)
    outcome = findings.best(evaluation(slow, fast, setting("slow too", GOOD, milliseconds=30, size=1030)))
    assert outcome["milliseconds"] == ("fast",)
    assert outcome["bytes"] == ("slow", "slow too")  # within 5 % of each other
    assert "bytes" not in findings.best(evaluation(slow, setting("as large", GOOD)))
    others = replace(
        fast, per_query=tuple(replace(result, query_id=result.query_id + "x") for result in fast.per_query)
    )
    assert "milliseconds" not in findings.best(evaluation(slow, others, comparisons=()))


def test_groups_have_means_and_intervals_of_their_queries():
    rows = findings.groups(evaluation(setting("bad", BAD), setting("good", GOOD)), "modality", "nDCG@5")
    assert {row.name: row.queries for row in rows} == {"text": 6, "table": 6}
    for row in rows:
        low, high = row.intervals[0]
        assert low < row.means[0] < high
        assert row.intervals[1] == (1.0, 1.0)
    language = findings.groups(evaluation(setting("bad", BAD)), "language", "nDCG@5")
    assert [row.name for row in language] == ["same language"]


def test_group_without_query_metadata_has_no_interval():
    unknown = evaluation(setting("bad", BAD), queries={})
    assert all(row.intervals == (None,) for row in findings.groups(unknown, "modality", "nDCG@5"))


def test_caution_reports_query_count_interval_and_unjudged_pages():
    text = findings.caution(evaluation(setting("bad", BAD), setting("good", GOOD)))
    assert "only 12 queries" in text
    assert "±0.10" in text
    assert "up to 11 of the queries, the first page is unjudged" in text
    assert "±" not in findings.caution(evaluation(setting("bad", BAD, intervals={})))
    unscored_setting = setting("u", [1])
    unscored_setting = replace(
        unscored_setting, measures={}, queries=0, per_query=(replace(unscored_setting.per_query[0], measures={}),)
    )
    assert "No query has relevance judgments" in findings.caution(evaluation(unscored_setting))


def test_headline_counts_queries_with_a_relevant_page():
    text = findings.headline(evaluation(setting("lite, compact", BAD)))
    assert text == (
        "With “lite, compact”, a relevant page ranks first for 1 of 12 queries (8%), "
        "and among the first five for 9 (75%)."
    )


# Queries


def test_rank_of_is_the_rank_of_the_first_relevant_page():
    query = queries.ReportQuery("q", "?", relevant={("a", 1): 1, ("a", 2): 2, ("a", 3): 2})
    assert queries.rank_of(QueryResult("q", (("a", 1), ("b", 1), ("b", 1), ("a", 3))), query) == 3
    assert queries.rank_of(QueryResult("q", (("a", 1),)), query) is None
    partly_relevant = queries.ReportQuery("q", "?", relevant={("a", 1): 1, ("a", 9): 0})
    assert queries.rank_of(QueryResult("q", (("a", 9), ("a", 1))), partly_relevant) == 2


def test_misses_are_sorted_by_score_without_perfect_queries():
    first, second = setting("a", BAD), setting("b", [1, 1, 1, 1, 1, 1, 1, 1, None, 1, 1, 1])
    outcome = queries.misses(evaluation(first, second), first, "nDCG@5", 50)
    assert len(outcome) == 11
    assert outcome[0].query.query_id == "q08"  # both settings fail on q08
    assert {miss.query.query_id for miss in outcome[1:3]} == {"q01", "q04"}
    assert [miss.measure for miss in outcome] == sorted(miss.measure for miss in outcome)
    assert [(one.setting, one.rank, one.depth) for one in outcome[0].settings] == [("a", None, 5), ("b", None, 5)]
    assert len(queries.misses(evaluation(first), first, "nDCG@5", 3)) == 3


def test_repeated_page_keeps_its_first_score():
    result = QueryResult("q00", (("x", 1), ("x", 1), ("report", 1)), {"nDCG@5": 0.5}, scores=(0.9, 0.8, 0.7))
    single = replace(setting("a", [1]), per_query=(result,))
    retrieved = queries.misses(evaluation(single), single, "nDCG@5", 1)[0].retrieved
    assert [(page.page, page.rank, page.score, page.grade) for page in retrieved] == [
        (("x", 1), 1, 0.9, None),
        (("report", 1), 2, 0.7, 2),
    ]


# Formatting


def test_displayed_escapes_control_characters():
    assert displayed("a\u202eb\nc\td\u2066\x00\udcff") == "a\\u202eb\\nc d\\u2066\\x00\\udcff"
    readable = "السؤال ‏שאלה می‌خواهم 漢字 ¿qué?"
    assert displayed(readable) == readable


def test_formatting_of_numbers_units_and_times():
    assert [formatting.size(v) for v in (0, 820, 999.6, 12_345, 123_456, 1_400_000, 2e9)] == [
        "0 B", "820 B", "1.0 kB", "12.3 kB", "123 kB", "1.4 MB", "2.0 GB",
    ]  # fmt: skip
    assert [formatting.milliseconds(v) for v in (0.42, 31.4, 999.7, 2100)] == ["0.4 ms", "31 ms", "1.0 s", "2.1 s"]
    assert [formatting.seconds(v) for v in (0.4, 75, 7500)] == ["0.4 s", "1 min 15 s", "2 h 5 min"]
    assert [formatting.signed(v) for v in (0.03, -0.03, 0.0001, -0.0001)] == ["+0.030", "−0.030", "0.000", "0.000"]
    assert formatting.timestamp("2026-03-01T10:00:00+02:00") == "2026-03-01 08:00 UTC"
    assert formatting.timestamp("2026-03-01T10:00:00") == "2026-03-01 10:00"
    assert formatting.timestamp("last week") == "last week"
    assert formatting.join_names(["a", "b", "c"]) == "a, b and c"
    assert formatting.number(float("nan")) == "–"


# Plots


def parse_svg(markup) -> ET.Element:
    return ET.fromstring(str(markup))


def texts_of(element) -> list[str | None]:
    return [text.text for text in element.iter("text")]


def test_plots_have_titles_and_style_sheet_colors():
    settings = [setting(name, BAD, size=1000 * (n + 1)) for n, name in enumerate("abc")]
    (_, by_size), (caption, by_latency) = plots.cost_plots(settings, "nDCG@5")
    assert caption.startswith("Quality against latency")
    element = parse_svg(by_size)
    assert [child.tag for child in element[:2]] == ["title", "desc"]
    assert element.get("aria-labelledby") == f"{element[0].get('id')} {element[1].get('id')}"
    assert re.search(r"c: nDCG@5 0\.\d{3} at 3\.0 kB", element[1].text)
    assert "bytes per page (log scale)" in texts_of(element)
    assert "search latency, p50 with a line to p90 (log scale)" in texts_of(parse_svg(by_latency))
    styles = " ".join(part.get("style", "") for part in element.iter())
    assert not re.search("#[0-9a-f]{6}", styles)
    assert {"var(--s0)", "var(--s1)", "var(--s2)", "var(--ink)"} - set(re.findall(r"var\(--\w+\)", styles)) <= {
        "var(--ink)"
    }
    assert "font-family" not in styles
    assert all(part.get("href").startswith("#") for part in element.iter("use"))


def test_plots_have_unique_ids_and_are_deterministic():
    settings = [setting("a", BAD), setting("b", GOOD)]
    first, second = (str(plot) for _, plot in plots.cost_plots(settings, "nDCG@5"))
    assert not set(re.findall(r' id="([^"]+)"', first)) & set(re.findall(r' id="([^"]+)"', second))
    assert first == str(plots.cost_plots(settings, "nDCG@5")[0][1])


def test_markers_and_colors_distinguish_56_settings():
    assert len({plots._color_and_marker(index) for index in range(56)}) == 56
    assert len({plots.key(index) for index in range(56)}) == 56


def test_group_bars_show_values_counts_and_descriptions():
    rows = [
        findings.GroupRow("table", 39, (0.5, 0.25), ((0.4, 0.6), None)),
        findings.GroupRow(EVIL, 3, (0, 1), (None,) * 2),
    ]
    element = parse_svg(plots.group_bars(rows, ["a", "b"], kind="modality", measure="nDCG@5"))
    texts = texts_of(element)
    assert "n = 39" in texts
    assert "n = 3, few" in texts
    assert texts.count("0.500") == 1
    assert any(text.startswith("\"'><script>") and text.endswith("…") for text in texts)
    assert f"{displayed(EVIL)} (3): a 0.000, b 1.000" in element[1].text


def test_plots_show_math_and_escape_characters_as_text():
    rows = [
        findings.GroupRow("$x^2$ \\frac", 39, (0.5,), (None,)),
        findings.GroupRow("漢字\u202e", 39, (0.5,), (None,)),
    ]
    texts = texts_of(parse_svg(plots.group_bars(rows, ["a"], kind="modality", measure="nDCG@5")))
    assert "$x^2$ \\frac" in texts
    assert "漢字\\u202e" in texts


@given(
    st.lists(st.tuples(st.floats(0.2, 1e9), st.floats(0, 1)), min_size=1, max_size=4),
)
@settings(max_examples=8)
def test_plot_axes_contain_all_values(points):
    setting_results = [
        setting(f"s{n}", [1], size=size, measures={"nDCG@5": value}, intervals={"nDCG@5": (0.0, value)})
        for n, (size, value) in enumerate(points)
    ]
    element = parse_svg(plots.cost_plots(setting_results, "nDCG@5")[0][1])
    right = float(element.get("viewBox").split()[2])
    assert all(0 <= float(mark.get("x")) <= right for mark in element.iter("use"))
    assert len([text for text in texts_of(element) if text.endswith("B")]) >= 2


def test_plots_restore_matplotlib_settings():
    import matplotlib

    params = dict(matplotlib.rcParams)
    plots.cost_plots([setting("a", BAD)], "nDCG@5")
    assert dict(matplotlib.rcParams) == params
    code = "import sys; from jina_rag.evaluation.report import plots, html; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_report_without_matplotlib_has_tables_and_an_install_hint(documents, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = html.render(evaluation(setting("a", BAD), setting("b", GOOD)), documents=documents, failures=1)
    page = ParsedPage(text)
    assert not page.all("svg")
    assert page.text.count("The report has no plots. The package 'matplotlib' is") == 1
    assert 'pip install "jina-rag[eval]"' in page.text
    for expected in ("Paired differences between settings", "By query group", "same language", "All queries"):
        assert expected in page.text
    assert "Quality and cost" not in page.text


# The HTML page


def test_report_shows_results_and_provenance(documents):
    report = evaluation(setting("exact", BAD, milliseconds=30), setting("compact", GOOD, size=200))
    page = ParsedPage(html.render(report, documents=documents))
    for expected in (
        "With exact, the first setting, a relevant page ranks first for 1 of 12 queries (8%)",
        "compact is better than exact by",
        "only 12 queries",
        "ab" * 32,
        "jina-rag evaluate judged --storage exact --storage compact",
        "2026-03-01 10:00 UTC, took 12.0 s",
        "seed 7",
        "jina_rag 1.2.3, platform Linux",
        "Vectors of exact and compact: fake@1",
        "All files and pages were indexed.",
        "Better by",
        "unjudged: may be relevant",
        "no relevant page among the first 5",
        "Rank of the first relevant page:",
    ):
        assert expected in page.text, expected
    assert page.text.count("★") == 4  # in explanations only; the style sheet draws the stars of cells
    best_columns = [attrs.get("data-label") for attrs in page.all("td") if "top" in (attrs.get("class") or "").split()]
    assert sorted(best_columns) == ["Recall@1", "bytes per page", "latency p50 / p90", "nDCG@5"]
    assert [attrs.get("class") for attrs in page.all("svg")] == ["plot"] * 4
    assert len([attrs for attrs in page.all("span") if (attrs.get("class") or "").startswith("forest ")]) == 3
    identifiers = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))
    anchors = {attrs["href"] for attrs in page.all("a")}
    assert anchors <= {f"#{name}" for name in identifiers}
    assert len(anchors) == 7


def test_report_lists_all_queries_with_sort_values(documents):
    report = evaluation(setting("a", BAD), setting("b", GOOD[:-1]), comparisons=())
    page = ParsedPage(html.render(report, documents=documents, failures=0))
    rows = page.text[page.text.index("All queries") :]
    assert all(f"Query number {position}?" in rows for position in range(QUERIES))
    values = [attrs["data-value"] for attrs in page.all("td") if "data-value" in attrs]
    assert len(values) == QUERIES * 6
    assert values[:2] == ["0.5", "3"]
    assert values[7] == "1000000"  # query 1 of setting a: a page that was not found sorts last
    assert values[-3:] == ["", "", ""]  # setting b has no result for the last query
    assert "Every query has the maximum nDCG@5 with a, or the option --failures is 0." in page.text


def test_report_escapes_hostile_text(documents, tmp_path):
    hostile = replace(setting(EVIL, BAD), setting={EVIL: EVIL}, failed=(Failure(Path("x") / EVIL[:60], EVIL, 3),))
    per_query = tuple(replace(r, ranking=((EVIL, 1), *r.ranking[1:]), notes=(EVIL,)) for r in hostile.per_query)
    entry = {"query": EVIL, "modality": EVIL, "language": EVIL, "answer": EVIL, "relevant": [[EVIL, 2, 2]]}
    hostile = replace(
        hostile,
        fingerprint=EVIL,
        per_query=per_query,
        by={"modality": {EVIL: {"queries": 12, "nDCG@5": 0.4}}, "language": {EVIL: {"queries": 12, "nDCG@5": 0.4}}},
    )
    report = evaluation(
        hostile,
        replace(hostile, name=EVIL + "2"),
        folder=EVIL,
        data_hash=EVIL,
        command=EVIL,
        when=EVIL,
        versions={EVIL: EVIL},
        queries={f"q{position:02d}": entry for position in range(QUERIES)},
    )
    text = html.render(report, documents={**documents, EVIL: documents["report"]})
    page = ParsedPage(text)
    assert len(page.all("script")) == 1
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert {attrs.get("src", "")[:23] for attrs in page.all("img")} == {"data:image/jpeg;base64,"}
    assert "\u202e" not in text
    assert "49" not in page.text
    assert displayed(EVIL).replace("  ", " ") in page.text
    for name, _attrs in page.tags:
        assert name not in {"evil", "x"}
    table = markdown(report)
    assert "\u202e" not in table
    assert not re.search(r"(?<!\\)<", table.replace(displayed(EVIL), ""))


def test_report_policy_forbids_requests_and_other_scripts(documents):
    text = html.render(evaluation(setting("a", BAD), setting("b", GOOD)), documents=documents)
    page = ParsedPage(text)
    policies = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; ")
    assert f"script-src 'sha256-{digest}'" in policies[0]
    for tag in ("link", "iframe", "object", "embed", "video", "audio", "base", "form", "image", "source"):
        assert not page.all(tag)
    assert not page.all("script")[0]
    assert not re.search(r"url\(|@import|https?://", text.replace("http-equiv", ""))
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in page.tags)
    assert page.all("use")


def test_page_images_come_from_screenshots_or_documents(documents, tmp_path):
    screenshot = tmp_path / "screenshot.png"
    Image.new("RGB", (300, 200), (200, 30, 30)).save(screenshot)
    damaged_image = tmp_path / "damaged.png"
    damaged_image.write_bytes(b"\x89PNG\r\n\x1a\nno")
    images = {("report", 1): screenshot, ("report", 2): damaged_image, ("report", 101): tmp_path / "missing.png"}
    report = evaluation(setting("a", [2, 2, None, None], images=images))
    sizes = {page: html._LARGE for page in [("report", 1), ("report", 2), ("report", 101), ("other", 1)]}
    outcome = html.images(sizes, report, documents)
    first = decode_image(outcome["report", 1].uri)
    assert first.size == (300, 200)  # the size of the screenshot: images are never scaled up
    assert abs(first.getpixel((5, 5))[0] - 200) < 8
    second = decode_image(outcome["report", 2].uri)
    assert second.size == (584, 827)  # rendered from the file: 420 x 595 points at 100 dpi
    assert "Page 101 does not exist" in outcome["report", 101].reason
    assert outcome["other", 1].reason == "docs.jsonl of the judged folder does not list the document."


def decode_image(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def test_unreadable_document_loses_only_its_images(tmp_path):
    broken_pdf = tmp_path / "report.pdf"
    broken_pdf.write_bytes(b"%PDF-1.7 broken")
    page = ParsedPage(html.render(evaluation(setting("a", [None, None])), documents={"report": broken_pdf}))
    assert "No image: " in page.text
    assert not page.all("img")
    page_of_absent_pdf = ParsedPage(
        html.render(evaluation(setting("a", [None])), documents={"report": tmp_path / "absent.pdf"})
    )
    assert "absent.pdf' does not exist" in page_of_absent_pdf.text


def test_report_with_incompressible_images_stays_below_the_limit(tmp_path):
    noise = tmp_path / "noise.png"
    pixels = np.random.default_rng(7).integers(0, 256, (900, 640, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(noise, compress_level=1)
    results = tuple(
        QueryResult(
            f"q{position:02d}",
            tuple((f"d{position}", n) for n in range(5)),
            {"nDCG@5": 0.1},
            scores=(0.5,) * 5,
            images=(noise,) * 5,
        )
        for position in range(3)
    )
    entries = {f"q{n:02d}": {"query": "?", "relevant": [[f"d{n}", 3, 2], [f"d{n}", 4, 2]]} for n in range(3)}
    result = replace(setting("a", [1] * 3), per_query=results)
    path = tmp_path / "report.html"
    write_html(evaluation(result, queries=entries), path, documents={})
    content = path.read_text(encoding="utf-8")
    assert len(ParsedPage(content).all("img")) == 15
    assert 600_000 < path.stat().st_size < 0.3 * 8_000_000


def test_images_lose_quality_before_resolution():
    pixels = np.random.default_rng(7).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    max_bytes, min_bytes = (len(_jpeg(image, bound)) for bound in (10**9, 1))
    assert min_bytes < max_bytes
    full_size = page_images._encode(image, Bounds(620, (min_bytes + max_bytes) // 2))
    assert (full_size.width, full_size.height) == (400, 300)
    smaller = page_images._encode(image, Bounds(620, min_bytes // 3))
    assert smaller.width < 400
    assert len(smaller.uri) * 3 / 4 <= min_bytes // 3 + 40


def test_image_limits_scale_with_the_number_of_queries():
    assert html._LARGE.scale(1.0) == html._LARGE
    assert html._LARGE.scale(0.25) == Bounds(310, 25_000)
    assert html._MAX_QUERY_BYTES * 10 * 4 / 3 < 8_000_000
    smallest = Bounds(1, 1)
    assert html._LARGE.scale(0.0) == smallest


def test_report_lists_failed_files_and_notes_by_setting(documents):
    document_failure = Failure(Path("docs/locked.pdf"), "The document is encrypted.")
    page_failure = Failure(Path("docs/long.pdf"), "The page is damaged.", 7)
    first = setting("a", GOOD, failed=(document_failure, page_failure))
    with_notes = tuple(replace(r, notes=("The reranker exceeded its time limit.",)) for r in first.per_query[:2])
    first = replace(first, per_query=(*with_notes, *first.per_query[2:]))
    page = ParsedPage(html.render(evaluation(first, setting("b", GOOD, failed=first.failed[:1])), documents=documents))
    assert "locked.pdf: The document is encrypted. (every setting)" in page.text
    assert "long.pdf, page 7: The page is damaged. (a)" in page.text
    assert "a: The reranker exceeded its time limit. (2 queries)" in page.text
    assert "2 failures" in page.text


def test_queries_without_judgments_are_timed_but_not_scored(documents):
    scored_setting = setting("a", BAD)
    extra = QueryResult("free", (("report", 1),), milliseconds=12.3)
    report = evaluation(replace(scored_setting, per_query=(*scored_setting.per_query, extra)))
    page = ParsedPage(html.render(report, documents=documents, failures=1))
    assert "(plus 1 query without judgments: timed, not scored)" in page.text
    assert [attrs["data-value"] for attrs in page.all("td") if "data-value" in attrs][-3:] == ["", "", "12.3"]
    unscored_setting = replace(scored_setting, queries=0, measures={}, intervals={}, by={}, per_query=(extra,))
    unscored_page = ParsedPage(html.render(evaluation(unscored_setting), documents={}))
    assert "No query has relevance judgments, so no query has a score." in unscored_page.text
    assert not [attrs for attrs in unscored_page.all("svg") if attrs.get("class") == "plot"]


def test_report_of_untimed_settings_omits_latency(documents):
    report = evaluation(setting("a", BAD, latency={}, milliseconds=5), setting("b", GOOD, latency={}, milliseconds=9))
    page = ParsedPage(html.render(report, documents=documents, failures=0))
    assert page.text.count("not timed") == 2
    assert "Quality against size" in page.text
    assert "Quality against latency" not in page.text
    assert "milliseconds" not in findings.best(report)
    assert "| – |" in markdown(report)


def test_write_html_is_atomic_and_validates_its_input(documents, tmp_path):
    report = evaluation(setting("a", GOOD))
    path = tmp_path / "report.html"
    write_html(report, path, documents=documents)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InvalidInputError, match="The report cannot be written to"):
        write_html(report, tmp_path / "absent" / "report.html", documents=documents)
    with pytest.raises(InvalidInputError, match="no setting"):
        write_html(evaluation(setting("a", GOOD), settings=()), path, documents=documents)


# Markdown tables


def test_markdown_tables_have_equal_cell_counts():
    report = evaluation(setting("a|b", BAD, milliseconds=30), setting("good_one", GOOD, size=200))
    lines = markdown(report).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in tables]
    assert cells == [cells[0]] * 4 + [cells[4]] * (len(report.comparisons) + 2)
    assert "a\\|b" in tables[2]
    assert "good\\_one" in tables[3]
    assert "**1.000** (0.900 to 1.000)" in tables[3]
    assert "**" not in tables[2].replace("**30 ms", "")
    assert any("| 11 / 0 / 1 |" in line and "is better than" in line for line in tables)
    text = "\n".join(lines)
    for expected in ("SHA-256 " + "ab" * 32, "`jina-rag evaluate judged", "seed 7", "2026-03-01 10:00 UTC", "10 pages"):
        assert expected in text


def test_markdown_code_span_fences_backticks():
    text = markdown(evaluation(setting("a", GOOD), command="x `` ` y"))
    assert "- Command: ``` x `` ` y ```" in text


# The report in Chromium


def chromium() -> str:
    outcome = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if outcome is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    return outcome


class RequestRecorder(http.server.BaseHTTPRequestHandler):
    requests: list[str] = []

    def do_GET(self):
        self.requests.append(self.path)
        self.send_error(404)

    def log_message(self, *_args):
        pass


def test_chromium_sorts_the_table_without_requests_or_errors(documents, tmp_path):
    program = chromium()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RequestRecorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/x"
        evil = f'"><img src="{address}"><script src="{address}"></script>'
        entries = dict(evaluation(setting("a", BAD)).queries)
        entries["q03"] = {**entries["q03"], "query": evil, "modality": evil}
        text = html.render(evaluation(setting(evil, BAD), setting("b", GOOD), queries=entries), documents=documents)
        # The page is unchanged except for a click on the heading of the first setting's measure.
        script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
        clicking_script = script + 'document.querySelectorAll("table.sortable button")[2].click();'
        for old, new in ((script, clicking_script), *[tuple(map(_digest, (script, clicking_script)))]):
            assert old in text
            text = text.replace(old, new)
        html_file = tmp_path / "report.html"
        html_file.write_text(text, encoding="utf-8")
        process = subprocess.run(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-background-networking",
                "--enable-logging=stderr", "--v=0", "--dump-dom", html_file.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    console = [line for line in process.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    assert RequestRecorder.requests == []
    page = ParsedPage(process.stdout)
    assert len(page.all("button")) == 8
    assert [attrs["aria-sort"] for attrs in page.all("th") if "aria-sort" in attrs] == ["ascending"]
    values = [attrs["data-value"] for attrs in page.all("td") if "first" in (attrs.get("class") or "").split()][::2]
    assert [float(value) for value in values] == sorted(float(value) for value in values)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.mark.parametrize("width", [1280, 500])
def test_chromium_shows_settings_tables_without_overflow(documents, tmp_path, width):
    """The table has all columns of a default run. 500 pixels is the smallest window width of Chromium."""
    names = ("nDCG@5", "nDCG@10", "Recall@1", "Recall@5", "Recall@10", "RR@10")
    setting_results = []
    for name, ranks in (("lite", GOOD), ("lite-en", BAD)):
        result = setting(name, ranks, size=448_000, index_seconds=132.0, milliseconds=138.0)
        rows = tuple(replace(r, measures=dict.fromkeys(names, r.measures["nDCG@5"])) for r in result.per_query)
        means, intervals = (dict.fromkeys(names, of["nDCG@5"]) for of in (result.measures, result.intervals))
        parts = {"embedder": name, "stages": "default"}
        setting_results.append(replace(result, setting=parts, per_query=rows, measures=means, intervals=intervals))
    text = html.render(evaluation(*setting_results), documents=documents)
    script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
    measuring_script = (
        script + 'document.title = [...document.querySelectorAll(".scroll:has(.cells)")]'
        '.map(e => e.scrollWidth - e.clientWidth).join(" ");'
    )
    for old, new in ((script, measuring_script), tuple(map(_digest, (script, measuring_script)))):
        text = text.replace(old, new)
    page = tmp_path / "report.html"
    page.write_text(text, encoding="utf-8")
    command = [
        chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--disable-background-networking", f"--window-size={width},900", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dump = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.search("<title>(.*?)</title>", dump)[1] == "0 0"
