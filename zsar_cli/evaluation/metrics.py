"""Evaluation metrics as pure numpy functions: accuracy, detection of unknowns, calibration, intervals.

"Unknown" is the positive class of AUROC, AUPR and FPR95: a higher score means "none of the labels".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def true_ranks(scores: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Rank (0 is best) the true class in each row of ``scores`` (N, C); ``labels`` (N,).

    Ties go against the model: equal scores of other classes come first, so a model that answers everything
    alike gets nothing right. A row with a NaN ranks its true class last.
    """
    matrix, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    own = matrix[np.arange(len(truth)), truth][:, None]
    ranks = (matrix >= own).sum(axis=1) - 1
    ranks[np.isnan(matrix).any(axis=1)] = matrix.shape[1] - 1
    return np.asarray(ranks)


def top_k(ranks: ArrayLike, k: int) -> float:
    """Compute the share of videos whose true class is among the first ``k``; NaN without videos."""
    ranks = np.asarray(ranks)
    return float((ranks < k).mean()) if ranks.size else float("nan")


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Divide sums by counts; NaN where there is nothing to count."""
    means = np.full(len(count), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def per_class_accuracy(ranks: ArrayLike, labels: ArrayLike, classes: int) -> np.ndarray:
    """Compute top-1 of each class (C,); NaN for a class without videos."""
    labels = np.asarray(labels, dtype=np.int64)
    right = np.bincount(labels, weights=np.asarray(ranks) == 0, minlength=classes)
    count = np.bincount(labels, minlength=classes)
    return _mean(right, count)


def mean_class_accuracy(ranks: ArrayLike, labels: ArrayLike, classes: int) -> float:
    """Average the per-class accuracies over the classes that have videos."""
    accuracy = per_class_accuracy(ranks, labels, classes)
    return float(np.nanmean(accuracy)) if np.isfinite(accuracy).any() else float("nan")


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> np.ndarray:
    """Count predictions, (C, C): row the true class, column the predicted one."""
    flat = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def harmonic_mean(seen: float, unseen: float) -> float:
    """Compute ``2su / (s + u)``: 0 where either is 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen > 0 else 0.0


# --- unknown against known ----------------------------------------------------------------------------------


def _both(unknown: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    truth, values = np.asarray(unknown, dtype=bool), np.asarray(score, dtype=np.float64)
    if truth.shape != values.shape or truth.ndim != 1:
        raise ValueError("one score and one truth a video are needed")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return truth, values


def _counts_by_threshold(unknown: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count true and false positives where everything at or above each distinct score counts as unknown."""
    order = np.argsort(-score, kind="stable")
    truth = unknown[order]
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    return np.cumsum(truth)[last], np.cumsum(~truth)[last]


def auroc(unknown: ArrayLike, score: ArrayLike) -> float:
    """Compute the area under the ROC curve, ties counted half (Mann-Whitney); NaN unless both kinds are present."""
    truth, values = _both(unknown, score)
    if truth.all() or not truth.any():
        return float("nan")
    hits, alarms = _counts_by_threshold(truth, values)
    x = np.concatenate([[0], alarms / alarms[-1]])
    y = np.concatenate([[0], hits / hits[-1]])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def aupr(unknown: ArrayLike, score: ArrayLike) -> float:
    """Average precision: sum of precision times the step in recall, without interpolation."""
    truth, values = _both(unknown, score)
    if not truth.any():
        return float("nan")
    hits, alarms = _counts_by_threshold(truth, values)
    precision, recall = hits / (hits + alarms), hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def fpr_at_tpr(unknown: ArrayLike, score: ArrayLike, tpr: float = 0.95) -> float:
    """Find the smallest share of known videos called unknown at a threshold that finds ``tpr`` of the unknown."""
    truth, values = _both(unknown, score)
    if truth.all() or not truth.any():
        return float("nan")
    hits, alarms = _counts_by_threshold(truth, values)
    return float(alarms[np.argmax(hits >= tpr * hits[-1] - 1e-12)] / alarms[-1])


# --- calibration --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reliability:
    """Equal-width confidence bins: edges (B + 1,), and count, mean confidence and accuracy of each (B,)."""

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray  # NaN in empty bins
    accuracy: np.ndarray  # NaN in empty bins


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Compute the reliability curve over bins ``(edge, next edge]``; confidence 0 falls into the first."""
    values, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)

    def mean(weights: np.ndarray) -> np.ndarray:
        return _mean(np.bincount(where, weights=weights, minlength=bins), count)

    return Reliability(edges, count, mean(values), mean(right))


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Average the gap between confidence and accuracy over the bins, weighted by count (Guo et al., 2017)."""
    curve = reliability(confidence, correct, bins)
    full = curve.count > 0
    if not full.any():
        return float("nan")
    return float(np.average(np.abs(curve.accuracy - curve.confidence)[full], weights=curve.count[full]))


# --- intervals ----------------------------------------------------------------------------------------------


def wilson_interval(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Compute the 95% CI of a share (Wilson 1927), which holds for a handful of clips, and at 0 and 100%.

    NaN where there are none.
    """
    if not count:
        return float("nan"), float("nan")
    share, room = right / count, z * z / count
    centre = share + room / 2
    reach = z * (share * (1 - share) / count + room / (4 * count)) ** 0.5
    low, high = max(0.0, (centre - reach) / (1 + room)), min(1.0, (centre + reach) / (1 + room))
    return (low if right else 0.0), (high if right < count else 1.0)  # exactly


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95% CI of the mean over videos by the percentile bootstrap; NaN without any."""
    data = np.asarray(values, dtype=np.float64)
    if not data.size:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = [float(data[rng.integers(0, len(data), len(data))].mean()) for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
