"""Conversion of office files to PDF with LibreOffice.

LibreOffice runs as a separate process in a temporary folder and with a time limit. The LibreOffice profile disables
macros, active content and external links. The license of LibreOffice (MPL-2.0) does not apply to converted files.
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
from jina_rag.parsing.renderer import check_size, unreadable_file
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.cancellation import Stop

_PROGRAMS = ("soffice", "libreoffice")
_MAC = Path("/Applications/LibreOffice.app/Contents/MacOS/soffice")
_WINDOWS = Path("C:/Program Files/LibreOffice/program/soffice.exe")


def find_libreoffice() -> Path | None:
    """Return the path of the LibreOffice executable, or None if LibreOffice is not installed.

    An executable in the current folder is ignored, because the current folder may contain untrusted files and Windows
    searches the current folder first.
    """
    for name in _PROGRAMS:
        program = shutil.which(name)
        if program and os.path.isabs(program) and not _is_working_directory(os.path.dirname(program)):
            return Path(program)
    return next((path for path in (_MAC, _WINDOWS) if path.is_file()), None)


def _is_working_directory(folder: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(folder, os.curdir)
    return False


@contextmanager
def as_pdf(source: SourceFile, settings: IngestSettings, stop: Stop | None = None) -> Iterator[SourceFile]:
    """Convert an office file to a temporary PDF, which is deleted when the context exits.

    Args:
        source: The document.
        settings: Settings of the ingestion, for the limits `max_bytes` and `max_seconds`.
        stop: Stop signal that kills a running conversion.

    Yields:
        The converted PDF; `source` if the document is not an office file.

    Raises:
        DocumentError: If LibreOffice is not installed or cannot convert the file.
        LimitExceededError: If the file exceeds `max_bytes` or the conversion exceeds `max_seconds`.
    """
    if source.kind != "office":
        yield source
        return
    check_size(source.path, settings.limits)
    program = find_libreoffice()
    if program is None:
        raise DocumentError("LibreOffice is not installed. Install LibreOffice, or convert the file to PDF.")
    try:
        folder = tempfile.TemporaryDirectory(prefix="jina-rag-office-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _temporary_folder_error(error) from error
    with folder as temporary:
        pdf = _convert(program, source.path, Path(temporary), settings, stop or Stop())
        yield replace(source, path=pdf, kind="pdf")


def _temporary_folder_error(error: OSError) -> DocumentError:
    reason = error.strerror or type(error).__name__
    return DocumentError(
        f"No temporary folder can be created for LibreOffice ({reason}). Set TMPDIR to a writable folder."
    )


def _convert(program: Path, path: Path, scratch: Path, settings: IngestSettings, stop: Stop) -> Path:
    profile = scratch / "profile"
    try:
        (profile / "user").mkdir(parents=True)
        settings_file = importlib.resources.files("jina_rag.parsing").joinpath("libreoffice_profile.xcu")
        (profile / "user" / "registrymodifications.xcu").write_bytes(settings_file.read_bytes())
    except OSError as error:
        raise _temporary_folder_error(error) from error
    # LibreOffice misinterprets unusual file names, for example names with a leading dash.
    copy = scratch / f"document{path.suffix.lower()}"
    try:
        shutil.copyfile(path, copy)
    except OSError as error:
        raise unreadable_file(error) from error
    command = [
        str(program), f"-env:UserInstallation={profile.as_uri()}", "--headless", "--norestore", "--nolockcheck",
        "--convert-to", "pdf", "--outdir", str(scratch / "out"), str(copy),
    ]  # fmt: skip
    seconds = settings.limits.max_seconds
    devnull = subprocess.DEVNULL
    try:
        # The command is safe, because no shell is used, the program is installed, and the file name is fixed. The
        # working directory is temporary, because LibreOffice may load files from the working directory.
        process = subprocess.Popen(  # noqa: S603
            command, cwd=scratch, stdin=devnull, stdout=devnull, stderr=devnull, start_new_session=True
        )
    except OSError as error:
        raise DocumentError(
            f"LibreOffice cannot be started: {error.strerror or type(error).__name__}. Reinstall LibreOffice."
        ) from error
    try:
        with stop.kill_on_stop(lambda: _kill(process)):
            process.wait(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise LimitExceededError(
            f"Conversion exceeded {seconds} s and was stopped. Raise Limits.max_seconds (--limit max_seconds=N)."
        ) from error
    finally:
        _kill(process)
        process.wait()
    pdf = scratch / "out" / f"{copy.stem}.pdf"
    if not pdf.is_file():
        raise DocumentError(
            "LibreOffice cannot convert the file: the file is damaged or encrypted, or the LibreOffice component for "
            "this format is not installed. Convert the file to PDF."
        )
    return pdf


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all child processes, and do not wait for the exit."""
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        elif process.poll() is None:  # after the exit of the process, the operating system may reuse the process id
            os.killpg(process.pid, signal.SIGKILL)
