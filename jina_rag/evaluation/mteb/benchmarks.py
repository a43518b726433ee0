"""Names of benchmarks, as users and papers write them, and the tasks that mteb has under them."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from typing import Any

import mteb

from jina_rag.errors import InvalidInputError

BENCHMARKS = {
    "JinaVDR": "JinaVDR",
    "JVDR": "JinaVDR",
    "ViDoRe(v1)": "ViDoRe(v1)",
    "ViDoRe(v2)": "ViDoRe(v2)",
    "ViDoRe(v3)": "ViDoRe(v3)",
    "BEIR": "BEIR",
    "MTEB(eng)": "MTEB(eng, v2)",
    "MTEB(eng, v1)": "MTEB(eng, v1)",
    "CoIR": "CoIR",
    "LongEmbed": "LongEmbed",
}
"""Short name → mteb's benchmark. ViDoRe v1 also as ``vidore-v1``, and so on: case and punctuation do not matter."""
SINGLE = {"MIRACL": "MIRACLRetrieval", "MLDR": "MultiLongDocRetrieval"}
"""Short name → the one task that mteb has of it."""
SMOKE = (
    "JinaVDRRamensBenchmarkRetrieval",
    "JinaVDRBeveragesCatalogueRetrieval",
    "JinaVDRShanghaiMasterPlanRetrieval",
    "JinaVDRAutomobileCatelogRetrieval",
    "JinaVDRJina2024YearlyBookRetrieval",
    "JinaVDRTabFQuadRetrieval",
    "JinaVDRArabicInfographicsVQARetrieval",
    "JinaVDRHungarianDocQARetrieval",
    "JinaVDREuropeanaFrNewsRetrieval",
)
"""The nine small tasks of JinaVDR: whether an installation computes what it should, in minutes rather than days."""


def find_tasks(names: Sequence[str], *, smoke: bool = False, languages: Sequence[str] | None = None) -> list[Any]:
    """The tasks of benchmarks, and single tasks, each once, in the order they were asked for.

    Args:
        names: Of benchmarks (`BENCHMARKS`, ``"MIRACL"``, ``"MLDR"``, ``"STS"``, and every one that mteb has) and of
            mteb's tasks.
        smoke: The nine tasks of `SMOKE`; with `names`, those of them that are among these.
        languages: Codes of three letters: only the parts of tasks in these languages.

    Returns:
        Tasks of mteb, their data not loaded.

    Raises:
        InvalidInputError: If a name is unknown, or nothing is left.
    """
    by_name: dict[str, Any] = {}
    for name in names or (["JinaVDR"] if smoke else []):
        for task in _tasks(name):
            # mteb hands out the same objects again and again: what is filtered and loaded here is ours.
            by_name.setdefault(task.metadata.name, copy.copy(task))
    if smoke:
        by_name = {name: by_name[name] for name in SMOKE if name in by_name}
    tasks = list(by_name.values())
    if languages:
        for language in languages:
            if len(language) != 3 or not language.isalpha():
                raise InvalidInputError(
                    f"The language {language!r} is no code of three letters, such as 'eng' or 'jpn'."
                )
        tasks = [task for task in tasks if set(languages) & set(task.metadata.languages)]
        tasks = [task.filter_languages(list(languages)) for task in tasks]
    if not tasks:
        raise InvalidInputError("No task is left: name a benchmark or a task, and languages that it has.")
    return tasks


def _tasks(name: str) -> list[Any]:
    plain = _plain(name)
    if plain == "sts":
        return [task for task in mteb.get_benchmark("MTEB(eng, v1)").tasks if task.metadata.type == "STS"]
    single = {_plain(short): task for short, task in SINGLE.items()}.get(plain, name)
    full_names = {_plain(benchmark.name): benchmark.name for benchmark in mteb.get_benchmarks()}
    full_names |= {_plain(short): full for short, full in BENCHMARKS.items()}
    if plain in full_names:
        return list(mteb.get_benchmark(full_names[plain]).tasks)
    try:
        return [mteb.get_task(single)]
    except KeyError:
        names = [*BENCHMARKS, *SINGLE, "STS"]
        near = _near(name, names)
        hint = f"did you mean {', '.join(near)}?" if near else f"benchmarks are {', '.join(names)}."
        raise InvalidInputError(f"mteb has no benchmark and no task {name!r}: {hint}") from None


def _near(name: str, names: Sequence[str]) -> list[str]:
    """What may have been meant: names that are written alike, else tasks that have it in their name."""
    plain = _plain(name)
    if not plain:
        return []
    tasks = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
    alike = difflib.get_close_matches(name, [*names, *tasks], n=3)
    return alike or [task for task in tasks if plain in _plain(task)][:3]


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
