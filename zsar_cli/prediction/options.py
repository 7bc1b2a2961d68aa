"""Keyword options that the methods of :class:`zsar_cli.Recognizer` share."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias, TypedDict, TypeVar

from zsar_cli import checks
from zsar_cli.errors import warn
from zsar_cli.prediction.clips import ClipOptions
from zsar_cli.prediction.confidence import AnswerRule, answer_rule
from zsar_cli.prediction.windows import WindowOptions
from zsar_cli.text.labels import labels_among

StrPath: TypeAlias = "str | os.PathLike[str]"
Method = TypeVar("Method", bound=Callable[..., Any])


class FrameOptions(TypedDict, total=False):
    """Which frames the model sees.

    Attributes:
        frames: number per view; by default as many as the model was trained with.
        decoder: ``auto``, ``pyav`` or ``decord``.
        fps: frame rate of a folder of images, an array or a list, which store none; default 25.
    """

    frames: int | None
    decoder: str
    fps: float


class ViewOptions(FrameOptions, total=False):
    """The clips of a video: ``views`` times ``crops`` (1 or 3), whose embeddings are averaged."""

    views: int
    crops: int


class LabelOptions(TypedDict, total=False):
    """Prompts and the number of labels.

    Attributes:
        templates: a file of prompt templates, or the name of a bundled set.
        top_k: number of labels to return; default 5.
    """

    templates: StrPath | None
    top_k: int


class AnswerOptions(LabelOptions, total=False):
    """Which labels are the answer.

    Attributes:
        min_confidence: ``answer`` is the best label if ``1 - unknown`` is at least this, else "none of these".
            Higher is stricter.
        multi: ``answers`` lists every label whose ``yes`` is at least ``min_confidence`` (default 0.5), the highest
            first; ``answer`` is the first of them.
        calibration: the threshold of ``zsar eval --calibrate`` to use without ``min_confidence``: for ``"95"``,
            ``"90"`` (default) or ``"80"`` % correct answers, for 5% false ``"alarms"``, or none (``"off"``).
        threshold: deprecated; 1 minus ``min_confidence``.
    """

    min_confidence: float | None
    multi: bool
    calibration: str
    threshold: float | None


class ExplainOptions(ViewOptions, LabelOptions, total=False):
    """Of :meth:`zsar_cli.Recognizer.explain`.

    Attributes:
        where: labels to compute heat maps for; by default the answers, or the two best labels.
    """

    where: Sequence[str] | None


class PredictOptions(ViewOptions, AnswerOptions, total=False):
    """Of :meth:`zsar_cli.Recognizer.predict`."""


class ManyOptions(PredictOptions, total=False):
    """Of :meth:`zsar_cli.Recognizer.predict_many`.

    Attributes:
        batch_size: maximum number of videos per forward pass; default 8.
        workers: decoding processes; default half the cores, from 2 to 8; all but one or two on a GPU.
        timeout: seconds allowed for decoding one video; default 60.
    """

    batch_size: int
    workers: int | None
    timeout: float


class SegmentOptions(FrameOptions, AnswerOptions, total=False):
    """Of :meth:`zsar_cli.Recognizer.segments`.

    Attributes:
        window: length of a window in seconds, which is sampled at ``frames`` frames; default as long as the clips that
            the model was trained on if they were of one length, else 4.
        stride: seconds between the starts of two windows; default half a window.
        shots: whether windows lie inside shots, so that a hard cut ends a segment; default only with such a model.
    """

    window: float | None
    stride: float | None
    shots: bool | None


def takes(kind: type) -> Callable[[Method], Method]:
    """Give a method's ``**options`` the fields of ``kind`` for ``help``, and raise TypeError for any other."""
    known = kind.__annotations__

    def marked(method: Method) -> Method:
        @functools.wraps(method)
        def checked(*arguments: Any, **options: Any) -> Any:
            for name in options:
                if name not in known and name not in own.parameters:
                    near = difflib.get_close_matches(name, known, 1)
                    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
                    raise TypeError(f"{method.__name__}() has no option {name!r}; {hint}")
            return method(*arguments, **options)

        own = inspect.signature(method)
        plain = [part for part in own.parameters.values() if part.kind is not part.VAR_KEYWORD]
        named = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=annotation)
            for name, annotation in known.items()
        ]
        checked.__signature__ = own.replace(parameters=[*plain, *named])  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return marked


def clip_options(options: Mapping[str, Any]) -> ClipOptions:
    """Choose how whole videos are shown. UsageError for a value that there is not."""
    own = {field.name for field in fields(ClipOptions)}
    return ClipOptions(**{name: value for name, value in options.items() if name in own})


def top_k_of(options: Mapping[str, Any]) -> int:
    """Choose how many labels are given."""
    return checks.whole("top_k", options.get("top_k", 5), checks.TOP_K)


def where_of(options: Mapping[str, Any], labels: Sequence[str]) -> list[str] | None:
    """Take the labels whose places are asked for. UsageError where one is not among the labels."""
    if options.get("where") is None:
        return None
    given = options["where"]
    return labels_among([given] if isinstance(given, str) else checks.label_texts(given), labels, "where")


def rule_of(options: Mapping[str, Any], default: float | None = None) -> AnswerRule:
    """Choose which labels are an answer, with a warning about the old name of the bound. UsageError."""

    def tell(threshold: float, least: float) -> None:
        warn(
            f"threshold={threshold:g} is deprecated; use min_confidence={least:g} (1 minus the threshold)",
            DeprecationWarning,
        )

    given = options.get("min_confidence"), options.get("threshold")
    return answer_rule(*given, multi=options.get("multi", False), default=default, tell=tell)


def window_options(options: Mapping[str, Any], frames: int, seconds: float | None = None) -> WindowOptions:
    """Make the windows that are asked for, of the model's ``frames`` unless another number is given. UsageError.

    ``seconds``: of the clips that the model was trained on, if they were of one length.
    """
    own = {field.name for field in fields(WindowOptions)}
    own.remove("min_confidence")  # the rule's
    given = {name: value for name, value in options.items() if name in own and value is not None}
    window = checks.number("window", given.get("window", seconds or WindowOptions.window), checks.WINDOW)
    usual = {"window": window, "stride": window / 2, "frames": frames, "shots": seconds is not None}
    return WindowOptions(**{**usual, **given})
