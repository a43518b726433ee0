"""Measure retrieval on judged questions."""
