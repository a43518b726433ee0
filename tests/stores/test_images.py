"""Image files of an index: naming, deduplication, permissions and failed writes."""

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


def make_image(shade=0, size=(32, 24), mode="RGB"):
    return Image.new(mode, size, shade)


def test_put_names_the_image_by_the_hash_of_its_bytes(files):
    name = files.put(make_image(200), 90)
    content = files.path(name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert name == f"{digest[:2]}/{digest}.jpg"
    with Image.open(files.path(name)) as stored_image:
        assert stored_image.size == (32, 24)
        assert stored_image.format == "JPEG"


def test_put_stores_identical_images_once(files):
    first = files.put(make_image(1))
    modified_ns = files.path(first).stat().st_mtime_ns
    assert files.put(make_image(1)) == first
    assert files.path(first).stat().st_mtime_ns == modified_ns
    other = files.put(make_image(250))
    assert sorted(files.names()) == sorted([first, other])
    assert files.put(make_image((9, 99, 199), (64, 64)), 20) != files.put(make_image((9, 99, 199), (64, 64)), 95)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_put_converts_every_image_mode(files, mode):
    assert files.path(files.put(make_image(mode=mode))).is_file()


def test_checked_name_rejects_invalid_names(files):
    name = files.put(make_image())
    assert checked_name(name) == name
    for invalid_name in ("", "/etc/passwd", "../" + name, name + "\n", name.upper(), name[3:], None, 5, [name]):
        assert checked_name(invalid_name) is None
        with pytest.raises(IndexCorruptError):
            files.path(invalid_name)


def test_names_ignores_a_missing_folder_and_other_files(files):
    assert list(files.names()) == []
    name = files.put(make_image())
    (files.folder / "ab").mkdir(exist_ok=True)
    (files.folder / "ab" / "holiday.jpg").write_bytes(b"")
    (files.folder / "ab" / ("0" * 64 + ".jpg")).write_bytes(b"")
    (files.folder / name[:2] / "x.tmp").write_bytes(b"")
    assert list(files.names()) == [name]


def test_delete_is_idempotent(files):
    name = files.put(make_image())
    files.delete(name)
    assert not files.path(name).exists()
    files.delete(name)
    assert files.put(make_image()) == name
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
def test_path_and_delete_reject_names_outside_the_folder(files, name):
    for call in (files.path, files.delete):
        with pytest.raises(IndexCorruptError):
            call(name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX permissions")
def test_files_and_folders_are_readable_by_the_owner_only(files):
    path = files.path(files.put(make_image()))
    assert path.stat().st_mode & 0o777 == 0o600
    for folder in (path.parent, files.folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_failed_write_leaves_no_file(files, monkeypatch):
    files.put(make_image(7))

    def raise_disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", raise_disk_full)
    with pytest.raises(IndexStateError, match="No space left"):
        files.put(make_image(100))
    monkeypatch.undo()
    assert [path.suffix for path in files.folder.rglob("*") if path.is_file()] == [".jpg"]
    assert len(list(files.names())) == 1


def test_image_size_unsupported_by_jpeg_raises_invalid_input_error(files):
    for size in ((0, 5), (70_000, 1)):
        with pytest.raises(InvalidInputError, match="JPEG"):
            files.put(make_image(size=size))
    assert list(files.names()) == []
