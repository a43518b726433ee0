"""Retry policy of the Qdrant client: retryable failures, number of retries and waits."""

from __future__ import annotations

import logging
from time import sleep
from typing import Any, Final

from jina_rag._extras import require
from jina_rag.stores.qdrant.errors import FailureKind, RequestFailure, classify_error

_FIRST_WAIT: Final = 0.5
_MAX_WAIT: Final = 30
"""Upper limit of the random wait in seconds: `_FIRST_WAIT` before the first retry, doubled per retry to `_MAX_WAIT`."""
_MAX_SERVER_WAIT: Final = 300
"""Maximum wait in seconds that a server may demand. If a server demands more, the request is not retried."""
_RETRYABLE: Final[dict[FailureKind, str]] = {
    "unreachable": "no answer", "timeout": "timeout", "rate_limited": "too many requests", "unavailable": "unavailable",
}  # fmt: skip
"""Retryable kinds of failure, with their description in the log."""
_log = logging.getLogger(__name__)


def is_retryable(failure: RequestFailure) -> bool:
    """Return whether to retry a request after this failure."""
    return failure.kind in _RETRYABLE and (failure.wait or 0) <= _MAX_SERVER_WAIT


def retry_policy(url: str, retries: int) -> Any:  # noqa: ANN401  # tenacity's type
    """Return a callable that calls a function with retries and raises the error of the last attempt.

    Args:
        url: URL of the server, for the log.
        retries: Maximum number of retries.
    """
    tenacity = require("tenacity", extra="qdrant")
    random_wait = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=_MAX_WAIT)

    def wait(state: Any) -> float:  # noqa: ANN401
        server_wait = classify_error(state.outcome.exception()).wait
        return float(random_wait(state) if server_wait is None else server_wait)

    def warn(state: Any) -> None:  # noqa: ANN401
        _log.warning(
            "A request to the Qdrant server at %s failed (%s). Retrying in %.1f s.",
            url, _RETRYABLE[classify_error(state.outcome.exception()).kind], state.next_action.sleep,
        )  # fmt: skip

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries + 1),
        wait=wait,
        retry=tenacity.retry_if_exception(lambda exc: is_retryable(classify_error(exc))),
        before_sleep=warn,
        sleep=lambda seconds: sleep(seconds),
        reraise=True,
    )
