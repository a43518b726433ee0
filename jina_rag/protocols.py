"""Protocols of embedders, rerankers and vector stores. A class implements a protocol without inheriting from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, Unpack, runtime_checkable

from jina_rag.types import (
    Attribution,
    Embeddings,
    Float32,
    Page,
    Point,
    Prefetch,
    SparseVector,
    StoreHit,
    StoreQuery,
    Where,
)

if TYPE_CHECKING:
    from PIL.Image import Image

InputPart: TypeAlias = "str | bytes | Path | Image | Page | Mapping[str, str | bytes | Path | Image | Page]"
"""A text (str), an image (file content as bytes, a path, a PIL image), a page, or a mapping that names the kind:
``{"text": "…"}`` or ``{"image": …}``. A str is always a text; as an image, a str is the path, the URL or the base64
data URI of an image."""
Input: TypeAlias = "InputPart | Sequence[InputPart]"
"""One input: a single part, or a sequence of parts that form one document (a text with images)."""


class EncodeOptions(TypedDict, total=False):
    """Keyword options of `Embedder.encode_query` and `Embedder.encode_document`.

    Attributes:
        single: Whether to return dense vectors, shape (n, dim), float32. Default True.
        multi: Whether to return multi-vectors, n arrays of shape (tokens, multi_dim), float32, with the position of
            each row on the page. Default True.
        truncate_dim: Length to which dense vectors are truncated, one of `Embedder.matryoshka_dims`. Truncated vectors
            are normalized again. For jina-colbert-v2, a model without dense vectors, the multi-vector rows are
            truncated. Default None: the length set when the model was loaded.
        max_length: Maximum tokens per input, including the prompt; longer inputs are truncated. At least 1. Default
            None: the limit set when the model was loaded.
        max_pixels: Maximum pixels per image (width x height); larger images are scaled down. At least 1. Text models
            ignore this option. Default None: the limit set when the model was loaded.
        batch_tokens: Maximum tokens per batch, including padding. At least 1. An input with more tokens forms a batch
            by itself. Affects speed and memory, not vectors. Default None: a size chosen for the device.
    """

    single: bool
    multi: bool
    truncate_dim: int | None
    max_length: int | None
    max_pixels: int | None
    batch_tokens: int | None


@runtime_checkable
class Embedder(Protocol):
    """Encoder of queries and documents: one dense vector and one multi-vector per input, in one forward pass.

    Embedders are thread-safe: an ingestion calls `encode_document` in two threads at the same time, so that one call
    prepares its inputs while the other uses the device, and a search may call `encode_query` meanwhile. An embedder
    whose model serves only one call at a time holds a lock during the forward pass.
    """

    @property
    def name(self) -> str:
        """Name under which the model was loaded, for example ``"lite"``."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifier of the vector space: model, revision, hash of the weights, settings.

        Two embedders with equal fingerprints return equal vectors.
        """
        ...

    @property
    def dim(self) -> int:
        """Length of the dense vector."""
        ...

    @property
    def multi_dim(self) -> int:
        """Length of each row of the multi-vector."""
        ...

    @property
    def modality(self) -> Literal["text", "image"]:
        """Input that the model reads from a page: ``"text"`` (words and boxes) or ``"image"`` (page screenshot)."""
        ...

    @property
    def hubness(self) -> float:
        """Fraction, 0 to 1, of a page's hubness. Search subtracts this fraction from the score of the page.

        Hubness is the mean score of a page for the reference queries (see `reference_queries`). The fraction was
        measured for the vector space of the model; 0 disables the correction.
        """
        ...

    @property
    def revision(self) -> str | None:
        """Commit of the weights on the model hub; None for a model without a commit."""
        ...

    @property
    def matryoshka_dims(self) -> Sequence[int]:
        """Matryoshka lengths of the dense vector, including `dim`; empty if the model does not support truncation."""
        ...

    @property
    def multi_matryoshka_dims(self) -> Sequence[int]:
        """Matryoshka lengths of the multi-vector rows; empty if the model does not support truncation."""
        ...

    @property
    def dense_weight(self) -> float:
        """Weight of the dense score relative to MaxSim in the rescoring stage; see `Rescore.dense`.

        Measured on judged queries (`benchmarks/stages.py`); 0 for a model without a measurement.
        """
        ...

    def encode_query(self, queries: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Return the embeddings of queries.

        Args:
            queries: The queries, n inputs.
            options: See `EncodeOptions`.

        Returns:
            Embeddings in input order: dense vectors of shape (n, dim) and multi-vectors of shape (tokens, multi_dim).

        Raises:
            InvalidInputError: If the model does not support the type of a query, a query is empty and the model has no
                vector for empty inputs, or an option is invalid for the model.
        """
        ...

    def encode_document(self, documents: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Return the embeddings of pages, images or texts.

        Args:
            documents: The documents, n inputs. An empty input returns a zero dense vector and no rows, unless the model
                has a vector for empty inputs.
            options: See `EncodeOptions`.

        Returns:
            Embeddings in input order: dense vectors of shape (n, dim) and multi-vectors of shape (tokens, multi_dim).

        Raises:
            InvalidInputError: If the model does not support the type of a document, or an option is invalid for the
                model.
        """
        ...


@runtime_checkable
class Reranker(Protocol):
    """Cross-encoder that scores the relevance of each document to a query."""

    @property
    def name(self) -> str:
        """Name under which the model was loaded."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifier of the scores: model, revision, hash of the weights, settings.

        Two rerankers with equal fingerprints return equal scores.
        """
        ...

    @property
    def modality(self) -> Literal["text", "image"]:
        """Preferred input for a page: ``"text"`` (the words) or ``"image"`` (the page screenshot)."""
        ...

    def score(self, query: Input, documents: Sequence[Input]) -> Float32:
        """Return the relevance score of each document.

        Args:
            query: The query, a text or an image.
            documents: The documents, n texts, images or pages.

        Returns:
            Scores from 0 to 1, shape (n,), float32, in the order of `documents`.

        Raises:
            InvalidInputError: If an input cannot be read, or the model does not support the type of an input.
        """
        ...


@runtime_checkable
class PairReranker(Reranker, Protocol):
    """Reranker that scores arbitrary pairs in one call and can return raw scores."""

    def score_pairs(self, pairs: Sequence[tuple[Input, Input]], *, raw: bool = False) -> Float32:
        """Return the relevance score of each (query, document) pair.

        Args:
            pairs: The pairs, each (query, document).
            raw: Whether to return the unbounded output of the model instead of a score from 0 to 1.

        Returns:
            Scores, shape (len(pairs),), float32, in the order of `pairs`.
        """
        ...


@runtime_checkable
class ExplainingReranker(Reranker, Protocol):
    """Reranker that attributes a score to the positions of an image."""

    def explain(
        self, query: Input, document: Input, *, method: Literal["gradient", "attention"] = "gradient"
    ) -> Attribution:
        """Return the contribution of each image position to the score of a document.

        Args:
            query: The query.
            document: A document with at least one image.
            method: ``"gradient"`` for the contribution of each position to the raw score, ``"attention"`` for the share
                of the attention that each position receives.

        Returns:
            Boxes and weights of the positions, and the raw score.

        Raises:
            InvalidInputError: If the document has no image, or an argument is invalid.
        """
        ...


class ModelPlacement(Protocol):
    """Device and dtype of a loaded model."""

    @property
    def device(self) -> object:
        """Device of the weights. The string form of the device is, for example, ``"cuda:0"``."""
        ...

    @property
    def dtype(self) -> object:
        """Dtype of the weights. The string form of the dtype is, for example, ``"torch.bfloat16"``."""
        ...


@runtime_checkable
class PlacedModel(Protocol):
    """Model loaded on a selectable device with a selectable dtype."""

    @property
    def placement(self) -> ModelPlacement:
        """Device and dtype of the model."""
        ...


class EmbedderDefaults:
    """Base class for embedders with defaults for the optional properties of `Embedder`.

    Attributes:
        hubness: See `Embedder.hubness`; default 0, no correction.
        revision: See `Embedder.revision`; default None.
        matryoshka_dims: See `Embedder.matryoshka_dims`; default empty, no truncation.
        multi_matryoshka_dims: See `Embedder.multi_matryoshka_dims`; default empty, no truncation.
        dense_weight: See `Embedder.dense_weight`; default 0, MaxSim only.
    """

    hubness: float = 0.0
    revision: str | None = None
    matryoshka_dims: Sequence[int] = ()
    multi_matryoshka_dims: Sequence[int] = ()
    dense_weight: float = 0.0


@runtime_checkable
class MultiVectorStore(Protocol):
    """Vector store for points with a dense vector, a multi-vector and a lexical vector."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Insert points, replacing existing points with the same id.

        The call is atomic: after a crash, the store contains either all points of the call or none.

        Args:
            points: The points to write.
        """
        ...

    def update_payload(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Update payload keys of existing points.

        Other keys and all vectors stay unchanged. Filters apply to the new values.

        Args:
            changes: Point id → payload key → new value; None deletes the key. Unknown ids are ignored.
        """
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Delete points by id.

        Args:
            ids: Ids of the points. Unknown ids are ignored.
        """
        ...

    def delete_where(self, where: Where) -> None:
        """Delete the points that match a filter.

        Args:
            where: The filter on the payload.
        """
        ...

    def search(
        self,
        multi: Float32,
        *,
        limit: int,
        dense: Float32 | None = None,
        lexical: SparseVector | None = None,
        prefetch: Prefetch | None = None,
        where: Where | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        """Return the best points by exact MaxSim.

        Args:
            multi: Multi-vector of the query, shape (tokens, multi_dim), float32.
            limit: Maximum number of hits.
            dense: Dense vector of the query for the first stage, shape (dim,), float32; None for no dense candidates.
            lexical: Term weights of the query for the first stage; None for no lexical candidates.
            prefetch: Candidate limits of the first stage. The store scores only the union of the best points by
                `dense` and by `lexical`. None scores every point that has a multi-vector and matches `where`.
            where: Filter on the payload; None for all points.
            keys: Payload keys to return with the hits; None for all keys.

        Returns:
            Hits, best first.
        """
        ...

    def nearest(
        self,
        vector: Float32 | SparseVector,
        *,
        limit: int,
        where: Where | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        """Return the best points by one vector, dense or lexical, without MaxSim.

        Args:
            vector: Dense vector, shape (dim,), float32, or term weights.
            limit: Maximum number of hits.
            where: Filter on the payload; None for all points.
            keys: Payload keys to return with the hits; None for all keys.

        Returns:
            Hits, best first.
        """
        ...

    def query_batch(self, queries: Sequence[StoreQuery]) -> list[list[StoreHit]]:
        """Run several queries in one call of the store.

        Each query has the hits that it would have in a call of its own.

        Args:
            queries: The queries.

        Returns:
            The hits of each query, best first, in the order of `queries`.
        """
        ...

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return points by id.

        Args:
            ids: Ids of the points. Unknown ids are ignored.
            vectors: Whether to return the stored vectors, converted to float32.

        Returns:
            The existing points, in the order of `ids`.
        """
        ...

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Iterate over the points that match a filter, without vectors.

        Args:
            where: Filter on the payload; None for all points.

        Yields:
            Matching points in arbitrary order, with score 0.
        """
        ...

    def count(self, where: Where | None = None) -> int:
        """Return the number of points that match a filter.

        Args:
            where: Filter on the payload; None for all points.
        """
        ...

    def bytes_by_part(self) -> dict[str, int]:
        """Return the size on disk in bytes of each part of the store (dense vectors, rows, payload, …).

        Returns:
            Part → bytes; empty if the store does not provide sizes.
        """
        ...

    def flush(self) -> None:
        """Write all changes to disk. Flushed changes survive a power failure."""
        ...

    def close(self) -> None:
        """Flush the store and release the resources of the store.

        Later calls of other methods raise IndexStateError. Calling `close` again has no effect.
        """
        ...
