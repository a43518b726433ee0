"""Pages outside an index: read one by one, kept as a picture with its words beside it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jina_rag import InvalidInputError, Region, load_pages, open_page, save_page
from jina_rag.errors import IndexStateError
from jina_rag.testing import make_page, sample_pdf


def test_pages_are_read_one_by_one_and_failures_are_told(tmp_path, caplog):
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


def test_a_path_that_is_not_there_is_said_at_once(tmp_path):
    with pytest.raises(InvalidInputError, match="nowhere"):
        load_pages(tmp_path / "nowhere")


def test_a_page_is_kept_and_comes_back(tmp_path):
    page = next(load_pages(sample_pdf(tmp_path / "a.pdf", ["Growth by region"])))
    page = replace(page, regions=(Region("chart", (0.1, 0.2, 0.5, 0.6), "Fig. 1"),), warnings=("odd",))
    again = open_page(save_page(page, tmp_path / "pages"))
    assert [word.text for word in again.words] == ["Growth", "by", "region"]
    np.testing.assert_allclose([w.box for w in again.words], [w.box for w in page.words], atol=1e-5)
    assert (again.doc_id, again.path, again.number, again.count) == (page.doc_id, page.path, 1, 1)
    assert (again.regions, again.warnings, again.screenshot.dpi) == (page.regions, ("odd",), page.screenshot.dpi)
    assert again.screenshot.image.size == page.screenshot.image.size


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="empty"):
        save_page(make_page("some words"), name)
    with pytest.raises(InvalidInputError, match="empty"):
        open_page(name)
    with pytest.raises(InvalidInputError, match="folder"):
        open_page(".")
    assert list(tmp_path.iterdir()) == []


def test_the_name_follows_what_the_picture_shows(tmp_path):
    page = make_page("some words")
    first = save_page(page, tmp_path)
    assert save_page(page, tmp_path) == first
    screenshot = replace(page.screenshot, image=Image.new("RGB", page.screenshot.image.size, "red"))
    assert save_page(replace(page, screenshot=screenshot), tmp_path) != first


def test_words_that_stand_nowhere_come_back_so(tmp_path):
    page = make_page("some words")
    nowhere = tuple(replace(word, box=(float("nan"),) * 4) for word in page.words)
    again = open_page(save_page(replace(page, words=nowhere), tmp_path))
    assert np.isnan([word.box for word in again.words]).all()


def test_what_was_not_kept_or_is_damaged_is_refused(tmp_path):
    plain = tmp_path / "plain.jpg"
    Image.new("RGB", (20, 20)).save(plain)
    with pytest.raises(InvalidInputError, match="save_page"):
        open_page(plain)
    kept = save_page(make_page("words"), tmp_path)
    beside = kept.with_suffix(".page.json")
    good = json.loads(beside.read_text())
    for bad in ("{", "[]", "[" * 100_000, json.dumps(good | {"words": [["a", 1]]}), json.dumps(good | {"dpi": None}),
                json.dumps(good | {"regions": [["poem", 0, 0, 1, 1, ""]]})):  # fmt: skip
        beside.write_text(bad)
        with pytest.raises(InvalidInputError, match="save_page"):
            open_page(kept)
    beside.write_text(json.dumps(good))
    kept.write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match="save_page"):
        open_page(kept)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexStateError, match="file"):
        save_page(make_page("words"), tmp_path / "file")
