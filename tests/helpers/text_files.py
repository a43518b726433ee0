"""Contents of text files for tests: images, EPUB books and mails."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from email.message import EmailMessage

import numpy as np
from PIL import Image

RED = (200, 30, 30)


def red_png() -> bytes:
    """Return a PNG file whose pixels are all red."""
    file = io.BytesIO()
    Image.new("RGB", (300, 200), RED).save(file, "png")
    return file.getvalue()


def has_red(image: Image.Image) -> bool:
    """Return whether an image shows the image of `red_png`."""
    distance = np.abs(np.asarray(image.convert("RGB"), dtype=int) - RED).max(axis=2)
    return bool((distance < 40).sum() > 500)


def epub(chapters: Sequence[str], image: bytes = b"") -> bytes:
    """Return the content of an EPUB book.

    Args:
        chapters: HTML of each chapter.
        image: Content of the file ``image.png`` of the book.
    """
    content = io.BytesIO()
    numbers = range(len(chapters))
    items = "".join(f'<item id="c{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in numbers)
    references = "".join(f'<itemref idref="c{n}"/>' for n in numbers)
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
            '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        archive.writestr(
            "book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/>'
            f"<manifest>{items}</manifest><spine>{references}</spine></package>",
        )
        for number, chapter in enumerate(chapters):
            markup = f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{chapter}</body></html>'
            archive.writestr(f"{number}.xhtml", markup)
        archive.writestr("image.png", image)
    return content.getvalue()


def mail(html: str = "", subject: str = "Angebot für März") -> EmailMessage:
    """Return a mail.

    Args:
        html: HTML of the mail beside its plain text; empty for a mail without HTML.
        subject: Subject of the mail.
    """
    message = EmailMessage()
    message["From"] = "Ängström <a@example.org>"
    message["To"] = "b@example.org"
    message["Subject"] = subject
    message.set_content("Plain text of the mail")
    if html:
        message.add_alternative(html, subtype="html")
    return message
