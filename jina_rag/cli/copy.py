"""The command ``copy``: copy an index to another folder or server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jina_rag.cli.common import JsonOption, open_index
from jina_rag.cli.output import console


def copy(
    source: Annotated[str, typer.Argument(help="Index to copy: folder or Qdrant collection URL.", metavar="FROM")],
    target: Annotated[str, typer.Argument(help="Target index: folder or Qdrant collection URL.", metavar="TO")],
    assets_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of page images and manifest, only if TO is a Qdrant collection.",
            metavar="DIR",
            show_default="user data folder",
        ),
    ] = None,
    source_assets_dir: Annotated[
        Path | None,
        typer.Option(
            "--from-assets-dir",
            help="Folder of page images and manifest, only if FROM is a Qdrant collection.",
            metavar="DIR",
            show_default="user data folder",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Copy an index to another folder or to a Qdrant server.

    Copies the stored vectors and images; nothing is embedded again.
    Run the same command again to resume an interrupted copy.

    Examples:

      jina-rag copy kb http://localhost:6333/docs
      jina-rag copy kb "http://cluster:6333/docs?grpc=true&shards=6&replicas=2"
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
        err.print(f"Copied {documents} to {console.one_line(target)}; sent {console.count(points_sent, 'point')}.")
