"""From records to numbers: every number of an evaluation is computed from its records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zsar_cli.evaluation import metrics

if TYPE_CHECKING:
    pass

# How sure is the model that none of the labels fits? Higher is "unknown" for each.
UNKNOWN_SCORES = ("yes", "softmax", "energy", "bank")
PROBES = ("shuffled", "reversed", "frozen")


def summarise(
    records: Sequence[dict[str, Any]], labels: Sequence[str], *, seed: int = 0, missing: int = 0
) -> dict[str, Any]:
    """Compute the numbers of one part of an evaluation from its records alone.

    ``top1`` is over the videos that could be read; ``top1_lower`` counts those that could not, and the
    ``missing`` ones of the list, as wrong. Unknown videos (no ``label``) take no part.
    """
    known = [r for r in records if "error" not in r and r["label"] is not None]
    failed = sum("error" in r for r in records)
    place = {name: index for index, name in enumerate(labels)}
    ranks = np.array([r["rank"] for r in known], dtype=np.int64)
    truth = np.array([place[r["label"]] for r in known], dtype=np.int64)
    predicted = np.array([place[r["top"][0][0]] for r in known], dtype=np.int64)
    confidence = np.array([r["top"][0][1] for r in known], dtype=np.float64)
    right = (predicted == truth).astype(np.float64)
    correct = (ranks == 0).astype(np.float64)
    curve = metrics.reliability(confidence, right)
    result: dict[str, Any] = {
        "videos": len(known),
        "unreadable": failed,
        "cut_short": sum("warning" in r for r in known),
        "classes": len(labels),
        "top1": metrics.top_k(ranks, 1),
        "top5": metrics.top_k(ranks, 5),
        "top1_interval95": list(metrics.bootstrap_interval(correct, seed=seed)),
        "top1_lower": float(correct.sum()) / (len(known) + failed + missing) if known else float("nan"),
        "mean_class_accuracy": metrics.mean_class_accuracy(ranks, truth, len(labels)),
        "ece": metrics.expected_calibration_error(confidence, right),
        "reliability": {
            "edges": curve.edges.tolist(),
            "count": curve.count.tolist(),
            "confidence": _numbers(curve.confidence),
            "accuracy": _numbers(curve.accuracy),
        },
    }
    if known and "probes" in known[0]:
        result["probes"] = {
            probe: {
                "top1": (top1 := metrics.top_k([r["probes"][probe] for r in known], 1)),
                "cost": result["top1"] - top1,
            }
            for probe in PROBES
        }
    return result


def class_table(records: Iterable[dict[str, Any]], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Compute confusion counts (C, C) and top-1 of each class (C,)."""
    known = [r for r in records if "error" not in r and r["label"] is not None]
    place = {name: index for index, name in enumerate(labels)}
    truth = [place[r["label"]] for r in known]
    counts = metrics.confusion_matrix(truth, [place[r["top"][0][0]] for r in known], len(labels))
    return counts, metrics.per_class_accuracy([r["rank"] for r in known], truth, len(labels))


def detect_unknown(known: Iterable[dict[str, Any]], unknown: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Compute AUROC, AUPR and FPR at 95% TPR of each unknown score; unknown videos are the positive class."""
    pairs = [(r["unknown"], False) for r in known if "error" not in r]
    pairs += [(r["unknown"], True) for r in unknown if "error" not in r]
    truth = [is_unknown for _, is_unknown in pairs]
    result = {}
    for kind in UNKNOWN_SCORES:
        if pairs and all(kind in scores for scores, _ in pairs):
            values = [scores[kind] for scores, _ in pairs]
            result[kind] = {
                "auroc": metrics.auroc(truth, values),
                "aupr": metrics.aupr(truth, values),
                "fpr95": metrics.fpr_at_tpr(truth, values),
            }
    return result


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]
