"""Names of the devices that a caller passes: one device, several devices, or all CUDA devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from jina_rag._extras import require
from jina_rag.errors import InvalidInputError

DeviceNames: TypeAlias = "str | Sequence[str]"
"""The name of a device, names separated by commas, a sequence of names, or ``"all"`` for all CUDA devices."""
_EXPECTED = "expected a name such as 'cuda', names such as ['cuda:0', 'cuda:1'], or 'all'"


def device_names(device: DeviceNames) -> tuple[str, ...]:
    """Return the names of the devices, at least one.

    Args:
        device: ``"auto"`` or another name, names separated by commas (``"cuda:0,cuda:1"``), a sequence of names, or
            ``"all"`` for all CUDA devices of the machine. A name may occur several times, which loads the model several
            times on that device.

    Returns:
        The names in the order of the caller. Names are checked when a model is placed on the device.

    Raises:
        InvalidInputError: If no device is named, a name is not a str, ``"auto"`` or ``"all"`` is one of several names,
            or ``"all"`` is passed on a machine without CUDA devices.

    >>> device_names("cuda:0, cuda:1")
    ('cuda:0', 'cuda:1')
    """
    parts = device.split(",") if isinstance(device, str) else device
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise InvalidInputError(f"device is {device!r}; {_EXPECTED}.")
    names = tuple(part.strip() for part in parts)
    if not names or not all(names):
        raise InvalidInputError(f"device is {device!r}; {_EXPECTED}.")
    if len(names) > 1 and {"auto", "all"} & set(names):
        raise InvalidInputError(f"device is {device!r}; 'auto' and 'all' cannot be combined with other devices.")
    return _cuda_devices() if names == ("all",) else names


def _cuda_devices() -> tuple[str, ...]:
    torch: Any = require("torch", extra="models")
    count = torch.cuda.device_count()  # counts the devices without starting CUDA in this process
    if not count:
        raise InvalidInputError(
            "device is 'all', but PyTorch finds no CUDA device. Pass device='cpu' (--device cpu), or install PyTorch "
            "with CUDA."
        )
    return tuple(f"cuda:{index}" for index in range(count))
