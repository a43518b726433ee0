"""The command line: parses and prints; nothing else."""

from __future__ import annotations

from jina_rag.cli.app import main

__all__ = ["main"]
