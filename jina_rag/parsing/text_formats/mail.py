"""Reading of mail files (``.eml``): header fields, text, and attachments."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage, Message
from typing import Final

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.parsing.attachment_readers import AttachmentReader
from jina_rag.parsing.sources import SourceFile

_FIELDS: Final = ("From", "To", "Cc", "Date", "Subject")
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
class Mail:
    """A mail.

    Attributes:
        fields: (name, value) of the header fields that are shown.
        text: Text of the mail; empty if the mail has none.
        is_html: Whether `text` is HTML.
        attachments: The attachments, and images of the text that have a file name.
    """

    fields: Sequence[tuple[str, str]]
    text: str
    is_html: bool
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
    attachments = [
        MailAttachment(_name(part), part)
        for part in message.walk()
        if part is not body and not part.is_multipart() and (part.get_content_disposition() or _name(part))
    ]
    return Mail(fields, "" if body is None else _text(body), is_html, attachments)


def _body(message: EmailMessage) -> Message | None:
    try:
        return message.get_body(("html", "plain"))
    except (AttributeError, KeyError, ValueError):  # a damaged structure
        parts = (part for part in message.walk() if part.get_content_maintype() == "text")
        return next(parts, None)


def _field(message: Message, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())[:_MAX_FIELD]
    except (
        ValueError,
        IndexError,
        AttributeError,
        TypeError,
    ):  # damaged fields, which the parser reads when they are used
        raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
        return " ".join(str(raw).split())[:_MAX_FIELD]


def _name(part: Message) -> str:
    try:
        return part.get_filename() or ""
    except (ValueError, IndexError, AttributeError, TypeError, LookupError):
        return ""


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
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            raise DocumentError("The attachment has no content. Save the attachment in the mail program.")
        return content

    def close(self) -> None:
        """Release the attachments."""
        self._attachments = []
