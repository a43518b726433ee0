"""Objects of a process that a forked child must not use: files, native handles and locks.

A forked child (`os.fork`, the start method ``"fork"`` of multiprocessing, Celery's prefork) has copies of the memory
and of the file descriptors of its parent, but none of its threads. In the child,

- a lock that another thread of the parent held at the fork is never released. `OwnedLock` raises an error instead of
  waiting; `RenewedLock` is replaced by a free lock.
- an open file shares its lock with the parent: unlocking the copy unlocks the file of the parent, and while the copy is
  open, the parent cannot release the lock by closing the file. `OwnedFiles` replaces the descriptors of the child by
  descriptors of the null device.
- the destructor of a native object may wait for threads, or write to files of the parent. `keep_in_children` makes the
  copy of the child immortal.

Python runs the hooks of this module at a fork. A server that is written in C and forks its workers, such as uWSGI, may
run only the hook of the child, or no hook. `settle_fork` makes up for the hooks as soon as such a child uses or
destroys an object of this package.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType

from jina_rag.errors import IndexStateError

_QUIET_SECONDS = 1.0
"""Maximum wait of a fork, in seconds, for other threads to leave SQLite. SQLite keeps the state of a file in global
variables, which a child copies: after a fork within a transaction, the child could never open the file."""

_registry_lock = threading.RLock()
_owned_files: weakref.WeakSet[OwnedFiles] = weakref.WeakSet()
_renewed_locks: weakref.WeakSet[RenewedLock] = weakref.WeakSet()
_native_handles: weakref.WeakSet[object] = weakref.WeakSet()
_forking: list[tuple[OwnedFiles, bool]] = []
"""During a fork: the owned files, and whether no other thread uses them."""
_unusable_paths: set[str] = set()
"""Paths of files that another thread of the parent was using at the fork."""
_child_callbacks: list[Callable[[], object]] = []
_first_process = _process = os.getpid()
"""Process that imported this module, and process whose hooks have run."""


class OwnedLock:
    """A re-entrant lock of an object that only the process that created the object may use."""

    def __init__(self, check: Callable[[], None]) -> None:
        """Create the lock.

        Args:
            check: Function that raises an error in another process; called before each wait.
        """
        self._check = check
        self._lock = threading.RLock()

    @property
    def is_free(self) -> bool:
        """Whether no other thread holds the lock, also in a forked child."""
        is_free = self._lock.acquire(blocking=False)
        if is_free:
            self._lock.release()
        return is_free

    def acquire(self, timeout: float = -1) -> bool:
        """Acquire the lock and return whether the lock was acquired.

        Args:
            timeout: Maximum wait in seconds; -1 for no limit.

        Raises:
            IndexStateError: In a forked child.
        """
        self._check()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self._check()
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.release()


class RenewedLock:
    """A lock that is free in a forked child, whichever thread of the parent held it at the fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        with _registry_lock:
            _renewed_locks.add(self)

    def renew(self) -> None:
        """Replace the lock by a free lock."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        settle_fork()
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        # A child that was forked by the thread that held the lock releases a new lock, which is free.
        with suppress(RuntimeError):
            self._lock.release()


class OwnedFiles:
    """The open files of an object that only the process that created the object may use.

    Create the object before opening the files, and keep a reference to it as long as the files are open.

    Attributes:
        lock: Lock of the object. If `quiet` is set, a fork waits until no other thread holds the lock.
    """

    def __init__(self, location: str | os.PathLike[str], path: str | os.PathLike[str], *, quiet: bool = False) -> None:
        """Register the files.

        Args:
            location: Location of the index, for error messages.
            path: The file, or a folder that contains all files. Files whose names start with the path and a hyphen,
                such as the journals of SQLite, belong to the file.
            quiet: Whether a fork waits until no other thread holds `lock`.

        Raises:
            IndexStateError: If this process was forked while another thread of the parent used the files.
        """
        settle_fork()
        self._location, self._path, self._quiet = os.fspath(location), os.path.realpath(path), quiet
        if self._path in _unusable_paths:
            raise IndexStateError(
                f"The index at {self._location} cannot be opened in this process, which was forked while another "
                'thread changed the index. Start the process with the method "spawn".'
            )
        self._process = os.getpid()
        self._user: weakref.ref[object] | None = None
        self._handles: tuple[str, ...] = ()
        self.lock = OwnedLock(self.check)
        with _registry_lock:
            _owned_files.add(self)

    def set_user(self, user: object, *handles: str) -> None:
        """Set the object that uses the files. A forked child never destroys its native objects.

        Args:
            user: The object, which is not kept alive.
            handles: Names of the attributes of `user` that are native objects or None.
        """
        self._user, self._handles = weakref.ref(user), handles

    @property
    def is_owner(self) -> bool:
        """Whether the current process created the object."""
        return os.getpid() == self._process

    def check(self) -> None:
        """Raise an error in a forked child; see `check_process`."""
        check_process(self._process, self._location)

    def contains(self, path: str) -> bool:
        """Return whether a path is one of the files."""
        return path == self._path or path.startswith((self._path + os.sep, self._path + "-"))

    def acquire_for_fork(self, deadline: float) -> bool:
        """Wait until no other thread uses the files; return False after the deadline."""
        return not self._quiet or self.lock.acquire(timeout=max(0.0, deadline - time.monotonic()))

    @property
    def is_quiet(self) -> bool:
        """Whether no other thread of the parent used the files at the fork; for a child without `acquire_for_fork`."""
        return not self._quiet or self.lock.is_free

    def release_after_fork(self) -> None:
        """Let other threads use the files again."""
        if self._quiet:
            self.lock.release()

    def abandon(self, *, is_usable: bool) -> None:
        """Give up the copies of the handles in a forked child.

        Args:
            is_usable: Whether this process may open the files.
        """
        user = None if self._user is None else self._user()
        for handle in self._handles if user is not None else ():
            make_immortal(getattr(user, handle))
        if not is_usable:
            _unusable_paths.add(self._path)


def check_process(owner: int, location: str) -> None:
    """Raise an error unless the current process is the process that opened an index.

    Args:
        owner: Id of the process that opened the index.
        location: Location of the index.

    Raises:
        IndexStateError: If this process was forked from `owner`.
    """
    if os.getpid() != owner:
        settle_fork()
        remedy = "Open" if "://" in location else "Close the index there, and open"
        raise IndexStateError(
            f"The index at {location} was opened in process {owner}, from which this process was forked. {remedy} the "
            "index here with DocumentIndex.open."
        )


def keep_in_children(handle: object) -> None:
    """Prevent that a forked child destroys its copy of a native object.

    Args:
        handle: An object that supports weak references and whose destructor may block in a forked child, for example
            because it waits for threads.
    """
    with _registry_lock:
        _native_handles.add(handle)


def after_fork_in_child(callback: Callable[[], object]) -> None:
    """Call a function in each forked child, immediately after the fork or in `settle_fork`.

    Args:
        callback: The function. Its return value is ignored.
    """
    _child_callbacks.append(callback)


def settle_fork() -> None:
    """Give up the objects of the parent in a child that was forked without the hooks of Python.

    Call this function where a child may use or destroy an object of its parent without an error. In other processes,
    the call takes less than a microsecond.
    """
    if os.getpid() != _process:
        _after_fork_in_child()


def redirect_to_null(*descriptors: int) -> None:
    """Replace file descriptors of this process by descriptors of the null device.

    The numbers stay in use, so an object that later closes its descriptor closes no file of another object.

    Args:
        descriptors: The file descriptors. Closed descriptors are ignored.
    """
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in descriptors:
            with suppress(OSError):
                os.fstat(descriptor)  # fails for a closed descriptor, whose number may be used for another file later
                os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)


def make_immortal(handle: object) -> None:
    """Prevent that this process destroys a native object.

    Args:
        handle: The object.
    """
    import ctypes  # imported by `_before_fork` in the parent

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))


def _open_files() -> Iterator[tuple[int, str]]:
    """Yield (file descriptor, path) for the open files of this process; nothing on other systems than Linux, macOS."""
    folder = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}.get(sys.platform)
    for name in os.listdir(folder) if folder else ():
        with suppress(OSError, ValueError):  # the descriptor of the folder itself is closed
            if sys.platform == "darwin":
                import fcntl

                path = os.fsdecode(fcntl.fcntl(int(name), fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
            else:
                path = os.readlink(f"{folder}/{name}")
            yield int(name), path


def _before_fork() -> None:
    with _registry_lock:
        files = [owned for owned in _owned_files if owned.is_owner]
    if files or _native_handles:
        import ctypes  # noqa: F401  # a child must not wait for the import lock of another thread
    deadline = time.monotonic() + _QUIET_SECONDS
    _forking[:] = [(owned, owned.acquire_for_fork(deadline)) for owned in files]


def _after_fork_in_parent() -> None:
    for owned, is_quiet in _forking:
        if is_quiet:
            owned.release_after_fork()
    _forking.clear()


def _after_fork_in_child() -> None:
    global _registry_lock, _process
    if os.getpid() == _process:  # the hook of Python, called after `settle_fork`
        return
    _process, _registry_lock = os.getpid(), threading.RLock()
    # Without the hook before the fork, the files that other threads of the parent used are known from their locks only.
    files = _forking[:] or [(owned, owned.is_quiet) for owned in _owned_files if not owned.is_owner]
    _forking.clear()
    for lock in list(_renewed_locks):
        lock.renew()
    for handle in list(_native_handles):
        make_immortal(handle)
    for owned, is_quiet in files:
        owned.abandon(is_usable=is_quiet)
    if files:
        redirect_to_null(*[number for number, path in _open_files() if any(o.contains(path) for o, _ in files)])
    for callback in _child_callbacks:
        callback()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _at_exit() -> None:
    """Prevent that the end of a forked child waits for threads of its parent, or changes files of its parent."""
    settle_fork()
    # PyMuPDF keeps sessions of its own, whose destructors wait for the threads of the sessions.
    runtime = sys.modules.get("onnxruntime")
    if _process != _first_process and runtime is not None:
        for session in [each for each in gc.get_objects() if issubclass(type(each), runtime.InferenceSession)]:
            make_immortal(session)


atexit.register(_at_exit)
