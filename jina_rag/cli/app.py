"""The commands. Each parses its arguments, calls a public function and prints what came back.

Exit status: 0 done, 1 done with failures listed, 2 wrong usage or input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from jina_rag._version import __version__
from jina_rag.cli import output
from jina_rag.errors import InvalidInputError, JinaRagError

app = typer.Typer(
    name="jina-rag",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search PDFs and images the way a person reads them: by looking at the pages. "
    "Everything runs on this machine.",
)

models_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
app.add_typer(models_app, name="models")

IndexOption = Annotated[Path, typer.Option("--index", "-i", help="Folder of the index.", metavar="DIR")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        "-e",
        help="Model: lite (many languages), lite-en (English, small), a hub id, or a folder.",
        metavar="NAME",
    ),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"jina-rag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options that stand before the command."""


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", metavar="PATH…", show_default=False)],
    index: IndexOption,
    embedder: EmbedderOption = None,
    meta: Annotated[
        list[str] | None,
        typer.Option("--meta", help="Metadata for these documents; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    password: Annotated[
        list[str] | None,
        typer.Option("--password", help="Tried on encrypted files; repeatable.", metavar="TEXT"),
    ] = None,
    ocr: Annotated[str, typer.Option(help="auto: where pixels hold text that the file lacks; always; never.")] = "auto",
    json: JsonOption = False,
) -> None:
    """Index PDFs and images. What is known and unchanged is left alone; Ctrl-C leaves a usable index.

    Examples:

      jina-rag ingest docs/ --index kb

      jina-rag ingest report.pdf scans/ --index kb --meta year=2025
    """
    from jina_rag.config import IngestSettings
    from jina_rag.retrieval.index import DocumentIndex

    _, err = output.consoles()
    settings = IngestSettings(passwords=tuple(password or ()), ocr=ocr)  # type: ignore[arg-type]  # checked when made
    metadata = _pairs(meta, "--meta") if meta else None
    _existing(paths)
    with (
        DocumentIndex.open(index, embedder=embedder) as opened,
        output.ingest_progress(err, quiet=json) as progress,
    ):
        report = opened.ingest(paths, metadata=metadata, settings=settings, progress=progress)
    if json:
        output.print_json(output.ingest_json(report))
    else:
        output.print_report(err, report)
    raise typer.Exit(output.INTERRUPTED if report.interrupted else output.PARTLY if report.failed else output.OK)


@app.command()
def search(
    index: IndexOption,
    question: Annotated[
        str | None, typer.Argument(help="In any language.", metavar="QUERY", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many pages.", min=1)] = 5,
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
    where = _filter(filter or [])
    if queries is not None and run is not None:
        if heatmap is not None or where:
            raise typer.BadParameter("--heatmap and --filter go with a single QUERY.")
        _folder_exists(run)
        _search_many(index, queries, run, k, json=json)
        return
    assert question is not None
    if heatmap is not None:
        if heatmap.suffix.lower() != ".png":
            raise typer.BadParameter(f"--heatmap {str(heatmap)!r}: a heat map is a PNG, so give a name in .png.")
        _folder_exists(heatmap)
    from jina_rag.retrieval.index import DocumentIndex

    with DocumentIndex.open(index, create=False) as opened:
        hits = opened.search(question, k=k, filter=where)
        if heatmap is not None and hits:
            best = hits[0]
            picture = opened.explain(question, best).picture(
                frame=best.region.box if best.region else None, label=best.region.kind if best.region else ""
            )
            _write_picture(picture, heatmap)
    if json:
        output.print_json(output.search_json(question, hits))
    else:
        output.print_hits(out, question, hits)
        if heatmap is not None and hits:
            err.print(f"Heat map of rank 1: {output.shown(heatmap)}")


def _search_many(index: Path, queries: Path, run: Path, k: int, *, json: bool) -> None:
    from jina_rag.evaluation.datasets import read_queries
    from jina_rag.evaluation.runner import search_all, write_run
    from jina_rag.retrieval.index import DocumentIndex

    asked = read_queries(queries)
    with DocumentIndex.open(index, create=False) as opened:
        ranking = search_all(opened, asked, k=max(k, 10))
    write_run(run, ranking)
    if json:
        output.print_json({"queries": len(asked), "run": str(run)})
    else:
        output.consoles()[1].print(
            f"Asked {output.count(len(asked), 'question')}; the rankings are in {output.shown(run)}."
        )


@app.command()
def remove(
    documents: Annotated[
        list[str],
        typer.Argument(help="Document ids, files, folders, or globs over ids.", metavar="PATH…", show_default=False),
    ],
    index: IndexOption,
    json: JsonOption = False,
) -> None:
    """Take documents out of the index, their images too. The documents themselves are not touched.

    Examples:

      jina-rag remove docs/old.pdf --index kb

      jina-rag remove "reports/2019-*" --index kb
    """
    from jina_rag.retrieval.index import DocumentIndex

    _, err = output.consoles()
    removed, missing = 0, []
    with DocumentIndex.open(index, create=False) as opened:
        for document in documents:
            count = opened.delete(document)
            removed += count
            if not count:
                missing.append(document)
    if json:
        output.print_json(
            {
                "removed": removed,
                "failed": [{"path": m, "reason": "No such document in the index."} for m in missing],
            }
        )
    else:
        err.print(f"Removed {output.count(removed, 'document')}.")
        for name in missing:
            err.print(
                f"[red]No such document in the index:[/] {output.shown(name)} (`jina-rag info --documents` lists them)"
            )
    raise typer.Exit(output.PARTLY if missing else output.OK)


@app.command()
def info(
    index: IndexOption,
    documents: Annotated[bool, typer.Option("--documents", help="List every document.")] = False,
    json: JsonOption = False,
) -> None:
    """What an index holds, which model made it, what it weighs.

    Example:

      jina-rag info --index kb --documents
    """
    from rich.table import Table

    from jina_rag.retrieval.index import DocumentIndex

    out, _ = output.consoles()
    with DocumentIndex.open(index, create=False) as opened:
        stats, records = opened.stats(), opened.documents()
    if json:
        found: dict[str, Any] = {
            "location": str(stats.location),
            "documents": stats.documents,
            "pages": stats.pages,
            "regions": stats.regions,
            "pending": stats.pending,
            "embedder": stats.embedder,
            "fingerprint": stats.fingerprint,
            "version": stats.version,
            "bytes": dict(stats.bytes),
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
        output.print_json(found)
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("location", output.shown(stats.location))
    table.add_row(
        "documents",
        f"{stats.documents}"
        + (f" and {stats.pending} unfinished (ingest them again to finish)" if stats.pending else ""),
    )
    table.add_row("pages", str(stats.pages))
    table.add_row("charts, tables, figures", str(stats.regions))
    table.add_row("model", stats.fingerprint)
    table.add_row("made by", f"jina-rag {stats.version}")
    table.add_row("on disk", ", ".join(f"{name} {output.size(part)}" for name, part in stats.bytes.items()))
    out.print(table)
    if documents:
        listed = Table()
        for name in ("document", "pages", "regions", "file"):
            counts = name in ("pages", "regions")
            listed.add_column(name, overflow="fold", justify="right" if counts else "left")
        for record in records:
            name = output.shown(record.doc_id) + ("" if record.done else " [yellow](unfinished)[/]")
            listed.add_row(name, str(record.pages), str(record.regions), output.shown(record.path))
        out.print(listed)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder with docs.jsonl, queries.jsonl and the files.", metavar="DIR")],
    index: Annotated[
        Path | None,
        typer.Option("--index", "-i", help="Keep the index here for a second run; else it is made and thrown away."),
    ] = None,
    embedder: EmbedderOption = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Write the rankings, one question a line.", metavar="OUT.jsonl", dir_okay=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure retrieval on judged questions: nDCG@5, Recall@1, Recall@5, RR@10.

    Example:

      jina-rag evaluate my-judged-folder --index eval-kb
    """
    from jina_rag.evaluation.datasets import read_folder
    from jina_rag.evaluation.runner import evaluate as measure_folder
    from jina_rag.evaluation.runner import write_run
    from jina_rag.retrieval.index import DocumentIndex

    out, err = output.consoles()
    if run is not None:
        _folder_exists(run)
    judged = read_folder(folder)
    with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
        with (
            DocumentIndex.open(index or Path(scratch) / "index", embedder=embedder) as opened,
            output.ingest_progress(err, quiet=json) as progress,
        ):
            report = measure_folder(judged, opened, ingest=lambda paths: opened.ingest(paths, progress=progress))
    if run is not None:
        write_run(run, report.run)
    if json:
        output.print_json(report.to_json())
    else:
        output.print_measures(out, report.to_json())
        for failure in report.failed:
            err.print(f"[red]Failed:[/] {output.shown(failure.path)}: {output.shown(failure.reason)}")
        err.print(f"{report.seconds:.1f} s, of which {report.index_seconds:.1f} s for the index.")
    raise typer.Exit(output.PARTLY if report.failed else output.OK)


@models_app.callback()
def models(context: typer.Context, json: JsonOption = False) -> None:
    """The models this version can run: size, languages, licence, whether they are on this machine.

    Examples:

      jina-rag models

      jina-rag models download jinaai/jina-embeddings-v4
    """
    if context.invoked_subcommand is not None:
        return
    from jina_rag.models.catalogue import MODELS, weights_of
    from jina_rag.retrieval.handles import DEFAULT_EMBEDDER

    places = {name: weights_of(name) for name in MODELS}
    if json:
        entries = [
            model.to_json()
            | {
                "installed": places[name] is not None,
                "path": str(places[name]) if places[name] else None,
                "default": name == DEFAULT_EMBEDDER,
            }
            for name, model in MODELS.items()
        ]
        output.print_json({"models": entries})
        return
    output.print_models(output.consoles()[0], MODELS.values(), places, DEFAULT_EMBEDDER)


@models_app.command()
def download(
    model: Annotated[str, typer.Argument(help="Its id on the Hugging Face hub: owner/model.", metavar="ID")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; main if left out.")] = None,
    json: JsonOption = False,
) -> None:
    """Download a model from the hub, or go on with a download. Weights and settings only, never code.

    Example:

      jina-rag models download jinaai/jina-reranker-m0
    """
    from jina_rag.models.registry import download as fetch

    found = fetch(model, revision=revision)
    if json:
        output.print_json({"model": model, "revision": found.revision, "path": str(found.folder)})
        return
    out, _ = output.consoles()
    commit = f" at commit {found.revision}" if found.revision else ""
    out.print(f"{output.shown(model)}{commit}: {output.shown(found.folder)}", soft_wrap=True)


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model to load and try: a name, a hub id, or a folder.", metavar="MODEL", show_default=False
        ),
    ] = None,
    expected: Annotated[
        Path | None, typer.Option(help="Compare the model with known outputs.", metavar="FILE.zip", dir_okay=False)
    ] = None,
    write_expected: Annotated[
        Path | None,
        typer.Option(
            help="Write the model's outputs, to compare other machines with.", metavar="FILE.zip", dir_okay=False
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Examine this installation: packages, devices, memory, and whether models compute what they should.

    Tiny checkpoints that come with the package are compared with what the published code made of them. A bug report
    can carry the page this prints.

    Examples:

      jina-rag doctor

      jina-rag doctor jinaai/jina-embeddings-v4 --device cuda

      jina-rag doctor my-checkpoint/ --expected known.zip
    """
    if model is None and (expected is not None or write_expected is not None):
        raise typer.BadParameter("--expected and --write-expected go with a MODEL.")
    if write_expected is not None:
        _folder_exists(write_expected)
    from jina_rag.doctor.report import examine

    out, err = output.consoles()
    with output.waiting(err, "examining", quiet=json):
        found = examine(
            model,
            device=device,
            dtype=dtype,
            expected=expected,
            write_expected=write_expected,
            local_files_only=offline,
        )
    if json:
        output.print_json(found.to_json())
    else:
        output.print_examination(out, found)
    raise typer.Exit({"ok": output.OK, "failed": output.PARTLY, "refused": output.USAGE}.get(found.worst, output.OK))


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Where the index and the report go.", metavar="DIR")
    ] = Path("demo-output"),
    embedder: EmbedderOption = None,
    json: JsonOption = False,
) -> None:
    """Index the sample documents, ask five questions, and write a report with pictures.

    Example:

      jina-rag demo --output demo-output
    """
    from jina_rag.demo.run import run_demo

    out, err = output.consoles()
    with output.ingest_progress(err, quiet=json) as progress:
        result = run_demo(folder, embedder=embedder, progress=progress)
    if json:
        output.print_json(
            {
                "report": str(result.report),
                "ingest": output.ingest_json(result.ingest),
                "questions": [output.search_json(a.question, a.hits) for a in result.answers],
            }
        )
        return
    for answer in result.answers:
        output.print_hits(out, f"{answer.question}  ({answer.kind}, {answer.seconds * 1000:.0f} ms)", answer.hits)
    output.print_report(err, result.ingest)
    out.print(
        f"\nOpen this in a browser: [bold]{output.shown(result.report.resolve().as_uri())}[/bold]",
        soft_wrap=True,
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


def _existing(paths: list[Path]) -> None:
    """Before an index is made: a misspelt path must not leave an empty one behind."""
    for path in paths:
        if not os.path.lexists(path):
            raise InvalidInputError(f"There is no file or folder {str(path)!r}: check the path.")


def _folder_exists(path: Path) -> None:
    """Before the work: nobody should wait for a result that has no place to go."""
    if not path.parent.is_dir():
        raise InvalidInputError(f"{path} cannot be written: there is no folder {str(path.parent)!r}.")


def _pairs(options: list[str], name: str) -> dict[str, str]:
    pairs = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{name} {option!r}: write KEY=VALUE.")
        pairs[key] = value
    return pairs


def _filter(options: list[str]) -> Mapping[str, Any]:
    where: dict[str, Any] = {}
    for option in options:
        for key, value in _pairs([option], "--filter").items():
            where.setdefault(key, []).extend(_readings(value) if key != "path" else [value])
    return where


def _readings(value: str) -> list[str | int | float | bool]:
    """What a value on the command line may stand for: metadata given in Python has numbers and booleans, too."""
    readings: list[str | int | float | bool] = [value]
    if value in ("true", "false"):
        readings.append(value == "true")
    for number in (int, float):
        with suppress(ValueError):
            readings.append(number(value))
            break
    return [reading for reading in readings if not isinstance(reading, float) or math.isfinite(reading)]


def _write_picture(picture: Any, path: Path) -> None:  # noqa: ANN401  # PIL's Image
    try:
        picture.save(path, format="PNG")
    except OSError as exc:
        raise InvalidInputError(f"The heat map cannot be written to {path}: {exc.strerror or exc}.") from exc
