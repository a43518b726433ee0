"""Conclusions from the results of an evaluation: best settings, differences, query groups and reliability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jina_rag.evaluation.report.formatting import count, number
from jina_rag.evaluation.report.queries import rank_of, report_query
from jina_rag.evaluation.results import Evaluation, PairedComparison, SettingResult
from jina_rag.evaluation.significance import difference, interval

MAIN_MEASURE = "nDCG@5"
SMALL_GROUP = 10
"""Number of queries below which reports mark the results of a group as anecdotal."""
_SIZE_TOLERANCE = 1.05
"""Maximum ratio of two sizes that count as equal. Two runs of a setting create stores that differ by a few percent."""
_LANGUAGE_GROUPS = {"same": "same language", "cross": "different languages"}
"""Language group → displayed name. The languages of query and page are the same or different."""


def main_measure(evaluation: Evaluation) -> str:
    """Return the main measure, which the plots show and which ranks the lowest-scoring queries.

    Returns:
        nDCG@5 if the evaluation has this measure, else the first measure; empty if no query has relevance judgments.
    """
    names = list(evaluation.settings[0].measures)
    return MAIN_MEASURE if MAIN_MEASURE in names else names[0] if names else ""


def quote_name(name: str) -> str:
    """Return a setting's name for use in a sentence, in quotation marks unless the name is one word."""
    return name if name.replace("-", "").replace("_", "").isalnum() else f"“{name}”"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conclusion from a paired comparison of two settings.

    Attributes:
        comparison: The paired comparison.
        equal: Number of queries with the same value for both settings.
        kind: ``"better"`` or ``"worse"`` if the interval of the mean difference excludes zero, ``"equal"`` if all
            queries have the same value for both settings, else ``"open"``.
        sentence: The conclusion as a sentence with the names of both settings.
        short: The conclusion without names.
    """

    comparison: PairedComparison
    equal: int
    kind: str
    sentence: str
    short: str


def verdict(comparison: PairedComparison, queries: int) -> Verdict:
    """Return the conclusion from a paired comparison, based on the interval of the mean difference.

    Args:
        comparison: A paired comparison of two settings.
        queries: Number of compared queries.
    """
    delta = comparison.difference
    first, second = quote_name(comparison.first), quote_name(comparison.second)
    if delta.better == delta.worse == 0:
        kind, short = "equal", "Equal on every query."
        sentence = f"{second} and {first} are equal on every query."
    elif delta.low > 0:
        kind, amount = "better", f"by {number(delta.mean)} ({number(delta.low)} to {number(delta.high)})."
        sentence, short = f"{second} is better than {first} {amount}", f"Better {amount}"
    elif delta.high < 0:
        kind, amount = "worse", f"by {number(-delta.mean)} ({number(-delta.high)} to {number(-delta.low)})."
        sentence, short = f"{second} is worse than {first} {amount}", f"Worse {amount}"
    else:
        kind, amount = "open", f"{number(abs(delta.low))} worse to {number(abs(delta.high))} better."
        short = f"No significant difference: {amount}"
        sentence = f"No significant difference between {second} and {first}: {amount}"
    return Verdict(comparison, max(0, queries - delta.better - delta.worse), kind, sentence, short)


def verdicts(evaluation: Evaluation) -> list[Verdict]:
    """Return the conclusions from all comparisons of an evaluation, in order."""
    queries = {setting.name: setting.queries for setting in evaluation.settings}
    return [verdict(pair, queries[pair.second]) for pair in evaluation.comparisons]


def best(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """Return the names of the best settings by measure, by latency and by size.

    Args:
        evaluation: An evaluation with at least one setting.

    Returns:
        Measure, ``"milliseconds"`` or ``"bytes"`` → names of the best settings. A measure or ``"milliseconds"`` has an
        entry only if the best setting differs significantly from every other setting: each interval of a paired
        difference excludes zero. ``"bytes"`` lists the settings whose size exceeds the smallest size by at
        most 5 %, and has no entry if the list would contain all settings.
    """
    settings = evaluation.settings
    if len(settings) < 2:
        return {}
    best_settings: dict[str, tuple[str, ...]] = {}
    for name in settings[0].measures:
        top = max(settings, key=lambda setting: setting.measures.get(name, 0.0))
        if all(_is_better(evaluation, top, other, name) for other in settings if other is not top):
            best_settings[name] = (top.name,)
    fastest = min(settings, key=lambda setting: setting.latency.get("mean", float("inf")))
    if all(_is_faster(evaluation, fastest, other) for other in settings if other is not fastest):
        best_settings["milliseconds"] = (fastest.name,)
    smallest = min(setting.vector_bytes_per_page for setting in settings)
    small = tuple(setting.name for setting in settings if setting.vector_bytes_per_page <= _SIZE_TOLERANCE * smallest)
    if len(small) < len(settings):
        best_settings["bytes"] = small
    return best_settings


def _is_better(evaluation: Evaluation, high: SettingResult, low: SettingResult, name: str) -> bool:
    """Return whether `high` is significantly better than `low`. Without a stored comparison, compare the settings."""
    for pair in evaluation.comparisons:
        if pair.measure == name and (pair.first, pair.second) == (low.name, high.name):
            return pair.difference.low > 0
        if pair.measure == name and (pair.first, pair.second) == (high.name, low.name):
            return pair.difference.high < 0
    return _is_less(_values(low, name), _values(high, name), evaluation.seed)


def _is_faster(evaluation: Evaluation, fast: SettingResult, slow: SettingResult) -> bool:
    if not (fast.latency and slow.latency):
        return False  # queries that ran in batches have no latencies to compare
    times = [{result.query_id: result.milliseconds for result in setting.per_query} for setting in (fast, slow)]
    return _is_less(times[0], times[1], evaluation.seed)


def _is_less(first: Mapping[str, float], second: Mapping[str, float], seed: int) -> bool:
    """Return whether the interval of the mean of `second` − `first` is above zero; False if the queries differ."""
    return bool(first) and first.keys() == second.keys() and difference(first, second, seed=seed).low > 0


def _values(setting: SettingResult, name: str) -> dict[str, float]:
    return {result.query_id: result.measures[name] for result in setting.per_query if name in result.measures}


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Values of a measure for one group of queries, with one mean per setting.

    Attributes:
        name: Name of the group.
        queries: Number of queries.
        means: Mean of the measure for each setting, in the order of `Evaluation.settings`.
        intervals: 95 % interval of each mean; None if the group has a single query or the value of a query is missing.
    """

    name: str
    queries: int
    means: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]


def groups(evaluation: Evaluation, kind: str, measure: str) -> list[GroupRow]:
    """Return the means and bootstrap intervals of a measure for each query group, largest group first.

    Args:
        evaluation: The evaluation whose settings and queries are compared.
        kind: Property that groups the queries, ``"modality"`` or ``"language"``.
        measure: Name of the measure.
    """
    counts: dict[str, int] = {}
    for setting in evaluation.settings:
        for name, row in setting.by.get(kind, {}).items():
            counts[name] = max(counts.get(name, 0), int(row.get("queries", 0)))
    rows = []
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        setting_groups = [setting.by.get(kind, {}).get(name, {}) for setting in evaluation.settings]
        means = tuple(float(group.get(measure, 0.0)) for group in setting_groups)
        intervals = []
        for setting, group in zip(evaluation.settings, setting_groups, strict=True):
            values = [
                value
                for query_id, value in _values(setting, measure).items()
                if str(evaluation.queries.get(query_id, {}).get(kind, "")) == name
            ]
            complete = len(values) == int(group.get("queries", 0)) >= 2
            intervals.append(interval(values, seed=evaluation.seed) if complete else None)
        rows.append(GroupRow(_LANGUAGE_GROUPS.get(name, name), counts[name], means, tuple(intervals)))
    return rows


def fingerprints(evaluation: Evaluation) -> dict[str, list[str]]:
    """Return the quoted names of the settings by embedder fingerprint."""
    names: dict[str, list[str]] = {}
    for setting in evaluation.settings:
        if setting.fingerprint:
            names.setdefault(setting.fingerprint, []).append(quote_name(setting.name))
    return names


def first_unjudged(evaluation: Evaluation, setting: SettingResult) -> int:
    """Return the number of judged queries whose first retrieved page is unjudged."""
    results = [result for result in setting.per_query if result.measures and result.ranking]
    return sum(result.ranking[0] not in report_query(evaluation, result.query_id).relevant for result in results)


def count_successes(evaluation: Evaluation, setting: SettingResult, depth: int) -> int:
    """Return the number of judged queries with a page of the highest grade among the first `depth` retrieved pages."""
    judged_results = [result for result in setting.per_query if result.measures]
    return sum((rank_of(r, report_query(evaluation, r.query_id)) or depth + 1) <= depth for r in judged_results)


def caution(evaluation: Evaluation) -> str:
    """Return a text on how reliable the results are, given the number of queries, interval width and unjudged pages."""
    measure = main_measure(evaluation)
    if not measure:
        return "No query has relevance judgments, so the evaluation measured only latency and size, not quality."
    queries = evaluation.settings[0].queries
    ends = [setting.intervals[measure] for setting in evaluation.settings if measure in setting.intervals]
    query_count = count(queries, "query", "queries")
    text = f"With only {query_count}, " if queries < 50 else f"With {query_count}, "
    if ends:
        half_width = max((high - low) / 2 for low, high in ends)
        method = "paired comparison" if len(evaluation.settings) > 1 else "comparison of settings"
        text += f"the 95 % interval of {measure} is about ±{half_width:.2f}. "
        text += f"A smaller difference is significant only if a {method} confirms the difference."
    else:
        text += f"no interval was computed for {measure}, so differences may be due to chance."
    max_unjudged = max((first_unjudged(evaluation, setting) for setting in evaluation.settings), default=0)
    if max_unjudged:
        number_text = f"up to {max_unjudged}" if len(evaluation.settings) > 1 else f"{max_unjudged}"
        text += f" For {number_text} of the queries, the first page is unjudged. "
        text += "An unjudged page counts as not relevant, but may be relevant."
    return text


def headline(evaluation: Evaluation) -> str:
    """Return a sentence with the numbers of queries for which a relevant page ranks first and among the first five.

    Args:
        evaluation: The evaluation, whose first setting the sentence describes.
    """
    setting = evaluation.settings[0]
    judged_results = [result for result in setting.per_query if result.measures]
    if not judged_results:
        return f"{count(len(evaluation.queries), 'query', 'queries')} ran; no query has relevance judgments."
    first_count, top_five_count = count_successes(evaluation, setting, 1), count_successes(evaluation, setting, 5)
    total = len(judged_results)
    several = len(evaluation.settings) > 1
    subject = f"With {quote_name(setting.name)}, the first setting," if several else f"With {quote_name(setting.name)},"
    return (
        f"{subject} a relevant page ranks first for {first_count} of {count(total, 'query', 'queries')} "
        f"({first_count / total:.0%}), and among the first five for {top_five_count} ({top_five_count / total:.0%})."
    )
