"""Near-duplicate pages: detected and marked during ingestion, folded into one hit during search."""
