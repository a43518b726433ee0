"""Office files, through LibreOffice: they are converted to PDF in a folder that is thrown away.

LibreOffice runs as a program of its own, with a profile of its own that forbids macros, active content and links to
other places; a time limit ends it. Its licence (MPL-2.0) says nothing about what it converts.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing.renderer import check_size, unreadable
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.cancellation import Stop

_PROGRAMS = ("soffice", "libreoffice")
_MAC = Path("/Applications/LibreOffice.app/Contents/MacOS/soffice")
_WINDOWS = Path("C:/Program Files/LibreOffice/program/soffice.exe")


def find_libreoffice() -> Path | None:
    """The program, if it is installed.

    One in the current folder is not: Windows looks there first, and it may be the folder of the documents.
    """
    for name in _PROGRAMS:
        program = shutil.which(name)
        if program and os.path.isabs(program) and not _is_here(os.path.dirname(program)):
            return Path(program)
    return next((place for place in (_MAC, _WINDOWS) if place.is_file()), None)


def _is_here(folder: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(folder, os.curdir)
    return False


@contextmanager
def as_pdf(source: SourceFile, settings: IngestSettings, stop: Stop | None = None) -> Iterator[SourceFile]:
    """The document as a renderer takes it: itself, or the PDF that an office file was converted to, while needed.

    Args:
        source: The document.
        settings: Its limits hold for the file and for the time.
        stop: Once it is set, a conversion in work is ended.

    Raises:
        DocumentError: If LibreOffice is not installed or cannot convert the file in time.
    """
    if source.kind != "office":
        yield source
        return
    check_size(source.path, settings.limits)
    program = find_libreoffice()
    if program is None:
        raise DocumentError("It is an office file: install LibreOffice to have it converted, or save it as PDF.")
    try:
        folder = tempfile.TemporaryDirectory(prefix="jina-rag-office-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(error) from error
    with folder as scratch:
        pdf = _convert(program, source.path, Path(scratch), settings, stop or Stop())
        yield replace(source, path=pdf, kind="pdf")


def _no_room(error: OSError) -> DocumentError:
    reason = error.strerror or type(error).__name__
    return DocumentError(f"It cannot be converted: LibreOffice has no folder for temporary files ({reason}).")


def _convert(program: Path, path: Path, scratch: Path, settings: IngestSettings, stop: Stop) -> Path:
    profile = scratch / "profile"
    try:
        (profile / "user").mkdir(parents=True)
        settings_file = importlib.resources.files("jina_rag.parsing").joinpath("libreoffice_profile.xcu")
        (profile / "user" / "registrymodifications.xcu").write_bytes(settings_file.read_bytes())
    except OSError as error:
        raise _no_room(error) from error
    # Under a plain name: the program has its own ideas of odd ones, and of those that start with a dash.
    copy = scratch / f"document{path.suffix.lower()}"
    try:
        shutil.copyfile(path, copy)
    except OSError as error:
        raise unreadable(error) from error
    command = [
        str(program), f"-env:UserInstallation={profile.as_uri()}", "--headless", "--norestore", "--nolockcheck",
        "--convert-to", "pdf", "--outdir", str(scratch / "out"), str(copy),
    ]  # fmt: skip
    seconds = settings.limits.max_seconds
    quiet = subprocess.DEVNULL
    try:
        # No shell, a program of the system, and a name of our own; what it looks for where it stands, it looks for in
        # an empty folder and not among the documents.
        process = subprocess.Popen(  # noqa: S603
            command, cwd=scratch, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
    except OSError as error:
        raise DocumentError(f"LibreOffice cannot be started: {error.strerror or type(error).__name__}.") from error
    try:
        with stop.kill_on_stop(lambda: _kill(process)):
            process.wait(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise LimitExceededError(
            f"Converting it with LibreOffice took longer than {seconds} s and was stopped (limits.max_seconds)."
        ) from error
    finally:
        _kill(process)
        process.wait()
    pdf = scratch / "out" / f"{copy.stem}.pdf"
    if not pdf.is_file():
        raise DocumentError(
            "LibreOffice could not convert it: it is damaged, encrypted, or of a kind whose part of LibreOffice is "
            "not installed."
        )
    return pdf


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it has started, without waiting for it."""
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        elif process.poll() is None:  # its number may be another's otherwise
            os.killpg(process.pid, signal.SIGKILL)
