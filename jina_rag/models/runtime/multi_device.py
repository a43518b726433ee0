"""One model on several devices: one process per device, and the inputs of each call shared out by tokens.

Each process loads the whole model. A call is split into shares of about equal numbers of tokens; a call with few tokens
goes to the device with the least work. Calls of several threads run at the same time, as with one device.

If an input is invalid, the call is repeated in one process, so that the error names the same input as the error of
one device. If a process ends, a new process is started, and the inputs of the process are computed once more.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self, Unpack

import numpy as np

from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.inputs import as_input_list, as_input_pairs
from jina_rag.models.runtime.device_group import DeviceGroup, DeviceSlot
from jina_rag.models.runtime.process_messages import Packer, plain
from jina_rag.models.runtime.work_sharing import MAX_SHARE, Share, share_out, token_cost
from jina_rag.protocols import Embedder, EmbedderDefaults, EncodeOptions, Input, Reranker
from jina_rag.types import Attribution, Embeddings, Float32, Page

_PAIR_TOKENS = 64
"""Approximate cost, in tokens, of a pair whose document is in the prefix cache of a process."""
_REMEMBERED_DOCUMENTS = 100_000
_THUMBNAIL = (24, 24)


@dataclass(frozen=True, slots=True)
class GroupPlacement:
    """Devices and dtype of a model on several devices.

    Attributes:
        device: Names of the devices, separated by commas.
        dtype: Dtype of the weights, for example ``"torch.bfloat16"``.
    """

    device: str
    dtype: str


class _MultiDeviceModel:
    """Attributes and lifetime of a model on several devices.

    Attributes:
        devices: Names of the devices.
    """

    def __init__(
        self, factories: Sequence[Callable[[], object]], devices: Sequence[str] | None, methods: Sequence[str]
    ) -> None:
        names = tuple(devices or (f"device {number}" for number in range(1, len(factories) + 1)))
        self._group = DeviceGroup(factories, names)
        self.devices = names
        description = self._group.description
        if missing := [name for name in methods if name not in description.methods]:
            self._group.close()
            raise InvalidInputError(f"The model of the factories has no method {missing[0]}.")
        for name, value in description.attributes.items():
            setattr(self, name, value)
        self._modality = str(description.attributes.get("modality", ""))
        if description.dtype is not None:
            self.placement = GroupPlacement(",".join(names), description.dtype)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Ids of the processes, in the order of `devices`."""
        return tuple(slot.process.pid for slot in self._group.slots if slot.process is not None)

    def close(self) -> None:
        """End the processes and free the memory of the devices. Later calls raise DeviceLostError. Idempotent.

        The processes also end when the model is garbage-collected and when the program ends.
        """
        self._group.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._group.name!r}, devices={', '.join(self.devices)})"

    def _call(
        self,
        method: str,
        plan: Callable[[list[int]], list[Share]],
        options: Mapping[str, Any],
        pack: Callable[[Packer, Sequence[int]], list[Any]],
    ) -> list[tuple[list[int], Any]]:
        """Compute a call; return the indices of the inputs and the result of each share that `plan` returns.

        If an input is invalid, all inputs are computed in one process, as one share. The message of the error names the
        number of the input in its share, and another share may contain an invalid input with a lower number.
        """
        options = _plain_options(options)

        def send(slot: DeviceSlot, share: Share) -> Future[Any]:
            packer = Packer()
            arguments = pack(packer, share.indices)
            assert slot.process is not None
            return slot.process.call(method, arguments, options, packer.buffers)

        shares = self._group.share_out(plan)
        try:
            results = self._group.run(shares, send)
        except ModelError:
            raise
        except Exception:
            if len(shares) == 1:
                raise
            indices = sorted(index for share in shares for index in share.indices)
            shares = [Share(indices, sum(share.cost for share in shares))]
            results = self._group.run(shares, send)
        return [(share.indices, result) for share, result in zip(shares, results, strict=True)]


class MultiDeviceEmbedder(_MultiDeviceModel, EmbedderDefaults):
    """Embedder on several devices, one process per device; implements `jina_rag.protocols.Embedder`.

    Thread-safe. Vectors, order and errors are those of the embedder on one device. `load_embedder` returns this class
    for several devices:

        with load_embedder("jinaai/jina-embeddings-v4", device=["cuda:0", "cuda:1"]) as embedder: ...

    Each process needs memory for the whole model. Several processes on one device share its memory without knowing of
    each other.

    Attributes:
        devices: Names of the devices.
        name: See `Embedder.name`.
        fingerprint: See `Embedder.fingerprint`.
        dim: Length of the dense vector.
        multi_dim: Length of a row of the multi-vector.
        modality: See `Embedder.modality`.
    """

    name: str
    fingerprint: str
    dim: int
    multi_dim: int
    modality: Literal["text", "image"]

    def __init__(self, factories: Sequence[Callable[[], Embedder]], *, devices: Sequence[str] | None = None) -> None:
        """Start the processes and load the model in each process.

        Args:
            factories: Functions that load the embedder, one per process. A process imports the module of a function, so
                the function cannot be part of the main program. `functools.partial` passes arguments.
            devices: Names of the devices, for messages; None for ``"device 1"``, ``"device 2"``, …

        Raises:
            InvalidInputError: If a factory cannot be sent to a process, or the embedders of the factories differ.
            ModelError: If a process cannot be started or ends while loading.
        """
        super().__init__(factories, devices, ("encode_query", "encode_document"))

    def encode_query(self, queries: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Return the embeddings of queries; see `Embedder.encode_query`.

        Args:
            queries: The queries, n inputs.
            options: See `EncodeOptions`, and the further options of the embedder, for example `task`.

        Returns:
            Dense vectors of shape (n, dim) and multi-vectors of shape (tokens, multi_dim), float32.

        Raises:
            InvalidInputError: If an input or an option is invalid for the model.
            DeviceLostError: If the embedder is closed, or two processes ended while computing the same inputs.
        """
        return self._encode("encode_query", as_input_list(queries, "queries"), options)

    def encode_document(self, documents: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Return the embeddings of pages, images or texts; see `encode_query` for arguments, shapes and errors.

        Args:
            documents: The documents, n inputs.
            options: See `encode_query`.

        Returns:
            Dense vectors of shape (n, dim) and multi-vectors of shape (tokens, multi_dim), float32.
        """
        return self._encode("encode_document", as_input_list(documents, "documents"), options)

    def _encode(self, method: str, inputs: Sequence[Input], options: Mapping[str, Any]) -> Embeddings:
        costs = [token_cost(item, self._modality, options) for item in inputs]

        def pack(packer: Packer, indices: Sequence[int]) -> list[Any]:
            return [[packer.pack_input(inputs[index], self._modality) for index in indices]]

        return _merge(len(inputs), self._call(method, partial(share_out, costs), options, pack))


class MultiDeviceReranker(_MultiDeviceModel):
    """Reranker on several devices, one process per device; implements `jina_rag.protocols.Reranker`.

    Thread-safe. Scores, order and errors are those of the reranker on one device. A document is scored by the device
    that scored the document before, so that the device finds the document in its prefix cache.

    Attributes:
        devices: Names of the devices.
        name: See `Reranker.name`.
        fingerprint: See `Reranker.fingerprint`.
        modality: See `Reranker.modality`.
    """

    name: str
    fingerprint: str
    modality: Literal["text", "image"]

    def __init__(self, factories: Sequence[Callable[[], Reranker]], *, devices: Sequence[str] | None = None) -> None:
        """Start the processes and load the model in each process.

        Args:
            factories: Functions that load a reranker with the methods `score_pairs` and `explain`, one per process; see
                `MultiDeviceEmbedder`.
            devices: Names of the devices, for messages; None for ``"device 1"``, ``"device 2"``, …

        Raises:
            InvalidInputError: If a factory cannot be sent to a process, or the rerankers of the factories differ.
            ModelError: If a process cannot be started or ends while loading.
        """
        super().__init__(factories, devices, ("score", "score_pairs", "explain"))
        self._device_of: OrderedDict[Hashable, int] = OrderedDict()
        self._lock = threading.Lock()

    def score(self, query: Input, documents: Sequence[Input], **options: Any) -> Float32:  # noqa: ANN401
        """Return the score of each document; see `Reranker.score`.

        Args:
            query: A text, an image or a page.
            documents: Texts, images and pages in one list.
            options: The options of the reranker, for example `raw`; see `RerankerM0.score_pairs`.

        Returns:
            Shape (len(documents),), float32, in the order of `documents`.

        Raises:
            InvalidInputError: If an input or an option is invalid for the model.
            DeviceLostError: If the reranker is closed, or two processes ended while scoring the same documents.
        """
        documents = as_input_list(documents, "documents")
        return self.score_pairs([(query, document) for document in documents], **options)

    def score_pairs(self, pairs: Sequence[tuple[Input, Input]], **options: Any) -> Float32:  # noqa: ANN401
        """Return the score of each (query, document) pair; see `score` for options and errors.

        Args:
            pairs: Pairs of a query and a document.
            options: See `score`.

        Returns:
            Shape (len(pairs),), float32, in the order of `pairs`.
        """
        pairs = as_input_pairs(pairs)

        def pack(packer: Packer, indices: Sequence[int]) -> list[Any]:
            return [[[packer.pack_input(item, self._modality) for item in pairs[index]] for index in indices]]

        scores = np.zeros(len(pairs), np.float32)
        for indices, result in self._call("score_pairs", partial(self._share_out, pairs, options), options, pack):
            scores[indices] = result
        return scores

    def explain(self, query: Input, document: Input, **options: Any) -> Attribution:  # noqa: ANN401
        """Attribute the score of a document to the positions in its images; see `ExplainingReranker.explain`.

        Args:
            query: A text, an image or a page.
            document: An image, a page, or a list of parts with at least one image.
            options: The options of the reranker, for example `method`; see `RerankerM0.explain`.

        Returns:
            Boxes, shape (positions, 4), and weights, shape (positions,), float32, and the raw score.

        Raises:
            InvalidInputError: If the document has no image, or an option is invalid.
        """

        def pack(packer: Packer, _: Sequence[int]) -> list[Any]:
            return [packer.pack_input(query, self._modality), packer.pack_input(document, self._modality)]

        plan = partial(self._share_out, [(query, document)], options)
        attribution: Attribution = self._call("explain", plan, options, pack)[0][1]
        return attribution

    def _share_out(
        self, pairs: Sequence[tuple[Input, Input]], options: Mapping[str, Any], loads: list[int]
    ) -> list[Share]:
        """Return the shares of a call: known documents go to the same device as before, other documents by tokens."""
        keys_by_id = {id(document): _document_key(document) for _, document in pairs}
        keys = [keys_by_id[id(document)] for _, document in pairs]
        with self._lock:
            new = {
                key: token_cost(document, self._modality, options)
                for key, (_, document) in zip(keys, pairs, strict=True)
                if key not in self._device_of
            }
            for key in keys:
                if key in self._device_of:
                    loads[self._device_of[key]] += _PAIR_TOKENS
            for key, device in _devices_for(new, loads).items():
                self._device_of.setdefault(key, device)
            for key in keys:
                self._device_of.move_to_end(key)
            devices = [self._device_of[key] for key in keys]
            while len(self._device_of) > _REMEMBERED_DOCUMENTS:
                self._device_of.popitem(last=False)
        shares: list[Share] = []
        open_shares: dict[int, Share] = {}
        for index, (key, device) in enumerate(zip(keys, devices, strict=True)):
            cost = _PAIR_TOKENS + new.pop(key, 0)  # the document is computed once
            share = open_shares.get(device)
            if share is None or share.cost + cost > MAX_SHARE:
                share = open_shares[device] = Share([], 0, device)
                shares.append(share)
            share.indices.append(index)
            share.cost += cost
        return shares or [Share([], 0)]


def _devices_for(costs: Mapping[Hashable, int], loads: Sequence[int]) -> dict[Hashable, int]:
    """Return the device of each new document, so that the devices get about equal numbers of tokens."""
    keys, totals, devices = list(costs), list(loads), {}
    for share in share_out(list(costs.values()), loads):
        for index in share.indices:
            device = totals.index(min(totals)) if share.device is None else share.device
            totals[device] += costs[keys[index]]
            devices[keys[index]] = device
    return devices


def _document_key(item: object) -> Hashable:
    """Return a key that is equal for equal documents. Different documents with equal keys share a device."""
    if isinstance(item, str):
        return hash(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return hash(bytes(item))
    if isinstance(item, Page):
        return _document_key(item.screenshot.image)
    if isinstance(item, os.PathLike):
        return os.fsdecode(item)
    if isinstance(item, Mapping):
        return tuple(_document_key(part) for part in item.values())
    if isinstance(item, Sequence):
        return tuple(_document_key(part) for part in item)
    if hasattr(item, "resize"):  # a PIL image
        small = item.resize(_THUMBNAIL, 0)  # the nearest pixels, which takes microseconds
        return item.size, hash(small.tobytes())  # type: ignore[attr-defined]
    return 0


def _merge(count: int, parts: Sequence[tuple[Sequence[int], Embeddings]]) -> Embeddings:
    """Return the embeddings of all inputs in input order, from the embeddings of the inputs with these indices."""
    if len(parts) == 1:
        return parts[0][1]
    first = parts[0][1]
    single = None
    if first.single is not None:
        single = np.empty((count, *first.single.shape[1:]), np.float32)
        for indices, part in parts:
            single[indices] = part.require_single()

    def ordered(name: str) -> list[Any] | None:
        if getattr(first, name) is None:
            return None
        values: list[Any] = [None] * count
        for indices, part in parts:
            for index, value in zip(indices, getattr(part, name), strict=True):
                values[index] = value
        return values

    return Embeddings(single, ordered("multi"), ordered("grids"), ordered("tokens"), ordered("truncated"))


def _plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call as JSON values.

    Raises:
        InvalidInputError: If an option is not a number, a text, a boolean or None.
    """
    values = {}
    for name, value in options.items():
        try:
            values[name] = plain(value)
        except TypeError as exc:
            raise InvalidInputError(
                f"{name} is {value!r}; expected a number, a text, True, False or None for a model on several devices."
            ) from exc
    return values
