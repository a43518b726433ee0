"""The command ``search``: rank pages for one query or a file of queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from jina_rag.cli.common import (
    AssetsOption,
    DeviceOption,
    FilterOption,
    IndexOption,
    JsonOption,
    check_parent_folder,
    filters,
    open_index,
)
from jina_rag.cli.output import console
from jina_rag.cli.output import hits as hit_output
from jina_rag.errors import InvalidInputError

_DEFAULT_K, _DEFAULT_K_OF_RUN = 5, 10
"""Defaults of ``-k`` for one query, and for a run file of many queries."""


def search(
    index: IndexOption,
    query: Annotated[
        str | None, typer.Argument(help="Query text, in any language.", metavar="QUERY", show_default=False)
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            help="Number of hits to return.",
            min=1,
            max=10_000,
            metavar="N",
            show_default=f"{_DEFAULT_K}; {_DEFAULT_K_OF_RUN} with --queries",
        ),
    ] = None,
    offset: Annotated[int, typer.Option(help="Number of top hits to skip.", min=0, max=1_000_000, metavar="N")] = 0,
    filter: FilterOption = None,  # shadows the built-in to name the option
    image: Annotated[
        Path | None,
        typer.Option(help="Query image, alone or in addition to QUERY.", metavar="FILE", dir_okay=False),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(help="Unit of the hits: page, or document (best page per document).", metavar="UNIT"),
    ] = "page",
    dedup: Annotated[bool, typer.Option("--dedup", help="Merge near-duplicate pages into one hit.")] = False,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Drop hits below this score; with a reranker, also hits that the reranker did not score.",
            metavar="SCORE",
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            "--reranker",
            "-r",
            help="Model that reranks the best pages: a Hugging Face id or a checkpoint folder.",
            metavar="NAME",
        ),
    ] = None,
    device: DeviceOption = "auto",
    max_ms: Annotated[
        float | None,
        typer.Option(help="Time limit of the reranker, in milliseconds.", min=0, metavar="MS", show_default="no limit"),
    ] = None,
    max_images: Annotated[
        int | None,
        typer.Option(help="Maximum number of page images to rerank.", min=0, metavar="N", show_default="no limit"),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="Stage options, for example prefetch:limit=300, rescore:dense=0.3 or rerank:limit=50. Repeatable.",
            metavar="NAME:OPTION=N,…",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the score and the rank of each hit in each stage.")
    ] = False,
    heatmap: Annotated[
        Path | None,
        typer.Option(help="Write a heat map of the top hit as a PNG image.", metavar="OUT.png", dir_okay=False),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help='JSONL file, one object with "qid" and "query" per line; requires --run.', metavar="FILE.jsonl"
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="File for the rankings of --queries.", metavar="OUT.jsonl", dir_okay=False),
    ] = None,
    assets_dir: AssetsOption = None,
    json: JsonOption = False,
) -> None:
    """Rank the indexed pages for a query.

    Prints the best pages, each with its score and a snippet.

    Examples:

      jina-rag search "Which region grew fastest?" --index kb
      jina-rag search "notice period" -i kb --filter "path=contracts/*"
      jina-rag search "error E-4711" -i kb --filter "year>=2020" --explain
      jina-rag search "minutes" -i kb --filter "when>=2025-01-01" --filter "when<2025-07-01"
      jina-rag search "solar capacity" -i kb --heatmap heatmap.png
      jina-rag search "solar capacity" -i kb --reranker jinaai/jina-reranker-m0
      jina-rag search -i kb --queries queries.jsonl --run run.jsonl
    """
    if (queries is None) != (run is None):
        raise typer.BadParameter("--queries and --run require each other. Pass both options.")
    if queries is not None and query is not None:
        raise typer.BadParameter("QUERY and --queries exclude each other. Pass one of them.")
    if queries is None and query is None and image is None:
        raise typer.BadParameter("Pass a QUERY or --image FILE, or --queries FILE.jsonl with --run OUT.jsonl.")
    out, err = console.consoles()
    filter_mapping = filters(filter or [])
    options: dict[str, Any] = {
        "filter": filter_mapping,
        "stages": _stages(stage or [], reranker, max_ms, max_images),
        "group_by": group_by,
        "dedup": dedup,
        "min_score": min_score,
    }
    if queries is not None and run is not None:
        single_query = {"--heatmap": heatmap, "--image": image, "--explain": explain, "--offset": offset}
        names = [name for name, value in single_query.items() if value]
        if names:
            raise typer.BadParameter(f"{_join_names(names)} cannot be combined with --queries. Pass a QUERY instead.")
        check_parent_folder(run)
        _search_many(index, assets_dir, reranker, device, queries, run, json=json, k=k or _DEFAULT_K_OF_RUN, **options)
        return
    k = k or _DEFAULT_K
    if heatmap is not None:
        from jina_rag.evaluation.files import explain_os_errors

        if heatmap.suffix.lower() != ".png":
            raise typer.BadParameter(f"--heatmap is {str(heatmap)!r}; expected a file name that ends in .png.")
        check_parent_folder(heatmap)
    query_input: Any = query if image is None else image if query is None else [query, image]
    with open_index(index, assets_dir, reranker=reranker, device=device) as document_index:
        hits = document_index.search(query_input, k=k, offset=offset, explain=explain, **options)
        if heatmap is not None and hits:
            region = hits[0].region
            heatmap_image = document_index.explain(query_input, hits[0]).image(
                frame=region.box if region else None, label=region.kind if region else ""
            )
            with explain_os_errors(f"The heat map cannot be written to {heatmap}"):
                heatmap_image.save(heatmap, format="PNG")
    if heatmap is not None and not hits:
        err.print("Wrote no heat map, because the search has no hits.")
    title = query if query is not None else str(image)
    if json:
        console.print_json(hit_output.search_json(title, hits, first=offset + 1))
        return
    hit_output.print_hits(out, title, hits, first=offset + 1)
    hit_output.print_steps(out, hits, first=offset + 1)
    hit_output.print_notes(err, hits, explain=explain)
    if hits.more:
        err.print(f"More hits are available. Pass --offset {offset + k}.", style="dim")
    if heatmap is not None and hits:
        err.print(f"Wrote the heat map of hit {offset + 1} to {console.one_line(heatmap)}.", soft_wrap=True)


def _stages(options: list[str], reranker: str | None, max_ms: float | None, max_images: int | None) -> list[Any]:
    """Build the search stages from ``--stage`` and the reranker options, at most one stage of each kind."""
    from jina_rag.search.reranking import Rerank
    from jina_rag.search.stages import parse_stage

    stages: dict[type[Any], Any] = {}
    for option in options:
        try:
            stage = parse_stage(option)
        except InvalidInputError as exc:
            shown_value = "" if repr(option) in str(exc) else f" {option!r}"
            raise InvalidInputError(f"--stage{shown_value}: {exc}") from exc
        if type(stage) in stages:
            name = type(stage).__name__.lower()
            raise InvalidInputError(f"--stage {name} is set twice. Join the options with commas in one --stage.")
        stages[type(stage)] = stage
    rerank: Rerank | None = stages.get(Rerank)
    limits = {name: value for name, value in (("max_ms", max_ms), ("max_images", max_images)) if value is not None}
    if reranker is not None and rerank is not None and rerank.model:
        raise InvalidInputError("The reranker is set twice. Pass either --reranker NAME or --stage rerank:model=NAME.")
    if reranker is None and (rerank is None or not rerank.model):
        unused = [_option(name) for name in limits] or (
            ["--stage rerank"] if rerank is not None and rerank.limit else []
        )
        if unused:
            verb = "requires" if len(unused) == 1 else "require"
            raise InvalidInputError(f"{_join_names(unused)} {verb} a reranker. Pass --reranker NAME.")
    if limits:
        rerank = rerank or Rerank()
        for name in limits:
            if getattr(rerank, name) is not None:
                raise InvalidInputError(f"{name} is set twice. Pass either {_option(name)} or --stage rerank:{name}=N.")
        stages[Rerank] = replace(rerank, **limits)  # type: ignore[arg-type]  # names and types as above
    return list(stages.values())


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _join_names(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _search_many(
    index: str,
    assets_dir: Path | None,
    reranker: str | None,
    device: str,
    queries: Path,
    run: Path,
    *,
    json: bool,
    **options: Any,  # noqa: ANN401  # options of search_all
) -> None:
    from jina_rag.evaluation.datasets import read_queries
    from jina_rag.evaluation.runner import search_all, write_run

    query_list = read_queries(queries)
    notes: dict[str, list[str]] = {}
    with open_index(index, assets_dir, reranker=reranker, device=device) as document_index:
        ranking = search_all(
            document_index, query_list, on_note=lambda qid, note: notes.setdefault(qid, []).append(note), **options
        )
    write_run(run, ranking)
    if json:
        console.print_json({"queries": len(query_list), "run": str(run), **({"notes": notes} if notes else {})})
        return
    _, err = console.consoles()
    err.print(f"Wrote the rankings of {console.count(len(query_list), 'query', 'queries')} to {console.one_line(run)}.")
    for qid, sentences in list(notes.items())[:5]:
        err.print(f"[yellow]Note:[/] {console.one_line(qid)}: {console.one_line(' '.join(sentences))}", soft_wrap=True)
    if len(notes) > 5:
        err.print(f"… and notes on {len(notes) - 5} more queries; --json prints all.")
