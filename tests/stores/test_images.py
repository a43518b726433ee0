"""Image files beside the index."""

from __future__ import annotations

import hashlib
import os

import pytest
from PIL import Image

from jina_rag.errors import IndexCorruptError, IndexStateError, InvalidInputError
from jina_rag.stores.images import ImageFiles, checked_name


@pytest.fixture
def files(tmp_path):
    return ImageFiles(tmp_path / "images")


def image(shade=0, size=(32, 24), mode="RGB"):
    return Image.new(mode, size, shade)


def test_a_picture_comes_back_under_the_hash_of_its_bytes(files):
    name = files.put(image(200), 90)
    content = files.path(name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert name == f"{digest[:2]}/{digest}.jpg"
    with Image.open(files.path(name)) as stored:
        assert stored.size == (32, 24)
        assert stored.format == "JPEG"


def test_the_same_picture_is_kept_once(files):
    first = files.put(image(1))
    before = files.path(first).stat().st_mtime_ns
    assert files.put(image(1)) == first
    assert files.path(first).stat().st_mtime_ns == before
    other = files.put(image(250))
    assert sorted(files.names()) == sorted([first, other])
    assert files.put(image((9, 99, 199), (64, 64)), 20) != files.put(image((9, 99, 199), (64, 64)), 95)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_any_kind_of_picture_is_kept(files, mode):
    assert files.path(files.put(image(mode=mode))).is_file()


def test_names_that_lead_elsewhere_are_none(files):
    name = files.put(image())
    assert checked_name(name) == name
    for wrong in ("", "/etc/passwd", "../" + name, name + "\n", name.upper(), name[3:], None, 5, [name]):
        assert checked_name(wrong) is None
        with pytest.raises(IndexCorruptError):
            files.path(wrong)


def test_names_of_an_absent_folder_and_of_strangers(files):
    assert list(files.names()) == []
    name = files.put(image())
    (files.folder / "ab").mkdir(exist_ok=True)
    (files.folder / "ab" / "holiday.jpg").write_bytes(b"")
    (files.folder / "ab" / ("0" * 64 + ".jpg")).write_bytes(b"")
    (files.folder / name[:2] / "x.tmp").write_bytes(b"")
    assert list(files.names()) == [name]


def test_delete(files):
    name = files.put(image())
    files.delete(name)
    assert not files.path(name).exists()
    files.delete(name)
    assert files.put(image()) == name
    assert files.path(name).is_file()


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "ab/../../x.jpg",
        "ab\\x.jpg",
        "",
        "ab/" + "0" * 64 + ".jpg",
        "00/" + "0" * 64 + ".jpg\n",
    ],
)
def test_names_never_lead_out_of_the_folder(files, name):
    for call in (files.path, files.delete):
        with pytest.raises(IndexCorruptError):
            call(name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_the_owner_reads_them(files):
    path = files.path(files.put(image()))
    assert path.stat().st_mode & 0o777 == 0o600
    for folder in (path.parent, files.folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_failed_write_leaves_nothing(files, monkeypatch):
    files.put(image(7))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(IndexStateError, match="No space left"):
        files.put(image(100))
    monkeypatch.undo()
    assert [path.suffix for path in files.folder.rglob("*") if path.is_file()] == [".jpg"]
    assert len(list(files.names())) == 1


def test_pictures_that_no_jpeg_can_hold_are_refused(files):
    for size in ((0, 5), (70_000, 1)):
        with pytest.raises(InvalidInputError, match="JPEG"):
            files.put(image(size=size))
    assert list(files.names()) == []
