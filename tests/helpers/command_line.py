"""The command line in this process and in one of its own, and documents to run it on."""

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
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one line: {self.out!r}"
        content = json.loads(lines[0])
        assert isinstance(content, dict)
        return content

    def refused(self, *parts: str) -> None:
        """Wrong usage or input: status 2, nothing on stdout, a sentence that has these parts, no traceback."""
        message = " ".join(self.err.replace("│", " ").split())
        assert self.code == 2, message
        assert self.out == ""
        assert "Traceback" not in message
        for part in parts:
            assert part in message


def process(*args: object, env: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess:
    """Run the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "jina_rag", *map(os.fspath, args)],
        capture_output=True,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
        timeout=120,
        check=False,
        **options,
    )


def write_docs(folder: Path) -> Path:
    """Two documents of two pages each."""
    (folder / "reports").mkdir(parents=True)
    sample_pdf(folder / "animals.pdf", ["cats and dogs sleep all day", "whales sing in the deep sea"])
    sample_pdf(folder / "reports" / "energy.pdf", ["solar power grew in Spain", "order KX-4471-B was shipped"])
    return folder
