"""Measure how often the page with a queried code ranks first among hundreds of pages with similar codes.

    python benchmarks/codes.py [--seeds 3] [--pages 224] [--queries 100]

For each seed, the benchmark generates a PDF. Each page contains two codes, and the pages differ only in the codes. The
codes are variants of eight base codes, and a variant differs from its base code in at most two characters. A query is a
code, or a sentence in English, German or French that contains a code. All queries are searched with each
weight of `Rescore.identifiers`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from jina_rag import DocumentIndex, Rescore
from jina_rag.config import IngestSettings
from jina_rag.search.stages import default_stages
from jina_rag.testing import sample_pdf

FAMILIES = ["KX-4471-B", "E10-2093", "0X80070057", "M8X20-A4", "331.204.7", "ERR_4096_T", "7QF3-88L2", "471199"]
TEMPLATES = [
    "What torque does part {} need?", "{}", "How often is {} replaced?", "Wie oft wird das Teil {} gewechselt?",
    "le couple de serrage de la pièce {}", "part no. {} notes on safety", "{}?",
]  # fmt: skip
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5)


def similar_codes(code: str, count: int, rng: random.Random) -> list[str]:
    codes = {code}
    while len(codes) < count:
        letters = list(code)
        for position in rng.sample([i for i, c in enumerate(letters) if c.isalnum()], rng.choice([1, 2])):
            letters[position] = rng.choice("0123456789" if letters[position].isdigit() else "ABCDEFGHKLMNPRSTXZ")
        codes.add("".join(letters))
    return sorted(codes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=224)
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    for seed in range(1, options.seeds + 1):
        rng = random.Random(seed)
        codes_per_family = -(-2 * options.pages // len(FAMILIES))
        codes = [code for family in FAMILIES for code in similar_codes(family, codes_per_family, rng)]
        rng.shuffle(codes)
        texts = [
            f"Maintenance sheet. Part {codes[2 * n]} is a pump of the cooling line, its spare is {codes[2 * n + 1]}. "
            "Tighten to 20 Nm, replace every 3 months."
            for n in range(options.pages)
        ]
        with tempfile.TemporaryDirectory() as scratch, DocumentIndex.open(Path(scratch) / "kb") as index:
            index.ingest(sample_pdf(Path(scratch) / "sheets.pdf", texts), settings=IngestSettings(ocr="never"))
            pages = rng.sample(range(options.pages), options.queries)
            queries = [(TEMPLATES[i % len(TEMPLATES)].format(codes[2 * n + i % 2]), n + 1) for i, n in enumerate(pages)]
            dense = default_stages(index.embedder, reranker=False).rescore.dense
            for weight in WEIGHTS:
                stage = Rescore(identifiers=weight, dense=dense)
                results = index.search_many([query for query, _ in queries], k=1, stages=stage, details=False)
                hit_count = sum(hits[0].page == page for (_, page), hits in zip(queries, results, strict=True))
                print(
                    f"seed {seed}, identifiers={weight:3.1f}: {hit_count} of {len(queries)} pages ranked first",
                    flush=True,
                )


if __name__ == "__main__":
    main()
