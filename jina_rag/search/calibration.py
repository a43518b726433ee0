"""Calibration of reranker scores for texts and images, fitted to labels of relevance.

A reranker of texts and images scores texts higher than images or images higher than texts, which biases a mixed
ranking. A calibration maps the scores of each modality to probabilities of relevance: p = sigmoid(slope * x +
intercept), where x is the score, or the log-odds of the score if all scores are in [0, 1]. All slopes are positive, so
that a calibration keeps the order of the results of one modality. Without labels, scores stay unchanged.

Source: Platt, Probabilistic Outputs for Support Vector Machines (1999), for the curve and the smoothed targets;
Jaakkola and Jordan, Bayesian Parameter Estimation via Variational Methods (2000), for the bound that the fit minimizes.
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
"""A judged result: (modality, score, relevance). The relevance is a bool or a grade from 0 to 1. The modality is
``"image"`` for a screenshot or the crop of a region, and ``"text"`` for the words of a page."""

MIN_LABELS = 5
"""Minimum number of relevant labels, and of irrelevant labels, for which a modality gets a curve of its own."""
SLOPE_PENALTY = 1.0
"""Ridge penalty on the difference between a modality's slope and the shared slope.

Both slopes are per standard deviation of the scores."""
_SHARED_SLOPE_PENALTY = 0.01
_MIN_SLOPE = 1e-3
"""Minimum slope per standard deviation of scores. The minimum is used if relevant results have lower scores than
irrelevant results."""
_EPS = 1e-6
_MAX_ITERATIONS, _TOLERANCE = 2000, 1e-11

_Float64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Calibration curve of one modality: sigmoid(slope * x + intercept), where x is a score or the log-odds of a score.

    Attributes:
        slope: Factor of x, above 0.
        intercept: Log-odds of relevance at x = 0.

    Raises:
        InvalidInputError: If a value is not finite, or the slope is not above 0.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        for name in ("slope", "intercept"):
            value = getattr(self, name)
            if not is_number(value):
                raise InvalidInputError(f"The {name} of a calibration curve is {value!r}; expected a finite number.")
        if self.slope <= 0:
            raise InvalidInputError(f"The slope of a calibration curve is {self.slope}; expected a number above 0.")


@dataclass(frozen=True, slots=True, repr=False)
class Calibration:
    """Calibration of reranker scores across modalities; ``Calibration()`` leaves all scores unchanged.

    In a search (``Rerank(calibration=…)``), the modalities are ``"image"`` for a page's screenshot or the crop of a
    region, and ``"text"`` for a page's words. Instances are hashable and can be copied and pickled.

    Attributes:
        curves: Modality → curve.
        shared: Curve for modalities without a curve in `curves`, fitted to all labels; None leaves every score
            unchanged.
        log_odds: Whether the curves map log-odds instead of scores; scores must then be in [0, 1].
        notes: Modality → sentence that explains a missing or flat curve; the key ``""`` concerns all modalities.

    Raises:
        InvalidInputError: If `curves` is not empty and `shared` is None.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    shared: Curve | None = None
    log_odds: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.curves and self.shared is None:
            raise InvalidInputError("curves is set, but shared is None. Pass a shared curve for the other modalities.")
        object.__setattr__(self, "curves", MappingProxyType(dict(self.curves)))
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    def __hash__(self) -> int:
        # The hash excludes the notes. Equal instances still have equal hashes.
        return hash((frozenset(self.curves.items()), self.shared, self.log_odds))

    def __reduce__(self) -> tuple[type[Calibration], tuple[object, ...]]:
        # Copying and pickling do not support MappingProxyType.
        return type(self), (dict(self.curves), self.shared, self.log_odds, dict(self.notes))

    @property
    def is_identity(self) -> bool:
        """Whether the calibration leaves all scores unchanged."""
        return self.shared is None

    def apply(self, scores: Sequence[float] | npt.ArrayLike, modalities: Sequence[str]) -> Float32:
        """Return the calibrated scores.

        Modalities without a curve, including misspelled modalities, use the `shared` curve. The calibration never
        reverses the order of two scores of one modality, but two extreme scores can become equal in float32 (both
        nearly 1). To sort by calibrated scores, break ties by the original scores.

        Args:
            scores: Scores of the reranker, shape (n,), finite.
            modalities: One modality per score, for example ``"image"`` and ``"text"``.

        Returns:
            Probabilities of relevance, shape (n,), float32; the original scores if `is_identity` is True.

        Raises:
            InvalidInputError: If the lengths differ or a score is not finite.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or len(values) != len(modalities):
            raise InvalidInputError(
                f"Got {values.size} scores and {len(modalities)} modalities. Pass one modality per score."
            )
        if not np.isfinite(values).all():
            raise InvalidInputError("scores contains a value that is not finite. Omit items without a score.")
        if self.shared is None:
            return values.astype(np.float32)
        curves = [self.curves.get(modality, self.shared) for modality in modalities]
        slopes = np.array([curve.slope for curve in curves])
        intercepts = np.array([curve.intercept for curve in curves])
        return _sigmoid(slopes * _curve_inputs(values, self.log_odds) + intercepts).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values, which an application can store in a settings file.

        Returns:
            Keys ``curves``, ``shared``, ``log_odds`` and ``notes``; each curve is [slope, intercept].
        """
        return {
            "curves": {name: [curve.slope, curve.intercept] for name, curve in self.curves.items()},
            "shared": None if self.shared is None else [self.shared.slope, self.shared.intercept],
            "log_odds": self.log_odds,
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """Return the calibration from the JSON values that `to_json` returned.

        Args:
            value: Result of `to_json`.

        Returns:
            The calibration.

        Raises:
            InvalidInputError: If `value` is not a stored calibration.
        """
        try:
            shared = value["shared"]
            return cls(
                curves={str(name): Curve(*curve) for name, curve in value["curves"].items()},
                shared=None if shared is None else Curve(*shared),
                log_odds=bool(value["log_odds"]),
                notes={str(name): str(note) for name, note in value.get("notes", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise InvalidInputError(f"value is not a stored calibration ({exc!r}). Pass a result of to_json.") from exc

    def __repr__(self) -> str:
        if self.shared is None:
            return "Calibration(identity)"
        curves = {**self.curves, "other": self.shared}
        parts = [f"{name}: {curve.slope:.3g} x {curve.intercept:+.3g}" for name, curve in curves.items()]
        return f"Calibration({'; '.join(parts)}{'; on log-odds' if self.log_odds else ''})"


def fit_calibration(labelled: Sequence[Labelled]) -> Calibration:
    """Fit a calibration to judged results of one reranker.

    Label relevant and irrelevant results of real queries. The calibrated probabilities are valid for result lists that
    have the same fraction of relevant results as the labels.

        labelled = [("image", 0.91, True), ("image", 0.62, False), ("text", 0.55, True), ("text", 0.31, False), …]
        index.search(query, stages=[Prefetch(), Rescore(), Rerank(calibration=fit_calibration(labelled))])

    Args:
        labelled: (modality, score, relevance) of each judged result, with the reranker's uncalibrated scores. The
            relevance is a bool or a grade from 0 to 1. A search uses only the modalities ``"image"`` (a screenshot or
            the crop of a region) and ``"text"`` (the words of a page).

    Returns:
        The calibration. A modality with fewer than `MIN_LABELS` relevant or irrelevant labels uses the curve fitted to
        all labels. If all labels together are too few, the calibration leaves scores unchanged. `Calibration.notes`
        names the modalities with too few labels.

    Raises:
        InvalidInputError: If a label is malformed, a score is not finite, or a grade is outside [0, 1].
    """
    names, scores, grades = _columns(labelled)
    log_odds = bool(len(scores)) and bool(scores.min() >= 0) and bool(scores.max() <= 1)
    inputs = _curve_inputs(scores, log_odds)
    shortage = _shortage(grades)
    if shortage:
        return Calibration(notes={"": f"Too few labels: {shortage}. Scores stay unchanged."})
    shared, _ = _fit(inputs, grades, prior=None)
    curves: dict[str, Curve] = {}
    notes: dict[str, str] = {}
    for name in dict.fromkeys(names.tolist()):
        mask = names == name
        shortage = _shortage(grades[mask])
        if shortage:
            notes[name] = f"Too few labels of modality {name!r}: {shortage}. The curve of all labels applies."
            continue
        curves[name], is_flat = _fit(inputs[mask], grades[mask], prior=shared)
        if is_flat:
            notes[name] = (
                f"The scores of modality {name!r} do not separate relevant from irrelevant results. The curve is flat."
            )
    return Calibration(curves=curves, shared=shared, log_odds=log_odds, notes=notes)


def _columns(labelled: Sequence[Labelled]) -> tuple[npt.NDArray[np.object_], _Float64, _Float64]:
    for label in labelled:
        if not isinstance(label, Sequence) or isinstance(label, str) or len(label) != 3:
            raise InvalidInputError(f"A label is {label!r}; expected (modality, score, relevance).")
        modality, score, grade = label
        if not isinstance(modality, str):
            raise InvalidInputError(f'The modality of a label is {modality!r}; expected a name, for example "text".')
        for field_name, value in (("score", score), ("grade", grade)):
            if not isinstance(value, int | float | np.number | np.bool_) or not math.isfinite(value):
                raise InvalidInputError(f"The {field_name} of a label is {value!r}; expected a finite number.")
        if not 0 <= grade <= 1:
            raise InvalidInputError(f"The grade of a label is {grade!r}; expected True, False or a number from 0 to 1.")
    names = np.array([label[0] for label in labelled], dtype=object)
    numbers = np.array([label[1:] for label in labelled], dtype=np.float64).reshape(-1, 2)
    return names, numbers[:, 0], numbers[:, 1]


def _shortage(grades: _Float64) -> str:
    """Return the numbers of labels as a phrase if too few labels are relevant or irrelevant; otherwise ""."""
    relevant, irrelevant = float(grades.sum()), float((1 - grades).sum())
    if min(relevant, irrelevant) >= MIN_LABELS:
        return ""
    return f"{relevant:g} relevant and {irrelevant:g} irrelevant; at least {MIN_LABELS} of each are required"


def _curve_inputs(scores: _Float64, log_odds: bool) -> _Float64:
    """Return the inputs x of the curves, shape (n,), float64: the scores, or the log-odds of the clipped scores."""
    if not log_odds:
        return scores
    clipped = np.clip(scores, _EPS, 1 - _EPS)
    odds: _Float64 = np.log(clipped) - np.log1p(-clipped)
    return odds


def _fit(x: _Float64, grades: _Float64, prior: Curve | None) -> tuple[Curve, bool]:
    """Return the maximum-likelihood curve, regularized toward `prior`, and whether the slope is the minimum."""
    centre, spread = float(x.mean()), float(x.std())
    if spread < 1e-9 * max(1.0, abs(centre)):  # all scores are equal, so that only the intercept can be fitted
        spread = 1.0
    standardized = (x - centre) / spread
    # Platt's smoothed targets keep the slope finite for perfectly separated classes.
    relevant = float(grades.sum())
    positive_target, negative_target = (relevant + 1) / (relevant + 2), 1 / (len(grades) - relevant + 2)
    targets = negative_target + (positive_target - negative_target) * grades
    ridge, toward = (_SHARED_SLOPE_PENALTY, 0.0) if prior is None else (SLOPE_PENALTY, prior.slope * spread)
    slope, intercept = _fit_weights(np.stack([standardized, np.ones_like(standardized)]), targets, ridge, toward)
    is_flat = slope < _MIN_SLOPE
    if is_flat:
        slope = _MIN_SLOPE
        [intercept] = _fit_weights(np.ones((1, len(standardized))), targets, 0.0, 0.0, offset=slope * standardized)
    return Curve(slope / spread, intercept - slope * centre / spread), is_flat


def _fit_weights(
    columns: _Float64, targets: _Float64, ridge: float, toward: float, offset: float | _Float64 = 0.0
) -> list[float]:
    """Return the weights that minimize cross entropy + ridge / 2 * (weights[0] - toward)².

    Each iteration minimizes a quadratic upper bound of the loss that equals the loss at the current weights. The loss
    therefore never increases.

    Args:
        columns: Design matrix, shape (weights, n), float64.
        targets: Target probabilities, shape (n,), float64.
        ridge: Strength of the penalty on the first weight.
        toward: Value that the penalty pulls the first weight toward.
        offset: Fixed term of the log-odds, shape (n,), float64, or a scalar.
    """
    penalty = np.array([ridge, 0.0])[: len(columns)]
    weights: npt.NDArray[Any] = np.zeros(len(columns))
    for _ in range(_MAX_ITERATIONS):
        odds = weights @ columns + offset
        curvature = np.divide(np.tanh(odds / 2), 2 * odds, out=np.full_like(targets, 0.25), where=np.abs(odds) > _EPS)
        matrix = curvature * columns @ columns.T + np.diag(penalty)
        previous = weights
        weights = np.linalg.solve(matrix, columns @ (targets - 0.5 - curvature * offset) + penalty * toward)
        if np.abs(weights - previous).max() < _TOLERANCE:
            break
    result: list[float] = weights.tolist()
    return result


def _sigmoid(x: _Float64) -> _Float64:
    # This form of the sigmoid is monotonic and does not overflow for large inputs.
    result: _Float64 = np.exp(-np.logaddexp(0, -x))
    return result
