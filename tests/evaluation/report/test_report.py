"""The report of an evaluation: what it claims, what it shows, and that it is deaf to what documents say to browsers."""

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
    """A setting whose i-th question finds its page at ``ranks[i]``; other pages come from the same document."""
    results = []
    for place, rank in enumerate(ranks):
        pages = [("report", 100 + n) for n in range(5)]
        if rank is not None:
            pages[rank - 1] = ("report", place % 2 + 1)
        results.append(
            QueryResult(
                query_id=f"q{place:02d}",
                ranking=tuple(pages),
                measures={
                    "nDCG@5": 0.0 if rank is None else 1 / float(np.log2(rank + 1)),
                    "Recall@1": float(rank == 1),
                    "Recall@5": float(rank is not None),
                },
                milliseconds=milliseconds + place % 3,
                unjudged={5: 5 - (rank is not None)},
                scores=tuple(0.9 - 0.1 * n for n in range(5)),
                images=tuple((images or {}).get(page) for page in pages),
            )
        )
    values = {name: [result.measures[name] for result in results] for name in results[0].measures}
    mean = {name: float(np.mean(some)) for name, some in values.items()}
    kinds = {"text": results[0::2], "table": results[1::2]}
    values_of = {
        "name": name,
        "setting": {"embedder": "fake", "storage": name},
        "fingerprint": "fake@1",
        "queries": len(results),
        "measures": mean,
        "intervals": {name: (max(0.0, value - 0.1), min(1.0, value + 0.1)) for name, value in mean.items()},
        "by": {
            "modality": {
                kind: {"queries": len(some), "nDCG@5": float(np.mean([r.measures["nDCG@5"] for r in some]))}
                for kind, some in kinds.items()
                if some
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
    return SettingResult(**{**values_of, **fields})


def evaluation(*settings: SettingResult, **fields) -> Evaluation:
    def values(one, name):
        return {result.query_id: result.measures[name] for result in one.per_query}

    values_of = {
        "folder": "judged",
        "data_hash": "ab" * 32,
        "command": "jina-rag evaluate judged --storage exact --storage compact",
        "versions": {"jina_rag": "1.2.3", "platform": "Linux"},
        "seed": 7,
        "settings": settings,
        "queries": {
            f"q{place:02d}": {
                "query": f"Question number {place}?",
                "modality": ("text", "table")[place % 2],
                "language": "same",
                "relevant": [["report", place % 2 + 1, 2]],
                "answer": "",
            }
            for place in range(QUERIES)
        },
        "seconds": 12.0,
        "when": "2026-03-01T10:00:00+00:00",
    }
    if "comparisons" not in fields:
        values_of["comparisons"] = tuple(
            PairedComparison(
                settings[0].name, other.name, name, difference(values(settings[0], name), values(other, name))
            )
            for other in settings[1:]
            for name in settings[0].measures
        )
    return Evaluation(**{**values_of, **fields})


GOOD: list[int | None] = [1] * QUERIES
BAD: list[int | None] = [3, None, 2, 4, None, 1, 2, 3, None, 2, 5, 2]


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> dict[str, Path]:
    return {
        "report": sample_pdf(tmp_path_factory.mktemp("documents") / "report.pdf", ["The first page.", "The second."])
    }


class Seen(HTMLParser):
    """What a browser would see."""

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


# What the numbers say


@pytest.mark.parametrize(
    ("outcome", "kind", "sentence"),
    [
        (Difference(0.03, 0.01, 0.052, 5, 1), "better", "B is better than A by 0.030 (0.010 to 0.052)."),
        (Difference(-0.03, -0.052, -0.01, 1, 5), "worse", "B is worse than A by 0.030 (0.010 to 0.052)."),
        (
            Difference(0.01, -0.02, 0.04, 3, 2),
            "open",
            "No difference can be told between B and A: it may be 0.020 worse or 0.040 better.",
        ),
        (Difference(0.0, 0.0, 0.0, 0, 0), "equal", "B and A are equal on every question."),
    ],
)
def test_a_comparison_is_judged_by_its_interval(outcome, kind, sentence):
    verdict = findings.verdict(PairedComparison("A", "B", "nDCG@5", outcome), 10)
    assert (verdict.kind, verdict.sentence) == (kind, sentence)
    assert verdict.equal == 10 - outcome.better - outcome.worse


def test_an_interval_that_touches_zero_tells_nothing():
    assert findings.verdict(PairedComparison("A", "B", "m", Difference(0.1, 0.0, 0.2, 2, 0)), 9).kind == "open"
    assert findings.verdict(PairedComparison("A", "B", "m", Difference(-0.1, -0.2, 0.0, 0, 2)), 9).kind == "open"


def test_the_best_of_a_column_is_marked_only_where_it_can_be_told():
    near = [*GOOD[:-1], 2]
    clear = findings.best(evaluation(setting("bad", BAD), setting("good", GOOD)))
    assert clear["nDCG@5"] == ("good",)
    open_ = findings.best(evaluation(setting("bad", BAD), setting("good", GOOD), setting("near", near)))
    assert "nDCG@5" not in open_  # good is better than bad, but not tellably better than near
    assert "nDCG@5" not in findings.best(evaluation(setting("good", GOOD), setting("near", near)))
    assert findings.best(evaluation(setting("good", GOOD), setting("bad", BAD)))["nDCG@5"] == ("good",)
    assert findings.best(evaluation(setting("alone", GOOD))) == {}


def test_the_third_setting_is_compared_with_the_second_one_too():
    outcome = findings.best(evaluation(setting("a", BAD), setting("b", GOOD), setting("c", BAD)))
    assert outcome["nDCG@5"] == ("b",)


def test_time_is_compared_question_by_question_and_bytes_are_counted():
    slow, fast = setting("slow", GOOD, milliseconds=30), setting("fast", GOOD, size=5000)
    outcome = findings.best(evaluation(slow, fast, setting("slow too", GOOD, milliseconds=30, size=1030)))
    assert outcome["milliseconds"] == ("fast",)
    assert outcome["bytes"] == ("slow", "slow too")  # within 5 % of each other
    assert "bytes" not in findings.best(evaluation(slow, setting("as large", GOOD)))
    others = replace(
        fast, per_query=tuple(replace(result, query_id=result.query_id + "x") for result in fast.per_query)
    )
    assert "milliseconds" not in findings.best(evaluation(slow, others, comparisons=()))


def test_groups_have_intervals_of_their_own_questions():
    rows = findings.groups(evaluation(setting("bad", BAD), setting("good", GOOD)), "modality", "nDCG@5")
    assert {row.name: row.queries for row in rows} == {"text": 6, "table": 6}
    for row in rows:
        low, high = row.intervals[0]
        assert low < row.means[0] < high
        assert row.intervals[1] == (1.0, 1.0)
    language = findings.groups(evaluation(setting("bad", BAD)), "language", "nDCG@5")
    assert [row.name for row in language] == ["same language"]


def test_a_group_whose_questions_are_not_known_has_no_interval():
    unknown = evaluation(setting("bad", BAD), queries={})
    assert all(row.intervals == (None,) for row in findings.groups(unknown, "modality", "nDCG@5"))


def test_words_of_caution_come_from_the_data():
    text = findings.caution(evaluation(setting("bad", BAD), setting("good", GOOD)))
    assert "12 questions only" in text
    assert "±0.10" in text
    assert "up to 11 of them the first page was judged by nobody" in text
    assert "±" not in findings.caution(evaluation(setting("bad", BAD, intervals={})))
    unjudged = setting("u", [1])
    unjudged = replace(unjudged, measures={}, queries=0, per_query=(replace(unjudged.per_query[0], measures={}),))
    assert "No question has a judgement" in findings.caution(evaluation(unjudged))


def test_the_headline_counts_questions():
    text = findings.headline(evaluation(setting("lite, compact", BAD)))
    assert text == (
        "With “lite, compact”, a right page comes first for 1 of 12 questions (8%), "
        "and is among the first five for 9 (75%)."
    )


# Questions


def test_the_rank_is_that_of_the_first_right_page():
    query = queries.ReportQuery("q", "?", relevant={("a", 1): 1, ("a", 2): 2, ("a", 3): 2})
    assert queries.rank_of(QueryResult("q", (("a", 1), ("b", 1), ("b", 1), ("a", 3))), query) == 3
    assert queries.rank_of(QueryResult("q", (("a", 1),)), query) is None
    in_part = queries.ReportQuery("q", "?", relevant={("a", 1): 1, ("a", 9): 0})
    assert queries.rank_of(QueryResult("q", (("a", 9), ("a", 1))), in_part) == 2


def test_the_worst_questions_come_first_and_perfect_ones_never():
    first, second = setting("a", BAD), setting("b", [1, 1, 1, 1, 1, 1, 1, 1, None, 1, 1, 1])
    outcome = queries.misses(evaluation(first, second), first, "nDCG@5", 50)
    assert len(outcome) == 11
    assert outcome[0].query.query_id == "q08"  # the other setting fails on it, too
    assert {miss.query.query_id for miss in outcome[1:3]} == {"q01", "q04"}
    assert [miss.measure for miss in outcome] == sorted(miss.measure for miss in outcome)
    assert [(one.setting, one.rank, one.depth) for one in outcome[0].settings] == [("a", None, 5), ("b", None, 5)]
    assert len(queries.misses(evaluation(first), first, "nDCG@5", 3)) == 3


def test_a_page_that_comes_again_keeps_its_first_score():
    result = QueryResult("q00", (("x", 1), ("x", 1), ("report", 1)), {"nDCG@5": 0.5}, scores=(0.9, 0.8, 0.7))
    one = replace(setting("a", [1]), per_query=(result,))
    retrieved = queries.misses(evaluation(one), one, "nDCG@5", 1)[0].retrieved
    assert [(page.page, page.rank, page.score, page.grade) for page in retrieved] == [
        (("x", 1), 1, 0.9, None),
        (("report", 1), 2, 0.7, 2),
    ]


# Words


def test_text_from_outside_cannot_act_on_its_line():
    assert formatting.plain("a\u202eb\nc\td\u2066\x00\udcff") == "a\\u202eb\\nc d\\u2066\\x00\\udcff"
    kept = "السؤال ‏שאלה می‌خواهم 漢字 ¿qué?"
    assert formatting.plain(kept) == kept


def test_numbers_in_units():
    assert [formatting.size(v) for v in (0, 820, 999.6, 12_345, 123_456, 1_400_000, 2e9)] == [
        "0 B", "820 B", "1.0 kB", "12.3 kB", "123 kB", "1.4 MB", "2.0 GB",
    ]  # fmt: skip
    assert [formatting.milliseconds(v) for v in (0.42, 31.4, 999.7, 2100)] == ["0.4 ms", "31 ms", "1.0 s", "2.1 s"]
    assert [formatting.seconds(v) for v in (0.4, 75, 7500)] == ["0.4 s", "1 min 15 s", "2 h 5 min"]
    assert [formatting.signed(v) for v in (0.03, -0.03, 0.0001, -0.0001)] == ["+0.030", "−0.030", "0.000", "0.000"]
    assert formatting.moment("2026-03-01T10:00:00+02:00") == "2026-03-01 08:00 UTC"
    assert formatting.moment("2026-03-01T10:00:00") == "2026-03-01 10:00"
    assert formatting.moment("last week") == "last week"
    assert formatting.listed(["a", "b", "c"]) == "a, b and c"
    assert formatting.number(float("nan")) == "–"


# Plots


def drawn(markup) -> ET.Element:
    return ET.fromstring(str(markup))


def texts_of(element) -> list[str | None]:
    return [text.text for text in element.iter("text")]


def test_a_plot_says_what_it_is_and_takes_its_colours_from_the_page():
    settings = [setting(name, BAD, size=1000 * (n + 1)) for n, name in enumerate("abc")]
    (_, by_size), (caption, by_latency) = plots.cost_plots(settings, "nDCG@5")
    assert caption.startswith("Quality against latency")
    element = drawn(by_size)
    assert [child.tag for child in element[:2]] == ["title", "desc"]
    assert element.get("aria-labelledby") == f"{element[0].get('id')} {element[1].get('id')}"
    assert re.search(r"c: nDCG@5 0\.\d{3} at 3\.0 kB", element[1].text)
    assert "bytes a page (logarithmic)" in texts_of(element)
    assert "latency of a search, p50 with a line to p90 (logarithmic)" in texts_of(drawn(by_latency))
    styles = " ".join(part.get("style", "") for part in element.iter())
    assert not re.search("#[0-9a-f]{6}", styles)
    assert {"var(--s0)", "var(--s1)", "var(--s2)", "var(--ink)"} - set(re.findall(r"var\(--\w+\)", styles)) <= {
        "var(--ink)"
    }
    assert "font-family" not in styles
    assert all(part.get("href").startswith("#") for part in element.iter("use"))


def test_two_plots_in_a_page_share_no_id_and_are_the_same_each_time():
    settings = [setting("a", BAD), setting("b", GOOD)]
    first, second = (str(plot) for _, plot in plots.cost_plots(settings, "nDCG@5"))
    assert not set(re.findall(r' id="([^"]+)"', first)) & set(re.findall(r' id="([^"]+)"', second))
    assert first == str(plots.cost_plots(settings, "nDCG@5")[0][1])


def test_settings_by_the_dozen_differ_in_colour_or_shape():
    assert len({plots._look(index) for index in range(56)}) == 56
    assert len({plots.key(index) for index in range(56)}) == 56


def test_bars_carry_their_intervals_values_and_counts():
    rows = [
        findings.GroupRow("table", 39, (0.5, 0.25), ((0.4, 0.6), None)),
        findings.GroupRow(EVIL, 3, (0, 1), (None,) * 2),
    ]
    element = drawn(plots.group_bars(rows, ["a", "b"], kind="modality", measure="nDCG@5"))
    texts = texts_of(element)
    assert "n = 39" in texts
    assert "n = 3, few" in texts
    assert texts.count("0.500") == 1
    assert any(text.startswith("\"'><script>") and text.endswith("…") for text in texts)
    assert f"{formatting.plain(EVIL)} (3): a 0.000, b 1.000" in element[1].text


def test_text_of_documents_is_no_mathematics_and_no_escape():
    rows = [
        findings.GroupRow("$x^2$ \\frac", 39, (0.5,), (None,)),
        findings.GroupRow("漢字\u202e", 39, (0.5,), (None,)),
    ]
    texts = texts_of(drawn(plots.group_bars(rows, ["a"], kind="modality", measure="nDCG@5")))
    assert "$x^2$ \\frac" in texts
    assert "漢字\\u202e" in texts


@given(
    st.lists(st.tuples(st.floats(0.2, 1e9), st.floats(0, 1)), min_size=1, max_size=4),
)
@settings(max_examples=8)
def test_an_axis_holds_its_values_whatever_they_are(points):
    several = [
        setting(f"s{n}", [1], size=size, measures={"nDCG@5": value}, intervals={"nDCG@5": (0.0, value)})
        for n, (size, value) in enumerate(points)
    ]
    element = drawn(plots.cost_plots(several, "nDCG@5")[0][1])
    right = float(element.get("viewBox").split()[2])
    assert all(0 <= float(mark.get("x")) <= right for mark in element.iter("use"))
    assert len([text for text in texts_of(element) if text.endswith("B")]) >= 2


def test_matplotlib_is_left_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.cost_plots([setting("a", BAD)], "nDCG@5")
    assert dict(matplotlib.rcParams) == before
    code = "import sys; from jina_rag.evaluation.report import plots, html; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_matplotlib_the_report_has_its_tables_and_one_sentence(documents, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = html.render(evaluation(setting("a", BAD), setting("b", GOOD)), documents=documents, failures=1)
    seen = Seen(text)
    assert not seen.all("svg")
    assert seen.text.count("The plots are left out. This needs the package 'matplotlib'") == 1
    assert 'pip install "jina-rag[eval]"' in seen.text
    for expected in ("Differences, question by question", "By kind of question", "same language", "All questions"):
        assert expected in seen.text
    assert "Quality and cost" not in seen.text


# The page


def test_the_report_says_what_was_measured_and_what_was_found(documents):
    made = evaluation(setting("exact", BAD, milliseconds=30), setting("compact", GOOD, size=200))
    seen = Seen(html.render(made, documents=documents))
    for expected in (
        "With exact, the first setting, a right page comes first for 1 of 12 questions (8%)",
        "compact is better than exact by",
        "12 questions only",
        "ab" * 32,
        "jina-rag evaluate judged --storage exact --storage compact",
        "2026-03-01 10:00 UTC, took 12.0 s",
        "seed 7",
        "jina_rag 1.2.3, platform Linux",
        "Vectors of exact and compact: fake@1",
        "Every file and every page was indexed.",
        "Better by",
        "nobody has judged this page: it may be right",
        "unjudged: may be right",
        "right page not among the first 5",
        "Rank of the right page:",
    ):
        assert expected in seen.text, expected
    assert seen.text.count("★") == 1  # the legend; those of cells are drawn by the style sheet
    tops = [attrs.get("data-label") for attrs in seen.all("td") if "top" in (attrs.get("class") or "").split()]
    assert sorted(tops) == ["Recall@1", "bytes a page", "latency p50 / p90", "nDCG@5"]
    assert [attrs.get("class") for attrs in seen.all("svg")] == ["plot"] * 4
    assert len([attrs for attrs in seen.all("span") if (attrs.get("class") or "").startswith("forest ")]) == 3
    identifiers = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))
    anchors = {attrs["href"] for attrs in seen.all("a")}
    assert anchors <= {f"#{name}" for name in identifiers}
    assert len(anchors) == 7


def test_all_questions_are_listed_with_values_to_sort_by(documents):
    made = evaluation(setting("a", BAD), setting("b", GOOD[:-1]), comparisons=())
    seen = Seen(html.render(made, documents=documents, failures=0))
    rows = seen.text[seen.text.index("All questions") :]
    assert all(f"Question number {place}?" in rows for place in range(QUERIES))
    values = [attrs["data-value"] for attrs in seen.all("td") if "data-value" in attrs]
    assert len(values) == QUERIES * 6
    assert values[:2] == ["0.5", "3"]
    assert values[7] == "1000000"  # question 1 of setting a: not found sorts as the last rank
    assert values[-3:] == ["", "", ""]  # not asked with setting b
    assert "Every question reached the most it could with a, or none was to be shown." in seen.text


def test_hostile_text_stays_text(documents, tmp_path):
    hostile = replace(setting(EVIL, BAD), setting={EVIL: EVIL}, failed=(Failure(Path("x") / EVIL[:60], EVIL, 3),))
    per_query = tuple(replace(r, ranking=((EVIL, 1), *r.ranking[1:]), notes=(EVIL,)) for r in hostile.per_query)
    entry = {"query": EVIL, "modality": EVIL, "language": EVIL, "answer": EVIL, "relevant": [[EVIL, 2, 2]]}
    hostile = replace(
        hostile,
        fingerprint=EVIL,
        per_query=per_query,
        by={"modality": {EVIL: {"queries": 12, "nDCG@5": 0.4}}, "language": {EVIL: {"queries": 12, "nDCG@5": 0.4}}},
    )
    made = evaluation(
        hostile,
        replace(hostile, name=EVIL + "2"),
        folder=EVIL,
        data_hash=EVIL,
        command=EVIL,
        when=EVIL,
        versions={EVIL: EVIL},
        queries={f"q{place:02d}": entry for place in range(QUERIES)},
    )
    text = html.render(made, documents={**documents, EVIL: documents["report"]})
    seen = Seen(text)
    assert len(seen.all("script")) == 1
    assert all(not name.startswith("on") for _, attrs in seen.tags for name in attrs)
    assert {attrs.get("src", "")[:23] for attrs in seen.all("img")} == {"data:image/jpeg;base64,"}
    assert "\u202e" not in text
    assert "49" not in seen.text
    assert formatting.plain(EVIL).replace("  ", " ") in seen.text
    for name, _attrs in seen.tags:
        assert name not in {"evil", "x"}
    table = markdown(made)
    assert "\u202e" not in table
    assert not re.search(r"(?<!\\)<", table.replace(formatting.plain(EVIL), ""))


def test_nothing_is_loaded_from_outside_and_only_our_script_may_run(documents):
    text = html.render(evaluation(setting("a", BAD), setting("b", GOOD)), documents=documents)
    seen = Seen(text)
    policies = [a["content"] for a in seen.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; ")
    assert f"script-src 'sha256-{digest}'" in policies[0]
    for tag in ("link", "iframe", "object", "embed", "video", "audio", "base", "form", "image", "source"):
        assert not seen.all(tag)
    assert not seen.all("script")[0]
    assert not re.search(r"url\(|@import|https?://", text.replace("http-equiv", ""))
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in seen.tags)
    assert seen.all("use")


def test_wanted_pages_are_rendered_from_their_files_and_found_ones_taken_from_the_index(documents, tmp_path):
    kept = tmp_path / "kept.png"
    Image.new("RGB", (300, 200), (200, 30, 30)).save(kept)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\nno")
    images = {("report", 1): kept, ("report", 2): damaged, ("report", 101): tmp_path / "gone.png"}
    made = evaluation(setting("a", [2, 2, None, None], images=images))
    sizes = {page: html._LARGE for page in [("report", 1), ("report", 2), ("report", 101), ("other", 1)]}
    outcome = html.images(sizes, made, documents)
    first = decoded(outcome["report", 1].uri)
    assert first.size == (300, 200)  # as the index has it, and never blown up
    assert abs(first.getpixel((5, 5))[0] - 200) < 8
    second = decoded(outcome["report", 2].uri)
    assert second.size == (584, 827)  # 420 x 595 points at 100 dpi, from the file
    assert "no page 101" in outcome["report", 101].reason
    assert outcome["other", 1].reason == "The document is not among the files."


def decoded(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def test_a_document_that_cannot_be_opened_costs_its_pictures_only(tmp_path):
    broken = tmp_path / "report.pdf"
    broken.write_bytes(b"%PDF-1.7 broken")
    seen = Seen(html.render(evaluation(setting("a", [None, None])), documents={"report": broken}))
    assert "No picture: " in seen.text
    assert not seen.all("img")
    absent = Seen(html.render(evaluation(setting("a", [None])), documents={"report": tmp_path / "absent.pdf"}))
    assert "absent.pdf' does not exist" in absent.text


def test_failures_with_pictures_of_the_worst_kind_stay_below_eight_megabytes_for_ten(tmp_path):
    noise = tmp_path / "noise.png"
    pixels = np.random.default_rng(7).integers(0, 256, (900, 640, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(noise, compress_level=1)
    results = tuple(
        QueryResult(
            f"q{place:02d}",
            tuple((f"d{place}", n) for n in range(5)),
            {"nDCG@5": 0.1},
            scores=(0.5,) * 5,
            images=(noise,) * 5,
        )
        for place in range(3)
    )
    entries = {
        f"q{place:02d}": {"query": "?", "relevant": [[f"d{place}", 3, 2], [f"d{place}", 4, 2]]} for place in range(3)
    }
    one = replace(setting("a", [1] * 3), per_query=results)
    path = tmp_path / "report.html"
    write_html(evaluation(one, queries=entries), path, documents={})
    content = path.read_text(encoding="utf-8")
    assert len(Seen(content).all("img")) == 15
    assert 600_000 < path.stat().st_size < 0.3 * 8_000_000


def test_a_picture_loses_quality_before_it_loses_pixels():
    pixels = np.random.default_rng(7).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    best, least = (len(_jpeg(image, bound)) for bound in (10**9, 1))
    assert least < best
    same = page_images._encoded(image, Bounds(620, (least + best) // 2))
    assert (same.width, same.height) == (400, 300)
    smaller = page_images._encoded(image, Bounds(620, least // 3))
    assert smaller.width < 400
    assert len(smaller.uri) * 3 / 4 <= least // 3 + 40


def test_many_failures_have_smaller_pictures():
    assert html._LARGE.part(1.0) == html._LARGE
    assert html._LARGE.part(0.25) == Bounds(310, 25_000)
    assert html._EACH * 10 * 4 / 3 < 8_000_000
    with_many = Bounds(1, 1)
    assert html._LARGE.part(0.0) == with_many


def test_failed_files_and_notes_are_told_with_their_settings(documents):
    lost = Failure(Path("docs/locked.pdf"), "The document is encrypted.")
    page = Failure(Path("docs/long.pdf"), "The page is damaged.", 7)
    first = setting("a", GOOD, failed=(lost, page))
    noted = tuple(replace(r, notes=("The reranker ran out of time.",)) for r in first.per_query[:2])
    first = replace(first, per_query=(*noted, *first.per_query[2:]))
    seen = Seen(html.render(evaluation(first, setting("b", GOOD, failed=(lost,))), documents=documents))
    assert "locked.pdf: The document is encrypted. (every setting)" in seen.text
    assert "long.pdf, page 7: The page is damaged. (a)" in seen.text
    assert "a: The reranker ran out of time. (2 questions)" in seen.text
    assert "2 failures" in seen.text


def test_questions_without_judgements_are_timed_and_not_scored(documents):
    judged = setting("a", BAD)
    extra = QueryResult("free", (("report", 1),), milliseconds=12.3)
    made = evaluation(replace(judged, per_query=(*judged.per_query, extra)))
    seen = Seen(html.render(made, documents=documents, failures=1))
    assert "(1 question more without a judgement: timed, not scored)" in seen.text
    assert [attrs["data-value"] for attrs in seen.all("td") if "data-value" in attrs][-3:] == ["", "", "12.3"]
    unjudged = replace(judged, queries=0, measures={}, intervals={}, by={}, per_query=(extra,))
    bare = Seen(html.render(evaluation(unjudged), documents={}))
    assert "No question has a judgement, so none can be called wrong." in bare.text
    assert not [attrs for attrs in bare.all("svg") if attrs.get("class") == "plot"]


def test_settings_that_were_not_timed_say_so(documents):
    made = evaluation(setting("a", BAD, latency={}, milliseconds=5), setting("b", GOOD, latency={}, milliseconds=9))
    seen = Seen(html.render(made, documents=documents, failures=0))
    assert seen.text.count("not timed") == 2
    assert "Quality against size" in seen.text
    assert "Quality against latency" not in seen.text
    assert "milliseconds" not in findings.best(made)
    assert "| – |" in markdown(made)


def test_the_file_appears_whole_or_not_at_all(documents, tmp_path):
    made = evaluation(setting("a", GOOD))
    path = tmp_path / "report.html"
    write_html(made, path, documents=documents)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InvalidInputError, match="The report cannot be written to"):
        write_html(made, tmp_path / "absent" / "report.html", documents=documents)
    with pytest.raises(InvalidInputError, match="no setting"):
        write_html(evaluation(setting("a", GOOD), settings=()), path, documents=documents)


# In Markdown


def test_markdown_tables_have_as_many_cells_in_every_row():
    made = evaluation(setting("a|b", BAD, milliseconds=30), setting("good_one", GOOD, size=200))
    lines = markdown(made).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in tables]
    assert cells == [cells[0]] * 4 + [cells[4]] * (len(made.comparisons) + 2)
    assert "a\\|b" in tables[2]
    assert "good\\_one" in tables[3]
    assert "**1.000** (0.900 to 1.000)" in tables[3]
    assert "**" not in tables[2].replace("**30 ms", "")
    assert any("| 11 / 0 / 1 |" in line and "is better than" in line for line in tables)
    text = "\n".join(lines)
    for expected in ("SHA-256 " + "ab" * 32, "`jina-rag evaluate judged", "seed 7", "2026-03-01 10:00 UTC", "10 pages"):
        assert expected in text


def test_a_command_cannot_leave_its_code_span():
    text = markdown(evaluation(setting("a", GOOD), command="x `` ` y"))
    assert "- Command: ``` x `` ` y ```" in text


# In a browser


def chromium() -> str:
    outcome = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if outcome is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    return outcome


class Listener(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_args):
        pass


def test_a_browser_runs_our_script_loads_nothing_and_finds_no_fault(documents, tmp_path):
    program = chromium()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/x"
        evil = f'"><img src="{address}"><script src="{address}"></script>'
        entries = dict(evaluation(setting("a", BAD)).queries)
        entries["q03"] = {**entries["q03"], "query": evil, "modality": evil}
        text = html.render(evaluation(setting(evil, BAD), setting("b", GOOD), queries=entries), documents=documents)
        # The page as it is, but for one click on the heading of the first setting's measure.
        script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
        clicked = script + 'document.querySelectorAll("table.sortable button")[2].click();'
        for old, new in ((script, clicked), *[tuple(map(_digest, (script, clicked)))]):
            assert old in text
            text = text.replace(old, new)
        page = tmp_path / "report.html"
        page.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-background-networking",
                "--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    assert Listener.asked == []
    seen = Seen(done.stdout)
    assert len(seen.all("button")) == 8
    assert [attrs["aria-sort"] for attrs in seen.all("th") if "aria-sort" in attrs] == ["ascending"]
    measured = [attrs["data-value"] for attrs in seen.all("td") if "first" in (attrs.get("class") or "").split()][::2]
    assert [float(value) for value in measured] == sorted(float(value) for value in measured)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser_no_table_of_settings_is_cut_off(documents, tmp_path, width):
    """With all that a run has: every measure of the default, latency, two depths; Chromium has no window below 500."""
    names = ("nDCG@5", "nDCG@10", "Recall@1", "Recall@5", "Recall@10", "RR@10")
    both = []
    for name, ranks in (("lite", GOOD), ("lite-en", BAD)):
        result = setting(name, ranks, size=448_000, index_seconds=132.0, milliseconds=138.0)
        rows = tuple(replace(r, measures=dict.fromkeys(names, r.measures["nDCG@5"])) for r in result.per_query)
        means, intervals = (dict.fromkeys(names, of["nDCG@5"]) for of in (result.measures, result.intervals))
        parts = {"embedder": name, "stages": "default"}
        both.append(replace(result, setting=parts, per_query=rows, measures=means, intervals=intervals))
    text = html.render(evaluation(*both), documents=documents)
    script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
    measuring = (
        script + 'document.title = [...document.querySelectorAll(".scroll:has(.cells)")]'
        '.map(e => e.scrollWidth - e.clientWidth).join(" ");'
    )
    for old, new in ((script, measuring), tuple(map(_digest, (script, measuring)))):
        text = text.replace(old, new)
    page = tmp_path / "report.html"
    page.write_text(text, encoding="utf-8")
    command = [
        chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--disable-background-networking", f"--window-size={width},900", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dump = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.search("<title>(.*?)</title>", dump)[1] == "0 0"
