"""Reading of mail files (``.eml``): header fields, text, and attachments."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage, Message
from typing import Final

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.parsing.attachment_base import AttachmentReader
from jina_rag.parsing.sources import SourceFile

_FIELDS: Final = ("From", "To", "Cc", "Date", "Subject")
_IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff"})
_MAX_FIELD: Final = 1000
"""Maximum length of a header field on the page, in characters."""


@dataclass(frozen=True, slots=True)
class MailAttachment:
    """An attachment of a mail.

    Attributes:
        name: File name; empty if the mail names none.
        part: The part of the mail that contains the attachment.
    """

    name: str
    part: Message


@dataclass(frozen=True, slots=True)
class MailImage:
    """An image that the text of a mail shows.

    Attributes:
        content_type: Media type, such as ``"image/png"``.
        content: Content of the image file.
    """

    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail.

    Attributes:
        fields: (name, value) of the header fields that are shown.
        text: Text of the mail; empty if the mail has none.
        is_html: Whether `text` is HTML.
        images: Content ID → image, for the images that the text shows.
        attachments: The attachments: named parts, attached mails, and images that the text does not show.
    """

    fields: Sequence[tuple[str, str]]
    text: str
    is_html: bool
    images: Mapping[str, MailImage]
    attachments: Sequence[MailAttachment]


def read_mail(content: bytes) -> Mail:
    """Return the mail in a file. Damaged parts are read as far as possible.

    Args:
        content: Content of the file.
    """
    message = email.message_from_bytes(content, policy=email.policy.default)
    fields = [(name, value) for name in _FIELDS if (value := _field(message, name))]
    body = _body(message)
    is_html = body is not None and body.get_content_type() == "text/html"
    text = "" if body is None else _text(body)
    images: dict[str, MailImage] = {}
    attachments = []
    for part in _parts(message):
        content_id = _field(part, "Content-ID").strip("<>")
        if is_html and content_id and part.get_content_type() in _IMAGE_TYPES and f"cid:{content_id}" in text:
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                images[content_id] = MailImage(part.get_content_type(), payload)
                continue
        if part is not body and (_is_mail(part) or part.get_content_disposition() or _name(part)):
            attachments.append(MailAttachment(_name(part), part))
    return Mail(fields, text, is_html, images, attachments)


def _parts(message: Message) -> Iterator[Message]:
    """Yield the parts of a mail that contain no other parts. A mail that is attached is one part."""
    pending = [message]
    while pending:
        part = pending.pop()
        if part is not message and _is_mail(part):
            yield part
        elif part.is_multipart():
            pending.extend(reversed(_children(part)))
        else:
            yield part


def _children(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _is_mail(part: Message) -> bool:
    return part.get_content_type() == "message/rfc822" and bool(_children(part))


def _body(message: EmailMessage) -> Message | None:
    try:
        return message.get_body(("html", "plain"))
    except (AttributeError, KeyError, ValueError):  # a damaged structure
        parts = (part for part in message.walk() if part.get_content_maintype() == "text")
        return next(parts, None)


def _field(message: Message, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())[:_MAX_FIELD]
    except (ValueError, LookupError, AttributeError, TypeError):  # a damaged field, which is parsed when it is used
        raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
        return " ".join(str(raw).split())[:_MAX_FIELD]


def _name(part: Message) -> str:
    try:
        name = part.get_filename() or ""
    except (ValueError, IndexError, AttributeError, TypeError, LookupError):
        name = ""
    if not name and _is_mail(part):
        name = _field(_children(part)[0], "Subject") or "mail"
    # Mail programs name an attached mail by its subject alone.
    return name + ".eml" if _is_mail(part) and not name.lower().endswith(".eml") else name


def _text(part: Message) -> str:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    for encoding in (part.get_content_charset() or "utf-8", "utf-8", "cp1252"):
        try:
            return content.decode(encoding)
        except (LookupError, ValueError):
            continue
    return content.decode("cp1252", "replace")


class MailAttachments(AttachmentReader):
    """The attachments of a mail file."""

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        super().__init__(source, settings)
        try:
            self._attachments = read_mail(source.path.read_bytes()).attachments
        except OSError as error:
            raise DocumentError(f"The file cannot be read: {error.strerror}. Check the permissions.") from error

    @property
    def names(self) -> Sequence[str]:
        """Names of the attachments, as stored in the file: possibly empty, repeated, or with any characters."""
        return [attachment.name for attachment in self._attachments]

    def read(self, index: int) -> bytes:
        """Return the content of an attachment.

        Args:
            index: Position in `names`, from 0.

        Raises:
            DocumentError: If the content cannot be decoded.
        """
        part = self._attachments[index].part
        content = _children(part)[0].as_bytes() if _is_mail(part) else part.get_payload(decode=True)
        if not isinstance(content, bytes):
            raise DocumentError("The attachment has no content. Save the attachment in the mail program.")
        return content

    def close(self) -> None:
        """Release the attachments."""
        self._attachments = []
