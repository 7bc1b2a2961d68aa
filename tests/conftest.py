"""Fixtures shared by the whole suite."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers share the cores; read when torch is imported

from tests import forked
from tests.forked import Process, Server
from zsar_cli.resources import available_cores

REPOSITORY = Path(__file__).resolve().parent.parent
SERVER = "FORK_SERVER"  # names the socket of the one server of all workers

# Looking again and again through all that torch brings takes a tenth of the time
gc.set_threshold(20_000, 20, 20)


def pytest_configure() -> None:
    # A shell that starts the tests in the background has them ignore Ctrl-C, and processes inherit that
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One file is tested in this process: a second one would import torch for nothing.

    All files are tested by three workers on two cores, as tests that wait for what they killed leave them idle.
    """
    named = [argument for argument in config.args if ".py" in argument]
    cores = available_cores()
    return 0 if len(named) == 1 else cores + cores // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first, so that the workers end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.hookimpl(optionalhook=True, tryfirst=True)  # before the reporter counts them
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Start one server for all workers; it imports when it is first asked, which is when they start as its forks."""
    folder = tempfile.TemporaryDirectory(prefix="zsar-tests-")  # pytest's own are too long for a socket
    os.environ[SERVER] = str(Path(folder.name) / "socket")
    process = forked.start_server(os.environ[SERVER])
    python = shlex.join([sys.executable, "-S", forked.__file__, os.environ[SERVER]])
    specs[:] = [type(spec)(f"{spec}//python={python}") if spec.popen else spec for spec in specs]
    config.add_cleanup(folder.cleanup)
    config.add_cleanup(process.wait)
    config.add_cleanup(process.kill)  # the last one comes first


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference videos and lists that the project's own CI has beside the checkout."""
    folder = Path(os.environ.get("ZSAR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(
            f"the reference videos and lists are not here ({folder}); set ZSAR_SHARED to their folder"
        )
    return folder


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny random CLIP: usable wherever a model is named (``--model``)."""
    from tests.tiny_models import make_tiny_clip

    return make_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Starts ``zsar`` as processes that need not import torch."""
    if SERVER in os.environ:
        yield Server(os.environ[SERVER])
        return
    with tempfile.TemporaryDirectory(
        prefix="zsar-tests-"
    ) as folder:  # pytest's own are too long for a socket
        place = str(Path(folder) / "socket")
        process = forked.start_server(place)
        yield Server(place)
        process.kill()
        process.wait()


@dataclass
class Running:
    """``zsar`` as a process of its own, which writes to files."""

    process: Process
    folder: Path

    def read(self, stream: str) -> str:
        return (self.folder / stream).read_text()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)


@pytest.fixture
def zsar_process(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Running]]:
    """Start ``zsar`` as a process of its own."""
    started: list[Running] = []

    def start(*arguments: object, **options: Any) -> Running:
        folder = tmp_path_factory.mktemp("process")
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = server.start(
                *map(os.fsdecode, map(_plain, arguments)), **{"stdout": out, "stderr": err} | options
            )
        started.append(Running(process, folder))
        return started[-1]

    yield start
    for running in started:
        running.kill()


def _plain(argument: object) -> Any:
    return argument if isinstance(argument, (str, bytes, os.PathLike)) else str(argument)


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    import fsspec

    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def torchrun(server: Server, zsar_process: Callable[..., Running]) -> Callable[..., Running]:
    """Start ``torchrun`` on ``zsar``, or on a script; its processes are forked as well, and end as they do."""

    def start(*arguments: object, count: int = 2, restarts: int = 0, **streams: Any) -> Running:
        return zsar_process(
            *(find_spec("torch.distributed.run").origin, "--standalone", "--nproc-per-node", count),
            *("--max-restarts", restarts, "--no-python"),
            *(sys.executable, "-S", forked.__file__, server.place, *arguments),
            **streams,
        )

    return start
