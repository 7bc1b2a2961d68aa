"""Several processes that work on one job, as ``torchrun`` starts them; alone, everything here does nothing.

The engine is torch.distributed. What passes between processes is JSON in tensors of bytes: no pickle, whose
reading could run code. Rank 0 is the one that reads lists, writes files and speaks.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from zsar_cli.errors import UsageError

PATIENCE = timedelta(days=30)  # that one rank may be ahead of another; a rank that dies is noticed at once


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
        device: where the tensors of this process's own collectives are; on a GPU these go through NCCL.

    Raises:
        UsageError: the others cannot be reached, or one of them ended before the job was done.
    """
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
        for _ in to_first(()):  # a barrier: messages are still on their way
            pass
        from_first()
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

    Torchrun's store outlives a restart, with the addresses of processes that have ended.
    What rank 0 says may be left over, too; so the others say a word of their own, which only a living rank 0 answers.
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


def from_first(value: Any = None) -> Any:
    """Give every process rank 0's ``value`` (anything JSON holds); the others may wait long for it."""
    if world() == 1:
        return value
    if rank() != 0:
        return _receive(0)
    data = _to_tensor(value)
    for other in range(1, world()):
        _send(data, other)
    return value


def own_share(items: Iterable[Any]) -> Iterable[Any]:
    """Take every ``world``-th of rank 0's ``items``, from this rank's on; alone, ``items`` themselves, read lazily.

    Only rank 0 reads them: there is one standard input, and a folder may change.
    """
    if world() == 1:
        return items
    everything: list[Any] = from_first(list(items) if rank() == 0 else None)
    return everything[rank() :: world()]


def to_first(own: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Yield on rank 0 (rank, item) of all that any process puts in, as it comes; on the others nothing.

    ``own`` is what this process puts in (anything JSON holds), taken lazily; the items of a rank keep their order.
    """
    if world() == 1:
        yield from ((0, item) for item in own)
        return
    if rank() != 0:
        for item in own:
            _send(_to_tensor([item]), 0)
        _send(_to_tensor([]), 0)
        return
    arrived: queue.Queue[tuple[int, Any]] = queue.Queue()
    for source in range(1, world()):
        threading.Thread(target=_receive_all, args=(source, arrived), daemon=True).start()
    working = world() - 1  # other ranks that have not ended

    def arrivals(wait: bool) -> Iterator[tuple[int, Any]]:
        nonlocal working
        while working and (wait or not arrived.empty()):
            source, message = arrived.get()
            if isinstance(message, Exception):
                raise message
            working -= not message
            yield from ((source, item) for item in message)

    for item in own:
        yield 0, item
        yield from arrivals(wait=False)
    yield from arrivals(wait=True)


def in_turn(arrivals: Iterable[tuple[int, Any]], count: int | None = None) -> Iterator[Any]:
    """Yield what one process would give, from all ranks: the first item of each rank, the second of each, ...

    Where a rank stopped early, what would come after its next item is left out. ``count`` of ranks: all there are.
    """
    waiting: list[deque[Any]] = [deque() for _ in range(count or world())]
    turn = 0
    for source, item in arrivals:
        waiting[source].append(item)
        while waiting[turn]:
            yield waiting[turn].popleft()
            turn = (turn + 1) % len(waiting)


def _receive_all(source: int, arrived: queue.Queue[tuple[int, Any]]) -> None:
    message: Any = True
    try:
        while message:
            message = _receive(source)
            arrived.put((source, message))
    except Exception as error:
        arrived.put((source, error))


def _send(data: Any, to: int) -> None:
    """Send bytes to another rank as a tensor, their number ahead of them."""
    import torch
    import torch.distributed as dist

    for tensor in (torch.tensor([len(data)]), data):
        _wait(dist.isend(tensor, to))


def _receive(source: int) -> Any:
    """Receive what another rank sent."""
    import torch
    import torch.distributed as dist

    size = torch.tensor([0])
    _wait(dist.irecv(size, source))
    data = torch.empty(int(size), dtype=torch.uint8)
    _wait(dist.irecv(data, source))
    return json.loads(data.numpy().tobytes())


def _wait(work: Any) -> None:
    work.wait(
        PATIENCE
    )  # the group's own limit is for steps of a training run, not for hours of another's work


def _to_tensor(value: Any) -> Any:
    import torch

    return torch.frombuffer(bytearray(json.dumps(value).encode("ascii")), dtype=torch.uint8)


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
