"""What PDF renderers say of a document, in the same sentences, and the resolution they settle on."""

from __future__ import annotations

from jina_rag.config import IngestSettings
from jina_rag.parsing.renderer import fitting_scale

BLANK = "The page has content but renders blank; its screenshot is white."
REPAIRED = "The file is damaged; it was repaired as far as possible."
BEYOND_REPAIR = "The file is damaged beyond repair"
NO_AREA = "The page has no area."
NOT_RENDERED = "The page cannot be rendered"


def needs_password(any_tried: bool) -> str:
    """The sentence on an encrypted document that stays shut."""
    cause = "none of the given passwords opens it" if any_tried else "no password was given"
    return f"The document is encrypted and {cause}."


def zoom_of(width: float, height: float, settings: IngestSettings, warnings: list[str]) -> float:
    """Pixels a point, for a page of so many points; less than asked for, with a warning, where that is too many."""
    zoom = settings.dpi / 72
    fit = fitting_scale(width * zoom, height * zoom, settings.limits)
    if fit < 1:
        zoom *= fit
        warnings.append(
            f"The page is {width:.0f} x {height:.0f} points large; "
            f"it was rendered at {zoom * 72:.0f} dpi instead of {settings.dpi}."
        )
    return zoom
