"""Generator of pages whose text layer differs from the pixels, and of sound pages as a control.

Each page is drawn with embedded fonts, of which the generator then changes the character map (ToUnicode), so that the
pixels stay the same. Texts, tables and listings were written for this project.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from helpers.garbled_texts import SAMPLES, TEXTS

Mapping: TypeAlias = Callable[[int], str]
"""Function from the code point that a glyph shows to the text that the character map states."""

_SIZE = (595, 842)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class GarbledPage:
    """A page with a wrong text layer.

    Attributes:
        name: Kind of the error, language and font.
        content: Bytes of the PDF.
        words: Words that the page shows.
        wrong: Words that the page shows and the text layer does not have.
    """

    name: str
    content: bytes
    words: tuple[str, ...]
    wrong: tuple[str, ...]


def font_named(name: str) -> Any:
    """Return a font that PyMuPDF embeds: a built-in name, or the file name of a font of matplotlib without suffix."""
    import pymupdf

    if name in ("helv", "hebo", "heit", "tiro", "tibo", "tiit", "cour", "cobo", "cjk"):
        return pymupdf.Font(name)
    import matplotlib

    return pymupdf.Font(fontfile=str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"))


def draw_page(document: Any, text: str, font: Any, *, size: float = 11, top: float = 72, rotate: int = 0) -> None:
    """Add lines of text, wrapped at the right margin, to the last page of a document."""
    import pymupdf

    page = document[-1]
    writer = pymupdf.TextWriter(page.rect)
    x, y = 60.0, top
    for line in text.splitlines():
        words = line.split(" ") if any(c.isspace() for c in line) else list(line)
        joiner = " " if any(c.isspace() for c in line) else ""
        current = ""
        for word in words:
            longer = current + joiner + word if current else word
            if font.text_length(longer, size) > _SIZE[0] - 2 * x:
                writer.append((x, y), current, font=font, fontsize=size)
                y += 1.5 * size
                longer = word
            current = longer
        if current.strip():
            writer.append((x, y), current, font=font, fontsize=size)
        y += 1.5 * size
    writer.write_text(page)


def draw_chart(document: Any, labels: list[str], font: Any, *, top: float = 500) -> None:
    """Add a bar chart with one label below each bar to the last page of a document."""
    import pymupdf

    page = document[-1]
    writer = pymupdf.TextWriter(page.rect)
    for number, label in enumerate(labels):
        x = 70 + number * 66
        page.draw_rect((x, top + 100 - 9 * number, x + 30, top + 110), fill=(0.2, 0.4, 0.7))
        writer.append((x, top + 125), label, font=font, fontsize=9)
    writer.write_text(page)


def new_document() -> Any:
    """Return a document with one empty page."""
    import pymupdf

    document = pymupdf.open()
    document.new_page(width=_SIZE[0], height=_SIZE[1])
    return document


def saved(document: Any, mappings: dict[str, Mapping | None]) -> bytes:
    """Return the PDF with changed character maps, as `changed` returns it.

    Args:
        document: The document.
        mappings: Part of a font name → mapping; None removes the character map.
    """
    document.subset_fonts()
    return changed(document.tobytes(garbage=3), mappings)


def changed(content: bytes, mappings: dict[str, Mapping | None]) -> bytes:
    """Return a PDF with changed character maps.

    Args:
        content: The PDF.
        mappings: Part of a font name → mapping; None removes the character map.
    """
    import pymupdf

    document = pymupdf.open(stream=content, filetype="pdf")
    for xref, _, _, name, *_ in document[0].get_fonts():
        for part, mapping in mappings.items():
            if part in name:
                if mapping is None:
                    document.xref_set_key(xref, "ToUnicode", "null")
                else:
                    target = int(document.xref_get_key(xref, "ToUnicode")[1].split()[0])
                    document.update_stream(target, _changed_map(document.xref_stream(target), mapping))
    return document.tobytes(garbage=3, deflate=True)


def _changed_map(cmap: bytes, mapping: Mapping) -> bytes:
    """Return a ToUnicode CMap with the targets of `mapping`."""
    entries = []
    for block in re.findall(rb"beginbfrange(.*?)endbfrange", cmap, re.DOTALL):
        for first, last, target in re.findall(rb"<(\w+)>\s*<(\w+)>\s*<(\w+)>", block):
            for offset in range(int(last, 16) - int(first, 16) + 1):
                entries.append((int(first, 16) + offset, int(target, 16) + offset))
    for block in re.findall(rb"beginbfchar(.*?)endbfchar", cmap, re.DOTALL):
        entries += [(int(code, 16), int(target, 16)) for code, target in re.findall(rb"<(\w+)>\s*<(\w{4})>", block)]
    lines = []
    for code, target in entries:
        text = mapping(target)
        if text:
            lines.append(f"<{code:04x}> <{text.encode('utf-16-be').hex()}>")
    blocks = [lines[at : at + 100] for at in range(0, len(lines), 100)]
    body = "\n".join(f"{len(block)} beginbfchar\n" + "\n".join(block) + "\nendbfchar" for block in blocks)
    return (
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CMapName /X def\n/CMapType 2 def\n"
        f"1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n{body}\nendcmap\nend\nend"
    ).encode()


def substitute(source: str, target: str) -> Mapping:
    """Return a mapping from the characters of `source` to those of `target`."""
    table = dict(zip(source, target, strict=True))
    return lambda code: table.get(chr(code), chr(code))


def rotated_alphabet(by: int) -> Mapping:
    """Return the Caesar mapping of the letters A to Z in both cases."""
    lower = _LETTERS[by:] + _LETTERS[:by]
    return substitute(_LETTERS + _LETTERS.upper(), lower + lower.upper())


def shifted_codes(by: int) -> Mapping:
    """Return the mapping of codes to other codes, as of fonts whose glyph numbers are taken for characters."""
    return lambda code: " " if code == 32 else chr(max(code + by, 1)) if code < 0xD000 else chr(code)


def private_use(code: int) -> str:
    """Map each character into the private-use area."""
    return " " if code == 32 else chr(0xE000 + code % 0x1800)


def symbols(code: int) -> str:
    """Map letters and digits to ASCII symbols."""
    marks = "!\"#$%&'()*+,-./:;<=>?@[]^_{|}~"
    return marks[code % len(marks)] if chr(code).isalnum() else chr(code)


def shuffled(characters: str, seed: int) -> Mapping:
    """Return a random mapping of characters onto each other, without fixed points."""
    target = list(characters)
    generator = random.Random(seed)
    while any(a == b for a, b in zip(characters, target, strict=True)):
        generator.shuffle(target)
    return substitute(characters, "".join(target))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def garbled_pages() -> Iterator[GarbledPage]:
    """Yield the 60 pages with a wrong text layer. OCR can read their scripts."""
    latin = ["en", "de", "fr", "fi", "pl", "es"]
    fonts = ["helv", "tiro", "cour", "DejaVuSans", "DejaVuSerif", "STIXGeneral"]
    whole: list[tuple[str, Mapping | None]] = [
        ("rot13", rotated_alphabet(13)),
        ("rot3", rotated_alphabet(3)),
        ("shifted-29", shifted_codes(-29)),
        ("shifted+31", shifted_codes(31)),
        ("atbash", substitute(_LETTERS + _LETTERS.upper(), _LETTERS[::-1] + _LETTERS.upper()[::-1])),
        ("private", private_use),
        ("symbols", symbols),
    ]
    for number in range(24):
        kind, mapping = whole[number % len(whole)]
        language, font = latin[number % len(latin)], fonts[(number + number // 6) % len(fonts)]
        yield _whole(kind, TEXTS[language], font, mapping, language)
    for number, font in enumerate(fonts):  # only a part of the letters is wrong
        letters = ("aeinorst", "abcdefghijklm", "ABCDEFGHIJKLMNOPQRSTUVWXYZaeiou")[number % 3]
        yield _whole("partial", TEXTS[latin[number]], font, shuffled(letters, number), latin[number])
    for number, font in enumerate([*fonts, "helv", "DejaVuSansMono"]):  # digits are exchanged
        text = (SAMPLES["numbers"], SAMPLES["invoice"], SAMPLES["prose with numbers"])[number % 3]
        yield _whole("digits", text, font, shuffled("0123456789", 7 + number), "en", changed=str.isdigit)
    for number, language in enumerate(["zh", "ja", "zh", "ja"]):
        mapping = (shifted_codes(977), private_use, shifted_codes(1234), private_use)[number]
        yield _whole(("shifted", "private")[number % 2], TEXTS[language], "cjk", mapping, language)
    for number, (kind, mapping) in enumerate(
        [
            ("symbols", symbols), ("shifted-29", shifted_codes(-29)), ("rot13", rotated_alphabet(13)),
            ("digits", shuffled("0123456789", 3)), ("private", private_use), ("symbols", symbols),
            ("shifted+31", shifted_codes(31)), ("digits", shuffled("0123456789", 5)), ("rot3", rotated_alphabet(3)),
            ("digits", shuffled("0123456789", 11)),
        ]
    ):  # fmt: skip
        yield _chart(kind, mapping, latin[number % len(latin)], number)
    for number, font in enumerate(["helv", "tiro", "DejaVuSans", "cour"]):
        yield _whole("one character", TEXTS[latin[number]], font, lambda code: " " if code == 32 else "A", "x")
    for number, font in enumerate(["helv", "DejaVuSerif"]):
        yield _whole("no map", TEXTS[latin[number]], font, None, latin[number])
    yield _reversed_layer("en")
    yield _reversed_layer("de")


def _whole(
    kind: str,
    text: str,
    font: str,
    mapping: Mapping | None,
    language: str,
    changed: Callable[[str], bool] | None = None,
) -> GarbledPage:
    document = new_document()
    face = font_named(font)
    draw_page(document, text, face)
    words = _words(text)
    if changed is not None:
        wrong = tuple(word for word in words if any(map(changed, word)))
    elif mapping is None:
        wrong = words
    else:
        wrong = tuple(word for word in words if "".join(mapping(ord(c)) for c in word) != word)
    return GarbledPage(f"{kind} {language} {font}", saved(document, {"": mapping}), words, wrong)


def _chart(kind: str, mapping: Mapping, language: str, number: int) -> GarbledPage:
    document = new_document()
    body, labels = TEXTS[language], SAMPLES["labels"].splitlines()
    if kind == "digits":
        labels = [str(1990 + 7 * index + number) for index in range(7)]
    else:
        labels = labels[number % 3 * 7 :][:7]
    draw_page(document, body, font_named("tiro"))
    draw_chart(document, labels, font_named("DejaVuSans"))
    words = (*_words(body), *labels)
    return GarbledPage(f"chart {kind} {language}", saved(document, {"DejaVu": mapping}), words, tuple(labels))


def _reversed_layer(language: str) -> GarbledPage:
    """Return a scan whose invisible text layer has the letters of each word in reverse order."""
    import pymupdf

    drawn = new_document()
    font = font_named("tiro")
    draw_page(drawn, TEXTS[language], font, size=12)
    page = drawn[0]
    document = new_document()
    document[0].insert_image(page.rect, pixmap=page.get_pixmap(dpi=200))
    writer = pymupdf.TextWriter(page.rect)
    for x0, _, _, y1, word, *_ in page.get_text("words"):
        writer.append((x0, y1 - 3), word[::-1], font=font, fontsize=12)
    writer.write_text(document[0], render_mode=3)
    words = _words(TEXTS[language])
    return GarbledPage(f"reversed layer {language}", saved(document, {}), words, words)


def sound_pages(only: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield (name, PDF) of the 78 sound pages.

    Args:
        only: Name of a text of `garbled_texts`; "" for all.
    """
    latin_fonts = ["helv", "tiro", "cour", "DejaVuSans", "DejaVuSerif", "STIXGeneral", "hebo", "tiit", "cmr10"]
    number = 0
    for name, text in (*TEXTS.items(), *SAMPLES.items()):
        if name == "labels" or (only and name != only):
            continue
        if name in ("zh", "ja"):
            fonts = ["cjk", "cjk"]
        elif name in ("he", "ar", "ru", "el", "vi"):
            fonts = ["DejaVuSans", "DejaVuSerif"] if name in ("ru", "el", "vi") else ["DejaVuSans"]
        else:
            fonts = [latin_fonts[(number + step) % 8] for step in range(3)]
        for font in fonts:
            document = new_document()
            draw_page(document, text, font_named(font), size=(9, 10, 11, 12)[number % 4])
            if number % 5 == 0:
                draw_chart(document, [str(1990 + 7 * index) for index in range(7)], font_named("DejaVuSans"), top=650)
            yield f"{name} {font}", saved(document, {})
            number += 1
