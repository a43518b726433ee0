"""Ingestion: plans a run, renders and embeds pages, builds the points, and writes the points to the index."""
