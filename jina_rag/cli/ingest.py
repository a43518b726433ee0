"""The command ``ingest``: fill an index."""

from __future__ import annotations

import json
import math
import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jina_rag.cli.common import AssetsOption, EmbedderOption, IndexOption, JsonOption
from jina_rag.cli.output import console, ingestion
from jina_rag.errors import IndexNotFoundError, InvalidInputError

if TYPE_CHECKING:
    from jina_rag.config import Limits
    from jina_rag.indexing.dry_run import IngestPlan
    from jina_rag.types import IngestReport


def ingest(
    # Not Path: that would make the current folder of an empty text.
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, globs: * stays within a folder, ** crosses folders.",
            metavar="PATH…",
            show_default=False,
        ),
    ],
    index: IndexOption,
    embedder: EmbedderOption = None,
    storage: Annotated[
        str | None, typer.Option(help="How a new index keeps its vectors: exact, balanced or compact.", metavar="NAME")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="Metadata for these documents; repeatable.", metavar="KEY=VALUE")
    ] = None,
    sync: Annotated[bool, typer.Option("--sync", help="Remove documents whose file is gone from there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, how long it takes, how much disk.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Read and embed unchanged documents, too.")] = False,
    password: Annotated[
        list[str] | None, typer.Option(help="Tried on encrypted files; repeatable.", metavar="TEXT")
    ] = None,
    passwords: Annotated[
        Path | None,
        typer.Option(help="JSON list of passwords, or object from file globs to passwords.", metavar="FILE.json"),
    ] = None,
    ocr: Annotated[str, typer.Option(help="auto: where pixels hold text that the file lacks; always; never.")] = "auto",
    renderer: Annotated[str, typer.Option(help="What renders PDFs: auto, pymupdf, pypdfium2.")] = "auto",
    limit: Annotated[
        list[str] | None, typer.Option(help="Such as max_seconds=120 or max_pages=50000; repeatable.", metavar="NAME=N")
    ] = None,
    assets_dir: AssetsOption = None,
    json: JsonOption = False,
) -> None:
    """Index PDFs, images and office files. What is known and unchanged is left alone; Ctrl-C leaves a usable index.

    Examples:

      jina-rag ingest docs/ --index kb

      jina-rag ingest docs/ --index kb --sync --dry-run

      jina-rag ingest report.pdf scans/ --index kb --metadata year=2025

      jina-rag ingest docs/ --index http://localhost:6333/docs --storage balanced
    """
    from jina_rag.config import IngestSettings
    from jina_rag.index.document_index import DocumentIndex
    from jina_rag.parsing.sources import find_sources

    out, err = console.consoles()
    settings = IngestSettings(
        passwords=_passwords(password or [], passwords),
        ocr=ocr,  # type: ignore[arg-type]  # checked when made
        renderer=renderer,  # type: ignore[arg-type]
        limits=_limits(limit or []),
    )
    options: dict[str, Any] = {
        "metadata": _metadata(metadata) if metadata else None,
        "settings": settings,
        "sync": sync,
        "force": force,
    }
    find_sources(paths)  # before an index is made: a misspelt path must not leave an empty one behind
    location: dict[str, Any] = {"embedder": embedder, "storage": storage, "assets_dir": assets_dir}
    if dry_run:
        with console.waiting(err, "looking", quiet=json):
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
    """The plan; where there is no index yet, that of one which is thrown away."""
    from jina_rag.index.document_index import DocumentIndex

    try:
        with DocumentIndex.open(index, create=False, **location) as document_index:
            return document_index.ingest(paths, dry_run=True, **options)
    except IndexNotFoundError:
        with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
            with DocumentIndex.open(Path(scratch) / "index", **(location | {"assets_dir": None})) as document_index:
                return document_index.ingest(paths, dry_run=True, **options)


def _pairs(options: list[str], name: str) -> dict[str, str]:
    """``KEY=VALUE`` given several times; `name` is the option's, for the message."""
    values = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{name} {option!r}: write KEY=VALUE.")
        values[key] = value
    return values


def _metadata(options: list[str]) -> dict[str, str | int | float]:
    """``--metadata KEY=VALUE``; what is written as a number is one, so that ranges of it can be asked for."""
    return {key: _number(value) for key, value in _pairs(options, "--metadata").items()}


def _number(value: str) -> str | int | float:
    """The number that a text writes out as Python does; 007 and 1e5 stay texts, as codes do."""
    for kind in (int, float):
        with suppress(ValueError):
            if str(kind(value)) == value and math.isfinite(kind(value)):
                return kind(value)
    return value


def _limits(options: list[str]) -> Limits:
    """``--limit NAME=NUMBER`` as settings."""
    from jina_rag.config import Limits

    names = [field.name for field in fields(Limits)]
    limits: dict[str, int] = {}
    for name, value in _pairs(options, "--limit").items():
        if name not in names:
            raise typer.BadParameter(f"--limit {name!r}: the limits are {', '.join(names)}.")
        try:
            limits[name] = int(value.replace("_", ""))
        except ValueError:
            raise typer.BadParameter(f"--limit {name}={value!r}: write a whole number.") from None
    return Limits(**limits)


def _passwords(words: list[str], file: Path | None) -> tuple[str, ...] | dict[str, list[str]]:
    """``--password`` and ``--passwords FILE.json`` as the setting.

    The file holds a list of passwords, or an object from globs over file names to one or several.
    """
    if file is None:
        return tuple(words)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise InvalidInputError(f"{file} cannot be read: {exc.strerror or exc}.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{file} is not JSON: {exc}.") from exc
    by_glob = {"**": content} if isinstance(content, list) else content
    if not isinstance(by_glob, dict):
        raise InvalidInputError(f"{file} must hold a list of passwords, or an object from globs to passwords.")
    lists = {pattern: [value] if isinstance(value, str) else value for pattern, value in by_glob.items()}
    for pattern, value in lists.items():
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise InvalidInputError(f"{file} gives {pattern!r} what is no password: write a text, or a list of texts.")
    return {pattern: [*value, *words] for pattern, value in {**lists, "**": lists.get("**", [])}.items()}
