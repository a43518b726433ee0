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
        record: The complete input object, which is written to the output if the pair stays.
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
        step: Name of the step that dropped the pair, or ``"read"`` for a line without a pair.
        reason: A short text, identical for all pairs with the same fault, so that reports can count pairs by reason.
        duplicate_of: `Pair.number` of the earlier pair that this pair duplicates; None if the pair is not a duplicate.
        detail: Values that led to the decision, for example the similarities, the language or the rank.
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
"""Callback for each dropped pair or line."""


class Step(Protocol):
    """Protocol of a cleaning step. A step holds no state between runs and may be reused."""

    @property
    def name(self) -> str:
        """Name of the step in reports."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings that affect which pairs the step drops, including seeds, as JSON values."""
        ...

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield the pairs that stay, in input order.

        Args:
            pairs: Input pairs, which the step reads once and in order.
            drop: Called with each pair that the step drops.
            scratch: An empty folder for state that does not fit in memory; deleted after the run.
        """
        ...


def read_pairs(
    path: Path, drop: OnDrop | None = None, *, query_key: str = "query", passage_key: str = "passage"
) -> Iterator[Pair]:
    """Yield the pairs of a JSONL file, reading one line at a time.

    Lines without a pair are reported to `drop` and skipped. The first non-blank line must hold a pair, because an
    invalid first line usually means that the file or the keys are wrong.

    Args:
        path: A UTF-8 file with one JSON object per line. Blank lines are skipped.
        drop: Called with each line that is not a JSON object or lacks the query or the passage. If None, such a line
            raises an error.
        query_key: Key of the query in the JSON object.
        passage_key: Key of the passage in the JSON object.

    Yields:
        The pairs in file order. `Pair.number` is the line number.

    Raises:
        InvalidInputError: If the file cannot be read, if the first non-blank line holds no pair, or if `drop` is None
            and any line holds no pair.
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
                    raise InvalidInputError(
                        f'{path}, line {number}: {exc} Expected a JSON object with the strings "{query_key}" '
                        f'(--query-key) and "{passage_key}" (--passage-key).'
                    ) from exc
                drop(Dropped(number, "read", str(exc)))
            first = False


def as_pairs(
    records: Iterable[Mapping[str, Any]], *, query_key: str = "query", passage_key: str = "passage"
) -> Iterator[Pair]:
    """Yield records as pairs, numbered from 1.

    Args:
        records: Mappings that hold a query and a passage.
        query_key: Key of the query in a record.
        passage_key: Key of the passage in a record.

    Yields:
        One pair per record, in order.

    Raises:
        InvalidInputError: If a record lacks the query or the passage. The message has the number of the pair.
    """
    for number, record in enumerate(records, start=1):
        try:
            yield _pair(number, record, query_key, passage_key)
        except InvalidInputError as exc:
            raise InvalidInputError(f"Pair {number}: {exc} Add the text, or pass query_key and passage_key.") from exc


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of at most `size` items, consuming `items` lazily."""
    source = iter(items)
    while batch := list(itertools.islice(source, size)):
        yield batch


def dump(record: Mapping[str, Any]) -> bytes:
    r"""Return `record` as one line of JSON in UTF-8.

    UTF-8 cannot encode lone surrogates, so a record with lone surrogates is written in ASCII with ``\uXXXX`` escapes.
    """
    try:
        return json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record).encode("ascii") + b"\n"


def same_text(text: str) -> str:
    """Return `text` in NFKC, case-folded, without invisible characters, and with single spaces as white space."""
    # Normalize again, because the case-folded text may not be in NFKC, for example after folding U+0345.
    text_folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_INVISIBLE).casefold())
    return " ".join(text_folded.split())


def _record(line: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise InvalidInputError("not UTF-8 text.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError("not JSON.") from exc  # without details, because reports count lines by message
    if not isinstance(record, dict):
        raise InvalidInputError("not a JSON object.")
    return record


def _pair(number: int, record: Mapping[str, Any], query_key: str, passage_key: str) -> Pair:
    query, passage = record.get(query_key), record.get(passage_key)
    for key, value in ((query_key, query), (passage_key, passage)):
        if not isinstance(value, str):
            raise InvalidInputError(f'"{key}" is missing or not a string.')
    return Pair(number, str(query), str(passage), record)
