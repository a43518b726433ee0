"""Runs of the command line, checks of their results, and sample documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from jina_rag.testing import sample_pdf

NO_OCR = ("--ocr", "never")


@dataclass
class Result:
    """Output and exit status of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The JSON object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"expected one line on stdout: {self.out!r}"
        content = json.loads(lines[0])
        assert isinstance(content, dict)
        return content

    def assert_usage_error(self, *parts: str) -> None:
        """Assert exit status 2, empty stdout, no traceback, and an error message that contains `parts`."""
        message = " ".join(self.err.replace("│", " ").split())
        assert self.code == 2, message
        assert self.out == ""
        assert "Traceback" not in message
        for part in parts:
            assert part in message


def process(*args: object, env: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess:
    """Run the command line in a separate process."""
    return subprocess.run(
        [sys.executable, "-m", "jina_rag", *map(os.fspath, args)],
        capture_output=True,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
        timeout=120,
        check=False,
        **options,
    )


def write_docs(folder: Path) -> Path:
    """Write two documents of two pages each and return the folder."""
    (folder / "reports").mkdir(parents=True)
    sample_pdf(folder / "animals.pdf", ["cats and dogs sleep all day", "whales sing in the deep sea"])
    sample_pdf(folder / "reports" / "energy.pdf", ["solar power grew in Spain", "order KX-4471-B was shipped"])
    return folder
