"""Settings of an evaluation: combinations of embedder, storage, stages and reranker.

Example:
    settings = cross_product(embedders=["lite", "lite-en"], storages=["exact", "compact"])
    names = setting_names(settings)  # ["lite, exact", "lite, compact", "lite-en, exact", "lite-en, compact"]

Settings with the same embedder and storage share an index.
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
"""Name of the default stages of the embedder."""
_NEXT_STAGE = re.compile(r"\+(?=\s*(?:prefetch|rescore|rerank)\s*(?:[:+]|$))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Setting:
    """A combination of embedder, storage, stages and reranker.

    Attributes:
        embedder: Name or folder of a model, or an embedder; None for the embedder of an existing index, or for
            the default embedder if the index does not exist.
        storage: Name of a vector storage, or a `Storage`; None for the storage of an existing index, or for
            ``"exact"`` if the index does not exist.
        stages: Stages as text, see `parse_stages`; ``"default"`` for the default stages of the embedder.
        reranker: Name or folder of a model, or a reranker; None to search without a reranker.
    """

    embedder: str | Embedder | None = None
    storage: str | Storage | None = None
    stages: str = DEFAULT
    reranker: str | Reranker | None = None

    def __post_init__(self) -> None:
        if isinstance(self.storage, str):
            Storage.named(self.storage)
        rerank_stage = next((stage for stage in parse_stages(self.stages) if isinstance(stage, Rerank)), None)
        if rerank_stage is not None and rerank_stage.limit and not rerank_stage.model and self.reranker is None:
            raise InvalidInputError(
                f"The stages {self.stages!r} require a reranker. Pass reranker (--reranker) or rerank:model=NAME."
            )

    @property
    def index_key(self) -> tuple[str, str]:
        """(embedder, storage) as text; equal for settings that share an index."""
        return _model_text(self.embedder) or DEFAULT_EMBEDDER, _storage_text(self.storage) or "exact"

    def completed(self, index: Path) -> Setting:
        """Return a copy of the setting with unset values filled in from an existing index.

        Args:
            index: Folder of the index; the setting is unchanged if the folder holds no index.
        """
        index_settings = peek_settings(index / MANIFEST)
        if not index_settings:
            return self
        embedder = index_settings["embedder"] if self.embedder is None else self.embedder
        storage = Storage.from_json(index_settings["storage"]) if self.storage is None else self.storage
        return replace(self, embedder=embedder, storage=storage)

    def to_json(self) -> dict[str, str]:
        """Return the setting as a JSON object of strings; unset values are omitted."""
        parts = {
            "embedder": _model_text(self.embedder),
            "storage": _storage_text(self.storage),
            "stages": self.stages,
            "reranker": _model_text(self.reranker),
        }
        return {name: value for name, value in parts.items() if value}


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Parse a string of search stages: values of ``jina-rag search --stage``, joined by ``+``.

    Args:
        text: For example ``"rescore:dense=0.3+rerank:limit=20,model=lite"``. ``"default"`` gives an empty tuple,
            which selects the embedder's default stages.

    Raises:
        InvalidInputError: If the text is empty, a stage, an option or a value is invalid, or a stage occurs twice.
    """
    if not text.strip():
        raise InvalidInputError(f"stages is empty; expected {DEFAULT}, or for example rescore:dense=0.3.")
    if text.strip().lower() == DEFAULT:
        return ()
    stages = tuple(parse_stage(part) for part in _NEXT_STAGE.split(text))
    kinds = Counter(type(stage).__name__.lower() for stage in stages)
    for name, times in kinds.items():
        if times > 1:
            raise InvalidInputError(f"{text!r} has the stage {name} twice. Write the options of {name} once.")
    return stages


def cross_product(
    embedders: Sequence[str | Embedder | None] = (),
    storages: Sequence[str | Storage | None] = (),
    stages: Sequence[str] = (),
    rerankers: Sequence[str | Reranker | None] = (),
) -> list[Setting]:
    """Return a setting for every distinct combination; settings that share an index are adjacent.

    Args:
        embedders: Values for `Setting.embedder`; empty for the default.
        storages: Values for `Setting.storage`; empty for the default.
        stages: Values for `Setting.stages`; empty for the default.
        rerankers: Values for `Setting.reranker`; empty for the default.

    Raises:
        InvalidInputError: If a value is invalid.
    """
    combinations = product(embedders or [None], storages or [None], stages or [DEFAULT], rerankers or [None])
    settings: dict[tuple[Any, ...], Setting] = {}
    for embedder, storage, stage, reranker in combinations:
        setting = Setting(embedder, storage, stage, reranker)
        settings.setdefault((setting.index_key, parse_stages(stage), _model_text(reranker)), setting)
    return list(settings.values())


def setting_names(settings: Sequence[Setting]) -> list[str]:
    """Return a short unique name per setting: the embedder and each part that differs between the settings.

    Args:
        settings: The settings of one evaluation.
    """
    rows = [
        [
            _short_name(setting.index_key[0], [other.index_key[0] for other in settings]),
            setting.index_key[1],
            setting.stages.strip() if parse_stages(setting.stages) else DEFAULT,
            _reranker_text(setting, settings),
        ]
        for setting in settings
    ]
    columns = [column for column in range(4) if column == 0 or len({row[column] for row in rows}) > 1]
    names = [", ".join(row[column] for column in columns if row[column]) for row in rows]
    counts: Counter[str] = Counter()
    for position, name in enumerate(names):
        counts[name] += 1
        if counts[name] > 1:
            names[position] = f"{name} ({counts[name]})"
    return names


def slug(text: str) -> str:
    """Return a file name for a text: letters, digits and the characters ``_.=-``.

    A hash is appended if the text is longer than 60 characters or contains other characters.

    Args:
        text: Any text; different texts give different slugs.
    """
    safe_text = _safe_characters(text)
    if safe_text == text and len(safe_text) <= 60:
        return safe_text
    return f"{safe_text[:50]}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def file_names(names: Sequence[str]) -> list[str]:
    """Return a unique file name without suffix for the name of each setting.

    Args:
        names: Names of settings.
    """
    safe_names = [_safe_characters(name) for name in names]
    return safe_names if len({name.lower() for name in safe_names}) == len(names) else [slug(name) for name in names]


def index_locations(root: str, settings: Sequence[Setting]) -> dict[tuple[str, str], str]:
    """Return the location of each index: `root` for a single index, or subfolders of `root` for several indexes.

    Args:
        root: Path of a folder, or URL of a collection on a server. A collection is a single index.
        settings: All settings of the evaluation.

    Returns:
        `Setting.index_key` → location.

    Raises:
        InvalidInputError: If the settings need several indexes, but `root` is a single index.
    """
    keys = list(dict.fromkeys(setting.index_key for setting in settings))
    folders = {
        key: os.path.join(root, slug(f"{_tail(key[0])}-{key[1]}" if _has_builtin_names(key) else "/".join(key)))
        for key in keys
    }
    is_index = "://" in root or os.path.isfile(os.path.join(root, MANIFEST))
    if len(keys) == 1:
        return folders if not is_index and any(Path(root).glob(f"*/{MANIFEST}")) else {keys[0]: root}
    if is_index:
        raise InvalidInputError(
            f"{root} is a single index, but the settings need {len(keys)} indexes. Pass a folder without an index "
            "(--index)."
        )
    return folders


def _safe_characters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", text).strip("-.")[:100]


def _has_builtin_names(key: tuple[str, str]) -> bool:
    """Return whether embedder and storage have built-in names, which are unique and need no hash in the slug."""
    return "/" not in key[0] and os.sep not in key[0] and key[1] in ("exact", "balanced", "compact")


def _tail(name: str) -> str:
    return name.replace(os.sep, "/").rstrip("/").rsplit("/", 1)[-1]


def _short_name(name: str, names: Sequence[str]) -> str:
    """Return the last part of a model's name, or the whole name if another model has the same last part."""
    return _tail(name) if sum(_tail(other) == _tail(name) for other in set(names)) == 1 else name


def _reranker_text(setting: Setting, settings: Sequence[Setting]) -> str:
    names = [_model_text(other.reranker) for other in settings]
    name = _model_text(setting.reranker)
    return _short_name(name, names) if name else "no reranker" if any(names) else ""


def _model_text(model: str | Embedder | Reranker | None) -> str:
    if model is None or isinstance(model, str):
        return model or ""
    return model.name


def _storage_text(storage: str | Storage | None) -> str:
    return "" if storage is None else str(storage)
