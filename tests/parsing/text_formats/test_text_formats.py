"""Text formats as pages (room `parsing.text_formats`): recognition, contents, encodings, references, limits."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pymupdf
import pytest
from helpers.text_files import epub, has_red, red_png
from PIL import Image, ImageDraw, ImageFont

from jina_rag import load_pages
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import Skipped, SourceFile, find_sources, source_file
from jina_rag.types import Failure


@pytest.fixture
def settings():
    return IngestSettings(ocr="never", dpi=60, isolate=False)


def pages_of(path: Path, settings: IngestSettings):
    return list(load_pages(path, settings=settings))


def texts_of(path: Path, content: str | bytes, settings: IngestSettings) -> list[str]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [page.text for page in pages_of(path, settings)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.html", "<h1>Report</h1><p>Sales of <b>pears</b></p>", "Report Sales of pears"),
        ("a.HTM", "<h1>Report</h1>", "Report"),
        ("a.md", "# Report\n\n* one\n* two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n", "Report • one • two a b 1 2"),
        ("a.txt", "First line\nsecond <b>line</b> & more", "First line second <b>line</b> & more"),
        ("a.csv", "name,amount\npears,12\n", "name amount pears 12"),
        ("a.tsv", "name\tamount\npears\t12\n", "name amount pears 12"),
        ("semicolon.csv", 'name;amount\n"pears; green";12\n', "name amount pears; green 12"),
        ("a.epub", epub(["<p>Chapter one</p>"]), "Chapter one"),
        (
            "a.eml",
            "Subject: Offer\nFrom: a@example.org\n\nDear customer",
            "From: a@example.org Subject: Offer Dear customer",
        ),
    ],
)
def test_text_files_become_pages_with_their_words(tmp_path, settings, name, content, words):
    (text,) = texts_of(tmp_path / name, content, settings)
    assert text.split() == words.split()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", b"abc\0def", "a text file"),
        ("a.md", b"PK\3\4" + bytes(100), "a text file"),
        ("a.html", b"\x89PNG\r\n\x1a\n\0", None),
        ("a.epub", b"PK\3\4" + b"\0" * 60, "an EPUB book"),
        ("a.eml", b"no header field\n", "a mail file"),
        ("a.png", b"<html>text</html>", "an image"),
        ("a.pdf", b"text", "a PDF"),
    ],
)
def test_suffix_and_content_decide_together(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    (event,) = find_sources([tmp_path])
    if kind is None:
        assert isinstance(event, SourceFile)
        assert event.kind == "image"
    else:
        assert isinstance(event, Failure)
        assert event.reason.startswith(f"The content is not {kind}, contrary to the suffix.")


def test_text_without_the_suffix_of_a_text_format_is_skipped(tmp_path):
    (tmp_path / "run.log").write_text("plain text")
    (event,) = find_sources([tmp_path])
    assert isinstance(event, Skipped)


@pytest.mark.parametrize(
    "content",
    [
        "Grüße aus Köln, 12 €".encode(),
        "Grüße aus Köln, 12 €".encode("utf-8-sig"),
        "Grüße aus Köln, 12 €".encode("utf-16"),
        ("Die Straße nach Köln ist schön, und die Grüße kosten überall 12 € für größere Mengen. " * 3).encode("cp1252"),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16", "windows-1252"],
)
def test_text_in_other_encodings(tmp_path, settings, content):
    (text,) = texts_of(tmp_path / "a.txt", content, settings)
    assert {"Grüße", "Köln", "€"} <= set(text.replace(",", " ").split())


def test_declared_encoding_of_html_is_used(tmp_path, settings):
    content = '<html><head><meta charset="shift_jis"></head><body>売上高の推移</body></html>'.encode("shift_jis")
    (text,) = texts_of(tmp_path / "a.html", content, settings)
    assert text == "売上高の推移"


def test_text_that_is_not_shown_is_no_word(tmp_path, settings):
    content = (
        '<p style="color:white">white</p><p style="display:none">none</p><script>script()</script>'
        '<style>.style{}</style><!-- comment --><p style="position:absolute;left:-9999px">outside</p><p>shown</p>'
    )
    assert texts_of(tmp_path / "a.html", content, settings) == ["shown"]


def test_references_are_not_followed_and_are_counted_in_a_warning(tmp_path, settings, monkeypatch):
    (tmp_path / "chart.png").write_bytes(red_png())
    path = tmp_path / "a.html"
    path.write_text(
        f'<link rel="stylesheet" href="http://127.0.0.1:9/a.css"><img src="chart.png" alt="Chart of sales">'
        f'<img src="{tmp_path / "chart.png"}"><img src=http://127.0.0.1:9/b.png><object data="chart.png"></object>'
        f'<svg width="9" height="9"><image href="file://{tmp_path / "chart.png"}" width="9" height="9"/></svg>'
        "<p>end</p>"
    )
    monkeypatch.chdir(tmp_path)
    (page,) = pages_of(path, settings)
    assert page.text.split() == ["Chart", "of", "sales", "end"]
    assert not has_red(page.screenshot.image)
    assert "The file refers to 4 images outside the file" in page.warnings[0]


def test_images_inside_the_file_are_shown(tmp_path, settings):
    data = base64.b64encode(red_png()).decode()
    path = tmp_path / "a.html"
    path.write_text(f'<p>text</p><img src="data:image/png;base64,{data}">')
    (page,) = pages_of(path, settings)
    assert has_red(page.screenshot.image)
    assert page.warnings == ()
    (tmp_path / "b.epub").write_bytes(epub(['<p>one</p><img src="image.png" alt=""/>', "<p>two</p>"], red_png()))
    first, second = pages_of(tmp_path / "b.epub", settings)
    assert has_red(first.screenshot.image)
    assert (first.text, second.text) == ("one", "two")


def test_form_feeds_start_pages_and_long_lines_are_wrapped(tmp_path, settings):
    assert texts_of(tmp_path / "a.txt", "one\ftwo", settings) == ["one", "two"]
    words = [f"w{n}" for n in range(300)]
    assert " ".join(texts_of(tmp_path / "b.txt", " ".join(words), settings)).split() == words


def test_each_full_page_of_a_long_table_has_the_names_of_the_columns(tmp_path, settings):
    rows = "".join(f"pears {n},{n}\n" for n in range(200))
    texts = texts_of(tmp_path / "a.csv", "product,amount\n" + rows, settings)
    assert len(texts) > 1
    assert all("product" in text for text in texts[:-1])
    words = " ".join(texts).split()
    assert all(words.count(f"{n}") == 2 for n in range(200))


def test_wide_table_has_landscape_pages(tmp_path, settings):
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"column {n}" for n in range(12)) + "\n" + ",".join("1" for _ in range(12)))
    (page,) = pages_of(path, settings)
    assert page.screenshot.image.width > page.screenshot.image.height


def test_thousands_of_headings_are_laid_out(tmp_path, settings):
    path = tmp_path / "a.md"
    path.write_text("\n\n".join(f"# Heading {n}\n\ntext" for n in range(4000)))
    with open_document(source_file(path), settings) as document:
        assert document.page_count > 100


def test_limit_of_pages_holds(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\f".join("page" for _ in range(20)))
    settings = IngestSettings(ocr="never", dpi=60, isolate=False, limits=Limits(max_pages=5))
    with pytest.raises(DocumentError, match="20 pages"), open_document(source_file(path), settings):
        pass


def test_pypdfium2_does_not_read_text_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("text")
    settings = IngestSettings(ocr="never", renderer="pypdfium2", isolate=False)
    with pytest.raises(DocumentError, match="PyMuPDF only"), open_document(source_file(path), settings):
        pass


def test_pages_in_worker_processes_are_the_same(tmp_path, settings):
    path = tmp_path / "a.md"
    path.write_text("# Title\n\n" + "word " * 2000)
    here = pages_of(path, settings)
    isolated = pages_of(path, IngestSettings(ocr="never", dpi=60))
    assert [page.text for page in isolated] == [page.text for page in here]
    assert len(here) > 1


def test_page_that_mupdf_cannot_lay_out_is_a_failure_with_a_reason(tmp_path, settings, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("code=4: too deep")

    monkeypatch.setattr(pymupdf.Document, "layout", fail)
    (tmp_path / "a.html").write_text("<p>text</p>")
    with (
        pytest.raises(DocumentError, match="cannot be read as text: too deep"),
        open_document(source_file(tmp_path / "a.html"), settings),
    ):
        pass


def test_ocr_reads_the_images_of_a_text_file_only(tmp_path):
    (tmp_path / "a.csv").write_text("k,v\n1,2\n3,4\n")
    (page,) = load_pages(tmp_path / "a.csv", settings=IngestSettings(isolate=False))
    assert page.text.split() == ["k", "v", "1", "2", "3", "4"]
    font = ImageFont.load_default(size=48)
    image = Image.new("RGB", (500, 120), "white")
    ImageDraw.Draw(image).text((20, 30), "harbour master", fill="black", font=font)
    file = io.BytesIO()
    image.save(file, "png")
    data = base64.b64encode(file.getvalue()).decode()
    (tmp_path / "b.html").write_text(f'<p>text</p><img src="data:image/png;base64,{data}">')
    (page,) = load_pages(tmp_path / "b.html", settings=IngestSettings(isolate=False))
    assert page.text.split() == ["text", "harbour", "master"]


@pytest.mark.parametrize("columns", [3, 12, 30, 60])
def test_each_cell_of_a_wide_table_is_on_a_page(tmp_path, settings, columns):
    rows = [[f"column{n}" for n in range(columns)], *([f"v{row}x{n}" for n in range(columns)] for row in range(10))]
    pages = texts_of(tmp_path / "a.csv", "\n".join(map(",".join, rows)), settings)
    words = " ".join(pages).split()
    assert {cell for row in rows for cell in row} <= set(words)
    repeated_count = {name: words.count(name) for name in ("column1", "v3x1")}
    assert set(repeated_count.values()) == {1}, "only the first column is repeated"


def test_rows_longer_than_the_others_keep_their_cells(tmp_path, settings):
    content = "a,b\n1,2,3\n4\n" + "5,6\n" * 300 + "7,8,late,cells\n"
    words = " ".join(texts_of(tmp_path / "a.csv", content, settings)).split()
    assert {"3", "4", "7", "8", "late", "cells"} <= set(words)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", "|" + "|".join(f"w{n}" * 3 for n in range(30)) + "|\n|" + "---|" * 30),
        ("a.html", "<table><tr>" + "".join(f"<td>{f'w{n}' * 3}</td>" for n in range(30)) + "</tr></table>"),
        ("b.html", "<pre>" + " ".join(f"w{n}" * 3 for n in range(300)) + "</pre>"),
        ("c.md", "```\n" + " ".join(f"w{n}" * 3 for n in range(300)) + "\n```"),
        ("a.epub", epub(["<pre>" + " ".join(f"w{n}" * 3 for n in range(300)) + "</pre>"])),
    ],
)
def test_content_wider_than_a_page_is_not_lost(tmp_path, settings, name, content):
    text = content if isinstance(content, str) else " ".join(f"w{n}" * 3 for n in range(300))
    expected = [f"w{n}" * 3 for n in range(300) if f"w{n}w{n}w{n}" in text]
    assert " ".join(texts_of(tmp_path / name, content, settings)).split() == expected


def test_word_longer_than_a_line_continues_on_the_next_line(tmp_path, settings):
    word = "".join(f"{n:04d}" for n in range(200))
    for name in ("a.txt", "a.html", "a.md"):
        assert "".join(" ".join(texts_of(tmp_path / name, word, settings)).split()) == word


def test_content_beyond_the_widest_page_is_a_warning(tmp_path, settings):
    path = tmp_path / "a.html"
    path.write_text('<div style="width:9000px">' + "word " * 900 + "</div>")
    (page, *_) = pages_of(path, settings)
    assert "wider than the page" in page.warnings[0]


def test_empty_lines_and_lines_around_blocks_keep_their_order(tmp_path, settings):
    lines = [str(n) if n % 7 else "" for n in range(1000)]
    words = " ".join(texts_of(tmp_path / "a.txt", "\n".join(lines), settings)).split()
    assert words == [line for line in lines if line]
