"""Discovery of documents under files, folders and globs.

The search reports every entry of a folder, and opens only regular files, because opening a named pipe would block. The
first bytes of a file determine whether the file is a PDF, an image or an office file. A file with other content is
*failed* if the suffix belongs to a document format, for example ``.pdf``, and otherwise *skipped*.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from jina_rag import globs
from jina_rag.errors import InvalidInputError
from jina_rag.image_formats import modern_format
from jina_rag.parsing.text_formats.formats import SUFFIXES, is_text_document
from jina_rag.types import Failure

Kind: TypeAlias = Literal["pdf", "image", "office", "text"]

INDEX_FILES = frozenset({"manifest.sqlite3", "images"})
"""Names of entries of an index folder. A folder that contains all these names is an index and is skipped."""
_SUFFIXES = {
    "a PDF": ".pdf",
    "an image": ".png .jpg .jpeg .jpe .jfif .tif .tiff .gif .bmp .webp .heic .heif .hif .avif .jxl .jp2 .j2k .jpf .jpx",
    "an office file": ".docx .docm .dotx .doc .odt .rtf .pptx .pptm .ppsx .ppt .pps .odp .xlsx .xlsm .xlsb .xls .ods",
    **{
        phrase: " ".join(suffix for suffix, text_format in SUFFIXES.items() if text_format in formats)
        for phrase, formats in (
            ("a text file", ("html", "markdown", "plain", "table")),
            ("an EPUB book", ("epub",)),
            ("a mail file", ("mail",)),
        )
    },
}
_KIND_OF_SUFFIX = {suffix: suffix_kind for suffix_kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
"""Suffix → kind of document with the suffix, as a phrase for error messages."""
_WAYS_OUT = {
    "Save the mail as .eml or PDF": ".msg .oft",
    "Export the mails as .eml files": ".mbox .pst .ost",
    "Save the page as .html or PDF": ".mht .mhtml .webarchive",
    "Export the document to PDF": ".pages .numbers .key .gdoc .gsheet .gslides .one .vsd .vsdx .pub .xps .oxps .svg",
    "Convert the book to PDF or .epub": ".mobi .azw .azw3 .fb2 .djvu .chm",
    "Extract the files of the archive": ".zip .7z .rar .tar .gz .tgz .bz2 .xz .cbz .cbr",
}
_WAY_OUT_OF_SUFFIX = {suffix: way_out for way_out, suffixes in _WAYS_OUT.items() for suffix in suffixes.split()}
"""Suffix of a format that is not read → what to do, as a phrase for error messages."""
_IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HIDDEN = "The file or folder is hidden."
"""Reason of a skipped hidden file or folder."""
# Header of OLE compound files, which may be old office files, but also Outlook messages, installers and thumbnails.
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# PDF readers accept a header anywhere in the first 1,024 bytes of a file (PDF 1.7, annex H, note 13).
_HEADER_BYTES = 1024
# Many readers also open a PDF with an incomplete header, or without a header: the file then starts with an object.
_PDF_SIGN = re.compile(rb"%PDF|(?:^|\s)\d+[\s\0]+\d+[\s\0]+obj\b")
_PSEUDO_FOLDERS = ("/dev", "/proc", "/sys")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # a file system of ordinary files
_PSEUDO = "The folder belongs to the devices or processes of the system."
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}


@dataclass(frozen=True, slots=True)
class Attachment:
    """Location of a document inside a file; see `jina_rag.parsing.attachments`.

    Attributes:
        container: Path of the file that contains the document.
        kind: Kind of the file that contains the document.
        index: Position among the attachments of the file, from 0.
        sha256: SHA-256 of the content.
        size: Number of bytes of the content.
    """

    container: Path
    kind: Kind
    index: int
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A document found by `find_sources`, or an attachment found by `attachments.read_attachments`.

    Attributes:
        path: Path of the file, which starts with the path that was passed to `find_sources`. For an attachment, the
            path of the file that contains it, followed by ``#`` and the name of the attachment.
        root: The folder that was passed to `find_sources`; if a file was passed, the parent folder of the file.
        doc_id: `path` relative to `root` with forward slashes, in printable form (see `printable`).
        kind: ``"pdf"``, ``"image"`` or ``"office"``, determined by the first bytes of the file, or ``"text"``,
            determined by the suffix and the first bytes.
        skip_pages: 1-based numbers of the pages that are not rendered, because an interrupted run has indexed the
            pages.
        revision: SHA-256 of the file content, used as a cache key; empty if the hash was not computed.
        attachment: Location of the content, if the document is an attachment of a file; otherwise None.
        warnings: Warnings about the whole document that were found before the document is opened.
    """

    path: Path
    root: Path
    doc_id: str
    kind: Kind
    skip_pages: frozenset[int] = frozenset()
    revision: str = ""
    attachment: Attachment | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is not a document and is skipped without an error.

    Attributes:
        path: Path of the file or folder.
        reason: Reason for skipping the file or folder, as a sentence.
    """

    path: Path
    reason: str


SourceEvent: TypeAlias = "SourceFile | Skipped | Failure"
"""Result of `find_sources` for one file or folder: a document, a skipped entry or a failure."""


def path_list(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Return one or more paths as a list.

    Args:
        paths: A path, or an iterable of paths. Empty strings are rejected because an unset shell variable would
            otherwise select the current folder.

    Raises:
        InvalidInputError: If no path is passed, or if a path is empty or is neither a string nor a path object.
    """
    names = list(paths) if isinstance(paths, Iterable) and not isinstance(paths, str | bytes | os.PathLike) else [paths]
    for name in names:
        if not isinstance(name, str | os.PathLike):
            raise InvalidInputError(f"A path is {name!r}; expected a string or pathlib.Path.")
    if not names:
        raise InvalidInputError("No path was passed. Pass at least one file or folder.")
    if any(not os.fspath(name).strip() for name in names):
        raise InvalidInputError('A path is empty. Pass a file or folder, or "." for the current folder.')
    return names


def find_sources(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    exclude: Collection[str | os.PathLike[str]] = (),
    follow_links: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Iterator[SourceEvent]:
    """Find documents under files, folders and globs.

    Paths are visited in the order of `paths`, and the entries of a folder in the order of the names. Each file is
    returned once, even if several links point to the file. Links are followed after all other entries of the root, so
    that the path of a document is the path of the file and not of a link. Hidden entries and the file systems of
    devices and processes (``/dev``, ``/proc``, ``/sys``) are skipped. Documents under different roots may have the same
    `doc_id`; the index gives these documents different ids.

    Args:
        paths: Files, folders and globs, for example ``reports/**/*.pdf``. ``*`` matches within a folder, ``**`` across
            folders. A file in `paths` is read even if the file is hidden, and fails if the file is not a document.
        exclude: Files and folders to skip, for example the index folder. Links to excluded files and folders are also
            skipped.
        follow_links: Whether to follow symbolic links inside a folder that lead out of the folder.
        check: Called for every visited entry. An exception from `check` stops the search.

    Returns:
        A lazy iterator of documents, skipped entries and failures.

    Raises:
        InvalidInputError: If no path is passed, or if a path is empty or does not exist. The error is raised by the
            call, before the first entry is visited.
    """
    roots = [_expand(Path(path), check) for path in path_list(paths)]
    walk = _Walk({os.path.realpath(path) for path in exclude}, follow_links, check)
    return walk.run(itertools.chain.from_iterable(roots))


def _expand(root: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Return `root` if the path exists; otherwise the paths that match `root` as a glob."""
    if os.path.lexists(root):
        return iter([root])
    if not globs.has_wildcards(str(root)):
        if spellings := list(globs.find(str(root), check)):  # the name of a file in another spelling
            return iter(spellings)
        raise InvalidInputError(f"{printable(str(root))!r} does not exist. Check the path.")
    paths = globs.find(str(root), check)
    first = next(paths, None)
    if first is None:
        raise InvalidInputError(f"No file or folder matches {printable(str(root))!r}. Check the path and wildcards.")
    return itertools.chain([first], paths)


def source_file(path: str | os.PathLike[str]) -> SourceFile:
    """Return the document at a path.

    Args:
        path: Path of one file.

    Raises:
        InvalidInputError: If the path does not exist or is not a single document.
    """
    event = next(find_sources(path), Skipped(Path(path), "The folder is empty."))
    if isinstance(event, SourceFile) and Path(path) == event.path:
        return event
    reason = "The path is a folder." if isinstance(event, SourceFile) else event.reason
    raise InvalidInputError(f"{printable(str(path))!r} is not a single document. {reason} Pass one file.")


def classify(path: Path) -> SourceEvent:
    """Return the document at the path of an existing file, determined by the content and the suffix.

    Args:
        path: Path of the file.
    """
    return _classify(path, path.parent, is_root=False)


def printable(name: str) -> str:
    r"""Return a file name in a reversible form that can be stored as UTF-8.

    Valid names are returned unchanged, including line breaks. A byte that is not valid UTF-8 (a lone surrogate in the
    Python string) becomes U+FFFD followed by two hexadecimal digits. A U+FFFD in the name is doubled.

    Args:
        name: The file name or path.

    >>> printable("bad\udcff.pdf")
    'bad�FF.pdf'
    """
    return "".join(_printable_character(character) for character in name)


def sniff(head: bytes) -> Kind | None:
    """Return the kind of a document, determined by the first bytes of the file; None for other files.

    Args:
        head: The first 1,024 bytes of the file, or the whole content of a shorter file.
    """
    if head.lstrip(b"\xef\xbb\xbf\x00\t\n\r\f ").startswith(b"%PDF-"):
        return "pdf"
    if _is_image(head):
        return "image"
    return "office" if _is_office(head) else None


def _is_image(head: bytes) -> bool:
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head.startswith(b"BM"):  # a text file may also start with BM, so the size of the second header is checked
        return int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES
    return head.startswith(_IMAGE_STARTS) or modern_format(head) is not None


def _is_office(head: bytes) -> bool:
    """Return whether the first bytes of a file are RTF, Office Open XML or OpenDocument."""
    if head.startswith(b"{\\rtf"):
        return True
    if not head.startswith(b"PK\3\4"):
        return False
    if head[30:38] == b"mimetype":  # the first archive entry of OpenDocument
        return head[38:].startswith(b"application/vnd.oasis.opendocument.")
    # Only the first archive entry is compared, because other archives may contain later entries with these names.
    return head[30:].startswith((b"[Content_Types].xml", b"_rels/.rels", b"docProps/", b"word/", b"xl/", b"ppt/"))


class _Walk:
    """One call of `find_sources`, with the real paths of the files and folders that were visited so far."""

    def __init__(self, exclude: set[str], follow_links: bool, check: Callable[[], None]) -> None:
        self._exclude = exclude
        self._follow_links = follow_links
        self._check = check
        self._folders: set[str] = set()
        self._files: dict[str, Path] = {}

    def run(self, roots: Iterable[Path]) -> Iterator[SourceEvent]:
        for root in roots:
            if root.is_dir():
                yield from self._root(root)
            else:
                yield from self._file(root, root.parent, is_root=True)

    def _root(self, root: Path) -> Iterator[SourceEvent]:
        links: list[Path] = []
        yield from self._folder(root, root, links)
        while links:
            # Links inside a linked folder are appended to `links`. `_folders` prevents cycles.
            link = links.pop(0)
            if not link.exists():
                yield Failure(link, "The target of the link does not exist. Restore the target, or delete the link.")
            elif not self._follow_links and not _is_inside(link, root):
                yield Skipped(link, "The link leads out of the folder. Pass --follow-links (follow_links=True).")
            elif _is_pseudo(link):
                yield Skipped(link, _PSEUDO)
            elif link.is_dir():
                yield from self._folder(link, root, links)
            else:
                yield from self._file(link, root)

    def _folder(self, folder: Path, root: Path, links: list[Path]) -> Iterator[SourceEvent]:
        pending = [folder]
        while pending:
            current = pending.pop()
            real = os.path.realpath(current)
            if self._is_excluded(real):
                yield Skipped(current, "The folder is excluded.")
                continue
            if real in self._folders:
                yield Skipped(current, "The folder was already read through another path.")
                continue
            self._folders.add(real)
            try:
                names = [entry.name for entry in globs.list_folder(current, self._check)]
            except OSError as error:
                yield Failure(current, f"The folder cannot be listed: {_error_reason(error)}. Check the permissions.")
                continue
            if INDEX_FILES <= set(names):
                yield Skipped(current, "The folder is a jina-rag index. Page images of an index are not documents.")
                continue
            folders = []
            for name in names:
                self._check()
                path = current / name
                if _is_hidden(path):
                    yield Skipped(path, HIDDEN)
                elif path.is_symlink():
                    links.append(path)
                elif path.is_dir():
                    if not _is_pseudo(root) and _is_pseudo(path):
                        yield Skipped(path, _PSEUDO)
                    else:
                        folders.append(path)
                else:
                    yield from self._file(path, root)
            pending.extend(reversed(folders))

    def _file(self, path: Path, root: Path, *, is_root: bool = False) -> Iterator[SourceEvent]:
        real = os.path.realpath(path)
        if self._is_excluded(real):
            yield Skipped(path, "The file is excluded.")
            return
        if real in self._files:
            yield Skipped(path, f"The file was already read as {printable(str(self._files[real]))!r}.")
            return
        self._files[real] = path
        yield _classify(path, root, is_root=is_root)

    def _is_excluded(self, real: str) -> bool:
        return any(real == path or real.startswith(os.path.join(path, "")) for path in self._exclude)


def _classify(path: Path, root: Path, *, is_root: bool) -> SourceEvent:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            reason = f"The path is {_special_kind(status.st_mode)}, not a regular file."
            return Failure(path, reason) if is_root else Skipped(path, reason)
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        return Failure(path, f"The file cannot be read: {_error_reason(error)}. Check the path and the permissions.")
    suffix_kind = _KIND_OF_SUFFIX.get(path.suffix.lower())
    kind = sniff(head)
    if kind is None and suffix_kind == "a PDF" and _PDF_SIGN.search(head):
        kind = "pdf"
    if kind is None and suffix_kind == "an office file" and head.startswith((_OLE, b"PK\3\4")):
        kind = "office"
    if kind is None and is_text_document(path, head):
        kind = "text"
    if kind is not None:
        return SourceFile(path, root, printable(path.relative_to(root).as_posix()), kind)
    if not head and (suffix_kind or is_root):
        return Failure(path, "The file is empty (0 bytes). Replace or re-export the file.")
    if suffix_kind:
        return Failure(path, f"The content is not {suffix_kind}, contrary to the suffix. Rename or replace the file.")
    way_out = _WAY_OUT_OF_SUFFIX.get(path.suffix.lower(), "Convert the file to PDF")
    if is_root:
        reason = "The content is neither a PDF, an image, an office file nor a text file in a supported format."
        return Failure(path, f"{reason} {way_out}.")
    return Skipped(path, f"The file is not a PDF, image, office or text file. {way_out} to index it.")


def _is_inside(link: Path, root: Path) -> bool:
    """Return whether the target of a link is in the folder `root`."""
    target, folder = os.path.realpath(link), os.path.realpath(root)
    return target == folder or target.startswith(os.path.join(folder, ""))


def _is_pseudo(path: Path) -> bool:
    """Return whether a path is on a file system of devices or processes, whose files and folders may have no end."""
    real = os.path.realpath(path)
    if os.name != "posix" or real == _SHARED_MEMORY or real.startswith(_SHARED_MEMORY + "/"):
        return False
    if any(real == folder or real.startswith(folder + "/") for folder in _PSEUDO_FOLDERS):
        return True
    with suppress(OSError):
        return os.stat(real).st_dev in _pseudo_devices()
    return False


@cache
def _pseudo_devices() -> frozenset[int]:
    """Return the device numbers of the file systems that are mounted at `_PSEUDO_FOLDERS`, wherever else they are."""
    devices = set()
    for folder in _PSEUDO_FOLDERS:
        with suppress(OSError):
            if os.path.ismount(folder):
                devices.add(os.stat(folder).st_dev)
    return frozenset(devices)


def _is_hidden(path: Path) -> bool:
    if path.name.startswith("."):
        return True
    try:
        attributes: int = getattr(path.lstat(), "st_file_attributes", 0)  # Windows only
    except OSError:
        return False  # `_file` reports a missing or unreadable entry
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)


def _special_kind(mode: int) -> str:
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device" if is_device else "a special file")


def _error_reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _printable_character(character: str) -> str:
    if character == "\ufffd":
        return "\ufffd\ufffd"
    if "\udc80" <= character <= "\udcff":
        return f"\ufffd{ord(character) - 0xDC00:02X}"
    if "\ud800" <= character <= "\udfff":  # on Windows: half of a UTF-16 surrogate pair
        return f"\ufffdu{ord(character):04X}"
    return character
