"""Stores: text and numbers of dates and times, and the payload values that become text."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from jina_rag.errors import InvalidInputError
from jina_rag.stores import dates, schema
from jina_rag.stores.ranges import checked_range, intersection
from jina_rag.types import Range


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dt.date(2025, 1, 31), "2025-01-31"),
        (dt.datetime(2025, 1, 31, 9, 30), "2025-01-31T09:30:00+00:00"),
        (dt.datetime(2025, 7, 1, 9, tzinfo=ZoneInfo("Europe/Berlin")), "2025-07-01T09:00:00+02:00"),
        # RFC 3339 has no seconds in offsets; before 1893, Berlin was 53:28 minutes ahead of Greenwich.
        (dt.datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), "1889-12-31T23:06:32+00:00"),
        (dt.time(9, 30), "09:30:00"),
        (pd.Timestamp("2025-01-31T09:30:00.123456789", tz="UTC"), "2025-01-31T09:30:00.123456+00:00"),
        (np.datetime64("2025-01-31T09:30:00.123456789"), "2025-01-31T09:30:00.123456+00:00"),
        (np.datetime64("2025-01"), "2025-01-01"),
    ],
)
def test_clean_payload_stores_dates_as_rfc_3339(value, text):
    assert schema.clean_payload({"a": [value]}) == {"a": [text]}
    assert dates.parse(text) is not None


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (pd.NaT, "a date or null"),
        (np.datetime64("NaT"), "a date or null"),
        (float("nan"), "a finite number"),
        (b"\0", "base64"),
        ({1, 2}, "a list"),
        (dt.timedelta(1), "seconds"),
        ({1: 2}, "strings as keys"),
    ],
)
def test_clean_payload_names_a_remedy(value, remedy):
    with pytest.raises(InvalidInputError, match=f"not JSON. Use .*{remedy}"):
        schema.clean_payload({"a": value})


@pytest.mark.parametrize(
    "text", ["2025-02-30", "2025-1-31", "20250131", "2025-W01-1", "2025-01-31T25:00", "0001-01-01T00:00+14:00", "24:61",
             "2025-01-31Tnoon", "1234-5678-90", "ab:cd", "2025-01-31T09:30:00+01:00 or later", "٢٠٢٥-٠١-٣١"]
)  # fmt: skip
def test_other_text_is_not_a_date(text):
    assert dates.parse(text) is None


def test_checked_range_is_idempotent_and_takes_the_tighter_bound():
    limits = checked_range("v", Range(gte="2025-01-01", gt="2025-01-01", lte=dt.date(2025, 3, 1), lt="2025-03-01"))
    assert limits == Range(gte="2025-01-02T00:00:00+00:00", lt="2025-03-01T00:00:00+00:00")
    assert checked_range("v", limits) == limits
    assert intersection("v", [Range(gte="2025-01-01"), Range(gt="2024-01-01T00:00Z", lt="2026-01-01")]) == Range(
        gte="2025-01-01T00:00:00+00:00", lt="2026-01-01T00:00:00+00:00"
    )
    assert intersection("v", [Range(gte=5), Range(gt=5)]) == Range(gt=5.0)
    for mixed in ([Range(gte="2025-01-01"), Range(lt=5)], [Range(gte="2025-01-01"), Range(gte=5)]):
        with pytest.raises(InvalidInputError, match="'v'"):
            intersection("v", mixed)
