"""The command that asks an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jina_rag.cli import output, results
from jina_rag.cli.common import (
    FilesOption,
    IndexOption,
    JsonOption,
    app,
    filters,
    folder_exists,
    write_picture,
)
from jina_rag.errors import InvalidInputError


@app.command()
def search(
    index: IndexOption,
    question: Annotated[
        str | None, typer.Argument(help="In any language.", metavar="QUERY", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many pages.", min=1, max=10_000)] = 5,
    offset: Annotated[int, typer.Option(help="How many hits to pass over.", min=0, max=1_000_000)] = 0,
    filter: Annotated[  # the option's name
        list[str] | None,
        typer.Option(
            "--filter",
            help="Only pages with this metadata (=, >=, <=, >, <), path=GLOB, or has=chart|table|figure; repeatable, a "
            "key given twice matches either value.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Ask with a picture, alone or with a QUERY.", metavar="FILE", dir_okay=False)
    ] = None,
    group_by: Annotated[str, typer.Option(help="page, or document: each once, with its best page.")] = "page",
    dedup: Annotated[bool, typer.Option("--dedup", help="Pages that show nearly the same become one hit.")] = False,
    min_score: Annotated[float | None, typer.Option(help="Leave out what scores less.")] = None,
    reranker: Annotated[
        str | None,
        typer.Option("--reranker", "-r", help="Model that judges the best pages: a hub id, a folder.", metavar="NAME"),
    ] = None,
    max_ms: Annotated[float | None, typer.Option(help="Time for the reranker, in milliseconds.", min=0)] = None,
    max_images: Annotated[int | None, typer.Option(help="Images for the reranker.", min=0)] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            help="Such as prefetch:limit=300,lexical=false or rescore:dense=0.3 or rerank:limit=50; repeatable.",
            metavar="NAME:OPTION=N,…",
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say which stage put each page where.")] = False,
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
    files: FilesOption = None,
    json: JsonOption = False,
) -> None:
    """Rank pages for a question.

    Examples:

      jina-rag search "Which region grew fastest?" --index kb

      jina-rag search "termination notice" -i kb --filter "path=contracts/*" --filter "year>=2020" --heatmap where.png

      jina-rag search "error E-4711" -i kb --explain

      jina-rag search "Which region grew fastest?" -i kb --reranker jinaai/jina-reranker-m0 --max-ms 2000

      jina-rag search -i kb --queries questions.jsonl --run run.jsonl
    """
    if (queries is None) != (run is None):
        raise typer.BadParameter("--queries and --run go together.")
    if (question is None and image is None) == (queries is None):
        raise typer.BadParameter("Give a QUERY or --image FILE, or --queries FILE.jsonl with --run OUT.jsonl.")
    out, err = output.consoles()
    where = filters(filter or [])
    stages = _stages(stage or [], reranker, max_ms, max_images)
    if queries is not None and run is not None:
        alone = {"--heatmap": heatmap, "--filter": where, "--image": image, "--explain": explain, "--offset": offset}
        if any(alone.values()):
            raise typer.BadParameter(f"{', '.join(alone)} go with a single QUERY.")
        folder_exists(run)
        _search_many(index, files, queries, run, k, reranker, stages, json=json)
        return
    if heatmap is not None:
        if heatmap.suffix.lower() != ".png":
            raise typer.BadParameter(f"--heatmap {str(heatmap)!r}: a heat map is a PNG, so give a name in .png.")
        folder_exists(heatmap)
    asked: Any = question if image is None else image if question is None else [question, image]
    from jina_rag.retrieval.index import DocumentIndex

    with DocumentIndex.open(index, create=False, files=files, reranker=reranker) as opened:
        hits = opened.search(
            asked,
            k=k,
            offset=offset,
            filter=where,
            stages=stages,
            group_by=group_by,  # type: ignore[arg-type]  # checked there
            dedup=dedup,
            min_score=min_score,
            explain=explain,
        )
        if heatmap is not None and hits:
            best = hits[0]
            picture = opened.explain(asked, best).picture(
                frame=best.region.box if best.region else None, label=best.region.kind if best.region else ""
            )
            write_picture(picture, heatmap)
    shown = question if question is not None else str(image)
    if json:
        output.print_json(results.search_json(shown, hits))
        return
    results.print_hits(out, shown, hits, first=offset + 1)
    results.print_steps(out, hits, first=offset + 1)
    results.print_notes(err, hits, explain=explain)
    if hits.more and offset:
        err.print(f"There are more: --offset {offset + k}.")
    if heatmap is not None and hits:
        err.print(f"Heat map of rank {offset + 1}: {output.shown(heatmap)}")


def _stages(options: list[str], reranker: str | None, max_ms: float | None, max_images: int | None) -> list[Any]:
    """``--stage`` and the reranker's own options as stages."""
    from jina_rag.retrieval.ranking.stages import Rerank, parse_stage

    stages = [parse_stage(option) for option in options]
    budget = max_ms is not None or max_images is not None
    if budget and reranker is None:
        raise InvalidInputError("--max-ms and --max-images are for a reranker: name one with --reranker.")
    if budget:
        if any(isinstance(stage, Rerank) for stage in stages):
            raise InvalidInputError("Give the reranker's limits in one place: --max-ms, or --stage rerank:max_ms=….")
        stages.append(Rerank(max_ms=max_ms, max_images=max_images))
    return stages


def _search_many(
    index: str,
    files: Path | None,
    queries: Path,
    run: Path,
    k: int,
    reranker: str | None,
    stages: list[Any],
    *,
    json: bool,
) -> None:
    from jina_rag.evaluation.datasets import read_queries
    from jina_rag.evaluation.runner import search_all, write_run
    from jina_rag.retrieval.index import DocumentIndex

    asked = read_queries(queries)
    with DocumentIndex.open(index, create=False, files=files, reranker=reranker) as opened:
        ranking = search_all(opened, asked, k=max(k, 10), stages=stages)
    write_run(run, ranking)
    if json:
        output.print_json({"queries": len(asked), "run": str(run)})
    else:
        output.consoles()[1].print(
            f"Asked {output.count(len(asked), 'question')}; the rankings are in {output.shown(run)}."
        )
