"""Entry point of ``python -m jina_rag``, the same command as ``jina-rag``."""

from __future__ import annotations

from jina_rag.cli import main

if __name__ == "__main__":
    main()
