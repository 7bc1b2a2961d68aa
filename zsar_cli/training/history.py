"""The metrics of a run, step by step: ``metrics.jsonl`` and, where asked for, TensorBoard's events."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write
from zsar_cli.outputs import LineFile
from zsar_cli.training.folder import METRICS


@dataclass
class History:
    """The rows of metrics so far, and where each new one is written; nowhere but on rank 0."""

    rows: list[dict[str, float]] = field(default_factory=list)
    file: LineFile | None = None
    board: Any = None  # TensorBoard's SummaryWriter
    wandb: Any = None  # a run of Weights & Biases

    def add(self, row: dict[str, float]) -> None:
        """Append a step's metrics. UsageError where the disk is full."""
        self.rows.append(row)
        if self.file is not None:
            line = json.dumps({key: _rounded(value) for key, value in row.items()}) + "\n"
            self.file.write(line.encode(), "Free some space, or choose another --output.")
        if self.board is not None:
            for key, value in row.items():
                if key != "step":
                    self.board.add_scalar(key, value, int(row["step"]))
        if self.wandb is not None:
            self.wandb.log({key: value for key, value in row.items() if key != "step"}, step=int(row["step"]))

    @property
    def loss(self) -> float:
        """The last step's total loss; NaN before the first."""
        return next((row["total"] for row in reversed(self.rows) if "total" in row), float("nan"))


@dataclass(frozen=True)
class Boards:
    """Where metrics go besides: the class of TensorBoard's writer, and a run of Weights & Biases."""

    writer: Any = None
    wandb: Any = None


def open_boards(
    stack: ExitStack, output: Path, *, tensorboard: bool, wandb: bool, recipe: dict[str, Any]
) -> Boards:
    """Find what was asked for, before anything of an earlier run is replaced; ``stack`` closes it.

    Raises:
        UsageError: a package is not installed, or Weights & Biases lets nobody in.
    """
    return Boards(
        _summary_writer() if tensorboard else None, _open_wandb(stack, output, recipe) if wandb else None
    )


def open_history(stack: ExitStack, output: Path, step: int, boards: Boards = Boards()) -> History:
    """Open the metrics of the run in ``output``, which continues from ``step``; ``stack`` closes them."""
    rows = _keep_rows(output / METRICS, step)
    file = LineFile(output / METRICS, lock=False)
    stack.callback(file.abandon)
    board = None
    if boards.writer is not None:
        board = boards.writer(str(output), purge_step=step + 1)
        stack.callback(board.close)
    return History(rows, file, board, boards.wandb)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _keep_rows(path: Path, step: int) -> list[dict[str, float]]:
    """Cut the metrics back to the step that training continues from; a line that was cut short goes too."""
    rows: list[dict[str, float]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row.get("step", step + 1) <= step:
                rows.append(row)
    if not path.exists() or path.is_file():
        with atomic_write(path) as aside:
            aside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboard: pip install 'zsar-cli[tensorboard]'."
        ) from None
    return SummaryWriter


def _open_wandb(stack: ExitStack, output: Path, recipe: dict[str, Any]) -> Any:
    """Begin or go on with a run of Weights & Biases, named after the folder."""
    try:
        import wandb
    except ImportError:
        raise UsageError("--wandb needs the package wandb: pip install 'zsar-cli[wandb]'.") from None
    name = hashlib.sha256(str(output.absolute()).encode()).hexdigest()[:16]  # the same after a restart
    told: dict[str, Any] = {"name": output.name, "id": name, "dir": str(output), "config": recipe}
    try:
        run = wandb.init(project=os.environ.get("WANDB_PROJECT", "zsar"), resume="allow", **told)
    except Exception as error:  # not logged in, no network, ...
        brief = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(
            f"--wandb cannot begin: {brief}. Log in with `wandb login`, or set WANDB_MODE=offline."
        ) from error
    stack.callback(run.finish)
    return run
