"""Distribution of the inputs of a call over devices."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from PIL import Image

from jina_rag.models.runtime.work_sharing import MAX_SHARE, MIN_SHARE, share_out, token_cost
from jina_rag.testing import make_page


@given(st.lists(st.integers(1, 40_000), max_size=60), st.lists(st.integers(0, 50_000), min_size=1, max_size=5))
def test_each_input_is_in_one_share_and_shares_are_bounded(costs, loads):
    shares = share_out(costs, loads)
    assert sorted(index for share in shares for index in share.indices) == list(range(len(costs)))
    for share in shares:
        assert share.indices == sorted(share.indices)
        assert share.cost == sum(costs[index] for index in share.indices)
        assert share.device is not None or share.cost <= MAX_SHARE or len(share.indices) == 1
    bound = [share.device for share in shares if share.device is not None]
    assert len(bound) == len(set(bound))


def test_tokens_are_shared_out_evenly():
    costs = [768] * 9 + [100] * 12
    shares = share_out(costs, [0, 0])
    assert sorted(share.device for share in shares) == [0, 1]
    assert abs(shares[0].cost - shares[1].cost) <= 100


def test_a_busy_device_gets_fewer_tokens():
    by_device = {share.device: share.cost for share in share_out([768] * 8, [3072, 0])}
    assert by_device == {1: 768 * 6, 0: 768 * 2} or by_device == {1: 768 * 5, 0: 768 * 3}
    assert {share.device for share in share_out([768] * 2, [5000, 0])} == {1}


def test_a_short_call_goes_to_the_device_with_the_least_work():
    for costs in ([10], [10] * 20, [MIN_SHARE]):
        (share,) = share_out(costs, [700, 30, 400])
        assert share.device == 1
    assert len(share_out([MIN_SHARE] * 2, [0, 0, 0])) == 2
    assert [share.indices for share in share_out([], [0, 0])] == [[]]


def test_a_long_call_is_split_into_shares_of_similar_lengths():
    costs = [100, 1000] * 60
    shares = share_out(costs, [0, 0])
    assert len(shares) > 2
    assert {share.device for share in shares} == {None}
    assert all(costs[index] == 1000 for index in shares[0].indices)
    assert shares[-1].cost <= shares[0].cost


def test_costs_follow_the_model_and_the_options():
    page = make_page("tea " * 100, size=(560, 560))
    assert 100 <= token_cost(page, "text", {}) <= 200
    assert token_cost(page, "image", {}) == 8 + 400
    assert token_cost(page.screenshot.image, "image", {"max_pixels": 28 * 28 * 10}) == 18
    assert token_cost(Image.new("RGB", (3000, 3000)), "image", {}) == token_cost(Path("a.png"), "image", {}) == 776
    assert token_cost({"image": b"x"}, "image", {}) == token_cost(b"x", "image", {}) == 776
    uri = "data:image/png;base64," + "A" * 60
    assert token_cost({"image": uri}, "image", {}) == token_cost({"image": "a.png"}, "image", {}) == 776
    assert token_cost(uri, "image", {}) == token_cost({"text": uri}, "image", {}) < 50
    assert token_cost(["tea " * 100, page], "image", {}) == 108 + 408
    assert token_cost("tea " * 100, "text", {"max_length": 50}) == 50
    assert token_cost("茶" * 400, "text", {}) == 308


@pytest.mark.parametrize("item", [3, object(), {}, [], None, {"a": 1}])
def test_invalid_inputs_have_a_cost(item):
    assert token_cost(item, "image", {"max_pixels": "x", "max_length": -1}) >= 0
