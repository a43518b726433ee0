"""Heat maps, relevant areas and citations: the part of a page that answers a query."""
