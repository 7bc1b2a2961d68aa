"""Confidence thresholds: the lowest that reaches a precision, or that no video of unknown classes passes.

The confidence of an answer is ``1 - unknown``; ``zsar predict --min-confidence`` bounds it from below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from zsar_cli.evaluation.metrics import wilson_interval
from zsar_cli.plots import BLUE, GREY, ORANGE, VERMILION, fixed_settings, new_figure, short
from zsar_cli.prediction.calibration import TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRECISIONS = {"precision95": 0.95, "precision90": 0.9, "precision80": 0.8}
FALSE_ALARMS = {"false_alarms5": 0.05}
LEAST_ANSWERED = 5  # a bound above which fewer are answered says nothing


@dataclass(frozen=True)
class Bound:
    """A least confidence, and what it gave on the videos that it was found on."""

    min_confidence: float
    answered: int  # videos at least so sure
    reached: (
        float  # the share of these that are right; of false alarms, of the unknown videos that are answered
    )
    interval95: tuple[float, float]  # of ``reached``, Wilson's


@dataclass(frozen=True)
class Judged:
    """Answers whose truth is known, (N,) each."""

    confidence: np.ndarray
    right: np.ndarray  # the best label is the true one
    none: np.ndarray  # none of the labels is true: any answer is a false alarm


def judged(confidence: ArrayLike, right: ArrayLike, none: ArrayLike | None = None) -> Judged:
    """Sort answers by their confidence; one whose confidence is NaN is no answer, and left out."""
    values = np.asarray(confidence, dtype=np.float64)
    strange = np.zeros(len(values), bool) if none is None else np.asarray(none, dtype=bool)
    known = ~np.isnan(values)
    correct = np.asarray(right, dtype=bool) & ~strange
    return Judged(values[known], correct[known], strange[known])


def judged_records(records: Iterable[dict[str, Any]]) -> Judged:
    """Judge the records of an evaluation, as :func:`judged`; failures are left out."""
    good = [r for r in records if "error" not in r]
    # "yes" is what zsar predict calls unknown, for models with negatives and for plain CLIPs
    confidence = [1 - r["unknown"]["yes"] for r in good]
    return judged(confidence, [r["rank"] == 0 for r in good], [r["label"] is None for r in good])


@dataclass(frozen=True)
class Curve:
    """What each distinct confidence would give as the bound, the strictest first; (K,) each."""

    confidence: np.ndarray
    answered: np.ndarray
    right: np.ndarray
    alarms: np.ndarray  # unknown videos that are answered


def curve(answers: Judged) -> Curve:
    """Count the answers at or above each confidence; equal confidences go together."""
    order = np.argsort(-answers.confidence, kind="stable")
    values = answers.confidence[order]
    last = np.flatnonzero(np.append(np.diff(values) != 0, True)) if len(values) else np.zeros(0, np.int64)
    right, alarms = np.cumsum(answers.right[order])[last], np.cumsum(answers.none[order])[last]
    return Curve(values[last], last + 1, right, alarms)


def bounds(answers: Judged, least: int = LEAST_ANSWERED) -> dict[str, Bound | None]:
    """Find for each target the lowest bound that reaches it, so that the most is answered; None where none does.

    Args:
        least: answers that there must be for a bound to say anything.
    """
    found: dict[str, Bound | None] = {}
    line = curve(answers)
    enough = line.answered >= least
    for name, share in PRECISIONS.items():
        reaching = enough & (line.right >= share * line.answered - 1e-9)
        found[name] = _lowest(line, reaching, line.right, line.answered)
    strange = int(answers.none.sum())
    for name, share in FALSE_ALARMS.items() if strange else ():
        reaching = enough & (line.alarms <= share * strange + 1e-9)
        found[name] = _lowest(line, reaching, line.alarms, np.full_like(line.answered, strange))
    return found


def _lowest(line: Curve, reaching: np.ndarray, part: np.ndarray, whole: np.ndarray) -> Bound | None:
    places = np.flatnonzero(reaching)
    if not len(places):
        return None
    place = int(places[-1])
    below = line.confidence[place + 1] if place + 1 < len(line.confidence) else -math.inf
    count, of = int(part[place]), int(whole[place])
    return Bound(
        _round_down(float(line.confidence[place]), float(below)),
        int(line.answered[place]),
        count / of,
        wilson_interval(count, of),
    )


def _round_down(value: float, below: float) -> float:
    """Round to the shortest decimal that lets ``value`` through, and not ``below``."""
    for digits in range(2, 13):
        power: int = 10**digits
        short = math.floor(value * power) / power
        if below < short <= value:
            return max(short, 0.0)
    return max(value, 0.0)


def summary(answers: Judged) -> dict[str, Any]:
    """Write the bounds as plain data, with what they rest on."""
    return {
        "videos": len(answers.confidence),
        "unknown_videos": int(answers.none.sum()),
        "bounds": {name: bound and asdict(bound) for name, bound in bounds(answers).items()},
    }


@fixed_settings()
def figure(answers: Judged, title: str = "") -> Figure:
    """Draw precision, the share answered, and the share of false alarms over the bound, with the bounds found."""
    picture = new_figure(8, 4.2)
    axes = picture.subplots()
    line, strange = curve(answers), int(answers.none.sum())
    at = line.confidence
    axes.step(at, line.right / line.answered, where="pre", color=BLUE, label="of the answers, right")
    axes.step(
        at,
        line.answered / max(len(answers.confidence), 1),
        where="pre",
        color=ORANGE,
        linestyle="--",
        label="of all videos, answered",
    )
    if strange:
        axes.step(
            at,
            line.alarms / strange,
            where="pre",
            color=VERMILION,
            linestyle=":",
            label="of the unknown videos, answered (false alarms)",
        )
    for number, (name, bound) in enumerate(bounds(answers).items()):
        if bound is not None:
            axes.axvline(bound.min_confidence, color=GREY, linewidth=0.8)
            text = f"{TITLES[name]}: {bound.min_confidence:g}"
            right = bound.min_confidence > 0.6
            axes.annotate(
                text,
                (bound.min_confidence, 0.33 + 0.07 * number),
                xytext=(-4 if right else 4, 0),
                textcoords="offset points",
                ha="right" if right else "left",
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="--min-confidence", ylabel="share of videos")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9)
    if title:
        picture.suptitle(short(title, 80), fontsize=11)
    picture.tight_layout()
    return picture
