"""Mail files (room `parsing.text_formats`): fields, text, images, attachments, damage."""

from __future__ import annotations

import contextlib
import random
from email.message import EmailMessage
from pathlib import Path

from helpers.portfolios import pdf_content
from helpers.text_files import has_red, mail, red_png

from jina_rag import DocumentIndex, load_pages
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.text_formats.mail import MailAttachments, read_mail
from jina_rag.testing import FakeEmbedder

SETTINGS = IngestSettings(ocr="never", dpi=60, isolate=False)


def texts_of(path: Path, message: EmailMessage) -> dict[str, str]:
    """Return document id → text of the pages."""
    path.write_bytes(message.as_bytes())
    return {page.doc_id: page.text for page in load_pages(path, settings=SETTINGS)}


def test_fields_and_html_text_are_on_the_page(tmp_path):
    texts = texts_of(tmp_path / "m.eml", mail("<p>Text with <b>markup</b></p>"))
    assert texts == {
        "m.eml": "From: Ängström <a@example.org> To: b@example.org Subject: Angebot für März Text with markup"
    }


def test_attachments_and_attached_mails_are_documents(tmp_path):
    message = mail()
    message.add_attachment(
        pdf_content(tmp_path / "a.pdf", "invoice text"), maintype="application", subtype="pdf", filename="invoice.pdf"
    )
    message.add_attachment("name,value\na,1\n", subtype="csv", filename="table.csv")
    message.add_attachment(b"binary", maintype="application", subtype="x-unknown", filename="a.xyz")
    message.add_attachment(mail(subject="Forwarded"))
    texts = texts_of(tmp_path / "m.eml", message)
    assert list(texts) == ["m.eml", "m.eml#invoice.pdf", "m.eml#table.csv", "m.eml#Forwarded.eml"]
    assert texts["m.eml"].endswith("Attachments: invoice.pdf, table.csv, a.xyz, Forwarded.eml")
    assert texts["m.eml#table.csv"] == "name value a 1"
    assert texts["m.eml#Forwarded.eml"].endswith("Plain text of the mail")


def test_attachments_of_a_mail_in_an_index(tmp_path):
    message = mail()
    message.add_attachment(
        pdf_content(tmp_path / "a.pdf", "invoice text"), maintype="application", subtype="pdf", filename="invoice.pdf"
    )
    folder = tmp_path / "mails"
    folder.mkdir()
    (folder / "m.eml").write_bytes(message.as_bytes())
    with DocumentIndex.open(tmp_path / "index", embedder=FakeEmbedder()) as index:
        assert index.ingest(folder, settings=SETTINGS).documents == 2
        assert [record.doc_id for record in index.documents()] == ["m.eml", "m.eml#invoice.pdf"]
        assert index.ingest(folder, settings=SETTINGS).unchanged == 2
        (folder / "m.eml").rename(tmp_path / "m.eml")
        (folder / "a.txt").write_text("text")
        assert index.ingest(folder, settings=SETTINGS, sync=True).removed == 2


def test_images_of_the_text_are_shown_and_are_no_attachments(tmp_path):
    message = mail('<p>Chart:</p><img src="cid:chart@x"><img src="cid:missing" alt="other">')
    html = message.get_payload()[1]
    html.add_related(red_png(), "image", "png", cid="<chart@x>", filename="chart.png")
    path = tmp_path / "m.eml"
    path.write_bytes(message.as_bytes())
    (page,) = load_pages(path, settings=SETTINGS)
    assert has_red(page.screenshot.image)
    assert "1 image outside the file" in page.warnings[0]


def test_unknown_encodings_and_damaged_fields_are_read_as_far_as_possible():
    content = b'Subject: =?x-none?B?SGVsbG8=?= text\nContent-Type: text/plain; charset="x-none"\n\nGr\xfc\xdfe'
    message = read_mail(content)
    assert message.text == "Grüße"
    assert dict(message.fields)["Subject"].endswith("text")


def test_mutated_mails_never_raise(tmp_path):
    message = mail("<p>Text</p>")
    message.add_attachment(b"content", maintype="application", subtype="pdf", filename="a.pdf")
    message.add_attachment(mail())
    seed = message.as_bytes()
    path = tmp_path / "m.eml"
    source = SourceFile(path, tmp_path, "m.eml", "text")
    numbers = random.Random(5)
    read_count = 0
    for _ in range(300):
        content = bytearray(seed)
        for _ in range(numbers.randrange(1, 12)):
            position = numbers.randrange(len(content))
            if numbers.random() < 0.5:
                content[position] = numbers.randrange(256)
            else:
                del content[position : position + numbers.randrange(40)]
        path.write_bytes(content)
        with MailAttachments(source, SETTINGS) as attachments:
            for index in range(len(attachments.names)):
                with contextlib.suppress(DocumentError):
                    attachments.read(index)
                    read_count += 1
    assert read_count > 100
