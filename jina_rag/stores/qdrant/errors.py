"""Failures of requests to a Qdrant server: REST, gRPC and in-process errors mapped to kinds and to index errors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from jina_rag._extras import require
from jina_rag.errors import IndexNotFoundError, IndexStateError

FailureKind: TypeAlias = Literal[
    "unreachable", "timeout", "rate_limited", "unavailable", "untrusted", "unauthorized", "not_found", "exists",
    "too_large", "not_qdrant", "rejected",
]  # fmt: skip

_MAX_REASON_LENGTH: Final = 300  # characters
_STATUSES: Final[dict[int, FailureKind]] = {
    401: "unauthorized", 403: "unauthorized", 404: "not_found", 409: "exists", 413: "too_large", 429: "rate_limited",
    502: "unavailable", 503: "unavailable", 504: "unavailable",
}  # fmt: skip
_GRPC_CODES: Final[dict[str, FailureKind]] = {
    "UNAVAILABLE": "unreachable", "DEADLINE_EXCEEDED": "timeout", "RESOURCE_EXHAUSTED": "rate_limited",
    "NOT_FOUND": "not_found", "UNAUTHENTICATED": "unauthorized", "PERMISSION_DENIED": "unauthorized",
    "ALREADY_EXISTS": "exists", "OUT_OF_RANGE": "too_large", "UNIMPLEMENTED": "not_qdrant",
}  # fmt: skip


class CollectionExistsError(IndexStateError):
    """The collection to create already exists; callers that accept an existing collection catch this error."""


@dataclass(frozen=True, slots=True)
class Address:
    """Server URL and name of a collection.

    Attributes:
        url: Server URL, as returned by `checked_url`.
        collection: Name of the collection.
        timeout: Maximum number of seconds of a request, for error messages.
        secret: API key, to be redacted in error messages.
    """

    url: str
    collection: str
    timeout: int = 60
    secret: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.url} (collection {self.collection!r})"


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Failure of one request.

    Attributes:
        kind: Kind of the failure.
        reason: Message of the server or the transport; may be empty.
        wait: Seconds until the server accepts a retry; None if the server does not state a wait.
    """

    kind: FailureKind
    reason: str
    wait: float | None = None


def classify_error(exc: BaseException) -> RequestFailure:
    """Return the failure that an exception of the client reports."""
    httpx, grpc = require("httpx"), require("grpc")
    # The REST client wraps errors of the transport in an exception with the attribute `source`.
    source = getattr(exc, "source", exc)
    status = getattr(exc, "status_code", None)
    if isinstance(source, httpx.TransportError):
        return _make_failure("timeout" if isinstance(source, httpx.TimeoutException) else "unreachable", source)
    if isinstance(status, int):
        return _from_status(status, exc)
    if isinstance(exc, grpc.RpcError) and callable(getattr(exc, "code", None)):
        return _make_failure(_GRPC_CODES.get(exc.code().name, "rejected"), exc.details() or exc.code().name)
    name = type(exc).__name__
    if name in ("ResourceExhaustedResponse", "QdrantException"):
        return _make_failure("rate_limited", exc, getattr(exc, "retry_after_s", None))
    if name == "ResponseHandlingException" or isinstance(exc, json.JSONDecodeError):
        return _make_failure("not_qdrant", "the response is unreadable")
    # The in-process client raises plain ValueErrors.
    if isinstance(exc, ValueError) and str(exc).startswith("Collection "):
        return _make_failure("exists" if str(exc).endswith("already exists") else "not_found", exc)
    return _make_failure("rejected", exc)


def to_index_error(failure: RequestFailure, address: Address, action: str) -> IndexStateError:
    """Return the index error for a failed request. The message contains the reason, the URL and a remedy.

    Args:
        failure: Failure of the request.
        address: Server URL and name of the collection.
        action: The failed action in the passive voice, for the message, for example ``"be searched"``.
    """
    reason = failure.reason if address.secret is None else failure.reason.replace(address.secret, "…")
    detail = f" ({reason})" if reason else ""
    prefix = f"The index at {address} could not {action}"
    messages = {
        "unreachable": f"No Qdrant server answers at {address.url}{detail}. Check the URL, or start the server.",
        "timeout": f"{prefix}: the server did not answer within {address.timeout} s{detail}. Pass a higher timeout, or "
        "reduce the load of the server.",
        "rate_limited": f"{prefix}: the rate limit of the server is exceeded{detail}. "
        "Retry later, or raise the rate limit of the server.",
        "unavailable": f"{prefix}: the server, or a proxy in front of the server, is unavailable{detail}. Retry later.",
        "untrusted": f"{prefix}: the certificate of the server is not trusted{detail}. Pass the file of the "
        "certificate authority as `verify`.",
        "unauthorized": f"{prefix}: the server rejected the API key{detail}. "
        "Check the key and the permissions of the key."
        if address.secret
        else f"{prefix}: the server requires an API key{detail}. Pass api_key, or set the environment variable "
        "QDRANT_API_KEY.",
        "too_large": f"{prefix}: the request exceeds the size limit of the server{detail}. "
        "Raise the size limit of the server to 32 MiB or more.",
        "not_qdrant": f"The server at {address.url} is not a Qdrant server{detail}. Check the URL.",
        "not_found": f"No index at {address}{detail}. Create the index with `jina-rag ingest PATH --index URL`.",
        "exists": f"{prefix}: the collection already exists{detail}. Use another collection name.",
        "rejected": f"{prefix}{detail}.",
    }
    kinds: dict[FailureKind, type[IndexStateError]] = {"not_found": IndexNotFoundError, "exists": CollectionExistsError}
    return kinds.get(failure.kind, IndexStateError)(messages[failure.kind])


def _from_status(status: int, exc: Any) -> RequestFailure:  # noqa: ANN401  # an exception of the client
    kind = _STATUSES.get(status, "not_qdrant" if status < 400 else "rejected")
    try:
        message = json.loads(exc.content)["status"]["error"]
    except (ValueError, KeyError, TypeError):
        # The response is not in Qdrant's format, so a gateway or another server sent the response. Status 404 then
        # does not mean that the collection is missing.
        message = f"status {status}"
        kind = "not_qdrant" if kind == "not_found" else kind
    retry_after = exc.headers.get("retry-after", "")
    return _make_failure(kind, message, float(retry_after) if retry_after.isdigit() else None)


def _make_failure(kind: FailureKind, message: object, wait: float | None = None) -> RequestFailure:
    """Return a failure of the kind, or of a more specific kind that the text of the message indicates."""
    text = " ".join(str(message).split()).rstrip(".")
    words = text.lower()
    if kind == "unreachable" and "certificate" in words:
        kind = "untrusted"
    elif "larger than allowed" in words:
        kind = "too_large"
    # The server also reports "not found" for a deleted point, so only a message about the collection means that the
    # index is missing.
    elif kind == "not_found" and "collection" not in words:
        kind = "rejected"
    return RequestFailure(kind, text if len(text) <= _MAX_REASON_LENGTH else f"{text[:_MAX_REASON_LENGTH]}…", wait)
