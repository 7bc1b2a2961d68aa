"""A Ray cluster: connecting to it, or starting one on this machine, and how its cores and GPUs are shared out."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zsar_cli import __version__
from zsar_cli.errors import UsageError, ZsarError
from zsar_cli.resources import available_cores
from zsar_cli.video.keeper import module_folders

LOCAL, RUNNING = "local", "auto"
TRIES = 3  # of starting one here: Ray gives a busy machine 30 s for it
ADDRESS = re.compile(r"(ray://)?[^/\s]+:\d+")
IO_CPUS = 0  # of tasks that read lists and write parts: they wait for no core that an actor holds


def is_address(text: str) -> bool:
    """Tell whether it is what ``--ray`` takes."""
    return text in (LOCAL, RUNNING) or ADDRESS.fullmatch(text) is not None


def require_ray() -> Any:
    """Import Ray.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise UsageError(
            f"--ray needs Ray Data ({error}): pip install 'zsar-cli[ray]', on every node of the cluster."
        ) from error
    return ray


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a cluster for the length of the block; ``local`` starts one on this machine and ends it.

    In a program that is connected already, its cluster is used.

    Raises:
        UsageError: there is no such cluster, it has another version of zsar, or what ran there raised a UsageError.
    """
    ray = require_ray()
    own = not ray.is_initialized()
    if own:
        _start(ray, address)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        _check_version(ray)
        yield ray
    except ray.exceptions.RayError as error:
        raise _reason(error) from error
    finally:
        if own:
            ray.shutdown()


def _start(ray: Any, address: str) -> None:
    if not is_address(address):
        raise UsageError(f"--ray {address} is no address; give local, auto, HOST:PORT or ray://HOST:PORT.")
    prepare_environment()
    how: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        how |= {"num_cpus": max(2, available_cores()), "include_dashboard": False}
    tries = TRIES if address == LOCAL else 1
    for last in (*[False] * (tries - 1), True):
        try:
            ray.init(address=address, **how)
            return
        except Exception as error:  # Ray raises plain ones, too
            ray.shutdown()
            if last:
                raise _unreachable(address, error) from error


def prepare_environment() -> None:
    """Set what nodes that this process starts take over."""
    # Workers look for modules where this process does: an installation by pip's --target, a checkout
    os.environ["PYTHONPATH"] = os.pathsep.join(module_folders())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as this process, not behind whatever else runs


def _unreachable(address: str, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UsageError(
        f"No Ray cluster answers at {address} ({reason:.200}); --ray local starts one on this machine."
    )


def _check_version(ray: Any) -> None:
    """Raise UsageError if the workers have no zsar, or another one."""
    try:
        there = ray.get(ray.remote(num_cpus=IO_CPUS)(_version).remote())
    except ray.exceptions.RayError as error:
        raise UsageError(
            f"The cluster's workers cannot import zsar {__version__}; install it on every node."
        ) from error
    if there != __version__:
        raise UsageError(
            f"The cluster's workers have zsar {there} and this is {__version__}; install the same."
        )


def shared_out(ray: Any, device: str) -> Share:
    """Share out the cluster that is connected, see :func:`share_out`."""
    found = ray.cluster_resources()
    return share_out(found.get("CPU", 0.0), found.get("GPU", 0.0), device)


def resolved(ray: Any, share: Share, precision: str) -> str:
    """Resolve ``auto`` for the models of the actors: bf16 on GPUs from Ampere on, else fp32."""
    if precision != "auto" or not share.model_gpus:
        return precision
    capability = ray.get(ray.remote(num_gpus=share.model_gpus, num_cpus=IO_CPUS)(_capability).remote())
    return "bf16" if tuple(capability) >= (8, 0) else "fp32"


def _capability() -> tuple[int, int]:
    import torch

    found: tuple[int, int] = torch.cuda.get_device_capability()
    return found


def _version() -> str:
    return __version__


def _reason(error: BaseException) -> BaseException:
    """Find the error of our own that an error of Ray's was caused by; else that one."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None) or seen.__cause__
        if isinstance(cause, ZsarError):
            return UsageError(str(cause))
        seen = cause if isinstance(cause, BaseException) else None
    return error


@dataclass(frozen=True)
class Share:
    """How many actors decode and how many have a model, at most, and what each of them counts for."""

    decoders: int
    models: int
    decoder_cpus: float
    model_cpus: float
    model_gpus: float

    @property
    def threads(self) -> int | None:
        """Threads of torch in an actor with a model; None where a GPU computes."""
        return None if self.model_gpus else max(1, int(self.model_cpus))


def share_out(cpus: float, gpus: float, device: str = "auto") -> Share:
    """Share out what a cluster has: a GPU for each model and the cores for decoding, or the cores for both.

    An actor with a GPU counts for a core, too. Without GPUs each actor has one core and one thread. Pools grow from
    one actor to these numbers as there is work. Where there are fewer cores than that takes, actors share one.

    Raises:
        UsageError: a GPU is asked for and the cluster has none.
    """
    kind = device.partition(":")[0]
    if kind == "cuda" and gpus < 1:
        raise UsageError("--device cuda: the cluster has no GPU.")
    if kind in ("auto", "cuda") and gpus >= 1:
        models = int(gpus)
        core = min(1.0, cpus / (models + 1))
        return Share(max(1, int(cpus - models)), models, core, core, 1.0)
    core = min(1.0, cpus / 2)
    most = max(1, int(cpus) - 1)  # the other stage needs one
    return Share(most, most, core, core, 0.0)
