"""The command ``evaluate``: measure retrieval on a judged folder; create and check such a folder."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from jina_rag.cli.benchmark import benchmark
from jina_rag.cli.common import JsonOption, check_parent_folder
from jina_rag.cli.negation import negation
from jina_rag.cli.output import console
from jina_rag.cli.output import evaluation as evaluation_output
from jina_rag.cli.output.evaluation_files import write_files

if TYPE_CHECKING:
    from jina_rag.evaluation.comparison import EvaluationHooks

_MEASURE = "measure"
_BENCHMARK = "benchmark"
_BENCHMARK_OPTIONS = ("--benchmark", "-b", "--smoke", "--folder")
"""Options that select public benchmarks instead of a judged folder."""


class _DefaultToMeasure(TyperGroup):
    """Command group that runs `measure` if the first argument is not a subcommand: ``evaluate DIR``."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:  # noqa: ANN401
        """Return the context of the named command, or of `measure`."""
        if any(arg.split("=")[0] in _BENCHMARK_OPTIONS for arg in args):
            return self.commands[_BENCHMARK].make_context(info_name, args, parent=parent, **extra)
        if args and args[0] in self.commands:
            return super().make_context(info_name, args, parent=parent, **extra)
        return self.commands[_MEASURE].make_context(info_name, args, parent=parent, **extra)


evaluate_app = typer.Typer(
    name="evaluate",
    cls=_DefaultToMeasure,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Measure retrieval on judged queries or public benchmarks.",
)
evaluate_app.command(_BENCHMARK, hidden=True)(benchmark)
evaluate_app.command()(negation)

FolderArgument = Annotated[
    Path,
    typer.Argument(help="Judged folder: docs.jsonl, queries.jsonl or queries.csv, and the documents.", metavar="DIR"),
]


@evaluate_app.command(_MEASURE, hidden=True)
def measure(
    folder: FolderArgument,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            "-i",
            help="Location of the indexes, which later runs reuse. "
            "Each combination of embedder and storage has its own index.",
            metavar="DIR|URL",
            show_default="temporary folder",
        ),
    ] = None,
    embedder: Annotated[
        list[str] | None,
        typer.Option("--embedder", "-e", help="Embedding model. Repeatable.", metavar="NAME", show_default="lite"),
    ] = None,
    storage: Annotated[
        list[str] | None,
        typer.Option(
            help="Vector storage: exact, balanced or compact. Repeatable.", metavar="NAME", show_default="exact"
        ),
    ] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option(
            help="Search stages: default, or stages as in `jina-rag search --stage`, joined by +. Repeatable.",
            metavar="STAGE+…",
            show_default="default",
        ),
    ] = None,
    reranker: Annotated[
        list[str] | None,
        typer.Option(
            help="Model that reranks the best pages, or none. Repeatable.", metavar="NAME", show_default="none"
        ),
    ] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            "-m",
            help="nDCG@K, Recall@K, RR@K, AP@K or P@K. Repeatable.",
            metavar="NAME@K",
            show_default="nDCG@5, nDCG@10, Recall@1, Recall@5, Recall@10, RR@10",
        ),
    ] = None,
    no_latency: Annotated[
        bool, typer.Option("--no-latency", help="Search in batches, which is faster, and measure no latency.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Search again instead of reusing the cached rankings of an earlier run.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write a self-contained HTML report with plots and page images.", metavar="OUT.html", dir_okay=False
        ),
    ] = None,
    failures: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1000,
            help="Number of queries to list with the lowest values of the first measure.",
            metavar="N",
            show_default="0; 10 in the report",
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the measures as a Markdown table.", metavar="OUT.md", dir_okay=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Write the rankings, one query per line.", metavar="OUT.jsonl", dir_okay=False),
    ] = None,
    trec: Annotated[
        Path | None,
        typer.Option(help="Write run and qrels files for trec_eval and ir_measures.", metavar="DIR", file_okay=False),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write all results, for --compare in a later run.", metavar="OUT.json", dir_okay=False),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Compare with the results of an earlier --save.", metavar="OTHER.json", dir_okay=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap intervals.", metavar="N")] = 0,
    json: JsonOption = False,
) -> None:
    """Measure retrieval on judged queries: nDCG, Recall, RR, latency and index size.

    Repeat an option to compare several settings in one run.
    With --index, a later run reuses the indexes and the cached rankings, even after an interruption.

    Related commands (add --help for the options):

      jina-rag evaluate init DIR            Create a judged folder.
      jina-rag evaluate check DIR           Check a judged folder.
      jina-rag evaluate --benchmark NAME    Run a public benchmark.
      jina-rag evaluate negation            Run the negation test.

    Examples:

      jina-rag evaluate judged --index kb
      jina-rag evaluate judged -i kb -e lite -e lite-en --report report.html
      jina-rag evaluate judged -i kb --storage exact --storage compact
      jina-rag evaluate judged -i kb --stages rescore:dense=0+rerank:model=lite
      jina-rag evaluate judged -i kb --save baseline.json
      jina-rag evaluate judged -i new-kb --compare baseline.json
    """
    from jina_rag.evaluation.comparison import compare_runs, evaluate_settings
    from jina_rag.evaluation.datasets import read_folder
    from jina_rag.evaluation.measures import MEASURES, parse_measures
    from jina_rag.evaluation.serialization import load
    from jina_rag.evaluation.settings import cross_product

    out, err = console.consoles()
    paths = {"report": report, "markdown": markdown, "run": run, "trec": trec, "save": save}
    for path in filter(None, paths.values()):
        check_parent_folder(path)
    names = parse_measures(measures) if measures else MEASURES
    rerankers = [None if name.lower() == "none" else name for name in reranker or []]
    settings = cross_product(embedder or [], storage or [], stages or [], rerankers)
    earlier_evaluation = None if compare is None else load(compare)
    folder_data = read_folder(folder)
    with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
        evaluation = evaluate_settings(
            folder_data,
            settings,
            indexes=index or str(Path(scratch) / "index"),
            measures=names,
            latency=not no_latency,
            force=force,
            seed=seed,
            command=shlex.join(["jina-rag", *sys.argv[1:]]),
            hooks=_hooks(quiet=json),
        )
        comparisons = (
            compare_runs(earlier_evaluation, evaluation, earlier_name=compare.name)
            if compare and earlier_evaluation
            else []
        )
        # The report embeds page images of the index, so it is written before a temporary index is deleted.
        write_files(evaluation, comparisons, folder_data, paths, failures=failures)
    if json:
        console.print_json(evaluation_output.evaluation_json(evaluation, comparisons))
    else:
        evaluation_output.print_evaluation(out, err, evaluation, comparisons)
        if failures:
            evaluation_output.print_failures(out, evaluation, failures)
    if report is not None and not json:
        err.print(f"Open the report in a browser: {console.one_line(report.resolve().as_uri())}", soft_wrap=True)
    raise typer.Exit(console.PARTLY if any(setting.failed for setting in evaluation.settings) else console.OK)


@evaluate_app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Judged folder to create or update.", metavar="DIR")],
    documents: Annotated[
        list[str] | None,
        typer.Option(
            "--documents", "-d", help="Folder of the documents. Repeatable.", metavar="FOLDER", show_default="DIR"
        ),
    ] = None,
    no_images: Annotated[bool, typer.Option("--no-pictures", help="Render no page images.")] = False,
    json: JsonOption = False,
) -> None:
    """Create a judged folder: docs.jsonl, pages.html with all pages, and queries.csv to fill in.

    Open pages.html in a browser and queries.csv in a spreadsheet.
    Write one query per row, with the document and the page that answer it.
    Run the command again after adding documents. Existing queries stay unchanged.

    Examples:

      jina-rag evaluate init judged --documents reports/
      jina-rag evaluate check judged
    """
    from jina_rag.evaluation.scaffold import make_scaffold
    from jina_rag.parsing.sources import path_list

    out, err = console.consoles()
    with console.counting(err, "pages", quiet=json) as progress:
        scaffold = make_scaffold(
            folder, [Path(name) for name in path_list(documents or [folder])], images=not no_images, progress=progress
        )
    if json:
        console.print_json(scaffold.to_json())
    else:
        err.print(
            f"Listed {console.count(scaffold.documents, 'document')} with {console.count(scaffold.pages, 'page')} in "
            f"{console.one_line(folder / 'docs.jsonl')}.",
            soft_wrap=True,
        )
        evaluation_output.print_failed(err, scaffold.failed)
        if scaffold.sheet is not None:
            out.print(f"Write the queries into {console.one_line(scaffold.sheet)}", soft_wrap=True)
        if scaffold.contact_sheet is not None:
            address = console.one_line(scaffold.contact_sheet.resolve().as_uri())
            out.print(f"View the pages in {address}", soft_wrap=True)
    raise typer.Exit(console.PARTLY if scaffold.failed else console.OK)


@evaluate_app.command()
def check(
    folder: FolderArgument,
    ocr: Annotated[
        bool, typer.Option("--ocr", help="Run OCR on pages without text, to find queries copied from such pages.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Convert queries.csv to queries.jsonl, for other programs.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check the files, pages, grades and queries of a judged folder.

    Reports duplicate queries, and queries copied from the relevant page.
    The exit status is 1 if the check finds a problem.

    Examples:

      jina-rag evaluate check judged
      jina-rag evaluate check judged --write
    """
    from jina_rag.evaluation.checks import check_folder
    from jina_rag.evaluation.scaffold import write_queries

    out, err = console.consoles()
    if write:
        path, number = write_queries(folder)
    with console.counting(err, "documents", quiet=json) as progress:
        result = check_folder(folder, ocr=ocr, progress=progress)
    if json:
        console.print_json(result.to_json() | ({"written": str(path)} if write else {}))
    else:
        evaluation_output.print_check(out, result)
        if write:
            err.print(f"Wrote {console.count(number, 'query', 'queries')} to {console.one_line(path)}.", soft_wrap=True)
    raise typer.Exit(console.PARTLY if result.findings else console.OK)


def _hooks(*, quiet: bool) -> EvaluationHooks:
    from jina_rag.evaluation.comparison import EvaluationHooks
    from jina_rag.index.document_index import DocumentIndex
    from jina_rag.types import IngestReport

    _, err = console.consoles()

    def ingest(index: DocumentIndex, paths: Sequence[Path]) -> IngestReport:
        with console.ingest_progress(err, quiet=quiet) as progress:
            return index.ingest(paths, progress=progress)

    return EvaluationHooks(
        ingest, lambda name: console.counting(err, f"searching with {console.one_line(name)}", quiet=quiet)
    )
