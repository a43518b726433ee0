"""Measure the preparation of page images for jina-embeddings-v4 and jina-reranker-m0 on the host.

    python benchmarks/prepare.py [--pages 12] [--threads 2] [--rounds 5]

For each kind of image, one JSON line gives the CPU milliseconds of one page in one thread: `decode_ms` opens and
decodes the image, `resize_ms` resizes the image to at most 602,112 pixels, `patches_ms` writes the patches as bytes,
and `total_ms` is a call of `QwenVL.prepare` for one page, with token ids and positions. `transformers_ms` is the
processor of transformers in the same process, which also normalizes. `device_ms` is the CPU time of the normalization,
which costs CPU time only if the device is a CPU. `threads_ratio` is the number of pages per second with `--threads`
threads, divided by the number with one thread; `threads_ratio_free` leaves out the time in which other programs used
the CPU (Linux only). The bars apply to rendered pages: total_ms at most 20, and threads_ratio at least 1.7 with two
threads on two free cores. A page without color is resized as one channel, so "page with color" is listed, too.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import pages
from PIL import Image

from jina_rag import load_embedder
from jina_rag.images import open_image
from jina_rag.models.jina.image_patches import MAX_PIXELS
from jina_rag.testing import make_checkpoint

SIZES = {"page": (1200, 1600), "A4 page at 150 dpi": (1241, 1754), "letter page at 150 dpi": (1275, 1650)}
PHOTO = (4032, 3024)


def kinds() -> dict[str, Any]:
    """Return one input for each kind of image: rendered pages, a page as a JPEG, and a photo as a JPEG."""
    (page,) = pages(1, seed=0)
    inputs: dict[str, Any] = {name: page.resize(size, Image.Resampling.LANCZOS) for name, size in SIZES.items()}
    inputs["page with color"] = inputs["page"].copy()
    inputs["page with color"].paste((200, 30, 30), (100, 100, 400, 300))
    for name, image in (("JPEG page", inputs["page"]), ("JPEG photo of 12 megapixels", photo())):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=88)
        inputs[name] = file.getvalue()
    return inputs


def photo() -> Image.Image:
    """Return an image of 12 megapixels with smooth areas, edges and noise."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
        PHOTO, Image.Resampling.BICUBIC
    )
    noise = random.normal(0, 6, (PHOTO[1], PHOTO[0], 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def cpu_ms(run: Callable[[], object], rounds: int) -> float:
    """Return the median CPU time of all threads of this process during one call, in milliseconds."""
    run()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return round(1000 * statistics.median(times), 2)


def thread_seconds(fill: Callable[[], object], count: int) -> tuple[float, float]:
    """Return the seconds that one thread needs for `count` pages, and the part in which it waited for a CPU (Linux)."""
    stat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    waited = [0.0, 0.0]
    start = time.perf_counter()
    for end in (0, 1):
        if end:
            for _ in range(count):
                fill()
        if stat.is_file():
            waited[end] = int(stat.read_text().split()[1]) / 1e9
    return time.perf_counter() - start, waited[1] - waited[0]


def threads_ratios(fill: Callable[[], object], count: int, threads: int, rounds: int) -> tuple[float, float]:
    """Return the speed of `threads` threads as a multiple of the speed of one thread, and the same without waiting.

    Each thread prepares `count` pages. Both figures are the medians of several rounds. The second figure leaves out the
    time in which a thread waited for a CPU that another program used, but not the time in which it waited for the
    interpreter's lock. The figure is therefore valid on a busy machine.
    """
    ratios, free_ratios = [], []
    for _ in range(rounds):
        with ThreadPoolExecutor(1) as executor:
            one, one_waited = executor.submit(thread_seconds, fill, count).result()
        with ThreadPoolExecutor(threads) as executor:
            futures = [executor.submit(thread_seconds, fill, count) for _ in range(threads)]
            several = [future.result() for future in futures]
        ratios.append(threads * one / max(seconds for seconds, _ in several))
        free_ratios.append(threads * (one - one_waited) / max(seconds - waited for seconds, waited in several))
    return round(statistics.median(ratios), 2), round(statistics.median(free_ratios), 2)


def measure(model: Any, source: Any, options: argparse.Namespace) -> dict[str, float]:
    """Return the figures of one image, which is a PIL image or the bytes of an image file."""
    from transformers import Qwen2VLImageProcessorPil

    patcher, image = model.patcher, open_image(source)
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": patcher.min_pixels, "longest_edge": MAX_PIXELS}, do_convert_rgb=False
    )
    rows, columns = patcher.tokens(image.size, MAX_PIXELS)
    size = columns * patcher.side, rows * patcher.side
    least = (2 * size[0], 2 * size[1])
    decoded = image.load(min_size=least)
    out = np.empty((rows * columns * patcher.merge**2, 3 * patcher.patch**2), np.uint8)
    exact = open_image(decoded.resize(size, Image.Resampling.BICUBIC))
    batch = model.prepare(model.prompts([model.image_segments(image)]))
    cpu = torch.device("cpu")

    def whole() -> None:
        model.prepare(model.prompts([model.image_segments(open_image(source))]))

    def published() -> None:
        processor.preprocess(images=[open_image(source).load()], return_tensors="np")

    ratio, free_ratio = threads_ratios(
        lambda: patcher.fill_patches(image, MAX_PIXELS, np.empty_like(out)),
        options.pages,
        options.threads,
        options.rounds,
    )
    return {
        "decode_ms": cpu_ms(lambda: open_image(source).load(min_size=least), options.rounds),
        "resize_ms": cpu_ms(lambda: decoded.resize(size, Image.Resampling.BICUBIC), options.rounds),
        "patches_ms": cpu_ms(lambda: patcher.fill_patches(exact, MAX_PIXELS, out), options.rounds),
        "total_ms": cpu_ms(whole, options.rounds),
        "transformers_ms": cpu_ms(published, options.rounds),
        "device_ms": cpu_ms(lambda: patcher.pixel_values(batch.patches, cpu, torch.float32), options.rounds),
        "threads_ratio": ratio,
        "threads_ratio_free": free_ratio,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=12, help="pages of each thread in threads_ratio")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="jina-rag-bench-") as scratch:
        folder = make_checkpoint("v4", path=Path(scratch) / "v4")
        model = load_embedder(str(folder), device="cpu", dtype="float32")._model  # type: ignore[attr-defined]
        for kind, source in kinds().items():
            print(json.dumps({"image": kind, **measure(model, source, options)}), flush=True)


if __name__ == "__main__":
    main()
