"""What can be told of a hit: where on its page the answer stands, what to quote, what to give a chat model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jina_rag.catalog.maintenance import IndexResources
from jina_rag.compression import decode_assignment
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.explain.explanation import Explanation, explain
from jina_rag.protocols import ExplainingReranker, Input, Reranker
from jina_rag.search.query import Query, words_in
from jina_rag.search.snippets import regions_of, words_of
from jina_rag.stores import schema
from jina_rag.types import Point, ScoredPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from jina_rag.context.builder import Context
    from jina_rag.explain.citations import Citation

Method = Literal["gradient", "attention"]


class Answers:
    """Tells about the hits of one index. Holds no state of its own."""

    def __init__(self, parts: IndexResources, embed: Callable[[Sequence[Input]], list[Query]]) -> None:
        self._parts = parts
        self._embed = embed

    def explain(self, query: Input, hit: ScoredPage) -> Explanation:
        """Which places of the page speak to the question, from the vectors that ranked it."""
        [embedded] = self._embed([query])
        return self._explanation(embedded, self._point(hit, vectors=True))

    def explain_by(
        self, reranker: Reranker | None, query: Input, hit: ScoredPage, method: Method | None
    ) -> Explanation:
        """Which part of the page's picture carried a reranker's score."""
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
        found = reranker.explain(query, image, **({} if method is None else {"method": method}))
        return Explanation.from_attribution(found.boxes, found.weights, image)

    def cite(self, query: Input, hits: Sequence[ScoredPage]) -> list[Citation]:
        """The place of each page to quote, with the words in it."""
        return self._cited(query, hits, [self._point(hit, vectors=True) for hit in hits])

    def context(
        self,
        query: Input,
        hits: Sequence[ScoredPage],
        *,
        cited: bool,
        **options: Any,  # noqa: ANN401  # those of build_context
    ) -> Context:
        """What a chat model is given; `options` are those of `build_context`."""
        from jina_rag.context.builder import build_context

        points = [self._point(hit, vectors=cited) for hit in hits]
        # By their place in the list: two hits may be of one page, and hits made by hand have no id.
        hits = [replace(hit, page_id=f"{number}") for number, hit in enumerate(hits)]
        if cited:
            places = self._cited(query, hits, points)
            options["citation_of"] = lambda hit: places[int(hit.page_id)]
        return build_context(
            hits,
            query=words_in(query),
            text_of=lambda hit: str(points[int(hit.page_id)].payload.get(schema.TEXT, "")),
            **options,
        )

    def _cited(self, query: Input, hits: Sequence[ScoredPage], points: Sequence[Point]) -> list[Citation]:
        from jina_rag.explain.citations import cite

        [embedded] = self._embed([query])
        images = self._parts.images.folder
        return [
            cite(
                hit,
                self._explanation(embedded, point),
                words=words_of(point.payload),
                regions=regions_of(point.payload, images),
            )
            for hit, point in zip(hits, points, strict=True)
        ]

    def _point(self, hit: ScoredPage, *, vectors: bool) -> Point:
        point_id = hit.page_id
        if not point_id:  # made by hand, or by another version
            record = self._parts.manifest.document(hit.doc_id)
            point_id = schema.point_id(record.sha256, hit.page) if record is not None else ""
        # By its content: a page of the same number in a file that was replaced is another page.
        found = self._parts.store.fetch([point_id], vectors=vectors) if point_id else []
        if not found:
            raise IndexStateError(
                f"{hit.doc_id}, page {hit.page} is not in this index any more (removed or replaced): search again."
            )
        return found[0]

    def _image(self, point: Point) -> Path | None:
        """The page's screenshot; None for a text that is no page."""
        name = point.payload.get(schema.IMAGE)
        return self._parts.images.path(name) if name else None

    def _explanation(self, query: Query, point: Point) -> Explanation:
        image = self._image(point)
        if point.multi is None or schema.GRID not in point.payload:
            return Explanation.empty(image)
        assert image is not None, "places on a page without a picture"
        pooled = schema.ASSIGNMENT in point.payload
        return explain(
            query.multi,
            point.multi,
            schema.decode_grid(point.payload[schema.GRID]),
            image,
            tokens=query.tokens,
            assignment=decode_assignment(point.payload[schema.ASSIGNMENT]) if pooled else None,
        )
