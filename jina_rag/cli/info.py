"""The command ``info``: contents, model and size of an index."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from jina_rag.cli.common import AssetsOption, IndexOption, JsonOption, open_index
from jina_rag.cli.output import console


def info(
    index: IndexOption,
    documents: Annotated[bool, typer.Option("--documents", help="List all documents.")] = False,
    assets_dir: AssetsOption = None,
    json: JsonOption = False,
) -> None:
    """Print the contents, the model and the disk space of an index.

    With --documents, prints the pages, regions and file of each document.

    Example:

      jina-rag info --index kb --documents
    """
    from rich.table import Table

    out, _ = console.consoles()
    with open_index(index, assets_dir) as document_index:
        index_info, records = document_index.info(), document_index.documents()
    if json:
        content: dict[str, Any] = asdict(index_info)
        if documents:
            content["list"] = [
                {"doc_id": r.doc_id, "path": str(r.path), "pages": r.pages, "regions": r.regions, "done": r.is_complete}
                for r in records
            ]
        console.print_json(content)
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("location", console.one_line(index_info.location))
    unfinished = f" and {index_info.pending} unfinished (run ingest again to finish)" if index_info.pending else ""
    table.add_row("documents", f"{index_info.documents}{unfinished}")
    table.add_row("pages", str(index_info.pages))
    table.add_row("charts, tables, figures", str(index_info.regions))
    table.add_row("model", index_info.fingerprint)
    table.add_row("created with", f"jina-rag {index_info.version}")
    table.add_row("storage", index_info.storage)
    total = sum(index_info.bytes.values())
    per_page = f", {console.size(total // index_info.pages)} per page" if index_info.pages else ""
    table.add_row("disk space", console.size(total) + per_page)
    for name, size in index_info.bytes.items():
        table.add_row(f"  {name}", console.size(size))
    out.print(table)
    if documents:
        listing = Table()
        for name in ("document", "pages", "regions", "file"):
            listing.add_column(name, overflow="fold", justify="right" if name in ("pages", "regions") else "left")
        for record in records:
            name = console.one_line(record.doc_id) + ("" if record.is_complete else " [yellow](unfinished)[/]")
            listing.add_row(name, str(record.pages), str(record.regions), console.one_line(record.path))
        out.print(listing)
