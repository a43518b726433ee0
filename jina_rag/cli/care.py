"""The commands that tend an index: remove, info, verify, copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jina_rag.cli.common import FilesOption, IndexOption, JsonOption, app, filters
from jina_rag.cli.output import console


@app.command()
def remove(
    index: IndexOption,
    documents: Annotated[
        list[str] | None,
        typer.Argument(help="Document ids, files, folders, or globs over ids.", metavar="PATH…", show_default=False),
    ] = None,
    filter: Annotated[  # the option's name
        list[str] | None,
        typer.Option(
            "--filter",
            help="Documents with this metadata, or path=GLOB; repeatable, all must hold.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    assets_dir: FilesOption = None,
    json: JsonOption = False,
) -> None:
    """Take documents out of the index, their images too. The documents themselves are not touched.

    Examples:

      jina-rag remove docs/old.pdf --index kb

      jina-rag remove "reports/2019-*" --index kb

      jina-rag remove --filter year=2019 --index kb
    """
    from jina_rag.index.document_index import DocumentIndex

    _, err = console.consoles()
    where = filters(filter or [])
    if not documents and not where:
        raise typer.BadParameter("Name documents, or give a --filter.")
    removed, missing = 0, []
    with DocumentIndex.open(index, create=False, assets_dir=assets_dir) as opened:
        asked: list[str | None] = [*documents] if documents else [None]
        for document in asked:
            count = opened.delete(document, filter=where or None)
            removed += count
            if not count:
                missing.append(document or "the filter")
    if json:
        console.print_json(
            {
                "removed": removed,
                "failed": [{"path": m, "reason": "No such document in the index."} for m in missing],
            }
        )
    else:
        err.print(f"Removed {console.count(removed, 'document')}.")
        for name in missing:
            err.print(
                f"[red]No such document in the index:[/] {console.shown(name)} (`jina-rag info --documents` lists them)"
            )
    raise typer.Exit(console.PARTLY if missing else console.OK)


@app.command()
def info(
    index: IndexOption,
    documents: Annotated[bool, typer.Option("--documents", help="List every document.")] = False,
    assets_dir: FilesOption = None,
    json: JsonOption = False,
) -> None:
    """What an index holds, which model made it, what it weighs.

    Example:

      jina-rag info --index kb --documents
    """
    from rich.table import Table

    from jina_rag.index.document_index import DocumentIndex

    out, _ = console.consoles()
    with DocumentIndex.open(index, create=False, assets_dir=assets_dir) as opened:
        index_info, records = opened.info(), opened.documents()
    if json:
        found: dict[str, Any] = {
            "location": index_info.location,
            "documents": index_info.documents,
            "pages": index_info.pages,
            "regions": index_info.regions,
            "pending": index_info.pending,
            "embedder": index_info.embedder,
            "fingerprint": index_info.fingerprint,
            "version": index_info.version,
            "storage": index_info.storage,
            "bytes": dict(index_info.bytes),
        }
        if documents:
            found["list"] = [
                {
                    "doc_id": r.doc_id,
                    "path": str(r.path),
                    "pages": r.pages,
                    "regions": r.regions,
                    "done": r.done,
                }
                for r in records
            ]
        console.print_json(found)
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("location", console.shown(index_info.location))
    table.add_row(
        "documents",
        f"{index_info.documents}"
        + (f" and {index_info.pending} unfinished (ingest them again to finish)" if index_info.pending else ""),
    )
    table.add_row("pages", str(index_info.pages))
    table.add_row("charts, tables, figures", str(index_info.regions))
    table.add_row("model", index_info.fingerprint)
    table.add_row("made by", f"jina-rag {index_info.version}")
    table.add_row("storage", index_info.storage)
    per_page = (
        f", {console.size(sum(index_info.bytes.values()) // index_info.pages)} a page" if index_info.pages else ""
    )
    table.add_row("on disk", console.size(sum(index_info.bytes.values())) + per_page)
    for name, part in index_info.bytes.items():
        table.add_row(f"  {name}", console.size(part))
    out.print(table)
    if documents:
        listed = Table()
        for name in ("document", "pages", "regions", "file"):
            counts = name in ("pages", "regions")
            listed.add_column(name, overflow="fold", justify="right" if counts else "left")
        for record in records:
            name = console.shown(record.doc_id) + ("" if record.done else " [yellow](unfinished)[/]")
            listed.add_row(name, str(record.pages), str(record.regions), console.shown(record.path))
        out.print(listed)


@app.command()
def verify(index: IndexOption, assets_dir: FilesOption = None, json: JsonOption = False) -> None:
    """Hold vectors, images and manifest of an index against each other; names what to ingest again.

    Example:

      jina-rag verify --index kb
    """
    from jina_rag.index.document_index import DocumentIndex

    out, _ = console.consoles()
    with DocumentIndex.open(index, create=False, assets_dir=assets_dir) as opened:
        problems, index_info = opened.verify(), opened.info()
    if json:
        console.print_json(
            {
                "documents": index_info.documents,
                "pages": index_info.pages,
                "problems": [{"doc_id": problem.doc_id, "reason": problem.what} for problem in problems],
            }
        )
    elif not problems:
        out.print(
            f"In order: {console.count(index_info.documents, 'document')}, {console.count(index_info.pages, 'page')}, "
            "each with its vectors and its image."
        )
    else:
        for problem in problems:
            where = f"{console.shown(problem.doc_id)}: " if problem.doc_id else ""
            out.print(f"[red]{where}[/]{console.shown(problem.what)}", soft_wrap=True)
        out.print("Ingest these documents again with --again, or all of the folder.", soft_wrap=True)
    raise typer.Exit(console.PARTLY if problems else console.OK)


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="Index to copy: folder or address.", metavar="FROM")],
    target: Annotated[str, typer.Argument(help="Where to: folder or address.", metavar="TO")],
    assets_dir: Annotated[
        Path | None,
        typer.Option("--assets-dir", help="With a server as target: folder for images and manifest.", metavar="DIR"),
    ] = None,
    source_assets_dir: Annotated[
        Path | None,
        typer.Option(
            "--from-assets-dir", help="With a server as source: folder of its images and manifest.", metavar="DIR"
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Copy an index to another place, such as a Qdrant server when it outgrew this machine; can be stopped and gone on.

    Examples:

      jina-rag copy kb http://localhost:6333/docs

      jina-rag copy kb "https://cluster.example:6333/docs?grpc=true&shards=6&replicas=2"
    """
    from jina_rag.index.document_index import DocumentIndex

    _, err = console.consoles()
    with DocumentIndex.open(source, create=False, assets_dir=source_assets_dir) as opened:
        with console.counting(err, "points", quiet=json) as progress:
            sent = opened.copy(target, assets_dir=assets_dir, progress=progress)
        index_info = opened.info()
    if json:
        console.print_json({"documents": index_info.documents, "pages": index_info.pages, "points_sent": sent})
    else:
        err.print(
            f"Copied {console.count(index_info.documents, 'document')} to {console.shown(target)}, {sent} points sent."
        )
