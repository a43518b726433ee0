"""Ingestion: planning a run, rendering and embedding pages, building points, and writing them to the index."""
