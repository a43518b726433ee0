"""Conversion of office files to PDF with LibreOffice.

LibreOffice runs in a temporary folder, with limits on time, memory and file size, and ends with the process that
started it (`jina_rag.parsing.office_supervisor`). The LibreOffice profile disables macros, active content and external
links. The license of LibreOffice (MPL-2.0) does not apply to converted files.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing import office_supervisor
from jina_rag.parsing.renderer import check_size, unreadable_file
from jina_rag.parsing.scratch_folders import scratch_folder
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.cancellation import Stop

_PROGRAMS = ("soffice", "libreoffice")
_MAC = Path("/Applications/LibreOffice.app/Contents/MacOS/soffice")
_END_SECONDS = 10
"""Time in seconds that the supervisor has to kill LibreOffice."""
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
        settings: Settings of the ingestion, for the limits `max_bytes`, `max_seconds` and `max_memory`.
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
    with ExitStack() as resources:
        try:
            folder = resources.enter_context(scratch_folder("office"))
        except OSError as error:
            raise _temporary_folder_error(error) from error
        pdf = _convert(program, source.path, folder, settings, stop or Stop())
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
    limits = settings.limits
    process = _start(command, scratch, limits)
    try:
        with stop.kill_on_stop(lambda: _kill(process)):
            status = process.wait(timeout=limits.max_seconds)
    except subprocess.TimeoutExpired as error:
        raise LimitExceededError(
            f"Conversion exceeded {limits.max_seconds} s and was stopped. Raise Limits.max_seconds "
            "(--limit max_seconds=N)."
        ) from error
    finally:
        _kill(process)
        try:
            process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:  # the supervisor itself hangs
            process.kill()
            process.wait()
    pdf = scratch / "out" / f"{copy.stem}.pdf"
    if pdf.is_file():
        return pdf
    if status == office_supervisor.CANNOT_START:
        raise DocumentError("LibreOffice cannot be started. Check the permissions, or reinstall LibreOffice.")
    if status > office_supervisor.CANNOT_START:
        raise LimitExceededError(
            f"LibreOffice ended: the file is damaged or requires more than {limits.max_memory:,} bytes of memory. "
            "Raise Limits.max_memory (--limit max_memory=N), or convert the file to PDF."
        )
    raise DocumentError(
        "LibreOffice cannot convert the file: the file is damaged or encrypted, or the LibreOffice component for this "
        "format is not installed. Convert the file to PDF."
    )


def _start(command: list[str], scratch: Path, limits: Limits) -> subprocess.Popen[bytes]:
    """Start LibreOffice under the supervisor; on Windows, which has no process groups and limits, without it."""
    if sys.platform != "win32":
        supervisor = [sys.executable, "-I", "-S", office_supervisor.__file__, str(os.getpid())]
        command = [*supervisor, str(limits.max_memory), str(limits.max_bytes), str(scratch), *command]
    null = subprocess.DEVNULL
    try:
        # The command is safe, because no shell is used, the program is installed, and the file name is fixed. The
        # working directory is temporary, because LibreOffice may load files from the working directory.
        return subprocess.Popen(command, cwd=scratch, stdin=subprocess.PIPE, stdout=null, stderr=null)  # noqa: S603
    except OSError as error:
        raise DocumentError(
            f"LibreOffice cannot be started: {error.strerror or type(error).__name__}. Reinstall LibreOffice."
        ) from error


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill LibreOffice with all its processes, and do not wait for the exit."""
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()  # the supervisor kills LibreOffice at the end of this pipe
        if sys.platform == "win32":
            process.kill()
