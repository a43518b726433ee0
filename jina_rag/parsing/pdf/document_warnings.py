"""Error messages, warnings and the limit of the resolution, shared by the PDF renderers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from jina_rag.config import IngestSettings
from jina_rag.parsing.legibility import LEGIBLE_SCALE
from jina_rag.parsing.renderer import fitting_scale
from jina_rag.parsing.slices import is_elongated

ADVICE = " Set another IngestSettings.renderer (--renderer)."
BLANK = "The page has content, but the screenshot is blank." + ADVICE
UNIFORM = "The page has content, but the screenshot has a single color." + ADVICE
UNDRAWN = "A picture on the page cannot be decoded and is missing in the screenshot." + ADVICE
MISSING_PAGE = "The page is missing in the file, and the screenshot is blank." + ADVICE
REPAIRED = "The file is damaged and was repaired as far as possible. Check the pages."
WRONG_COUNT = "The page tree of the file is damaged. The pages were counted again. Check the pages."
BEYOND_REPAIR = "The file is damaged and cannot be repaired"
NO_AREA = "The page has no area. Replace or re-export the file."
NOT_RENDERED = "The page cannot be rendered"
# Maximum length of the name of a font in a warning, in characters.
_MAX_NAME = 60
# The pictures of a page decide about its resolution if they cover at least this fraction of the page.
_MIN_PICTURE_SHARE = 0.3


def undrawn_font(name: str) -> str:
    """Return the warning for a font whose text is missing in the screenshot.

    Args:
        name: Name of the font in the PDF.
    """
    return f'The font "{name[:_MAX_NAME]}" is not embedded, and its text is not drawn.{ADVICE}'


def undescribed_font(name: str) -> str:
    """Return the warning for a font whose characters are guessed.

    Args:
        name: Name of the font in the PDF.
    """
    return f'The font "{name[:_MAX_NAME]}" is not embedded; its text may have wrong characters. Embed the fonts.'


def missing_contents(warnings: Sequence[str]) -> int:
    """Return how much of a page is missing in its screenshot: 2 for everything, 1 for a part, 0 for nothing.

    Another renderer may draw a page with missing contents better.

    Args:
        warnings: Warnings of the page.
    """
    levels = {BLANK: 2, UNIFORM: 2, MISSING_PAGE: 2}
    return max((levels.get(warning, int(warning.endswith(ADVICE))) for warning in warnings), default=0)


def encryption_message(any_tried: bool) -> str:
    """Return the message for an encrypted document.

    Args:
        any_tried: Whether at least one password was configured for the document.
    """
    cause = "none of the configured passwords is valid" if any_tried else "no password is configured"
    return f"The document is encrypted, and {cause}. Set IngestSettings.passwords (--password)."


def zoom_of(
    width: float, height: float, settings: IngestSettings, warnings: list[str], *, picture_zoom: float = 0.0
) -> float:
    """Return the resolution of a page in pixels per point.

    A page with a very tall or very wide picture is rendered at the resolution of the picture, if this is higher than
    `settings.dpi`. If the screenshot would exceed the limits, the resolution is reduced and a warning is appended.

    Args:
        width: Width of the page in points.
        height: Height of the page in points.
        settings: Settings of the ingestion, for `dpi` and `limits`.
        warnings: Warnings of the page, to which the warning is appended.
        picture_zoom: Resolution of the picture that covers the page, in pixels per point; 0 for other pages.
    """
    zoom = settings.dpi / 72
    if is_elongated(width * picture_zoom, height * picture_zoom, settings):
        zoom = max(zoom, picture_zoom)
    zoom *= fitting_scale(width * zoom, height * zoom, settings.limits)
    if zoom * 72 < settings.dpi:
        warnings.append(
            f"The page measures {width:.0f} x {height:.0f} points and was rendered at {zoom * 72:.0f} dpi "
            f"instead of {settings.dpi}."
        )
    elif zoom < picture_zoom * LEGIBLE_SCALE and is_elongated(width * picture_zoom, height * picture_zoom, settings):
        warnings.append(
            f"The picture on the page was scaled down to {zoom / picture_zoom:.0%} of its width. Small text may be "
            "unreadable. Raise Limits.max_render_pixels (--limit max_render_pixels=N)."
        )
    return zoom


def picture_zoom_of(pictures: Iterable[tuple[float, float]], width: float, height: float) -> float:
    """Return the resolution of the pictures on a page in pixels per point; 0 if they cover little of the page.

    Args:
        pictures: Number of pixels of each raster image, and its area as a fraction of the page.
        width: Width of the page in points.
        height: Height of the page in points.
    """
    pixels = area = 0.0
    for count, share in pictures:
        pixels += count
        area += share
    return math.sqrt(pixels / (area * width * height)) if area >= _MIN_PICTURE_SHARE else 0.0
