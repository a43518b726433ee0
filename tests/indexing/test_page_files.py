"""Pages outside an index: `load_pages`, `save_page` and `open_page`."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.text_files import red_png
from PIL import Image

from jina_rag import InvalidInputError, Region, load_pages, open_page, save_page
from jina_rag.errors import IndexStateError
from jina_rag.indexing.page_files import sidecar_of
from jina_rag.testing import make_page, sample_pdf


def test_load_pages_yields_pages_and_reports_failures(tmp_path, caplog):
    sample_pdf(tmp_path / "a.pdf", ["Growth by region", "Costs"])
    (tmp_path / "b.pdf").write_bytes(b"not a pdf")
    failures = []
    pages = list(load_pages([tmp_path], on_failure=failures.append))
    assert [(page.doc_id, page.number, page.count, page.text) for page in pages] == [
        ("a.pdf", 1, 2, "Growth by region"),
        ("a.pdf", 2, 2, "Costs"),
    ]
    assert [failure.path.name for failure in failures] == ["b.pdf"]
    assert len(list(load_pages(tmp_path))) == 2
    assert "b.pdf" in caplog.text


def test_load_pages_reports_skipped_files_but_no_sidecars(tmp_path, caplog):
    sample_pdf(tmp_path / "a.pdf", ["Growth by region"])
    for name in ("a.json", "a.pdf.yaml", "settings.toml", "b.xyz", "c.xyz", "d.xyz", "e.xyz", ".hidden"):
        (tmp_path / name).write_text("text")
    skipped = []
    assert len(list(load_pages([tmp_path], on_skipped=skipped.append))) == 1
    assert [file.path.name for file in skipped] == [".hidden", "b.xyz", "c.xyz", "d.xyz", "e.xyz", "settings.toml"]
    assert caplog.records == []
    with caplog.at_level("INFO", logger="jina_rag"):
        list(load_pages(tmp_path))
    hidden, other = sorted(caplog.records, key=lambda record: record.levelno)
    assert (hidden.levelname, other.levelname) == ("INFO", "WARNING")
    names = ", ".join(str(tmp_path / name) for name in ("b.xyz", "c.xyz", "d.xyz"))
    assert other.message.startswith(f"5 files or folders were skipped ({names}, …): {skipped[1].reason}")


def test_load_pages_raises_immediately_for_a_missing_path(tmp_path):
    with pytest.raises(InvalidInputError, match="nowhere"):
        load_pages(tmp_path / "nowhere")


def test_save_page_and_open_page_round_trip(tmp_path):
    page = next(load_pages(sample_pdf(tmp_path / "a.pdf", ["Growth by region"])))
    page = replace(page, regions=(Region("chart", (0.1, 0.2, 0.5, 0.6), "Fig. 1"),), warnings=("odd",))
    restored_page = open_page(save_page(page, tmp_path / "pages"))
    assert [word.text for word in restored_page.words] == ["Growth", "by", "region"]
    np.testing.assert_allclose([w.box for w in restored_page.words], [w.box for w in page.words], atol=1e-5)
    assert (restored_page.doc_id, restored_page.path, restored_page.number, restored_page.count) == (
        page.doc_id,
        page.path,
        1,
        1,
    )
    assert (restored_page.regions, restored_page.warnings, restored_page.screenshot.dpi) == (
        page.regions,
        ("odd",),
        page.screenshot.dpi,
    )
    assert restored_page.screenshot.image.size == page.screenshot.image.size


@pytest.mark.parametrize("name", ["", "  "])
def test_empty_paths_raise(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="empty"):
        save_page(make_page("some words"), name)
    with pytest.raises(InvalidInputError, match="empty"):
        open_page(name)
    with pytest.raises(InvalidInputError, match="folder"):
        open_page(".")
    assert list(tmp_path.iterdir()) == []


def test_file_name_depends_on_the_image_content(tmp_path):
    page = make_page("some words")
    first = save_page(page, tmp_path)
    assert save_page(page, tmp_path) == first
    screenshot = replace(page.screenshot, image=Image.new("RGB", page.screenshot.image.size, "red"))
    assert save_page(replace(page, screenshot=screenshot), tmp_path) != first


def test_words_without_boxes_round_trip(tmp_path):
    page = make_page("some words")
    words_without_boxes = tuple(replace(word, box=(float("nan"),) * 4) for word in page.words)
    restored_page = open_page(save_page(replace(page, words=words_without_boxes), tmp_path))
    assert np.isnan([word.box for word in restored_page.words]).all()


def test_open_page_rejects_other_and_damaged_files(tmp_path):
    plain_image = tmp_path / "plain.jpg"
    Image.new("RGB", (20, 20)).save(plain_image)
    with pytest.raises(InvalidInputError, match="save_page"):
        open_page(plain_image)
    saved_path = save_page(make_page("words"), tmp_path)
    sidecar = saved_path.with_suffix(".page.json")
    page = json.loads(sidecar.read_text())
    for text in ("{", "[]", "[" * 100_000, json.dumps(page | {"words": [["a", 1]]}), json.dumps(page | {"dpi": None}),
                json.dumps(page | {"regions": [["poem", 0, 0, 1, 1, ""]]})):  # fmt: skip
        sidecar.write_text(text)
        with pytest.raises(InvalidInputError, match="save_page"):
            open_page(saved_path)
    sidecar.write_text(json.dumps(page))
    saved_path.write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match="save_page"):
        open_page(saved_path)


def test_save_page_into_an_invalid_folder_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexStateError, match="file"):
        save_page(make_page("words"), tmp_path / "file")


def test_only_an_image_that_save_page_wrote_is_opened(tmp_path):
    page = make_page("Growth by region")
    saved = save_page(page, tmp_path)
    sidecar = sidecar_of(saved)
    assert open_page(saved).text == page.text
    renamed = saved.with_name("other.jpg")
    shutil.copy(saved, renamed)
    shutil.copy(sidecar, sidecar_of(renamed))
    with pytest.raises(InvalidInputError, match="the name is not the SHA-256 of the content"):
        open_page(renamed)
    # A file of another format is not decoded, even with the right name: an EPS file would start Ghostscript.
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", red_png()):
        other = tmp_path / f"{hashlib.sha256(content).hexdigest()}.jpg"
        other.write_bytes(content)
        shutil.copy(sidecar, sidecar_of(other))
        with pytest.raises(InvalidInputError, match="not a readable page"):
            open_page(other)
