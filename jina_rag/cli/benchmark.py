"""The command ``evaluate --benchmark``: run public benchmarks with mteb and compare with published scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jina_rag.cli.common import DeviceOption, DtypeOption, JsonOption
from jina_rag.cli.output import console

if TYPE_CHECKING:
    from rich.console import Console

    from jina_rag.evaluation.mteb import BenchmarkRun
    from jina_rag.evaluation.reference_scores import Comparison


def benchmark(
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            "-b",
            help="JinaVDR, ViDoRe(v1) to (v3), BEIR, MTEB(eng), MIRACL, MLDR, CoIR, LongEmbed, STS, or another mteb "
            "benchmark or task. Repeatable.",
            metavar="NAME",
        ),
    ] = None,
    out_folder: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for results and cached vectors. Run the same command again to resume.",
            metavar="DIR",
        ),
    ] = Path("benchmark-results"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Run the nine smallest tasks of JinaVDR only.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Judged folder to run as an mteb task.", metavar="DIR", file_okay=False)
    ] = None,
    embedder: Annotated[str, typer.Option("--embedder", "-e", help="Embedding model.", metavar="NAME")] = "lite",
    vectors: Annotated[
        str,
        typer.Option(
            help="Vectors to score with: single (dense), multi (MaxSim), or auto (model default).",
            metavar="KIND",
        ),
    ] = "auto",
    whole: Annotated[
        bool,
        typer.Option("--whole-search", help="Measure the search pipeline over an index, not only the vectors."),
    ] = False,
    reranker: Annotated[str | None, typer.Option(help="Model that reranks the top documents.", metavar="NAME")] = None,
    rerank_top: Annotated[
        int, typer.Option(min=1, help="Documents to rerank per query, without --whole-search.", metavar="N")
    ] = 100,
    storage: Annotated[
        str | None, typer.Option(help="Vector storage for --whole-search: exact, balanced or compact.", metavar="NAME")
    ] = None,
    stages: Annotated[
        str,
        typer.Option(
            help="Stages for --whole-search, as in `jina-rag search --stage`, joined by +.", metavar="STAGE+…"
        ),
    ] = "default",
    language: Annotated[
        list[str] | None,
        typer.Option(
            "--language", help="Restrict the tasks to a language, for example eng or jpn. Repeatable.", metavar="CODE"
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Maximum pixels per image; larger images are scaled down.", metavar="N")
    ] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Maximum tokens per input.", metavar="N")] = None,
    truncate_dim: Annotated[
        int | None, typer.Option(min=1, help="Number of leading dimensions of the dense vectors to use.", metavar="N")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the hub.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use local models only; download none.")] = False,
    cache_gb: Annotated[
        float, typer.Option(min=0.001, help="Maximum size of the vector cache on disk, in gigabytes.", metavar="GB")
    ] = 20.0,
    json: JsonOption = False,
) -> None:
    """Measure a model or the search pipeline on public benchmarks.

    Prints the published scores next to the measured scores.

    Requires the extra "eval" of jina-rag.

    Examples:

      jina-rag evaluate --benchmark JinaVDR --smoke --device cuda --vectors multi
      jina-rag evaluate -b BEIR -b STS -e jinaai/jina-embedding-b-en-v1
      jina-rag evaluate -b "ViDoRe(v2)" -e jinaai/jina-embeddings-v4
      jina-rag evaluate -b NFCorpus --reranker jinaai/jina-reranker-m0
      jina-rag evaluate -b NFCorpus --whole-search --storage compact
    """
    from jina_rag.evaluation.mteb import BenchmarkSetting, ModelOptions, run_benchmark
    from jina_rag.evaluation.settings import parse_stages

    out, err = console.consoles()
    if not names and not smoke and folder is None:
        raise typer.BadParameter("Pass --benchmark NAME, --smoke or --folder DIR.")
    setting = BenchmarkSetting(
        model=embedder,
        vectors=vectors,  # type: ignore[arg-type]  # BenchmarkSetting checks the value
        pipeline=whole,
        reranker=reranker,
        rerank_top=rerank_top,
        storage=storage,
        stages=parse_stages(stages),
        options=ModelOptions(
            device=device,
            dtype=dtype,
            max_pixels=max_pixels,
            max_length=max_length,
            truncate_dim=truncate_dim,
            revision=revision,
            local_files_only=offline,
        ),
    )
    with console.counting(err, "tasks", quiet=json) as count:
        run = run_benchmark(
            names or [],
            setting,
            output=out_folder,
            folder=folder,
            smoke=smoke,
            languages=language,
            cache_bytes=int(cache_gb * 1e9),
            progress=None if count is None else lambda done, total, _: count(done, total),
        )
    if json:
        console.print_json(run.to_json())
    else:
        print_benchmark(out, err, run)
    raise typer.Exit(console.PARTLY if run.failed else console.OK)


def print_benchmark(out: Console, err: Console, run: BenchmarkRun) -> None:
    """Print the measured and the published scores as a table."""
    from rich.table import Table

    table = Table()
    table.add_column("task", overflow="fold")
    table.add_column("measure")
    for name in ("queries", "value", "published", "difference", "tolerance"):
        table.add_column(name, justify="right")
    for outcome in run.outcomes:
        table.add_row(
            console.one_line(outcome.task),
            outcome.measure,
            "" if outcome.queries is None else str(outcome.queries),
            f"{outcome.value:.2f}",
            *_reference(outcome.reference),
        )
    if len(run.outcomes) > 1:
        table.add_section()
        table.add_row("mean", "", "", f"{run.mean:.2f}", "", "", "")
    if run.outcomes:
        out.print(table)
    for source in dict.fromkeys(o.reference.source for o in run.outcomes if o.reference is not None):
        out.print(console.one_line(source), soft_wrap=True)
    for task, reason in run.failed.items():
        err.print(f"[red]Failed:[/] {console.one_line(task)}: {console.one_line(reason)}", soft_wrap=True)
    resumed_count = sum(outcome.resumed for outcome in run.outcomes)
    note = f"; {console.count(resumed_count, 'task')} from an earlier run" if resumed_count else ""
    embedded = "" if "search" in run.setting else f", {console.count(run.embedded, 'input')} embedded"
    err.print(f"{run.seconds:.1f} s{embedded}{note}.", soft_wrap=True)


def _reference(comparison: Comparison | None) -> tuple[str, str, str]:
    if comparison is None:
        return "", "", ""
    color = "green" if comparison.within else "red"
    difference = f"[{color}]{comparison.difference:+.2f}[/]"
    return f"{comparison.target.value:.2f}", difference, f"{comparison.tolerance:.2f}"
