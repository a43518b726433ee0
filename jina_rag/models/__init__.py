"""Embedders and rerankers; `registry` loads a model by name, for example the default ``"lite"``."""
