"""Fixtures and settings shared by all tests."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Tests never access the model hub; download tests start a local hub server.
os.environ["HF_HUB_OFFLINE"] = "1"

# A deadline would make tests fail on busy machines.
hypothesis.settings.register_profile("shared", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> dict[str, str]:
    """Return family → folder of the tiny checkpoints in the package; tests must not modify the folders."""
    from jina_rag.models.tiny_checkpoints import TINY_FAMILIES, unpack_tiny

    root = tmp_path_factory.mktemp("tiny")
    return {family: str(unpack_tiny(family, root / family)) for family in TINY_FAMILIES}


@pytest.fixture(scope="module")
def one_thread():
    """Run PyTorch with one thread: more threads do not speed up tiny models, and slow them down on busy CPUs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
