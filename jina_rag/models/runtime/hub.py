"""Checkpoints from the Hugging Face hub: found in its cache or downloaded, never with code."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from jina_rag._extras import require
from jina_rag.errors import ModelNotFoundError

ALLOWED = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What is fetched: configurations, weights, tokenizers. No Python, no pickles."""
IGNORED = ("onnx/*", "openvino/*", "*.onnx*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id: ``owner/model``."""
    return len(name) <= 96 and ".." not in name and _HUB_ID.fullmatch(name) is not None


def fetch(repo_id: str, *, revision: str | None, local_files_only: bool) -> Path:
    """The folder of a model of the hub, downloaded where it is not in the cache yet.

    Downloads resume, show their progress on stderr, and are shared with every other program that uses the hub's
    cache (``HF_HOME``). ``HF_HUB_OFFLINE=1`` is respected.

    Args:
        repo_id: ``owner/model``.
        revision: Branch, tag or commit; None for ``main``.
        local_files_only: Look into the cache only.

    Raises:
        ModelNotFoundError: If it is not there, or cannot be fetched; the message says what to do.
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
            f"The model {repo_id!r} asks for an agreement on its page: accept it there, then `hf auth login`."
        ) from exc
    except errors.RevisionNotFoundError as exc:
        raise ModelNotFoundError(f"The model {repo_id!r} has no revision {revision!r}.") from exc
    except errors.RepositoryNotFoundError as exc:
        raise ModelNotFoundError(f"The hub has no model {repo_id!r}, or you may not see it.") from exc
    except errors.LocalEntryNotFoundError as exc:
        if local_files_only or offline():
            raise ModelNotFoundError(
                f"The model {repo_id!r} is not on this machine, and nothing is downloaded when offline: "
                f"run `jina-rag models download {repo_id}` with a network, or pass a folder."
            ) from exc
        raise ModelNotFoundError(_unreachable(repo_id, exc)) from exc
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as exc:
        raise ModelNotFoundError(_unreachable(repo_id, exc)) from exc
    return Path(folder)


def cached(repo_id: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the hub's cache, or None. Never connects."""
    try:
        hub = require("huggingface_hub", extra="models")
    except ImportError:
        return None
    config_path = hub.try_to_load_from_cache(repo_id, "config.json", revision=revision or "main")
    return Path(config_path).parent if isinstance(config_path, str) else None


def offline() -> bool:
    """Whether the environment forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _unreachable(repo_id: str, exc: BaseException) -> str:
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    return (
        f"The model {repo_id!r} cannot be fetched from the hub ({reason}). What was downloaded is kept: run it again "
        "to go on, or pass the folder of a copy."
    )
