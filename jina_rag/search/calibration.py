"""Scores of texts and of images made comparable: what a reranker's 0.4 is worth, learned from labels.

A reranker that judges both scores one kind higher than the other, so that in one list the wrong kind leads. Here each
kind ("modality") gets a curve of its own from scores to probabilities of being relevant: p = sigmoid(slope * x +
intercept), where x is the score, or its log-odds where scores lie in [0, 1]. Platt, "Probabilistic Outputs for Support
Vector Machines" (1999), with his smoothed targets, fitted by the bound of Jaakkola and Jordan, "Bayesian Parameter
Estimation via Variational Methods" (2000). A slope is always positive: within a modality no order is ever turned round.
Without labels nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag._checks import is_number
from jina_rag.errors import InvalidInputError
from jina_rag.types import Float32

Labelled: TypeAlias = tuple[str, float, float | bool]
"""(modality, score, how relevant: a bool or a grade in [0, 1]). Searches call a screenshot and the crop of a region
``"image"``, and a page's words ``"text"``."""

LEAST = 5
"""Labels of each class, relevant and not, that a modality needs for a curve of its own."""
RIDGE = 1.0
"""How strongly a modality's slope, in units of the scores' spread, is held to that of all modalities together."""
_RIDGE_OF_ALL = 0.01
_FLATTEST = 1e-3
"""The smallest slope in units of the scores' spread: for labels that speak against the scores."""
_EDGE = 1e-6
_STEPS, _CONVERGED = 2000, 1e-11

_Float64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """From a score (or its log-odds) to a probability: sigmoid(slope * x + intercept); the slope is above 0."""

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        for name in ("slope", "intercept"):
            value = getattr(self, name)
            if not is_number(value):
                raise InvalidInputError(f"A calibration curve's {name} is {value!r}; it must be a finite number.")
        if self.slope <= 0:
            raise InvalidInputError(f"A calibration curve's slope is {self.slope}; it must be above 0 to keep order.")


@dataclass(frozen=True, slots=True, repr=False)
class Calibration:
    """Makes scores of several modalities comparable. ``Calibration()`` leaves all scores as they are.

    A search that is given one (``Rerank(calibration=…)``) knows two modalities: ``"image"``, a page's screenshot or
    the crop of a region, and ``"text"``, a page's words. Equal ones have equal hashes; copying and pickling work.

    Attributes:
        curves: Modality → its own curve.
        shared: The curve of all other modalities, fitted to all labels together; None leaves every score as it is.
        log_odds: Whether curves take a score's log-odds; scores are then expected in [0, 1].
        notes: Modality → why it has no curve of its own, or a flat one, in a sentence; "" for what concerns all.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    shared: Curve | None = None
    log_odds: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.curves and self.shared is None:
            raise InvalidInputError("A calibration with curves needs a shared one for modalities without labels.")
        object.__setattr__(self, "curves", MappingProxyType(dict(self.curves)))
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    def __hash__(self) -> int:
        # Without the notes: what is equal has the same hash all the same.
        return hash((frozenset(self.curves.items()), self.shared, self.log_odds))

    def __reduce__(self) -> tuple[type[Calibration], tuple[object, ...]]:
        # A view of a dictionary can be neither pickled nor copied.
        return type(self), (dict(self.curves), self.shared, self.log_odds, dict(self.notes))

    @property
    def is_identity(self) -> bool:
        """Whether scores come back as they are."""
        return self.shared is None

    def apply(self, scores: Sequence[float] | npt.ArrayLike, modalities: Sequence[str]) -> Float32:
        """Calibrate scores.

        A modality that the fit never saw, a misspelt one as well, takes the curve of all labels together (`shared`).
        Far-off scores may become equal in float32 (both nearly 1); their order is never turned round. Whoever sorts
        by the result should break ties by the score.

        Args:
            scores: Shape (n,).
            modalities: n names beside the scores, such as ``"image"`` and ``"text"``.

        Returns:
            Shape (n,) float32: probabilities, or the scores themselves if this is the identity.

        Raises:
            InvalidInputError: If the lengths differ or a score is not finite.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or len(values) != len(modalities):
            raise InvalidInputError(f"{values.size} scores but {len(modalities)} modalities: give one for each score.")
        if not np.isfinite(values).all():
            raise InvalidInputError("A score to be calibrated is not a finite number: leave out what was not scored.")
        if self.shared is None:
            return values.astype(np.float32)
        curves = [self.curves.get(modality, self.shared) for modality in modalities]
        slopes = np.array([curve.slope for curve in curves])
        intercepts = np.array([curve.intercept for curve in curves])
        return _sigmoid(slopes * _curve_inputs(values, self.log_odds) + intercepts).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, to be kept beside an application's settings."""
        return {
            "curves": {name: [curve.slope, curve.intercept] for name, curve in self.curves.items()},
            "shared": None if self.shared is None else [self.shared.slope, self.shared.intercept],
            "log_odds": self.log_odds,
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_json`.

        Raises:
            InvalidInputError: If it is something else.
        """
        try:
            common = value["shared"]
            return cls(
                curves={str(name): Curve(*curve) for name, curve in value["curves"].items()},
                shared=None if common is None else Curve(*common),
                log_odds=bool(value["log_odds"]),
                notes={str(name): str(note) for name, note in value.get("notes", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise InvalidInputError(f"This is not a stored calibration ({exc!r}): pass what to_json returned.") from exc

    def __repr__(self) -> str:
        if self.shared is None:
            return "Calibration(identity)"
        curves = {**self.curves, "other": self.shared}
        parts = [f"{name}: {curve.slope:.3g} x {curve.intercept:+.3g}" for name, curve in curves.items()]
        return f"Calibration({'; '.join(parts)}{'; on log-odds' if self.log_odds else ''})"


def fit_calibration(labelled: Sequence[Labelled]) -> Calibration:
    """Learn a calibration from judged results of one reranker.

    Give what the reranker scored for real questions, the irrelevant results as well: probabilities are right for lists
    with as large a share of relevant results as the labels have.

        labelled = [("image", 0.91, True), ("image", 0.62, False), ("text", 0.55, True), ("text", 0.31, False), …]
        index.search(question, stages=[Prefetch(), Rescore(), Rerank(calibration=fit_calibration(labelled))])

    Args:
        labelled: (modality, score, relevant) of each judged result; relevant is a bool, or a grade in [0, 1]. Scores
            are those that the reranker gave. Modalities must be named as searches name them: ``"image"`` for a
            screenshot and for the crop of a region, ``"text"`` for a page's words. A search has no use for others.

    Returns:
        A calibration. A modality with fewer than `LEAST` labels of either class shares the curve of all labels; where
        these are too few as well, it is the identity. `Calibration.notes` says so.

    Raises:
        InvalidInputError: If a label is not of that form, a score is not finite or a grade is outside [0, 1].
    """
    names, scores, grades = _columns(labelled)
    log_odds = bool(len(scores)) and bool(scores.min() >= 0) and bool(scores.max() <= 1)
    inputs = _curve_inputs(scores, log_odds)
    shortage = _shortage(grades)
    if shortage:
        return Calibration(notes={"": f"There are {shortage} in all: scores are left as they are."})
    common, _ = _fit(inputs, grades, prior=None)
    curves: dict[str, Curve] = {}
    notes: dict[str, str] = {}
    for name in dict.fromkeys(names.tolist()):
        own = names == name
        shortage = _shortage(grades[own])
        if shortage:
            notes[name] = f"There are {shortage} of modality {name!r}: it shares the curve of all labels."
            continue
        curves[name], flat = _fit(inputs[own], grades[own], prior=common)
        if flat:
            notes[name] = f"The scores of modality {name!r} do not tell relevant from irrelevant: its curve is flat."
    return Calibration(curves=curves, shared=common, log_odds=log_odds, notes=notes)


def _columns(labelled: Sequence[Labelled]) -> tuple[npt.NDArray[np.object_], _Float64, _Float64]:
    for label in labelled:
        if not isinstance(label, Sequence) or isinstance(label, str) or len(label) != 3:
            raise InvalidInputError(f"A label is {label!r}; it must be (modality, score, relevant).")
        modality, score, grade = label
        if not isinstance(modality, str):
            raise InvalidInputError(f'A label\'s modality is {modality!r}; it must be a name such as "text".')
        for what, value in (("score", score), ("grade", grade)):
            if not isinstance(value, int | float | np.number | np.bool_) or not math.isfinite(value):
                raise InvalidInputError(f"A label's {what} is {value!r}; it must be a finite number.")
        if not 0 <= grade <= 1:
            raise InvalidInputError(f"A label's grade is {grade!r}; it must be true, false or between 0 and 1.")
    names = np.array([label[0] for label in labelled], dtype=object)
    numbers = np.array([label[1:] for label in labelled], dtype=np.float64).reshape(-1, 2)
    return names, numbers[:, 0], numbers[:, 1]


def _shortage(grades: _Float64) -> str:
    """What there is too little of, as a phrase; "" if there is enough."""
    relevant, rest = float(grades.sum()), float((1 - grades).sum())
    if min(relevant, rest) >= LEAST:
        return ""
    return f"{relevant:g} relevant and {rest:g} irrelevant labels, fewer than {LEAST} of one class,"


def _curve_inputs(scores: _Float64, log_odds: bool) -> _Float64:
    """What a curve takes of scores."""
    if not log_odds:
        return scores
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    odds: _Float64 = np.log(inside) - np.log1p(-inside)
    return odds


def _fit(x: _Float64, grades: _Float64, prior: Curve | None) -> tuple[Curve, bool]:
    """The curve of the greatest likelihood, its slope drawn to that of `prior`; and whether it had to be held up."""
    centre, spread = float(x.mean()), float(x.std())
    if spread < 1e-9 * max(1.0, abs(centre)):  # all scores are equal: only their level can be told
        spread = 1.0
    z = (x - centre) / spread
    # Platt's targets: even perfectly told classes do not make a curve a step.
    relevant = float(grades.sum())
    high, low = (relevant + 1) / (relevant + 2), 1 / (len(grades) - relevant + 2)
    targets = low + (high - low) * grades
    ridge, toward = (_RIDGE_OF_ALL, 0.0) if prior is None else (RIDGE, prior.slope * spread)
    slope, intercept = _most_likely(np.stack([z, np.ones_like(z)]), targets, ridge, toward)
    flat = slope < _FLATTEST
    if flat:
        slope = _FLATTEST
        [intercept] = _most_likely(np.ones((1, len(z))), targets, 0.0, 0.0, offset=slope * z)
    return Curve(slope / spread, intercept - slope * centre / spread), flat


def _most_likely(
    columns: _Float64, targets: _Float64, ridge: float, toward: float, offset: float | _Float64 = 0.0
) -> list[float]:
    """The weights of columns, shape (weights, n), that minimise cross entropy + ridge / 2 * (first - toward)².

    Each step minimises a parabola that lies above the loss and touches it, so that no step leads up.
    """
    pull = np.array([ridge, 0.0])[: len(columns)]
    weights: npt.NDArray[Any] = np.zeros(len(columns))
    for _ in range(_STEPS):
        odds = weights @ columns + offset
        curvature = np.divide(np.tanh(odds / 2), 2 * odds, out=np.full_like(targets, 0.25), where=np.abs(odds) > _EDGE)
        matrix = curvature * columns @ columns.T + np.diag(pull)
        previous = weights
        weights = np.linalg.solve(matrix, columns @ (targets - 0.5 - curvature * offset) + pull * toward)
        if np.abs(weights - previous).max() < _CONVERGED:
            break
    result: list[float] = weights.tolist()
    return result


def _sigmoid(x: _Float64) -> _Float64:
    # Without overflow on either side, and never falling where x rises.
    result: _Float64 = np.exp(-np.logaddexp(0, -x))
    return result
