"""The command line: parses and prints; nothing else."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process, and leave with its exit status."""
    try:
        # Imported here, so that Ctrl-C is met from the first moment.
        from jina_rag.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(130) from None
