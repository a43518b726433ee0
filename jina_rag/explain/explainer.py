"""What can be told of a hit: where on its page the answer stands, what to quote, what to give a chat model."""

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
    """Tells about the hits of one index. Holds no state of its own."""

    def __init__(self, resources: IndexResources, embed: Callable[[Sequence[Input]], list[Query]]) -> None:
        self._resources = resources
        self._embed = embed

    def explain(self, query: Input, hit: ScoredPage) -> Explanation:
        """Which places of the page speak to the query, from the vectors that ranked it."""
        return self._explanation(self._embed([query])[0], self._point(hit, vectors=True))

    def explain_by(
        self, reranker: Reranker | None, query: Input, hit: ScoredPage, method: Method | None
    ) -> Explanation:
        """Which part of the page's image carried a reranker's score."""
        if reranker is None:
            raise InvalidInputError("There is no reranker to explain by: open the index with one (reranker=…).")
        if not isinstance(reranker, ExplainingReranker):
            raise InvalidInputError(
                f"{reranker.name} cannot tell which part of a page carried its score: jina-reranker-m0 can."
            )
        image = self._image(self._point(hit, vectors=False))
        if image is None:
            raise InvalidInputError(f"{hit.doc_id} is a text without a picture: there is no place on it to point at.")
        if not image.is_file():
            raise IndexStateError(f"{hit.doc_id}, page {hit.page}: its screenshot is not on this machine.")
        attribution = (
            reranker.explain(query, image) if method is None else reranker.explain(query, image, method=method)
        )
        return Explanation.from_attribution(attribution.boxes, attribution.weights, image)

    def cite(self, query: Input, hits: Sequence[ScoredPage]) -> list[Citation]:
        """The place of each page to quote, with the words in it."""
        return self._citations(query, hits, [self._point(hit, vectors=True) for hit in hits])

    def context_sources(
        self, query: Input, hits: Sequence[ScoredPage], *, cite: bool
    ) -> tuple[list[ScoredPage], Callable[[ScoredPage], str], Callable[[ScoredPage], Citation] | None]:
        """Hits, their texts and their citations as `jina_rag.build_context` takes them.

        Args:
            query: As it was asked.
            hits: Pages, as `search` returned them.
            cite: Whether pages are cited; False saves reading their vectors.

        Returns:
            The hits under ids of this call; `text_of`; `citation_of`, None unless `cite`.
        """
        points = [self._point(hit, vectors=cite) for hit in hits]
        citations = self._citations(query, hits, points) if cite else None
        # By their place in the list: two hits may be of one page, and hits made by hand have no id.
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
        if not point_id:  # made by hand, or by another version
            record = self._resources.manifest.document(hit.doc_id)
            point_id = schema.point_id(record.sha256, hit.page) if record is not None else ""
        # By its content: a page of the same number in a file that was replaced is another page.
        points = self._resources.store.fetch([point_id], vectors=vectors) if point_id else []
        if not points:
            raise IndexStateError(
                f"{hit.doc_id}, page {hit.page} is not in this index any more (removed or replaced): search again."
            )
        return points[0]

    def _image(self, point: Point) -> Path | None:
        """The page's screenshot; None for a text that is no page."""
        name = point.payload.get(schema.IMAGE)
        return self._resources.images.path(name) if name else None

    def _explanation(self, query: Query, point: Point) -> Explanation:
        payload, image = point.payload, self._image(point)
        if point.multi is None or schema.GRID not in payload:
            return Explanation.empty(image)
        assert image is not None, "places on a page without a picture"
        return explain(
            query.multi,
            point.multi,
            schema.decode_grid(payload[schema.GRID]),
            image,
            tokens=query.tokens,
            assignment=decode_assignment(payload[schema.ASSIGNMENT]) if schema.ASSIGNMENT in payload else None,
        )
