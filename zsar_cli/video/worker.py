"""What a decoding process runs, and the pipes between it and the one that asks: pickled messages, length first."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

from zsar_cli.errors import VideoError

GRACE = 5.0  # s after which the kernel ends a worker that nobody killed in time
HEADER = struct.Struct("<Q")
READY = b"\0zsar: ready\n"
MOST_BEFORE_READY = 2**16  # bytes


def serve() -> None:
    """Take jobs from stdin and send answers to stdout, until stdin closes."""
    answers = os.fdopen(os.dup(1), "wb")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # libraries that print must not spoil the answers
    os.dup2(silent, 2)
    answers.write(READY)
    answers.flush()
    jobs: queue.Queue[bytearray] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    limited = False
    while True:
        try:
            load, request, streamed, timeout, memory_limit = pickle.loads(jobs.get())
        except Exception as error:  # such as a function from a module that is not to be found here
            send_bytes(answers, pickled(("error", RuntimeError(f"{type(error).__name__}: {error}"))))
            continue
        if not limited:
            _limit_memory(memory_limit)
            limited = True
        _alarm(timeout + GRACE)
        for answer in _answers(load, request, streamed):
            _alarm(0)  # waiting for the consumer is no fault of the video
            send_bytes(answers, answer)
            _alarm(timeout + GRACE)
        _alarm(0)
        answer = b""  # megabytes that are not to be kept until the next job


def _answers(load: Callable[[Any], Any], request: Any, streamed: bool) -> Iterator[bytes]:
    """Yield what a job comes to, pickled: an item, or a stream's items and its end; an error in place of the rest."""
    try:
        if streamed:
            for chunk in load(request):
                yield pickled(("item", chunk))
            yield pickled(("end", None))
        else:
            yield pickled(("item", load(request)))
        return
    except MemoryError:
        message = "decoding exceeded the memory limit of a worker; the frames may be very large"
        failed = VideoError("memory", message)
    except VideoError as error:
        failed = error
    except Exception as error:
        failed = VideoError("unreadable", f"decoding failed ({type(error).__name__}: {error})")
    yield pickled(("error", failed))


def _listen(jobs: queue.Queue[bytearray]) -> None:
    """Take jobs off stdin. When it closes, the parent is gone or done, and this process ends."""
    # The raw descriptor: a thread blocked in sys.stdin's lock would hang the interpreter's exit
    with open(0, "rb", buffering=0, closefd=False) as pipe, contextlib.suppress(EOFError, OSError):
        while True:
            jobs.put(receive_bytes(pipe))
    os._exit(0)


def _alarm(seconds: float) -> None:
    """Set the kernel's own watchdog, in case the parent is killed while this process hangs in native code."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(limit: int) -> None:
    try:
        import resource

        pages = int(open("/proc/self/statm").read().split()[0])
        ceiling = pages * resource.getpagesize() + limit
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # not Linux: the operating system's own limits hold
        pass


def pickled(message: Any) -> bytes:
    """Pickle a message as it goes through the pipe."""
    return pickle.dumps(message, protocol=5)


def send_bytes(pipe: IO[bytes], data: bytes) -> None:
    """Write a pickled message."""
    pipe.write(HEADER.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def await_ready(pipe: IO[bytes]) -> None:
    """Read until a worker says that it is ready.

    What Python's own start prints, such as a ``sitecustomize``, goes the same way.

    Raises:
        EOFError: the worker ends before, or says too much.
    """
    seen = b""
    while not seen.endswith(READY):
        seen += bytes(_exactly(pipe, 1))
        if len(seen) > MOST_BEFORE_READY:
            raise EOFError


def receive(pipe: IO[bytes], most: int) -> Any:
    """Read the next message, of at most so many bytes.

    Raises:
        EOFError: the pipe ends.
        ValueError: the message is longer; and whatever unpickling raises where it is none.
    """
    return pickle.loads(receive_bytes(pipe, most))


def receive_bytes(pipe: IO[bytes], most: int | None = None) -> bytearray:
    """Read the next message, still pickled."""
    (size,) = HEADER.unpack(bytes(_exactly(pipe, HEADER.size)))
    if most is not None and size > most:
        raise ValueError(f"a message of {size} bytes")
    return _exactly(pipe, size)


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = pipe.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return data
