"""What OCR has read is kept by the pixels it was read from, and whatever happens to the file costs no page."""

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

WHOLE = (0.0, 0.0, 1.0, 1.0)
WORDS = [Word("juniper", (0.1, 0.2, 1 / 3, 0.3), True), Word("漢字", (0.0, 0.0, 1.0, 0.1), True)]


def photo(*texts):
    image = Image.new("RGB", (360, 40 * len(texts) + 20), "white")
    draw = ImageDraw.Draw(image)
    for row, text in enumerate(texts):
        draw.text((20, 40 * row + 14), text, "black", ImageFont.load_default(22))
    return image


PICTURE = photo("juniper harvest", "Lake Erie 1972")
TEXTS = ["juniper", "harvest", "Lake", "Erie", "1972"]


@pytest.fixture
def cache(tmp_path):
    with OcrCache(tmp_path / "ocr.sqlite") as cache:
        yield cache


class Counted:
    """A session that counts its runs."""

    def __init__(self, session):
        self.session, self.runs = session, 0

    def run(self, *arguments):
        self.runs += 1
        return self.session.run(*arguments)

    def __getattr__(self, name):
        return getattr(self.session, name)


@pytest.fixture
def runs(monkeypatch):
    """How many times a network ran."""
    models = weights.load_models()
    counted = {name: Counted(getattr(models, name)) for name in ("detector", "encoder", "classifier")}
    monkeypatch.setattr(weights, "_models", dataclasses.replace(models, **counted))
    return lambda: sum(session.runs for session in counted.values())


def texts(words):
    return [word.text for word in words]


def test_the_same_words_with_and_without_and_the_second_time_no_network_runs(cache, runs):
    plain = read_areas(PICTURE, [WHOLE])
    assert texts(plain) == TEXTS
    assert read_areas(PICTURE, [WHOLE], cache=cache) == plain
    before = runs()
    assert read_areas(PICTURE, [WHOLE], cache=cache) == plain
    assert runs() == before


def test_it_outlives_the_process_that_wrote_it(tmp_path, runs):
    with OcrCache(tmp_path / "ocr.sqlite") as first:
        written = read_areas(PICTURE, [WHOLE], cache=first)
    before = runs()
    with OcrCache(str(tmp_path / "ocr.sqlite")) as second:
        assert read_areas(PICTURE, [WHOLE], cache=second) == written
        assert second.path.stat().st_size > 0
    assert runs() == before


def test_a_picture_is_known_again_wherever_it_stands(cache, runs):
    pages = [Image.new("RGB", (800, 600), "white") for _ in range(2)]
    areas = []
    for page, (x, y) in zip(pages, ((16, 32), (401, 333)), strict=True):
        page.paste(PICTURE, (x, y))
        areas.append((x / 800, y / 600, (x + PICTURE.width) / 800, (y + PICTURE.height) / 600))
    first = read_areas(pages[0], [areas[0]], cache=cache)
    before = runs()
    second = read_areas(pages[1], [areas[1]], cache=cache)
    assert runs() == before
    assert texts(second) == texts(first) == TEXTS
    for one, other in zip(first, second, strict=True):
        moved = np.array(other.box) - np.array(one.box)
        assert moved == pytest.approx([385 / 800, 301 / 600] * 2)


def test_an_empty_area_is_kept_as_empty(cache, runs):
    assert read_areas(Image.new("RGB", (64, 64), "white"), [WHOLE], cache=cache) == []
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    words = read_areas(noise, [WHOLE], cache=cache)
    before = runs()
    assert read_areas(noise, [WHOLE], cache=cache) == words
    assert runs() == before


def test_whatever_changes_what_is_read_changes_the_key(monkeypatch):
    pixels, no_boxes = np.asarray(PICTURE), np.zeros((0, 4), np.float32)
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    settings = {"max_side": 960, "min_score": 0.6}
    keys = {
        area_key(pixels, no_boxes, **settings),
        area_key(other, no_boxes, **settings),
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


def test_known_words_count_only_inside_the_area(cache, runs):
    top = (0.0, 0.0, 1.0, 0.5)
    skip_boxes = [word.box for word in read_areas(PICTURE, [WHOLE])]
    assert texts(read_areas(PICTURE, [top], skip_boxes=skip_boxes[2:], cache=cache)) == TEXTS[:2]
    before = runs()
    assert texts(read_areas(PICTURE, [top], skip_boxes=skip_boxes[3:], cache=cache)) == TEXTS[:2]
    assert runs() == before
    assert read_areas(PICTURE, [top], skip_boxes=skip_boxes, cache=cache) == []


def test_forgotten_is_what_no_other_revision_uses(cache):
    cache.put("a", WORDS, "one")
    cache.put("b", WORDS[:1], "one")
    assert cache.get("a", "two") == WORDS
    assert cache.get("b") == WORDS[:1]  # asked for nobody
    cache.forget(["one", "never seen"])
    assert cache.get("a") == WORDS
    assert cache.get("b") is None
    cache.forget(iter(["two"]))
    assert cache.get("a") is None


def test_reading_labels_what_it_finds_with_the_revision(cache):
    read_areas(PICTURE, [WHOLE], cache=cache, revision="old")
    read_areas(PICTURE, [WHOLE], cache=cache, revision="new")
    cache.forget(["old"])
    key = area_key(np.asarray(PICTURE), np.zeros((0, 4), np.float32), max_side=960, min_score=0.6)
    assert texts(cache.get(key)) == TEXTS
    cache.forget(["new"])
    assert cache.get(key) is None


def test_what_is_forgotten_is_gone_from_the_disk(tmp_path):
    path = tmp_path / "ocr.sqlite"
    with OcrCache(path) as cache:
        cache.put("a", WORDS, "one")
        (stored,) = cache._database.execute("SELECT words FROM areas").fetchone()
        assert stored in path.read_bytes()
        cache.forget(["one"])
    assert stored not in path.read_bytes()
    assert b"one" not in path.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_only_its_owner_can_read_it(tmp_path):
    path = tmp_path / "ocr.sqlite"
    with OcrCache(path) as cache:
        assert not path.exists()  # nothing is written before there is something to keep
        cache.put("a", WORDS)
        assert path.stat().st_mode & 0o777 == 0o600


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def damage(path):
    path.write_bytes(b"no database " * 400)


def swap_for_a_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("spoil", [damage, swap_for_a_folder])
def test_an_unusable_file_costs_one_warning_and_no_page(tmp_path, caplog, spoil):
    path = tmp_path / "ocr.sqlite"
    spoil(path)
    with OcrCache(path) as cache:
        for _ in range(2):
            assert texts(read_areas(PICTURE, [WHOLE], cache=cache)) == TEXTS
        cache.forget(["one"])
        assert cache.get("a") is None
    (message,) = warnings(caplog)
    assert str(path) in message


def test_a_missing_folder_costs_one_warning(tmp_path, caplog):
    with OcrCache(tmp_path / "gone" / "ocr.sqlite") as cache:
        cache.put("a", WORDS)
        assert cache.get("a") is None
        assert not cache.path.exists()
    assert len(warnings(caplog)) == 1


def test_a_full_disk_costs_one_warning(cache, caplog):
    cache.put("a", WORDS)
    pages = cache._database.execute("PRAGMA page_count").fetchone()[0]
    cache._database.execute(f"PRAGMA max_page_count = {pages}")
    rng = np.random.default_rng(0)
    large = [Word("".join(chr(c) for c in rng.integers(33, 1000, 9000)), WHOLE, True) for _ in range(9)]
    cache.put("b", large)
    cache.put("c", WORDS)
    (message,) = warnings(caplog)
    assert "full" in message


def test_a_damaged_entry_is_read_again_and_mended(tmp_path, caplog):
    path = tmp_path / "ocr.sqlite"
    with OcrCache(path) as cache:
        good = read_areas(PICTURE, [WHOLE], cache=cache)
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE areas SET words = ?", (b"nonsense",))
    database.close()
    with OcrCache(path) as cache:
        assert read_areas(PICTURE, [WHOLE], cache=cache) == good
        key = area_key(np.asarray(PICTURE), np.zeros((0, 4), np.float32), max_side=960, min_score=0.6)
        assert texts(cache.get(key)) == TEXTS
    assert warnings(caplog) == []


def test_a_closed_one_finds_and_keeps_nothing(cache, caplog):
    cache.put("a", WORDS)
    cache.close()
    cache.close()
    cache.put("b", WORDS)
    assert cache.get("a") is None
    assert warnings(caplog) == []


def test_many_threads_may_use_it(cache):
    failed = []

    def work(name):
        try:
            for number in range(25):
                cache.put(f"{name}/{number}", WORDS, name)
                assert cache.get(f"{name}/{number}", "shared") == WORDS
            cache.forget([name])
        except BaseException as error:  # told by the thread that started this one
            failed.append(error)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert all(cache.get(f"{name}/{number}") == WORDS for name in range(6) for number in range(25))
