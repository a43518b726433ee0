"""Small judged folders for the tests of evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from jina_rag.testing import sample_pdf

QUERIES = (
    ("a", "where do whales sing?", [("animals", 2, 2), ("animals", 1, 1)], "text", False),
    ("b", "Wo wuchs solar power?", [("energy", 1, 2)], "table", True),
    ("c", "which order was shipped", [("energy", 2, 2)], "table", False),
    ("d", "do cats sleep", [("animals", 1, 2)], "text", None),
    ("e", "submarines", [("animals", 2, 2)], "", None),
)


def write_judged(folder: Path, queries=QUERIES) -> Path:
    """Write two documents of two pages each with five judged queries, and return the folder."""
    (folder / "docs").mkdir(parents=True)
    sample_pdf(folder / "docs" / "animals.pdf", ["cats and dogs sleep all day", "whales sing in the deep sea"])
    sample_pdf(folder / "docs" / "energy.pdf", ["solar power grew in Spain", "order KX-4471-B was shipped"])
    write_lines(folder / "docs.jsonl", [{"doc": doc, "file": f"docs/{doc}.pdf"} for doc in ("animals", "energy")])
    write_lines(folder / "queries.jsonl", [entry(*query) for query in queries])
    return folder


def entry(query_id, query, relevant, modality="", cross=None) -> dict:
    judged = [{"doc": doc, "page": page, "grade": grade} for doc, page, grade in relevant]
    return {"qid": query_id, "query": query, "relevant": judged, "modality": modality, "cross_language": cross}


def write_lines(path: Path, entries: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in entries), encoding="utf-8")
