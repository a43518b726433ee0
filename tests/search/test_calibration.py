"""Calibration in search: comparable scores of texts and images, on synthetic scores with known probabilities."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag.errors import InvalidInputError
from jina_rag.search.calibration import MIN_LABELS, Calibration, Curve, fit_calibration
from jina_rag.search.reranking import Rerank

# Modality → (slope, offset) by which the reranker distorts the true log-odds.
DISTORTION = {"text": (0.5, 2.0), "image": (1.6, -1.5)}


def synthetic_labels(count: int, seed: int, *, as_probabilities: bool = True):
    """Return labels of two modalities with different distortions, and the true probabilities."""
    random = np.random.default_rng(seed)
    labels, true_probabilities = [], []
    for modality, (slope, offset) in DISTORTION.items():
        odds = random.normal(-0.7, 2, count)
        relevant = random.random(count) < 1 / (1 + np.exp(-odds))
        scores = slope * odds + offset
        if as_probabilities:
            scores = 1 / (1 + np.exp(-scores))
        labels += [(modality, float(s), bool(r)) for s, r in zip(scores, relevant, strict=True)]
        true_probabilities.append(1 / (1 + np.exp(-odds)))
    return labels, np.concatenate(true_probabilities)


def roc_auc(scores, relevant) -> float:
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    positive = relevant.sum()
    return (ranks[relevant].sum() - positive * (positive - 1) / 2) / (positive * (~relevant).sum())


def columns(labels):
    names, scores, relevant = zip(*labels, strict=True)
    return list(names), np.array(scores), np.array(relevant)


@pytest.mark.parametrize("as_probabilities", [True, False])
def test_calibrated_mixed_ranking_is_close_to_the_oracle(as_probabilities):
    labels, _ = synthetic_labels(400, seed=1, as_probabilities=as_probabilities)
    unseen, true_probabilities = synthetic_labels(2000, seed=2, as_probabilities=as_probabilities)
    names, scores, relevant = columns(unseen)
    calibration = fit_calibration(labels)
    assert calibration.log_odds == as_probabilities
    calibrated_scores = calibration.apply(scores, names)
    auc_before, auc_oracle = roc_auc(scores, relevant), roc_auc(true_probabilities, relevant)
    assert auc_before < auc_oracle - 0.05
    assert roc_auc(calibrated_scores, relevant) > auc_oracle - 0.005
    assert np.abs(calibrated_scores - true_probabilities).mean() < 0.03
    if as_probabilities:  # otherwise the raw scores are not probabilities
        assert np.square(calibrated_scores - relevant).mean() < np.square(scores - relevant).mean() - 0.03
        assert np.square(calibrated_scores - relevant).mean() < np.square(true_probabilities - relevant).mean() + 0.003


def test_identity_calibration_returns_scores_unchanged():
    scores = np.array([0.1, 1 / 3, -7.25, 1e-30], dtype=np.float32)
    for calibration in (Calibration(), fit_calibration([])):
        assert calibration.is_identity
        calibrated_scores = calibration.apply(scores, ["text", "image", "text", "else"])
        assert calibrated_scores.dtype == np.float32
        np.testing.assert_array_equal(calibrated_scores, scores)
    assert repr(Calibration()) == "Calibration(identity)"
    assert Calibration().apply([], []).shape == (0,)


@given(
    st.lists(
        st.tuples(st.sampled_from(["text", "image"]), st.floats(-50, 50), st.booleans()), min_size=12, max_size=60
    ),
    st.lists(st.floats(-100, 100), min_size=2, max_size=20),
)
def test_calibration_preserves_order_within_a_modality(labels, scores):
    calibration = fit_calibration(labels)
    scores = np.sort(scores)
    for modality in ("text", "image", "video"):
        calibrated_scores = calibration.apply(scores, [modality] * len(scores))
        assert np.isfinite(calibrated_scores).all()
        assert (np.diff(calibrated_scores) >= 0).all()
        assert calibration.is_identity or ((calibrated_scores >= 0) & (calibrated_scores <= 1)).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=12, max_size=40))
def test_fit_accepts_graded_labels(pairs):
    calibration = fit_calibration([("text", score, grade) for score, grade in pairs])
    calibrated_scores = calibration.apply([0.0, 0.5, 1.0], ["text"] * 3)
    assert (np.diff(calibrated_scores) >= 0).all()


def test_grade_of_one_half_gives_probability_one_half():
    halves = [("text", score, 0.5) for score in np.linspace(-1, 1, 20)]
    calibrated_scores = fit_calibration(halves).apply([-1.0, 1.0], ["text"] * 2)
    np.testing.assert_allclose(calibrated_scores, 0.5, atol=0.02)


def test_labels_contradicting_scores_give_a_flat_increasing_curve():
    labels = [("text", x, x < 0) for x in np.linspace(-2, 2, 40)] + [
        ("image", x, x > 0) for x in np.linspace(-2, 2, 40)
    ]
    calibration = fit_calibration(labels)
    assert "do not separate" in calibration.notes["text"]
    assert "image" not in calibration.notes
    calibrated_scores = calibration.apply([-2.0, 2.0], ["text"] * 2)
    assert calibrated_scores[0] < calibrated_scores[1] < calibrated_scores[0] + 0.01


def test_modality_with_few_labels_uses_the_shared_curve_and_adds_a_note():
    labels, _ = synthetic_labels(100, seed=3)
    audio_labels = [("audio", 0.5, True)] * (MIN_LABELS - 1) + [("audio", 0.2, False)] * 50
    calibration = fit_calibration(labels + audio_labels)
    assert set(calibration.curves) == {"text", "image"}
    assert "'audio'" in calibration.notes["audio"]
    assert "curve of all labels applies" in calibration.notes["audio"]
    np.testing.assert_array_equal(
        calibration.apply([0.1, 0.7], ["audio"] * 2), calibration.apply([0.1, 0.7], ["never seen"] * 2)
    )
    refitted_calibration = fit_calibration([*labels, *audio_labels, ("audio", 0.6, True)])
    assert set(refitted_calibration.curves) == {"text", "image", "audio"}


def test_labels_of_one_class_give_the_identity_and_a_note():
    calibration = fit_calibration([("text", x / 100, True) for x in range(100)])
    assert calibration.is_identity
    assert "0 irrelevant" in calibration.notes[""]
    assert calibration.apply([0.3], ["text"])[0] == np.float32(0.3)


def test_separable_equal_and_huge_scores_give_finite_curves():
    separable = [("text", float(x > 10), x > 10) for x in range(21)]
    calibrated_scores = fit_calibration(separable).apply([0.0, 1.0], ["text"] * 2)
    assert calibrated_scores[0] < 0.2 < 0.8 < calibrated_scores[1]
    # Platt's smoothed targets keep the probabilities away from 0 and 1, because 21 labels do not prove certainty.
    assert 0.05 < calibrated_scores[0]
    assert calibrated_scores[1] < 0.95
    equal = [("text", 3.0, x % 4 == 0) for x in range(40)]
    np.testing.assert_allclose(fit_calibration(equal).apply([3.0], ["text"]), 0.27, atol=0.03)
    huge = [("text", x * 1e12, x > 10) for x in range(21)]
    assert np.isfinite(fit_calibration(huge).apply([0.0, 1e13], ["text"] * 2)).all()


def test_calibration_json_round_trip():
    labels, _ = synthetic_labels(50, seed=4)
    calibration = fit_calibration([*labels, ("audio", 0.5, True)])
    restored_calibration = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert restored_calibration == calibration
    assert "text" in repr(restored_calibration)
    assert "log-odds" in repr(restored_calibration)
    assert Calibration.from_json(Calibration().to_json()) == Calibration()
    with pytest.raises(AttributeError):
        restored_calibration.shared = None


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_calibration_copies_and_pickles_equal_and_hashable(clone):
    fitted_calibration = fit_calibration([*synthetic_labels(50, seed=4)[0], ("audio", 0.5, True)])
    assert fitted_calibration.notes
    for calibration in (fitted_calibration, Calibration()):
        other = clone(calibration)
        assert other == calibration
        assert hash(other) == hash(calibration)
        assert {calibration: 1}[other] == 1
        np.testing.assert_array_equal(
            other.apply([0.2, 0.9], ["text"] * 2), calibration.apply([0.2, 0.9], ["text"] * 2)
        )
        with pytest.raises(TypeError):
            other.curves["text"] = Curve(1, 0)
        # A stage with a calibration can also be copied, hashed and pickled.
        stage = Rerank(calibration=calibration)
        assert clone(stage) == stage
        assert hash(clone(stage)) == hash(stage)
    assert fitted_calibration != Calibration()


def test_calibration_equality_ignores_the_order_of_curves():
    one, two = Curve(1, 0), Curve(2, 0.5)
    a = Calibration({"image": one, "text": two}, shared=one)
    b = Calibration({"text": two, "image": one}, shared=one)
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b, Calibration({"text": one, "image": two}, shared=one)}) == 2


def test_unknown_modality_uses_the_shared_curve():
    calibration = fit_calibration(synthetic_labels(50, seed=4)[0])
    scores = [0.2, 0.9]
    shared = Calibration(shared=calibration.shared, log_odds=calibration.log_odds).apply(scores, ["x"] * 2)
    np.testing.assert_array_equal(calibration.apply(scores, ["page"] * 2), shared)
    assert not np.array_equal(calibration.apply(scores, ["image"] * 2), shared)


@pytest.mark.parametrize("documented_object", [Calibration, fit_calibration])
def test_docstrings_name_the_modalities_of_searches(documented_object):
    assert '``"image"``' in documented_object.__doc__
    assert '``"text"``' in documented_object.__doc__


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
def test_from_json_rejects_invalid_values(value):
    with pytest.raises(InvalidInputError):
        Calibration.from_json(value)


@pytest.mark.parametrize(
    "label",
    [("text", 0.5), ("text", float("nan"), True), ("text", 0.5, 2), ("text", 0.5, -0.1), (1, 0.5, True), "abc",
     ("text", "0.5", True)],
)  # fmt: skip
def test_fit_rejects_malformed_labels(label):
    with pytest.raises(InvalidInputError):
        fit_calibration([("text", 0.1, False), label])


def test_apply_rejects_bad_lengths_and_non_finite_scores():
    for calibration in (Calibration(), Calibration(shared=Curve(1, 0))):
        with pytest.raises(InvalidInputError, match="2 scores and 1"):
            calibration.apply([0.1, 0.2], ["text"])
        with pytest.raises(InvalidInputError, match="finite"):
            calibration.apply([float("nan")], ["text"])
