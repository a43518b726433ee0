"""Measure how well detected regions match judged boxes, which were drawn by hand.

    python benchmarks/regions.py DIR [--show OUT] [--ocr] [--renderer pymupdf|pypdfium2]

DIR holds docs.jsonl, queries.jsonl and docs/. A judged box is a hit if a region overlaps the box with an intersection
over union (IoU) of at least 0.5. `--show` draws judged boxes and regions on the pages, as PNG files in OUT.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from PIL import ImageDraw

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.layout.boxes import iou
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import source_file
from jina_rag.types import Page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", type=Path)
    parser.add_argument("--ocr", action="store_true", help="also read image-only pages; the times then include OCR")
    parser.add_argument("--renderer", choices=("pymupdf", "pypdfium2"), default="pymupdf")
    options = parser.parse_args()
    files = {
        row["doc"]: options.folder / row["file"]
        for row in map(json.loads, (options.folder / "docs.jsonl").read_text("utf-8").splitlines())
    }
    judged = defaultdict(list)
    for line in (options.folder / "queries.jsonl").read_text("utf-8").splitlines():
        query = json.loads(line)
        if query.get("bbox"):
            judged[query["bbox"]["doc"]].append((query["bbox"], query["modality"]))

    hits, counts, modalities, kinds = [], [], defaultdict(list), Counter()
    with_regions, without_regions = 0.0, 0.0
    for doc, path in sorted(files.items()):
        region_settings = IngestSettings(renderer=options.renderer)
        for settings in (replace(region_settings, regions=False), region_settings):
            start = time.process_time()
            with open_document(source_file(path), settings) as document:
                pages = [document.render(number) for number in range(1, document.page_count + 1)]
            if options.ocr and settings.regions and not all(page.words for page in pages):
                pages = [event for event in read_pages([source_file(path)], settings) if isinstance(event, Page)]
            if settings.regions:
                with_regions += time.process_time() - start
            else:
                without_regions += time.process_time() - start
        counts += [len(page.regions) for page in pages]
        kinds.update(region.kind for page in pages for region in page.regions)
        for box, modality in judged[doc]:
            page = pages[box["page"] - 1]
            width, height = (side * 72 / page.screenshot.dpi for side in page.screenshot.image.size)
            x0, y0, x1, y1 = box["rect"]
            target = (x0 / width, y0 / height, x1 / width, y1 / height)
            best = max((iou(region.box, target) for region in page.regions), default=0.0)
            hits.append(best >= 0.5)
            modalities[modality].append(best >= 0.5)
            print(f"{'hit ' if best >= 0.5 else 'MISS'} {best:.2f} {modality:8} {doc} p{box['page']}")
            if options.show:
                draw(page, target, options.show / f"{'hit' if best >= 0.5 else 'miss'}_{doc}_{box['page']}.png")
    pages = len(counts)
    print(f"hit rate {sum(hits)}/{len(hits)} = {sum(hits) / len(hits):.2f}")
    print({name: f"{sum(flags)}/{len(flags)}" for name, flags in modalities.items()})
    print(
        f"regions per page: mean {statistics.mean(counts):.2f}, maximum {max(counts)}; {dict(kinds)}; "
        f"regions {(with_regions - without_regions) / pages * 1000:.0f} ms per page, "
        f"rendering and words {without_regions / pages * 1000:.0f} ms per page, {pages} pages"
    )


def draw(page, target, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = page.screenshot.image.convert("RGB")
    pen = ImageDraw.Draw(image)
    width, height = image.size
    colors = {"chart": "blue", "table": "green", "figure": "orange"}
    for region in page.regions:
        x0, y0, x1, y1 = region.box
        pen.rectangle((x0 * width, y0 * height, x1 * width, y1 * height), outline=colors[region.kind], width=4)
        pen.text((x0 * width + 8, y0 * height + 8), f"{region.kind}: {region.caption}"[:90], fill="magenta")
    x0, y0, x1, y1 = target
    pen.rectangle((x0 * width, y0 * height, x1 * width, y1 * height), outline="red", width=2)
    image.thumbnail((900, 900))
    image.save(path)


if __name__ == "__main__":
    main()
