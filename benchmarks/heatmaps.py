"""Measure how often the brightest box of a heat map is inside the judged box, compared with a random box on the page.

    python benchmarks/heatmaps.py JUDGED_FOLDER --index DIR

JUDGED_FOLDER is a judged folder of ``jina-rag evaluate`` whose queries have a ``bbox``: the box of the answer in PDF
points of the displayed page (for an image file, in points of the page made from the image). The first run creates the
index.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pymupdf

from jina_rag import DocumentIndex
from jina_rag.evaluation.datasets import read_folder


def centers_inside(boxes: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return a mask of the boxes whose center is inside `box`, shape (boxes,), bool."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--embedder")
    arguments = parser.parse_args()
    folder = read_folder(arguments.folder)
    brightest_hits, weight_fractions, random_hits, region_hits, rows = [], [], [], [], []
    with DocumentIndex.open(arguments.index, embedder=arguments.embedder) as index:
        index.ingest(list(folder.documents.values()))
        boxed_queries = [query for query in folder.queries if query.extra.get("bbox")]
        for query in boxed_queries:
            bbox = query.extra["bbox"]
            file = folder.documents[bbox["doc"]]
            hits = index.search(query.query, k=5)
            hit = next((h for h in hits if (h.path.stem, h.page) == (bbox["doc"], bbox["page"])), None)
            if hit is None:
                continue
            with pymupdf.open(file) as document:
                rect = document[bbox["page"] - 1].rect
            box = tuple(value / side for value, side in zip(bbox["rect"], [rect.width, rect.height] * 2, strict=True))
            explanation = index.explain(query.query, hit)
            if explanation.brightest is None:
                continue
            inside = centers_inside(explanation.boxes, box)
            brightest_hits.append(bool(inside[int(explanation.weights.argmax())]))
            weight_fractions.append(float(explanation.weights[inside].sum() / explanation.weights.sum()))
            random_hits.append(float(inside.mean()))
            region_hits.append(hit.region is not None and centers_inside(np.array([hit.region.box]), box)[0])
            rows.append((query.query_id, query.extra["modality"], brightest_hits[-1], round(random_hits[-1], 2)))
    for row in rows:
        print(*row)
    ratio = np.mean(brightest_hits) / np.mean(random_hits)
    print(f"queries with a judged box: {len(boxed_queries)}; judged page among the first 5: {len(brightest_hits)}")
    print(f"brightest box inside the judged box: {np.mean(brightest_hits):.3f}")
    print(f"random box inside the judged box:    {np.mean(random_hits):.3f}   ratio {ratio:.2f}")
    print(f"heat map weight inside, as fraction: {np.mean(weight_fractions):.3f}")
    print(f"best region inside the judged box:   {np.mean(region_hits):.3f}")


if __name__ == "__main__":
    main()
