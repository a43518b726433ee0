"""Evaluation of retrieval on judged queries."""
