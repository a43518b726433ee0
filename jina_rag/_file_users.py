"""Processes that have a file open, for the messages of errors about locked files."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from jina_rag._display import displayed
from jina_rag._files import write_atomic

_MAX_PROCESSES = 3
_MAX_COMMAND_LENGTH = 60
_KILLED = 1 << (9 - 1)  # SIGKILL in a set of signals
_PF_EXITING = 0x4


def describe_users(path: Path, record: Path | None = None) -> str:
    """Return the processes that have a file or folder open, for example ``"process 12 (python app.py)"``.

    Linux lists the open files of the processes of the same user, or of all users for the superuser. On other systems,
    only the process in `record` is known.

    Args:
        path: The file or folder.
        record: File that `record_user` has written; None for none.

    Returns:
        At most three processes; empty if no process is known.
    """
    names = [_describe(pid, _command(pid)) for pid in _users(path)]
    if not names and record is not None:
        names = _recorded(record)
    shown_names = names[:_MAX_PROCESSES] + (["others"] if len(names) > _MAX_PROCESSES else [])
    return " and ".join(shown_names)


def has_live_user(path: Path, record: Path | None = None) -> bool:
    """Return whether a process that goes on has a file or folder open, as far as `describe_users` knows the processes.

    A killed process keeps the locks of its files until the operating system has freed the memory of the process.

    Args:
        path: The file or folder.
        record: File that `record_user` has written; None for none.
    """
    pids = list(_users(path))
    if pids:
        return not all(_is_ending(pid) for pid in pids)
    user = None if record is None else _read_record(record)
    return user is not None and (user[1] != platform.node() or (_exists(user[0]) and not _is_ending(user[0])))


def record_user(record: Path) -> None:
    """Write the id, the command and the host of this process to a file, for `describe_users`.

    Args:
        record: Path of the file, in an existing folder.

    Raises:
        OSError: If the file cannot be written.
    """
    user = {"pid": os.getpid(), "host": platform.node(), "command": " ".join(sys.orig_argv)}
    write_atomic(record, json.dumps(user).encode("ascii"))


def _users(path: Path) -> Iterator[int]:
    """Yield the ids of the processes that have a file or folder open."""
    try:
        target = path.stat()
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError:
        return
    for pid in pids:
        if _has_open(pid, target):
            yield pid


def _has_open(pid: int, target: os.stat_result) -> bool:
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:  # OSError: a process of another user
        for descriptor in descriptors:
            with suppress(OSError):  # closed in the meantime
                if os.path.samestat(descriptor.stat(), target):
                    return True
    return False


def _is_ending(pid: int) -> bool:
    """Return whether a process has been killed or is exiting; False on other systems than Linux."""
    if sys.platform != "linux":
        return False
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        flags = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[6])
    except FileNotFoundError:
        return True
    except (OSError, ValueError, IndexError):
        return False
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
    return bool(flags & _PF_EXITING) or any(signals & _KILLED for signals in pending)


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return ""


def _recorded(record: Path) -> list[str]:
    user = _read_record(record)
    if user is None:
        return []
    pid, host, command = user
    if host != platform.node():
        return [f"{_describe(pid, command)} on {host}"]
    return [_describe(pid, command)] if _exists(pid) else []


def _read_record(record: Path) -> tuple[int, str, str] | None:
    """Return (id, host, command) of the process that wrote a record; None if the record cannot be read."""
    try:
        user = json.loads(record.read_bytes())
        return int(user["pid"]), str(user["host"]), str(user["command"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _exists(pid: int) -> bool:
    if os.name == "posix":  # on Windows, os.kill would end the process
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # a process of another user
    return True


def _describe(pid: int, command: str) -> str:
    name = "this process" if pid == os.getpid() else f"process {pid}"
    command = displayed(" ".join(command.split()))
    if len(command) > _MAX_COMMAND_LENGTH:
        command = command[: _MAX_COMMAND_LENGTH - 1] + "…"
    return f"{name} ({command})" if command else name
