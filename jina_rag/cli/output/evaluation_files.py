"""Output files of ``evaluate``: report, Markdown table, rankings, qrels and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jina_rag.evaluation.datasets import JudgedFolder
    from jina_rag.evaluation.results import Evaluation, PairedComparison


def write_files(
    evaluation: Evaluation,
    earlier: Sequence[PairedComparison],
    folder: JudgedFolder,
    paths: Mapping[str, Path | None],
    *,
    failures: int | None,
) -> None:
    """Write the requested files.

    Args:
        evaluation: Results of all settings.
        earlier: Comparisons with an earlier evaluation, for the report and the Markdown table.
        folder: Judged folder with the documents and queries.
        paths: File or folder of each output, None for an output that was not requested.
        failures: Number of lowest-scoring queries in the report; None for 10.
    """
    from jina_rag.evaluation import trec as trec_files
    from jina_rag.evaluation.files import make_folder, write_text
    from jina_rag.evaluation.results import ranked_pages
    from jina_rag.evaluation.runner import write_run
    from jina_rag.evaluation.serialization import save as save_results

    rankings = {setting.name: ranked_pages(setting.per_query) for setting in evaluation.settings}
    if save := paths["save"]:
        save_results(save, evaluation)
    if run := paths["run"]:
        for path, name in _files(run, rankings):
            write_run(path, rankings[name])
    if trec := paths["trec"]:
        make_folder(trec, label="The folder")
        for path, name in _files(trec / trec_files.RUN, rankings):
            trec_files.write_trec_run(path, rankings[name], name=name)
        trec_files.write_qrels(trec / trec_files.QRELS, folder.queries)
        trec_files.write_qrels(trec / trec_files.GAINS, folder.queries, gains=True)
    with_comparisons = replace(evaluation, comparisons=(*evaluation.comparisons, *earlier))
    if markdown := paths["markdown"]:
        from jina_rag.evaluation.report import markdown as as_markdown

        write_text(markdown, as_markdown(with_comparisons), label="table")
    if report := paths["report"]:
        from jina_rag.evaluation.report import write_html

        write_html(with_comparisons, report, documents=folder.documents, failures=10 if failures is None else failures)


def _files(path: Path, rankings: Mapping[str, object]) -> list[tuple[Path, str]]:
    """Return one path per setting: `path` for a single setting, else `path` with the name of each setting inserted."""
    from jina_rag.evaluation.settings import file_names

    if len(rankings) == 1:
        return [(path, next(iter(rankings)))]
    parts = file_names(list(rankings))
    return [
        (path.with_name(f"{path.stem}.{part}{path.suffix}"), name) for part, name in zip(parts, rankings, strict=True)
    ]
