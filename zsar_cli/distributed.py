"""Several processes that work on one job, as ``torchrun`` starts them; alone, everything here does nothing.

The engine is torch.distributed. What passes between processes is JSON in tensors of bytes: no pickle, whose
reading could run code. Rank 0 is the one that reads lists, writes files and speaks.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from zsar_cli.errors import UsageError

PATIENCE = timedelta(days=30)  # that one rank may be ahead of another; a rank that dies is noticed at once
_patient: Any = None  # gloo group for waiting on others while they work, however long that takes


def rank() -> int:
    """This process's number among those of the job, from 0."""
    return _number("RANK", 0) if world() > 1 else 0


def world() -> int:
    """How many processes the job has; 1 where nobody said how to reach others, as torchrun does."""
    return _number("WORLD_SIZE", 1) if "MASTER_ADDR" in os.environ else 1


def _number(name: str, otherwise: int) -> int:
    try:
        return int(os.environ.get(name, otherwise))
    except ValueError:
        raise UsageError(f"The environment variable {name} must be a number, as torchrun sets it.") from None


def own_device(device: str) -> str:
    """Each process of a machine takes a GPU of its own: ``cuda`` becomes ``cuda:LOCAL_RANK``."""
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

    global _patient
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
        _patient = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield
        dist.barrier(_patient)  # the others' last messages may still be on their way
    except (RuntimeError, ValueError) as error:
        if not _about_peers(error):
            raise
        raise UsageError(
            f"Rank {rank()} of {world()} lost the other processes: one of them ended, and its own messages say "
            "why. Start the job again with --resume."
        ) from error
    finally:
        _patient = None
        if dist.is_initialized():
            dist.destroy_process_group()


def _about_peers(error: Exception) -> bool:
    """Whether an error comes from the connections to other processes, and not from the work itself."""
    from torch.distributed import DistError

    text = str(error).lower()
    return isinstance(error, DistError) or any(
        word in text for word in ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")
    )


def from_first(value: Any = None) -> Any:
    """Rank 0's ``value`` (anything JSON holds) in every process; the others may wait long for it."""
    if world() == 1:
        return value
    import torch.distributed as dist

    data = _to_tensor(value) if rank() == 0 else None
    return _to_value(_pass_on(data, lambda tensor: dist.broadcast(tensor, 0, group=_patient)))


def own_share(items: Iterable[Any]) -> Iterable[Any]:
    """Every ``world``-th of rank 0's ``items``, from this rank's on; alone, ``items`` themselves, read lazily.

    Only rank 0 reads them: there is one standard input, and a folder may change.
    """
    if world() == 1:
        return items
    return from_first(list(items) if rank() == 0 else None)[rank() :: world()]


def to_first(own: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """On rank 0: (rank, item) for all that any process puts in, as it comes. On the others: nothing.

    ``own`` is what this process puts in (anything JSON holds), taken lazily; the items of a rank keep their order.
    """
    if world() == 1:
        yield from ((0, item) for item in own)
        return
    import torch.distributed as dist

    if rank() != 0:
        for item in own:
            _pass_on(_to_tensor([item]), lambda tensor: dist.send(tensor, 0, group=_patient))
        _pass_on(_to_tensor([]), lambda tensor: dist.send(tensor, 0, group=_patient))
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
    """What :func:`to_first` gives, as if one process had done it: the first of each rank, the second of each, ...

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
    import torch.distributed as dist

    message: Any = True
    try:
        while message:
            message = _to_value(_pass_on(None, lambda tensor: dist.recv(tensor, source, group=_patient)))
            arrived.put((source, message))
    except Exception as error:
        arrived.put((source, error))


def _pass_on(data: Any, move: Callable[[Any], Any]) -> Any:
    """Send ``data`` with ``move``, or receive it where there is none: its size goes ahead of it."""
    import torch

    size = torch.tensor([0 if data is None else len(data)])
    move(size)
    data = torch.empty(int(size), dtype=torch.uint8) if data is None else data
    move(data)
    return data


def _to_tensor(value: Any) -> Any:
    import torch

    return torch.frombuffer(bytearray(json.dumps(value).encode("ascii")), dtype=torch.uint8)


def _to_value(data: Any) -> Any:
    return json.loads(data.numpy().tobytes())


CHUNK = 2**24  # numbers that are sent in one message


def add_up(tensors: Sequence[Any]) -> None:
    """Replace each tensor by its sum over all processes, many of them in one message."""
    if world() == 1:
        return
    import torch
    import torch.distributed as dist

    rest = list(tensors)
    while rest:
        together, numbers = [rest.pop(0)], 0
        while rest and numbers + rest[0].numel() <= CHUNK and rest[0].dtype == together[0].dtype:
            numbers += rest[0].numel()
            together.append(rest.pop(0))
        flat = torch.cat([tensor.reshape(-1) for tensor in together])
        dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in together])
        for tensor, part in zip(together, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
