"""Which documents lie under the given paths: a walk that reports every entry it meets and never hangs on one.

What a file is, its first bytes decide; the suffix only tells what its owner believes, which matters for one
thing: a file that claims to be a document and is not has *failed*, any other file that is none is *skipped*.
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
"""What tells that a folder is an index, not a folder of documents."""
_CLAIMS = {
    "a PDF": ".pdf",
    "an image": ".png .jpg .jpeg .jpe .jfif .tif .tiff .gif .bmp .webp",
    "an office file": ".docx .docm .dotx .doc .odt .rtf .pptx .pptm .ppsx .ppt .pps .odp .xlsx .xlsm .xlsb .xls .ods",
}
_CLAIM_OF_SUFFIX = {suffix: claim for claim, suffixes in _CLAIMS.items() for suffix in suffixes.split()}
"""What a file's name says it is."""
_IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Compound files hold much else: Outlook messages, installers, thumbnails.
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Readers accept junk before the header, up to this many bytes (PDF 1.7, annex H, note 13).
_HEADER_BYTES = 1024
_BMP_HEADER_SIZES = {12, 40, 52, 56, 64, 108, 124}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A document to be read.

    Attributes:
        path: The file, as reached from the path that was given.
        root: The folder that was given, or the folder of the file that was given.
        doc_id: `path` relative to `root` with forward slashes, made printable (see `printable`).
        kind: What its first bytes say it is.
        skip_pages: Pages that need not be read, because an earlier run that was interrupted has them.
        revision: Hash of the file's bytes, where it is known; labels what is cached of it.
    """

    path: Path
    root: Path
    doc_id: str
    kind: Kind
    skip_pages: frozenset[int] = frozenset()
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry passed over on purpose, and why, in one sentence."""

    path: Path
    reason: str


SourceEvent: TypeAlias = "SourceFile | Skipped | Failure"
"""What a walk says of one entry."""


def path_list(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """One path or several, as a list.

    Raises:
        InvalidInputError: If there is none, one is no path, or one is empty, which would mean the current folder: an
            unset variable of a shell is one.
    """
    names = list(paths) if isinstance(paths, Iterable) and not isinstance(paths, str | bytes | os.PathLike) else [paths]
    for name in names:
        if not isinstance(name, str | os.PathLike):
            raise InvalidInputError(f"A path is {name!r}: name files and folders by text or by pathlib.Path.")
    if not names:
        raise InvalidInputError("No path was given: name at least one file or folder to read.")
    if any(not os.fspath(name).strip() for name in names):
        raise InvalidInputError('A path is empty: name a file or a folder to read, or "." for the current folder.')
    return names


def find_sources(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    exclude: Collection[str | os.PathLike[str]] = (),
    check: Callable[[], None] = lambda: None,
) -> Iterator[SourceEvent]:
    """Walk files and folders, in the order given and sorted by name within each folder.

    Every file comes once, however many links lead to it; links are followed after everything else under
    their root, so that a document keeps its real name. Hidden entries are skipped. Nothing but regular files
    is ever opened. Two documents under different roots may have the same `doc_id`: the index tells them
    apart.

    Args:
        paths: Files, folders, and globs such as ``reports/**/*.pdf``: ``*`` stays within a folder, ``**`` crosses
            folders. A file given here is read even if hidden, and fails if it is no document.
        exclude: Files and folders to stay out of, such as the index itself, with all that lies in them, whatever path
            or link leads there.
        check: Called for every entry that is looked at; what it raises ends the walk.

    Returns:
        An iterator that looks at the disk as it goes.

    Raises:
        InvalidInputError: At once, if a path is empty or does not exist, or none is given.
    """
    roots = [_expanded(Path(path), check) for path in path_list(paths)]
    walk = _Walk({os.path.realpath(path) for path in exclude}, check)
    return walk.run(itertools.chain.from_iterable(roots))


def _expanded(root: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """What a path stands for: itself, or what it matches as a glob where nothing has that very name."""
    if os.path.lexists(root):
        return iter([root])
    if not globs.has_wildcards(str(root)):
        raise InvalidInputError(f"There is no file or folder {printable(str(root))!r}: check the path.")
    paths = globs.find(str(root), check)
    first = next(paths, None)
    if first is None:
        raise InvalidInputError(f"Nothing matches {printable(str(root))!r}: check the path and its wildcards.")
    return itertools.chain([first], paths)


def source_file(path: str | os.PathLike[str]) -> SourceFile:
    """The one document at `path`.

    Raises:
        InvalidInputError: If nothing is there, or it is not a document; the message is the reason.
    """
    event = next(find_sources(path), Skipped(Path(path), "it is an empty folder."))
    if isinstance(event, SourceFile) and Path(path) == event.path:
        return event
    reason = "it is a folder." if isinstance(event, SourceFile) else event.reason
    raise InvalidInputError(f"{printable(str(path))!r} is not one document: {reason}")


def printable(name: str) -> str:
    r"""Write a file name so that it can be encoded as UTF-8, reversibly.

    Names that are valid text come back unchanged, line breaks and all. A byte that is not UTF-8, which
    Python holds as a lone surrogate, becomes U+FFFD and two hexadecimal digits; U+FFFD itself is doubled.

    >>> printable("bad\udcff.pdf")
    'bad�FF.pdf'
    """
    return "".join(_printable_character(character) for character in name)


def sniff(head: bytes) -> Kind | None:
    """What the first bytes of a file say it is; None for anything but a PDF, an image or an office file.

    Args:
        head: The first 1,024 bytes, or all there are.
    """
    if head.lstrip(b"\xef\xbb\xbf\x00\t\n\r\f ").startswith(b"%PDF-"):
        return "pdf"
    if _is_image(head):
        return "image"
    return "office" if _is_office(head) else None


def _is_image(head: bytes) -> bool:
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head.startswith(b"BM"):  # begins many a text: the size of the second header must be one that exists
        return int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES
    return head.startswith(_IMAGE_STARTS)


def _is_office(head: bytes) -> bool:
    """Rich text, OpenDocument (which says so in its first entry), or Office Open XML (which begins with its list)."""
    if head.startswith(b"{\\rtf"):
        return True
    if not head.startswith(b"PK\3\4"):
        return False
    if head[30:38] == b"mimetype":
        return head[38:].startswith(b"application/vnd.oasis.opendocument.")
    # The first entry's name: an archive that merely holds such a file somewhere is none.
    return head[30:].startswith((b"[Content_Types].xml", b"_rels/.rels", b"docProps/", b"word/", b"xl/", b"ppt/"))


class _Walk:
    """One run of `find_sources`: what was seen so far."""

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
            # Links found inside a linked folder join the end of the list; `_folders` ends the loops.
            link = links.pop(0)
            if not link.exists():
                yield Failure(link, "The link leads nowhere: its target does not exist.")
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
                yield Skipped(current, "It is excluded from reading.")
                continue
            if real in self._folders:
                yield Skipped(current, "The folder is read already, by another path.")
                continue
            self._folders.add(real)
            try:
                names = [entry.name for entry in globs.list_folder(current, self._check)]
            except OSError as error:
                yield Failure(current, f"The folder cannot be listed: {_cause(error)}.")
                continue
            if INDEX_FILES <= set(names):
                yield Skipped(current, "It is an index of jina-rag, whose page images are no documents.")
                continue
            folders = []
            for name in names:
                self._check()
                path = current / name
                if _is_hidden(path):
                    yield Skipped(path, "It is hidden.")
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
            yield Skipped(path, "It is excluded from reading.")
            return
        if real in self._files:
            yield Skipped(path, f"It is the same file as {printable(str(self._files[real]))!r}.")
            return
        self._files[real] = path
        yield _classify(path, root, is_root=is_root)

    def _is_excluded(self, real: str) -> bool:
        return any(real == place or real.startswith(os.path.join(place, "")) for place in self._exclude)


def _classify(path: Path, root: Path, *, is_root: bool) -> SourceEvent:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            reason = f"It is {_special(status.st_mode)}, not a file."
            return Failure(path, reason) if is_root else Skipped(path, reason)
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        return Failure(path, f"The file cannot be read: {_cause(error)}.")
    claim = _CLAIM_OF_SUFFIX.get(path.suffix.lower())
    kind = sniff(head)
    if kind is None and claim == "a PDF" and b"%PDF-" in head:
        kind = "pdf"
    if kind is None and claim == "an office file" and head.startswith((_OLE, b"PK\3\4")):
        kind = "office"
    if kind is not None:
        return SourceFile(path, root, printable(path.relative_to(root).as_posix()), kind)
    if not head and (claim or is_root):
        return Failure(path, "The file is empty (0 bytes).")
    if claim:
        return Failure(path, f"The content is not {claim}, whatever the name says.")
    if is_root:
        return Failure(path, "The content is neither a PDF, an image nor an office file of a known kind.")
    return Skipped(path, "It is not a PDF, image or office file.")


def _is_hidden(path: Path) -> bool:
    if path.name.startswith("."):
        return True
    try:
        attributes: int = getattr(path.lstat(), "st_file_attributes", 0)  # Windows only
    except OSError:
        return False  # gone or unreadable: `_file` says so with a reason
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)


def _special(mode: int) -> str:
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device" if is_device else "something special")


def _cause(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _printable_character(character: str) -> str:
    if character == "\ufffd":
        return "\ufffd\ufffd"
    if "\udc80" <= character <= "\udcff":
        return f"\ufffd{ord(character) - 0xDC00:02X}"
    if "\ud800" <= character <= "\udfff":  # Windows: half of a UTF-16 pair
        return f"\ufffdu{ord(character):04X}"
    return character
