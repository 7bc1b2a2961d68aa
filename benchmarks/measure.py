"""Taking turns: contenders are processes that wait for their input, so that a slow moment of the machine hits all."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Figure:
    """Measurements of one thing: their median, least and greatest."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        """The figure with all that it is made of."""
        return {
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
            "values": self.values,
        }

    def text(self, digits: int = 2) -> str:
        """Median and spread, as the tables have them."""
        low, high = min(self.values), max(self.values)
        if len(self.values) == 1:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


class Contender:
    """A process that answers each line on its standard input with a line on its output."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.peak = 0
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if os.environ.get("BENCH_DEBUG") is None else None,
            env={**os.environ, **(environment or {})},
            cwd=Path(__file__).resolve().parent.parent,
            text=True,
        )
        self._watching = threading.Event()
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def turn(self, lines: Sequence[str]) -> tuple[float, list[str]]:
        """Seconds from the first line given to the last answer had, and the answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._watching.set()
        start = time.perf_counter()
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()
        answers = [self.process.stdout.readline() for _ in lines]
        seconds = time.perf_counter() - start
        self._watching.clear()
        self.peak = max(self.peak, memory_of(self.process.pid))
        if not all(answers):
            raise RuntimeError(f"{self.name} ended early; run with BENCH_DEBUG=1 to see why")
        return seconds, answers

    def close(self) -> int:
        """End it; the greatest memory that it and its children held together, in bytes."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self.peak

    def _watch(self) -> None:
        while not self._stop.wait(0.5):  # adding up a process's pages takes its time
            if self._watching.is_set() or not self.peak:
                self.peak = max(self.peak, memory_of(self.process.pid))


def memory_of(pid: int) -> int:
    """Bytes of a process and its children together, pages that they share counted once (Linux), else once each."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                full = process.memory_full_info()
                total += getattr(full, "pss", full.rss)
    return total


def first_answer(command: Sequence[str], line: str, environment: dict[str, str] | None = None) -> float:
    """Seconds from the start of the process to its first answer."""
    contender = Contender(command[2], command, environment)
    try:
        contender.turn([line])
        return time.perf_counter() - contender.started
    finally:
        contender.close()


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, Figure]:
    """Seconds of each function, in turn, ``rounds`` times; the first call of each is not counted."""
    figures = {name: Figure() for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            figures[name].values.append(time.perf_counter() - start)
    return figures


def python(*arguments: str) -> list[str]:
    """A command that runs a module with this interpreter."""
    return [sys.executable, "-m", *arguments]


class OtherLoad:
    """How much of the machine other processes used while the benchmark ran: a number to judge the rest by."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        seen: dict[int, float] = {}
        before = time.perf_counter()
        while not self._stop.wait(5.0):
            own = {os.getpid()}
            with contextlib.suppress(psutil.Error):
                own |= {child.pid for child in psutil.Process().children(recursive=True)}
            now, used, current = time.perf_counter(), 0.0, {}
            for process in psutil.process_iter(["pid", "cpu_times"]):
                times = process.info["cpu_times"]
                if times is None or process.info["pid"] in own:
                    continue
                current[process.info["pid"]] = times.user + times.system
                used += max(
                    0.0,
                    current[process.info["pid"]]
                    - seen.get(process.info["pid"], current[process.info["pid"]]),
                )
            if seen:
                self.samples.append(used / (now - before) / (os.cpu_count() or 1))
            seen, before = current, now

    def share(self) -> float:
        """Mean share of all cores, 0 to 1."""
        self._stop.set()
        return statistics.mean(self.samples) if self.samples else 0.0


class GpuUse:
    """How busy the GPU is meanwhile, in % of the time, by NVML; None where that cannot be told."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self._stop = threading.Event()

    def __enter__(self) -> GpuUse:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import torch

        with contextlib.suppress(Exception):  # no GPU, no NVML, or one that says nothing here
            while not self._stop.wait(0.05):
                self.samples.append(torch.cuda.utilization())

    @property
    def idle(self) -> float | None:
        return 100 - statistics.mean(self.samples) if self.samples else None


@contextlib.contextmanager
def counted_waits() -> Iterator[Counter[str]]:
    """Count, by the place in Python, how often the host waits for the GPU."""
    import torch

    places: Counter[str] = Counter()

    def note(message: Any, category: Any, filename: str, line: int, *_: Any) -> None:
        if "synchronizing" in str(message):
            places[f"{Path(filename).name}:{line}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
