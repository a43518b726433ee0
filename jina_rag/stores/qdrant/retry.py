"""The retry rule of the Qdrant client: which failed requests are sent again, how often, and after which wait."""

from __future__ import annotations

import logging
from time import sleep
from typing import Any, Final

from jina_rag._extras import require
from jina_rag.stores.qdrant.errors import Kind, Trouble, read

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30
"""Seconds between two tries: a random part of a span that doubles from the first to the longest."""
_PATIENCE: Final = 300
"""Seconds; a server that asks to wait longer is not waited for."""
_RETRIED: Final[dict[Kind, str]] = {
    "silent": "no answer", "slow": "no answer in time", "busy": "too many requests", "down": "not now",
}  # fmt: skip
"""Kinds of failure after which the same request may succeed a little later, and what the log says of them."""
_log = logging.getLogger(__name__)


def is_retried(trouble: Trouble) -> bool:
    """Whether a request that failed so is sent again."""
    return trouble.kind in _RETRIED and (trouble.wait or 0) <= _PATIENCE


def retrying(url: str, retries: int) -> Any:  # noqa: ANN401  # tenacity's type
    """What calls a function, and calls it again by the rule; it raises what the last call raised.

    Args:
        url: Of the server, for the log.
        retries: How often it is called again at most.
    """
    tenacity = require("tenacity", extra="qdrant")
    random_wait = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)

    def wait(state: Any) -> float:  # noqa: ANN401
        server_wait = read(state.outcome.exception()).wait
        return float(random_wait(state) if server_wait is None else server_wait)

    def warn(state: Any) -> None:  # noqa: ANN401
        _log.warning(
            "The Qdrant server at %s did not do what was asked (%s); trying again in %.1f s.",
            url, _RETRIED[read(state.outcome.exception()).kind], state.next_action.sleep,
        )  # fmt: skip

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries + 1),
        wait=wait,
        retry=tenacity.retry_if_exception(lambda exc: is_retried(read(exc))),
        before_sleep=warn,
        sleep=lambda seconds: sleep(seconds),
        reraise=True,
    )
