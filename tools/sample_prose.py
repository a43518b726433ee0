"""Print a random sample of docstrings, error texts and comments, and all help pages, to review the wording.

The sample contains one text from each room (top-level module or package) and random texts from all rooms:

    python tools/sample_prose.py --seed 1
    python tools/sample_prose.py --seed 1 --docstrings 0 --comments 0 --errors 20 --no-help
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("jina_rag", "integrations", "benchmarks", "tools")
COMMANDS = (
    "", "ingest", "search", "info", "delete", "verify", "copy", "models", "models download", "evaluate",
    "evaluate init", "evaluate check", "evaluate negation", "evaluate --benchmark NAME", "clean", "doctor", "demo",
)  # fmt: skip
MARKERS = ("#!", "# noqa", "# type:", "# fmt:", "# pragma", "# -*-")
"""Prefixes of comments that are instructions to tools."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the source code.

    Attributes:
        kind: ``"docstring"``, ``"error"`` or ``"comment"``.
        room: Top-level module or package that contains the text.
        position: File and line.
        content: The text. Inserted values of an error appear as expressions in braces.
    """

    kind: str
    room: str
    position: str
    content: str


def read_texts(path: Path) -> Iterator[Text]:
    """Yield the docstrings, error texts and comments of a Python file."""
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    parts = name.split("/")
    room = "/".join(parts[:2]) if len(parts) > 2 and parts[0] in ("jina_rag", "integrations") else parts[0]

    def text(kind: str, line: int, content: str) -> Text:
        return Text(kind, room, f"{name}:{line}", content)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield text("docstring", node.body[0].lineno, docstring)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and not _is_exit(node.exc):
            message = " ".join(filter(None, (_message(argument) for argument in node.exc.args)))
            if len(message.split()) > 2:
                yield text("error", node.lineno, message)
    lines: list[str] = []
    start = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(MARKERS):
            continue
        if lines and token.start[0] == start + len(lines):
            lines.append(token.string)
            continue
        if lines:
            yield text("comment", start, " ".join(lines))
        lines, start = [token.string], token.start[0]
    if lines:
        yield text("comment", start, " ".join(lines))


def _is_exit(call: ast.Call) -> bool:
    """Return whether a call creates an exception that ends the program without an error text."""
    return ast.unparse(call.func).rpartition(".")[2] in ("Exit", "SystemExit")


def _message(node: ast.expr) -> str:
    """Return a string expression as text, with inserted values as expressions in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore[attr-defined]
            for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return _message(node.left) + _message(node.right)
    return f"{{{ast.unparse(node)}}}"


def draw(texts: list[Text], number: int, rng: random.Random) -> list[Text]:
    """Draw one text from each room (see `Text.room`), and the others from all texts; `number` texts in total."""
    rooms = sorted({text.room for text in texts})
    sample = [rng.choice([text for text in texts if text.room == room]) for room in rooms][:number]
    others = [text for text in texts if text not in sample]
    sample += rng.sample(others, min(number - len(sample), len(others)))
    return sorted(sample, key=lambda text: text.position)


def main() -> None:
    """Print the sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default 0)")
    parser.add_argument("--docstrings", type=int, default=100, help="number of docstrings (default 100)")
    parser.add_argument("--errors", type=int, default=60, help="number of error texts (default 60)")
    parser.add_argument("--comments", type=int, default=40, help="number of comments (default 40)")
    parser.add_argument("--no-help", action="store_true", help="omit the help pages of the commands")
    arguments = parser.parse_args()
    files = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "tests" not in path.parts)
    texts = [text for path in files for text in read_texts(path)]
    rng = random.Random(arguments.seed)
    for kind in ("docstring", "error", "comment"):
        population = [text for text in texts if text.kind == kind]
        sample = draw(population, getattr(arguments, f"{kind}s"), rng)
        print(f"## {len(sample)} of {len(population)} {kind}s\n")
        for text in sample:
            print(f"[{text.position}] {text.content}\n")
    if not arguments.no_help:
        for command in COMMANDS:
            print(f"## jina-rag {command} --help\n")
            subprocess.run([sys.executable, "-m", "jina_rag", *command.split(), "--help"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
