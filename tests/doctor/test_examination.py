"""Doctor: reports of working and broken installations, checks of checkpoints, and the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jina_rag.doctor import examination
from jina_rag.doctor.examination import examine
from jina_rag.doctor.expected_outputs import compare, read_known_outputs
from jina_rag.errors import InvalidInputError, MissingDependencyError
from jina_rag.models.registry import load_embedder
from jina_rag.models.tiny_checkpoints import TINY_FAMILIES, tiny_archive, unpack_tiny

torch = pytest.importorskip("torch")


def run_doctor(*arguments, **environment):
    command = [sys.executable, "-m", "jina_rag", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_working_installation_passes_all_checks():
    report = examine()
    assert report.worst == "ok"
    assert [finding.what for finding in report.findings] == [*(f"tiny {name}" for name in TINY_FAMILIES), "lite"]
    assert all(finding.status == "ok" for finding in report.findings), report.findings
    facts = dict(report.facts)
    assert {"jina-rag", "python", "system", "torch", "transformers", "cpu"} <= set(facts)
    assert json.loads(json.dumps(report.to_json()))["findings"][0]["status"] == "ok"
    # The report is attached to bug reports, so it must not contain paths of this machine.
    assert str(Path.home()) not in json.dumps(report.to_json())


def test_tiny_checkpoints_are_small_and_complete(tmp_path):
    archives = [tiny_archive(family) for family in TINY_FAMILIES]
    assert sum(path.stat().st_size for path in archives) < 3_000_000
    for family, path in zip(TINY_FAMILIES, archives, strict=True):
        assert len(read_known_outputs(path).checks) >= 1
        folder = unpack_tiny(family, tmp_path / family)
        assert (folder / "model.safetensors").is_file()
        assert not list(folder.glob("expected*"))
    with pytest.raises(InvalidInputError, match="family is 'v5'"):
        tiny_archive("v5")


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_model_is_loaded_run_and_compared(tiny, family):
    report = examine(tiny[family], device="cpu", dtype="float32", expected=tiny_archive(family))
    assert report.worst == "ok", report.findings
    assert [finding.what for finding in report.findings][:3] == [f"tiny {family}", "load", "test call"]
    assert len(report.findings) == 3 + len(read_known_outputs(tiny_archive(family)).checks)
    assert "fingerprint" in dict(report.facts)


def test_bfloat16_outputs_are_compared_by_cosine(tiny):
    report = examine(tiny["v4"], device="cpu", dtype="bfloat16", expected=tiny_archive("v4"))
    assert report.worst == "ok", report.findings


def test_written_outputs_are_valid_known_outputs(tiny, tmp_path):
    for family in TINY_FAMILIES:
        path = tmp_path / f"{family}.zip"
        write_report = examine(tiny[family], device="cpu", dtype="float32", write_expected=path)
        assert write_report.findings[-1].what == "write outputs"
        report = examine(tiny[family], device="cpu", dtype="float32", expected=path)
        assert report.worst == "ok"
        assert sum(finding.what.startswith("known outputs") for finding in report.findings) >= 1


def test_wrong_outputs_fail_the_comparison(tiny, tmp_path):
    """Compare the expected outputs of one seed with the weights of another seed."""
    from jina_rag.testing import make_checkpoint

    folder = make_checkpoint("v4", path=tmp_path / "other", seed=5)
    report = examine(str(folder), device="cpu", dtype="float32", expected=tiny_archive("v4"))
    assert report.worst == "failed"
    known_outputs = read_known_outputs(tiny_archive("v1"))
    comparisons = compare(load_embedder(tiny["v4"], device="cpu", dtype="float32"), known_outputs, exact=True)
    assert not any(comparison.passed for comparison in comparisons)


def test_incompatible_packages_give_failed_finding(monkeypatch):
    """Incompatible package versions raise any error; the report must still be complete."""

    def raise_attribute_error(*_, **__):
        raise AttributeError("module 'transformers' has no attribute 'Qwen2VLModel'")

    monkeypatch.setattr(examination, "build", raise_attribute_error)
    finding = examine().findings[0]
    assert (finding.status, "Qwen2VLModel" in finding.detail) == ("failed", True)


def test_missing_extra_gives_skipped_findings(monkeypatch):
    def raise_missing_dependency(*_, **__):
        raise MissingDependencyError("This needs the package 'torch', which is not installed")

    monkeypatch.setattr(examination, "_load", raise_missing_dependency)
    monkeypatch.setattr(examination, "build", raise_missing_dependency)
    report = examine()
    assert {finding.status for finding in report.findings[:4]} == {"skipped"}
    assert report.worst == "ok"
    assert examine("lite").findings[-1].status == "skipped"


def test_doctor_command_prints_one_page():
    process = run_doctor()
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert len(lines) < 60
    assert sum(line.startswith("ok ") for line in lines) == 5
    assert "Traceback" not in process.stdout + process.stderr


TENSOR_DAMAGE = {
    "renamed key": lambda tensors: tensors.__setitem__("model.norm.weightx", tensors.pop("model.norm.weight")),
    "dropped key": lambda tensors: tensors.pop("model.norm.weight"),
    "wrong shape": lambda tensors: tensors.__setitem__("model.norm.weight", tensors["model.norm.weight"][:5].clone()),
}


@pytest.mark.parametrize("damage", [*TENSOR_DAMAGE, "zeroed adapters", "truncated"])
def test_damaged_checkpoint_is_refused_with_exit_status_2(tiny, tmp_path, damage):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny["v4"], tmp_path / "v4"))
    path = folder / "model.safetensors"
    expected = "model.norm.weight"
    if damage in TENSOR_DAMAGE:
        tensors = load_file(path)
        TENSOR_DAMAGE[damage](tensors)
        save_file(tensors, path)
        expected = "language_model.norm.weight" if damage != "wrong shape" else expected
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
        expected = "model.safetensors"
    else:
        path = folder / "adapters" / "adapter_model.safetensors"
        save_file({key: torch.zeros_like(value) for key, value in load_file(path).items()}, path)
        expected = "retrieval"
    process = run_doctor(folder, "--device", "cpu", "--json")
    assert process.returncode == 2, process.stdout + process.stderr
    finding = json.loads(process.stdout)["findings"][-1]
    assert finding["status"] == "refused"
    assert expected in finding["detail"]
    assert "Traceback" not in process.stderr


def test_doctor_command_reports_invalid_arguments(tmp_path, tiny):
    invalid_file = tmp_path / "x.zip"
    invalid_file.write_bytes(b"no zip")
    for arguments, message in (
        (("--expected", invalid_file), "require a MODEL"),
        ((tiny["v1"], "--expected", invalid_file), "not a file of expected outputs"),
        ((tiny["v1"], "--write-expected", tmp_path / "no" / "x.zip"), "does not exist. Create the folder"),
    ):
        process = run_doctor(*arguments)
        assert process.returncode == 2
        assert message in " ".join((process.stdout + process.stderr).split())
        assert "Traceback" not in process.stderr
    process = run_doctor("no-such-model", "--json")
    assert process.returncode == 2
    assert "No model" in json.loads(process.stdout)["findings"][-1]["detail"]
    process = run_doctor(tiny["v1"], "--device", "cuda:9", "--json")
    assert process.returncode == 2
    assert "does not exist here" in json.loads(process.stdout)["findings"][-1]["detail"]


@pytest.mark.parametrize(
    "content",
    [{"checks": []}, {"expected.json": "{}"}, {"expected.json": '{"checks": [{"call": "eval", "output": "single"}]}'}],
)
def test_invalid_known_outputs_file_raises_invalid_input_error(tmp_path, content):
    import zipfile
    from io import BytesIO

    import numpy as np

    arrays = BytesIO()
    np.savez(arrays, a=np.zeros(1))
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, str(text))
        archive.writestr("expected.npz", arrays.getvalue())
    with pytest.raises(InvalidInputError, match="not a file of expected outputs"):
        read_known_outputs(path)
