"""Measure jina-embeddings-v4 and jina-reranker-m0 on a GPU, beside the published way, in one run of at most 4 minutes.

    python benchmarks/gpu.py                                      # all parts, on the first CUDA device
    python benchmarks/gpu.py --only pages --only goldens          # some parts
    python benchmarks/gpu.py --device cpu --size tiny             # a trial of the benchmark itself
    python benchmarks/gpu.py --show benchmarks/results/FILE.json  # print the table of an earlier run again

In a checkout where jina_rag is not installed, set PYTHONPATH=. first. The benchmark needs torch, transformers, peft,
safetensors, Pillow, NumPy and tokenizers (peft installs accelerate), the files of the checkout, and no network. The
random checkpoints have the shapes of the published models (--size full), and the tensors are drawn on the device, so
neither disk space nor host memory is needed for weights. The published way (`benchmarks/published.py`) has the same
weights.

Parts:

PARTS

The default file is benchmarks/results/gpu-CARD-DATE.json for a run of all parts at --size full. The names of other runs
have the size and the parts after the date, for example gpu-CARD-DATE-tiny-pages-goldens.json. If the file exists, a
number follows (gpu-CARD-DATE-2.json), so that a run never replaces the results of an earlier run. A file that is named
with --out is replaced, and so is gpu-cpu.json in the temporary folder, the file of trials with --device cpu.

Figures are written to the JSON file as each part ends, so a run that is cut off keeps the figures of all parts
that ended. A part that fails is reported with the reason, the other parts run, and the exit status is 1. After
--seconds, the remaining parts are not run. In the columns, "matrix rate" is the rate of matrix products that the same
run measured, and "peak" the memory above the memory in use before the call.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# The hub is never asked: all files come from the checkout.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))

from gpu_measure import Device, TimeLimitExceeded, time_limit
from gpu_parts import PARTS, WORKLOADS, Bench, NotApplicable, as_json, describe

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "pillow", "triton")
CODE = ("jina_rag", "benchmarks", ":(exclude)benchmarks/results")
"""Paths for git of the code that is measured; results of earlier runs are no code."""
FORMAT = 1
"""Version of the JSON file."""


def facts(device: Device) -> dict[str, Any]:
    """Return the device, the driver and the versions."""
    result: dict[str, Any] = {
        "device": str(device.device),
        "card": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor_cores": os.cpu_count(),
    }
    if device.is_cuda:
        properties = torch.cuda.get_device_properties(device.device)
        result |= {
            "card": properties.name,
            "card_memory_bytes": properties.total_memory,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    for package in PACKAGES:
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    result["torch"] = torch.__version__  # with the build, for example +cu130
    try:
        metadata.version("flash-attn")
        result["flash_attn"] = True
    except metadata.PackageNotFoundError:
        result["flash_attn"] = False
    return result


def _driver() -> str:
    if (program := shutil.which("nvidia-smi")) is None:
        return "unknown"
    output = _output([program, "--query-gpu=driver_version", "--format=csv,noheader"])
    return output.splitlines()[0].strip() if output else "unknown"


def commit() -> dict[str, Any]:
    """Return the commit of the checkout, and whether the code differs from it; empty without git."""
    if (git := shutil.which("git")) is None:
        return {}
    revision = _output([git, "-C", str(ROOT), "rev-parse", "HEAD"]).strip()
    if not revision:
        return {}
    changes = _output([git, "-C", str(ROOT), "status", "--porcelain", "--", *CODE]).strip()
    return {"commit": revision, "changed_since_commit": bool(changes)}


def _output(command: Sequence[str]) -> str:
    """Return the output of a command; empty if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Replace the JSON file in one step, so that an interrupted run leaves a complete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def run_part(name: str, bench: Bench, seconds: float) -> dict[str, Any]:
    """Run one part and return status, reason, time and figures."""
    bench.figures, bench.failures = [], []
    start = time.perf_counter()
    status, reason = "ok", ""
    try:
        with time_limit(min(PARTS[name].seconds, seconds) if bench.device.is_cuda else seconds):
            PARTS[name].run(bench)
    except NotApplicable as exc:
        status, reason = "not applicable", str(exc)
    except TimeLimitExceeded as exc:
        status, reason = "failed", str(exc)
    except Exception as exc:
        status, reason = "failed", describe(exc)
        traceback.print_exc()
    if bench.failures:
        status, reason = "failed", "; ".join([*bench.failures, *([reason] if reason else [])])
    gc.collect()
    bench.device.release()
    report: dict[str, Any] = {"status": status, "seconds": round(time.perf_counter() - start, 1)}
    if reason:
        report["reason"] = reason
    return report | {"figures": as_json(bench.figures)}


def part_lines(name: str, part: Mapping[str, Any]) -> list[str]:
    """Return the lines of the table for one part."""
    head = f"{name} ({part['status']}"
    head += f", {part['seconds']} s)" if "seconds" in part else ")"
    figures = part.get("figures", ())
    labels, settings, units = ([figure.get(key, "") for figure in figures] for key in ("name", "setting", "unit"))
    widths = [max(map(len, column), default=0) for column in (labels, settings, units)]
    lines, previous = [head + (f": {part['reason']}" if "reason" in part else "")], ""
    for label, setting, unit, figure in zip(labels, settings, units, figures, strict=True):
        value = "-" if figure["value"] is None else f"{figure['value']:,.4g}"
        cells = ("" if label == previous else label).ljust(widths[0]), setting.ljust(widths[1]), value.rjust(9)
        lines.append("  ".join(["", *cells, unit.ljust(widths[2]), _details(figure)]).rstrip())
        previous = label
    return lines


def _details(figure: Mapping[str, Any]) -> str:
    details = [f"{figure['inputs']} inputs"] if "inputs" in figure else []
    if "matrix_share" in figure:
        details.append(f"{figure['matrix_share']:.0%} of the matrix rate")
    if "peak_gb" in figure:
        details.append(f"peak {figure['peak_gb']:.2f} GB")
    return ", ".join([*details, *([figure["note"]] if "note" in figure else [])])


def head_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the lines above the table: card, versions, date and command."""
    machine = report["machine"]
    keys = ("driver", "cuda", "python", "torch", "transformers", "peft")
    versions = ", ".join(f"{key} {machine[key]}" for key in keys if key in machine)
    revision = f", commit {report['commit'][:12]}" if "commit" in report else ""
    changed = " (changed)" if report.get("changed_since_commit") else ""
    return [
        f"{machine['card']} ({machine['device']}), size {report['size']}, {report['dtype']}, {report['date']}{revision}"
        + changed,
        versions,
        report["command"],
    ]


def show(report: Mapping[str, Any]) -> None:
    """Print the table of a report."""
    print("\n".join(head_lines(report)))
    for name, part in report["parts"].items():
        print("\n".join(["", *part_lines(name, part)]))


def default_output(
    machine: Mapping[str, Any], date: str, *, is_cuda: bool, size: str = "full", only: Sequence[str] = ()
) -> Path:
    """Return the file of the results: in the checkout for a card, in the temporary folder for a trial on the CPU.

    Args:
        machine: Facts of the machine; see `facts`.
        date: Day in ISO format.
        is_cuda: Whether a card is measured. If so, the returned file does not exist.
        size: Size of the random checkpoints; part of the name if not ``"full"``.
        only: Selected parts; part of the name unless empty.
    """
    if not is_cuda:
        return Path(tempfile.gettempdir()) / "gpu-cpu.json"
    card = re.sub(r"[^a-z0-9]+", "-", machine["card"].lower()).strip("-").removeprefix("nvidia-")
    stem = "-".join(["gpu", card, date, *([] if size == "full" else [size]), *only])
    folder = ROOT / "benchmarks" / "results"
    names = (f"{stem}.json" if number == 1 else f"{stem}-{number}.json" for number in itertools.count(1))
    return next(folder / name for name in names if not (folder / name).exists())


def run(options: argparse.Namespace) -> int:
    """Run the selected parts and return the exit status."""
    started = time.perf_counter()
    device = Device(options.device)
    dtype = options.dtype or ("bfloat16" if device.is_cuda else "float32")
    machine = facts(device)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    names = [name for name in PARTS if not options.only or name in options.only]
    only = () if len(names) == len(PARTS) else names
    out = options.out or default_output(machine, date, is_cuda=device.is_cuda, size=options.size, only=only)
    report: dict[str, Any] = {
        "benchmark": "gpu", "format": FORMAT, "date": date, "command": shlex.join(["python", *sys.argv]),
        "machine": machine, **commit(), "size": options.size, "dtype": dtype,
        "parts": {name: {"status": "not run"} for name in names},
    }  # fmt: skip
    print("\n".join(head_lines(report)), flush=True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    write(out, report)
    with Bench(device, options.size, dtype, is_selected=bool(options.only)) as bench:
        for name in names:
            remaining = options.seconds - (time.perf_counter() - started)
            is_interrupted = _add_part(report, name, bench, remaining, options.seconds)
            report["seconds"] = round(time.perf_counter() - started, 1)
            write(out, report)
            print("\n".join(["", *part_lines(name, report["parts"][name])]), flush=True)
            if is_interrupted:
                return 130
    incomplete = [name for name, part in report["parts"].items() if part["status"] in ("failed", "not run")]
    print(f"\n{time.perf_counter() - started:.0f} s, written to {out}")
    if incomplete:
        print(f"Not complete: {', '.join(incomplete)}.")
    return 1 if incomplete else 0


def _add_part(report: dict[str, Any], name: str, bench: Bench, remaining: float, seconds: float) -> bool:
    """Run a part, unless the time of the run is over, and return whether the user interrupted the part."""
    if remaining < 1:
        reason = f"the time of the run, {seconds:.0f} s (--seconds), is over"
        report["parts"][name] = {"status": "not run", "reason": reason}
        return False
    try:
        report["parts"][name] = run_part(name, bench, remaining)
    except KeyboardInterrupt:
        report["parts"][name] = {"status": "failed", "reason": "interrupted", "figures": as_json(bench.figures)}
        return True
    return False


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    width = max(map(len, PARTS))
    parts = "\n".join(f"    {name:<{width}}  {part.title}" for name, part in PARTS.items())
    result = argparse.ArgumentParser(
        description=str(__doc__).replace("PARTS", parts), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--device", default="cuda", help="cuda (default), cuda:1, cpu")
    result.add_argument("--size", choices=sorted(WORKLOADS), default="full", help="size of the random checkpoints")
    result.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], help="default: bfloat16 (CPU: float32)")
    result.add_argument(
        "--only", choices=list(PARTS), action="append", metavar="PART", help="run this part; repeatable"
    )
    result.add_argument("--out", type=Path, help="JSON file to write, replaced if it exists (default: see above)")
    result.add_argument("--seconds", type=float, default=235, help="time of the whole run (default: 235)")
    result.add_argument("--show", type=Path, metavar="FILE", help="print the table of a JSON file and exit")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    options = parser().parse_args(arguments)
    if options.show:
        show(json.loads(options.show.read_text(encoding="utf-8")))
        return 0
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
