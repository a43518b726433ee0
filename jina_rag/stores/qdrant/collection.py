"""The collection of an index on a Qdrant server: made, recognised, and what it says it was built with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast

from jina_rag.config import Storage
from jina_rag.errors import (
    IndexCorruptError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    InvalidInputError,
)
from jina_rag.stores import schema
from jina_rag.stores.filters import indexed_paths
from jina_rag.stores.qdrant.client import Remote
from jina_rag.stores.qdrant.codec import QdrantObject
from jina_rag.stores.qdrant.errors import AlreadyThereError

OLDEST: Final = (1, 16)
"""The first server version whose collections keep metadata."""
_TIERS: Final = (1, 19)
"""The first that takes `memory` for where a vector lies, and `on_disk` only for compatibility."""

_DATATYPES: Final = {"float16": "FLOAT16", "int8": "TURBO8", "int4": "TURBO4"}
"""What the server calls them."""
_RECORD: Final = "jina_rag"
"""Our part of the collection's metadata; other programs may have theirs beside it."""
_FORMAT: Final = 2
"""Points of the first format do not carry their numbers for filters."""
_NAME: Final = re.compile(r'[^<>:"/\\|?*\x00-\x1f]{1,255}')


def checked_name(name: str) -> str:
    """Return the name of a collection if a server takes it.

    Raises:
        InvalidInputError: If it does not.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidInputError(
            f"{name!r} cannot be the name of a collection: use 1 to 255 characters, none of them one of "
            '< > : " / \\ | ? *.'
        )
    return name


def open_collection(
    remote: Remote, dims: tuple[int, int], *, create: bool, facts: Mapping[str, Any], storage: Storage
) -> set[str]:
    """See that the collection is there and ours, after making it where there is none; see `QdrantStore.open`.

    Args:
        remote: The server and the collection's name.
        dims: Lengths of the dense vectors and of the multi-vectors' rows.
        create: Whether to make it.
        facts: Kept with a collection that is made.
        storage: How the vectors of a collection that is made are kept.

    Returns:
        The paths under which it has indexed numbers.
    """
    version = _server_version(remote)
    try:
        description = _described(remote)
    except IndexNotFoundError:
        if not create:
            raise IndexNotFoundError(f"There is no index at {remote.place}: ingest documents into it first.") from None
        _create(remote, dims, facts, storage, tiers=version is None or version >= _TIERS)
        description = _described(remote)
    _check(remote, description, dims)
    payload_schema = description.payload_schema or {}
    # A process may have been killed between making the collection and this.
    if create and schema.TAGS not in payload_schema:
        index_payload(remote, "be created", schema.TAGS, remote.models.PayloadSchemaType.KEYWORD)
    return indexed_paths(payload_schema)


def index_payload(remote: Remote, doing: str, path: str, kind: QdrantObject) -> None:
    """Index what payloads hold under a path; another process may have done so, or do so at the same time.

    Args:
        remote: The server and the collection's name.
        doing: What is being done to the index, for messages.
        path: Of the payload.
        kind: What is indexed, of the client's types.
    """
    if not remote.local:  # the stand-in has no indexes, and warns that it has none
        remote.on_collection(doing, "create_payload_index", field_name=path, field_schema=kind, wait=True)


def read_facts(remote: Remote) -> dict[str, Any]:
    """What was kept by `open_collection`."""
    return dict(_record(remote, _described(remote))["facts"])


def vector_params(
    models: QdrantObject, dims: tuple[int, int], storage: Storage, *, tiers: bool
) -> tuple[dict[str, QdrantObject], dict[str, QdrantObject]]:
    """How the vectors of a new collection are kept: those with a value in each dimension, and the sparse ones.

    Args:
        models: The client's types.
        dims: Lengths of the dense vectors and of the multi-vectors' rows.
        storage: How multi-vectors are kept.
        tiers: Whether the server knows `memory`, and numbers of 8 and 4 bits.

    Raises:
        IndexStateError: If the server is too old for them.
    """
    if storage.datatype != "float16" and not tiers:
        raise IndexStateError(
            f"Vectors of {storage.datatype} need a Qdrant server of version {_TIERS[0]}.{_TIERS[1]} or newer: update "
            'it, or choose storage="exact".'
        )
    # Multi-vectors are large and read for a few candidates only.
    cold = {"memory": models.Memory.COLD} if tiers and hasattr(models, "Memory") else {"on_disk": True}
    dense = models.VectorParams(size=dims[0], distance=models.Distance.DOT)
    multi = models.VectorParams(
        size=dims[1],
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
        datatype=getattr(models.Datatype, _DATATYPES[storage.datatype]),
        quantization_config=_quantization(models, storage),
        # No graph: MaxSim ranks candidates or everything, and a graph over it would be inexact.
        hnsw_config=models.HnswConfigDiff(m=0),
        **cold,
    )
    lexical = models.SparseVectorParams(modifier=models.Modifier.IDF)
    return {schema.DENSE: dense, schema.MULTI: multi}, {schema.LEXICAL: lexical}


def _quantization(models: QdrantObject, storage: Storage) -> QdrantObject:
    """The second, coarser copy of the rows that is searched first."""
    if storage.quantization == "int8":
        return models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    if storage.quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig())
    return None


def _server_version(remote: Remote) -> tuple[int, int] | None:
    """The first two numbers of the server's version; None where it has none that can be read.

    Raises:
        IndexStateError: If it is too old.
    """
    text = str(remote.call("be opened", "info").version)
    numbers = re.match(r"v?(\d+)\.(\d+)", text)
    if numbers is None:
        return None
    version = (int(numbers[1]), int(numbers[2]))
    if version < OLDEST:
        raise IndexStateError(
            f"The Qdrant server at {remote.place.url} has version {text}; jina-rag needs {OLDEST[0]}.{OLDEST[1]} or "
            "newer, whose collections can say what they were built with: update the server."
        )
    return version


def _create(remote: Remote, dims: tuple[int, int], facts: Mapping[str, Any], storage: Storage, *, tiers: bool) -> None:
    vectors, sparse = vector_params(remote.models, dims, storage, tiers=tiers)
    # Another process may be quicker, or a try whose answer was lost may have made it: it is checked like any other.
    with suppress(AlreadyThereError):
        remote.on_collection(
            "be created",
            "create_collection",
            vectors_config=vectors,
            sparse_vectors_config=sparse,
            shard_number=remote.connection.shard_number,
            replication_factor=remote.connection.replication_factor,
            write_consistency_factor=remote.connection.write_consistency,
            metadata={_RECORD: {"format": _FORMAT, "facts": dict(facts)}},
        )


def _described(remote: Remote) -> QdrantObject:
    return remote.on_collection("be opened", "get_collection")


def _check(remote: Remote, description: QdrantObject, dims: tuple[int, int]) -> None:
    record = _record(remote, description)
    if record["format"] != _FORMAT:
        raise IndexMismatchError(
            f"The index at {remote.place} was written by another version of jina-rag: ingest it again."
        )
    params = description.config.params
    vectors = params.vectors if isinstance(params.vectors, Mapping) else {}
    if not {schema.DENSE, schema.MULTI} <= vectors.keys() or schema.LEXICAL not in (params.sparse_vectors or {}):
        raise IndexCorruptError(
            f"The index at {remote.place} lacks vectors that it was made with: restore it, or ingest into a new "
            "collection."
        )
    sizes = (int(vectors[schema.DENSE].size), int(vectors[schema.MULTI].size))
    schema.check_dims(sizes, dims, remote.place)


def _record(remote: Remote, description: QdrantObject) -> dict[str, Any]:
    record = (description.config.metadata or {}).get(_RECORD)
    if not isinstance(record, Mapping) or not isinstance(record.get("facts"), Mapping) or "format" not in record:
        raise IndexMismatchError(
            f"The collection at {remote.place} was not made by jina-rag, it does not say what it was built with: "
            "choose another name for the index."
        )
    return cast(dict[str, Any], record)
