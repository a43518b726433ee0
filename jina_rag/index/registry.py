"""The open indexes of this process: one shared session per canonical location.

Each location has a lock, which is held while the session of the location opens or closes. Threads that open one index
concurrently share one session. Opening one location never blocks the opening of another location.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from jina_rag._forks import after_fork_in_child, settle_fork
from jina_rag.errors import InvalidInputError
from jina_rag.index.session import IndexSession, OpenOptions, open_folder


class SharedSession:
    """The session of one location. The first user opens the session, and the last user closes the session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: IndexSession | None = None
        self._users = 0
        self._process = os.getpid()
        self._releases: deque[None] = deque()

    def acquire(self, open_session: Callable[[OpenOptions], IndexSession], options: OpenOptions) -> IndexSession:
        """Return the session and increment the number of users.

        Args:
            open_session: Function that opens the session; called with `options` if the location has no open session.
            options: Options of `DocumentIndex.open`. An open session must match these options.
        """
        with self._exclusively():
            if self._session is None:
                self._session = open_session(options)
            else:
                self._session.check(options)
            self._users += 1
            return self._session

    def release(self, *, wait: bool = True) -> None:
        """Decrement the number of users, and close the session after the last user.

        Args:
            wait: Whether to wait for the lock. The garbage collector passes False, because the garbage collector may
                run in a thread that already holds the lock. The thread that holds the lock then completes the release.
        """
        if os.getpid() != self._process:  # a forked child: the session belongs to the parent process
            settle_fork()
            return
        self._releases.append(None)
        with self._exclusively() if wait else nullcontext():
            self._settle()

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        try:
            with self._lock:
                self._close_if_unused()
                yield
        finally:
            self._settle()

    def _settle(self) -> None:
        while self._releases and self._lock.acquire(blocking=False):
            try:
                self._close_if_unused()
            finally:
                self._lock.release()

    def _close_if_unused(self) -> None:
        while self._releases:
            self._releases.pop()
            self._users -= 1
        if self._users == 0 and self._session is not None:
            session, self._session = self._session, None
            session.model = None
            session.resources.close()


_sessions: weakref.WeakValueDictionary[str, SharedSession] = weakref.WeakValueDictionary()
_sessions_lock = threading.Lock()
"""Lock for access to `_sessions`, which is never held while a session opens or closes."""


def _forget_sessions() -> None:
    """Let a forked child open sessions of its own."""
    global _sessions, _sessions_lock
    _sessions, _sessions_lock = weakref.WeakValueDictionary(), threading.Lock()


after_fork_in_child(_forget_sessions)


def open_session(location: str, options: OpenOptions) -> tuple[SharedSession, IndexSession]:
    """Open the index at a location, or share the open session of that location.

    Args:
        location: A folder, or the URL of a collection on a server, as in `DocumentIndex.open`.
        options: The other options of `DocumentIndex.open`.

    Returns:
        The shared session, which the caller must release, and the open session of the index.

    Raises:
        InvalidInputError: If `location` is empty or an invalid URL, or `location` is a folder and `options` has
            `assets_dir` or `api_key`, which require a server.
        IndexStateError: If the index is already open with another `assets_dir`, or with other options in the URL.
    """
    if not location.strip():
        raise InvalidInputError('location is empty. Pass a folder (--index), or "." for the current folder.')
    if "://" in location:
        from jina_rag.index.qdrant_server import Address, open_server

        address = Address.parse(location)
        key, open_new = address.canonical, partial(open_server, address)
        options = replace(options, connection=address.connection)
    elif options.assets_dir is not None or options.api_key is not None:
        raise InvalidInputError(
            f"assets_dir (--assets-dir) and api_key apply only to an index on a Qdrant server, not to {location}. "
            "Omit both."
        )
    else:
        root = Path(os.path.abspath(location))
        key, open_new = os.path.normcase(os.path.realpath(root)), partial(open_folder, root)
    settle_fork()
    with _sessions_lock:
        shared_session = _sessions.setdefault(key, SharedSession())
    return shared_session, shared_session.acquire(open_new, options)
