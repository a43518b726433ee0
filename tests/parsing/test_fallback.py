"""The second PDF renderer: used where the first one fails, is too slow or draws nothing, unless settings name one."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.raw_pdf import LINES, one_page, text_content
from PIL import Image

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError, PasswordRequiredError
from jina_rag.parsing import fallback
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.fallback import FallbackRenderer
from jina_rag.parsing.pages import DocumentStart, read_pages
from jina_rag.parsing.pdf.document_warnings import ADVICE, BLANK, UNDRAWN, UNIFORM
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.process import WorkerLostError
from jina_rag.types import Failure, Page, PageScreenshot

WORDS = sum(len(line.split()) for line in LINES)
PICTURE = "/Type/XObject/Subtype/Image/Width 100/Height 100/BitsPerComponent 8/ColorSpace/DeviceRGB"
AUTO = IngestSettings(dpi=72, ocr="never")


def source_of(path):
    return SourceFile(path, path.parent, path.name, "pdf")


def encrypted_attachments(path):
    """Write a PDF whose attachments are encrypted and whose pages are not; MuPDF asks for a password."""
    filters = "/CF<</StdCF<</CFM/AESV2/AuthEvent/EFOpen/Length 16>>>>/StmF/Identity/StrF/Identity/EFF/StdCF"
    keys = f"/O<{'41' * 32}>/U<{'42' * 32}>"
    objects = {6: f"<</Filter/Standard/V 4/R 4/Length 128/P -4{filters}{keys}>>"}
    return one_page(path, objects=objects, trailer="/Encrypt 6 0 R/ID[<00><00>]")


def with_picture(path, data, filter_name, content="q 612 0 0 792 0 0 cm /I Do Q", picture=PICTURE):
    body = b"<<%s/Length %d/Filter/%s>>\nstream\n%s\nendstream" % (
        picture.encode(), len(data), filter_name.encode(), data,
    )  # fmt: skip
    return one_page(path, content, resources="/XObject<</I 10 0 R>>", objects={10: body})


@pytest.mark.parametrize("isolate", [True, False])
def test_other_renderer_opens_what_the_first_cannot(tmp_path, isolate):
    source = source_of(encrypted_attachments(tmp_path / "a.pdf"))
    start, page, _ = read_pages([source], IngestSettings(dpi=72, ocr="never", isolate=isolate))
    assert isinstance(start, DocumentStart)
    assert start.warnings == (
        "The document was read with pypdfium2, because pymupdf could not open it (The document is encrypted, and no "
        "password is configured).",
    )
    assert (len(page.words), page.warnings) == (WORDS, ())


def test_named_renderer_is_not_replaced_and_its_message_names_the_other(tmp_path):
    source = source_of(encrypted_attachments(tmp_path / "a.pdf"))
    with pytest.raises(PasswordRequiredError, match=r'Another renderer is installed: renderer="pypdfium2"'):
        open_document(source, IngestSettings(renderer="pymupdf"))
    (failure,) = read_pages([source], IngestSettings(renderer="pymupdf"))
    assert isinstance(failure, Failure)
    assert failure.reason.endswith('Another renderer is installed: renderer="pypdfium2" (--renderer pypdfium2).')
    with open_document(source, IngestSettings(renderer="pypdfium2")) as document:
        assert (len(document.render(1).words), document.warnings) == (WORDS, ())


def test_a_document_that_both_refuse_has_the_message_of_the_first(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 nothing")
    with pytest.raises(DocumentError, match=r"damaged and cannot be repaired.*re-export the file\.$"):
        open_document(source_of(tmp_path / "a.pdf"), AUTO)


def test_a_page_that_the_first_draws_blank_is_drawn_by_the_other(tmp_path):
    path = with_picture(tmp_path / "a.pdf", b"junk" * 100, "LZWDecode")
    with open_document(source_of(path), AUTO) as document:
        page = document.render(1)
    assert page.warnings == ("The page was read with pypdfium2, because pymupdf draws it blank.",)
    assert page.screenshot.image.convert("L").getextrema()[1] > 100


@pytest.mark.parametrize(
    ("data", "filter_name"),
    [(b"junk" * 100, "FlateDecode"), (b"", "DCTDecode"), (b"junk" * 100, "JPXDecode"), (b"x", "RunLengthDecode")],
)
@pytest.mark.parametrize("renderer", ["auto", "pymupdf", "pypdfium2"])
def test_undecodable_pictures_are_a_warning(tmp_path, renderer, data, filter_name):
    settings = IngestSettings(dpi=72, renderer=renderer)
    other = {"pymupdf": 'renderer="pypdfium2"', "pypdfium2": 'renderer="pymupdf"', "auto": "Both renderers"}[renderer]
    path = with_picture(tmp_path / "page.pdf", data, filter_name)
    with open_document(source_of(path), settings) as document:
        (warning,) = document.render(1).warnings
    assert warning.startswith((BLANK.removesuffix(ADVICE), UNIFORM.removesuffix(ADVICE)))
    assert other in warning
    content = text_content() + "q 300 0 0 300 100 100 cm /I Do Q"
    path = with_picture(tmp_path / "part.pdf", data, filter_name, content)
    with open_document(source_of(path), settings) as document:
        page = document.render(1)
    (warning,) = page.warnings
    assert warning.startswith(UNDRAWN.removesuffix(ADVICE))
    assert other in warning
    assert len(page.words) == WORDS


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
def test_undecodable_jbig2_picture_is_a_warning(tmp_path, renderer):
    header = "000000003000010000001300000064000000640000000000000000000000"
    data = bytes.fromhex(header + "0000000124000100000012" + "00000064000000640000000000000000" + "0000")
    picture = PICTURE.replace("8/ColorSpace/DeviceRGB", "1/ColorSpace/DeviceGray")
    path = with_picture(tmp_path / "a.pdf", data, "JBIG2Decode", picture=picture)
    with open_document(source_of(path), IngestSettings(dpi=72, renderer=renderer)) as document:
        assert len(document.render(1).warnings) == 1


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
@pytest.mark.parametrize("content", ["0 0 0.4 rg 0 0 612 792 re f", "q 612 0 0 792 0 0 cm /I Do Q"])
def test_pages_of_one_color_are_no_warning(tmp_path, renderer, content):
    """A dark divider page, drawn or as a picture, is complete."""
    picture = PICTURE.replace("Width 100/Height 100", "Width 1/Height 1")
    body = f"<<{picture}/Length 3>>\nstream\n020\nendstream"
    path = one_page(tmp_path / "a.pdf", content, resources="/XObject<</I 10 0 R>>", objects={10: body})
    with open_document(source_of(path), IngestSettings(dpi=72, renderer=renderer)) as document:
        assert document.render(1).warnings == ()


def test_a_page_that_takes_too_long_is_read_by_the_other(tmp_path):
    """MuPDF draws each of 500 million tiles; PDFium does not."""
    tile = "/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 0.03 0.03]/XStep 0.03/YStep 0.03/Resources<<>>"
    content = "0 0 1 rg 0 0 0.02 0.02 re f"
    path = one_page(
        tmp_path / "a.pdf",
        "/Pattern cs /P scn 0 0 612 792 re f\n" + text_content(),
        resources="/Pattern<</P 10 0 R>>",
        objects={10: f"<<{tile}/Length {len(content)}>>\nstream\n{content}\nendstream"},
    )
    settings = IngestSettings(dpi=72, ocr="never", limits=Limits(max_seconds=2))
    _, page, _ = read_pages([source_of(path)], settings)
    assert len(page.words) == WORDS
    assert page.warnings[-1].startswith("The page was read with pypdfium2, because pymupdf ")


class ScriptedRenderer(Renderer):
    """Renderer whose pages are texts, warnings or errors that the test defines."""

    def __init__(self, source, settings, pages, calls):
        super().__init__(source, settings)
        self._pages, self._calls, self._count = pages, calls, len(pages)

    def render_with_images(self, number):
        self._calls.append((self._settings.renderer, number))
        page = self._pages[number - 1]
        if isinstance(page, Exception):
            raise page
        screenshot = PageScreenshot(Image.new("RGB", (5, 5)), 72)
        return Page("a.pdf", Path("a.pdf"), number, self._count, screenshot, warnings=page), ()

    def close(self, *, wait=True):
        self._calls.append((self._settings.renderer, "close"))


def lost(reason="the time limit of 60 s was exceeded"):
    error = LimitExceededError(f"The page cannot be rendered: {reason}.")
    error.__cause__ = WorkerLostError(reason, timed_out=True)
    return error


@pytest.fixture
def scripted(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    calls = []

    def open_scripted(first, other, renderer="auto"):
        pages = {"pymupdf": first, "pypdfium2": other}

        def open_with(settings, _):
            if isinstance(pages[settings.renderer], Exception):
                calls.append((settings.renderer, "open"))
                raise pages[settings.renderer]
            return ScriptedRenderer(None, settings, pages[settings.renderer], calls)

        names = ("pymupdf", "pypdfium2")
        return FallbackRenderer(source_of(tmp_path / "a.pdf"), IngestSettings(renderer=renderer), names, open_with)

    return open_scripted, calls


def test_after_one_timeout_the_other_renderer_reads_the_remaining_pages(scripted):
    open_scripted, calls = scripted
    document = open_scripted([lost(), lost(), lost()], [(), (), ()])
    warnings = [document.render(number).warnings for number in (1, 2, 3)]
    document.close()
    assert calls[:4] == [("pymupdf", 1), ("pypdfium2", 1), ("pypdfium2", 2), ("pypdfium2", 3)]
    assert warnings[0][0].startswith("The page was read with pypdfium2, because pymupdf could not render it (The page")
    assert warnings[2] == (
        "The page was read with pypdfium2, because pymupdf crashed or exceeded the time limit before.",
    )
    assert sorted(calls[4:]) == [("pymupdf", "close"), ("pypdfium2", "close")]


def test_after_a_timeout_of_both_no_further_time_is_spent_on_the_other(scripted):
    open_scripted, calls = scripted
    document = open_scripted([lost(), ()], [lost(), lost()])
    with pytest.raises(LimitExceededError, match="60 s"):
        document.render(1)
    assert document.render(2).warnings == ()
    assert calls == [("pymupdf", 1), ("pypdfium2", 1), ("pymupdf", 2)]


def test_a_page_that_fails_does_not_change_the_renderer_of_others(scripted):
    open_scripted, calls = scripted
    document = open_scripted([DocumentError("The page is damaged. Re-export."), ()], [(), ()])
    assert document.render(1).warnings == (
        "The page was read with pypdfium2, because pymupdf could not render it (The page is damaged).",
    )
    assert document.render(2).warnings == ()
    assert calls == [("pymupdf", 1), ("pypdfium2", 1), ("pymupdf", 2)]


def test_the_page_with_fewer_missing_contents_is_used(scripted):
    open_scripted, _ = scripted
    document = open_scripted([(BLANK,), (UNDRAWN,), (UNIFORM,)], [(UNDRAWN,), (BLANK,), (UNIFORM,)])
    assert len(document.render(1).warnings) == 2
    assert [document.render(number).warnings for number in (2, 3)] == [
        (UNDRAWN.replace(ADVICE, fallback._BOTH),),
        (UNIFORM.replace(ADVICE, fallback._BOTH),),
    ]


def test_the_number_of_pages_is_that_of_the_first_renderer(scripted):
    open_scripted, _ = scripted
    document = open_scripted([(), DocumentError("Damaged.")], [(), (), ()])
    assert (document.page_count, document.render(2).count) == (2, 2)


def test_a_named_renderer_is_never_replaced(scripted):
    open_scripted, calls = scripted
    document = open_scripted([DocumentError("Damaged."), lost(), (BLANK,)], [(), (), ()], renderer="pymupdf")
    for number in (1, 2):
        with pytest.raises(DocumentError, match=r'renderer="pypdfium2"'):
            document.render(number)
    assert 'renderer="pypdfium2"' in document.render(3).warnings[0]
    assert {name for name, _ in calls} == {"pymupdf"}


def test_a_document_that_both_refuse_is_opened_once_by_each(scripted):
    open_scripted, calls = scripted
    with pytest.raises(LimitExceededError, match="20 pages"):
        open_scripted(LimitExceededError("20 pages."), DocumentError("other"))
    assert calls == [("pymupdf", "open"), ("pypdfium2", "open")]
