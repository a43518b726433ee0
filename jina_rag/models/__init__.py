"""Embedders and rerankers, loaded by name with `registry`; includes the bundled default, ``"lite"``."""
