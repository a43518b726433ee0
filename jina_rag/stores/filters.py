"""Payload filters of all stores: the payload keys that make a point filterable, and the conditions of a filter.

An engine matches strings and compares numbers at a payload path. In a path, a key with a dot, a space or a quote
requires quoting, and a list requires brackets. To avoid the quoting and the brackets, each point stores all filterable
values a second time: as *tags*, one string per value, and as *numbers*, one list of numbers per payload key. Text that
spells a date or a time (see `dates`) has the tags of its value, and a number in a list of its own.

To add an operator, add a class to `Condition`, parse it in `parse_where` and evaluate it in `meets_all`; `qdrant.base`
translates conditions for the Qdrant engines.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from jina_rag._checks import is_number
from jina_rag.errors import InvalidInputError
from jina_rag.normalization import name_form
from jina_rag.stores import dates, schema
from jina_rag.stores.ranges import Interval, Kind, checked_range, interval_of, plain_scalar
from jina_rag.stores.schema import NUMBERS, TAGS, UNFILTERABLE
from jina_rag.types import Moment, Point, Range, Scalar, Where

MAX_INDEXED_KEYS = 64
"""Maximum number of keys of numbers, dates and times that a store indexes, in the order in which the keys first occur.
Range filters on other keys read every payload, which takes 11 µs per point."""

_MAX_TAG_TEXT = 256  # characters; for a longer string, the tag contains the SHA-256
_NAME_KEYS = frozenset({
    schema.KIND, schema.DOC_ID, schema.PATH, schema.PAGE_ID, schema.REVISION, schema.IMAGE, schema.NEAR, schema.HAS
})  # fmt: skip
"""Payload keys whose strings are names and never dates: two ids that spell the same date differently are different.
The same is true for keys named ``id`` or ``…_id``, for example ``meta.ref_doc_id``."""
_PREFIXES: dict[Kind, str] = {"number": "n", "date": "d", "time": "t"}
"""First letter of the hashed key of numbers; a range of one kind never matches values of another kind."""
_encode_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps with an option creates an encoder in each call


@dataclass(frozen=True, slots=True)
class OneOf:
    """Condition that a point has at least one of the tags. If `tags` is empty, no point matches.

    Attributes:
        tags: Tags as returned by `tags`.
    """

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """Condition that a point has a number within an interval at a payload path.

    Attributes:
        path: Payload path of the list of numbers.
        interval: Interval with finite bounds.
    """

    path: str
    interval: Interval


Condition: TypeAlias = OneOf | Within


def tags(payload: Mapping[str, Any]) -> list[str]:
    """Return one tag for each filterable value of a payload.

    A tag is the key and the value as JSON: true, 1 and "1" have different tags, 1 and 1.0 have the same tag. A list
    has one tag per item. Keys of nested objects, including objects in lists, are joined by dots. Null has no tag. A
    date has two tags: the datetime in UTC, and the day in UTC, which a filter by a date requires. Keys and metadata are
    compared by the spelling of `jina_rag.normalization.name_form`.

    >>> tags({"page": 3.0, "meta": {"draft": True, "by": ["Ann", {"name": "Bo"}]}})
    ['["page", 3]', '["meta.draft", true]', '["meta.by", "Ann"]', '["meta.by.name", "Bo"]']
    """
    return _tags(_filter_values(payload))


def numbers(payload: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the numbers, dates and times of a payload by hashed key; nested keys are joined by dots as in `tags`.

    Dates and times are returned as numbers (see `dates.number`), with hashed keys of their own.

    >>> list(numbers({"page": 3, "meta": [{"year": 2024}, {"year": 2025, "draft": True, "by": "Ann"}]}).values())
    [[3.0], [2024.0, 2025.0]]
    """
    return _numbers(_filter_values(payload))


def with_filter_payload(point: Point) -> Point:
    """Return the point with the tags and numbers of its payload added."""
    return replace(point, payload={**point.payload, **filter_payload(point.payload)})


def filter_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload keys that a store adds for filters: tags and numbers."""
    values = list(_filter_values(payload))
    return {TAGS: _tags(values), NUMBERS: _numbers(values)}


def indexed_paths(paths: Iterable[str]) -> set[str]:
    """Return the paths of numbers for range filters, out of all payload paths with an index."""
    return {path for path in paths if path.startswith(f"{NUMBERS}.")}


def without_filter_keys(payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the payload without the keys that `filter_payload` adds."""
    return {key: value for key, value in (payload or {}).items() if key not in (TAGS, NUMBERS)}


def parse_where(where: Where) -> list[Condition]:
    """Parse a filter into conditions, all of which a point must meet.

    Numbers are compared as 64-bit floats. A list matches a range if at least one of its values is in the range. An
    empty range, for example gt=5 with lt=4, matches no point. Dates and times are compared by value, and a date covers
    the whole day in UTC.

    Args:
        where: Payload key → string, number, boolean, date, time, `Range`, or list of such values except ranges. Nested
            keys are joined by dots.

    Raises:
        InvalidInputError: If a key is not filterable, or a value has an unsupported type.
    """
    conditions: list[Condition] = []
    for key, value in where.items():
        if not isinstance(key, str) or not key or key.split(".")[0] in UNFILTERABLE:
            raise InvalidInputError(
                f"{key!r} is not a filterable key; expected doc_id, path, page, kind or meta.<key>."
            )
        if isinstance(value, Range):
            kind, interval = interval_of(checked_range(key, value))
            path = f"{NUMBERS}.{_number_key(key, kind)}"
            conditions.append(OneOf(()) if interval.is_empty else Within(path, interval))
            continue
        values = [value] if isinstance(value, str | int | float | np.generic | dt.date | dt.time) else value
        if not isinstance(values, Sequence | set | frozenset):
            raise InvalidInputError(
                f"The filter {key!r} is {value!r}; expected a string, number, boolean, date, list or range."
            )
        conditions.append(OneOf(tuple(_filter_tag(key, checked_scalar(key, item)) for item in values)))
    return conditions


def can_match(conditions: Sequence[Condition]) -> bool:
    """Return whether any point can meet the conditions. An empty list of values excludes all points."""
    return all(isinstance(condition, Within) or condition.tags for condition in conditions)


def matches(payload: Mapping[str, Any], where: Where) -> bool:
    """Return whether a payload matches a filter, by the rules of the stores; see `parse_where` for the errors."""
    return meets_all(payload, parse_where(where))


def meets_all(payload: Mapping[str, Any], conditions: Sequence[Condition]) -> bool:
    """Return whether a payload meets all conditions."""
    payload_tags = set(tags(payload))
    within = {f"{NUMBERS}.{name}": values for name, values in numbers(payload).items()}
    return all(
        any(number in condition.interval for number in within.get(condition.path, ()))
        if isinstance(condition, Within)
        else not payload_tags.isdisjoint(condition.tags)
        for condition in conditions
    )


def checked_scalar(key: str, value: object) -> Scalar:
    """Return a filter value as a Python scalar: NumPy scalars are converted, and dates and times become text.

    Args:
        key: Filter key, for the error message.
        value: Filter value.

    Raises:
        InvalidInputError: If the value is not a string, a finite number, a boolean, a date or a time.
    """
    plain = plain_scalar(value)
    if isinstance(plain, str | bool | int) or (isinstance(plain, float) and math.isfinite(plain)):
        return plain
    if isinstance(plain, dt.date | dt.time) and plain == plain:  # NaT differs from itself
        return dates.to_text(plain)
    raise InvalidInputError(
        f"The filter {key!r} has the value {value!r}; expected a string, a number, a date, true or false."
    )


def moment_of(key: str, value: object) -> Moment | None:
    """Return the date or time that a value at a payload key spells; None for other values and for names.

    Args:
        key: Payload key; nested keys are joined by dots.
        value: A value of a payload or of a filter.
    """
    if not isinstance(value, str) or key in _NAME_KEYS:
        return None
    moment = dates.parse(value)
    return None if moment is not None and key.rpartition(".")[2].rpartition("_")[2] == "id" else moment


def _tags(values: Iterable[tuple[str, Scalar]]) -> list[str]:
    return list(dict.fromkeys(tag for key, value in values for tag in _value_tags(key, value)))


def _value_tags(key: str, value: Scalar) -> Iterator[str]:
    """Yield the tags of a payload value."""
    moment = moment_of(key, value)
    if isinstance(moment, dt.date):
        start = dates.start_of(moment)
        yield _tag(key, dates.to_text(start))
        yield _tag(key, dates.to_text(start.date()))
    else:
        yield _tag(key, value if moment is None else dates.to_text(moment))


def _filter_tag(key: str, value: Scalar) -> str:
    """Return the tag that a point has if a filter value matches the point."""
    moment = moment_of(key, value)
    return _tag(key, value if moment is None else dates.to_text(moment))


def _numbers(values: Iterable[tuple[str, Scalar]]) -> dict[str, list[float]]:
    by_name: dict[str, dict[float, None]] = {}
    for key, value in values:
        if is_number(value):
            by_name.setdefault(_number_key(key), {})[float(value)] = None
        elif (moment := moment_of(key, value)) is not None:
            by_name.setdefault(_number_key(key, dates.kind_of(moment)), {})[dates.number(moment)] = None
    return {name: list(numbers) for name, numbers in by_name.items()}


def _filter_values(payload: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    yield from _flatten({key: value for key, value in payload.items() if key.split(".")[0] not in UNFILTERABLE}, "")


def _flatten(value: Any, key: str) -> Iterator[tuple[str, Scalar]]:  # noqa: ANN401
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _flatten(item, f"{key}.{inner}" if key else inner)
    elif isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, list | tuple):
                yield from _flatten(item, key)
    elif value is not None:
        yield key, value


def _tag(key: str, value: Scalar) -> str:
    key = name_form(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and key not in _NAME_KEYS:
        value = name_form(value)
    if isinstance(value, str) and len(value) > _MAX_TAG_TEXT:
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
        return json.dumps([key, {"sha256": digest}])
    return _encode_json([key, value])


@functools.lru_cache(maxsize=1024)
def _number_key(key: str, kind: Kind = "number") -> str:
    """Return a hash of the key in letters and digits, which is a valid path segment in every engine."""
    return _PREFIXES[kind] + hashlib.sha256(name_form(key).encode("utf-8", "surrogatepass")).hexdigest()[:16]
