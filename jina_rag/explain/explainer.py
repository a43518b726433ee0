"""Explanations, citations and chat contexts for the hits of an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jina_rag.catalog.resources import IndexResources
from jina_rag.compression import decode_assignment
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.explain.explanation import Explanation, explain
from jina_rag.protocols import ExplainingReranker, Input, Reranker
from jina_rag.search.query import Query
from jina_rag.search.snippets import regions_of, words_of
from jina_rag.search.store_calls import VECTOR_BATCH
from jina_rag.stores import schema
from jina_rag.types import Point, ScoredPage

if TYPE_CHECKING:
    from jina_rag.explain.citations import Citation

Method = Literal["gradient", "attention"]


class Explainer:
    """Creates heat maps, citations and chat contexts for the hits of one index. Stateless."""

    def __init__(self, resources: IndexResources, embed: Callable[[Sequence[Input]], list[Query]]) -> None:
        """Create an explainer.

        Args:
            resources: Open resources of the index: vector store, manifest and page images.
            embed: Function that encodes queries with the embedder of the index.
        """
        self._resources = resources
        self._embed = embed

    def explain(self, query: Input, hit: ScoredPage) -> Explanation:
        """Return the heat map of a hit's page for the query, computed from the stored vectors that ranked the page.

        Args:
            query: Query as text, image or both.
            hit: Page to explain.

        Raises:
            IndexStateError: If the page is no longer in the index.
        """
        return self._explanation(self._embed([query])[0], self._points([hit], vectors=True)[0])

    def explain_by(
        self, reranker: Reranker | None, query: Input, hit: ScoredPage, method: Method | None
    ) -> Explanation:
        """Return the heat map of a reranker's score over the page image.

        Args:
            reranker: Reranker that supports explanations of scores; None raises an error.
            query: Query as text, image or both.
            hit: Page to explain.
            method: ``"gradient"`` or ``"attention"``; None for the reranker's default.

        Raises:
            InvalidInputError: If the reranker is None or does not support explanations, or the hit is a plain text.
            IndexStateError: If the page is no longer in the index, or the screenshot of the page is missing.
        """
        if reranker is None:
            raise InvalidInputError("The index has no reranker. Open the index with reranker=NAME to explain scores.")
        if not isinstance(reranker, ExplainingReranker):
            raise InvalidInputError(
                f"{reranker.name} cannot explain its scores. Open the index with reranker='jinaai/jina-reranker-m0'."
            )
        image = self._image(self._points([hit], vectors=False)[0])
        if image is None:
            raise InvalidInputError(f"{hit.doc_id} is a plain text without a page image. Explain a hit with an image.")
        if not image.is_file():
            raise IndexStateError(
                f"{hit.doc_id}, page {hit.page}: the screenshot is not on this machine. Open the index with the "
                "assets_dir of the images, or ingest the file with force=True (--force)."
            )
        attribution = (
            reranker.explain(query, image) if method is None else reranker.explain(query, image, method=method)
        )
        return Explanation.from_attribution(attribution.boxes, attribution.weights, image)

    def cite(self, query: Input, hits: Sequence[ScoredPage]) -> list[Citation]:
        """Return one citation per hit: the box that answers the query, with the words inside the box.

        Args:
            query: Query as text, image or both.
            hits: Pages to cite.

        Raises:
            IndexStateError: If a page is no longer in the index.
        """
        return self._citations(query, hits, self._points(hits, vectors=True))

    def context_sources(
        self, query: Input, hits: Sequence[ScoredPage], *, cite: bool
    ) -> tuple[list[ScoredPage], Callable[[ScoredPage], str], Callable[[ScoredPage], Citation] | None]:
        """Return hits, a text lookup and a citation lookup as arguments for `jina_rag.build_context`.

        Args:
            query: Query as text, image or both.
            hits: Pages returned by `search`.
            cite: Whether to compute citations; False skips reading the stored vectors.

        Returns:
            Copies of the hits with temporary ids, and the functions `text_of` and `citation_of`, which accept only
            these copies. `citation_of` is None if `cite` is False.

        Raises:
            IndexStateError: If a page is no longer in the index.
        """
        points = self._points(hits, vectors=cite)
        citations = self._citations(query, hits, points) if cite else None
        # The temporary id of a hit is the index in the list. Page ids do not identify hits: two hits can have the same
        # page, and hits built by the caller have no page id.
        numbered_hits = [replace(hit, page_id=f"{number}") for number, hit in enumerate(hits)]
        return (
            numbered_hits,
            lambda hit: str(points[int(hit.page_id)].payload.get(schema.TEXT, "")),
            None if citations is None else lambda hit: citations[int(hit.page_id)],
        )

    def _citations(self, query: Input, hits: Sequence[ScoredPage], points: Sequence[Point]) -> list[Citation]:
        from jina_rag.explain.citations import cite

        query_vectors = self._embed([query])[0]
        folder = self._resources.images.folder
        return [
            cite(
                hit,
                self._explanation(query_vectors, point),
                words=words_of(point.payload),
                regions=regions_of(point.payload, folder),
            )
            for hit, point in zip(hits, points, strict=True)
        ]

    def _points(self, hits: Sequence[ScoredPage], *, vectors: bool) -> list[Point]:
        """Return the point of the page of each hit, read in batches."""
        point_ids = [hit.page_id or self._point_id(hit) for hit in hits]
        known_ids = list(dict.fromkeys(filter(None, point_ids)))
        batches = (known_ids[start : start + VECTOR_BATCH] for start in range(0, len(known_ids), VECTOR_BATCH))
        store = self._resources.store
        points = {point.id: point for batch in batches for point in store.fetch(batch, vectors=vectors)}
        for hit, point_id in zip(hits, point_ids, strict=True):
            # The point id depends on the content hash of the file, so a page of a replaced file is not found.
            if point_id not in points:
                raise IndexStateError(
                    f"{hit.doc_id}, page {hit.page} is no longer in this index (deleted or replaced). "
                    "Repeat the search."
                )
        return [points[point_id] for point_id in point_ids]

    def _point_id(self, hit: ScoredPage) -> str:
        """Return the point id of a hit built by the caller or by another version of jina_rag; "" if it is unknown."""
        record = self._resources.manifest.document(hit.doc_id)
        return schema.point_id(record.sha256, hit.page) if record is not None else ""

    def _image(self, point: Point) -> Path | None:
        """Return the path of the page screenshot; None for a plain text."""
        name = point.payload.get(schema.IMAGE)
        return self._resources.images.path(name) if name else None

    def _explanation(self, query: Query, point: Point) -> Explanation:
        payload, image = point.payload, self._image(point)
        if point.multi is None or schema.GRID not in payload:
            return Explanation.empty(image)
        assert image is not None, "a token grid without a page image"
        return explain(
            query.multi,
            point.multi,
            schema.decode_grid(payload[schema.GRID]),
            image,
            tokens=query.tokens,
            assignment=decode_assignment(payload[schema.ASSIGNMENT]) if schema.ASSIGNMENT in payload else None,
        )
