"""Discovery of documents under files, folders and globs.

The walk reports every entry and opens regular files only, so that a named pipe cannot block it. The first bytes of a
file determine its kind. The suffix only separates failures from skips: a file with the suffix of a document and other
content *fails*, and any other file that is not a document is *skipped*.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from jina_rag import globs
from jina_rag.errors import InvalidInputError
from jina_rag.types import Failure

Kind: TypeAlias = Literal["pdf", "image", "office"]

INDEX_FILES = frozenset({"manifest.sqlite3", "images"})
"""Names of entries whose presence identifies a folder as an index."""
_SUFFIXES = {
    "a PDF": ".pdf",
    "an image": ".png .jpg .jpeg .jpe .jfif .tif .tiff .gif .bmp .webp",
    "an office file": ".docx .docm .dotx .doc .odt .rtf .pptx .pptm .ppsx .ppt .pps .odp .xlsx .xlsm .xlsb .xls .ods",
}
_KIND_OF_SUFFIX = {suffix: suffix_kind for suffix_kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
"""Suffix → kind of file that the suffix suggests."""
_IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Header of OLE compound files: old office formats, but also Outlook messages, installers and thumbnails.
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Readers accept a PDF header within the first 1,024 bytes (PDF 1.7, annex H, note 13).
_HEADER_BYTES = 1024
_BMP_HEADER_SIZES = {12, 40, 52, 56, 64, 108, 124}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A document found by `find_sources`.

    Attributes:
        path: Path of the file, below the path passed to `find_sources`.
        root: The folder passed to `find_sources`, or the parent folder of a file passed to it.
        doc_id: `path` relative to `root` with forward slashes, in printable form (see `printable`).
        kind: ``"pdf"``, ``"image"`` or ``"office"``, from the first bytes of the file.
        skip_pages: 1-based numbers of pages that an earlier, interrupted run already indexed.
        revision: Hash of the file content for cache keys; empty if not computed.
    """

    path: Path
    root: Path
    doc_id: str
    kind: Kind
    skip_pages: frozenset[int] = frozenset()
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder skipped on purpose.

    Attributes:
        path: Path of the file or folder.
        reason: The reason, in one sentence.
    """

    path: Path
    reason: str


SourceEvent: TypeAlias = "SourceFile | Skipped | Failure"
"""Event of the walk for one entry: a document, a skip or a failure."""


def path_list(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Return one or more paths as a list.

    Args:
        paths: A path, or an iterable of paths. Empty strings are rejected because an unset shell variable would
            otherwise select the current folder.

    Raises:
        InvalidInputError: If no path is passed, or a path is empty or not a string or path object.
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
    check: Callable[[], None] = lambda: None,
) -> Iterator[SourceEvent]:
    """Find documents under files, folders and globs.

    Paths are visited in the order of `paths`, the entries of a folder sorted by name. Each file is returned once, even
    if several links point to it. Links are followed after all other entries under their root, so that a document keeps
    the path of the actual file. Hidden entries are skipped. Documents under different roots may have the same `doc_id`;
    the index stores them separately.

    Args:
        paths: Files, folders and globs, for example ``reports/**/*.pdf``: ``*`` matches within a folder, ``**`` across
            folders. A file passed directly is read even if hidden, and fails if it is not a document.
        exclude: Files and folders to exclude with their contents, for example the index folder, also when reached
            through links.
        check: Called for every entry visited; an exception from it stops the walk.

    Returns:
        A lazy iterator of documents, skips and failures.

    Raises:
        InvalidInputError: If no path is passed, or a path is empty or does not exist. Raised before the first item.
    """
    roots = [_expand(Path(path), check) for path in path_list(paths)]
    walk = _Walk({os.path.realpath(path) for path in exclude}, check)
    return walk.run(itertools.chain.from_iterable(roots))


def _expand(root: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Return the path itself if it exists, or else the paths that match it as a glob."""
    if os.path.lexists(root):
        return iter([root])
    if not globs.has_wildcards(str(root)):
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
    raise InvalidInputError(f"{printable(str(path))!r} is not a single document. {reason} Pass one document.")


def printable(name: str) -> str:
    r"""Return a file name in a reversible form that can be encoded as UTF-8.

    Valid names are returned unchanged, including line breaks. A byte that is not valid UTF-8 (a lone surrogate in the
    Python string) becomes U+FFFD followed by two hexadecimal digits. U+FFFD itself is doubled.

    Args:
        name: The file name or path.

    >>> printable("bad\udcff.pdf")
    'bad�FF.pdf'
    """
    return "".join(_printable_character(character) for character in name)


def sniff(head: bytes) -> Kind | None:
    """Return the kind of a file from its first bytes; None for other formats.

    Args:
        head: The first 1,024 bytes, or the whole content of a shorter file.
    """
    if head.lstrip(b"\xef\xbb\xbf\x00\t\n\r\f ").startswith(b"%PDF-"):
        return "pdf"
    if _is_image(head):
        return "image"
    return "office" if _is_office(head) else None


def _is_image(head: bytes) -> bool:
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head.startswith(b"BM"):  # text files may also start with BM: check the size of the second header
        return int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES
    return head.startswith(_IMAGE_STARTS)


def _is_office(head: bytes) -> bool:
    """Return whether the content is RTF, Office Open XML, or OpenDocument, whose first archive entry is "mimetype"."""
    if head.startswith(b"{\\rtf"):
        return True
    if not head.startswith(b"PK\3\4"):
        return False
    if head[30:38] == b"mimetype":
        return head[38:].startswith(b"application/vnd.oasis.opendocument.")
    # Compare the name of the first entry: other archives may contain these names further down.
    return head[30:].startswith((b"[Content_Types].xml", b"_rels/.rels", b"docProps/", b"word/", b"xl/", b"ppt/"))


class _Walk:
    """One run of `find_sources`, with the files and folders visited so far."""

    def __init__(self, exclude: set[str], check: Callable[[], None]) -> None:
        self._exclude = exclude
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
            # Links inside a linked folder are appended to the list; `_folders` prevents cycles.
            link = links.pop(0)
            if not link.exists():
                yield Failure(link, "The target of the link does not exist. Restore the target, or delete the link.")
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
                yield Failure(current, f"The folder cannot be listed: {_error_reason(error)}. Check its permissions.")
                continue
            if INDEX_FILES <= set(names):
                yield Skipped(current, "The folder is a jina-rag index; its page images are not documents.")
                continue
            folders = []
            for name in names:
                self._check()
                path = current / name
                if _is_hidden(path):
                    yield Skipped(path, "The file or folder is hidden.")
                elif path.is_symlink():
                    links.append(path)
                elif path.is_dir():
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
        return Failure(path, f"The file cannot be read: {_error_reason(error)}. Check the path and its permissions.")
    suffix_kind = _KIND_OF_SUFFIX.get(path.suffix.lower())
    kind = sniff(head)
    if kind is None and suffix_kind == "a PDF" and b"%PDF-" in head:
        kind = "pdf"
    if kind is None and suffix_kind == "an office file" and head.startswith((_OLE, b"PK\3\4")):
        kind = "office"
    if kind is not None:
        return SourceFile(path, root, printable(path.relative_to(root).as_posix()), kind)
    if not head and (suffix_kind or is_root):
        return Failure(path, "The file is empty (0 bytes). Replace the file, or export it again.")
    if suffix_kind:
        return Failure(path, f"The content is not {suffix_kind}, contrary to the suffix. Rename or replace the file.")
    if is_root:
        reason = "The content is neither a PDF, an image nor an office file in a supported format. Convert it to PDF."
        return Failure(path, reason)
    return Skipped(path, "The file is not a PDF, image or office file.")


def _is_hidden(path: Path) -> bool:
    if path.name.startswith("."):
        return True
    try:
        attributes: int = getattr(path.lstat(), "st_file_attributes", 0)  # Windows only
    except OSError:
        return False  # missing or unreadable: `_file` reports the reason
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
