"""Near-duplicate pages: detected and marked during ingestion, merged into one hit during search."""
