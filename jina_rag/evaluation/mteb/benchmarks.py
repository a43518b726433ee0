"""Short benchmark names, and the mteb tasks that each name selects."""

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
"""Short name → mteb benchmark. Case and punctuation are ignored: ``vidore-v1`` selects ``ViDoRe(v1)``."""
SINGLE = {"MIRACL": "MIRACLRetrieval", "MLDR": "MultiLongDocRetrieval"}
"""Short name → mteb task, for datasets with a single task."""
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
"""Nine small tasks of JinaVDR that test an installation in minutes; all of JinaVDR takes days."""


def find_tasks(names: Sequence[str], *, smoke: bool = False, languages: Sequence[str] | None = None) -> list[Any]:
    """Return the mteb tasks of the named benchmarks and tasks, each once, in the order of `names`.

    Args:
        names: Names of benchmarks (`BENCHMARKS`, ``"MIRACL"``, ``"MLDR"``, ``"STS"``, or any benchmark of mteb) and of
            mteb tasks.
        smoke: Return only the nine tasks of `SMOKE`; with `names`, only the smoke tasks that `names` includes.
        languages: ISO 639-3 codes of the languages to which each task is restricted. None for all languages.

    Returns:
        Copies of mteb's task objects, without the data of the tasks.

    Raises:
        InvalidInputError: If a name is unknown, a language code does not have three letters, or no task remains.
    """
    by_name: dict[str, Any] = {}
    for name in names or (["JinaVDR"] if smoke else []):
        for task in _tasks(name):
            # mteb returns shared task objects; copies keep filters and data local to this call.
            by_name.setdefault(task.metadata.name, copy.copy(task))
    if smoke:
        by_name = {name: by_name[name] for name in SMOKE if name in by_name}
    tasks = list(by_name.values())
    if languages:
        for language in languages:
            if len(language) != 3 or not language.isalpha():
                raise InvalidInputError(
                    f"languages contains {language!r}; expected a three-letter code (ISO 639-3), for example 'eng'."
                )
        tasks = [task for task in tasks if set(languages) & set(task.metadata.languages)]
        tasks = [task.filter_languages(list(languages)) for task in tasks]
    if not tasks:
        raise InvalidInputError(
            f"No task matches {', '.join([*names, *(languages or [])]) or 'an empty list of names'}. "
            "Pass a benchmark or a task, and languages that the task has."
        )
    return tasks


def _tasks(name: str) -> list[Any]:
    normalized_name = _normalize_name(name)
    if normalized_name == "sts":
        return [task for task in mteb.get_benchmark("MTEB(eng, v1)").tasks if task.metadata.type == "STS"]
    single = {_normalize_name(short): task for short, task in SINGLE.items()}.get(normalized_name, name)
    full_names = {_normalize_name(benchmark.name): benchmark.name for benchmark in mteb.get_benchmarks()}
    full_names |= {_normalize_name(short): full for short, full in BENCHMARKS.items()}
    if normalized_name in full_names:
        return list(mteb.get_benchmark(full_names[normalized_name]).tasks)
    try:
        return [mteb.get_task(single)]
    except KeyError:
        names = [*BENCHMARKS, *SINGLE, "STS"]
        matches = _similar_names(name, names)
        hint = f"Did you mean {', '.join(matches)}?" if matches else f"Benchmarks: {', '.join(names)}."
        raise InvalidInputError(f"mteb has no benchmark or task {name!r}. {hint}") from None


def _similar_names(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three names of similar spelling, or else tasks whose name contains `name`."""
    normalized_name = _normalize_name(name)
    if not normalized_name:
        return []
    tasks = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
    close_matches = difflib.get_close_matches(name, [*names, *tasks], n=3)
    return close_matches or [task for task in tasks if normalized_name in _normalize_name(task)][:3]


def _normalize_name(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
