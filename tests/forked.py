"""``zsar`` as a process of its own, without the seconds that importing torch takes.

What only a real process shows (signals, kills, pipes, torchrun) is tested in some hundred processes, and each would
import torch for three seconds. Here a server imports everything once, and each command is a fork of it, which takes
0.04 s. The server starts with the first test that asks for the fixture ``server``, and forks from its only thread,
before torch has started any.

The workers of pytest-xdist are forks of it as well (tests/conftest.py).

:class:`Server` starts commands from a test: it sends the arguments, the folder, the environment and the standard
streams through a socket, and gets the process's number and, later, how it ended. Run as a script, this file is the
``zsar`` (or, with ``.py`` first, the ``python``) of torchrun: ``forked.py SOCKET ARGUMENTS``.
"""

import atexit
import contextlib
import gc
import importlib
import itertools
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PRELOAD = [
    *(
        "torch.distributed.run",
        "open_clip",
        "yaml",
        "rich.progress",
        "safetensors.torch",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "matplotlib.style",
        "matplotlib.projections",
        "typer._adapters",
        "typer._click.decorators",
        "rich._emoji_codes",
        "numpy.ctypeslib",
    ),
    *(f"zsar_cli.cli.{command}" for command in ("predict", "train", "eval", "embed_prompts")),
    *(
        f"zsar_cli.{module}"
        for module in ("recognizer", "training.run", "evaluation.inference", "video.decode")
    ),
    *("zsar_cli.data.motion_shapes", "zsar_cli.model.zsar", "zsar_cli.plots", "zsar_cli.prediction.report"),
]

At = tuple[int, Path, int]  # a number of changes to files, a folder and a signal
Request = tuple[list[str], list[int], str, dict[str, str], Any]


class Process:
    """A command that was started: what of ``subprocess.Popen`` tests use."""

    def __init__(
        self,
        place: str,
        arguments: list[str],
        streams: list[int],
        signal_at: At | None = None,
    ) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(place)
        request = json.dumps(
            [
                arguments,
                os.getcwd(),
                dict(os.environ),
                signal_at and (signal_at[0], str(signal_at[1]), signal_at[2]),
            ]
        ).encode()
        socket.send_fds(self.connection, [len(request).to_bytes(4, "big")], streams)
        self.connection.sendall(request)
        self.pid = int.from_bytes(_receive(self.connection, 4), "big")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None where it still runs."""
        try:
            self.wait(0)
        except TimeoutError:
            return None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. TimeoutError after that many seconds."""
        if self.returncode is None:
            self.connection.settimeout(timeout if timeout is None else max(timeout, 1e-6))  # 0 would not wait
            self.returncode = int.from_bytes(_receive(self.connection, 4), "big", signed=True)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)


def start_server(place: str) -> "subprocess.Popen[bytes]":
    """The process that forks; it imports when it is first asked."""
    command = [sys.executable, "-m", "tests.forked", "--serve", place]
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not Path(place).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@dataclass
class Server:
    """A process that forks, by where its socket is."""

    place: str

    def start(
        self,
        *arguments: str,
        stdin=None,
        stdout=None,
        stderr=None,
        signal_at: At | None = None,
    ) -> Process:
        """Start ``zsar`` with these arguments; streams are open files, and nothing where none is given.

        ``signal_at`` is a number, a folder and a signal: it gets the signal at that one of its changes to files in
        the folder, see :func:`signal_myself`.
        """
        with open(os.devnull, "r+b") as nothing:
            streams = [(stream or nothing).fileno() for stream in (stdin, stdout, stderr)]
            return Process(self.place, list(arguments), streams, signal_at)


def _receive(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise ConnectionError("the server is gone")
        found += part
    return found


# --- the server's side ------------------------------------------------------------------------------------------


def serve(place: str) -> None:
    """Fork for each connection for ever, having imported everything before the first."""
    commands: dict[int, socket.socket] = {}  # those that run, and who asked for each
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(socket.AF_UNIX) as listening, selectors.DefaultSelector() as asked:
        listening.bind(place + ".new")
        listening.listen(64)
        asked.register(listening, selectors.EVENT_READ)
        asked.register(ended, selectors.EVENT_READ)
        os.rename(place + ".new", place)
        while True:
            for key, _ in asked.select():
                if key.fileobj is listening:
                    connection, _ = listening.accept()
                    prepare()
                    request = receive(connection)
                    if request is None:
                        connection.close()
                        continue
                    pid = os.fork()
                    if not pid:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for ours in (listening, asked, connection, *commands.values()):
                            ours.close()
                        os.close(ended)
                        os.close(wake)
                        become(*request)
                    for stream in request[1]:
                        os.close(stream)
                    commands[pid] = connection
                    asked.register(connection, selectors.EVENT_READ, pid)
                    with contextlib.suppress(OSError):
                        connection.sendall(pid.to_bytes(4, "big"))
                elif key.fileobj == ended:
                    os.read(ended, 1000)
                    for pid, code in codes_of_the_ended():
                        connection = commands.pop(pid)
                        with contextlib.suppress(OSError):  # nobody asks any more
                            connection.sendall(code.to_bytes(4, "big", signed=True))
                        with contextlib.suppress(KeyError):
                            asked.unregister(connection)
                        connection.close()
                elif key.data in commands:  # who asked for it was killed
                    os.kill(key.data, signal.SIGKILL)
                    asked.unregister(key.fileobj)


def codes_of_the_ended() -> Iterator[tuple[int, int]]:
    """Yield the number and the exit code of each command that has ended."""
    with contextlib.suppress(ChildProcessError):  # there is none left
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def receive(connection: socket.socket) -> Request | None:
    """What a connection asks for: arguments, streams, folder, environment and :data:`At`; None where it is gone."""
    try:
        head, streams, _, _ = socket.recv_fds(connection, 4, 3)
        arguments, folder, env, signal_at = json.loads(_receive(connection, int.from_bytes(head, "big")))
    except (OSError, ValueError):
        return None
    return arguments, streams, folder, env, signal_at


@cache
def prepare() -> None:
    """Do once what every command would do anew."""
    for module in PRELOAD:
        with contextlib.suppress(ImportError):  # of another version of a library: the command needs it or not
            importlib.import_module(module)
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    from zsar_cli.cli.app import COMMANDS, LazyCommands
    from zsar_cli.data.dataset import load_motion_shapes
    from zsar_cli.model.hub import load_tokenizer
    from zsar_cli.model.published.records import published_models

    for name in COMMANDS:
        LazyCommands().get_command(None, name)
    load_motion_shapes("train")
    load_tokenizer(None, {"text_cfg": {}})
    published_models()
    # For its log torchrun asks which method it is in, of every module that is imported: a second a process
    dynamic_rendezvous.get_method_name = lambda depth=2: ""
    gc.freeze()  # collections in the commands need not look at all this


def signal_myself(number: int, folder: str, which: int) -> None:
    """Send a signal to this process at its ``number``-th change to a file in the folder: before one is opened to
    write, renamed or removed, and before, half way through and after a line is appended.

    Whatever a kill can leave on a disk lies between two of these. A signal from outside hits whatever the process
    has come to, and on a busy machine that is its end.
    """
    from zsar_cli.outputs import LineFile

    process, moments = os.getpid(), itertools.count(1)

    def moment(path: Any) -> None:
        ours = os.getpid() == process and os.path.abspath(os.fsdecode(path)).startswith(folder)
        if ours and next(moments) == number:
            os.kill(process, which)

    def watch(event: str, about: tuple[Any, ...]) -> None:
        to_write = event == "open" and about[2] & (os.O_WRONLY | os.O_RDWR)
        if (to_write or event in ("os.rename", "os.link", "os.remove")) and not isinstance(about[0], int):
            moment(about[0])

    def append(file: LineFile, line: bytes, *advice: str) -> None:
        half = len(line) // 2
        moment(file.path)
        write(file, line[:half], *advice)
        moment(file.path)
        write(file, line[half:], *advice)
        moment(file.path)

    write, LineFile.write = LineFile.write, append  # type: ignore[method-assign]
    sys.addaudithook(watch)


def become(
    arguments: list[str], streams: list[int], folder: str, env: dict[str, str], signal_at: At | None
) -> None:
    """Be that command; how it ends is how this process ends."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if signal_at:
        signal_myself(*signal_at)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for stream, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        setattr(sys, stream, open(number, mode, buffering=1 if number == 2 else -1))
    code: Any = None
    try:
        if arguments[:2] == ["-u", "-c"]:  # how pytest-xdist starts Python for a worker
            exec(arguments[2], {"__name__": "__main__"})
        elif arguments and arguments[0].endswith(".py"):
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            from zsar_cli.cli.app import main

            sys.argv = ["zsar", *arguments]
            main(arguments)
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        sys.exit(code)
    leave(code or 0)


def leave(code: int) -> None:
    """End as Python does, but without taking apart all that the server imported: that alone takes 0.3 s."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code)
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    running = Process(sys.argv[1], sys.argv[2:], [0, 1, 2])
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda number, _: running.send_signal(number))
    status = running.wait()
    if status < 0:  # a signal ended it: this process too
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
