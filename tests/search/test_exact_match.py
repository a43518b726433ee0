"""Part numbers, error codes and paragraphs are found exactly, among hundreds of pages whose codes are nearly alike."""

from __future__ import annotations

import random

import pytest

from jina_rag import DocumentIndex, Prefetch
from jina_rag.config import IngestSettings
from jina_rag.testing import sample_pdf

FAMILIES = ["KX-4471-B", "E10-2093", "0X80070057", "M8X20-A4", "331.204.7", "ERR_4096_T", "7QF3-88L2", "471199"]
ASKED = [
    "What torque does part {} need?",
    "{}",
    "How often is {} replaced?",
    "Wie oft wird das Teil {} gewechselt?",
    "le couple de serrage de la pièce {}",
    "part no. {} notes on safety",
    "{}?",
]
PAGES = 224


def sisters(code: str, count: int, rng: random.Random) -> list[str]:
    """Codes that differ from the given one, and from each other, in one or two characters."""
    found: set[str] = {code}
    while len(found) < count:
        letters = list(code)
        for place in rng.sample([i for i, c in enumerate(letters) if c.isalnum()], rng.choice([1, 2])):
            letters[place] = rng.choice("0123456789" if letters[place].isdigit() else "ABCDEFGHKLMNPRSTXZ")
        found.add("".join(letters))
    return sorted(found)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """An index of the embedded default, and what to ask it: (question, page)."""
    rng = random.Random(11)
    codes = [code for family in FAMILIES for code in sisters(family, PAGES * 2 // len(FAMILIES), rng)]
    rng.shuffle(codes)
    things = ["pump", "valve", "gear", "sensor", "bracket", "motor", "filter", "hose"]
    texts = [
        f"Maintenance sheet. Part {codes[2 * n]} is the {rng.choice(things)} of the cooling line, its spare is "
        f"{codes[2 * n + 1]}. Tighten to {rng.randint(5, 90)} Nm, replace every {rng.randint(2, 24)} months."
        for n in range(PAGES)
    ]
    folder = tmp_path_factory.mktemp("docs")
    sample_pdf(folder / "sheets.pdf", texts)
    pages = rng.sample(range(PAGES), 14)
    queries = [(ASKED[i % len(ASKED)].format(codes[2 * n + i % 2]), n + 1) for i, n in enumerate(pages)]
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb") as index:
        index.ingest(folder, settings=IngestSettings(ocr="never"))
        assert index.info().pages == PAGES
        yield index, queries


@pytest.mark.parametrize("exhaustive", [400, 0])
def test_each_of_14_codes_is_found_first(asked, exhaustive):
    index, queries = asked
    for query, page in queries:
        hits = index.search(query, k=3, stages=[Prefetch(exhaustive=exhaustive)], details=False)
        assert hits[0].page == page, (query, [hit.page for hit in hits])
        assert hits[0].scores["identifiers"] > hits[1].scores.get("identifiers", 0)
