"""What a decoding process runs, and the pipes between it and the one that asks: pickled messages, length first."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import struct
import threading
from typing import IO, Any

from zsar_cli.errors import VideoError

GRACE = 5.0  # s after which the kernel ends a worker that nobody killed in time
HEADER = struct.Struct("<Q")


def serve() -> None:
    """The worker's main loop: jobs from stdin, answers to stdout, until stdin closes."""
    answers = os.fdopen(os.dup(1), "wb")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # libraries that print must not spoil the answers
    os.dup2(silent, 2)
    send(answers, ("ready", None))
    jobs: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    limited = False
    while True:
        load, request, streamed, timeout, memory_limit = pickle.loads(jobs.get())
        if not limited:
            _limit_memory(memory_limit)
            limited = True
        _alarm(timeout + GRACE)
        try:
            if streamed:
                for chunk in load(request):
                    _alarm(0)  # waiting for the consumer is no fault of the video
                    send(answers, ("item", chunk))
                    _alarm(timeout + GRACE)
                reply: tuple[str, Any] = ("end", None)
            else:
                reply = ("item", load(request))
        except MemoryError:
            message = "decoding needed more memory than a worker may use; the frames may be very large"
            reply = ("error", VideoError("memory", message))
        except VideoError as error:
            reply = ("error", error)
        except Exception as error:
            reply = ("error", VideoError("unreadable", f"decoding failed ({type(error).__name__}: {error})"))
        _alarm(0)
        send(answers, reply)
        del reply


def _listen(jobs: queue.Queue[bytes]) -> None:
    """Takes jobs off stdin; when it closes, the parent is gone or done, and so is this process."""
    # The raw descriptor: a thread blocked in sys.stdin's lock would hang the interpreter's exit
    with open(0, "rb", buffering=0, closefd=False) as pipe, contextlib.suppress(EOFError, OSError):
        while True:
            jobs.put(receive_bytes(pipe))
    os._exit(0)


def _alarm(seconds: float) -> None:
    """The kernel's own watchdog, in case the parent is killed while this process hangs in native code."""
    import signal

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


def send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, protocol=5)
    pipe.write(HEADER.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    return pickle.loads(receive_bytes(pipe))


def receive_bytes(pipe: IO[bytes]) -> bytes:
    return bytes(_exactly(pipe, HEADER.unpack(bytes(_exactly(pipe, HEADER.size)))[0]))


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = pipe.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return data
