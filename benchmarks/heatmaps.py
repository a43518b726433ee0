"""How often the brightest box of a heat map lies on the judged answer, against a random box of the same page.

    python benchmarks/heatmaps.py JUDGED_FOLDER --index DIR

JUDGED_FOLDER is what ``jina-rag evaluate`` takes, with ``bbox`` in its questions: the place of the answer in PDF
points of the displayed page (for image files, in points of the page that the image makes). The index is made on
the first run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pymupdf

from jina_rag import DocumentIndex
from jina_rag.evaluation.datasets import read_folder


def overlaps(boxes: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Which boxes have their centre inside the judged one."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--embedder")
    arguments = parser.parse_args()
    folder = read_folder(arguments.folder)
    bright, light, chance, regions, rows = [], [], [], [], []
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
            inside = overlaps(explanation.boxes, box)
            bright.append(bool(inside[int(explanation.weights.argmax())]))
            light.append(float(explanation.weights[inside].sum() / explanation.weights.sum()))
            chance.append(float(inside.mean()))
            regions.append(hit.region is not None and overlaps(np.array([hit.region.box]), box)[0])
            rows.append((query.query_id, query.extra["modality"], bright[-1], round(chance[-1], 2)))
    for row in rows:
        print(*row)
    print(f"questions with a judged box: {len(boxed_queries)}; of these, page among the first 5: {len(bright)}")
    print(f"brightest box on the judged place: {np.mean(bright):.3f}")
    print(f"a random box of the page:          {np.mean(chance):.3f}   ratio {np.mean(bright) / np.mean(chance):.2f}")
    print(f"share of the light on it:          {np.mean(light):.3f}")
    print(f"best region on the judged place:   {np.mean(regions):.3f}")


if __name__ == "__main__":
    main()
