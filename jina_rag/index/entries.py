"""What vector stores of frameworks are built on: put in by id, taken out by id, found by a vector."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jina_rag.catalog.maintenance import IndexResources
from jina_rag.errors import InvalidInputError
from jina_rag.index.asking import Asking
from jina_rag.inputs import clean_text, listed
from jina_rag.protocols import Input
from jina_rag.search.filters import checked_filter, conditions_of
from jina_rag.search.hits import bare_hit, locations
from jina_rag.stores import schema
from jina_rag.types import Embeddings, Float32, ScoredPage, StoreHit, Where


class Entries(Asking):
    """What `DocumentIndex` keeps besides documents that were read from files."""

    def add(
        self,
        contents: Sequence[Input],
        *,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        vectors: Embeddings | None = None,
    ) -> list[str]:
        """Index texts, pictures and pages that lie in no ingested file.

        They are found by `search` as pages of files are; `ScoredPage.added` tells them apart, and `ScoredPage.doc_id`
        is the id that was given. What has an id that is known takes its place; where the content is the same, nothing
        is embedded again and only the metadata are.

        Args:
            contents: Each a text (kept to the letter), a picture (bytes, `pathlib.Path`, PIL image, data URI), a
                `Page`, or ``{"image": …, "text": …}``: a picture whose words are known. Of other pictures the words are
                read as `ingest` does. A picture that `save_page` has kept is the page that it was.
            ids: One for each; random ones if None. Of two of the same id the last counts.
            metadata: One JSON mapping for each; searches can filter by it.
            vectors: What the index's embedder has made of these very contents, so that nothing is embedded: dense
                vectors of this index's `dim`, multi-vectors, grids.

        Returns:
            The ids.

        Raises:
            InvalidInputError: If a content is of another kind or cannot be read, an id is empty or that of an ingested
                document, or `vectors` do not fit. Entries before the one that is named may be in the index then.
            IndexStateError: If the index cannot be written.
        """
        from jina_rag.indexing.add import Adding
        from jina_rag.indexing.add_inputs import checked_vectors, entries_of

        items = listed(contents, "contents")
        names = [uuid.uuid4().hex for _ in items] if ids is None else list(ids)
        given: list[Mapping[str, Any]] = [{} for _ in items] if metadata is None else list(metadata)
        if not len(items) == len(names) == len(given):
            raise InvalidInputError(
                f"There are {len(items)} contents, {len(names)} ids and {len(given)} metadata: give one of each."
            )
        shared = self._alive
        if vectors is not None:
            vectors = checked_vectors(vectors, len(items), shared.settings["dim"], shared.settings["multi_dim"])
        entries = entries_of(items, names, given)
        if entries:
            with shared.changing():
                Adding(
                    parts=shared.parts,
                    embedder=lambda: self.embedder,
                    dim=shared.settings["dim"],
                    storage=shared.storage,
                    vectors=vectors,
                ).run(entries)
        return names

    def get(self, ids: Sequence[str]) -> list[ScoredPage]:
        """Pages by their id, in the order of the ids; what is not there is left out.

        Args:
            ids: Each a `ScoredPage.page_id`, or an id that was given to `add`.

        Returns:
            Pages without a score (0.0) and without a stage.
        """
        if isinstance(ids, str):
            raise InvalidInputError("Pass a list of ids, not a single text.")
        for name in ids:
            if not isinstance(name, str):
                raise InvalidInputError(f"An id is {name!r}: ids are texts.")
        parts = self._alive.parts
        named = {name: point_id for name in ids if (point_id := _point_id(parts, name)) is not None}
        points = {point.id: point for point in parts.store.fetch(list(named.values()), vectors=False)}
        found = []
        for name in ids:
            point = points.get(named.get(name, ""))
            if point is None or point.payload.get(schema.KIND) != "page":
                continue
            if where := locations(parts, point.payload, {}):
                found.append(bare_hit(parts, point.id, point.payload, where))
        return found

    def nearest(
        self, vector: Float32 | Sequence[float], *, k: int = 5, filter: Where | None = None
    ) -> list[ScoredPage]:
        """Pages by their dense vector alone: for a vector that was made elsewhere, by the model of this index.

        A question is better asked with `search`, which compares every word of it.

        Args:
            vector: Shape (dim,).
            k: Pages at most.
            filter: As in `search`.

        Returns:
            Pages with the cosine as their score and ``"dense"`` as their stage, best first.

        Raises:
            InvalidInputError: If the vector is of another length, or holds what is no number.
        """
        shared = self._alive
        wanted = _as_vector(vector, self.dim)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InvalidInputError(f"k is {k!r}; it must be a whole number of at least 1.")
        where = checked_filter(filter)
        conditions = conditions_of(where, shared.parts)
        if conditions is None or not wanted.any():
            return []
        found: list[ScoredPage] = []
        most = shared.store.count()  # engines take no number that is beyond a machine's
        limit = min(k, max(most, 1))
        while True:
            hits = shared.store.nearest(wanted, limit=limit, where={schema.KIND: "page", **conditions})
            found = [hit for hit in (self._dense_hit(hit, where) for hit in hits) if hit is not None]
            # Pages of a document that is just being replaced are shown to nobody.
            if len(found) >= k or len(hits) < limit:
                return found[:k]
            limit *= 2

    def dense_vectors(self, pages: Sequence[ScoredPage]) -> Float32:
        """The dense vectors of pages as the index keeps them.

        Args:
            pages: As `search`, `get` or `nearest` returned them.

        Returns:
            Shape (len(pages), dim) float32; zeros for a page that has none, or is not in the index any more.
        """
        vectors = np.zeros((len(pages), self.dim), dtype=np.float32)
        points = {point.id: point for point in self._alive.store.fetch([page.page_id for page in pages])}
        for row, page in zip(vectors, pages, strict=True):
            point = points.get(page.page_id)
            if point is not None and point.dense is not None:
                row[:] = point.dense
        return vectors

    @property
    def dim(self) -> int:
        """Length of the dense vectors that this index keeps; the embedder's may be longer."""
        dim: int = self._alive.settings["dim"]
        return dim

    async def aadd(
        self,
        contents: Sequence[Input],
        *,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        vectors: Embeddings | None = None,
    ) -> list[str]:
        """As `add`, in a thread."""
        from jina_rag.index.coroutines import in_thread

        return await in_thread("ingest", self.add, contents, ids=ids, metadata=metadata, vectors=vectors)

    async def aget(self, ids: Sequence[str]) -> list[ScoredPage]:
        """As `get`, in a thread."""
        from jina_rag.index.coroutines import in_thread

        return await in_thread("search", self.get, ids)

    async def anearest(
        self, vector: Float32 | Sequence[float], *, k: int = 5, filter: Where | None = None
    ) -> list[ScoredPage]:
        """As `nearest`, in a thread."""
        from jina_rag.index.coroutines import in_thread

        return await in_thread("search", self.nearest, vector, k=k, filter=filter)

    async def adense_vectors(self, pages: Sequence[ScoredPage]) -> Float32:
        """As `dense_vectors`, in a thread."""
        from jina_rag.index.coroutines import in_thread

        return await in_thread("search", self.dense_vectors, pages)

    def _dense_hit(self, hit: StoreHit, where: Where) -> ScoredPage | None:
        parts = self._alive.parts
        found = locations(parts, hit.payload, where)
        if not found:
            return None
        page = bare_hit(parts, hit.id, hit.payload, found)
        return replace(page, score=hit.score, stage="dense", scores={"dense": hit.score})


def _as_vector(vector: object, dim: int) -> Float32:
    """A vector of length 1, or of zeros.

    Raises:
        InvalidInputError: If it is none of that many finite numbers.
    """
    try:
        wanted = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInputError(f"A vector for this index has {dim} finite numbers; this is none: {exc}.") from exc
    if wanted.shape != (dim,) or not np.isfinite(wanted).all():
        raise InvalidInputError(
            f"A vector for this index has {dim} finite numbers; this one has the shape {wanted.shape}."
        )
    largest = np.abs(wanted).max()
    # First to numbers about 1, whose squares are numbers.
    wanted = wanted / largest if largest else wanted
    return (wanted / (np.linalg.norm(wanted) or 1.0)).astype(np.float32)


def _point_id(parts: IndexResources, name: str) -> str | None:
    """The id of a page's point, by what a user calls the page; None for what can be none."""
    record = parts.manifest.document(clean_text(name))
    if record is not None and record.added:
        return next((part.part_id for part in parts.manifest.parts(record.sha256) if part.kind == "page"), None)
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return None
