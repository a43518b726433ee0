"""Repair of character maps that lose letters of ligatures, for PyMuPDF.

Some programs write only the last letter of a ligature into the ToUnicode map of a font, so that "office" is read as
"oice". The names of the glyphs, such as ``f_f_i``, have all letters. The maps are completed in memory, before the font
is read for the first time.

Source: Adobe Glyph List Specification, section 2 (names of glyphs that stand for several characters).
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

Handle: TypeAlias = Any

_LIGATURE: Final = re.compile(r"(?:[A-Za-z]_)+[A-Za-z]|f[fil]|ff[il]|ft")
_DIFFERENCE: Final = re.compile(r"(\d+)|/([^\s/\[\]<>()]+)")
_SECTION: Final = re.compile(rb"beginbf(char|range)(.*?)endbf\1", re.DOTALL)
_CODE: Final = rb"<\s*([0-9A-Fa-f]{1,2})\s*>\s*"
_TEXT: Final = rb"<\s*((?:[0-9A-Fa-f]{4})+)\s*>"
_CHARACTER: Final = re.compile(_CODE + _TEXT)
_RANGE: Final = re.compile(_CODE + _CODE + _TEXT)
_END: Final = re.compile(rb"endcmap(?!.*endcmap)", re.DOTALL)


class LigatureMaps:
    """Completes the character maps of the fonts of a document, once per font.

    Args:
        document: The ``pymupdf.Document``, which is changed in memory.
    """

    def __init__(self, document: Handle) -> None:
        self._document = document
        self._checked: set[int] = set()

    def complete(self, number: int) -> None:
        """Complete the maps of the fonts of a page. The page must not have been drawn or read before.

        Args:
            number: Page number, 1-based.
        """
        for xref, _, kind, *_ in self._document.get_page_fonts(number - 1):
            if xref and xref not in self._checked and kind != "Type0":
                self._checked.add(xref)
                self._complete_font(xref)

    def _complete_font(self, xref: int) -> None:
        kind, differences = self._document.xref_get_key(xref, "Encoding/Differences")
        map_kind, reference = self._document.xref_get_key(xref, "ToUnicode")
        if kind != "array" or map_kind != "xref":
            return
        ligatures = {code: text for code, text in _ligatures(differences).items() if len(text) > 1}
        if not ligatures:
            return
        stream = int(reference.split()[0])
        content = self._document.xref_stream(stream) or b""
        texts = _texts(content)
        missing = {code: text for code, text in ligatures.items() if _is_part(texts.get(code, ""), text)}
        if missing:
            lines = b"".join(b"<%02X> <%s>\n" % (code, _hexadecimal(text)) for code, text in sorted(missing.items()))
            section = b"%d beginbfchar\n%sendbfchar\nendcmap" % (len(missing), lines)
            self._document.update_stream(stream, _END.sub(lambda _: section, content, count=1))


def _ligatures(differences: str) -> dict[int, str]:
    """Return the letters of each code of an encoding whose glyph is a ligature of Latin letters."""
    texts: dict[int, str] = {}
    code = 0
    for number, name in _DIFFERENCE.findall(differences):
        if number:
            code = int(number)
            continue
        if code <= 0xFF and _LIGATURE.fullmatch(base := name.partition(".")[0]):
            texts[code] = base.replace("_", "")
        code += 1
    return texts


def _texts(content: bytes) -> dict[int, str]:
    """Return the text of each code of one byte in a ToUnicode map."""
    texts: dict[int, str] = {}
    for section in _SECTION.finditer(content):
        if section[1] == b"char":
            for code, text in _CHARACTER.findall(section[2]):
                texts[int(code, 16)] = _decoded(text)
            continue
        for first, last, text in _RANGE.findall(section[2]):
            start = _decoded(text)
            for code in range(int(first, 16), int(last, 16) + 1):
                texts[code] = start[:-1] + chr(ord(start[-1]) + code - int(first, 16))
    return texts


def _is_part(text: str, letters: str) -> bool:
    """Return whether a text of the map is a part of the letters of a ligature, or missing."""
    return len(text) < len(letters) and text in letters


def _decoded(text: bytes) -> str:
    return bytes.fromhex(text.decode("ascii")).decode("utf-16-be", "replace")


def _hexadecimal(text: str) -> bytes:
    return text.encode("utf-16-be").hex().encode("ascii")
