"""The stages of a search as values: what finds candidates, what refines their scores, what judges the best of them.

    index.search(question, stages=[Prefetch(limit=300), Rescore(dense=0.3), Rerank(max_ms=500)])

What is not given is as it suits the index's embedder. `Prefetch` stands in `jina_rag.types`, since stores know it;
`Rescore` in `fusion` and `Rerank` in `reranking`, beside what they set.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder
from jina_rag.search.fusion import Rescore
from jina_rag.search.reranking import Rerank
from jina_rag.types import Prefetch

Stage: TypeAlias = Prefetch | Rescore | Rerank
_STAGE_TYPES: dict[str, type[Any]] = {"prefetch": Prefetch, "rescore": Rescore, "rerank": Rerank}


@dataclass(frozen=True, slots=True)
class Stages:
    """All stages of a search.

    Attributes:
        prefetch: Finds candidates.
        rescore: Scores them by late interaction.
        rerank: Judges the best of them; None where there is no reranker.
    """

    prefetch: Prefetch = field(default_factory=Prefetch)
    rescore: Rescore = field(default_factory=Rescore)
    rerank: Rerank | None = None

    def override(self, stages: Stage | Sequence[Stage] | None) -> Stages:
        """These stages, with others in the place of those of their kind.

        Raises:
            InvalidInputError: If something is no stage, or there are two of a kind.
        """
        by_name: dict[str, Any] = {}
        if isinstance(stages, Prefetch | Rescore | Rerank):
            stages = [stages]
        for stage in stages or ():
            name = next((name for name, kind in _STAGE_TYPES.items() if isinstance(stage, kind)), None)
            if name is None:
                raise InvalidInputError(f"A stage is a Prefetch, a Rescore or a Rerank, not {stage!r}.")
            if name in by_name:
                raise InvalidInputError(f"A search has one stage of each kind, and two are {type(stage).__name__}.")
            by_name[name] = stage
        return replace(self, **by_name)


def default_stages(embedder: Embedder, reranker: bool) -> Stages:
    """What suits an embedder.

    An option is on where the lower end of its paired 95 % interval on judged questions is not below -0.01 nDCG@5, and
    it gains something (`benchmarks/stages.py`): the hubness correction and the dense vector's score, as much of each as
    the embedder says.

    Args:
        embedder: Of the index.
        reranker: Whether the index has one.
    """
    return Stages(rescore=Rescore(dense=embedder.dense_weight), rerank=Rerank() if reranker else None)


def parse_stage(text: str) -> Stage:
    """A stage from one line, such as ``"prefetch:limit=300,lexical=false"`` or ``"rerank:max_ms=500"``.

    Raises:
        InvalidInputError: If the stage, an option or a value is unknown.
    """
    name, _, options = text.partition(":")
    kind = _STAGE_TYPES.get(name.strip().lower())
    if kind is None:
        raise InvalidInputError(f"{name!r} is no stage of a search: prefetch, rescore and rerank are.")
    names = [field.name for field in fields(kind) if field.name != "calibration"]
    values: dict[str, Any] = {}
    for option in filter(None, (part.strip() for part in options.split(","))):
        key, equals, value = option.partition("=")
        if key not in names or not equals:
            raise InvalidInputError(f"{option!r} is no option of {name}: {', '.join(f'{key}=…' for key in names)} are.")
        values[key] = tuple(value.split("+")) if key == "shows" else value if key == "model" else _value(key, value)
    stage: Stage = kind(**values)
    return stage


def _value(key: str, text: str) -> float | bool | None:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    raise InvalidInputError(f"{key}={text!r}: write a number, true or false.")
