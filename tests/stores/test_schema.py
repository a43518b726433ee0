"""Schema of stored points: ids, filter tags, payload limits, batches and the encoding of token grids."""

from __future__ import annotations

import doctest
import json
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jina_rag.errors import IndexCorruptError, InvalidInputError
from jina_rag.stores import filters, schema
from jina_rag.stores.filters import parse_where, tags
from jina_rag.types import Point, TokenGrid

fractions = st.one_of(st.floats(0, 1, width=32), st.just(float("nan")))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(4)), elements=fractions),
    st.sampled_from(["words", "patches"]),
)
def test_grid_round_trip_preserves_boxes_and_nan(boxes, kind):
    text = schema.encode_grid(TokenGrid(boxes, kind))
    assert json.loads(json.dumps(text)) == text
    decoded_grid = schema.decode_grid(text)
    assert decoded_grid.kind == kind
    assert decoded_grid.boxes.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(decoded_grid.boxes), np.isnan(boxes))
    np.testing.assert_allclose(decoded_grid.boxes, boxes, atol=1 / 65535)
    assert len(text) <= 40 + 4 * -(-8 * len(boxes) // 3), "at most slightly larger than the raw boxes"


def test_grid_keeps_page_corners_and_clips_outside_boxes():
    boxes = np.array([[0, 0, 1, 1], [-0.5, 2, 1, 1]], "f4")
    decoded_boxes = schema.decode_grid(schema.encode_grid(TokenGrid(boxes, "words"))).boxes
    np.testing.assert_array_equal(decoded_boxes, [[0, 0, 1, 1], [0, 1, 1, 1]])


def test_encoded_lines_of_words_take_a_third_of_the_raw_size():
    rng = np.random.default_rng(0)
    boxes = []
    for line in range(40):
        x = 0.1
        for width in rng.uniform(0.01, 0.09, 9):
            boxes.append((x, line / 40, x + width, line / 40 + 0.015))
            x += width + 0.004
    raw_size = 4 / 3 * 8 * len(boxes)
    grid = TokenGrid(np.array(boxes, "f4"), "words")
    assert len(schema.encode_grid(grid)) < 0.4 * raw_size
    np.testing.assert_allclose(schema.decode_grid(schema.encode_grid(grid)).boxes, grid.boxes, atol=1 / 65535)


def test_oversized_grid_is_not_decompressed(monkeypatch):
    text = schema.encode_grid(TokenGrid(np.zeros((10_000, 4), "f4"), "words"))
    assert len(schema.decode_grid(text)) == 10_000
    monkeypatch.setattr(schema, "_MAX_GRID_BYTES", 79_999)
    with pytest.raises(IndexCorruptError, match="Ingest the documents again"):
        schema.decode_grid(text)


@pytest.mark.parametrize(
    "text", ["", "words:!!", "words:AAAA", "words:eNoDAAAA", "words:eNpjYAQAAAMAAg==", "lines:", "AAAAAAAAAAA="]
)
def test_invalid_grid_text_raises_index_corrupt_error(text):
    with pytest.raises(IndexCorruptError):
        schema.decode_grid(text)


def test_point_id_is_stable_and_depends_on_all_arguments():
    page_id = schema.point_id("0" * 64, 3)
    assert page_id == "6bdbc145-f294-578b-9e8a-4207e548132a", "a changed id orphans the pages of existing indexes"
    assert page_id == schema.point_id("0" * 64, 3, "page")
    others = [
        schema.point_id("1" * 64, 3),
        schema.point_id("0" * 64, 4),
        schema.point_id("0" * 64, 3, "region0"),
    ]
    assert len({page_id, *others}) == 4


def test_checked_id_accepts_any_uuid_spelling():
    value = uuid.UUID(int=12)
    assert schema.checked_id(value.hex.upper()) == schema.checked_id("{" + str(value) + "}") == str(value)


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda key: key.split(".")[0] not in schema.UNFILTERABLE),
        st.one_of(
            st.booleans(),
            st.integers(-(2**53), 2**53),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(),
        ),
        max_size=4,
    )
)
def test_every_payload_matches_a_filter_of_its_own_values(payload):
    payload_tags = set(tags(payload))
    for condition in parse_where(payload):
        assert payload_tags & set(condition.tags)


def test_tags_distinguish_types_and_long_strings():
    values = [True, False, 1, 0, "1", "0", "true", 1.5, "x" * 300, "x" * 301]
    assert len({tags({"k": value})[0] for value in values}) == len(values)
    assert tags({"k": 1.0}) == tags({"k": 1})
    assert tags({"a": {"b": 1}}) == tags({"a.b": 1})
    assert max(len(tag) for tag in tags({"k": "x" * 10_000})) < 300
    assert tags({"text": "x", "grid": "x", "k": None, "e": []}) == []


def test_multi_vector_limit_is_exact():
    rows = np.ones((2730, 384), "f4")
    assert schema.checked_point(Point(str(uuid.uuid4()), multi=rows), 4, 384).multi is rows
    with pytest.raises(InvalidInputError, match=r"2,731 x 384 numbers is too large for one point.*pool_tokens"):
        schema.checked_point(Point(str(uuid.uuid4()), multi=np.ones((2731, 384), "f4")), 4, 384)


def test_batches_keep_order_and_byte_limit():
    points = [Point(str(uuid.UUID(int=n)), multi=np.ones((n % 3 * 100 + 1, 64), "f4")) for n in range(1, 30)]
    batches = list(schema.batches(points, limit=150_000))
    assert [point for batch in batches for point in batch] == points
    assert len(batches) > 3
    assert all(sum(point.multi.nbytes for point in batch) <= 150_000 for batch in batches)
    assert [len(batch) for batch in schema.batches(points[:3], limit=1)] == [1, 1, 1]
    assert list(schema.batches([])) == []


def test_clean_payload_converts_to_json_or_raises():
    assert schema.clean_payload({"a": (1, np.float32(0.5), None), "b": True}) == {
        "a": [1, 0.5, None],
        "b": True,
    }
    assert type(schema.clean_payload(np.bool_(True))) is bool
    assert [type(schema.clean_payload(n)) for n in (-(2**63), 2**64 - 1, 2**64)] == [int, int, float]
    for invalid in (float("inf"), {1: 2}, object(), b"x", {"a": {3, 4}}):
        with pytest.raises(InvalidInputError, match="not JSON"):
            schema.clean_payload(invalid)


def nested_payload(depth):
    value = {"n": 1}
    for _ in range(depth - 1):
        value = {"n": value}
    return value


def test_payload_nesting_limit():
    deep = nested_payload(schema.MAX_METADATA_DEPTH)
    assert schema.clean_payload(deep) == deep
    # Metadata at the limit is also valid within the payload of a point.
    assert schema.checked_payload({"meta": [deep]}) == {"meta": [deep]}
    recursive = []
    recursive.append(recursive)
    for invalid in ({"n": deep}, {"n": [deep]}, nested_payload(126), nested_payload(5000), recursive):
        with pytest.raises(InvalidInputError, match="nested deeper than 32"):
            schema.clean_payload(invalid)
        with pytest.raises(InvalidInputError, match="nested deeper than 32"):
            schema.checked_payload({"meta": [invalid]})
    with pytest.raises(InvalidInputError, match="not JSON"):
        schema.clean_payload({1: nested_payload(5000)})


def test_integer_beyond_float_range_raises_invalid_input_error():
    for number in (10**400, -(10**400), 10**5000):
        with pytest.raises(InvalidInputError, match="more than 308 digits"):
            schema.clean_payload({"n": number})


def test_filter_docstring_examples():
    result = doctest.testmod(filters)
    assert result.attempted
    assert not result.failed
