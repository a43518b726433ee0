"""Detection and repair of a page tree that announces a wrong number of pages to PDFium.

PDFium loads as many pages as the page tree announces. Only if the tree announces no positive number, PDFium counts the
pages. If pages are missing, the repair therefore writes a copy of the document in memory without the announced numbers.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

Handle: TypeAlias = Any

_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z0-9])")
_OBJECT_STREAM = re.compile(rb"/Type\s*/ObjStm")
_STREAM = re.compile(rb"stream\r?\n")
_OBJECT = re.compile(rb"(\d+)\s+\d+\s+obj\b")
_NUMBER = re.compile(rb"(\d+)\s+\d+\s*$")
# PDFium reads "true" as 1.
_COUNT = re.compile(rb"/Count\s*(-?\d+|true|false)")
# Maximum number of pages that are tried behind a page that PDFium cannot load.
_MAX_TRIALS = 1_000
# Larger files are not searched for pages and not copied.
_MAX_BYTES = 64 * 2**20
# Maximum number of bytes before the word "obj" that are searched for the number of an object.
_NUMBER_BYTES = 24


def loads_page(raw: ModuleType, document: Handle, index: int) -> bool:
    """Return whether PDFium finds the page object of a page.

    Args:
        raw: The module ``pypdfium2.raw``.
        document: An ``FPDF_DOCUMENT`` handle.
        index: Index of the page, 0-based.
    """
    return bool(raw.FPDF_GetPageSizeByIndexF(document, index, ctypes.byref(raw.FS_SIZEF())))


def count_loadable_pages(raw: ModuleType, document: Handle, announced: int, path: Path) -> int:
    """Return the number of pages of a document whose page tree announces too many pages.

    Args:
        raw: The module ``pypdfium2.raw``.
        document: An ``FPDF_DOCUMENT`` handle.
        announced: Number of pages that the page tree announces; PDFium does not find the last of these pages.
        path: Path of the PDF.
    """
    # A bisection, because PDFium reads the whole page tree to find out that a page does not exist.
    count, end = 0, announced
    while end - count > 1:
        middle = (count + end) // 2
        if loads_page(raw, document, middle - 1):
            count = middle
        else:
            end = middle
    # A page object that is missing within the tree also ends the bisection.
    if count < count_page_objects(path):
        for index in range(count, min(announced, count + _MAX_TRIALS)):
            if loads_page(raw, document, index):
                count = index + 1
    return count


def count_page_objects(path: Path) -> int:
    """Return the number of page objects in a file, also of pages that the page tree does not contain.

    Objects that a later version of the file replaces count once. Encrypted object streams are ignored.

    Args:
        path: Path of the PDF.

    Returns:
        The number; 0 for files above 64 MiB and files that cannot be read.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            return 0
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            numbers = {_object_number(data, match.start()) for match in _PAGE.finditer(data)}
            for match in _OBJECT_STREAM.finditer(data):
                numbers.update(_pages_in_stream(data, match.start()))
            return len(numbers)
    except (OSError, ValueError):  # ValueError: the file is empty
        return 0


def _object_number(data: mmap.mmap, position: int) -> int:
    """Return the number of the object that contains a position; the negative position if the object has no number."""
    start = data.rfind(b"obj", 0, position)
    match = _NUMBER.search(data[max(0, start - _NUMBER_BYTES) : start]) if start > 0 else None
    return int(match[1]) if match else -position


def _pages_in_stream(data: mmap.mmap, position: int) -> Iterator[int]:
    """Yield the numbers of the page objects in the object stream whose dictionary contains a position."""
    start = _STREAM.search(data, position)
    if not start:
        return
    header = data[max(data.rfind(b"obj", 0, position), 0) : start.start()]
    first = re.search(rb"/First\s+(\d+)", header)
    end = data.find(b"endstream", start.end())
    if not first or end < 0:
        return
    try:
        content = zlib.decompressobj().decompress(data[start.end() : end], _MAX_BYTES)
    except zlib.error:
        return
    offset = int(first[1])
    pairs = [int(number) for number in re.findall(rb"\d+", content[:offset])]
    numbers, offsets = pairs[::2], pairs[1::2]
    for match in _PAGE.finditer(content, offset):
        index = bisect.bisect_right(offsets, match.start() - offset) - 1
        if 0 <= index < len(numbers):
            yield numbers[index]


def save_copy(raw: ModuleType, document: Handle, flags: int, max_bytes: int) -> tuple[bytes, bool]:
    """Write a document to memory and return (PDF, whether the PDF is complete).

    Args:
        raw: The module ``pypdfium2.raw``.
        document: An ``FPDF_DOCUMENT`` handle.
        flags: Flags of ``FPDF_SaveAsCopy``.
        max_bytes: Number of bytes after which PDFium is told to stop writing.
    """
    content = bytearray()

    def write(_: Handle, data: Handle, size: int) -> int:
        content.extend(ctypes.string_at(data, size))
        return int(len(content) <= max_bytes)  # 0 stops writing

    writer = raw.FPDF_FILEWRITE(version=1)
    writer.WriteBlock = type(writer.WriteBlock)(write)
    is_complete = bool(raw.FPDF_SaveAsCopy(document, writer, flags)) and len(content) <= max_bytes
    return bytes(content), is_complete


def copy_without_counts(raw: ModuleType, document: Handle) -> bytes:
    """Return a copy of a document whose page tree announces 0 pages, so that PDFium counts the pages.

    Args:
        raw: The module ``pypdfium2.raw``.
        document: An ``FPDF_DOCUMENT`` handle.

    Returns:
        The PDF; empty if the copy would exceed 64 MiB or cannot be written.
    """
    copy, is_complete = save_copy(raw, document, raw.FPDF_REMOVE_SECURITY, _MAX_BYTES)
    if not is_complete:
        return b""
    content = bytearray(copy)
    objects = list(_OBJECT.finditer(content))
    for at, match in enumerate(objects):
        end = objects[at + 1].start() if at + 1 < len(objects) else len(content)
        body = content[match.end() : end]
        if b"/Kids" not in body or b"stream" in body:
            continue
        for count in _COUNT.finditer(body):
            start = match.end() + count.start(1)
            content[start : start + len(count[1])] = b"0" * len(count[1])
    return bytes(content)
