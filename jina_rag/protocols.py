"""The seams: what an embedder, a reranker and a store must do. Nothing needs to inherit from them."""

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
    Where,
)

if TYPE_CHECKING:
    from PIL.Image import Image

InputPart: TypeAlias = "str | bytes | Path | Image | Page | Mapping[str, str | bytes | Path | Image | Page]"
"""A text (str), an image (bytes of a file, its path, PIL, or a base64 data URI as str), a page, or one of these said
outright: ``{"text": "…"}``, ``{"image": …}``."""
Input: TypeAlias = "InputPart | Sequence[InputPart]"
"""One input: a part, or several that belong together (a text with images)."""


class EncodeOptions(TypedDict, total=False):
    """What `Embedder.encode_query` and `Embedder.encode_document` take beside their inputs.

    Attributes:
        single: Whether to give the dense vectors, shape (n, dim) float32. Default True.
        multi: Whether to give the multi-vectors, n arrays of shape (tokens, multi_dim) float32, with the place of each
            row on its page. Default True.
        truncate_dim: Length that the dense vectors are cut to and normalised again, one of
            `Embedder.matryoshka_dims`; jina-colbert-v2, which has no dense vector of its own, cuts its rows. Default
            None: the length that the model was loaded with.
        max_length: Tokens that are read of each input, the prompt's own included; at least 1. Default None: the limit
            that the model was loaded with.
        max_pixels: Pixels that an image is scaled down to (width times height), for models that look at pixels; the
            others ignore it. At least 1. Default None: the limit that the model was loaded with.
        batch_tokens: Tokens that go through the model at once, padding included; at least 1. An input with more tokens
            goes alone. Changes speed and memory, not vectors. Default None: what suits the device.
    """

    single: bool
    multi: bool
    truncate_dim: int | None
    max_length: int | None
    max_pixels: int | None
    batch_tokens: int | None


@runtime_checkable
class Embedder(Protocol):
    """Turns questions and documents into one dense vector and one multi-vector each, in one pass."""

    @property
    def name(self) -> str:
        """The name it was loaded by, for example ``"lite"``."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever vectors would: model, revision, hash of the weights, recipe."""
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
        """What it looks at on a page: the words and their places, or the picture itself."""
        ...

    @property
    def hubness(self) -> float:
        """The share, 0 to 1, of a page's mean score for general questions that search takes off its score.

        A property of the model's vector space, measured; 0 leaves MaxSim as it is. See `hubness`.
        """
        ...

    @property
    def revision(self) -> str | None:
        """The commit of the weights on the model hub; None for a model that has none."""
        ...

    @property
    def matryoshka_dims(self) -> Sequence[int]:
        """Lengths that the dense vector was trained to be cut to, `dim` among them; empty where it must not be cut."""
        ...

    @property
    def multi_matryoshka_dims(self) -> Sequence[int]:
        """Lengths that the rows were trained to be cut to; empty where they must not be cut."""
        ...

    @property
    def dense_weight(self) -> float:
        """The weight of the dense vector's score beside MaxSim in the rescoring stage; see `Rescore.dense`.

        Measured on judged questions (`benchmarks/stages.py`); 0 for a model that nobody has measured.
        """
        ...

    def encode_query(self, queries: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed questions; see `Embeddings` for the shapes.

        Args:
            queries: The questions.
            options: See `EncodeOptions`.

        Raises:
            InvalidInputError: If a question is of a kind the model does not take, or empty for a model that has
                no vector for that; if an option makes no sense for the model.
        """
        ...

    def encode_document(self, documents: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed pages, images or texts; the options are those of `encode_query`.

        An input without content gives a zero dense vector and no rows, unless the model has a vector for that.
        """
        ...


@runtime_checkable
class Reranker(Protocol):
    """Judges how well each document answers a question, looking at both together."""

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever scores would: model, revision, hash of the weights, settings."""
        ...

    @property
    def modality(self) -> Literal["text", "image"]:
        """What it is best given of a page: its words, or its picture."""
        ...

    def score(self, query: Input, documents: Sequence[Input]) -> Float32:
        """Return shape (len(documents),) float32 in [0, 1], in the order of `documents`.

        Raises:
            InvalidInputError: If an input cannot be read, or is of a kind that the model does not take.
        """
        ...


@runtime_checkable
class PairReranker(Reranker, Protocol):
    """A reranker that scores any pairs in one call, and gives its raw scores."""

    def score_pairs(self, pairs: Sequence[tuple[Input, Input]], *, raw: bool = False) -> Float32:
        """Return shape (len(pairs),) float32: in [0, 1], or unbounded with `raw`."""
        ...


@runtime_checkable
class ExplainingReranker(Reranker, Protocol):
    """A reranker that tells which part of an image carried its score."""

    def explain(
        self, query: Input, document: Input, *, method: Literal["gradient", "attention"] = "gradient"
    ) -> Attribution:
        """Spread the score of one document over the places of its images.

        Raises:
            InvalidInputError: If the document has no image, or an argument makes no sense.
        """
        ...


class ModelPlacement(Protocol):
    """Where a model runs. Both values are printable: ``"cuda:0"``, ``"torch.bfloat16"``."""

    @property
    def device(self) -> object:
        """The device."""
        ...

    @property
    def dtype(self) -> object:
        """The number format of the weights."""
        ...


@runtime_checkable
class PlacedModel(Protocol):
    """A model that runs on a device of the caller's choice, in a number format of the caller's choice."""

    @property
    def placement(self) -> ModelPlacement:
        """The device and the number format."""
        ...


class EmbedderDefaults:
    """The optional facts of `Embedder` for a model without peculiarities: a base class for embedders."""

    hubness: float = 0.0
    revision: str | None = None
    matryoshka_dims: Sequence[int] = ()
    multi_matryoshka_dims: Sequence[int] = ()
    dense_weight: float = 0.0


@runtime_checkable
class MultiVectorStore(Protocol):
    """Keeps points with a dense, a multi and a lexical vector, and searches them."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one of the same id is replaced. All of one call or none is kept after a crash."""
        ...

    def update_payload(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace some keys of points' payloads: id → key → value; a value of None takes the key out.

        The other keys and all vectors stay; unknown ids are ignored. What filters see changes with it.
        """
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points by id; unknown ids are ignored."""
        ...

    def delete_where(self, where: Where) -> None:
        """Remove every point that the filter matches."""
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
        """Rank points by exact MaxSim with `multi`, shape (query tokens, multi_dim).

        With `prefetch`, only the union of the best points by `dense` and by `lexical` is scored; without it,
        every point that has a multi-vector and passes `where` is. `keys` names the parts of the payload that
        the hits carry; None for all of it.
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
        """Rank by one cheap vector: dense, shape (dim,), or lexical; `keys` as in `search`."""
        ...

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the points that exist among `ids`, in the order of `ids`; vectors as stored, in float32."""
        ...

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Every matching point, without vectors, in no particular order; scores are 0."""
        ...

    def count(self, where: Where | None = None) -> int:
        """Number of matching points."""
        ...

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes on disk by what they hold (dense vectors, rows, payload, …); empty where the store cannot tell."""
        ...

    def flush(self) -> None:
        """Make everything written so far survive a power cut."""
        ...

    def close(self) -> None:
        """Flush and release; using the store afterwards raises IndexStateError. Closing twice is fine."""
        ...
