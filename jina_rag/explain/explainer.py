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
        return self._explanation(self._embed([query])[0], self._point(hit, vectors=True))

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
        image = self._image(self._point(hit, vectors=False))
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
        return self._citations(query, hits, [self._point(hit, vectors=True) for hit in hits])

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
        points = [self._point(hit, vectors=cite) for hit in hits]
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

    def _point(self, hit: ScoredPage, *, vectors: bool) -> Point:
        point_id = hit.page_id
        if not point_id:  # hit built by the caller, or by another version of jina_rag
            record = self._resources.manifest.document(hit.doc_id)
            point_id = schema.point_id(record.sha256, hit.page) if record is not None else ""
        # The point id depends on the content hash of the file, so a page of a replaced file is not found.
        points = self._resources.store.fetch([point_id], vectors=vectors) if point_id else []
        if not points:
            raise IndexStateError(
                f"{hit.doc_id}, page {hit.page} is no longer in this index (deleted or replaced). Repeat the search."
            )
        return points[0]

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
