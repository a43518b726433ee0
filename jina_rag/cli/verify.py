"""The command ``verify``: check the consistency of an index."""

from __future__ import annotations

import typer

from jina_rag.cli.common import AssetsOption, IndexOption, JsonOption, open_index
from jina_rag.cli.output import console


def verify(index: IndexOption, assets_dir: AssetsOption = None, json: JsonOption = False) -> None:
    """Check the vectors, images and manifest of an index.

    Prints each problem, and the document to ingest again. Changes nothing.

    Example:

      jina-rag verify --index kb
    """
    out, _ = console.consoles()
    with open_index(index, assets_dir) as document_index:
        problems, index_info = document_index.verify(), document_index.info()
    if json:
        console.print_json(
            {
                "documents": index_info.documents,
                "pages": index_info.pages,
                "problems": [{"doc_id": problem.doc_id, "reason": problem.message} for problem in problems],
            }
        )
    elif not problems:
        out.print(
            f"No problems found in {console.count(index_info.documents, 'document')} "
            f"with {console.count(index_info.pages, 'page')}."
        )
    else:
        for problem in problems:
            prefix = f"{console.one_line(problem.doc_id)}: " if problem.doc_id else ""
            out.print(f"[red]{prefix}[/]{console.one_line(problem.message)}", soft_wrap=True)
        # `--force` embeds every page again; without it, an interrupted document is resumed.
        force = " --force" if any(problem.needs_force for problem in problems) else ""
        out.print(
            f"Run `jina-rag ingest PATH --index {console.one_line(index)}{force}` with the files or the folder of "
            "these documents.",
            soft_wrap=True,
        )
    raise typer.Exit(console.PARTLY if problems else console.OK)
