"""Every request to a Qdrant server passes here: sent again where that may help, failures turned into our errors."""

from __future__ import annotations

import logging
from time import sleep
from typing import Any, Final

from jina_rag._extras import require
from jina_rag.errors import IndexStateError, JinaRagError
from jina_rag.stores.qdrant.client import MEMORY, Client, QdrantConnection
from jina_rag.stores.qdrant.errors import Place, explained, read

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30
"""Seconds between two tries: a random part of a span that doubles from the first to the longest."""
_BRIEFLY: Final = {"silent": "no answer", "slow": "no answer in time", "busy": "too many requests", "down": "not now"}
_log = logging.getLogger(__name__)


class Remote:
    """A client and the collection that is spoken to through it. May be used by several threads.

    Attributes:
        place: Which collection of which server.
        models: The client's request and response types.
        local: Whether it is the stand-in in this process.
        grpc: Whether gRPC is spoken.
    """

    def __init__(
        self, qdrant_client: Client, client: Client, place: Place, connection: QdrantConnection, *, owned: bool
    ) -> None:
        self.place = place
        self.models = qdrant_client.models
        # A client that was passed in may be the stand-in under any address.
        self.local = place.url == MEMORY or type(getattr(client, "_client", None)).__name__ == "QdrantLocal"
        self.grpc = connection.prefer_grpc and not self.local
        self._client = client
        self._owned = owned
        self._retries = connection.retries

    def call(self, doing: str, method: str, **arguments: Any) -> Any:  # noqa: ANN401  # the client's objects
        """Call a method of the client.

        Args:
            doing: What is being done to the index, for messages: ``"be searched"``.
            method: Its name.
            arguments: What it takes.

        Raises:
            IndexStateError: If it fails; a subclass where the kind of failure has one.
        """
        client = self.client
        try:
            return self._retrying()(getattr(client, method), **arguments)
        except JinaRagError:
            raise
        except Exception as exc:
            if self._client is None:
                raise self._closed() from exc
            raise explained(read(exc), self.place, doing) from exc

    def on_collection(self, doing: str, method: str, **arguments: Any) -> Any:  # noqa: ANN401
        """`call` with the name of the collection."""
        return self.call(doing, method, collection_name=self.place.collection, **arguments)

    @property
    def client(self) -> Client:
        """The client.

        Raises:
            IndexStateError: If it was closed.
        """
        if self._client is None:
            raise self._closed()
        return self._client

    def close(self) -> None:
        """Give the connections back; a client that was passed in stays open."""
        client, self._client = self._client, None
        if client is not None and self._owned:
            client.close()

    def _closed(self) -> IndexStateError:
        return IndexStateError(f"The index at {self.place} is closed: open it again to use it.")

    def _retrying(self) -> Any:  # noqa: ANN401
        tenacity = require("tenacity", extra="qdrant")
        spread = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)

        def wait(state: Any) -> float:  # noqa: ANN401
            asked = read(state.outcome.exception()).wait
            return float(spread(state) if asked is None else asked)

        def tell(state: Any) -> None:  # noqa: ANN401
            trouble = read(state.outcome.exception())
            _log.warning(
                "The Qdrant server at %s did not do what was asked (%s); trying again in %.1f s.",
                self.place.url, _BRIEFLY[trouble.kind], state.next_action.sleep,
            )  # fmt: skip

        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=wait,
            retry=tenacity.retry_if_exception(lambda exc: read(exc).again),
            before_sleep=tell,
            sleep=lambda seconds: sleep(seconds),
            reraise=True,
        )
