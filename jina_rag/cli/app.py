"""The commands that fill and search an index, and the way out of all of them.

Each command parses its arguments, calls a public function and prints what came back.
Exit status: 0 done, 1 done with failures listed, 2 wrong usage or input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jina_rag.cli import care, output, tools
from jina_rag.cli.common import (
    EmbedderOption,
    FilesOption,
    IndexOption,
    JsonOption,
    StorageOption,
    app,
    existing,
    filters,
    folder_exists,
    limits_of,
    pairs,
    passwords_of,
    write_picture,
)
from jina_rag.errors import IndexNotFoundError, JinaRagError

if TYPE_CHECKING:
    from jina_rag.retrieval.estimate import IngestPlan

_REGISTERED = (care, tools)
"""Modules whose import adds their commands."""


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders, globs.", metavar="PATH…", show_default=False)],
    index: IndexOption,
    embedder: EmbedderOption = None,
    storage: StorageOption = None,
    meta: Annotated[
        list[str] | None,
        typer.Option("--meta", help="Metadata for these documents; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    sync: Annotated[bool, typer.Option("--sync", help="Remove documents whose file is gone from there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, how long it takes, how much disk.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Read and embed unchanged documents, too.")] = False,
    password: Annotated[
        list[str] | None,
        typer.Option("--password", help="Tried on encrypted files; repeatable.", metavar="TEXT"),
    ] = None,
    passwords: Annotated[
        Path | None,
        typer.Option(help="JSON list of passwords, or object from file globs to passwords.", metavar="FILE.json"),
    ] = None,
    ocr: Annotated[str, typer.Option(help="auto: where pixels hold text that the file lacks; always; never.")] = "auto",
    renderer: Annotated[str, typer.Option(help="What renders PDFs: auto, pymupdf, pypdfium2.")] = "auto",
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="Such as max_seconds=120 or max_pages=50000; repeatable.", metavar="NAME=N"),
    ] = None,
    files: FilesOption = None,
    json: JsonOption = False,
) -> None:
    """Index PDFs, images and office files. What is known and unchanged is left alone; Ctrl-C leaves a usable index.

    Examples:

      jina-rag ingest docs/ --index kb

      jina-rag ingest docs/ --index kb --sync --dry-run

      jina-rag ingest report.pdf scans/ --index kb --meta year=2025

      jina-rag ingest docs/ --index http://localhost:6333/docs --storage balanced
    """
    from jina_rag.config import IngestSettings
    from jina_rag.retrieval.index import DocumentIndex

    _, err = output.consoles()
    settings = IngestSettings(
        passwords=passwords_of(password or [], passwords),
        ocr=ocr,  # type: ignore[arg-type]  # checked when made
        renderer=renderer,  # type: ignore[arg-type]
        limits=limits_of(limit or []),
    )
    metadata = pairs(meta, "--meta") if meta else None
    existing(paths)
    if dry_run:
        where = {"embedder": embedder, "storage": storage, "files": files}
        with output.waiting(err, "looking", quiet=json):
            plan = _planned(index, where, paths, metadata=metadata, settings=settings, sync=sync, again=again)
        if json:
            output.print_json(output.plan_json(plan))
        else:
            output.print_plan(output.consoles()[0], err, plan)
        raise typer.Exit(output.PARTLY if plan.failed else output.OK)
    with (
        DocumentIndex.open(index, embedder=embedder, storage=storage, files=files) as opened,
        output.ingest_progress(err, quiet=json) as progress,
    ):
        report = opened.ingest(paths, metadata=metadata, settings=settings, progress=progress, sync=sync, again=again)
    if json:
        output.print_json(output.ingest_json(report))
    else:
        output.print_report(err, report)
    raise typer.Exit(output.INTERRUPTED if report.interrupted else output.PARTLY if report.failed else output.OK)


def _planned(index: str, where: dict[str, Any], paths: list[Path], **options: Any) -> IngestPlan:  # noqa: ANN401
    """The plan; where there is no index yet, that of one which is thrown away."""
    from jina_rag.retrieval.index import DocumentIndex

    try:
        with DocumentIndex.open(index, create=False, **where) as opened:
            return opened.plan(paths, **options)
    except IndexNotFoundError:
        with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
            with DocumentIndex.open(Path(scratch) / "index", **(where | {"files": None})) as opened:
                return opened.plan(paths, **options)


@app.command()
def search(
    index: IndexOption,
    question: Annotated[
        str | None, typer.Argument(help="In any language.", metavar="QUERY", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many pages.", min=1, max=10_000)] = 5,
    filter: Annotated[  # the option's name
        list[str] | None,
        typer.Option(
            "--filter",
            help="Only pages with this metadata, or path=GLOB; repeatable, a key given twice matches either value.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option(help="Draw where the best page answers.", metavar="OUT.png", dir_okay=False)
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="Ask many questions: one JSON object with qid and query a line.", metavar="FILE.jsonl"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Where the rankings for --queries go.", metavar="OUT.jsonl", dir_okay=False),
    ] = None,
    files: FilesOption = None,
    json: JsonOption = False,
) -> None:
    """Rank pages for a question.

    Examples:

      jina-rag search "Which region grew fastest?" --index kb

      jina-rag search "termination notice" -i kb --filter "path=contracts/*" --heatmap where.png

      jina-rag search -i kb --queries questions.jsonl --run run.jsonl
    """
    if (queries is None) != (run is None):
        raise typer.BadParameter("--queries and --run go together.")
    if (question is None) == (queries is None):
        raise typer.BadParameter("Give a QUERY, or --queries FILE.jsonl with --run OUT.jsonl.")
    out, err = output.consoles()
    where = filters(filter or [])
    if queries is not None and run is not None:
        if heatmap is not None or where:
            raise typer.BadParameter("--heatmap and --filter go with a single QUERY.")
        folder_exists(run)
        _search_many(index, files, queries, run, k, json=json)
        return
    assert question is not None
    if heatmap is not None:
        if heatmap.suffix.lower() != ".png":
            raise typer.BadParameter(f"--heatmap {str(heatmap)!r}: a heat map is a PNG, so give a name in .png.")
        folder_exists(heatmap)
    from jina_rag.retrieval.index import DocumentIndex

    with DocumentIndex.open(index, create=False, files=files) as opened:
        hits = opened.search(question, k=k, filter=where)
        if heatmap is not None and hits:
            best = hits[0]
            picture = opened.explain(question, best).picture(
                frame=best.region.box if best.region else None, label=best.region.kind if best.region else ""
            )
            write_picture(picture, heatmap)
    if json:
        output.print_json(output.search_json(question, hits))
    else:
        output.print_hits(out, question, hits)
        if heatmap is not None and hits:
            err.print(f"Heat map of rank 1: {output.shown(heatmap)}")


def _search_many(index: str, files: Path | None, queries: Path, run: Path, k: int, *, json: bool) -> None:
    from jina_rag.evaluation.datasets import read_queries
    from jina_rag.evaluation.runner import search_all, write_run
    from jina_rag.retrieval.index import DocumentIndex

    asked = read_queries(queries)
    with DocumentIndex.open(index, create=False, files=files) as opened:
        ranking = search_all(opened, asked, k=max(k, 10))
    write_run(run, ranking)
    if json:
        output.print_json({"queries": len(asked), "run": str(run)})
    else:
        output.consoles()[1].print(
            f"Asked {output.count(len(asked), 'question')}; the rankings are in {output.shown(run)}."
        )


def main() -> None:
    """Run the command line; no traceback reaches its user (set JINA_RAG_DEBUG=1 to see it)."""
    try:
        app()
    except JinaRagError as exc:
        _leave(str(exc))
    except OSError as exc:
        where = f" {output.shown(exc.filename)}:" if exc.filename else ""
        _leave(f"The system refused:{where} {exc.strerror or exc}.")
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(output.INTERRUPTED) from None
    except Exception as exc:
        _leave(f"This is a defect of jina-rag, please report it: {type(exc).__name__}: {exc}")


def _leave(message: str) -> None:
    if os.environ.get("JINA_RAG_DEBUG"):
        raise  # called from except clauses only
    _, err = output.consoles()
    err.print(f"[red]Error:[/] {output.shown(message)}", soft_wrap=True)
    raise SystemExit(output.USAGE)
