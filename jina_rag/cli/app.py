"""The command that fills an index, and the way out of all of them.

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

from jina_rag.cli import care, clean, evaluate, search, tools
from jina_rag.cli.common import (
    EmbedderOption,
    FilesOption,
    IndexOption,
    JsonOption,
    StorageOption,
    app,
    existing,
    limits_of,
    metadata_of,
    passwords_of,
)
from jina_rag.cli.output import console
from jina_rag.errors import IndexNotFoundError, JinaRagError

if TYPE_CHECKING:
    from jina_rag.indexing.dry_run import IngestPlan

_REGISTERED = (search, care, evaluate, clean, tools)
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
    force: Annotated[bool, typer.Option("--force", help="Read and embed unchanged documents, too.")] = False,
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
    assets_dir: FilesOption = None,
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
    from jina_rag.index.document_index import DocumentIndex

    _, err = console.consoles()
    settings = IngestSettings(
        passwords=passwords_of(password or [], passwords),
        ocr=ocr,  # type: ignore[arg-type]  # checked when made
        renderer=renderer,  # type: ignore[arg-type]
        limits=limits_of(limit or []),
    )
    metadata = metadata_of(meta) if meta else None
    existing(paths)
    if dry_run:
        where = {"embedder": embedder, "storage": storage, "assets_dir": assets_dir}
        with console.waiting(err, "looking", quiet=json):
            plan = _planned(index, where, paths, metadata=metadata, settings=settings, sync=sync, force=force)
        if json:
            console.print_json(console.plan_json(plan))
        else:
            console.print_plan(console.consoles()[0], err, plan)
        raise typer.Exit(console.PARTLY if plan.failed else console.OK)
    with (
        DocumentIndex.open(index, embedder=embedder, storage=storage, assets_dir=assets_dir) as opened,
        console.ingest_progress(err, quiet=json) as progress,
    ):
        report = opened.ingest(paths, metadata=metadata, settings=settings, progress=progress, sync=sync, force=force)
    if json:
        console.print_json(console.ingest_json(report))
    else:
        console.print_report(err, report)
    raise typer.Exit(console.INTERRUPTED if report.interrupted else console.PARTLY if report.failed else console.OK)


def _planned(index: str, where: dict[str, Any], paths: list[Path], **options: Any) -> IngestPlan:  # noqa: ANN401
    """The plan; where there is no index yet, that of one which is thrown away."""
    from jina_rag.index.document_index import DocumentIndex

    try:
        with DocumentIndex.open(index, create=False, **where) as opened:
            return opened.plan(paths, **options)
    except IndexNotFoundError:
        with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
            with DocumentIndex.open(Path(scratch) / "index", **(where | {"assets_dir": None})) as opened:
                return opened.plan(paths, **options)


def main() -> None:
    """Run the command line; no traceback reaches its user (set JINA_RAG_DEBUG=1 to see it)."""
    try:
        app()
    except JinaRagError as exc:
        _leave(str(exc))
    except OSError as exc:
        where = f" {console.shown(exc.filename)}:" if exc.filename else ""
        _leave(f"The system refused:{where} {exc.strerror or exc}.")
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(console.INTERRUPTED) from None
    except Exception as exc:
        _leave(f"This is a defect of jina-rag, please report it: {type(exc).__name__}: {exc}")


def _leave(message: str) -> None:
    if os.environ.get("JINA_RAG_DEBUG"):
        raise  # called from except clauses only
    _, err = console.consoles()
    err.print(f"[red]Error:[/] {console.shown(message)}", soft_wrap=True)
    raise SystemExit(console.USAGE)
