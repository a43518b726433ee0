"""Adapter filters and search settings: conversion to arguments of the index."""

from __future__ import annotations

import datetime as dt
from collections import deque

import numpy as np
import pytest

pytest.importorskip("pydantic")

from jina_rag import InvalidInputError, Range
from jina_rag.adapters import SEARCH_SETTINGS, intersect_ranges, metadata_matches, page_filter, search_arguments


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 1),
        (1.0, 2.0),
        (np.int64(0), 1),
        (np.float32(2), 3.0),
        (np.array(4), 5),
        ([0, 2], [1, 3]),
        ((0, np.int16(2)), [1, 3]),
        (range(0, 3), [1, 2, 3]),
        (np.arange(3), [1, 2, 3]),
        ([np.int64(0), np.float64(1)], [1, 2.0]),
        (deque([5]), [6]),
        ({7}, [8]),
        (frozenset({7}), [8]),
        ({0: "a"}.keys(), [1]),
        ([range(2), 5], [[1, 2], 6]),
        ([], []),
        (Range(gte=0, lt=3), Range(gte=1, lt=4)),
        (Range(gt=np.int64(1), lte=np.float32(2)), Range(gt=2, lte=3)),
    ],
)
def test_page_filter_shifts_every_form_to_one_based(value, expected):
    result = page_filter({"page": value})["page"]
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("value", [True, False, np.bool_(True), [0, True], "3", ["3"], None, b"3", {"gte": 1}])
def test_page_filter_rejects_other_values(value):
    with pytest.raises(InvalidInputError, match=r"The filter 'page' is .*; expected 0-based page numbers or a Range"):
        page_filter({"page": value})


def test_search_arguments_convert_numpy_dates_to_dates():
    nanoseconds = np.datetime64("2025-01-31T09:30:00", "ns")
    where = {"a": nanoseconds, "b": np.array([nanoseconds]), "c": np.datetime64("2025-01-31"), "d": np.array(4)}
    when = dt.datetime(2025, 1, 31, 9, 30)
    assert search_arguments({"filter": where})["filter"] == {"a": when, "b": [when], "c": when.date(), "d": 4}


def test_intersect_ranges_compares_bounds_of_one_side_only():
    assert intersect_ranges("a", Range(gte="3"), Range(lte="9")) == Range(gte="3", lte="9")  # page labels
    assert intersect_ranges("a", Range(gte=3), Range(gte=5, lt=9)) == Range(gte=5.0, lt=9.0)
    dates = intersect_ranges("a", Range(gte="2025-01-31"), Range(gte=dt.datetime(2024, 1, 1), lte="2025-12-31"))
    assert dates == Range(gte="2025-01-31T00:00:00+00:00", lt="2026-01-01T00:00:00+00:00")


def test_metadata_matches_dates():
    metadata = {"when": "2025-01-31T09:30:00+01:00"}
    assert metadata_matches(metadata, {"when": dt.date(2025, 1, 31)})
    assert metadata_matches(metadata, {"meta.when": Range(lt="2025-02-01")})
    assert not metadata_matches(metadata, {"when": Range(lt="2025-01-31")})


def test_page_filter_keeps_other_keys():
    assert page_filter({"source": "a.pdf", "year": range(3), "meta.page": 4}) == {
        "path": "a.pdf",
        "year": range(3),
        "meta.page": 4,
    }
    assert page_filter(None) is None
    assert page_filter(3) == 3  # the index raises the error


def test_search_arguments_rename_and_validate_settings():
    assert search_arguments({"k": 3, "score_threshold": 0.5}) == {"k": 3, "min_score": 0.5}
    assert set(search_arguments(dict.fromkeys(SEARCH_SETTINGS))) - {"min_score"} <= set(SEARCH_SETTINGS)
    with pytest.raises(
        InvalidInputError, match=r"'min_score' is not a search setting; expected one of k, .*score_threshold"
    ):
        search_arguments({"min_score": 0.5})
    with pytest.raises(InvalidInputError, match="'k' is not a search setting; expected one of filter"):
        search_arguments({"k": 1}, ["filter"])


def test_metadata_matches_like_index_search():
    metadata = {"year": 2024, "tags": ["a", "b"], "draft": True, "none": None, "by": {"name": "Ann"}}
    assert metadata_matches(metadata, {"year": [2024], "tags": ["b", "c"]})
    assert metadata_matches(metadata, {"meta.year": Range(gte=2024, lt=2025), "by.name": ["Ann"]})
    assert not metadata_matches(metadata, {"year": Range(gt=2024)})
    assert not metadata_matches(metadata, {"draft": [1]})
    assert not metadata_matches(metadata, {"draft": Range(gt=0)})
    assert not metadata_matches(metadata, {"missing": ["a"]})
    assert not metadata_matches(metadata, {"tags": Range(gt=0)})


def test_search_arguments_convert_numpy_arrays():
    where = {"year": np.array([2024, 2025]), "page": np.array(3), "n": np.int64(4), "by": "Ann"}
    assert search_arguments({"filter": where}) == {"filter": {"year": [2024, 2025], "page": 3, "n": 4, "by": "Ann"}}
    assert isinstance(where["year"], np.ndarray)
    assert search_arguments({"filter": None}) == {"filter": None}
    assert search_arguments({"filter": 3}) == {"filter": 3}  # the index raises the error
