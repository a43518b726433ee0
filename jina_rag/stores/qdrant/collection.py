"""The collection of an index on a Qdrant server: creation, validation, and the metadata of the collection."""

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
from jina_rag.stores.qdrant.errors import CollectionExistsError

MIN_VERSION: Final = (1, 16)
"""First server version with metadata of collections."""
_TIERS_VERSION: Final = (1, 19)
"""First server version with 8-bit and 4-bit numbers, and with the vector option `memory`, which replaces `on_disk`."""

_DATATYPES: Final = {"float16": "FLOAT16", "int8": "TURBO8", "int4": "TURBO4"}  # names of the datatypes in the client
_RECORD_KEY: Final = "jina_rag"
"""Key of the jina-rag record in the metadata of a collection; other programs may add keys."""
_FORMAT: Final = 2
"""Format version of the collection. Points of format 1 lack the numbers for range filters."""
_NAME: Final = re.compile(r'[^<>:"/\\|?*\x00-\x1f]{1,255}')


def checked_name(name: str) -> str:
    """Return the name of a collection unchanged if a server accepts the name.

    Raises:
        InvalidInputError: If the name is empty, longer than 255 characters, or has an invalid character.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidInputError(
            f'The collection name is {name!r}; expected 1 to 255 characters without the characters < > : " / \\ | ? *.'
        )
    return name


def open_collection(
    remote: Remote, dims: tuple[int, int], *, create: bool, facts: Mapping[str, Any], storage: Storage
) -> set[str]:
    """Validate the collection of an index; create it if it is missing. See `QdrantStore.open`.

    Args:
        remote: Collection and its client.
        dims: Lengths of the dense vectors and of the rows of the multi-vectors.
        create: Whether to create a missing collection.
        facts: JSON object to store in the metadata of a new collection.
        storage: Vector storage of a new collection.

    Returns:
        Payload paths with a payload index of numbers.

    Raises:
        IndexNotFoundError: If the collection is missing and `create` is False.
    """
    version = _server_version(remote)
    try:
        description = _describe(remote)
    except IndexNotFoundError:
        if not create:
            raise IndexNotFoundError(
                f"No index at {remote.address}. Create the index with `jina-rag ingest PATH --index URL`."
            ) from None
        _create(remote, dims, facts, storage, tiers=version is None or version >= _TIERS_VERSION)
        description = _describe(remote)
    _check_collection(remote, description, dims)
    payload_schema = description.payload_schema or {}
    # A killed process may have created the collection without this payload index.
    if create and schema.TAGS not in payload_schema:
        index_payload(remote, "be created", schema.TAGS, remote.models.PayloadSchemaType.KEYWORD)
    return indexed_paths(payload_schema)


def index_payload(remote: Remote, action: str, path: str, kind: QdrantObject) -> None:
    """Create a payload index; idempotent, even if several processes create the same index concurrently.

    Args:
        remote: Collection and its client.
        action: The action in the passive voice, for error messages.
        path: Payload path to index.
        kind: Schema type of the values, from the client types.
    """
    if not remote.local:  # the in-process client has no payload indexes and warns about the call
        remote.call_collection(action, "create_payload_index", field_name=path, field_schema=kind, wait=True)


def read_facts(remote: Remote) -> dict[str, Any]:
    """Return the JSON object that `open_collection` stored as `facts`."""
    return dict(_read_record(remote, _describe(remote))["facts"])


def vector_params(
    models: QdrantObject, dims: tuple[int, int], storage: Storage, *, tiers: bool
) -> tuple[dict[str, QdrantObject], dict[str, QdrantObject]]:
    """Return the vector parameters of a collection, as two dicts by vector name.

    The first dict contains the dense vectors and the multi-vectors, the second dict the sparse vectors.

    Args:
        models: Module with the types of the client.
        dims: Lengths of the dense vectors and of the rows of the multi-vectors.
        storage: Storage of the multi-vectors.
        tiers: Whether the server supports the option `memory`, and 8-bit and 4-bit numbers.

    Raises:
        IndexStateError: If the server is too old for the datatype of `storage`.
    """
    if storage.datatype != "float16" and not tiers:
        raise IndexStateError(
            f"Vectors of {storage.datatype} require Qdrant {_TIERS_VERSION[0]}.{_TIERS_VERSION[1]} or newer. Update "
            'the server, or pass storage="exact" (--storage exact).'
        )
    # Multi-vectors stay on disk, because a search reads the multi-vectors of only a few candidates.
    cold = {"memory": models.Memory.COLD} if tiers and hasattr(models, "Memory") else {"on_disk": True}
    dense = models.VectorParams(size=dims[0], distance=models.Distance.DOT)
    multi = models.VectorParams(
        size=dims[1],
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
        datatype=getattr(models.Datatype, _DATATYPES[storage.datatype]),
        quantization_config=_quantization(models, storage),
        # No HNSW graph is built, because MaxSim scores the candidates or all points exactly.
        hnsw_config=models.HnswConfigDiff(m=0),
        **cold,
    )
    lexical = models.SparseVectorParams(modifier=models.Modifier.IDF)
    return {schema.DENSE: dense, schema.MULTI: multi}, {schema.LEXICAL: lexical}


def _quantization(models: QdrantObject, storage: Storage) -> QdrantObject:
    """Return the configuration of the quantized copy of the rows; a search scans the copy before the rows."""
    if storage.quantization == "int8":
        return models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    if storage.quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig())
    return None


def _server_version(remote: Remote) -> tuple[int, int] | None:
    """Return the major and minor version of the server; None if the version has an unknown format.

    Raises:
        IndexStateError: If the server is too old.
    """
    text = str(remote.call("be opened", "info").version)
    numbers = re.match(r"v?(\d+)\.(\d+)", text)
    if numbers is None:
        return None
    version = (int(numbers[1]), int(numbers[2]))
    if version < MIN_VERSION:
        raise IndexStateError(
            f"The Qdrant server at {remote.address.url} has version {text}; "
            f"jina-rag requires {MIN_VERSION[0]}.{MIN_VERSION[1]} or newer. Update the server."
        )
    return version


def _create(remote: Remote, dims: tuple[int, int], facts: Mapping[str, Any], storage: Storage, *, tiers: bool) -> None:
    vectors, sparse = vector_params(remote.models, dims, storage, tiers=tiers)
    # The collection may exist: another process, or an attempt whose response was lost, may have created the
    # collection. The caller validates the existing collection.
    with suppress(CollectionExistsError):
        remote.call_collection(
            "be created",
            "create_collection",
            vectors_config=vectors,
            sparse_vectors_config=sparse,
            shard_number=remote.connection.shard_number,
            replication_factor=remote.connection.replication_factor,
            write_consistency_factor=remote.connection.write_consistency,
            metadata={_RECORD_KEY: {"format": _FORMAT, "facts": dict(facts)}},
        )


def _describe(remote: Remote) -> QdrantObject:
    return remote.call_collection("be opened", "get_collection")


def _check_collection(remote: Remote, description: QdrantObject, dims: tuple[int, int]) -> None:
    record = _read_record(remote, description)
    if record["format"] != _FORMAT:
        raise IndexMismatchError(
            f"The index at {remote.address} is from another jina-rag version. Ingest into a new collection."
        )
    params = description.config.params
    vectors = params.vectors if isinstance(params.vectors, Mapping) else {}
    if not {schema.DENSE, schema.MULTI} <= vectors.keys() or schema.LEXICAL not in (params.sparse_vectors or {}):
        raise IndexCorruptError(
            f"The collection at {remote.address} lacks a vector (dense, multi or lexical). "
            "Restore the collection from a snapshot, or ingest into a new collection."
        )
    sizes = (int(vectors[schema.DENSE].size), int(vectors[schema.MULTI].size))
    schema.check_dims(sizes, dims, remote.address)


def _read_record(remote: Remote, description: QdrantObject) -> dict[str, Any]:
    record = (description.config.metadata or {}).get(_RECORD_KEY)
    if not isinstance(record, Mapping) or not isinstance(record.get("facts"), Mapping) or "format" not in record:
        raise IndexMismatchError(
            f"The collection at {remote.address} was not created by jina-rag: the metadata has no jina-rag record. "
            "Use another collection name."
        )
    return cast(dict[str, Any], record)
