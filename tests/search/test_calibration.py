"""Calibration between modalities, on synthetic scores whose true probabilities are known."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag.errors import InvalidInputError
from jina_rag.search.calibration import LEAST, Calibration, Curve, fit_calibration
from jina_rag.search.reranking import Rerank

# Modality → how the reranker distorts the true log-odds: slope, offset.
DISTORTED = {"text": (0.5, 2.0), "image": (1.6, -1.5)}


def judged(count: int, seed: int, *, squashed: bool = True):
    """Labels of two modalities: the same true log-odds, scored with another slope and offset each."""
    random = np.random.default_rng(seed)
    labels, truth = [], []
    for modality, (slope, offset) in DISTORTED.items():
        odds = random.normal(-0.7, 2, count)
        relevant = random.random(count) < 1 / (1 + np.exp(-odds))
        scores = slope * odds + offset
        if squashed:
            scores = 1 / (1 + np.exp(-scores))
        labels += [(modality, float(s), bool(r)) for s, r in zip(scores, relevant, strict=True)]
        truth.append(1 / (1 + np.exp(-odds)))
    return labels, np.concatenate(truth)


def auc(scores, relevant) -> float:
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    positive = relevant.sum()
    return (ranks[relevant].sum() - positive * (positive - 1) / 2) / (positive * (~relevant).sum())


def columns(labels):
    names, scores, relevant = zip(*labels, strict=True)
    return list(names), np.array(scores), np.array(relevant)


@pytest.mark.parametrize("squashed", [True, False])
def test_a_mixed_list_comes_close_to_the_oracle(squashed):
    labels, _ = judged(400, seed=1, squashed=squashed)
    unseen, truth = judged(2000, seed=2, squashed=squashed)
    names, scores, relevant = columns(unseen)
    calibration = fit_calibration(labels)
    assert calibration.log_odds == squashed
    after = calibration.apply(scores, names)
    before, oracle = auc(scores, relevant), auc(truth, relevant)
    assert before < oracle - 0.05
    assert auc(after, relevant) > oracle - 0.005
    assert np.abs(after - truth).mean() < 0.03
    if squashed:  # otherwise the scores are no probabilities to begin with
        assert np.square(after - relevant).mean() < np.square(scores - relevant).mean() - 0.03
        assert np.square(after - relevant).mean() < np.square(truth - relevant).mean() + 0.003


def test_without_labels_scores_stay_exactly_as_they_are():
    scores = np.array([0.1, 1 / 3, -7.25, 1e-30], dtype=np.float32)
    for calibration in (Calibration(), fit_calibration([])):
        assert calibration.is_identity
        after = calibration.apply(scores, ["text", "image", "text", "else"])
        assert after.dtype == np.float32
        np.testing.assert_array_equal(after, scores)
    assert repr(Calibration()) == "Calibration(identity)"
    assert Calibration().apply([], []).shape == (0,)


@given(
    st.lists(
        st.tuples(st.sampled_from(["text", "image"]), st.floats(-50, 50), st.booleans()), min_size=12, max_size=60
    ),
    st.lists(st.floats(-100, 100), min_size=2, max_size=20),
)
def test_no_order_within_a_modality_is_turned_round(labels, scores):
    calibration = fit_calibration(labels)
    scores = np.sort(scores)
    for modality in ("text", "image", "video"):
        after = calibration.apply(scores, [modality] * len(scores))
        assert np.isfinite(after).all()
        assert (np.diff(after) >= 0).all()
        assert calibration.is_identity or ((after >= 0) & (after <= 1)).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=12, max_size=40))
def test_grades_are_taken_as_well(pairs):
    calibration = fit_calibration([("text", score, grade) for score, grade in pairs])
    after = calibration.apply([0.0, 0.5, 1.0], ["text"] * 3)
    assert (np.diff(after) >= 0).all()


def test_grades_count_as_parts_of_a_label():
    halves = [("text", score, 0.5) for score in np.linspace(-1, 1, 20)]
    after = fit_calibration(halves).apply([-1.0, 1.0], ["text"] * 2)
    np.testing.assert_allclose(after, 0.5, atol=0.02)


def test_scores_that_speak_against_the_labels_give_a_flat_curve_that_still_rises():
    labels = [("text", x, x < 0) for x in np.linspace(-2, 2, 40)] + [
        ("image", x, x > 0) for x in np.linspace(-2, 2, 40)
    ]
    calibration = fit_calibration(labels)
    assert "do not tell" in calibration.notes["text"]
    assert "image" not in calibration.notes
    after = calibration.apply([-2.0, 2.0], ["text"] * 2)
    assert after[0] < after[1] < after[0] + 0.01


def test_a_modality_with_few_labels_shares_the_curve_of_all_and_says_so():
    labels, _ = judged(100, seed=3)
    few = [("audio", 0.5, True)] * (LEAST - 1) + [("audio", 0.2, False)] * 50
    calibration = fit_calibration(labels + few)
    assert set(calibration.curves) == {"text", "image"}
    assert "'audio'" in calibration.notes["audio"]
    assert "shares the curve" in calibration.notes["audio"]
    np.testing.assert_array_equal(
        calibration.apply([0.1, 0.7], ["audio"] * 2), calibration.apply([0.1, 0.7], ["never seen"] * 2)
    )
    enough = fit_calibration([*labels, *few, ("audio", 0.6, True)])
    assert set(enough.curves) == {"text", "image", "audio"}


def test_one_class_in_all_leaves_scores_alone_and_says_so():
    calibration = fit_calibration([("text", x / 100, True) for x in range(100)])
    assert calibration.is_identity
    assert "0 irrelevant" in calibration.notes[""]
    assert calibration.apply([0.3], ["text"])[0] == np.float32(0.3)


def test_classes_told_apart_perfectly_and_equal_scores_give_finite_curves():
    apart = [("text", float(x > 10), x > 10) for x in range(21)]
    after = fit_calibration(apart).apply([0.0, 1.0], ["text"] * 2)
    assert after[0] < 0.2 < 0.8 < after[1]
    assert 0.05 < after[0]  # as Platt has it: 21 labels prove no certainty
    assert after[1] < 0.95
    equal = [("text", 3.0, x % 4 == 0) for x in range(40)]
    np.testing.assert_allclose(fit_calibration(equal).apply([3.0], ["text"]), 0.27, atol=0.03)
    huge = [("text", x * 1e12, x > 10) for x in range(21)]
    assert np.isfinite(fit_calibration(huge).apply([0.0, 1e13], ["text"] * 2)).all()


def test_a_calibration_goes_through_json():
    labels, _ = judged(50, seed=4)
    calibration = fit_calibration([*labels, ("audio", 0.5, True)])
    back = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert back == calibration
    assert "text" in repr(back)
    assert "log-odds" in repr(back)
    assert Calibration.from_json(Calibration().to_json()) == Calibration()
    with pytest.raises(AttributeError):
        back.shared = None


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_calibration_is_a_value_like_any_other(how):
    fitted = fit_calibration([*judged(50, seed=4)[0], ("audio", 0.5, True)])
    assert fitted.notes
    for calibration in (fitted, Calibration()):
        other = how(calibration)
        assert other == calibration
        assert hash(other) == hash(calibration)
        assert {calibration: 1}[other] == 1
        np.testing.assert_array_equal(
            other.apply([0.2, 0.9], ["text"] * 2), calibration.apply([0.2, 0.9], ["text"] * 2)
        )
        with pytest.raises(TypeError):
            other.curves["text"] = Curve(1, 0)
        # It stands inside a stage, which is copied, kept in sets and sent to other processes as a whole.
        stage = Rerank(calibration=calibration)
        assert how(stage) == stage
        assert hash(how(stage)) == hash(stage)
    assert fitted != Calibration()


def test_the_order_of_curves_is_no_difference():
    one, two = Curve(1, 0), Curve(2, 0.5)
    a = Calibration({"image": one, "text": two}, shared=one)
    b = Calibration({"text": two, "image": one}, shared=one)
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b, Calibration({"text": one, "image": two}, shared=one)}) == 2


def test_a_modality_that_was_never_seen_takes_the_shared_curve():
    calibration = fit_calibration(judged(50, seed=4)[0])
    scores = [0.2, 0.9]
    shared = Calibration(shared=calibration.shared, log_odds=calibration.log_odds).apply(scores, ["x"] * 2)
    np.testing.assert_array_equal(calibration.apply(scores, ["page"] * 2), shared)
    assert not np.array_equal(calibration.apply(scores, ["image"] * 2), shared)


@pytest.mark.parametrize("described", [Calibration, fit_calibration])
def test_what_searches_call_modalities_is_said(described):
    assert '``"image"``' in described.__doc__
    assert '``"text"``' in described.__doc__


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"curves": {"text": [1]}, "shared": [1, 0], "log_odds": True},
        {"curves": {"text": [-1, 0]}, "shared": [1, 0], "log_odds": True},
        {"curves": {"text": [0, 0]}, "shared": [1, 0], "log_odds": True},
        {"curves": {"text": [1, float("nan")]}, "shared": [1, 0], "log_odds": True},
        {"curves": {"text": [1, "x"]}, "shared": [1, 0], "log_odds": True},
        {"curves": {"text": [1, 0]}, "shared": None, "log_odds": True},
    ],
)
def test_what_is_no_calibration_is_refused(value):
    with pytest.raises(InvalidInputError):
        Calibration.from_json(value)


@pytest.mark.parametrize(
    "label",
    [("text", 0.5), ("text", float("nan"), True), ("text", 0.5, 2), ("text", 0.5, -0.1), (1, 0.5, True), "abc",
     ("text", "0.5", True)],
)  # fmt: skip
def test_bad_labels_are_refused(label):
    with pytest.raises(InvalidInputError):
        fit_calibration([("text", 0.1, False), label])


def test_bad_scores_are_refused():
    for calibration in (Calibration(), Calibration(shared=Curve(1, 0))):
        with pytest.raises(InvalidInputError, match="2 scores but 1"):
            calibration.apply([0.1, 0.2], ["text"])
        with pytest.raises(InvalidInputError, match="finite"):
            calibration.apply([float("nan")], ["text"])
