"""Markdown tables of an evaluation, for a README or a pull request."""

from __future__ import annotations

import re

from jina_rag._display import displayed
from jina_rag.evaluation.report import formatting
from jina_rag.evaluation.report.findings import best, caution, fingerprints, quote_name, verdicts
from jina_rag.evaluation.report.formatting import count, interval, number, seconds, signed
from jina_rag.evaluation.results import Evaluation, SettingResult

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$#])")


def markdown(evaluation: Evaluation) -> str:
    """Return an evaluation as Markdown: settings with intervals, paired differences and provenance.

    Args:
        evaluation: The evaluation to format. Without a setting, the result is one sentence.

    Returns:
        GitHub-flavored Markdown. Values of the best settings (see `best`) and significant differences are bold.
    """
    if not evaluation.settings:
        return "No setting was evaluated.\n"
    blocks = ["\n".join(_settings(evaluation)), escape(caution(evaluation))]
    if evaluation.comparisons:
        blocks.append("\n".join(_differences(evaluation)))
    blocks.append("\n".join(_provenance(evaluation)))
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Return text for one line of a Markdown table, with Markdown's special characters escaped."""
    return _SPECIAL.sub(r"\\\1", displayed(text))


def _settings(evaluation: Evaluation) -> list[str]:
    measures = list(evaluation.settings[0].measures)
    depths = sorted({k for setting in evaluation.settings for k in setting.unjudged})
    depth = 5 if 5 in depths else depths[0] if depths else 0
    heads = ["setting", *map(escape, measures), "p50 / p90", "bytes per page", "index"]
    heads += [f"unjudged in first {depth}"] if depth else []
    best_settings = best(evaluation)
    lines = [_line(heads), _line([" --- "] * len(heads), bare=True)]
    for setting in evaluation.settings:
        cells = [escape(setting.name), *(_measure(setting, name, best_settings) for name in measures)]
        times = [formatting.milliseconds(setting.latency[name]) for name in ("p50", "p90") if name in setting.latency]
        cells.append(_bold(" / ".join(times) or "–", setting.name in best_settings.get("milliseconds", ())))
        cells.append(
            _bold(formatting.size(setting.vector_bytes_per_page), setting.name in best_settings.get("bytes", ()))
        )
        cells.append(seconds(setting.index_seconds) if setting.index_seconds else "–")
        cells += [f"{setting.unjudged.get(depth, 0.0):.1f}"] if depth else []
        lines.append(_line(cells))
    return lines


def _measure(setting: SettingResult, name: str, best_settings: dict[str, tuple[str, ...]]) -> str:
    value = _bold(number(setting.measures.get(name, float("nan"))), setting.name in best_settings.get(name, ()))
    ends = interval(setting.intervals.get(name))
    return f"{value} ({ends})" if ends else value


def _differences(evaluation: Evaluation) -> list[str]:
    heads = ["compared", "measure", "difference", "95 % interval", "better / worse / equal", "summary"]
    lines = [_line(heads), _line([" --- "] * len(heads), bare=True)]
    for verdict in verdicts(evaluation):
        pair, delta = verdict.comparison, verdict.comparison.difference
        cells = [
            escape(f"{quote_name(pair.second)} − {quote_name(pair.first)}"),
            escape(pair.measure),
            _bold(signed(delta.mean), verdict.kind in ("better", "worse")),
            f"{signed(delta.low)} to {signed(delta.high)}",
            f"{delta.better} / {delta.worse} / {verdict.equal}",
            escape(verdict.sentence),
        ]
        lines.append(_line(cells))
    return lines


def _provenance(evaluation: Evaluation) -> list[str]:
    setting = evaluation.settings[0]
    queries = len(evaluation.queries) or len(setting.per_query)
    data = f"- Data: {escape(evaluation.folder)}, {count(setting.pages, 'page')}, {count(queries, 'query', 'queries')}"
    data += f" ({setting.queries:,} judged), SHA-256 {escape(evaluation.data_hash)}"
    lines = [data, f"- Command: {_code(evaluation.command)}"]
    if evaluation.when:
        lines.append(f"- Started {escape(formatting.timestamp(evaluation.when))}, took {seconds(evaluation.seconds)}")
    lines.append(f"- Intervals: 95 %, bootstrap over queries, seed {evaluation.seed}")
    lines.append("- Versions: " + ", ".join(f"{escape(k)} {escape(v)}" for k, v in evaluation.versions.items()))
    for fingerprint, names in fingerprints(evaluation).items():
        lines.append(f"- Vectors of {escape(formatting.join_names(names))}: {_code(fingerprint)}")
    return lines


def _bold(text: str, marked: bool) -> str:
    return f"**{text}**" if marked else text


def _code(text: str) -> str:
    """Return text as a Markdown code span with a fence longer than any run of backticks in the text."""
    text = displayed(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _line(cells: list[str], *, bare: bool = False) -> str:
    return "|" + "|".join(cell if bare else f" {cell} " for cell in cells) + "|"
