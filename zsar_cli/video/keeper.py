"""One worker process and the thread that looks after it: starts it, watches the clock, replaces it when it fails.

The worker is a fresh interpreter that reads pickled jobs from its stdin and answers on what was its stdout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zsar_cli.errors import VideoError
from zsar_cli.resources import available_memory
from zsar_cli.video.fetch import Fetch, Fetcher
from zsar_cli.video.worker import await_ready, pickled, receive, send_bytes

LIFETIME = 1000  # videos of one worker before a fresh one takes over: what decoders leak stays small
START_LIMIT = 300.0  # s that a worker's imports may take, on a disk that sleeps or a machine that is busy
NEEDED = ("zsar_cli", "numpy", "av", "PIL")  # what a worker imports besides Python's own library
LIBRARY_PATHS = {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
# Signals are the parent's business: a terminal or a service manager sends them to everybody, and what is in hand
# is still to be finished. Workers end when their stdin closes.
BOOT = (
    "import sys; sys.path[:] = sys.argv[1:]\n"
    "import signal\n"
    "for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):\n"
    "    if hasattr(signal, name): signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
    "from zsar_cli.video import pool, worker; worker.serve()"
)


@dataclass
class Job:
    """A request on its way through a worker. Replies: ("item", x)*, then ("end", None) or ("error", exception)."""

    request: Any
    load: Callable[..., Any]
    replies: queue.Queue[tuple[str, Any]]
    streamed: bool
    cancelled: threading.Event  # nobody waits for the answer any more
    fetch: Fetch | None = None  # what the request reads, where it names an address


@dataclass
class Work:
    """What the keepers of a pool share: the jobs that wait, and the limits of each."""

    timeout: float  # s
    memory_limit: int  # bytes of a worker
    fetcher: Fetcher = field(default_factory=Fetcher)
    jobs: queue.Queue[Job | None] = field(default_factory=queue.Queue)  # None: there are no more
    closed: threading.Event = field(default_factory=threading.Event)
    handed: tuple[int, ...] = ()  # descriptors that workers share with this process


def worker_command() -> list[str]:
    """Give the command that starts a worker.

    ``-I``: without the current folder, which ``-c`` would search first, and without what Python's variables name; so
    file names are read as here only if UTF-8 mode is passed on.
    """
    flags = ["-I", "-X", f"utf8={sys.flags.utf8_mode}", *(["-B"] if sys.dont_write_bytecode else [])]
    return [sys.executable, *flags, "-c", BOOT, *module_folders()]


def module_folders() -> list[str]:
    """List where a worker looks for modules: as this process does, but not in the current folder.

    A folder of downloads may hold an ``ast.py`` or a ``numpy.py``. Only where this process has taken a package that a
    worker needs from there (a checkout that is not installed) does it stand in the list, and then last.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except FileNotFoundError:  # deleted since
        here = ""
    folders = [
        entry
        for entry in sys.path
        if isinstance(entry, str) and os.path.isabs(entry) and os.path.realpath(entry) != here
    ]
    packages = [path for name in NEEDED for path in getattr(sys.modules.get(name), "__path__", ())]
    sources = dict.fromkeys(os.path.dirname(os.path.abspath(path)) for path in packages)
    return folders + [folder for folder in sources if folder not in folders]


def worker_environment() -> dict[str, str]:
    """Copy this process's environment, with one thread and one heap.

    With a heap for each thread of a decoder, memory grows without end. An empty entry in ``LD_LIBRARY_PATH``, as
    ``$LD_LIBRARY_PATH:/more`` leaves it, means the current folder, so only absolute ones stay.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    for name in LIBRARY_PATHS & environment.keys():
        folders = [entry for entry in environment[name].split(os.pathsep) if os.path.isabs(entry.strip())]
        environment[name] = os.pathsep.join(folders)
    return environment


class Keeper:
    """A thread that owns one worker process: hands it jobs, watches the clock, replaces it when it fails."""

    def __init__(self, work: Work) -> None:
        """Start the worker and its thread."""
        self.work = work
        self.lock = threading.Lock()  # starting and killing exclude each other
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: subprocess.Popen[bytes] | None = None  # the process that has said so
        self.served = 0  # videos, by the process there is
        self._start()
        self.thread = threading.Thread(target=self._run, daemon=True, name="zsar-decode")
        self.thread.start()

    def kill(self) -> None:
        """End the worker at once; its thread notices."""
        with self.lock:
            if self.process is not None:
                self.process.kill()

    def _start(self) -> None:
        with self.lock:
            if self.work.closed.is_set():
                return
            self.served = 0
            self.process = subprocess.Popen(
                worker_command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # decoders chatter there
                env=worker_environment(),
                pass_fds=self.work.handed,
            )

    def _run(self) -> None:
        while (job := self.work.jobs.get()) is not None and not self.work.closed.is_set():
            try:
                if not job.cancelled.is_set():
                    self._answer(job)
            except (
                Exception
            ) as error:  # such as no memory, no threads: whoever waits for this job must hear of it
                self._end()
                message = f"the decoding process could not be served ({type(error).__name__}: {error})"
                self._put(job, ("error", VideoError("crashed", message)))
            finally:
                if job.fetch is not None:
                    self.work.fetcher.done(job.fetch)
        self._end()

    def _answer(self, job: Job) -> None:
        if job.fetch is not None:
            try:
                path = self.work.fetcher.path(job.fetch, job.cancelled)
            except VideoError as why:
                self._put(job, ("error", why))
                return
            job.request = dataclasses.replace(job.request, path=path)
        if self.served >= LIFETIME:
            self._restart()
        self.served += 1
        failed = self._work(job, job.request)
        if failed is None:
            return
        error, delivered = failed
        again = _in_sequence(job.request) if error.kind == "crashed" and not delivered else None
        if again is not None and self._work(job, again) is None:
            return
        self._put(job, ("error", error))

    def _restart(self) -> int:
        """Start a fresh worker in place of this one, at once if the system lets us. Gives the old one's exit status."""
        code = self._end()
        with contextlib.suppress(OSError):
            self._start()
        return code

    def _worker(self) -> subprocess.Popen[bytes]:
        """Wait until the worker is ready. However long starting takes, it is no fault of the video that waits.

        Raises:
            VideoError: none starts.
        """
        try:
            if self.process is None or self.process.poll() is not None:
                self._end()
                self._start()
            process = self.process
            if process is None:
                raise VideoError("crashed", "the run was ended")
            if process is not self.ready:
                timer = threading.Timer(START_LIMIT, process.kill)
                timer.daemon = True
                timer.start()
                try:
                    await_ready(process.stdout)  # type: ignore[arg-type]
                finally:
                    timer.cancel()
                self.ready = process
            return process
        except (EOFError, OSError) as error:
            reason = getattr(error, "strerror", None) or _reason(self._end())
            message = f"no decoding process could be started ({reason.lower()}); --workers 0 does without"
            raise VideoError("crashed", message) from None

    def _work(self, job: Job, request: Any) -> tuple[VideoError, bool] | None:
        """Run one job. Gives None once its answer is out, else why the worker failed and whether a chunk had come."""
        work = self.work
        try:
            task = pickled((job.load, request, job.streamed, work.timeout, work.memory_limit))
        except Exception as error:  # the caller's mistake, not the video's
            self._put(job, ("error", error))
            return None
        try:
            process = self._worker()
        except VideoError as error:
            return error, False
        delivered = False
        while True:
            overdue = threading.Event()
            timer = threading.Timer(work.timeout, _overrun, (process, overdue))
            timer.daemon = True
            timer.start()
            try:
                if not delivered:
                    send_bytes(process.stdin, task)  # type: ignore[arg-type]
                # A worker cannot have held more than its limit: a greater length is noise on the pipe
                kind, value = receive(process.stdout, work.memory_limit)  # type: ignore[arg-type]
                if kind not in ("item", "end", "error"):
                    raise ValueError(kind)
            except Exception as error:  # the pipe broke, or what came through it is not an answer
                timer.cancel()
                return self._failed(error, overdue.is_set()), delivered
            finally:
                timer.cancel()
            starved = isinstance(value, VideoError) and value.kind == "memory"
            late = overdue.is_set() and (kind != "item" or not job.streamed)  # killed just as it answered
            if starved or late:  # a heap in pieces is not used again either
                self._restart()
            wanted = self._put(job, (kind, value))
            if kind != "item" or not job.streamed:
                return None
            if not wanted:  # the rest of a long video is not worth decoding
                self._restart()
                return None
            delivered = True

    def _failed(self, error: Exception, overdue: bool) -> VideoError:
        """Replace the worker, and say what its video's record says."""
        code = self._restart()
        if overdue:
            seconds = f"{self.work.timeout:g} s"
            return VideoError(
                "timeout", f"decoding took longer than {seconds} and was stopped; allow more with --timeout"
            )
        how = _reason(code) if isinstance(error, (EOFError, OSError)) else "its answer makes no sense"
        return VideoError(
            "crashed", f"the decoder crashed on this file ({how}); the file is probably damaged"
        )

    def _put(self, job: Job, reply: tuple[str, Any]) -> bool:
        """Tell whether somebody is there to take it; waits while a stream's consumer is behind."""
        while not (self.work.closed.is_set() or job.cancelled.is_set()):
            with contextlib.suppress(queue.Full):
                job.replies.put(reply, timeout=0.5)
                return True
        return False

    def _end(self) -> int:
        """Kill what is left of the worker and collect it. Gives its exit status."""
        with self.lock:
            process, self.process = self.process, None
        if process is None:
            return 0
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]  # a sound worker ends at that
        # A crash report is worth having: a worker that closed its pipe is given a moment to be gone by itself
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.0 if self.work.closed.is_set() else 0.5)
        process.kill()
        code = process.wait()
        with contextlib.suppress(OSError):
            process.stdout.close()  # type: ignore[union-attr]
        return code


def fair_share_mb(workers: int) -> int:
    """Give what each of so many workers may hold: half of the memory there is, shared out, and 1 GB at least."""
    return max(1024, available_memory() // 2**20 // (2 * workers))


def _overrun(process: subprocess.Popen[bytes], overdue: threading.Event) -> None:
    overdue.set()
    process.kill()


def _in_sequence(request: Any) -> Any | None:
    """Ask the same of PyAV reading in sequence, the gentlest way, if the decoder was left open."""
    if getattr(request, "decoder", None) != "auto" or not dataclasses.is_dataclass(request):
        return None
    return dataclasses.replace(request, decoder="pyav")  # type: ignore[type-var]


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
