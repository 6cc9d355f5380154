"""How far to trust a score: the share that was right, and from which confidence on to answer."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

CURVE_POINTS = 50
Judged: TypeAlias = Sequence[tuple[float, bool]]
"""Confidence of each answer, and whether it was right."""
Curve: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Confidences, and the share that is right at each."""


def curve_of(rows: Judged) -> Curve:
    """The share that is right by confidence, never falling, at a few points."""
    points = np.linspace(0, 1, CURVE_POINTS + 1)
    anchored = [*rows, (0.0, False)]  # no score, no trust, whatever the least score seen
    confidence, right = (np.array(column, np.float64) for column in zip(*anchored, strict=True))
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, right)
    return points.astype(np.float32), model.predict(points).astype(np.float32)


def calibration_error(rows: Judged, curve: Curve, bins: int = 15) -> float:
    """Expected calibration error in equal bins (Guo et al., ICML 2017)."""
    if not rows:
        return 0.0
    return expected_error(
        reliability([(float(np.interp(confidence, *curve)), right) for confidence, right in rows], bins)
    )


def reliability(rows: Judged, bins: int) -> NDArray[np.float64]:
    """Of each of equal bins of confidence: number of answers, sum of their confidences, and how many were right
    ``[bins, 3]``."""
    confidence, right = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    owner = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = [np.bincount(owner, weights, bins) for weights in (np.ones(len(rows)), confidence, right)]
    return np.stack(sums, axis=1).astype(np.float64)


def expected_error(bins: NDArray[np.float64]) -> float:
    """Mean distance between confidence and share that is right, each bin as heavy as it has answers."""
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


def best_threshold(rows: Judged, curve: Curve, num_gold: int) -> dict[str, float]:
    """The confidence below which to answer NIL for the best F1, and that F1."""
    if not rows:
        return {"threshold": 0.5, "f1": 0.0, "precision": 0.0, "recall": 0.0}
    ordered = sorted(((float(np.interp(confidence, *curve)), right) for confidence, right in rows), reverse=True)
    hits = np.cumsum([right for _, right in ordered])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + num_gold)
    confidences = np.array([confidence for confidence, _ in ordered])
    f1[:-1][confidences[:-1] == confidences[1:]] = 0  # a threshold keeps all of one confidence, or none
    best = int(f1.argmax())
    return {
        "threshold": ordered[best][0],
        "f1": float(f1[best]),
        "precision": float(hits[best] / (best + 1)),
        "recall": float(hits[best] / num_gold),
    }
