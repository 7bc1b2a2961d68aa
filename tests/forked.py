"""``zsar`` as a process of its own, without the seconds that importing torch takes.

A server imports everything once and forks for each command. :class:`Server` starts commands from a test; run as a
script, this file is the ``zsar`` (or, with ``.py`` first, the ``python``) of a shell: ``forked.py SOCKET ARGUMENTS``.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

PRELOAD = [
    *(
        "torch.distributed.run",
        "open_clip",
        "yaml",
        "rich.progress",
        "safetensors.torch",
        "matplotlib.figure",
    ),
    *(f"zsar_cli.cli.{command}" for command in ("predict", "train", "eval", "embed_prompts")),
    *(f"zsar_cli.{module}" for module in ("prediction", "training_run", "evaluation", "video.decode")),
    *("zsar_cli.data.motion_shapes", "zsar_cli.model.recognizer"),
]


class Process:
    """A command that was started: what of ``subprocess.Popen`` tests use."""

    def __init__(self, place: str, arguments: list[str], streams: list[int]) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(place)
        request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
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


class Server:
    """The process that forks; ``with Server(socket) as server``."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __enter__(self) -> "Server":
        command = [sys.executable, "-m", "tests.forked", "--serve", self.place]
        root = Path(__file__).resolve().parent.parent
        self.process = subprocess.Popen(command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 200
        while not Path(self.place).exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def start(self, *arguments: str, stdin=None, stdout=None, stderr=None) -> Process:
        """Start ``zsar`` with these arguments; streams are open files, and nothing where none is given."""
        with open(os.devnull, "r+b") as nothing:
            streams = [(stream or nothing).fileno() for stream in (stdin, stdout, stderr)]
            return Process(self.place, list(arguments), streams)


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
    """Import, then fork for each connection for ever."""
    for module in PRELOAD:
        __import__(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for who looks after a command
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place + ".new")
        listening.listen(64)
        os.rename(place + ".new", place)
        while True:
            connection, _ = listening.accept()
            if not os.fork():
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                look_after(connection)
            connection.close()


def look_after(connection: socket.socket) -> None:
    """Start what the connection asks for, and tell it the process's number and how it ended."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    arguments, folder, env = json.loads(_receive(connection, int.from_bytes(head, "big")))
    pid = os.fork()
    if not pid:
        connection.close()
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        become(arguments, folder, env)
    for stream in streams:
        os.close(stream)
    connection.sendall(pid.to_bytes(4, "big"))
    threading.Thread(target=outlive_nobody, args=(connection, pid), daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(code.to_bytes(4, "big", signed=True))
    os._exit(0)


def outlive_nobody(connection: socket.socket, pid: int) -> None:
    """Kill the command where who asked for it was killed."""
    with contextlib.suppress(OSError):
        if not connection.recv(1):
            os.kill(pid, signal.SIGKILL)


def become(arguments: list[str], folder: str, env: dict[str, str]) -> None:
    """Be that command; how it ends is how this process ends."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for stream, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        setattr(sys, stream, open(number, mode, buffering=1 if number == 2 else -1))
    if arguments and arguments[0].endswith(".py"):
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        from zsar_cli.cli.app import main

        sys.argv = ["zsar", *arguments]
        main(arguments)
    sys.exit()


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
