"""Output of ``search``: hits as a table or as JSON, stage scores, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from jina_rag._display import displayed
from jina_rag.cli.output.console import count, one_line
from jina_rag.search.results import SearchResults
from jina_rag.types import ScoredPage, SimilarPage, Step

_ORDER = ("dense", "lexical", "maxsim", "background", "identifiers", "rescore", "rerank")


def search_json(query: str, hits: Sequence[ScoredPage], *, first: int = 1) -> dict[str, Any]:
    """Return the object that ``search --json`` prints.

    Args:
        query: The query text, or the path of the query image.
        hits: The hits in rank order.
        first: Rank of the first hit.
    """
    content: dict[str, Any] = {
        "query": query,
        "hits": [_hit_json(rank, hit) for rank, hit in enumerate(hits, start=first)],
    }
    if isinstance(hits, SearchResults):
        content |= {
            "notes": list(hits.notes),
            "complete": hits.complete,
            "more": hits.more,
            "milliseconds": dict(hits.milliseconds),
        }
    return content


def _hit_json(rank: int, hit: ScoredPage) -> dict[str, Any]:
    content: dict[str, Any] = {
        "rank": rank,
        "score": round(hit.score, 6),
        "stage": hit.stage,
        "scores": {name: round(score, 6) for name, score in hit.scores.items()},
        "doc_id": hit.doc_id,
        "path": str(hit.path),
        "page": hit.page,
        "region": {"kind": hit.region.kind, "box": list(hit.region.box)} if hit.region else None,
        "image": str(hit.image_path) if hit.image_path else None,
        "snippet": hit.snippet,
        "copies": [str(copy.path) for copy in hit.copies],
        "repeats": dict(zip(("doc_id", "page"), hit.near_duplicate_of, strict=True)) if hit.near_duplicate_of else None,
        "other_pages": list(hit.other_pages),
        "similar": [_similar_json(similar) for similar in hit.similar],
    }
    if hit.steps:
        content["steps"] = [asdict(step) | {"score": round(step.score, 6)} for step in hit.steps]
    return content


def _similar_json(similar: SimilarPage) -> dict[str, Any]:
    location = {"doc_id": similar.location.doc_id, "path": str(similar.location.path)}
    return location | {"page": similar.page, "similarity": round(similar.similarity, 4)}


def print_hits(out: Console, query: str, hits: Sequence[ScoredPage], *, first: int = 1) -> None:
    """Print the hits as a table.

    Args:
        out: Console of stdout.
        query: Query text or image path, the title of the table.
        hits: The hits in rank order.
        first: Rank of the first hit.
    """
    from rich.table import Table
    from rich.text import Text

    if not hits:
        out.print("No hits.")
        return
    table = Table(title=one_line(query), title_justify="left", title_style="bold", show_lines=True, expand=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    # Wide enough for the document ids, but at most 2/5 of the terminal, so that the snippets stay readable.
    longest = max(len(hit.doc_id) for hit in hits)
    table.add_column("page", overflow="fold", width=max(16, min(longest, out.width * 2 // 5 - 8)))
    table.add_column("snippet", overflow="fold", ratio=1)
    for rank, hit in enumerate(hits, start=first):
        position = "text" if hit.is_text else f"page {hit.page} of {hit.page_count}"
        cell = Text.from_markup(f"[bold]{one_line(hit.doc_id)}[/bold]\n{position}")
        if hit.other_pages:
            more = ", ".join(map(str, hit.other_pages[:6])) + (" …" if len(hit.other_pages) > 6 else "")
            cell.append(f"\nalso page {more}", style="dim")
        if hit.copies:
            cell.append(f"\n{count(len(hit.copies), 'copy', 'copies')}", style="dim")
        for similar in hit.similar[:3]:
            cell.append(f"\nnear-duplicate: {displayed(similar.location.doc_id)} page {similar.page}", style="dim")
        if len(hit.similar) > 3:
            cell.append(f"\n… and {len(hit.similar) - 3} more", style="dim")
        if hit.near_duplicate_of is not None:
            cell.append(
                f"\nnear-duplicate of {displayed(hit.near_duplicate_of[0])} page {hit.near_duplicate_of[1]}",
                style="dim",
            )
        if hit.region is not None:
            cell.append(f"\nregion: {hit.region.kind}", style="cyan")
        table.add_row(str(rank), f"{hit.score:.3f}", cell, Text(displayed(" ".join(hit.snippet.split()))))
    out.print(table)


def print_steps(out: Console, hits: Sequence[ScoredPage], *, first: int = 1) -> None:
    """Print the score and the rank of each hit in each stage."""
    from rich import box
    from rich.table import Table

    stages = [stage for stage in _ORDER if any(step.stage == stage for hit in hits for step in hit.steps)]
    if not stages:
        return
    table = Table(title="Score and rank in each stage", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right")
    for stage in stages:
        table.add_column(stage, justify="right", overflow="fold")
    for number, hit in enumerate(hits, start=first):
        steps = {step.stage: step for step in hit.steps}
        table.add_row(str(number), *(_cell(steps.get(stage)) for stage in stages))
    out.print(table)
    notes = dict.fromkeys((step.stage, step.note) for hit in hits for step in hit.steps if step.note)
    for stage, note in notes:
        out.print(f"{stage}: {one_line(note)}", soft_wrap=True, style="dim")


def print_notes(err: Console, hits: SearchResults, *, explain: bool) -> None:
    """Print the notes of a search; with `explain` also the time of each stage in milliseconds."""
    for note in hits.notes:
        err.print(f"[yellow]Note:[/] {one_line(note)}", soft_wrap=True)
    if explain and hits.milliseconds:
        times = ", ".join(f"{name} {value:.0f} ms" for name, value in hits.milliseconds.items())
        err.print(f"Time: {times}.", soft_wrap=True)


def _cell(step: Step | None) -> str:
    if step is None:
        return "–"
    return f"{step.score:.3f}" + (f" #{step.rank}" if step.rank is not None else "")
