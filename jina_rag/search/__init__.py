"""Page search: candidate selection, late interaction, reranking, and construction of hits."""
