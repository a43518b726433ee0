"""The stages of a search as values: what finds candidates, what refines their scores, what judges the best of them.

    index.search(question, stages=[Prefetch(limit=300), Rescore(dense=0.3), Rerank(max_ms=500)])

What is not given is as it suits the index's embedder. `Prefetch` stands in `jina_rag.types`, since stores know it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder, Reranker
from jina_rag.types import Prefetch

if TYPE_CHECKING:
    from jina_rag.search.calibration import Calibration

Shown: TypeAlias = Literal["page", "region", "text"]
"""What a reranker is shown of a page: its screenshot, the crop of its best chart, table or figure, its words."""


@dataclass(frozen=True, slots=True)
class Rescore:
    """The second stage: exact MaxSim on the stored multi-vectors, per question token, and what is added to it.

    Attributes:
        limit: Pages that are compared with each other, best first by MaxSim; what comes further down follows in groups
            of as many, each ranked by itself and none above the group before. So a longer list begins with the shorter.
        hubness: Share of a page's mean score for general questions that is taken off; None for the embedder's own. See
            `jina_rag.hubness`.
        identifiers: What a page gains that has an identifier of the question (a part number, an error code, a
            paragraph) exactly as it is written; in units of a cosine. See `jina_rag.search.exact_match`.
        dense: Weight of the dense vector's score, brought to the spread of the late-interaction scores first.
        window: Weight of the best window's MaxSim, brought to the same spread; see `jina_rag.scoring.best_window`.
        window_tokens: Page tokens in a window.
    """

    limit: int = 60
    hubness: float | None = None
    identifiers: float = 0.5
    dense: float = 0.0
    window: float = 0.0
    window_tokens: int = 96

    def __post_init__(self) -> None:
        _whole("Rescore.limit", self.limit, 1)
        _whole("Rescore.window_tokens", self.window_tokens, 1)
        for name in ("identifiers", "dense", "window"):
            _number(f"Rescore.{name}", getattr(self, name))
        if self.hubness is not None:
            _number("Rescore.hubness", self.hubness)


@dataclass(frozen=True, slots=True)
class Rerank:
    """The last stage: a reranker reads the question and the best pages together.

    Pages that it judged come first, by its scores; the others follow in the order they had.

    Attributes:
        model: A reranker, or what `jina_rag.load_reranker` takes; None for the one the index was opened with.
        limit: Pages that are judged, best first; 0 turns the stage off.
        shows: What the reranker is shown of each page; a page's score is that of its best part. None for what suits the
            reranker: the screenshot for one that looks at pixels, the words for one that reads.
        max_images: Images that are judged at most.
        max_ms: Milliseconds after which nothing is begun. Two pages are judged first, which tell what a page takes;
            what is begun is finished, so pages that take longer than those before overrun it.
        calibration: Makes scores of images and of texts comparable; None takes them as they are. See
            `jina_rag.search.calibration`.
    """

    model: str | os.PathLike[str] | Reranker | None = None
    limit: int = 20
    shows: tuple[Shown, ...] | None = None
    max_images: int | None = None
    max_ms: float | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, os.PathLike):
            object.__setattr__(self, "model", os.fspath(self.model))
        if not (self.model is None or isinstance(self.model, str) or hasattr(self.model, "score")):
            raise InvalidInputError(f"Rerank.model is {self.model!r}; it is a reranker, or the name or folder of one.")
        _whole("Rerank.limit", self.limit, 0)
        if self.max_images is not None:
            _whole("Rerank.max_images", self.max_images, 0)
        if self.max_ms is not None:
            _number("Rerank.max_ms", self.max_ms)
        if self.shows is not None:
            object.__setattr__(self, "shows", tuple(self.shows))
        if self.shows is not None and (not self.shows or not set(self.shows) <= set(get_args(Shown))):
            raise InvalidInputError(f"Rerank.shows is {self.shows!r}; it is some of 'page', 'region', 'text'.")


Stage: TypeAlias = Prefetch | Rescore | Rerank
_NAMED: dict[str, type[Any]] = {"prefetch": Prefetch, "rescore": Rescore, "rerank": Rerank}


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

    def but(self, stages: Stage | Sequence[Stage] | None) -> Stages:
        """These stages, with the given ones in the place of those of their kind.

        Raises:
            InvalidInputError: If something is no stage, or there are two of a kind.
        """
        found: dict[str, Any] = {}
        if isinstance(stages, Prefetch | Rescore | Rerank):
            stages = [stages]
        for stage in stages or ():
            name = next((name for name, kind in _NAMED.items() if isinstance(stage, kind)), None)
            if name is None:
                raise InvalidInputError(f"A stage is a Prefetch, a Rescore or a Rerank, not {stage!r}.")
            if name in found:
                raise InvalidInputError(f"A search has one stage of each kind, and two are {type(stage).__name__}.")
            found[name] = stage
        return replace(self, **found)


def default_stages(embedder: Embedder, reranker: bool) -> Stages:
    """What suits an embedder.

    An option is on where the lower end of its paired 95 % interval on judged questions is not below -0.01 nDCG@5, and
    it gains something (`benchmarks/stages.py`): the hubness correction and the dense vector's score, as much of each as
    the embedder says. Windows gained nothing with any model.

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
    kind = _NAMED.get(name.strip().lower())
    if kind is None:
        raise InvalidInputError(f"{name!r} is no stage of a search: prefetch, rescore and rerank are.")
    known = [entry.name for entry in fields(kind) if entry.name != "calibration"]
    given: dict[str, Any] = {}
    for option in filter(None, (part.strip() for part in options.split(","))):
        key, equals, value = option.partition("=")
        if key not in known or not equals:
            raise InvalidInputError(f"{option!r} is no option of {name}: {', '.join(f'{key}=…' for key in known)} are.")
        given[key] = tuple(value.split("+")) if key == "shows" else value if key == "model" else _value(key, value)
    stage: Stage = kind(**given)
    return stage


def _value(key: str, text: str) -> float | bool | None:
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"{key}={text!r}: write a number, true or false.") from None


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInputError(f"{name} is {value!r}; it must be a whole number of at least {least}.")


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InvalidInputError(f"{name} is {value!r}; it must be a number of at least 0.")
