"""Names of devices as callers pass them."""

from __future__ import annotations

import pytest

from jina_rag.errors import InvalidInputError
from jina_rag.models.runtime.device_names import device_names


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("auto", ("auto",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:0,cuda:1", ("cuda:0", "cuda:1")),
        (" cpu , cpu ", ("cpu", "cpu")),
        (["cuda:0", "cuda:2"], ("cuda:0", "cuda:2")),
        (("cpu",), ("cpu",)),
    ],
)
def test_names_are_separated(device, names):
    assert device_names(device) == names


def test_all_names_each_cuda_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert device_names("all") == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert device_names("all") == ("cuda:0",)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InvalidInputError, match="no CUDA device"):
        device_names("all")


@pytest.mark.parametrize("device", ["", "cuda:0,", [], [""], ["auto", "cpu"], "all,cpu", [0, 1], 0, None, {"cpu"}])
def test_invalid_names_raise(device):
    with pytest.raises(InvalidInputError, match=r"^device is "):
        device_names(device)
