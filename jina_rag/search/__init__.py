"""Page search: candidates, late interaction, reranking, and the construction of hits."""
