"""Metadata of documents: sidecars in JSON, YAML and TOML, and keys that cannot be stored."""

from __future__ import annotations

import datetime as dt
import unicodedata

import pytest

from jina_rag import DocumentIndex, IngestSettings, InvalidInputError
from jina_rag.indexing.metadata import clean_metadata
from jina_rag.indexing.sidecar import read_sidecar
from jina_rag.testing import FakeEmbedder, sample_pdf
from jina_rag.types import Range

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=40)

SIDECARS = {
    ".json": '{"when": "2025-01-31T09:30:00+01:00", "day": "2025-01-31", "tags": ["a", 1], "by": {"name": "Ann"}}',
    ".yaml": "when: 2025-01-31T09:30:00+01:00\nday: 2025-01-31\ntags: [a, 1]\nby: {name: Ann}\n",
    ".yml": "when: 2025-01-31 09:30:00 +01:00\nday: 2025-01-31\ntags: [a, 1]\nby:\n  name: Ann\n",
    ".toml": 'when = 2025-01-31T09:30:00+01:00\nday = 2025-01-31\ntags = ["a", 1]\n[by]\nname = "Ann"\n',
}


@pytest.fixture
def document(tmp_path):
    (tmp_path / "docs").mkdir()
    return sample_pdf(tmp_path / "docs" / "report.pdf", ["whales"])


def read(document, suffix, text):
    (document.parent / f"report{suffix}").write_text(text, encoding="utf-8")
    warnings = []
    metadata = read_sidecar(document, warnings)
    assert all(warning.path.name == f"report{suffix}" for warning in warnings)
    return metadata, [warning.reason for warning in warnings]


@pytest.mark.parametrize(("name", "sidecar"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_sidecar_in_another_unicode_form(tmp_path, name, sidecar):
    document = tmp_path / unicodedata.normalize(name, "Übersicht.pdf")
    for suffix in (".pdf.json", ".json"):
        path = tmp_path / unicodedata.normalize(sidecar, f"Übersicht{suffix}")
        path.write_text('{"year": 2025}')
        assert read_sidecar(document, []) == {"year": 2025}
        path.unlink()


@pytest.mark.parametrize("suffix", SIDECARS)
def test_dates_in_sidecars_are_filtered_by_day_datetime_and_range(document, tmp_path, suffix):
    (document.parent / f"report.pdf{suffix}").write_text(SIDECARS[suffix])
    sample_pdf(document.with_name("other.pdf"), ["other whales"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        report = index.ingest(document.parent, settings=NO_OCR, metadata={"day": dt.date(1999, 1, 1)})
        assert (report.documents, report.warnings, report.skipped) == (2, (), ())
        [hit] = index.search("whales", filter={"when": Range(gte=dt.date(2025, 1, 31), lt="2025-02-01")})
        assert hit.metadata["when"].startswith("2025-01-31T0")
        assert {**hit.metadata, "when": 0} == {
            "day": "2025-01-31", "when": 0, "tags": ["a", 1], "by": {"name": "Ann"}
        }  # fmt: skip
        for where in ({"day": dt.date(2025, 1, 31)}, {"when": dt.datetime(2025, 1, 31, 8, 30)}, {"tags": 1}):
            assert [other.doc_id for other in index.search("whales", filter=where)] == ["report.pdf"]
        [hit] = index.search("whales", filter={"day": "1999-01-01"})
        assert hit.doc_id == "other.pdf"
        assert index.delete(filter={"when": Range(gte="2025-01-31T08:30:00Z", lte="2025-01-31T08:30:00Z")}) == 1
        assert index.delete(filter={"day": "1999-01-01"}) == 1


DEEP_JSON = "[" * 5000 + '"]", 1' + "]" * 5000
BAD_KEYS = [
    (".json", '{"good": 1, "bad": NaN}', "nan"),
    (".json", '{"good": 1, "bad": -Infinity}', "-inf"),
    (".json", '{"good": 1, "bad": 1e999}', "inf"),
    (".json", f'{{"good": 1, "bad": {"9" * 9000}}}', "more than 308 digits"),
    (".json", f'{{"bad": {{"a": {DEEP_JSON}}}, "good": 1}}', "deeper than 32 levels"),
    (".yaml", "good: 1\nbad: .nan\n", "nan"),
    (".yaml", "good: 1\nbad: !!binary aGVsbG8=\n", "base64"),
    (".yaml", "good: 1\nbad: !!set {a, b}\n", "Use a list"),
    (".yaml", "good: 1\nbad: 2025-13-45\n", "line 2"),
    (".yaml", "good: 1\nbad: !!python/name:os.system\n", "line 2"),
    (".yaml", "good: 1\nbad: !!int ''\n", "line 2"),
    (".yaml", "bad: " + "[" * 600 + "]" * 600 + "\ngood: 1\n", "deeper than 32 levels"),
    (".yaml", "good: 1\n2025: bad\n", "in quotes"),
    (".toml", "good = 1\nbad = inf\n", "inf"),
]


@pytest.mark.parametrize(("suffix", "text", "message"), BAD_KEYS)
def test_bad_key_of_a_sidecar_costs_only_the_key(document, suffix, text, message):
    metadata, reasons = read(document, suffix, text)
    assert metadata == {"good": 1}
    [reason] = reasons
    assert message in reason
    assert "was left out" in reason
    assert "bad" in reason or "2025" in reason
    assert len(reason) < 250


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".json", '{"a": 1', "line 1"),
        (".json", "[1]", "not a JSON object"),
        (".json", "[" * 9000, "Expecting"),
        (".yaml", "a: [1", "line 1"),
        (".yaml", "- 1", "not a YAML mapping"),
        (".yaml", "a: &x [1, 2]\nb: [*x, *x]\n", "line 2: aliases are not supported"),
        (".yaml", "a: \x01\n", "special characters"),
        (".yaml", "---\na: 1\n---\nb: 2\n", "a single document"),
        (".toml", "a = \n", "line 1"),
    ],
)
def test_invalid_sidecar_is_named_with_the_place(document, suffix, text, message):
    metadata, reasons = read(document, suffix, text)
    assert metadata == {}
    [reason] = reasons
    assert reason.startswith("Ignored as metadata of report.pdf: ")
    assert message in reason


def test_yaml_has_the_scalars_of_yaml_1_2(document):
    text = "at: 10:30\nzip: 01234\nland: NO\nn: -12\nhex: 0x1F\nx: 1.5e3\ndraft: true\nnone: ~\nbig: 1_000\nv: 1.\n"
    assert read(document, ".yaml", text) == (
        {"at": "10:30", "zip": "01234", "land": "NO", "n": -12, "hex": 31, "x": 1500.0, "draft": True, "none": None,
         "big": "1_000", "v": 1.0},
        [],
    )  # fmt: skip


def test_too_large_sidecar_of_the_full_name_is_a_warning(document):
    text = '{"a": "%s"}' % ("y" * 70_000)
    assert read(document, ".json", text) == ({}, []), "report.json may be any file"
    (document.parent / "report.json").unlink()
    _, [reason] = read(document, ".pdf.json", text)
    assert "64 KiB" in reason


def test_metadata_of_the_caller_loses_only_bad_keys_and_the_run_continues(document, tmp_path):
    sample_pdf(document.with_name("other.pdf"), ["other whales"])

    def metadata(path):
        if path == document:
            return {"year": 2025, "score": float("nan"), "by": {"raw": b"x", "name": path.stem}}
        return None

    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        plan = index.ingest(document.parent, settings=NO_OCR, metadata=metadata, dry_run=True)
        report = index.ingest(document.parent, settings=NO_OCR, metadata=metadata)
        assert set(plan.warnings) == set(report.warnings)
        assert (report.documents, report.failed) == (2, ())
        reasons = sorted((warning.path.name, warning.reason) for warning in report.warnings)
        assert [name for name, _ in reasons] == ["other.pdf", "report.pdf", "report.pdf"]
        assert "returned NoneType; expected a mapping" in reasons[0][1]
        assert reasons[1][1].startswith("The metadata key 'by.raw' was left out: the value contains b'x'")
        assert reasons[2][1] == (
            "The metadata key 'score' was left out: the value contains nan, which is not JSON. Use a finite number, a "
            "date or null."
        )
        [hit] = index.search("whales", filter={"year": 2025})
        assert hit.metadata == {"year": 2025, "by": {"name": "report"}}
        # A mapping for all documents gives one warning for each key.
        report = index.ingest(document.parent, settings=NO_OCR, metadata={"year": 2026, "bad": {1, 2}})
        assert [warning.reason for warning in report.warnings] == [
            "The metadata key 'bad' was left out: the value contains {1, 2}, which is not JSON. Use a list."
        ]
        assert len(index.search("whales", filter={"year": 2026})) == 2


@pytest.mark.parametrize("dry_run", [False, True])
def test_metadata_that_is_no_mapping_raises(document, tmp_path, dry_run):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        with pytest.raises(InvalidInputError, match="expected a mapping, or a function"):
            index.ingest(document, settings=NO_OCR, metadata=["year"], dry_run=dry_run)


def test_error_of_the_metadata_function_names_the_file(document, tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        with pytest.raises(KeyError) as error:
            index.ingest(document, settings=NO_OCR, metadata=lambda path: {}[path.name])
        assert str(document) in error.value.__notes__[0]


def test_add_stores_dates_and_names_entry_and_key_of_a_bad_value(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.add(["whales"], ids=["a"], metadata=[{"when": dt.datetime(2025, 1, 31, 9), "at": dt.time(9, 30)}])
        [hit] = index.search("whales", filter={"when": dt.date(2025, 1, 31), "at": Range(lt="10:00")})
        assert hit.metadata == {"when": "2025-01-31T09:00:00+00:00", "at": "09:30:00"}
        message = r"metadata key 'by.x' of 'b' cannot be stored: the value contains nan, which is not JSON\. Use a"
        with pytest.raises(InvalidInputError, match=message):
            index.add(["x"], ids=["b"], metadata=[{"by": {"x": float("nan")}}])


def test_clean_metadata_keeps_values_at_the_deepest_level():
    nested = value = {}
    for _ in range(30):
        value["a"] = value = {}
    value["a"], value["bad"] = 1, float("nan")
    problems = []
    cleaned = clean_metadata({"x": nested}, problems.append)
    assert len(problems) == 1
    for _ in range(30):
        cleaned = cleaned["x" if "x" in cleaned else "a"]
    assert cleaned["a"] == {"a": 1}
