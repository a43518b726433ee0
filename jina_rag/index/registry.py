"""The open indexes of this process: one session for each canonical location, shared by everybody who opens it.

Each location has a lock of its own, which is held while its session is opened or closed: two threads that open the
same index get one session, and nobody waits for another location.
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

from jina_rag.errors import InvalidInputError
from jina_rag.index.session import IndexSession, OpenOptions, open_folder


class SharedSession:
    """The session of one location while anybody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: IndexSession | None = None
        self._users = 0
        self._releases: deque[None] = deque()

    def acquire(self, open_session: Callable[[OpenOptions], IndexSession], options: OpenOptions) -> IndexSession:
        """Become a user of the session, which is opened if there is none, and else has to fit the options."""
        with self._exclusively():
            if self._session is None:
                self._session = open_session(options)
            else:
                self._session.check(options)
            self._users += 1
            return self._session

    def release(self, *, wait: bool = True) -> None:
        """End one user's share; the last one closes the session, which is forgotten whatever closing raises.

        Args:
            wait: False for a caller that must wait for no lock, such as the garbage collector: it may run while this
                very thread holds the lock. Whoever holds it then does the work before it goes on.
        """
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
            session.resources.close()


_sessions: weakref.WeakValueDictionary[str, SharedSession] = weakref.WeakValueDictionary()
_sessions_lock = threading.Lock()
"""Held for a look into `_sessions` only."""


def open_session(location: str, options: OpenOptions) -> tuple[SharedSession, IndexSession]:
    """Open the index at a folder or at an address, or share the session that is open already.

    Raises:
        InvalidInputError: If the place is empty, the address makes no sense, or a folder is given what goes with a
            server.
        IndexStateError: If it is open with another folder of files, or with other options of its address.
    """
    if not location.strip():
        raise InvalidInputError('The place of the index is empty: name a folder, or "." for the current one.')
    if "://" in location:
        from jina_rag.index.qdrant_server import Address, open_server

        address = Address.parse(location)
        key, open_new = address.canonical, partial(open_server, address)
        options = replace(options, connection=address.connection)
    elif options.assets_dir is not None or options.api_key is not None:
        raise InvalidInputError("assets_dir and api_key go with the address of a Qdrant server, not with a folder.")
    else:
        root = Path(os.path.abspath(location))
        key, open_new = os.path.normcase(os.path.realpath(root)), partial(open_folder, root)
    with _sessions_lock:
        shared_session = _sessions.setdefault(key, SharedSession())
    return shared_session, shared_session.acquire(open_new, options)
