"""Detection of fonts whose characters MuPDF can only guess, because they are neither embedded nor described."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from jina_rag.parsing.pdf.base import Handle

# Maximum number of fonts of a page that are checked. Each takes 10 microseconds.
_MAX_FONTS = 100


def undescribed_fonts(pymupdf: ModuleType, document: Handle, number: int) -> list[str]:
    """Return the names of the fonts of a page that have no font file and no meaning of their codes, sorted.

    The codes of such a font are numbers of glyphs in a font file that the PDF does not contain.

    Args:
        pymupdf: The module ``pymupdf``.
        document: A pymupdf.Document.
        number: Page number, 1-based.
    """
    library = pymupdf.mupdf
    page = library.pdf_lookup_page_obj(library.pdf_document_from_fz_document(document.this), number - 1)
    fonts = library.pdf_dict_gets(library.pdf_dict_gets_inheritable(page, "Resources"), "Font")
    count = min(library.pdf_dict_len(fonts), _MAX_FONTS)
    return sorted(set(_undescribed(library, (library.pdf_dict_get_val(fonts, at) for at in range(count)))))


def _undescribed(library: ModuleType, fonts: Iterator[Handle]) -> Iterator[str]:
    get = library.pdf_dict_gets
    for font in fonts:
        if library.pdf_to_name(get(font, "Subtype")) != "Type0":
            continue
        if library.pdf_to_name(get(font, "Encoding")) not in ("Identity-H", "Identity-V"):
            continue
        descendant = library.pdf_array_get(get(font, "DescendantFonts"), 0)
        descriptor = get(descendant, "FontDescriptor")
        ordering = library.pdf_to_text_string(get(get(descendant, "CIDSystemInfo"), "Ordering"))
        has_file = any(library.pdf_is_stream(get(descriptor, name)) for name in ("FontFile", "FontFile2", "FontFile3"))
        if ordering == "Identity" and not has_file and not library.pdf_is_stream(get(font, "ToUnicode")):
            yield library.pdf_to_name(get(font, "BaseFont"))
