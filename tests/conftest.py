"""Fixtures that several test files share."""

from __future__ import annotations

import os

import hypothesis
import pytest

# No test reaches the model hub; those of downloads have one of their own on this machine.
os.environ["HF_HUB_OFFLINE"] = "1"

# A deadline fails on a busy machine, not on a fault.
hypothesis.settings.register_profile("shared", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> dict[str, str]:
    """Folders of the tiny checkpoints that come with the package, by family. Not to be written to."""
    from jina_rag.models.tiny_checkpoints import TINY_FAMILIES, unpack_tiny

    root = tmp_path_factory.mktemp("tiny")
    return {family: str(unpack_tiny(family, root / family)) for family in TINY_FAMILIES}


@pytest.fixture(scope="module")
def one_thread():
    """So small models gain nothing from a second one, and lose much to it where the cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
