"""Zero-shot video action recognition: name what happens in a video with words nobody trained a model on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Recognizer", "__version__", "write_report"]

if TYPE_CHECKING:
    from zsar_cli.prediction.report import write_report
    from zsar_cli.recognizer import Recognizer


def __getattr__(name: str) -> Any:
    # Importing the package must stay cheap: torch comes in only when the recognizer is asked for.
    if name == "Recognizer":
        from zsar_cli.recognizer import Recognizer

        return Recognizer
    if name == "write_report":
        from zsar_cli.prediction.report import write_report

        return write_report
    raise AttributeError(f"module 'zsar_cli' has no attribute {name!r}")
