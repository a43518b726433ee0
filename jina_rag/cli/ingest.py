"""The command ``ingest``: index documents."""

from __future__ import annotations

import json
import math
import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jina_rag.cli.common import AssetsOption, DeviceOption, EmbedderOption, IndexOption, JsonOption
from jina_rag.cli.output import console, ingestion
from jina_rag.errors import IndexNotFoundError, InvalidInputError

if TYPE_CHECKING:
    from jina_rag.config import Limits
    from jina_rag.indexing.dry_run import IngestPlan
    from jina_rag.types import IngestReport


def ingest(
    # Not Path, which turns an empty string into the current folder.
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or globs; * matches within one folder, ** across folders.",
            metavar="PATH",
            show_default=False,
        ),
    ],
    index: IndexOption,
    embedder: EmbedderOption = None,
    device: DeviceOption = "auto",
    storage: Annotated[
        str | None,
        typer.Option(
            help="Vector storage of a new index: exact, balanced (1/3 of the bytes) or compact (1/9).",
            metavar="NAME",
            show_default="exact",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            help="Metadata to store with these documents, for search --filter: text, number or date. Repeatable.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="Delete indexed documents whose source file no longer exists under PATH.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the planned changes, estimated time and disk space; index nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Parse and embed unchanged documents again.")] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow symbolic links that lead out of the folder PATH.")
    ] = False,
    password: Annotated[
        list[str] | None, typer.Option(help="Password to try on encrypted documents. Repeatable.", metavar="TEXT")
    ] = None,
    passwords: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with a list of passwords, or an object that maps file globs to passwords.",
            metavar="FILE.json",
        ),
    ] = None,
    ocr: Annotated[
        str,
        typer.Option(
            help="OCR: auto (pages with few words, or with large images), always or never.",
            metavar="MODE",
        ),
    ] = "auto",
    renderer: Annotated[
        str,
        typer.Option(
            help="PDF renderer: pymupdf, pypdfium2, or auto (the first of them that is installed).", metavar="NAME"
        ),
    ] = "auto",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="Resource limit, for example max_pages=50000 or max_seconds=120 (per page). Repeatable.",
            metavar="NAME=N",
        ),
    ] = None,
    assets_dir: AssetsOption = None,
    json: JsonOption = False,
) -> None:
    """Index PDFs, images, office and text files.

    Unchanged documents are skipped. Ctrl-C leaves a usable index; run the command again to resume.

    Examples:

      jina-rag ingest docs/ --index kb
      jina-rag ingest docs/ --index kb --sync --dry-run
      jina-rag ingest report.pdf scans/ --index kb --metadata year=2025
      jina-rag ingest docs/ --index kb --embedder jinaai/jina-embeddings-v4 --device cuda:0,cuda:1
      jina-rag ingest docs/ --index http://localhost:6333/docs --storage balanced
    """
    from jina_rag.config import IngestSettings
    from jina_rag.index.document_index import DocumentIndex
    from jina_rag.parsing.sources import find_sources

    out, err = console.consoles()
    settings = IngestSettings(
        passwords=_passwords(password or [], passwords),
        ocr=ocr,  # type: ignore[arg-type]  # IngestSettings checks the value
        renderer=renderer,  # type: ignore[arg-type]
        follow_links=follow_links,
        limits=_limits(limit or []),
    )
    options: dict[str, Any] = {
        "metadata": _metadata(metadata) if metadata else None,
        "settings": settings,
        "sync": sync,
        "force": force,
    }
    find_sources(paths)  # checked before the index is created, because a misspelt path must not create an empty index
    location: dict[str, Any] = {
        "embedder": embedder,
        "storage": storage,
        "assets_dir": assets_dir,
        "device": device,
    }
    if dry_run:
        with console.spinner(err, "planning", quiet=json):
            plan = _plan(index, location, paths, **options)
        if json:
            console.print_json(ingestion.plan_json(plan))
        else:
            ingestion.print_plan(out, err, plan)
        raise typer.Exit(_exit_status(plan))
    with DocumentIndex.open(index, **location) as document_index, console.ingest_progress(err, quiet=json) as progress:
        report = document_index.ingest(paths, progress=progress, **options)
    if json:
        console.print_json(ingestion.ingest_json(report))
    else:
        ingestion.print_report(err, report)
    raise typer.Exit(_exit_status(report))


def _exit_status(result: IngestReport | IngestPlan) -> int:
    return console.INTERRUPTED if result.interrupted else console.PARTLY if result.failed else console.OK


def _plan(index: str, location: dict[str, Any], paths: list[str], **options: Any) -> IngestPlan:  # noqa: ANN401
    """Return the plan of an ingestion. If the index does not exist, the plan is made with a temporary empty index."""
    from jina_rag.index.document_index import DocumentIndex

    try:
        with DocumentIndex.open(index, create=False, **location) as document_index:
            return document_index.ingest(paths, dry_run=True, **options)
    except IndexNotFoundError:
        with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
            with DocumentIndex.open(Path(scratch) / "index", **(location | {"assets_dir": None})) as document_index:
                return document_index.ingest(paths, dry_run=True, **options)


def _pairs(options: list[str], name: str) -> dict[str, str]:
    """Parse repeated ``KEY=VALUE`` options into a dictionary; `name` is the option that the error message quotes."""
    values = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{name} {option!r} is invalid. Write KEY=VALUE.")
        values[key] = value
    return values


def _metadata(options: list[str]) -> dict[str, str | int | float]:
    """Parse the values of ``--metadata``. Numeric strings become numbers, because range filters require numbers."""
    return {key: _number(value) for key, value in _pairs(options, "--metadata").items()}


def _number(value: str) -> str | int | float:
    """Return `value` as a number if Python writes the number like `value`; "007" and "1e5" stay strings."""
    for kind in (int, float):
        with suppress(ValueError):
            if str(kind(value)) == value and math.isfinite(kind(value)):
                return kind(value)
    return value


def _limits(options: list[str]) -> Limits:
    from jina_rag.config import Limits

    names = [field.name for field in fields(Limits)]
    limits: dict[str, int] = {}
    for name, value in _pairs(options, "--limit").items():
        if name not in names:
            raise typer.BadParameter(f"--limit {name!r} is unknown; expected one of {', '.join(names)}.")
        try:
            limits[name] = int(value.replace("_", ""))
        except ValueError:
            raise typer.BadParameter(f"--limit {name} is {value!r}; expected an integer of at least 1.") from None
    return Limits(**limits)


def _passwords(words: list[str], file: Path | None) -> tuple[str, ...] | dict[str, list[str]]:
    """Merge ``--password`` and ``--passwords FILE.json`` into the value of `IngestSettings.passwords`."""
    if file is None:
        return tuple(words)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise InvalidInputError(f"--passwords {file} cannot be read: {exc.strerror or exc}. Check the path.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"--passwords {file} is not valid JSON: {exc}. Correct the file.") from exc
    by_glob = {"**": content} if isinstance(content, list) else content
    if not isinstance(by_glob, dict):
        raise InvalidInputError(
            f"--passwords {file} is invalid; "
            "expected a list of passwords, or an object that maps file globs to passwords."
        )
    lists = {pattern: [value] if isinstance(value, str) else value for pattern, value in by_glob.items()}
    for pattern, value in lists.items():
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise InvalidInputError(
                f"--passwords {file}: the value of {pattern!r} is invalid; expected a string or a list of strings."
            )
    return {pattern: [*value, *words] for pattern, value in {**lists, "**": lists.get("**", [])}.items()}
