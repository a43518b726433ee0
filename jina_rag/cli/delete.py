"""The command ``delete``: delete documents from an index."""

from __future__ import annotations

from typing import Annotated

import typer

from jina_rag.cli.common import AssetsOption, IndexOption, JsonOption, filters, open_index
from jina_rag.cli.output import console


def delete(
    index: IndexOption,
    documents: Annotated[
        list[str] | None,
        typer.Argument(
            help="Document ids, files, folders or globs; * matches within one folder, ** across folders.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    filter: Annotated[  # shadows the built-in to name the option
        list[str] | None,
        typer.Option(
            help="Delete the documents that match: metadata (=, >=, <=, > or <, also of dates) or path=GLOB. "
            "Repeatable: all keys must match; values of one key are alternatives.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    assets_dir: AssetsOption = None,
    json: JsonOption = False,
) -> None:
    """Delete documents and their page images from an index.

    The source files are not deleted.

    Examples:

      jina-rag delete docs/old.pdf --index kb
      jina-rag delete "reports/2019-*" --index kb
      jina-rag delete --filter year=2019 --index kb
    """
    _, err = console.consoles()
    filter_mapping = filters(filter or [])
    if not documents and not filter_mapping:
        raise typer.BadParameter("Pass a PATH or a --filter.")
    with open_index(index, assets_dir) as document_index:
        names: list[str | None] = [*documents] if documents else [None]
        counts = {name: document_index.delete(name, filter=filter_mapping or None) for name in names}
    missing = [name or "the filter" for name, count in counts.items() if not count]
    removed = sum(counts.values())
    if json:
        failed = [{"path": name, "reason": "No such document in the index."} for name in missing]
        console.print_json({"removed": removed, "failed": failed})
    else:
        err.print(f"Deleted {console.count(removed, 'document')}.")
        for name in missing:
            err.print(
                f"[red]No document matches {console.one_line(name)}.[/] "
                "Run `jina-rag info --documents` to list the documents.",
                soft_wrap=True,
            )
    raise typer.Exit(console.PARTLY if missing else console.OK)
