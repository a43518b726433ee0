"""The command ``search``: rank pages for a query, or for many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from jina_rag.cli.common import AssetsOption, FilterOption, IndexOption, JsonOption, filters, folder_exists, open_index
from jina_rag.cli.output import console
from jina_rag.cli.output import hits as hit_output
from jina_rag.errors import InvalidInputError

_HITS, _HITS_OF_MANY = 5, 10
"""What -k is when it is not given: a person reads a few hits, and rankings are kept to be judged."""


def search(
    index: IndexOption,
    query: Annotated[str | None, typer.Argument(help="In any language.", metavar="QUERY", show_default=False)] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "-k", help="How many pages.", min=1, max=10_000, show_default=f"{_HITS}; {_HITS_OF_MANY} with --queries"
        ),
    ] = None,
    offset: Annotated[int, typer.Option(help="How many hits to pass over.", min=0, max=1_000_000)] = 0,
    filter: FilterOption = None,  # the option's name
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
        Path | None, typer.Option(help="Where the rankings for --queries go.", metavar="OUT.jsonl", dir_okay=False)
    ] = None,
    assets_dir: AssetsOption = None,
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
    if (query is None and image is None) if queries is None else query is not None:
        raise typer.BadParameter("Give a QUERY or --image FILE, or --queries FILE.jsonl with --run OUT.jsonl.")
    out, err = console.consoles()
    where = filters(filter or [])
    options: dict[str, Any] = {
        "filter": where,
        "stages": _stages(stage or [], reranker, max_ms, max_images),
        "group_by": group_by,
        "dedup": dedup,
        "min_score": min_score,
    }
    if queries is not None and run is not None:
        single_query = {"--heatmap": heatmap, "--image": image, "--explain": explain, "--offset": offset}
        names = [name for name, value in single_query.items() if value]
        if names:
            raise typer.BadParameter(f"{_and(names)} {'goes' if len(names) == 1 else 'go'} with a single QUERY.")
        folder_exists(run)
        _search_many(index, assets_dir, reranker, queries, run, json=json, k=k or _HITS_OF_MANY, **options)
        return
    k = k or _HITS
    if heatmap is not None:
        from jina_rag.evaluation.files import explain_os_errors

        if heatmap.suffix.lower() != ".png":
            raise typer.BadParameter(f"--heatmap {str(heatmap)!r}: a heat map is a PNG, so give a name in .png.")
        folder_exists(heatmap)
    query_input: Any = query if image is None else image if query is None else [query, image]
    with open_index(index, assets_dir, reranker=reranker) as document_index:
        hits = document_index.search(query_input, k=k, offset=offset, explain=explain, **options)
        if heatmap is not None and hits:
            region = hits[0].region
            heatmap_image = document_index.explain(query_input, hits[0]).image(
                frame=region.box if region else None, label=region.kind if region else ""
            )
            with explain_os_errors(f"The heat map cannot be written to {heatmap}"):
                heatmap_image.save(heatmap, format="PNG")
    if heatmap is not None and not hits:
        err.print("No page was found, so no heat map was drawn.")
    title = query if query is not None else str(image)
    if json:
        console.print_json(hit_output.search_json(title, hits, first=offset + 1))
        return
    hit_output.print_hits(out, title, hits, first=offset + 1)
    hit_output.print_steps(out, hits, first=offset + 1)
    hit_output.print_notes(err, hits, explain=explain)
    if hits.more:
        err.print(f"There are more: --offset {offset + k}.", style="dim")
    if heatmap is not None and hits:
        err.print(f"Heat map of rank {offset + 1}: {console.one_line(heatmap)}")


def _stages(options: list[str], reranker: str | None, max_ms: float | None, max_images: int | None) -> list[Any]:
    """``--stage`` and the reranker's own options as stages, one of each kind."""
    from jina_rag.search.reranking import Rerank
    from jina_rag.search.stages import parse_stage

    stages: dict[type[Any], Any] = {}
    for option in options:
        try:
            stage = parse_stage(option)
        except InvalidInputError as exc:
            raise InvalidInputError(f"--stage {option!r}: {exc}") from exc
        if type(stage) in stages:
            name = type(stage).__name__.lower()
            raise InvalidInputError(f"--stage {name} is given twice: write its options in one, with commas.")
        stages[type(stage)] = stage
    judge: Rerank | None = stages.get(Rerank)
    limits = {name: value for name, value in (("max_ms", max_ms), ("max_images", max_images)) if value is not None}
    if reranker is not None and judge is not None and judge.model:
        raise InvalidInputError("Name the reranker in one place: --reranker NAME, or --stage rerank:model=NAME.")
    if reranker is None and (judge is None or not judge.model):
        idle = [_option(name) for name in limits] or (["--stage rerank"] if judge is not None and judge.limit else [])
        if idle:
            verb = "needs" if len(idle) == 1 else "need"
            raise InvalidInputError(f"{_and(idle)} {verb} a reranker: name one with --reranker NAME.")
    if limits:
        judge = judge or Rerank()
        for name in limits:
            if getattr(judge, name) is not None:
                raise InvalidInputError(f"Give this limit in one place: {_option(name)}, or --stage rerank:{name}=….")
        stages[Rerank] = replace(judge, **limits)  # type: ignore[arg-type]  # names and types as above
    return list(stages.values())


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _search_many(
    index: str,
    assets_dir: Path | None,
    reranker: str | None,
    queries: Path,
    run: Path,
    *,
    json: bool,
    **options: Any,  # noqa: ANN401  # those of search_all
) -> None:
    from jina_rag.evaluation.datasets import read_queries
    from jina_rag.evaluation.runner import search_all, write_run

    query_list = read_queries(queries)
    notes: dict[str, list[str]] = {}
    with open_index(index, assets_dir, reranker=reranker) as document_index:
        ranking = search_all(
            document_index, query_list, on_note=lambda qid, note: notes.setdefault(qid, []).append(note), **options
        )
    write_run(run, ranking)
    if json:
        console.print_json({"queries": len(query_list), "run": str(run), **({"notes": notes} if notes else {})})
        return
    _, err = console.consoles()
    err.print(f"Asked {console.count(len(query_list), 'question')}; the rankings are in {console.one_line(run)}.")
    for qid, sentences in list(notes.items())[:5]:
        err.print(f"[yellow]Note:[/] {console.one_line(qid)}: {console.one_line(' '.join(sentences))}", soft_wrap=True)
    if len(notes) > 5:
        err.print(f"… and notes on {len(notes) - 5} more questions; --json has all.")
