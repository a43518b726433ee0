"""Identifiers in search: part numbers and codes are found exactly among hundreds of pages with similar codes."""

from __future__ import annotations

import random

import pytest

from jina_rag import DocumentIndex, Prefetch
from jina_rag.config import IngestSettings
from jina_rag.testing import sample_pdf

FAMILIES = ["KX-4471-B", "E10-2093", "0X80070057", "M8X20-A4", "331.204.7", "ERR_4096_T", "7QF3-88L2", "471199"]
QUERY_TEMPLATES = [
    "What torque does part {} need?",
    "{}",
    "How often is {} replaced?",
    "Wie oft wird das Teil {} gewechselt?",
    "le couple de serrage de la pièce {}",
    "part no. {} notes on safety",
    "{}?",
]
PAGES = 224


def similar_codes(code: str, count: int, rng: random.Random) -> list[str]:
    """Return `count` codes that differ from `code`, and from each other, in one or two characters."""
    codes: set[str] = {code}
    while len(codes) < count:
        characters = list(code)
        for position in rng.sample([i for i, c in enumerate(characters) if c.isalnum()], rng.choice([1, 2])):
            characters[position] = rng.choice("0123456789" if characters[position].isdigit() else "ABCDEFGHKLMNPRSTXZ")
        codes.add("".join(characters))
    return sorted(codes)


@pytest.fixture(scope="module")
def index_and_queries(tmp_path_factory):
    """Yield an index with the default embedder, and a list of (query, number of the expected page)."""
    rng = random.Random(11)
    codes = [code for family in FAMILIES for code in similar_codes(family, PAGES * 2 // len(FAMILIES), rng)]
    rng.shuffle(codes)
    nouns = ["pump", "valve", "gear", "sensor", "bracket", "motor", "filter", "hose"]
    texts = [
        f"Maintenance sheet. Part {codes[2 * n]} is the {rng.choice(nouns)} of the cooling line, its spare is "
        f"{codes[2 * n + 1]}. Tighten to {rng.randint(5, 90)} Nm, replace every {rng.randint(2, 24)} months."
        for n in range(PAGES)
    ]
    folder = tmp_path_factory.mktemp("docs")
    sample_pdf(folder / "sheets.pdf", texts)
    pages = rng.sample(range(PAGES), 14)
    queries = [
        (QUERY_TEMPLATES[i % len(QUERY_TEMPLATES)].format(codes[2 * n + i % 2]), n + 1) for i, n in enumerate(pages)
    ]
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb") as index:
        index.ingest(folder, settings=IngestSettings(ocr="never"))
        assert index.info().pages == PAGES
        yield index, queries


@pytest.mark.parametrize("exhaustive", [400, 0])
def test_exact_code_ranks_first_among_similar_codes(index_and_queries, exhaustive):
    index, queries = index_and_queries
    for query, page in queries:
        hits = index.search(query, k=3, stages=[Prefetch(exhaustive=exhaustive)], details=False)
        assert hits[0].page == page, (query, [hit.page for hit in hits])
        assert hits[0].scores["identifiers"] > hits[1].scores.get("identifiers", 0)
