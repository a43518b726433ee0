"""Whether an index is so small that a search scores every page, without candidate selection."""

from __future__ import annotations

from typing import Final

from jina_rag.catalog.resources import IndexResources
from jina_rag.stores import schema

POINTS_PER_PAGE: Final = 12
"""Maximum average number of points per page (the page and the regions) in an index that is searched exhaustively."""


class IndexSize:
    """The size of an index, read from the manifest, so that a search needs no call of the store to count pages."""

    def __init__(self, resources: IndexResources) -> None:
        self._resources = resources
        self._stored_points = 0

    def has_at_most(self, pages: int) -> bool:
        """Return whether the index has at most `pages` pages, and at most 12 points per page on average.

        Args:
            pages: Number of pages.
        """
        max_points = POINTS_PER_PAGE * pages
        counts = self._resources.manifest.count_points(max_pages=pages + 1, max_points=max_points + 1)
        return counts[0] <= pages and counts[1] <= max_points if counts[1] else self._store_has_at_most(pages)

    def _store_has_at_most(self, pages: int) -> bool:
        """Answer for an index whose manifest is empty: a new index, or one filled with another assets folder."""
        store, max_points = self._resources.store, POINTS_PER_PAGE * pages
        # The count of a large index is kept. A search with candidate selection is correct for an index of any size, so
        # the count may be outdated.
        if self._stored_points <= max_points:
            self._stored_points = store.count()
        if self._stored_points > max_points:
            return False
        return self._stored_points <= pages or store.count({schema.KIND: "page"}) <= pages
