"""Ingestion of bad and unusual files: the run does not crash, and every file yields a page, a failure or a warning.

`data/bad/manifest.json` describes each file and the expected result.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections import defaultdict

import numpy as np
import pytest
from helpers.paths import DATA
from PIL import Image

from jina_rag.config import IngestSettings
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, read_pages
from jina_rag.parsing.sources import Skipped, SourceFile, find_sources
from jina_rag.types import Failure, Page

BAD = DATA / "bad"
FILES = json.loads((BAD / "manifest.json").read_text("utf-8"))["files"]
# A low resolution is fast and sufficient for the few words on these pages.
LOW_DPI = IngestSettings(dpi=100)
PASSWORD = IngestSettings(dpi=100, passwords=("wrong", "secret123"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with copies of the files, including unusual file names that the file system allows."""
    target = tmp_path_factory.mktemp("bad")
    for path in BAD.iterdir():
        if path.name not in ("manifest.json", "odd_names.zip"):
            shutil.copy(path, target)
    with zipfile.ZipFile(BAD / "odd_names.zip") as archive:
        for name in archive.namelist():
            try:
                (target / name).write_bytes(archive.read(name))
            except OSError:  # Windows forbids < > " | in names
                continue
    return target


class Outcome:
    """Pages, failures, skipped files and warnings of a folder, by file name."""

    def __init__(self, paths, settings=LOW_DPI):
        self.pages = defaultdict(list)
        self.failures = defaultdict(list)
        self.skipped = {}
        self.warnings = defaultdict(list)
        self.ids = []
        sources = []
        for entry in find_sources(paths):
            if isinstance(entry, SourceFile):
                sources.append(entry)
                self.ids.append(entry.doc_id)
            elif isinstance(entry, Skipped):
                self.skipped[entry.path.name] = entry.reason
            else:
                self.failures[entry.path.name].append(entry)
        for event in read_pages(sources, settings):
            if isinstance(event, Page):
                self.pages[event.path.name].append(event)
                self.warnings[event.path.name] += event.warnings
            elif isinstance(event, Failure):
                self.failures[event.path.name].append(event)
            elif isinstance(event, DocumentStart):
                self.warnings[event.source.path.name] += event.warnings
            else:
                assert isinstance(event, DocumentEnd)
                assert event.pages == len(self.pages[event.source.path.name])


@pytest.fixture(scope="module")
def outcome(folder):
    return Outcome([folder])


@pytest.mark.parametrize("entry", FILES, ids=lambda entry: entry["file"].encode("ascii", "replace").decode())
def test_each_file_matches_the_expectation_of_the_manifest(entry, folder, outcome):
    name = entry["file"]
    if not (folder / name).exists():
        pytest.skip("this system does not allow the name")
    pages, failures = outcome.pages[name], outcome.failures[name]
    assert pages or failures, "no page and no failure"
    assert [page.number for page in pages] == sorted({page.number for page in pages})
    if entry["should_index"] is True:
        assert len(pages) == {"1 or 4": 1, "1 or 2": 2}.get(entry["indexable_pages"], entry["indexable_pages"])
        assert not failures
    if entry["should_index"] is False or entry["should_index"] == "only with password":
        assert not pages
    for failure in failures:
        assert failure.reason.endswith(".")
        assert str(folder) not in failure.reason
        assert "\n" not in failure.reason
    for page in pages:
        image = page.screenshot.image
        assert image.mode == "RGB"
        assert min(image.size) >= 1
        assert image.width * image.height <= LOW_DPI.limits.max_render_pixels * 1.01


@pytest.mark.parametrize(
    "entry", [entry for entry in FILES if "packed_in" not in entry], ids=lambda entry: entry["file"]
)
def test_each_file_yields_pages_or_failures_on_its_own(entry, folder):
    """The path of the file is passed to `ingest`. OCR is off to save time."""
    path = folder / entry["file"]
    outcome = Outcome([path], IngestSettings(dpi=50, ocr="never"))
    assert outcome.pages[path.name] or outcome.failures[path.name]
    assert not outcome.skipped


def text(outcome, name):
    return " ".join(page.text for page in outcome.pages[name])


@pytest.mark.parametrize(
    "name",
    [
        "UPPER.PDF", "animated.gif", "blank_pages.pdf", "broken_font.pdf", "corrupt_xref.pdf",
        "duplicate_a.pdf", "duplicate_b.pdf", "encrypted_owner_only.pdf", "huge_page_box.pdf",
        "multipage.tiff",
        "one_bad_page.pdf", "palette_transparency.png", "rgba_transparent.png", "rotated_90.pdf",
        "very_long_page.pdf",
    ],
)  # fmt: skip
def test_marker_word_is_in_the_text_layer_or_ocr(name, outcome):
    assert "juniper" in text(outcome, name)


def test_rejected_files_yield_no_pages(outcome):
    rejected_names = [entry["file"] for entry in FILES if entry["should_index"] is False]
    assert rejected_names
    assert all(not outcome.pages[name] for name in rejected_names)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bomb_30000x30000.png", "pixels"),
        ("encrypted_known_password.pdf", "encrypted"),
        ("encrypted_unknown_password.pdf", "encrypted"),
        ("html_named.png", "not an image"),
        ("text_named.pdf", "not a PDF"),
        ("truncated.pdf", "damaged"),
        ("zero_bytes.pdf", "empty"),
        ("zero_pages.pdf", "no pages"),
    ],
)
def test_failure_reason_names_the_cause(name, reason, outcome):
    (failure,) = outcome.failures[name]
    assert reason in failure.reason


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("animated.gif", "first"),
        ("broken_font.pdf", "repaired"),
        ("corrupt_xref.pdf", "repaired"),
        ("huge_page_box.pdf", "dpi"),
        ("one_bad_page.pdf", "blank"),
        ("truncated.jpg", "truncated"),
    ],
)
def test_repaired_files_have_a_warning(name, warning, outcome):
    assert any(warning in message for message in outcome.warnings[name])


def test_valid_files_have_no_warnings(outcome):
    for name in (
        "blank_pages.pdf",
        "cmyk.jpg",
        "exif_rotated.jpg",
        "rotated_90.pdf",
        "UPPER.PDF",
        "gray16.png",
    ):
        assert outcome.warnings[name] == []


def test_bad_or_blank_pages_keep_page_numbers(outcome):
    assert outcome.pages["one_bad_page.pdf"][1].number == 2
    assert "Second page is fine" in outcome.pages["one_bad_page.pdf"][1].text
    assert [bool(page.words) for page in outcome.pages["blank_pages.pdf"]] == [False, True, False]
    assert [page.number for page in outcome.pages["multipage.tiff"]] == [1, 2, 3, 4]


def test_password_opens_only_the_matching_file(folder):
    with_password = Outcome(
        [folder / "encrypted_known_password.pdf", folder / "encrypted_unknown_password.pdf"], PASSWORD
    )
    assert len(with_password.pages["encrypted_known_password.pdf"]) == 2
    assert "none of the configured passwords" in with_password.failures["encrypted_unknown_password.pdf"][0].reason


def test_screenshots_are_upright_with_correct_colors(outcome):
    assert outcome.pages["rotated_90.pdf"][0].screenshot.image.width > 900
    (upright,) = outcome.pages["exif_rotated.jpg"]
    assert upright.screenshot.image.height > upright.screenshot.image.width
    for name in (
        "cmyk.jpg",
        "gray16.png",
        "rgba_transparent.png",
        "palette_transparency.png",
        "exif_rotated.jpg",
    ):
        pixels = np.asarray(outcome.pages[name][0].screenshot.image)
        assert np.median(pixels) > 240, f"{name}: the background is not white"
        assert pixels.min() < 100, f"{name}: the text is missing"
    assert np.asarray(outcome.pages["brotli_streams.pdf"][0].screenshot.image).min() < 100


def test_unusual_file_names_are_document_ids(folder, outcome):
    for entry in FILES:
        if "packed_in" in entry and (folder / entry["file"]).exists():
            assert entry["file"] in outcome.ids
            assert "juniper" in text(outcome, entry["file"])


@pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")
def test_posix_links_and_pipes_are_reported_and_unusual_names_indexed(folder, tmp_path):
    shutil.copy(folder / "duplicate_a.pdf", tmp_path / "a.pdf")
    shutil.copy(folder / "duplicate_a.pdf", tmp_path / "line\nbreak.pdf")
    shutil.copy(folder / "duplicate_a.pdf", tmp_path / ("n" * 240 + ".pdf"))
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "up").symlink_to("..")
    (tmp_path / "dangling.pdf").symlink_to("/nonexistent/file.pdf")
    os.mkfifo(tmp_path / "pipe.pdf")
    expected_ids = ["a.pdf", "line\nbreak.pdf", "n" * 240 + ".pdf"]
    if sys.platform == "linux":
        shutil.copy(folder / "duplicate_a.pdf", os.fsencode(tmp_path) + b"/bad\xff.pdf")
        expected_ids.append("bad\ufffdFF.pdf")
    has_unreadable_file = os.geteuid() != 0
    if has_unreadable_file:
        shutil.copy(folder / "duplicate_a.pdf", tmp_path / "noperm.pdf")
        (tmp_path / "noperm.pdf").chmod(0)
    outcome = Outcome([tmp_path], IngestSettings(dpi=50, ocr="never"))
    assert sorted(outcome.ids) == sorted(expected_ids)
    assert all(
        text(outcome, path.name).startswith("Twin juniper") for path in tmp_path.iterdir() if path.name in outcome.pages
    )
    assert sum(map(len, outcome.pages.values())) == len(expected_ids)
    assert set(outcome.failures) - {"dangling.pdf"} == ({"noperm.pdf"} if has_unreadable_file else set())
    assert "target of the link" in outcome.failures["dangling.pdf"][0].reason
    assert "named pipe" in outcome.skipped["pipe.pdf"]


def test_file_deleted_after_listing_fails_alone(folder, tmp_path):
    for name in ("a.pdf", "b.pdf"):
        shutil.copy(folder / "duplicate_a.pdf", tmp_path / name)
    shutil.copy(folder / "image.webp", tmp_path / "c.webp")
    sources = list(find_sources([tmp_path]))
    (tmp_path / "a.pdf").unlink()
    (tmp_path / "c.webp").unlink()
    events = list(read_pages(sources, IngestSettings(dpi=50, ocr="never")))
    assert [event.path.name for event in events if isinstance(event, Failure)] == ["a.pdf", "c.webp"]
    assert all("cannot be read" in event.reason for event in events if isinstance(event, Failure))
    assert [event.path.name for event in events if isinstance(event, Page)] == ["b.pdf"]


def test_jpeg_of_200_megapixels_exceeds_the_limit(tmp_path):
    # Only the header claims the size, because writing a real file of this size takes seconds.
    Image.new("L", (16, 16), 200).save(tmp_path / "big.jpg")
    data = bytearray((tmp_path / "big.jpg").read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (10000).to_bytes(2, "big") + (20000).to_bytes(2, "big")
    (tmp_path / "big.jpg").write_bytes(bytes(data))
    outcome = Outcome([tmp_path])
    assert "more than the limit" in outcome.failures["big.jpg"][0].reason
