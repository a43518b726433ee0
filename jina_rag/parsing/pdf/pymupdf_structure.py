"""Repair of the page tree and of the page boxes of a PDF that is open in MuPDF, in memory.

MuPDF believes the number of pages that a document announces, and draws a white page for a CropBox outside the page. The
functions read the objects of the document and replace wrong values before a page is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.page_boxes import crop_to_contents, is_huge, is_valid, visible_box
from jina_rag.types import Box

_INHERITED = ("Resources", "MediaBox", "CropBox", "Rotate")
_REMOVED_UNIT = "RemovedUserUnit"
_REPLACED = "ReplacedMissingPage"
_BOX_NAMES = ("MediaBox", "CropBox")


@dataclass(slots=True)
class _Tree:
    """Pages of a page tree.

    Attributes:
        pages: (page, inherited): the page object, and its attributes that nodes above the page define.
        is_damaged: Whether the tree has nodes without pages, nodes that refer to nodes above, or entries that are no
            pages.
    """

    pages: list[tuple[Handle, dict[str, Handle]]]
    is_damaged: bool = False


def count_pages(pymupdf: ModuleType, document: Handle, limit: int) -> tuple[int, bool]:
    """Return the number of pages of a document, and whether the page tree was wrong and was rebuilt in memory.

    Args:
        pymupdf: The module ``pymupdf``.
        document: A pymupdf.Document.
        limit: Number of pages after which the count ends.
    """
    library = pymupdf.mupdf
    pdf = _pdf_document(library, document)
    catalog = library.pdf_dict_gets(library.pdf_trailer(pdf), "Root")
    root = library.pdf_dict_gets(catalog, "Pages")
    tree = _read_tree(library, root, limit)
    if not tree.pages and not library.pdf_is_array(library.pdf_dict_gets(root, "Kids")):
        tree = _all_pages(library, pdf, limit)
    count = len(tree.pages)
    if not count or (not tree.is_damaged and _announced(pymupdf, document) == count):
        return count, False
    _rebuild(library, pdf, catalog, tree)
    return count, True


def _pdf_document(library: ModuleType, document: Handle) -> Handle:
    if document.is_closed:
        raise ValueError("document closed")
    return library.pdf_document_from_fz_document(document.this)


def _announced(pymupdf: ModuleType, document: Handle) -> int:
    try:
        return int(document.page_count)
    except (RuntimeError, ValueError, pymupdf.mupdf.FzErrorBase):
        return -1


def _read_tree(library: ModuleType, root: Handle, limit: int) -> _Tree:
    """Return the pages below a node in order. Nodes that several nodes share count several times, within the limit."""
    if not library.pdf_is_dict(root):
        return _Tree([])
    tree = _Walk(library, limit).read(root)
    return tree if tree is not None else _Walk(library, limit, reads_once=True).read(root) or _Tree([])


class _Walk:
    """Reader of a page tree.

    Args:
        library: The module ``pymupdf.mupdf``.
        limit: Number of pages after which the walk ends.
        reads_once: Whether to read a node once if several nodes share the node. A few nodes that share each other can
            stand for billions of pages.
    """

    def __init__(self, library: ModuleType, limit: int, *, reads_once: bool = False) -> None:
        self._library = library
        self._limit = limit
        self._reads_once = reads_once

    def read(self, root: Handle) -> _Tree | None:
        """Return the pages; None if the limits are exceeded because of nodes that several nodes share."""
        library = self._library
        tree = _Tree([])
        open_nodes: set[int] = set()
        read_nodes: set[int] = set()
        shares_nodes = False
        nodes = 0
        stack: list[tuple[Handle, dict[str, Handle], int]] = [(root, {}, 0)]
        while stack and len(tree.pages) <= self._limit:
            node, inherited, ended = stack.pop()
            if ended:
                open_nodes.discard(ended)
                continue
            kids = library.pdf_dict_gets(node, "Kids") if library.pdf_is_dict(node) else None
            if kids is None or not library.pdf_is_array(kids):
                self._add(tree, node, inherited)
                continue
            nodes += 1
            number = library.pdf_to_num(node)
            shares_nodes |= number in read_nodes
            if number in open_nodes or (self._reads_once and number in read_nodes) or nodes > self._limit:
                tree.is_damaged = True
                continue
            if number:
                open_nodes.add(number)
                read_nodes.add(number)
                stack.append((node, {}, number))
            tree.is_damaged |= library.pdf_to_name(library.pdf_dict_gets(node, "Type")) == "Page"
            values = {name: library.pdf_dict_gets(node, name) for name in _INHERITED}
            inherited = {
                **inherited,
                **{name: value for name, value in values.items() if not library.pdf_is_null(value)},
            }
            count = library.pdf_array_len(kids)
            stack += [(library.pdf_array_get(kids, at), inherited, 0) for at in reversed(range(count))]
        is_exceeded = len(tree.pages) > self._limit or nodes > self._limit
        return None if is_exceeded and shares_nodes and not self._reads_once else tree

    def _add(self, tree: _Tree, node: Handle, inherited: dict[str, Handle]) -> None:
        """Add a page to `tree`. A missing object is a page that cannot be rendered; any other value is no page."""
        library = self._library
        if not library.pdf_is_dict(node):
            if library.pdf_is_indirect(node):
                tree.pages.append((node, inherited))
            else:
                tree.is_damaged = True
            return
        name = library.pdf_to_name(library.pdf_dict_gets(node, "Type"))
        if name == "Page" or _has_contents(library, node):
            tree.pages.append((node, inherited))
        tree.is_damaged |= name not in ("Page", "")


def _has_contents(library: ModuleType, node: Handle) -> bool:
    return any(not library.pdf_is_null(library.pdf_dict_gets(node, key)) for key in ("Contents", "MediaBox"))


def _all_pages(library: ModuleType, pdf: Handle, limit: int) -> _Tree:
    """Return all page objects of a document whose catalog refers to no page tree, in the order of the objects."""
    tree = _Tree([], is_damaged=True)
    for number in range(1, library.pdf_xref_len(pdf)):
        if len(tree.pages) > limit:
            break
        reference = library.pdf_new_indirect(pdf, number, 0)
        try:
            name = library.pdf_to_name(library.pdf_dict_gets(reference, "Type"))
        except (RuntimeError, library.FzErrorBase):
            continue  # a damaged object is no page
        if name == "Page":
            tree.pages.append((reference, {}))
    return tree


def _rebuild(library: ModuleType, pdf: Handle, catalog: Handle, tree: _Tree) -> None:
    """Replace the page tree by a tree with one node, and a missing catalog by a catalog with the page tree."""
    if not library.pdf_is_dict(catalog):
        catalog = library.pdf_add_object(pdf, library.pdf_new_dict(pdf, 2))
        library.pdf_dict_puts(catalog, "Type", library.pdf_new_name("Catalog"))
        library.pdf_dict_puts(library.pdf_trailer(pdf), "Root", catalog)
    root = library.pdf_add_object(pdf, library.pdf_new_dict(pdf, 4))
    kids = library.pdf_new_array(pdf, len(tree.pages))
    for page, inherited in tree.pages:
        reference = page if library.pdf_is_indirect(page) else library.pdf_add_object(pdf, page)
        if library.pdf_is_dict(reference):
            for name, value in inherited.items():
                if library.pdf_is_null(library.pdf_dict_gets(reference, name)):
                    library.pdf_dict_puts(reference, name, value)
            library.pdf_dict_puts(reference, "Type", library.pdf_new_name("Page"))
            library.pdf_dict_puts(reference, "Parent", root)
        library.pdf_array_push(kids, reference)
    library.pdf_dict_puts(root, "Type", library.pdf_new_name("Pages"))
    library.pdf_dict_puts(root, "Kids", kids)
    library.pdf_dict_puts(root, "Count", library.pdf_new_int(len(tree.pages)))
    library.pdf_dict_puts(catalog, "Pages", root)


def replace_missing_page(pymupdf: ModuleType, document: Handle, number: int) -> bool:
    """Replace a page whose object does not exist or is no dictionary by an empty page, in memory.

    Args:
        pymupdf: The module ``pymupdf``.
        document: A pymupdf.Document.
        number: Page number, 1-based.

    Returns:
        Whether the page is missing in the file.
    """
    library = pymupdf.mupdf
    pdf = _pdf_document(library, document)
    page = library.pdf_lookup_page_obj(pdf, number - 1)
    if library.pdf_is_dict(page):
        return not library.pdf_is_null(library.pdf_dict_gets(page, _REPLACED))
    empty = library.pdf_new_dict(pdf, 2)
    for name, value in (("Type", "Page"), (_REPLACED, "true")):
        library.pdf_dict_puts(empty, name, library.pdf_new_name(value))
    library.pdf_update_object(pdf, library.pdf_to_num(page), empty)
    return True


def repair_page(pymupdf: ModuleType, document: Handle, number: int) -> float:
    """Replace wrong boxes and the UserUnit of a page in memory, and return the UserUnit.

    After the call, the boxes are valid, the page is rotated by a multiple of 90 degrees, and a unit of the page is a
    point for MuPDF.

    Args:
        pymupdf: The module ``pymupdf``.
        document: A pymupdf.Document.
        number: Page number, 1-based.

    Returns:
        Length of a unit of the page in points, 1 for almost every page.
    """
    library = pymupdf.mupdf
    pdf = _pdf_document(library, document)
    page = library.pdf_lookup_page_obj(pdf, number - 1)
    media, crop = (_numbers(library, library.pdf_dict_gets_inheritable(page, name)) for name in _BOX_NAMES)
    box = visible_box(media, crop)
    unit = _user_unit(library, page, box)
    rotation = library.pdf_dict_gets_inheritable(page, "Rotate")
    if not library.pdf_is_null(rotation):
        degrees = library.pdf_to_real(rotation) if library.pdf_is_number(rotation) else 0.0
        # As PDFium, which drops the remainder; MuPDF rounds to the nearest multiple.
        quarters = int(degrees / 90) % 4 if degrees >= 0 else -(int(-degrees / 90) % 4) % 4
        if quarters * 90 != degrees:
            library.pdf_dict_puts(page, "Rotate", library.pdf_new_int(quarters * 90))
    if is_huge(box):
        _put_box(library, pdf, page, box)
        box = crop_to_contents(box, _content_boxes(document, number, box))
    # MuPDF normalizes boxes whose corners are in another order.
    expected = media if crop is None else crop
    if expected is None or sorted(expected[::2]) + sorted(expected[1::2]) != [box[0], box[2], box[1], box[3]]:
        _put_box(library, pdf, page, box)
    return unit


def _put_box(library: ModuleType, pdf: Handle, page: Handle, box: Box) -> None:
    for name in _BOX_NAMES:
        values = library.pdf_new_array(pdf, 4)
        for side in box:
            library.pdf_array_push(values, library.pdf_new_real(side))
        library.pdf_dict_puts(page, name, values)


def _content_boxes(document: Handle, number: int, box: Box) -> list[Box]:
    """Return the boxes of the contents of a page in page coordinates (y axis up)."""
    page = document.load_page(number - 1)
    rotation = page.rotation
    page.set_rotation(0)
    try:
        entries = [tuple(entry[1]) for entry in page.get_bboxlog()]
    finally:
        page.set_rotation(rotation)
    return [(box[0] + x0, box[3] - y1, box[0] + x1, box[3] - y0) for x0, y0, x1, y1 in entries]


def _user_unit(library: ModuleType, page: Handle, box: Box) -> float:
    """Return the UserUnit, and remove it from the page. 1 if the UserUnit would give the page no usable size."""
    value = library.pdf_dict_gets(page, "UserUnit")
    if library.pdf_is_null(value):
        value = library.pdf_dict_gets(page, _REMOVED_UNIT)  # the page was rendered before
        if library.pdf_is_null(value):
            return 1.0
    unit = library.pdf_to_real(value) if library.pdf_is_number(value) else 1.0
    library.pdf_dict_puts(page, _REMOVED_UNIT, value)
    library.pdf_dict_dels(page, "UserUnit")
    scaled = tuple(side * unit for side in box)
    return unit if unit > 0 and is_valid(scaled) and not is_huge(scaled) else 1.0  # type: ignore[arg-type]


def _numbers(library: ModuleType, values: Handle) -> list[float] | None:
    """Return the numbers of an array, at most five; None for no array."""
    if not library.pdf_is_array(values):
        return None
    items = [library.pdf_array_get(values, at) for at in range(min(library.pdf_array_len(values), 5))]
    return [library.pdf_to_real(item) for item in items if library.pdf_is_number(item)]
