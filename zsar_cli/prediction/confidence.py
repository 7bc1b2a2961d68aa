"""How sure an answer must be: the one rule for a video's answer, a segment's, and several labels at once.

The confidence of an answer is ``1 - unknown``, which is the ``yes`` of the label that is surest by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zsar_cli import checks
from zsar_cli.errors import UsageError
from zsar_cli.prediction.records import NONE_OF_THESE

DEFAULT = 0.5  # of windows, and of several labels at once, which cannot do without a bound


@dataclass(frozen=True)
class AnswerRule:
    """Which labels are the answer; none is chosen where there is no ``min_confidence``.

    Attributes:
        min_confidence: 0..1, the least ``1 - unknown`` of an answer; below it the answer is "none of these".
        multi: answer every label whose ``yes`` is at least ``min_confidence``.
    """

    min_confidence: float | None = None
    multi: bool = False

    def __post_init__(self) -> None:
        if self.min_confidence is not None:
            checks.number("min_confidence", self.min_confidence, checks.SHARE)
        checks.truth("multi", self.multi)

    def single(self, best: str, unknown: float) -> str | None:
        """Choose the best label where it is sure enough, else "none of these"; None without a bound."""
        if self.min_confidence is None:
            return None
        return best if 1 - unknown >= self.min_confidence else NONE_OF_THESE

    def several(self, yes: Sequence[float]) -> list[int]:
        """Find the places of all labels that are sure enough by themselves, the surest first."""
        least = DEFAULT if self.min_confidence is None else self.min_confidence
        return sorted((c for c, value in enumerate(yes) if value >= least), key=lambda c: -yes[c])


def answer_rule(
    min_confidence: Any,
    threshold: Any = None,
    *,
    multi: bool = False,
    default: float | None = None,
    tell: Callable[[float, float], None] = lambda threshold, min_confidence: None,
) -> AnswerRule:
    """Make the rule that was asked for.

    Args:
        threshold: the old name, which bounds ``unknown`` from above: 1 minus ``min_confidence``.
        default: the bound where none was given; of several labels at once it is :data:`DEFAULT`.
        tell: called with threshold and min_confidence where the old name was used.

    Raises:
        UsageError: a number is no share, or both names were given.
    """
    if threshold is not None:
        checks.number("threshold", threshold, checks.SHARE)
        if min_confidence is not None:
            raise UsageError(
                "Give min_confidence or threshold, which is the old name of 1 minus it, not both."
            )
        min_confidence = round(1 - float(threshold), 12)
        tell(float(threshold), min_confidence)
    if min_confidence is None:
        min_confidence = DEFAULT if multi and default is None else default
    return AnswerRule(min_confidence, multi)
