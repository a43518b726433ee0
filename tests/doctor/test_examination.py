"""What the doctor tells of a healthy installation, of a broken one, and of checkpoints."""

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


def run(*arguments, **environment):
    command = [sys.executable, "-m", "jina_rag", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_healthy_installation_computes_what_it_should():
    found = examine()
    assert found.worst == "ok"
    assert [finding.what for finding in found.findings] == [*(f"tiny {name}" for name in TINY_FAMILIES), "lite"]
    assert all(finding.status == "ok" for finding in found.findings), found.findings
    facts = dict(found.facts)
    assert {"jina-rag", "python", "system", "torch", "transformers", "cpu"} <= set(facts)
    assert json.loads(json.dumps(found.to_json()))["findings"][0]["status"] == "ok"
    # Fit for a bug report: no folder of this machine in it.
    assert str(Path.home()) not in json.dumps(found.to_json())


def test_the_tiny_checkpoints_are_small_and_complete(tmp_path):
    archives = [tiny_archive(family) for family in TINY_FAMILIES]
    assert sum(path.stat().st_size for path in archives) < 3_000_000
    for family, path in zip(TINY_FAMILIES, archives, strict=True):
        assert len(read_known_outputs(path).checks) >= 1
        folder = unpack_tiny(family, tmp_path / family)
        assert (folder / "model.safetensors").is_file()
        assert not list(folder.glob("expected*"))
    with pytest.raises(InvalidInputError, match="no family 'v5'"):
        tiny_archive("v5")


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_model_is_loaded_tried_and_compared(tiny, family):
    found = examine(tiny[family], device="cpu", dtype="float32", expected=tiny_archive(family))
    assert found.worst == "ok", found.findings
    assert [finding.what for finding in found.findings][:3] == [f"tiny {family}", "load", "a call"]
    assert len(found.findings) == 3 + len(read_known_outputs(tiny_archive(family)).checks)
    assert "fingerprint" in dict(found.facts)


def test_bfloat16_is_compared_by_direction(tiny):
    found = examine(tiny["v4"], device="cpu", dtype="bfloat16", expected=tiny_archive("v4"))
    assert found.worst == "ok", found.findings


def test_outputs_of_one_machine_can_be_compared_on_another(tiny, tmp_path):
    for family in TINY_FAMILIES:
        path = tmp_path / f"{family}.zip"
        written = examine(tiny[family], device="cpu", dtype="float32", write_expected=path)
        assert written.findings[-1].what == "written"
        found = examine(tiny[family], device="cpu", dtype="float32", expected=path)
        assert found.worst == "ok"
        assert sum(finding.what.startswith("known outputs") for finding in found.findings) >= 1


def test_a_model_that_computes_something_else_is_found_out(tiny, tmp_path):
    """Known outputs of one seed against the weights of another."""
    from jina_rag.testing import make_checkpoint

    folder = make_checkpoint("v4", path=tmp_path / "other", seed=5)
    found = examine(str(folder), device="cpu", dtype="float32", expected=tiny_archive("v4"))
    assert found.worst == "failed"
    known = read_known_outputs(tiny_archive("v1"))
    comparisons = compare(load_embedder(tiny["v4"], device="cpu", dtype="float32"), known, exact=True)
    assert not any(comparison.passed for comparison in comparisons)


def test_a_broken_installation_is_a_finding(monkeypatch):
    """Packages that do not go together raise anything; the page must still come out."""

    def broken(*_, **__):
        raise AttributeError("module 'transformers' has no attribute 'Qwen2VLModel'")

    monkeypatch.setattr(examination, "build", broken)
    finding = examine().findings[0]
    assert (finding.status, "Qwen2VLModel" in finding.detail) == ("failed", True)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    def missing(*_, **__):
        raise MissingDependencyError("This needs the package 'torch', which is not installed")

    monkeypatch.setattr(examination, "_load", missing)
    monkeypatch.setattr(examination, "build", missing)
    found = examine()
    assert {finding.status for finding in found.findings[:4]} == {"skipped"}
    assert found.worst == "ok"
    assert examine("lite").findings[-1].status == "skipped"


# -- the command ------------------------------------------------------------------------------------------------


def test_doctor_prints_one_page():
    done = run()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) < 60
    assert sum(line.startswith("ok ") for line in lines) == 5
    assert "Traceback" not in done.stdout + done.stderr


BREAKS = {
    "renamed key": lambda tensors: tensors.__setitem__("model.norm.weightx", tensors.pop("model.norm.weight")),
    "dropped key": lambda tensors: tensors.pop("model.norm.weight"),
    "wrong shape": lambda tensors: tensors.__setitem__("model.norm.weight", tensors["model.norm.weight"][:5].clone()),
}


@pytest.mark.parametrize("broken", [*BREAKS, "zeroed adapters", "cut off"])
def test_a_checkpoint_that_must_not_load_is_named_and_ends_with_status_2(tiny, tmp_path, broken):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny["v4"], tmp_path / "v4"))
    path = folder / "model.safetensors"
    named = "model.norm.weight"
    if broken in BREAKS:
        tensors = load_file(path)
        BREAKS[broken](tensors)
        save_file(tensors, path)
        named = "language_model.norm.weight" if broken != "wrong shape" else named
    elif broken == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
        named = "model.safetensors"
    else:
        path = folder / "adapters" / "adapter_model.safetensors"
        save_file({key: torch.zeros_like(value) for key, value in load_file(path).items()}, path)
        named = "retrieval"
    done = run(folder, "--device", "cpu", "--json")
    assert done.returncode == 2, done.stdout + done.stderr
    finding = json.loads(done.stdout)["findings"][-1]
    assert finding["status"] == "refused"
    assert named in finding["detail"]
    assert "Traceback" not in done.stderr


def test_doctor_says_what_is_wrong_with_its_arguments(tmp_path, tiny):
    nonsense = tmp_path / "x.zip"
    nonsense.write_bytes(b"no zip")
    for arguments, message in (
        (("--expected", nonsense), "go with a MODEL"),
        ((tiny["v1"], "--expected", nonsense), "not a file of known outputs"),
        ((tiny["v1"], "--write-expected", tmp_path / "no" / "x.zip"), "no folder"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert message in " ".join((done.stdout + done.stderr).split())
        assert "Traceback" not in done.stderr
    done = run("no-such-model", "--json")
    assert done.returncode == 2
    assert "There is no model" in json.loads(done.stdout)["findings"][-1]["detail"]
    done = run(tiny["v1"], "--device", "cuda:9", "--json")
    assert done.returncode == 2
    assert "does not exist here" in json.loads(done.stdout)["findings"][-1]["detail"]


@pytest.mark.parametrize(
    "content",
    [{"checks": []}, {"expected.json": "{}"}, {"expected.json": '{"checks": [{"call": "eval", "output": "single"}]}'}],
)
def test_files_that_hold_no_known_outputs_are_refused(tmp_path, content):
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
    with pytest.raises(InvalidInputError, match="not a file of known outputs"):
        read_known_outputs(path)
