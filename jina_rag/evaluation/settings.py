"""What an evaluation compares: settings, each an embedder, a storage, stages and a reranker.

    settings = cross_product(embedders=["lite", "lite-en"], storages=["exact", "compact"])
    names = names_of(settings)  # ["lite, exact", "lite, compact", "lite-en, exact", "lite-en, compact"]

Those with the same embedder and storage share an index.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from jina_rag.catalog.manifest import peek_settings
from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.index.session import DEFAULT_EMBEDDER, MANIFEST
from jina_rag.protocols import Embedder, Reranker
from jina_rag.search.reranking import Rerank
from jina_rag.search.stages import Stage, parse_stage

DEFAULT = "default"
"""The name of stages as they suit the embedder."""
_NEXT_STAGE = re.compile(r"\+(?=\s*(?:prefetch|rescore|rerank)\s*(?:[:+]|$))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to search.

    Attributes:
        embedder: Name or folder of a model, or an embedder; None for the index's own, and the default for a new one.
        storage: How vectors are kept; None for the index's own, and ``"exact"`` for a new one.
        stages: As text, see `parse_stages`; ``"default"`` for what suits the embedder.
        reranker: Name or folder of a model, or a reranker; None for none.
    """

    embedder: str | Embedder | None = None
    storage: str | Storage | None = None
    stages: str = DEFAULT
    reranker: str | Reranker | None = None

    def __post_init__(self) -> None:
        if isinstance(self.storage, str):
            Storage.named(self.storage)
        judge = next((stage for stage in parse_stages(self.stages) if isinstance(stage, Rerank)), None)
        if judge is not None and judge.limit and not judge.model and self.reranker is None:
            raise InvalidInputError(
                f"The stages {self.stages!r} need a reranker: name one, or write rerank:model=NAME."
            )

    @property
    def index_key(self) -> tuple[str, str]:
        """What settings that share an index have in common, as text."""
        return _model_text(self.embedder) or DEFAULT_EMBEDDER, _storage_text(self.storage) or "exact"

    def completed(self, index: Path) -> Setting:
        """This setting with what an index that is there already says about what was left out."""
        index_settings = peek_settings(index / MANIFEST)
        if not index_settings:
            return self
        embedder = index_settings["embedder"] if self.embedder is None else self.embedder
        storage = Storage.from_json(index_settings["storage"]) if self.storage is None else self.storage
        return replace(self, embedder=embedder, storage=storage)

    def to_json(self) -> dict[str, str]:
        """Its parts as text, what was not given left out."""
        parts = {
            "embedder": _model_text(self.embedder),
            "storage": _storage_text(self.storage),
            "stages": self.stages,
            "reranker": _model_text(self.reranker),
        }
        return {name: value for name, value in parts.items() if value}


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Stages from one line: those of ``jina-rag search --stage``, joined by ``+``.

    ``"rescore:dense=0.3+rerank:limit=20,model=lite"``; ``"default"`` gives none, so that all are as suits the embedder.

    Raises:
        InvalidInputError: If a stage, an option or a value is unknown, or a stage is given twice.
    """
    if not text.strip():
        raise InvalidInputError(f"The stages are empty: write {DEFAULT}, or such as rescore:dense=0.3.")
    if text.strip().lower() == DEFAULT:
        return ()
    stages = tuple(parse_stage(part) for part in _NEXT_STAGE.split(text))
    kinds = Counter(type(stage).__name__.lower() for stage in stages)
    for name, times in kinds.items():
        if times > 1:
            raise InvalidInputError(f"{text!r} has the stage {name} twice: write its options in one, with commas.")
    return stages


def cross_product(
    embedders: Sequence[str | Embedder | None] = (),
    storages: Sequence[str | Storage | None] = (),
    stages: Sequence[str] = (),
    rerankers: Sequence[str | Reranker | None] = (),
) -> list[Setting]:
    """Every combination, each once; those that share an index follow each other. What is empty is as by default.

    Raises:
        InvalidInputError: If a part of one makes no sense.
    """
    combinations = product(embedders or [None], storages or [None], stages or [DEFAULT], rerankers or [None])
    settings: dict[tuple[Any, ...], Setting] = {}
    for embedder, storage, stage, reranker in combinations:
        setting = Setting(embedder, storage, stage, reranker)
        settings.setdefault((setting.index_key, parse_stages(stage), _model_text(reranker)), setting)
    return list(settings.values())


def names_of(settings: Sequence[Setting]) -> list[str]:
    """A short name for each, unique among them: the embedder, and what else differs."""
    rows = [
        [
            _short(setting.index_key[0], [other.index_key[0] for other in settings]),
            setting.index_key[1],
            setting.stages.strip() if parse_stages(setting.stages) else DEFAULT,
            _reranker_text(setting, settings),
        ]
        for setting in settings
    ]
    columns = [column for column in range(4) if column == 0 or len({row[column] for row in rows}) > 1]
    names = [", ".join(row[column] for column in columns if row[column]) for row in rows]
    counts: Counter[str] = Counter()
    for place, name in enumerate(names):
        counts[name] += 1
        if counts[name] > 1:
            names[place] = f"{name} ({counts[name]})"
    return names


def slug(text: str) -> str:
    """A text as a file's name: letters, digits and a few marks; two texts have two slugs."""
    plain = _plain(text)
    if plain == text and len(plain) <= 60:
        return plain
    return f"{plain[:50]}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def file_names(names: Sequence[str]) -> list[str]:
    """Names of settings as parts of the names of files, unique among them."""
    plain = [_plain(name) for name in names]
    return plain if len({name.lower() for name in plain}) == len(names) else [slug(name) for name in names]


def place_index(root: str, settings: Sequence[Setting]) -> dict[tuple[str, str], str]:
    """Where each index lies: at `root` if there is one, in folders beneath if there are several.

    Args:
        root: A folder, or the address of a collection on a server, which is one index.
        settings: All that are evaluated.

    Returns:
        `Setting.index_key` → location.

    Raises:
        InvalidInputError: If several are wanted, and `root` is one index.
    """
    keys = list(dict.fromkeys(setting.index_key for setting in settings))
    beneath = {
        key: os.path.join(root, slug(f"{_last(key[0])}-{key[1]}" if _is_plain(key) else "/".join(key))) for key in keys
    }
    is_index = "://" in root or os.path.isfile(os.path.join(root, MANIFEST))
    if len(keys) == 1:
        return beneath if not is_index and any(Path(root).glob(f"*/{MANIFEST}")) else {keys[0]: root}
    if is_index:
        raise InvalidInputError(
            f"{root} is one index, and these settings need {len(keys)}: give a folder in which each gets its own."
        )
    return beneath


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", text).strip("-.")[:100]


def _is_plain(key: tuple[str, str]) -> bool:
    """Whether embedder and storage have names that belong to nothing else."""
    return "/" not in key[0] and os.sep not in key[0] and key[1] in ("exact", "balanced", "compact")


def _last(name: str) -> str:
    return name.replace(os.sep, "/").rstrip("/").rsplit("/", 1)[-1]


def _short(name: str, names: Sequence[str]) -> str:
    """The last part of a model's name, if no other model here ends alike."""
    return _last(name) if sum(_last(other) == _last(name) for other in set(names)) == 1 else name


def _reranker_text(setting: Setting, settings: Sequence[Setting]) -> str:
    names = [_model_text(other.reranker) for other in settings]
    name = _model_text(setting.reranker)
    return _short(name, names) if name else "no reranker" if any(names) else ""


def _model_text(model: str | Embedder | Reranker | None) -> str:
    if model is None or isinstance(model, str):
        return model or ""
    return model.name


def _storage_text(storage: str | Storage | None) -> str:
    return "" if storage is None else str(storage)
