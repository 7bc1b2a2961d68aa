"""Zero-shot video action recognition: any labels, any CLIP, no training."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from zsar_cli.batch import BatchPredictor as BatchPredictor
    from zsar_cli.errors import UsageError as UsageError
    from zsar_cli.errors import VideoError as VideoError
    from zsar_cli.errors import ZsarError as ZsarError
    from zsar_cli.errors import ZsarWarning as ZsarWarning
    from zsar_cli.evaluation.evaluate import evaluate as evaluate
    from zsar_cli.prediction.explain import Evidence as Evidence
    from zsar_cli.prediction.explain import LabelEvidence as LabelEvidence
    from zsar_cli.prediction.inputs import find_videos as find_videos
    from zsar_cli.prediction.records import Failure as Failure
    from zsar_cli.prediction.records import LabelScore as LabelScore
    from zsar_cli.prediction.records import Prediction as Prediction
    from zsar_cli.prediction.report import write_report as write_report
    from zsar_cli.prediction.rows import to_pandas as to_pandas
    from zsar_cli.prediction.timeline import Segment as Segment
    from zsar_cli.prediction.timeline import Timeline as Timeline
    from zsar_cli.recognizer import Recognizer as Recognizer
    from zsar_cli.text.embeddings import PromptEmbeddings as PromptEmbeddings
    from zsar_cli.text.labels import Labels as Labels
    from zsar_cli.training.train import train as train

_WHERE = {
    "batch": ("BatchPredictor",),
    "errors": ("UsageError", "VideoError", "ZsarError", "ZsarWarning"),
    "evaluation.evaluate": ("evaluate",),
    "prediction.explain": ("Evidence", "LabelEvidence"),
    "prediction.inputs": ("find_videos",),
    "prediction.records": ("Failure", "LabelScore", "Prediction"),
    "prediction.report": ("write_report",),
    "prediction.rows": ("to_pandas",),
    "prediction.timeline": ("Segment", "Timeline"),
    "recognizer": ("Recognizer",),
    "text.embeddings": ("PromptEmbeddings",),
    "text.labels": ("Labels",),
    "training.train": ("train",),
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}
__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    # Importing the package stays cheap: each name is imported when it is asked for
    if name not in _MODULES:
        raise AttributeError(f"module 'zsar_cli' has no attribute {name!r}")
    from zsar_cli.run_log import warn_in_python

    warn_in_python()
    return getattr(import_module(f"zsar_cli.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
