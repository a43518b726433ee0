"""What went wrong at a Qdrant server: REST, gRPC and the client's own stand-in brought to one set of kinds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from jina_rag._extras import require
from jina_rag.errors import IndexNotFoundError, IndexStateError

Kind: TypeAlias = Literal[
    "silent", "slow", "busy", "down", "untrusted", "unauthorised", "missing", "exists", "large", "foreign", "refused"
]

_REASON: Final = 300
_STATUSES: Final[dict[int, Kind]] = {
    401: "unauthorised", 403: "unauthorised", 404: "missing", 409: "exists", 413: "large", 429: "busy",
    502: "down", 503: "down", 504: "down",
}  # fmt: skip
_CODES: Final[dict[str, Kind]] = {
    "UNAVAILABLE": "silent", "DEADLINE_EXCEEDED": "slow", "RESOURCE_EXHAUSTED": "busy", "NOT_FOUND": "missing",
    "UNAUTHENTICATED": "unauthorised", "PERMISSION_DENIED": "unauthorised", "ALREADY_EXISTS": "exists",
    "OUT_OF_RANGE": "large", "UNIMPLEMENTED": "foreign",
}  # fmt: skip


class AlreadyThereError(IndexStateError):
    """What was to be made exists; caught where that is as good as having made it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which collection of which server is spoken to.

    Attributes:
        url: As `checked_url` returns it.
        collection: Its name.
        timeout: Seconds a request may take.
        secret: The API key, which no message may show.
    """

    url: str
    collection: str
    timeout: int = 60
    secret: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.url} (collection {self.collection!r})"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One failure.

    Attributes:
        kind: What sort.
        reason: What the server or the transport said; may be empty.
        wait: Seconds after which the server wants to be asked again.
    """

    kind: Kind
    reason: str
    wait: float | None = None


def read(exc: BaseException) -> Trouble:
    """What an exception that came out of the client means."""
    httpx, grpc = require("httpx"), require("grpc")
    # The REST client wraps what the transport raised.
    source = getattr(exc, "source", exc)
    status = getattr(exc, "status_code", None)
    if isinstance(source, httpx.TransportError):
        return _trouble("slow" if isinstance(source, httpx.TimeoutException) else "silent", source)
    if isinstance(status, int):
        return _of_status(status, exc)
    if isinstance(exc, grpc.RpcError) and callable(getattr(exc, "code", None)):
        return _trouble(_CODES.get(exc.code().name, "refused"), exc.details() or exc.code().name)
    name = type(exc).__name__
    if name in ("ResourceExhaustedResponse", "QdrantException"):
        return _trouble("busy", exc, getattr(exc, "retry_after_s", None))
    if name == "ResponseHandlingException" or isinstance(exc, json.JSONDecodeError):
        return _trouble("foreign", "its answer cannot be read")
    # The stand-in in this process raises plain ones.
    if isinstance(exc, ValueError) and str(exc).startswith("Collection "):
        return _trouble("exists" if str(exc).endswith("already exists") else "missing", exc)
    return _trouble("refused", exc)


def explained(trouble: Trouble, place: Place, doing: str) -> IndexStateError:
    """Our error for it: what, where, and what to do.

    Args:
        trouble: What `read` returned.
        place: Where.
        doing: What was to be done to the index, for example ``"be searched"``.
    """
    message = trouble.reason if place.secret is None else trouble.reason.replace(place.secret, "…")
    why = f" ({message})" if message else ""
    where = f"The index at {place} could not {doing}"
    sentences = {
        "silent": f"No Qdrant server answers at {place.url}{why}: is it running, and is the address right?",
        "slow": f"{where}: the server did not answer within {place.timeout} s{why}. Is it overloaded? A longer "
        "timeout may help.",
        "busy": f"{where}: the server limits how much may be asked of it{why}. Try again later, or raise its limits.",
        "down": f"{where}: the server, or what stands before it, cannot serve now{why}. Try again later.",
        "untrusted": f"{where}: the certificate of the server is not trusted{why}. Give the file of the authority "
        "that signed it as `verify`.",
        "unauthorised": f"{where}: the server refuses the API key{why}. Is the key right, and may it do that?"
        if place.secret
        else f"{where}: the server wants an API key{why}. Give one, or set the environment variable QDRANT_API_KEY.",
        "large": f"{where}: the request was larger than the server takes{why}. Raise its limit on requests to 32 MiB "
        "or more.",
        "foreign": f"What answers at {place.url} does not speak as a Qdrant server does{why}: is the address right?",
        "missing": f"There is no index at {place}{why}: ingest documents into it first.",
        "exists": f"{where}: it exists already{why}.",
        "refused": f"{where}{why}.",
    }
    kinds: dict[Kind, type[IndexStateError]] = {"missing": IndexNotFoundError, "exists": AlreadyThereError}
    return kinds.get(trouble.kind, IndexStateError)(sentences[trouble.kind])


def _of_status(status: int, exc: Any) -> Trouble:  # noqa: ANN401  # an exception of the client
    kind = _STATUSES.get(status, "foreign" if status < 400 else "refused")
    try:
        message = json.loads(exc.content)["status"]["error"]
    except (ValueError, KeyError, TypeError):
        # Whatever stands between, a gateway or another server, does not answer in Qdrant's form.
        message = f"status {status}"
        kind = "foreign" if kind == "missing" else kind
    after = exc.headers.get("retry-after", "")
    return _trouble(kind, message, float(after) if after.isdigit() else None)


def _trouble(kind: Kind, message: object, wait: float | None = None) -> Trouble:
    """The failure; what was said may show that it is of another kind."""
    text = " ".join(str(message).split()).rstrip(".")
    words = text.lower()
    if kind == "silent" and "certificate" in words:
        kind = "untrusted"
    elif "larger than allowed" in words:
        kind = "large"
    # A point that another process has deleted meanwhile is "not found" too.
    elif kind == "missing" and "collection" not in words:
        kind = "refused"
    return Trouble(kind, text if len(text) <= _REASON else f"{text[:_REASON]}…", wait)
