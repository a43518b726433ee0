"""The command ``copy``: an index to another place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jina_rag.cli.common import JsonOption, open_index
from jina_rag.cli.output import console


def copy(
    source: Annotated[str, typer.Argument(help="Index to copy: folder or address.", metavar="FROM")],
    target: Annotated[str, typer.Argument(help="Where to: folder or address.", metavar="TO")],
    assets_dir: Annotated[
        Path | None, typer.Option(help="With a server as target: folder for images and manifest.", metavar="DIR")
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
    _, err = console.consoles()
    with open_index(source, source_assets_dir) as document_index:
        with console.counting(err, "points", quiet=json) as progress:
            points_sent = document_index.copy(target, assets_dir=assets_dir, progress=progress)
        index_info = document_index.info()
    if json:
        console.print_json({"documents": index_info.documents, "pages": index_info.pages, "points_sent": points_sent})
    else:
        documents = console.count(index_info.documents, "document")
        err.print(f"Copied {documents} to {console.one_line(target)}, {points_sent} points sent.")
