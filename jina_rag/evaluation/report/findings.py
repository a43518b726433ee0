"""What the numbers of an evaluation say, and what they do not: best settings, groups, sentences, words of caution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jina_rag.evaluation.report.formatting import count, number
from jina_rag.evaluation.report.queries import rank_of, report_query
from jina_rag.evaluation.results import Evaluation, PairedComparison, SettingResult
from jina_rag.evaluation.significance import difference, interval

MAIN = "nDCG@5"
FEW = 10
"""Questions below which a group is an anecdote."""
_SAME_SIZE = 1.05
"""A store's size differs by a few percent between two runs of one setting."""
_WORDS = {"same": "same language", "cross": "other language"}
"""How the language groups are called: whether question and page are in one language."""


def main_measure(evaluation: Evaluation) -> str:
    """The measure of plots and failures: nDCG@5, or the first there is; empty where nothing was judged."""
    names = list(evaluation.settings[0].measures)
    return MAIN if MAIN in names else names[0] if names else ""


def quoted(name: str) -> str:
    """A setting's name within a sentence: in quotation marks unless it is one word."""
    return name if name.replace("-", "").replace("_", "").isalnum() else f"“{name}”"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A comparison as a reader takes it.

    Attributes:
        comparison: What was compared.
        equal: Questions without a difference.
        kind: ``"better"`` or ``"worse"`` where the interval excludes zero, ``"equal"`` where no question differs,
            ``"open"`` where nothing can be told.
        sentence: The same in words.
        short: The same without the names.
    """

    comparison: PairedComparison
    equal: int
    kind: str
    sentence: str
    short: str


def verdict(comparison: PairedComparison, queries: int) -> Verdict:
    """Judge a comparison by its interval alone.

    Args:
        comparison: Of two settings.
        queries: Over how many questions.
    """
    delta = comparison.difference
    first, second = quoted(comparison.first), quoted(comparison.second)
    if delta.better == delta.worse == 0:
        kind, short = "equal", "Equal on every question."
        sentence = f"{second} and {first} are equal on every question."
    elif delta.low > 0:
        kind, amount = "better", f"by {number(delta.mean)} ({number(delta.low)} to {number(delta.high)})."
        sentence, short = f"{second} is better than {first} {amount}", f"Better {amount}"
    elif delta.high < 0:
        kind, amount = "worse", f"by {number(-delta.mean)} ({number(-delta.high)} to {number(-delta.low)})."
        sentence, short = f"{second} is worse than {first} {amount}", f"Worse {amount}"
    else:
        kind, amount = "open", f"it may be {number(abs(delta.low))} worse or {number(abs(delta.high))} better."
        short = f"No difference can be told: {amount}"
        sentence = f"No difference can be told between {second} and {first}: {amount}"
    return Verdict(comparison, max(0, queries - delta.better - delta.worse), kind, sentence, short)


def verdicts(evaluation: Evaluation) -> list[Verdict]:
    """All comparisons of an evaluation, in its order."""
    queries = {setting.name: setting.queries for setting in evaluation.settings}
    return [verdict(pair, queries[pair.second]) for pair in evaluation.comparisons]


def best(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """Which setting is best in a column, where that can be told.

    Returns:
        Measure, ``"milliseconds"`` or ``"bytes"`` → setting. It is there only if the paired interval against each other
        setting excludes zero. Bytes are counted, not sampled: there it is all that are within 5 % of the fewest, where
        others are not.
    """
    settings = evaluation.settings
    if len(settings) < 2:
        return {}
    winners: dict[str, tuple[str, ...]] = {}
    for name in settings[0].measures:
        top = max(settings, key=lambda setting: setting.measures.get(name, 0.0))
        if all(_is_better(evaluation, top, other, name) for other in settings if other is not top):
            winners[name] = (top.name,)
    fastest = min(settings, key=lambda setting: setting.latency.get("mean", float("inf")))
    if all(_faster(evaluation, fastest, other) for other in settings if other is not fastest):
        winners["milliseconds"] = (fastest.name,)
    fewest = min(setting.vector_bytes_per_page for setting in settings)
    small = tuple(setting.name for setting in settings if setting.vector_bytes_per_page <= _SAME_SIZE * fewest)
    if len(small) < len(settings):
        winners["bytes"] = small
    return winners


def _is_better(evaluation: Evaluation, high: SettingResult, low: SettingResult, name: str) -> bool:
    """Whether `high` is better than `low`, by the comparison that was made or by one made now."""
    for pair in evaluation.comparisons:
        if pair.measure == name and (pair.first, pair.second) == (low.name, high.name):
            return pair.difference.low > 0
        if pair.measure == name and (pair.first, pair.second) == (high.name, low.name):
            return pair.difference.high < 0
    return _is_less(_values(low, name), _values(high, name), evaluation.seed)


def _faster(evaluation: Evaluation, fast: SettingResult, slow: SettingResult) -> bool:
    if not (fast.latency and slow.latency):
        return False  # not timed one by one
    times = [{result.query_id: result.milliseconds for result in setting.per_query} for setting in (fast, slow)]
    return _is_less(times[0], times[1], evaluation.seed)


def _is_less(first: Mapping[str, float], second: Mapping[str, float], seed: int) -> bool:
    """Whether the paired difference is above zero for sure; False where other questions were asked."""
    return bool(first) and first.keys() == second.keys() and difference(first, second, seed=seed).low > 0


def _values(setting: SettingResult, name: str) -> dict[str, float]:
    return {result.query_id: result.measures[name] for result in setting.per_query if name in result.measures}


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Questions of one kind, and what each setting reaches on them.

    Attributes:
        name: Of the kind.
        queries: How many there are.
        means: Of each setting, in their order.
        intervals: Beside `means`; None where one question alone, or another count, gives none.
    """

    name: str
    queries: int
    means: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]


def groups(evaluation: Evaluation, kind: str, measure: str) -> list[GroupRow]:
    """A measure by kind of question, most frequent first, with intervals by bootstrap over the kind's questions.

    Args:
        evaluation: The evaluation.
        kind: ``"modality"`` or ``"language"``.
        measure: Which measure.
    """
    counts: dict[str, int] = {}
    for setting in evaluation.settings:
        for name, row in setting.by.get(kind, {}).items():
            counts[name] = max(counts.get(name, 0), int(row.get("queries", 0)))
    rows = []
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        groups_of = [setting.by.get(kind, {}).get(name, {}) for setting in evaluation.settings]
        means = tuple(float(group.get(measure, 0.0)) for group in groups_of)
        intervals = []
        for setting, group in zip(evaluation.settings, groups_of, strict=True):
            values = [
                value
                for query_id, value in _values(setting, measure).items()
                if str(evaluation.queries.get(query_id, {}).get(kind, "")) == name
            ]
            whole = len(values) == int(group.get("queries", 0)) >= 2
            intervals.append(interval(values, seed=evaluation.seed) if whole else None)
        rows.append(GroupRow(_WORDS.get(name, name), counts[name], means, tuple(intervals)))
    return rows


def fingerprints(evaluation: Evaluation) -> dict[str, list[str]]:
    """What the vectors depend on → the settings that share them, as they are called in a sentence."""
    names: dict[str, list[str]] = {}
    for setting in evaluation.settings:
        if setting.fingerprint:
            names.setdefault(setting.fingerprint, []).append(quoted(setting.name))
    return names


def first_unjudged(evaluation: Evaluation, setting: SettingResult) -> int:
    """Judged questions whose first page nobody has judged: it counts as wrong, and may be right."""
    results = [result for result in setting.per_query if result.measures and result.ranking]
    return sum(result.ranking[0] not in report_query(evaluation, result.query_id).relevant for result in results)


def answered(evaluation: Evaluation, setting: SettingResult, depth: int) -> int:
    """Judged questions with a right page among the first `depth`."""
    judged_results = [result for result in setting.per_query if result.measures]
    return sum((rank_of(r, report_query(evaluation, r.query_id)) or depth + 1) <= depth for r in judged_results)


def caution(evaluation: Evaluation) -> str:
    """What a reader should keep in mind before trusting a difference, from the data themselves."""
    measure = main_measure(evaluation)
    if not measure:
        return "No question has a judgement, so nothing is known about quality: only time and size were measured."
    queries = evaluation.settings[0].queries
    ends = [setting.intervals[measure] for setting in evaluation.settings if measure in setting.intervals]
    query_count = count(queries, "question")
    text = f"These are {query_count} only: " if queries < 50 else f"With {query_count}, "
    if ends:
        half = max((high - low) / 2 for low, high in ends)
        text += f"{measure} is known to about ±{half:.2f}, and smaller differences mean nothing unless the paired "
        text += "comparison tells them." if len(evaluation.settings) > 1 else "comparison with another setting does."
    else:
        text += f"no interval was computed for {measure}, so differences may be chance."
    most = max((first_unjudged(evaluation, setting) for setting in evaluation.settings), default=0)
    if most:
        most_of = f"up to {most}" if len(evaluation.settings) > 1 else f"{most}"
        text += f" For {most_of} of them the first page was judged by nobody: it counts as wrong, and may be right."
    return text


def headline(evaluation: Evaluation) -> str:
    """One sentence for somebody who reads no further: how often the right page comes, with the first setting."""
    setting = evaluation.settings[0]
    judged_results = [result for result in setting.per_query if result.measures]
    if not judged_results:
        return f"{count(len(evaluation.queries), 'question')} were asked, and none has a judged page."
    first, five = answered(evaluation, setting, 1), answered(evaluation, setting, 5)
    total = len(judged_results)
    several = len(evaluation.settings) > 1
    with_it = f"With {quoted(setting.name)}, the first setting," if several else f"With {quoted(setting.name)},"
    return (
        f"{with_it} a right page comes first for {first} of {count(total, 'question')} ({first / total:.0%}), "
        f"and is among the first five for {five} ({five / total:.0%})."
    )
