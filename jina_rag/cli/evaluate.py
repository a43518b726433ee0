"""The command ``evaluate``: measure a judged folder, make one, look one over."""

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
from jina_rag.cli.common import JsonOption, folder_exists
from jina_rag.cli.negation import negation
from jina_rag.cli.output import console
from jina_rag.cli.output import evaluation as evaluation_output
from jina_rag.cli.output.evaluation_files import write_files

if TYPE_CHECKING:
    from jina_rag.evaluation.comparison import EvaluationHooks

_MEASURE = "measure"
_BENCHMARK = "benchmark"
_PUBLIC = ("--benchmark", "-b", "--smoke", "--folder")
"""Options of which one asks for public benchmarks in the place of a folder."""


class _FolderFirst(TyperGroup):
    """A group whose first word is a command of its own, or else what `measure` takes: ``evaluate DIR``."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:  # noqa: ANN401
        """The context of `measure`, unless a command is named."""
        if any(arg.split("=")[0] in _PUBLIC for arg in args):
            return self.commands[_BENCHMARK].make_context(info_name, args, parent=parent, **extra)
        if args and args[0] in self.commands:
            return super().make_context(info_name, args, parent=parent, **extra)
        return self.commands[_MEASURE].make_context(info_name, args, parent=parent, **extra)


evaluate_app = typer.Typer(
    name="evaluate",
    cls=_FolderFirst,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Measure retrieval on judged questions; evaluate init makes such a folder, evaluate check looks one over.",
    short_help="Measure retrieval on judged questions.",
)
evaluate_app.command(_BENCHMARK, hidden=True)(benchmark)
evaluate_app.command()(negation)

FolderArgument = Annotated[
    Path,
    typer.Argument(help="Folder with docs.jsonl, queries.jsonl or queries.csv, and the files.", metavar="DIR"),
]


@evaluate_app.command(_MEASURE, hidden=True)
def measure(
    folder: FolderArgument,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            "-i",
            help="Keep the index here, or the indexes of several settings; else thrown away.",
            metavar="DIR|URL",
        ),
    ] = None,
    embedder: Annotated[
        list[str] | None, typer.Option("--embedder", "-e", help="Model; repeatable.", metavar="NAME")
    ] = None,
    storage: Annotated[
        list[str] | None, typer.Option(help="exact, balanced or compact; repeatable.", metavar="NAME")
    ] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option(help="Those of search --stage, joined by +, or default; repeatable.", metavar="STAGE+…"),
    ] = None,
    reranker: Annotated[
        list[str] | None,
        typer.Option(help="Model that judges the best pages, or none; repeatable.", metavar="NAME"),
    ] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option("--measure", "-m", help="nDCG@K, Recall@K, RR@K, AP@K or P@K; repeatable.", metavar="NAME@K"),
    ] = None,
    no_latency: Annotated[
        bool, typer.Option("--no-latency", help="Ask in batches: quicker, and no latency is measured.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Ask questions again that have their answers.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write a report with plots and pictures that opens anywhere.", metavar="OUT.html", dir_okay=False
        ),
    ] = None,
    failures: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Show so many of the worst questions.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the figures as a Markdown table.", metavar="OUT.md", dir_okay=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Write the rankings, one question a line.", metavar="OUT.jsonl", dir_okay=False),
    ] = None,
    trec: Annotated[
        Path | None,
        typer.Option(help="Write rankings and judgements for trec_eval and its kind.", metavar="DIR", file_okay=False),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write all results, to compare a later run with.", metavar="OUT.json", dir_okay=False),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Compare with results that were saved.", metavar="OTHER.json", dir_okay=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    json: JsonOption = False,
) -> None:
    """Measure retrieval on judged questions: nDCG, Recall, RR, latency, size; several settings in one run.

    jina-rag evaluate init DIR makes such a folder.
    jina-rag evaluate check DIR looks one over.
    jina-rag evaluate --benchmark NAME --help: public benchmarks; jina-rag evaluate negation: do models hear a "not"?
    What was indexed and asked before is not done again with --index, also after a run that was killed.

    Examples:

      jina-rag evaluate judged --index eval-kb

      jina-rag evaluate judged -i eval-kbs -e lite -e lite-en --storage exact --storage compact --report report.html

      jina-rag evaluate judged -i eval-kb --stages default --stages rescore:dense=0+rerank:limit=10,model=lite

      jina-rag evaluate judged -i eval-kb --save monday.json; jina-rag evaluate judged -i new-kb --compare monday.json
    """  # fmt: skip
    from jina_rag.evaluation.comparison import compare_runs, evaluate_settings
    from jina_rag.evaluation.datasets import read_folder
    from jina_rag.evaluation.measures import MEASURES, parse_measures
    from jina_rag.evaluation.serialization import load
    from jina_rag.evaluation.settings import cross_product

    out, err = console.consoles()
    paths = {"report": report, "markdown": markdown, "run": run, "trec": trec, "save": save}
    for path in filter(None, paths.values()):
        folder_exists(path)
    names = parse_measures(measures) if measures else MEASURES
    rerankers = [None if name.lower() == "none" else name for name in reranker or []]
    settings = cross_product(embedder or [], storage or [], stages or [], rerankers)
    earlier = None if compare is None else load(compare)
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
        since = compare_runs(earlier, evaluation, earlier_name=compare.name) if compare and earlier else []
        # Before the index is thrown away: the report shows its pictures.
        write_files(evaluation, since, folder_data, paths, failures=failures)
    if json:
        console.print_json(evaluation_output.evaluation_json(evaluation, since))
    else:
        evaluation_output.print_evaluation(out, err, evaluation, since)
        if failures:
            evaluation_output.print_failures(out, evaluation, failures)
    if report is not None and not json:
        err.print(f"Open this in a browser: {console.one_line(report.resolve().as_uri())}", soft_wrap=True)
    raise typer.Exit(console.PARTLY if any(setting.failed for setting in evaluation.settings) else console.OK)


@evaluate_app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make.", metavar="DIR")],
    documents: Annotated[
        list[str] | None,
        typer.Option("--documents", "-d", help="Where the documents lie, if not in DIR; repeatable.", metavar="FOLDER"),
    ] = None,
    no_images: Annotated[bool, typer.Option("--no-pictures", help="Make no pictures of the pages.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a folder to judge: its documents listed, pages.html with their pages, queries.csv to write questions on.

    Open pages.html in a browser and queries.csv in a spreadsheet; write a question, and the doc and page that answer
    it. Run it again when documents were added; questions are never touched.

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
            out.print(f"Write questions into {console.one_line(scaffold.sheet)}", soft_wrap=True)
        if scaffold.contact_sheet is not None:
            address = console.one_line(scaffold.contact_sheet.resolve().as_uri())
            out.print(f"Look at the pages in {address}", soft_wrap=True)
    raise typer.Exit(console.PARTLY if scaffold.failed else console.OK)


@evaluate_app.command()
def check(
    folder: FolderArgument,
    ocr: Annotated[
        bool, typer.Option("--ocr", help="Read pages without text by OCR, to find words leaked from them.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write queries.jsonl from queries.csv, for other programs.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Look a judged folder over: files, pages, grades, questions asked twice, questions copied from their page.

    Exit status 1 where something is found.

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
            err.print(f"Wrote {console.count(number, 'question')} to {console.one_line(path)}.", soft_wrap=True)
    raise typer.Exit(console.PARTLY if result.findings else console.OK)


def _hooks(*, quiet: bool) -> EvaluationHooks:
    from jina_rag.evaluation.comparison import EvaluationHooks
    from jina_rag.index.document_index import DocumentIndex
    from jina_rag.types import IngestReport

    _, err = console.consoles()

    def ingest(index: DocumentIndex, paths: Sequence[Path]) -> IngestReport:
        with console.ingest_progress(err, quiet=quiet) as progress:
            return index.ingest(paths, progress=progress)

    return EvaluationHooks(ingest, lambda name: console.counting(err, f"asking {console.one_line(name)}", quiet=quiet))
