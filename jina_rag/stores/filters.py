"""Filters, as every store applies them: what a point carries so that it can be filtered, and what a filter asks of it.

An engine matches strings and compares numbers at a path of a payload; a key with a dot, a space or a quote would need
quoting there, and lists brackets. So each point carries its values a second time, in a form that needs neither: as
*tags*, one string for each value, and as *numbers*, one list for each key.

A new operator is a class of `Condition` here, made by `parse_where` and evaluated by `meets`; `qdrant.base` puts it
into the form of the engines.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from jina_rag._checks import is_number
from jina_rag.errors import InvalidInputError
from jina_rag.stores.schema import NUMBERS, TAGS, UNFILTERABLE
from jina_rag.types import Point, Range, Scalar, Where

MOST_INDEXED = 64
"""How many keys with numbers a store indexes; in the order in which it meets them. The rest are filtered, too, by
reading every payload: 11 µs a point."""

_LONG_TEXT = 256


@dataclass(frozen=True, slots=True)
class OneOf:
    """A point must have at least one of these tags; where there is none, nothing matches."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """A point must have a number in the range, whose ends are finite floats, under this path of its payload."""

    path: str
    range: Range


Condition: TypeAlias = OneOf | Within


def tags(payload: Mapping[str, Any]) -> list[str]:
    """One string for each value of a payload that can be filtered.

    A tag is the key and the value as JSON, so that true, 1 and "1" stay different and 1 and 1.0 do not. A list
    gives one tag for each item; the keys of an inner object, also of one in a list, are joined by dots; null gives
    none.

    >>> tags({"page": 3.0, "meta": {"draft": True, "by": ["Ann", {"name": "Bo"}]}})
    ['["page", 3]', '["meta.draft", true]', '["meta.by", "Ann"]', '["meta.by.name", "Bo"]']
    """
    return list(dict.fromkeys(_tag(key, value) for key, value in _filterable(payload)))


def numbers(payload: Mapping[str, Any]) -> dict[str, list[float]]:
    """The numbers of a payload that can be filtered, by the name of their key; keys are joined as those of `tags`.

    >>> list(numbers({"page": 3, "meta": [{"year": 2024}, {"year": 2025, "draft": True, "by": "Ann"}]}).values())
    [[3.0], [2024.0, 2025.0]]
    """
    by_name: dict[str, dict[float, None]] = {}
    for key, value in _filterable(payload):
        if is_number(value):
            by_name.setdefault(_name(key), {})[float(value)] = None
    return {name: list(values) for name, values in by_name.items()}


def filterable(point: Point) -> Point:
    """The point with what its payload needs so that an engine can filter by it."""
    return replace(point, payload={**point.payload, **for_filters(point.payload)})


def for_filters(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a store adds to a payload, so that it can be filtered."""
    return {TAGS: tags(payload), NUMBERS: numbers(payload)}


def indexed_paths(paths: Iterable[str]) -> set[str]:
    """Those of an engine's indexes that are of numbers."""
    return {path for path in paths if path.startswith(f"{NUMBERS}.")}


def without_own(payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """A payload as it was given: without what `for_filters` adds."""
    return {key: value for key, value in (payload or {}).items() if key not in (TAGS, NUMBERS)}


def parse_where(where: Where) -> list[Condition]:
    """A filter as conditions, all of which a point must meet.

    Numbers are compared as 64-bit floats; of a list it is enough that one number lies in the range. A range whose ends
    exclude each other matches nothing.

    Raises:
        InvalidInputError: If a key cannot be filtered by, or a value is not a string, number or boolean, a list of
            them, or a range of numbers.
    """
    conditions: list[Condition] = []
    for key, value in where.items():
        if not isinstance(key, str) or not key or key.split(".")[0] in UNFILTERABLE:
            raise InvalidInputError(
                f"Results cannot be filtered by {key!r}: use doc_id, path, page, kind or meta.<key>."
            )
        if isinstance(value, Range):
            limits = checked_range(key, value)
            conditions.append(OneOf(()) if _is_empty(limits) else Within(f"{NUMBERS}.{_name(key)}", limits))
            continue
        values = [value] if isinstance(value, str | int | float | np.generic) else value
        if not isinstance(values, Sequence | set | frozenset):
            raise InvalidInputError(
                f"The filter {key!r} is {value!r}: give a string, a number, true or false, a list of them, or a range."
            )
        conditions.append(OneOf(tuple(_tag(key, checked_scalar(key, item)) for item in values)))
    return conditions


def can_match(conditions: Sequence[Condition]) -> bool:
    """False if nothing can meet the conditions."""
    return all(isinstance(condition, Within) or condition.tags for condition in conditions)


def matches(payload: Mapping[str, Any], where: Where) -> bool:
    """Whether a payload meets a filter, by the rule of the stores; it raises as `parse_where` does."""
    return meets(payload, parse_where(where))


def meets(payload: Mapping[str, Any], conditions: Sequence[Condition]) -> bool:
    """Whether a payload meets all conditions."""
    payload_tags = set(tags(payload))
    within = {f"{NUMBERS}.{name}": values for name, values in numbers(payload).items()}
    return all(
        any(in_range(number, condition.range) for number in within.get(condition.path, ()))
        if isinstance(condition, Within)
        else not payload_tags.isdisjoint(condition.tags)
        for condition in conditions
    )


def in_range(number: float, limits: Range) -> bool:
    """Whether a number lies in a range."""
    return (
        (limits.gte is None or number >= limits.gte)
        and (limits.lte is None or number <= limits.lte)
        and (limits.gt is None or number > limits.gt)
        and (limits.lt is None or number < limits.lt)
    )


def checked_scalar(key: str, value: object) -> Scalar:
    """Return a filter's value as a Python scalar; NumPy's become Python's.

    Raises:
        InvalidInputError: If it is anything but a string, a finite number or a boolean.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, str | bool | int) or (isinstance(plain, float) and math.isfinite(plain)):
        return plain
    raise InvalidInputError(f"The filter {key!r} has the value {value!r}: give strings, numbers, true or false.")


def checked_range(key: str, limits: Range) -> Range:
    """Return a range with at most one lower and one upper end, as floats.

    An engine looks at one of each only: of ``gte`` and ``gt``, and of ``lte`` and ``lt``, the closer one stays.

    Raises:
        InvalidInputError: If it has no end at all, or one that is no finite number.
    """
    bounds = {name: _end(key, name, end) for name, end in asdict(limits).items() if end is not None}
    if not bounds:
        raise InvalidInputError(f"The range of {key!r} has no end: give at least one of gte, lte, gt and lt.")
    if "gte" in bounds and "gt" in bounds:
        del bounds["gte" if bounds["gt"] >= bounds["gte"] else "gt"]
    if "lte" in bounds and "lt" in bounds:
        del bounds["lte" if bounds["lt"] <= bounds["lte"] else "lt"]
    return Range(**bounds)


def _end(key: str, name: str, value: object) -> float:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, str):
        raise InvalidInputError(
            f"The range of {key!r} has {name}={plain!r}, which is text: ranges are of numbers; to filter by a range "
            "of dates, give documents their date as a number, such as 20240131."
        )
    try:
        if is_number(plain):
            return float(plain)
    except OverflowError:  # a whole number that no float holds
        pass
    raise InvalidInputError(f"The range of {key!r} has {name}={value!r}: its ends are finite numbers.")


def _is_empty(limits: Range) -> bool:
    """Whether its ends exclude each other; what an engine would make of that need not be known."""
    low = limits.gt if limits.gte is None else limits.gte
    high = limits.lt if limits.lte is None else limits.lte
    return low is not None and high is not None and (low > high or (low == high and not in_range(low, limits)))


def _filterable(payload: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    yield from _flat({key: value for key, value in payload.items() if key.split(".")[0] not in UNFILTERABLE}, "")


def _flat(value: Any, key: str) -> Iterator[tuple[str, Scalar]]:  # noqa: ANN401
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _flat(item, f"{key}.{inner}" if key else inner)
    elif isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, list | tuple):
                yield from _flat(item, key)
    elif value is not None:
        yield key, value


def _tag(key: str, value: Scalar) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and len(value) > _LONG_TEXT:
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
        return json.dumps([key, {"sha256": digest}])
    return json.dumps([key, value], ensure_ascii=False)


def _name(key: str) -> str:
    """A name for a key that is a path of its own in any engine: of letters and digits, whatever the key holds."""
    return "n" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
