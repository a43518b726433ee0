"""OCR cache: words are cached by pixel content, and pages are read if the cache file cannot be used."""

from __future__ import annotations

import dataclasses
import logging
import os
import sqlite3
import threading

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from jina_rag.ocr import read_areas, weights
from jina_rag.ocr.cache import OcrCache, area_key
from jina_rag.types import Word

FULL_AREA = (0.0, 0.0, 1.0, 1.0)
WORDS = [Word("juniper", (0.1, 0.2, 1 / 3, 0.3), True), Word("漢字", (0.0, 0.0, 1.0, 0.1), True)]


def text_image(*texts):
    image = Image.new("RGB", (360, 40 * len(texts) + 20), "white")
    draw = ImageDraw.Draw(image)
    for row, text in enumerate(texts):
        draw.text((20, 40 * row + 14), text, "black", ImageFont.load_default(22))
    return image


IMAGE = text_image("juniper harvest", "Lake Erie 1972")
TEXTS = ["juniper", "harvest", "Lake", "Erie", "1972"]


@pytest.fixture
def cache(tmp_path):
    with OcrCache(tmp_path / "ocr.sqlite") as cache:
        yield cache


class CountingSession:
    """An onnxruntime session that counts its runs."""

    def __init__(self, session):
        self.session, self.run_count = session, 0

    def run(self, *arguments):
        self.run_count += 1
        return self.session.run(*arguments)

    def __getattr__(self, name):
        return getattr(self.session, name)


@pytest.fixture
def run_count(monkeypatch):
    """A function that returns the number of runs of the OCR models."""
    models = weights.load_models()
    sessions = {name: CountingSession(getattr(models, name)) for name in ("detector", "encoder", "classifier")}
    monkeypatch.setattr(weights, "_models", dataclasses.replace(models, **sessions))
    return lambda: sum(session.run_count for session in sessions.values())


def texts(words):
    return [word.text for word in words]


def test_cached_area_gives_same_words_without_model_runs(cache, run_count):
    expected = read_areas(IMAGE, [FULL_AREA])
    assert texts(expected) == TEXTS
    assert read_areas(IMAGE, [FULL_AREA], cache=cache) == expected
    runs_before = run_count()
    assert read_areas(IMAGE, [FULL_AREA], cache=cache) == expected
    assert run_count() == runs_before


def test_reopened_cache_returns_words(tmp_path, run_count):
    with OcrCache(tmp_path / "ocr.sqlite") as first:
        written = read_areas(IMAGE, [FULL_AREA], cache=first)
    runs_before = run_count()
    with OcrCache(str(tmp_path / "ocr.sqlite")) as second:
        assert read_areas(IMAGE, [FULL_AREA], cache=second) == written
        assert second.path.stat().st_size > 0
    assert run_count() == runs_before


def test_same_pixels_at_another_position_hit_the_cache(cache, run_count):
    pages = [Image.new("RGB", (800, 600), "white") for _ in range(2)]
    areas = []
    for page, (x, y) in zip(pages, ((16, 32), (401, 333)), strict=True):
        page.paste(IMAGE, (x, y))
        areas.append((x / 800, y / 600, (x + IMAGE.width) / 800, (y + IMAGE.height) / 600))
    first = read_areas(pages[0], [areas[0]], cache=cache)
    runs_before = run_count()
    second = read_areas(pages[1], [areas[1]], cache=cache)
    assert run_count() == runs_before
    assert texts(second) == texts(first) == TEXTS
    for first_word, second_word in zip(first, second, strict=True):
        shift = np.array(second_word.box) - np.array(first_word.box)
        assert shift == pytest.approx([385 / 800, 301 / 600] * 2)


def test_area_without_words_is_cached(cache, run_count):
    assert read_areas(Image.new("RGB", (64, 64), "white"), [FULL_AREA], cache=cache) == []
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    words = read_areas(noise, [FULL_AREA], cache=cache)
    runs_before = run_count()
    assert read_areas(noise, [FULL_AREA], cache=cache) == words
    assert run_count() == runs_before


def test_area_key_depends_on_pixels_boxes_settings_and_weights(monkeypatch):
    pixels, no_boxes = np.asarray(IMAGE), np.zeros((0, 4), np.float32)
    changed_pixels = pixels.copy()
    changed_pixels[0, 0, 0] ^= 1
    settings = {"max_side": 960, "min_score": 0.6}
    keys = {
        area_key(pixels, no_boxes, **settings),
        area_key(changed_pixels, no_boxes, **settings),
        area_key(pixels.reshape(50, -1, 3), no_boxes, **settings),
        area_key(pixels, np.ones((1, 4), np.float32), **settings),
        area_key(pixels, no_boxes, max_side=640, min_score=0.6),
        area_key(pixels, no_boxes, max_side=960, min_score=0.5),
    }
    monkeypatch.setattr(weights, "digest", lambda: "other weights")
    keys.add(area_key(pixels, no_boxes, **settings))
    monkeypatch.setattr("jina_rag.ocr.cache.RECIPE", -1)
    keys.add(area_key(pixels, no_boxes, **settings))
    assert len(keys) == 8
    assert area_key(pixels.copy(), no_boxes.copy(), **settings) in keys


def test_skip_boxes_outside_area_do_not_change_key(cache, run_count):
    top = (0.0, 0.0, 1.0, 0.5)
    skip_boxes = [word.box for word in read_areas(IMAGE, [FULL_AREA])]
    assert texts(read_areas(IMAGE, [top], skip_boxes=skip_boxes[2:], cache=cache)) == TEXTS[:2]
    runs_before = run_count()
    assert texts(read_areas(IMAGE, [top], skip_boxes=skip_boxes[3:], cache=cache)) == TEXTS[:2]
    assert run_count() == runs_before
    assert read_areas(IMAGE, [top], skip_boxes=skip_boxes, cache=cache) == []


def test_forget_keeps_words_of_other_revisions(cache):
    cache.put("a", WORDS, "one")
    cache.put("b", WORDS[:1], "one")
    assert cache.get("a", "two") == WORDS
    assert cache.get("b") == WORDS[:1]  # without a revision, the use is not recorded
    cache.forget(["one", "never seen"])
    assert cache.get("a") == WORDS
    assert cache.get("b") is None
    cache.forget(iter(["two"]))
    assert cache.get("a") is None


def test_read_areas_records_revision_of_cache_hits(cache):
    read_areas(IMAGE, [FULL_AREA], cache=cache, revision="old")
    read_areas(IMAGE, [FULL_AREA], cache=cache, revision="new")
    cache.forget(["old"])
    key = area_key(np.asarray(IMAGE), np.zeros((0, 4), np.float32), max_side=960, min_score=0.6)
    assert texts(cache.get(key)) == TEXTS
    cache.forget(["new"])
    assert cache.get(key) is None


def test_forget_overwrites_words_on_disk(tmp_path):
    path = tmp_path / "ocr.sqlite"
    with OcrCache(path) as cache:
        cache.put("a", WORDS, "one")
        (stored,) = cache._database.execute("SELECT words FROM areas").fetchone()
        assert stored in path.read_bytes()
        cache.forget(["one"])
    assert stored not in path.read_bytes()
    assert b"one" not in path.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX file modes")
def test_cache_file_has_owner_only_permissions(tmp_path):
    path = tmp_path / "ocr.sqlite"
    with OcrCache(path) as cache:
        assert not path.exists()  # the file is created at the first use
        cache.put("a", WORDS)
        assert path.stat().st_mode & 0o777 == 0o600


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def damage(path):
    path.write_bytes(b"not SQLite  " * 400)


def replace_with_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("make_unusable", [damage, replace_with_folder])
def test_unusable_cache_file_logs_one_warning_and_pages_are_read(tmp_path, caplog, make_unusable):
    path = tmp_path / "ocr.sqlite"
    make_unusable(path)
    with OcrCache(path) as cache:
        for _ in range(2):
            assert texts(read_areas(IMAGE, [FULL_AREA], cache=cache)) == TEXTS
        cache.forget(["one"])
        assert cache.get("a") is None
    (message,) = warnings(caplog)
    assert str(path) in message


def test_missing_cache_folder_logs_one_warning(tmp_path, caplog):
    with OcrCache(tmp_path / "gone" / "ocr.sqlite") as cache:
        cache.put("a", WORDS)
        assert cache.get("a") is None
        assert not cache.path.exists()
    assert len(warnings(caplog)) == 1


def test_full_disk_logs_one_warning(cache, caplog):
    cache.put("a", WORDS)
    pages = cache._database.execute("PRAGMA page_count").fetchone()[0]
    cache._database.execute(f"PRAGMA max_page_count = {pages}")
    rng = np.random.default_rng(0)
    large = [Word("".join(chr(c) for c in rng.integers(33, 1000, 9000)), FULL_AREA, True) for _ in range(9)]
    cache.put("b", large)
    cache.put("c", WORDS)
    (message,) = warnings(caplog)
    assert "full" in message


def test_damaged_entry_is_reread_and_replaced(tmp_path, caplog):
    path = tmp_path / "ocr.sqlite"
    with OcrCache(path) as cache:
        expected = read_areas(IMAGE, [FULL_AREA], cache=cache)
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE areas SET words = ?", (b"nonsense",))
    database.close()
    with OcrCache(path) as cache:
        assert read_areas(IMAGE, [FULL_AREA], cache=cache) == expected
        key = area_key(np.asarray(IMAGE), np.zeros((0, 4), np.float32), max_side=960, min_score=0.6)
        assert texts(cache.get(key)) == TEXTS
    assert warnings(caplog) == []


def test_closed_cache_returns_none_and_stores_nothing(cache, caplog):
    cache.put("a", WORDS)
    cache.close()
    cache.close()
    cache.put("b", WORDS)
    assert cache.get("a") is None
    assert warnings(caplog) == []


def test_concurrent_put_get_and_forget(cache):
    errors = []

    def work(name):
        try:
            for number in range(25):
                cache.put(f"{name}/{number}", WORDS, name)
                assert cache.get(f"{name}/{number}", "shared") == WORDS
            cache.forget([name])
        except BaseException as error:  # asserted in the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(cache.get(f"{name}/{number}") == WORDS for name in range(6) for number in range(25))
