"""A pair of a question and a passage, the file it comes from, and what a cleaning step is."""

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
"""Soft hyphen, zero-width space, word joiner, byte order mark: two texts that differ in these look the same."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its passage.

    Attributes:
        number: Its place in the input from 1; in a file, the number of its line.
        query: The question.
        passage: The passage.
        record: The object as it was read, other keys included: what is written when the pair is kept.
    """

    number: int
    query: str
    passage: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A pair that was taken out.

    Attributes:
        number: `Pair.number`; for a line that holds no pair, the number of the line.
        step: The step's name, or ``"read"``.
        reason: In a few words, the same for all that share it, so that it can be counted.
        duplicate_of: `Pair.number` of the kept pair that this one repeats; None for other reasons.
        detail: What led to it (similarity, language, rank).
        record: The object as it was read; empty where there was none.
    """

    number: int
    step: str
    reason: str
    duplicate_of: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The line of the file of dropped pairs."""
        line: dict[str, Any] = {"line": self.number, "step": self.step, "reason": self.reason}
        if self.duplicate_of is not None:
            line["duplicate_of"] = self.duplicate_of
        return line | dict(self.detail) | {"pair": dict(self.record)}


OnDrop: TypeAlias = Callable[[Dropped], None]
"""Called with each pair that a step takes out."""


class Step(Protocol):
    """One step of cleaning. It may be used for one run after another; nothing of a run stays in it."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides what it drops, seeds included, as JSON values."""
        ...

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Give the pairs that stay, in their order.

        Args:
            pairs: Read once, from first to last.
            drop: Called with each of the others.
            scratch: An empty folder for state that must not be held in memory; removed after the run.
        """
        ...


def read_pairs(
    path: Path, drop: OnDrop | None = None, *, query_key: str = "query", passage_key: str = "passage"
) -> Iterator[Pair]:
    """Read pairs from a JSONL file, one object a line, holding one line at a time.

    Lines that hold no pair go to `drop` and are passed over. The first one must hold a pair: where it does not, the
    file or the keys are the wrong ones, and all would be lost.

    Args:
        path: UTF-8; blank lines are passed over.
        drop: Called with each line that is not JSON or lacks one of the two texts; None to raise there.
        query_key: The key of the question.
        passage_key: The key of the passage.

    Raises:
        InvalidInputError: If the file cannot be read, or its first line holds no pair.
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
    """Number objects from 1 as pairs.

    Raises:
        InvalidInputError: If one lacks one of the two texts; the message has its number.
    """
    for number, record in enumerate(records, start=1):
        try:
            yield _pair(number, record, query_key, passage_key)
        except InvalidInputError as exc:
            raise InvalidInputError(f"Pair {number}: {exc}") from exc


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of `size` items; none of them is taken before it is needed."""
    source = iter(items)
    while some := list(itertools.islice(source, size)):
        yield some


def dump(record: Mapping[str, Any]) -> bytes:
    r"""One line of JSON in UTF-8; a lone surrogate, which UTF-8 has no bytes for, becomes ``\udcXX``."""
    try:
        return json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record).encode("ascii") + b"\n"


def same_text(text: str) -> str:
    """What two texts have in common that differ in case, white space, invisible marks or Unicode form only (NFKC)."""
    # Twice, because casefold can leave the form, as with U+0345.
    text_folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_INVISIBLE).casefold())
    return " ".join(text_folded.split())


def _record(line: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise InvalidInputError("not UTF-8 text.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError("not JSON.") from exc
    if not isinstance(record, dict):
        raise InvalidInputError("not a JSON object.")
    return record


def _pair(number: int, record: Mapping[str, Any], query_key: str, passage_key: str) -> Pair:
    query, passage = record.get(query_key), record.get(passage_key)
    for key, value in ((query_key, query), (passage_key, passage)):
        if not isinstance(value, str):
            raise InvalidInputError(f'"{key}" is missing or no text.')
    return Pair(number, str(query), str(passage), record)
