"""Download of checkpoints from the Hugging Face hub, and lookup in the hub's cache; code is never downloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from jina_rag._extras import require
from jina_rag.errors import ModelNotFoundError

ALLOWED = ("*.json", "*.safetensors", "*.txt", "*.model")
"""Patterns of the files to download: configs, weights and tokenizers, but no Python or pickle files."""
IGNORED = ("onnx/*", "openvino/*", "*.onnx*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id: ``owner/model``."""
    return len(name) <= 96 and ".." not in name and _HUB_ID.fullmatch(name) is not None


def fetch(repo_id: str, *, revision: str | None, local_files_only: bool) -> Path:
    """Return the folder of a model in the hub's cache, after downloading missing files.

    An interrupted download is resumed, and progress is printed to stderr. The cache (``HF_HOME``) is shared with other
    programs that use the hub. ``HF_HUB_OFFLINE=1`` disables downloads.

    Args:
        repo_id: Hub id, ``owner/model``.
        revision: Branch, tag or commit; None for ``main``.
        local_files_only: Use the cache only, without network access.

    Raises:
        ModelNotFoundError: If the model is not in the cache and cannot be downloaded.
    """
    hub = require("huggingface_hub", extra="models")
    errors: Any = require("huggingface_hub.errors", extra="models")
    try:
        folder = hub.snapshot_download(
            repo_id,
            revision=revision or "main",
            allow_patterns=list(ALLOWED),
            ignore_patterns=list(IGNORED),
            local_files_only=local_files_only,
        )
    except errors.GatedRepoError as exc:
        raise ModelNotFoundError(
            f"The model {repo_id!r} is gated. Accept the terms at https://huggingface.co/{repo_id}, then run "
            "`hf auth login`."
        ) from exc
    except errors.RevisionNotFoundError as exc:
        raise ModelNotFoundError(f"The model {repo_id!r} has no revision {revision!r}. Pass another revision.") from exc
    except errors.RepositoryNotFoundError as exc:
        raise ModelNotFoundError(
            f"The hub has no model {repo_id!r}, or denies access. Check the id, or run `hf auth login`."
        ) from exc
    except errors.LocalEntryNotFoundError as exc:
        if local_files_only or offline():
            raise ModelNotFoundError(
                f"Downloads are disabled, and {repo_id} is not on this machine. Run `jina-rag models download "
                f"{repo_id}` with network access, or pass the path of a local copy."
            ) from exc
        raise ModelNotFoundError(_unreachable(repo_id, exc)) from exc
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as exc:
        raise ModelNotFoundError(_unreachable(repo_id, exc)) from exc
    return Path(folder)


def cached_folder(repo_id: str, revision: str | None = None) -> Path | None:
    """Return the folder of a model in the hub's cache, without network access; None if the model is not cached."""
    try:
        hub = require("huggingface_hub", extra="models")
    except ImportError:
        return None
    config_path = hub.try_to_load_from_cache(repo_id, "config.json", revision=revision or "main")
    return Path(config_path).parent if isinstance(config_path, str) else None


def offline() -> bool:
    """Return whether ``HF_HUB_OFFLINE`` disables downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _unreachable(repo_id: str, exc: BaseException) -> str:
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    return (
        f"The model {repo_id!r} cannot be downloaded from the hub ({reason}). Run the command again to resume the "
        "download, or pass the path of a local copy."
    )
