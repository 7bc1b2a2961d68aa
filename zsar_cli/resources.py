"""How many cores and how much memory this process may use: what the machine has, less what it is not given."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from zsar_cli.checks import WORKERS

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MANY_CORES = 8
OF_A_THREAD = (
    0.25e9  # FLOPs of a frame: some 5 ms on a core, in which threads wait for each other a hundred times
)
UNLIMITED = 2**60  # bytes; cgroup v1 writes a number near 2^63 where there is no limit


def available_cores() -> int:
    """Count the cores for this process: of its affinity, at most its cgroups' quota, shared among torchrun's processes.

    A quota of 1.5 cores counts as one: a thread that the kernel stops in the middle of a product lets all others wait.
    """
    cores = affinity()
    quota = min(_quotas(), default=float(cores))
    return max(1, int(min(cores, quota)) // _processes_here())


def useful_threads(flops: float) -> int:
    """Choose how many threads share a frame of so many FLOPs: one for a tower as small as motion-tiny's.

    At most all cores. Threads wait for each other after every layer. Where other work holds one of them up, a small
    layer takes them longer together than it takes one.
    """
    return max(1, min(available_cores(), int(flops / OF_A_THREAD)))


def default_workers(device: str = "cpu") -> int:
    """Choose how many processes decode for a model on this device.

    On a CPU half of the cores, 2 to 8, as the model uses them too; 1 on one core. A GPU leaves the cores free, and any
    decoder is too slow for it: all cores but one, or but two where there are 8 or more.
    """
    cores = available_cores()
    if device.partition(":")[0] == "cpu":
        return min(8, max(2, cores // 2), cores)
    return min(max(1, cores - (1 if cores < MANY_CORES else 2)), WORKERS[1])


def affinity() -> int:
    """Count the cores that this process may run on, as ``taskset`` and Slurm say; elsewhere those of the machine."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1


def available_memory() -> int:
    """Count bytes: the machine's memory, at most what its cgroups allow; 8 GB where neither can be told."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = 8 * 2**30
    limits = [
        *(_number(folder / "memory.max") for folder in _cgroups("")),
        *(_number(folder / "memory.limit_in_bytes") for folder in _cgroups("memory")),
    ]
    return min([total, *(int(limit) for limit in limits if limit is not None and 0 < limit < UNLIMITED)])


def _processes_here() -> int:
    """Count the processes that torchrun started on this machine, which share its cores."""
    with contextlib.suppress(ValueError):
        if "MASTER_ADDR" in os.environ:
            return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return 1


def _quotas() -> Iterator[float]:
    """Yield the cores that each cgroup around this process may use, where it has a limit."""
    for folder in _cgroups(""):
        quota, period = _number(folder / "cpu.max"), _number(folder / "cpu.max", 1)
        if quota and period and quota > 0:
            yield quota / period
    for folder in _cgroups("cpu"):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period and quota > 0:  # -1: no limit
            yield quota / period


def _cgroups(controller: str) -> Iterator[Path]:
    """Find the folders of this process's cgroup and of those around it; ``controller``: v1's, or "" for v2.

    In a container the path may be the host's, which is not to be seen here; the mount itself is the container's then.
    """
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if controller not in names.split(","):
            continue
        mount = CGROUPS / names if controller else CGROUPS
        if controller and not mount.is_dir():
            mount = CGROUPS / controller
        own = mount / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder == mount or mount in folder.parents)


def _number(file: Path, place: int = 0) -> float | None:
    """Read a number in a file of the kernel's; None where there is none (such as "max")."""
    try:
        return float(file.read_text(encoding="ascii").split()[place])
    except (OSError, ValueError, IndexError):
        return None
