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
        self._exceeded = -1

    def has_at_most(self, pages: int) -> bool:
        """Return whether the index has at most `pages` pages, and at most 12 points per page on average.

        Args:
            pages: Number of pages.
        """
        manifest = self._resources.manifest
        page_count = manifest.count_points(pages + 1, "page")
        if page_count > pages:
            return False
        max_points = POINTS_PER_PAGE * pages
        point_count = manifest.count_points(max_points + 1)
        return point_count <= max_points if point_count else self._store_has_at_most(pages)

    def _store_has_at_most(self, pages: int) -> bool:
        """Answer for an index whose manifest is empty: a new index, or one filled with another assets folder."""
        # A search with candidate selection is correct for an index of any size, so this answer may be outdated.
        if pages <= self._exceeded:
            return False
        store = self._resources.store
        count = store.count()
        if count <= pages or (count <= POINTS_PER_PAGE * pages and store.count({schema.KIND: "page"}) <= pages):
            return True
        self._exceeded = pages
        return False
