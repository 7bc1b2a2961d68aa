"""Several processes of ``torchrun`` that train one model: what DistributedDataParallel needs beside itself.

Rank 0 writes files and speaks. What passes between processes are numbers in tensors, over torch.distributed.
Alone, everything here does nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from zsar_cli.errors import UsageError


def rank() -> int:
    """Return this process's number among those of the job, from 0."""
    return _number("RANK", 0) if world() > 1 else 0


def world() -> int:
    """Count the processes of the job; 1 outside of torchrun."""
    return _number("WORLD_SIZE", 1) if "MASTER_ADDR" in os.environ else 1


def _number(name: str, otherwise: int) -> int:
    try:
        return int(os.environ.get(name, otherwise))
    except ValueError:
        raise UsageError(f"The environment variable {name} must be a number, as torchrun sets it.") from None


def refuse_several(what: str, instead: str) -> None:
    """Raise UsageError where several processes were started, for what does not share its work among them."""
    if (count := _number("WORLD_SIZE", 1)) > 1:
        raise UsageError(
            f"{what} is not shared by the {count} processes of WORLD_SIZE, and each would do all of it; {instead}."
        )


def refuse_lonely(what: str) -> None:
    """Raise UsageError where several processes were started that do not know how to meet: each would do all of it."""
    if world() == 1 and (count := _number("WORLD_SIZE", 1)) > 1:
        raise UsageError(
            f"WORLD_SIZE is {count}, but MASTER_ADDR is not set, so the processes cannot meet: start {what} by "
            "torchrun, or unset WORLD_SIZE for a single process."
        )


def own_device(device: str) -> str:
    """Give each process of a machine a GPU of its own: ``cuda`` becomes ``cuda:LOCAL_RANK``."""
    if device != "cuda" or world() == 1:
        return device
    import torch

    index = _number("LOCAL_RANK", 0)
    if index >= torch.cuda.device_count():
        raise UsageError(
            f"There are more processes on this machine than its {torch.cuda.device_count()} GPUs; "
            "start torchrun with fewer in --nproc-per-node, or use --device cpu."
        )
    return f"cuda:{index}"


@contextmanager
def processes(device: str = "cpu") -> Iterator[None]:
    """Join the other processes for the length of the block.

    Args:
        device: where the tensors of DistributedDataParallel are; on a GPU these go through NCCL.

    Raises:
        UsageError: the others cannot be reached, or one of them ended before the job was done.
    """
    refuse_lonely("the training")
    if world() == 1:
        yield
        return
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        store, number, count = next(rendezvous("env://"))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=PrefixStore(_agree(store), store),
            rank=number,
            world_size=count,
        )
        yield
        add_up([0.0])  # nobody leaves while another still waits for its numbers
    except (RuntimeError, ValueError) as error:
        if not _about_peers(error):
            raise
        raise UsageError(
            f"Rank {rank()} of {world()} lost the other processes: one of them ended, and its own messages say "
            "why. Start the job again with --resume."
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _agree(store: Any) -> str:
    """Agree on a name for this start of the job, which no earlier start had.

    Torchrun's store outlives a restart, with the addresses of processes that have ended, and restarts are not counted
    alike on all machines. What rank 0 says may be left over, too; so the others say a word of their own, which only a
    living rank 0 answers.
    """
    own = secrets.token_hex(8)
    if rank() == 0:
        store.set("zsar/start", own)
        for other in range(1, world()):
            theirs = store.get(f"zsar/{own}/{other}").decode()
            store.set(f"zsar/{own}/{other}/{theirs}", "seen")
        return own
    while True:
        start: str = store.get("zsar/start").decode()
        store.set(f"zsar/{start}/{rank()}", own)
        for _ in range(20):
            if store.check([f"zsar/{start}/{rank()}/{own}"]):
                return start
            time.sleep(0.05)


def _about_peers(error: Exception) -> bool:
    """Tell whether an error comes from the connections to other processes, and not from the work itself."""
    from torch.distributed import DistError

    text = str(error).lower()
    return isinstance(error, DistError) or any(
        word in text for word in ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")
    )


def from_first(number: int) -> int:
    """Give every process rank 0's ``number``."""
    return int(add_up([number if rank() == 0 else 0])[0])


def add_up(numbers: Sequence[float]) -> list[float]:
    """Add up each number over all processes."""
    if world() == 1:
        return list(numbers)
    import torch
    import torch.distributed as dist

    sums = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(sums)
    found: list[float] = sums.tolist()
    return found


def anywhere(asked: bool) -> bool:
    """Tell whether this is true of any process."""
    return add_up([float(asked)]) != [0.0]
