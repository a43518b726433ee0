"""Explanation of search hits: heat maps, relevant areas of a page, and citations."""
