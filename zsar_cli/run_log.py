"""The log of ``--verbose``: the set-up of a run, and how long its stages took."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from zsar_cli.errors import warn

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel

logger = logging.getLogger(__name__)
NOTE = 25  # a level between info and warning: nothing is wrong, and people should know
T = TypeVar("T")


class _AsWarnings(logging.Handler):
    """Makes what the package logs as a warning one of Python's, for who calls it from Python."""

    def emit(self, record: logging.LogRecord) -> None:
        """Warn."""
        warn(record.getMessage())


AS_WARNINGS = _AsWarnings(logging.WARNING)


def warn_in_python(wanted: bool = True) -> None:
    """Tell whether the package's log becomes warnings: so it is in Python, while a command says it itself."""
    AS_WARNINGS.setLevel(logging.WARNING if wanted else logging.CRITICAL + 1)
    logging.getLogger("zsar_cli").addHandler(AS_WARNINGS)  # once, however often


@dataclass
class StageTimes:
    """Seconds by stage, added up over a run."""

    seconds: dict[str, float] = field(default_factory=dict)
    _told: dict[str, float] = field(default_factory=dict)  # by :meth:`since_last`

    @contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def waiting(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the same items; the time that each is waited for goes to a stage."""
        iterator, end = iter(items), object()
        while True:
            with self.measured(stage):
                item = next(iterator, end)
            if item is end:
                return
            yield item  # type: ignore[misc]

    def since_last(self, stage: str) -> float:
        """Give the seconds of a stage since this was last asked of it."""
        now = self.seconds.get(stage, 0.0)
        before, self._told[stage] = self._told.get(stage, 0.0), now
        return now - before

    def __str__(self) -> str:
        return ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.seconds.items())


def log_setup(
    model: RecognizerModel, *, workers: int | None = None, decoder: str = "auto", precision: str | None = None
) -> None:
    """Log the model with its device, precision and threads, and who decodes where videos are read."""
    import torch

    backbone = model.backbone
    text = f"{model.name} on {backbone.device} in {precision or backbone.precision}, {torch.get_num_threads()} threads"
    if workers is not None:
        text += f"; {workers} decoding processes, decoder {'pyav (auto)' if decoder == 'auto' else decoder}"
    logger.info(text)
