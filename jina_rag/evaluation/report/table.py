"""The tables of an evaluation as Markdown, to paste into a README or a pull request."""

from __future__ import annotations

import re

from jina_rag.evaluation.report.findings import best, caution, fingerprints, quoted, verdicts
from jina_rag.evaluation.report.formatting import (
    count,
    interval,
    listed,
    milliseconds,
    moment,
    number,
    plain,
    seconds,
    signed,
    size,
)
from jina_rag.evaluation.results import Evaluation, SettingResult

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$#])")


def markdown(evaluation: Evaluation) -> str:
    """Settings by measures with intervals, differences, and where the figures come from.

    Returns:
        Markdown with tables as GitHub draws them. Bold is the best of a column where the paired interval against every
        other setting excludes zero.
    """
    if not evaluation.settings:
        return "Nothing was evaluated.\n"
    blocks = ["\n".join(_settings(evaluation)), escaped(caution(evaluation))]
    if evaluation.compared:
        blocks.append("\n".join(_differences(evaluation)))
    blocks.append("\n".join(_provenance(evaluation)))
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, on one line of a table."""
    return _SPECIAL.sub(r"\\\1", plain(text))


def _settings(evaluation: Evaluation) -> list[str]:
    measures = list(evaluation.settings[0].measures)
    depths = sorted({k for setting in evaluation.settings for k in setting.unjudged})
    depth = 5 if 5 in depths else depths[0] if depths else 0
    heads = ["setting", *map(escaped, measures), "p50 / p90", "bytes a page", "index"]
    heads += [f"unjudged in first {depth}"] if depth else []
    marked = best(evaluation)
    lines = [_line(heads), _line([" --- "] * len(heads), bare=True)]
    for setting in evaluation.settings:
        cells = [escaped(setting.name), *(_measure(setting, name, marked) for name in measures)]
        times = " / ".join(milliseconds(setting.latency[name]) for name in ("p50", "p90")) if setting.latency else "–"
        cells.append(_bold(times, setting.name in marked.get("milliseconds", ())))
        cells.append(_bold(size(setting.vector_bytes_per_page), setting.name in marked.get("bytes", ())))
        cells.append(seconds(setting.index_seconds) if setting.index_seconds else "–")
        cells += [f"{setting.unjudged.get(depth, 0.0):.1f}"] if depth else []
        lines.append(_line(cells))
    return lines


def _measure(setting: SettingResult, name: str, marked: dict[str, tuple[str, ...]]) -> str:
    value = _bold(number(setting.measures.get(name, float("nan"))), setting.name in marked.get(name, ()))
    ends = interval(setting.intervals.get(name))
    return f"{value} ({ends})" if ends else value


def _differences(evaluation: Evaluation) -> list[str]:
    heads = ["compared", "measure", "difference", "95 % interval", "better / worse / equal", "in words"]
    lines = [_line(heads), _line([" --- "] * len(heads), bare=True)]
    for verdict in verdicts(evaluation):
        compared, found = verdict.compared, verdict.compared.difference
        cells = [
            escaped(f"{quoted(compared.second)} − {quoted(compared.first)}"),
            escaped(compared.measure),
            _bold(signed(found.mean), verdict.kind in ("better", "worse")),
            f"{signed(found.low)} to {signed(found.high)}",
            f"{found.better} / {found.worse} / {verdict.equal}",
            escaped(verdict.sentence),
        ]
        lines.append(_line(cells))
    return lines


def _provenance(evaluation: Evaluation) -> list[str]:
    setting = evaluation.settings[0]
    asked = len(evaluation.queries) or len(setting.per_query)
    data = f"- Data: {escaped(evaluation.folder)}, {count(setting.pages, 'page')}, {count(asked, 'question')}"
    data += f" ({setting.queries:,} judged), SHA-256 {escaped(evaluation.data_hash)}"
    lines = [data, f"- Command: {_code(evaluation.command)}"]
    if evaluation.when:
        lines.append(f"- Begun {escaped(moment(evaluation.when))}, took {seconds(evaluation.seconds)}")
    lines.append(f"- Intervals: 95 %, bootstrap over questions, seed {evaluation.seed}")
    lines.append("- Versions: " + ", ".join(f"{escaped(k)} {escaped(v)}" for k, v in evaluation.versions.items()))
    for fingerprint, names in fingerprints(evaluation).items():
        lines.append(f"- Vectors of {escaped(listed(names))}: {_code(fingerprint)}")
    return lines


def _bold(text: str, marked: bool) -> str:
    return f"**{text}**" if marked else text


def _code(text: str) -> str:
    """A code span that its content cannot end."""
    text = plain(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _line(cells: list[str], *, bare: bool = False) -> str:
    return "|" + "|".join(cell if bare else f" {cell} " for cell in cells) + "|"
