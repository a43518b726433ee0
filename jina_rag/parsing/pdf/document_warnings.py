"""Error messages, warnings and the limit of the resolution, shared by the PDF renderers."""

from __future__ import annotations

from jina_rag.config import IngestSettings
from jina_rag.parsing.renderer import fitting_scale

BLANK = "The page has content, but the screenshot is blank. Set another IngestSettings.renderer (--renderer)."
REPAIRED = "The file is damaged and was repaired as far as possible. Check the pages."
BEYOND_REPAIR = "The file is damaged and cannot be repaired"
NO_AREA = "The page has no area. Replace or re-export the file."
NOT_RENDERED = "The page cannot be rendered"


def encryption_message(any_tried: bool) -> str:
    """Return the message for an encrypted document.

    Args:
        any_tried: Whether at least one password was configured for the document.
    """
    cause = "none of the configured passwords is valid" if any_tried else "no password is configured"
    return f"The document is encrypted, and {cause}. Set IngestSettings.passwords (--password)."


def zoom_of(width: float, height: float, settings: IngestSettings, warnings: list[str]) -> float:
    """Return the resolution of a page in pixels per point.

    If the screenshot would exceed the limits, the resolution is reduced and a warning is appended.

    Args:
        width: Width of the page in points.
        height: Height of the page in points.
        settings: Settings of the ingestion, for `dpi` and `limits`.
        warnings: Warnings of the page, to which the warning is appended.
    """
    zoom = settings.dpi / 72
    fit = fitting_scale(width * zoom, height * zoom, settings.limits)
    if fit < 1:
        zoom *= fit
        warnings.append(
            f"The page measures {width:.0f} x {height:.0f} points and was rendered at {zoom * 72:.0f} dpi "
            f"instead of {settings.dpi}."
        )
    return zoom
