"""The stages of a search: candidate selection (`Prefetch`), late interaction (`Rescore`) and reranking (`Rerank`).

    index.search(query, stages=[Prefetch(limit=300), Rescore(dense=0.3), Rerank(max_ms=500)])

For omitted stages, the defaults of the embedder of the index apply. `Prefetch` is defined in `jina_rag.types`, because
stores also use `Prefetch`. `Rescore` is defined in `fusion`, and `Rerank` is defined in `reranking`.
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
        prefetch: Selects the candidates.
        rescore: Scores the candidates by late interaction.
        rerank: Scores the best pages with a reranker; None skips reranking.
    """

    prefetch: Prefetch = field(default_factory=Prefetch)
    rescore: Rescore = field(default_factory=Rescore)
    rerank: Rerank | None = None

    def override(self, stages: Stage | Sequence[Stage] | None) -> Stages:
        """Return a copy in which each stage of `stages` replaces the current stage of the same type.

        Args:
            stages: One or several new stages; None or an empty sequence replaces nothing.

        Raises:
            InvalidInputError: If a value is not a stage, or two stages have the same type.
        """
        by_name: dict[str, Any] = {}
        if isinstance(stages, Prefetch | Rescore | Rerank):
            stages = [stages]
        for stage in stages or ():
            name = next((name for name, kind in _STAGE_TYPES.items() if isinstance(stage, kind)), None)
            if name is None:
                raise InvalidInputError(f"stages contains {stage!r}; expected a Prefetch, a Rescore or a Rerank.")
            if name in by_name:
                raise InvalidInputError(f"stages contains {type(stage).__name__} twice; expected one of each type.")
            by_name[name] = stage
        return replace(self, **by_name)


def default_stages(embedder: Embedder, reranker: bool) -> Stages:
    """Return the default stages of an index.

    An option is on by default if the option improves nDCG@5 on judged queries and the lower bound of the paired 95 %
    confidence interval of the improvement is at least -0.01 (`benchmarks/stages.py`). Two options meet these
    conditions: the hubness correction and the dense score, each with the weight that the embedder defines.

    Args:
        embedder: Embedder of the index.
        reranker: Whether the index has a reranker.
    """
    return Stages(rescore=Rescore(dense=embedder.dense_weight), rerank=Rerank() if reranker else None)


def parse_stage(text: str) -> Stage:
    """Parse a stage from one line, for example ``"prefetch:limit=300,lexical=false"`` or ``"rerank:max_ms=500"``.

    Args:
        text: Stage name, a colon, and comma-separated ``option=value`` pairs.

    Raises:
        InvalidInputError: If the stage, an option or a value is unknown.
    """
    name, _, options = text.partition(":")
    kind = _STAGE_TYPES.get(name.strip().lower())
    if kind is None:
        raise InvalidInputError(f"Unknown search stage {name!r}; expected one of prefetch, rescore, rerank.")
    names = [field.name for field in fields(kind) if field.name != "calibration"]
    values: dict[str, Any] = {}
    for option in filter(None, (part.strip() for part in options.split(","))):
        key, equals, value = option.partition("=")
        if key not in names or not equals:
            raise InvalidInputError(
                f"Unknown {name} option {option!r}; expected {', '.join(f'{key}=…' for key in names)}."
            )
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
    raise InvalidInputError(f"{key} is {text!r}; expected a number, true or false.")
