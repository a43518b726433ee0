"""Query-passage pairs, the reader of JSONL files, and the protocol of a cleaning step."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.files import explain_os_errors

_Item = TypeVar("_Item")
_INVISIBLE = dict.fromkeys([0x00AD, 0x200B, 0x2060, 0xFEFF])
"""Characters without a visible glyph: soft hyphen, zero-width space, word joiner, byte order mark."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and its passage.

    Attributes:
        number: Position in the input, counted from 1; the line number if the pair comes from a file.
        query: The query's text.
        passage: The passage's text.
        record: The input object with all its keys, written to the output if the pair stays.
    """

    number: int
    query: str
    passage: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A pair or line that a cleaning run dropped.

    Attributes:
        number: `Pair.number`, or the line number of a line without a pair.
        step: Name of the step, or ``"read"`` for a line without a pair.
        reason: A short text that is identical for all pairs dropped for the same reason.
        duplicate_of: `Pair.number` of the pair that stays, if this pair duplicates another; else None.
        detail: Values that led to the decision: similarities, language or rank.
        record: The input object; empty for a line without a pair.
    """

    number: int
    step: str
    reason: str
    duplicate_of: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object for the file of dropped pairs."""
        line: dict[str, Any] = {"line": self.number, "step": self.step, "reason": self.reason}
        if self.duplicate_of is not None:
            line["duplicate_of"] = self.duplicate_of
        return line | dict(self.detail) | {"pair": dict(self.record)}


OnDrop: TypeAlias = Callable[[Dropped], None]
"""Callback for each pair that a step drops."""


class Step(Protocol):
    """Protocol of a cleaning step. A step holds no state between runs and may be reused."""

    @property
    def name(self) -> str:
        """Name of the step in reports."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings that affect the step's decisions, seeds included, as JSON values."""
        ...

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield the pairs that stay, in order.

        Args:
            pairs: Input pairs; read once, in order.
            drop: Called with each pair that the step drops.
            scratch: An empty folder for state that does not fit in memory; deleted after the run.
        """
        ...


def read_pairs(
    path: Path, drop: OnDrop | None = None, *, query_key: str = "query", passage_key: str = "passage"
) -> Iterator[Pair]:
    """Yield the pairs of a JSONL file, reading one line at a time.

    Lines without a pair are reported to `drop` and skipped. The first non-blank line must hold a pair, because an
    invalid first line means a wrong file or wrong keys.

    Args:
        path: A UTF-8 file with one JSON object per line. Blank lines are skipped.
        drop: Called with each line that is not a JSON object or lacks one of the two texts; None raises an error
            instead.
        query_key: Record key of the query.
        passage_key: Record key of the passage.

    Yields:
        The pairs in the order of the file, numbered by line.

    Raises:
        InvalidInputError: If the file cannot be read, its first line holds no pair, or, with `drop=None`, any line
            holds no pair.
    """
    first = True
    with explain_os_errors(f"{path} cannot be read"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _pair(number, _record(line), query_key, passage_key)
            except InvalidInputError as exc:
                if first or drop is None:
                    raise InvalidInputError(f"{path}, line {number}: {exc}") from exc
                drop(Dropped(number, "read", str(exc)))
            first = False


def as_pairs(
    records: Iterable[Mapping[str, Any]], *, query_key: str = "query", passage_key: str = "passage"
) -> Iterator[Pair]:
    """Yield records as pairs, numbered from 1.

    Args:
        records: Objects that hold a query and a passage.
        query_key: Record key of the query.
        passage_key: Record key of the passage.

    Yields:
        One pair per record, in order.

    Raises:
        InvalidInputError: If a record lacks one of the two texts; the message has the pair's number.
    """
    for number, record in enumerate(records, start=1):
        try:
            yield _pair(number, record, query_key, passage_key)
        except InvalidInputError as exc:
            raise InvalidInputError(f"Pair {number}: {exc}") from exc


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of at most `size` items, consuming `items` lazily."""
    source = iter(items)
    while batch := list(itertools.islice(source, size)):
        yield batch


def dump(record: Mapping[str, Any]) -> bytes:
    r"""Return `record` as one line of JSON in UTF-8; lone surrogates, which UTF-8 cannot encode, become ``\udcXX``."""
    try:
        return json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record).encode("ascii") + b"\n"


def same_text(text: str) -> str:
    """Return `text` normalized: NFKC, case-folded, without invisible characters, single spaces as white space."""
    # NFKC runs twice because casefold can produce text outside the form, for example from U+0345.
    text_folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_INVISIBLE).casefold())
    return " ".join(text_folded.split())


def _record(line: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise InvalidInputError("not UTF-8 text.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError("not JSON.") from exc  # a key of the JSON report
    if not isinstance(record, dict):
        raise InvalidInputError("not a JSON object.")
    return record


def _pair(number: int, record: Mapping[str, Any], query_key: str, passage_key: str) -> Pair:
    query, passage = record.get(query_key), record.get(passage_key)
    for key, value in ((query_key, query), (passage_key, passage)):
        if not isinstance(value, str):
            raise InvalidInputError(f'"{key}" is missing or not a string.')
    return Pair(number, str(query), str(passage), record)
