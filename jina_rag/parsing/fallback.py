"""Rendering with a second PDF renderer, where the first one fails, exceeds the time limit, or draws nothing.

Only the default setting (``renderer="auto"``) tries another renderer. If the settings name a renderer, the messages
name the other one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from jina_rag.config import IngestSettings, RendererName
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing.pdf.document_warnings import ADVICE, missing_contents
from jina_rag.parsing.renderer import Renderer, check_size
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.process import WorkerLostError
from jina_rag.types import Box, Page

_Rendered: TypeAlias = tuple[Page, tuple[Box, ...]]
_BOTH = " Both renderers draw it so. Re-export the file."
# Maximum length of an error message inside a warning, in characters.
_MAX_REASON = 90


class FallbackRenderer(Renderer):
    """A thread-safe `Renderer` that uses two renderers for one document.

    A page is rendered by the first renderer. The other one renders a page that the first one cannot render, or that the
    first one draws blank although the page has content. After a crash or timeout of the first renderer, the other one
    renders the remaining pages, so that a document costs at most one timeout before the other renderer is tried.

    Args:
        source: The document, a PDF.
        settings: Settings of the ingestion.
        names: Name of the first renderer, and of the other installed renderer; None if no other one is installed.
        open_with: Function that opens the document with settings that name a renderer. The second argument says whether
            the renderer is the first one.

    Raises:
        DocumentError: The error of the first renderer, if no renderer can open the document.
    """

    def __init__(
        self,
        source: SourceFile,
        settings: IngestSettings,
        names: tuple[RendererName, RendererName | None],
        open_with: Callable[[IngestSettings, bool], Renderer],
    ) -> None:
        super().__init__(source, settings)
        check_size(source.path, settings.limits)
        self._first_name, self._other_name = names
        self._open_with = open_with
        self._first: Renderer | None = None
        self._other: Renderer | None = None
        self._other_failed = settings.renderer != "auto" or self._other_name is None
        self._is_first_lost = False
        self._lock = threading.Lock()
        try:
            self._first = open_with(replace(settings, renderer=self._first_name), True)
        except DocumentError as error:
            other = self._open_other()
            if other is None:
                raise self._with_advice(error) from error.__cause__
            reason = f"could not open it ({_reason(error)})"
            self._count = other.page_count
            self._warnings = (*other.warnings, self._read_by_other("document", reason))
        else:
            self._count, self._warnings = self._first.page_count, self._first.warnings

    def render_with_images(self, number: int) -> _Rendered:
        """Return a page as `render` does, and the boxes of the raster images.

        Args:
            number: Page number, 1-based.

        Returns:
            The page, and the boxes of the raster images as fractions of the page.

        Raises:
            DocumentError: The error of the first renderer, if no renderer can render the page.
        """
        if self._first is None:
            assert self._other is not None
            return self._other.render_with_images(number)
        if self._is_first_lost:
            result = self._render_other(number, "crashed or exceeded the time limit before")
            if result is not None:
                return result
        try:
            page, images = self._first.render_with_images(number)
        except DocumentError as error:
            if isinstance(error.__cause__, WorkerLostError):
                self._is_first_lost = True
            result = self._render_other(number, f"could not render it ({_reason(error)})")
            if result is None:
                raise self._with_advice(error) from error.__cause__
            return result
        missing = missing_contents(page.warnings)
        if not missing:
            return page, images
        reason = "draws it blank" if missing > 1 else "draws it incompletely"
        result = self._render_other(number, reason, at_most=missing - 1)
        if result is not None and missing > 1 and _is_white(result[0]):
            result = None  # the other renderer draws it blank, too, without a warning
        return result or (self._advised(page), images)

    def close(self, *, wait: bool = True) -> None:
        """Close the document. Calling `close` again has no effect.

        Args:
            wait: Whether to wait until worker processes have closed the document.
        """
        for renderer in (self._first, self._other):
            if renderer is not None:
                renderer.close(wait=wait)

    def _open_other(self) -> Renderer | None:
        """Return the other renderer with the document open; None if it cannot open the document or must not be used."""
        with self._lock:
            if self._other is None and not self._other_failed:
                assert self._other_name is not None
                try:
                    self._other = self._open_with(replace(self._settings, renderer=self._other_name), False)
                except DocumentError:
                    self._other_failed = True
            return None if self._other_failed else self._other

    def _render_other(self, number: int, reason: str, *, at_most: int = 2) -> _Rendered | None:
        """Return a page of the other renderer with a warning; None if that renderer cannot render the page.

        Args:
            number: Page number, 1-based.
            reason: Reason for using the other renderer, with the first renderer as the subject.
            at_most: Maximum value of `missing_contents`; None is returned for a page with more missing contents.
        """
        other = self._open_other()
        if other is None:
            return None
        try:
            page, images = other.render_with_images(number)
        except DocumentError as error:
            if isinstance(error.__cause__, WorkerLostError):  # no further time is spent on it
                self._other_failed = True
            return None
        if missing_contents(page.warnings) > at_most:
            return None
        warnings = (*self._advised(page).warnings, self._read_by_other("page", reason))
        read_page = replace(page, count=self._count, warnings=warnings).with_prepared(page.prepared)
        return read_page, images

    def _read_by_other(self, subject: str, reason: str) -> str:
        return f"The {subject} was read with {self._other_name}, because {self._first_name} {reason}."

    def _with_advice(self, error: DocumentError) -> DocumentError:
        """Return an error whose message names the other renderer, if the settings name a renderer."""
        is_lost = isinstance(error.__cause__, WorkerLostError)
        if self._advice is None or (isinstance(error, LimitExceededError) and not is_lost):
            return error
        return type(error)(f"{error}{self._advice}")

    def _advised(self, page: Page) -> Page:
        """Return a page whose warnings say what the other renderer can do about them."""
        if self._settings.renderer == "auto":
            advice = _BOTH if self._other_name else ADVICE
        else:
            advice = self._advice or ADVICE
        warnings = tuple(warning.replace(ADVICE, advice) for warning in page.warnings)
        return replace(page, warnings=warnings).with_prepared(page.prepared)

    @property
    def _advice(self) -> str | None:
        """Sentence that names the other renderer, for a renderer that the settings name."""
        if self._settings.renderer == "auto" or self._other_name is None:
            return None
        return f' Another renderer is installed: renderer="{self._other_name}" (--renderer {self._other_name}).'


def _is_white(page: Page) -> bool:
    extrema = page.screenshot.image.convert("L").getextrema()
    return extrema == (255, 255)


def _reason(error: DocumentError) -> str:
    """Return the beginning of a message, without the advice."""
    sentence = str(error).split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= _MAX_REASON else sentence[:_MAX_REASON].rstrip() + "…"
