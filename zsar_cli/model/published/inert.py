"""PyTorch files that hold more than tensors, such as a training's settings: the tensors are taken, nothing is run.

``torch.load`` would either refuse such a file or run what it names. Here its pickle is followed by hand: of the names
in it, those that stand for tensors and plain containers are known; what any other would make is :class:`Inert`.
"""

from __future__ import annotations

import io
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsar_cli.errors import UsageError
from zsar_cli.model.pickle_check import LARGEST_READ, LEGACY_START, OPERATIONS, is_archive, pickle_of

DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Inert:
    """What a name in a pickle that stands for no tensor would have made; it takes whatever is done to it."""


@dataclass(frozen=True)
class Name:
    """A name of Python's in a pickle, which is never looked up."""

    text: str


@dataclass
class Storage:
    """Values in the file that tensors look at."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass
class Stored:
    """A tensor as the pickle describes it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def take(self, values: Tensor) -> Tensor:
        """Look at a storage's values (n,) as this tensor. ValueError where it would look beyond them."""
        sound = len(self.size) == len(self.stride) <= 16 and min((self.offset, *self.size, *self.stride)) >= 0
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if not sound or (0 not in self.size and last >= len(values)):
            raise ValueError("a tensor looks beyond its storage")
        return torch.as_strided(values, self.size, self.stride, self.offset)


def read_inert(path: Path) -> dict[str, Any]:
    """Read the dictionary in a PyTorch file, with tensors where it has them.

    Dictionaries in it are kept two deep, which is where the weights lie; of all else nothing is made.

    Raises:
        UsageError: the file is damaged, holds no dictionary, or describes far more than it holds.
    """
    try:
        with open(path, "rb") as file:
            if is_archive(path):
                root, storages = follow(pickle_of(path), path), _of_archive(path)
            else:
                root, storages = _read_legacy(file, path)
            return _tensors(root, storages)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # a damaged file can fail anywhere
        raise UsageError(f"{path} is no weights file that can be read, or it is damaged.") from error


def _tensors(found: Any, storages: Callable[[Storage], Tensor], depth: int = 0) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError("no dictionary")
    known: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, Stored):
            known[name] = value.take(storages(value.storage))
        elif isinstance(value, dict) and depth == 0 and name != "optimizer":
            known[name] = _tensors(value, storages, depth + 1)
    return known


def _of_archive(path: Path) -> Callable[[Storage], Tensor]:
    """How to read the values of a storage of a zip file; each is read once."""
    archive = zipfile.ZipFile(path)
    members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
    read: dict[str, Tensor] = {}

    def values(storage: Storage) -> Tensor:
        if storage.key not in read:
            member = members[f"data/{storage.key}"]
            if member.file_size != storage.count * storage.dtype.itemsize:
                raise ValueError("a storage is not as long as its description")
            read[storage.key] = _as_tensor(archive.read(member), storage)
        return read[storage.key]

    return values


def _read_legacy(file: Any, path: Path) -> tuple[Any, Callable[[Storage], Tensor]]:
    """Read the form that PyTorch wrote before 1.6: five pickles one after another, then the values."""
    start = io.BytesIO(file.read(LARGEST_READ))
    if not start.getvalue().startswith(LEGACY_START):
        raise ValueError("no file of PyTorch's")
    for _ in range(3):  # magic number, protocol, machine
        follow(start, path)
    described: dict[str, Storage] = {}
    root = follow(start, path, described)
    keys = follow(start, path)
    places, position, end = {}, start.tell(), path.stat().st_size
    for key in keys:
        storage = described[key]
        file.seek(position)
        length = int.from_bytes(file.read(8), "little") * storage.dtype.itemsize
        if position + 8 + length > end or length != storage.count * storage.dtype.itemsize:
            raise ValueError("a storage is not as long as its description")
        places[key] = position + 8
        position += 8 + length
    read: dict[str, Tensor] = {}

    def values(storage: Storage) -> Tensor:
        if storage.key not in read:
            with open(path, "rb") as again:
                again.seek(places[storage.key])
                read[storage.key] = _as_tensor(again.read(storage.count * storage.dtype.itemsize), storage)
        return read[storage.key]

    return root, values


def _as_tensor(content: bytes, storage: Storage) -> Tensor:
    if sys.byteorder != "little":
        raise UsageError(
            "Weights in PyTorch's format with other objects are read on little-endian machines only."
        )
    if not content:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(content), dtype=storage.dtype)


# --- the pickle

MARK = Inert()
EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": Inert,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
VALUES = re.compile(
    "BININT[12]?|BINFLOAT|LONG[14]|(SHORT_)?BINUNICODE8?|(SHORT_)?BINSTRING|(SHORT_)?BINBYTES8?|INT|LONG|FLOAT|UNICODE"
)


@dataclass
class _Machine:
    """The stack and the memo of a pickle; what it builds is plain data."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def above_mark(self) -> list[Any]:
        taken = []
        while (value := self.stack.pop()) is not MARK:
            taken.append(value)
        return taken[::-1]

    def pop(self, count: int) -> list[Any]:
        taken = self.stack[-count:]
        if len(taken) < count or any(value is MARK for value in taken):
            raise ValueError("a pickle that takes what is not there")
        del self.stack[-count:]
        return taken


def follow(stream: io.BytesIO, path: Path, storages: dict[str, Storage] | None = None) -> Any:
    """Build what a pickle describes: numbers, texts, lists, dictionaries, tensors as :class:`Stored`, else inert.

    Raises:
        UsageError: it has far too many operations, or one that no file of PyTorch's has.
    """
    machine = _Machine(storages={} if storages is None else storages)
    for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if number > 4 * OPERATIONS:
            raise UsageError(
                f"{path} describes far more values than a model's weights have; it was not opened."
            )
        _step(machine, operation.name, argument)
    (result,) = machine.stack
    return result


def _step(machine: _Machine, name: str, argument: Any) -> None:
    stack, memo = machine.stack, machine.memo
    if name in ("PROTO", "FRAME", "STOP"):
        return
    if name in EMPTY:
        stack.append(EMPTY[name]())
    elif VALUES.fullmatch(name):
        stack.append(argument)
    elif name == "MARK":
        stack.append(MARK)
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if argument is None else argument] = stack[-1]
    elif name == "GLOBAL":
        stack.append(Name(argument))
    elif name == "POP":
        stack.pop()
    elif name == "POP_MARK":
        machine.above_mark()
    elif name == "DUP":
        stack.append(stack[-1])
    else:
        _join(machine, name)


def _join(machine: _Machine, name: str) -> None:
    """Follow an operation that makes one value of several, or puts values into one."""
    stack = machine.stack
    if name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
        stack.append(tuple(machine.above_mark() if name == "TUPLE" else machine.pop(int(name[-1]))))
    elif name in ("LIST", "DICT", "FROZENSET", "INST", "OBJ", "NEWOBJ_EX"):
        values = machine.pop(3) if name == "NEWOBJ_EX" else machine.above_mark()
        stack.append(values if name == "LIST" else _pairs({}, values) if name == "DICT" else Inert())
    elif name in ("APPENDS", "APPEND", "ADDITEMS"):
        values = machine.pop(1) if name == "APPEND" else machine.above_mark()
        _extend(stack[-1], values)
    elif name in ("SETITEMS", "SETITEM"):
        values = machine.pop(2) if name == "SETITEM" else machine.above_mark()
        _pairs(stack[-1], values)
    elif name == "STACK_GLOBAL":
        stack.append(Name(" ".join(part if isinstance(part, str) else "?" for part in machine.pop(2))))
    elif name in ("REDUCE", "NEWOBJ"):
        function, arguments = machine.pop(2)
        stack.append(_made(function, arguments))
    elif name == "BUILD":
        machine.pop(1)  # an object's attributes
    elif name == "BINPERSID":
        stack.append(_storage(machine, machine.pop(1)[0]))
    else:
        raise ValueError(f"the operation {name}")


def _extend(into: Any, values: Sequence[Any]) -> None:
    if isinstance(into, list):
        into.extend(values)


def _pairs(into: Any, values: Sequence[Any]) -> Any:
    """Put keys and values by turns into a dictionary; a key that is no text or number is left out."""
    if not isinstance(into, dict):
        return into
    for key, value in zip(values[::2], values[1::2], strict=True):
        if isinstance(key, (str, int)):
            into[key] = value
    return into


def _made(function: Any, arguments: Any) -> Any:
    """Make the result of a call: of the few names of tensors and containers, what they say; of all others, nothing."""
    name = function.text if isinstance(function, Name) else ""
    if name == "collections OrderedDict":
        return {}
    if name in ("torch Size", "torch._utils _rebuild_parameter"):
        return arguments[0]
    if name in ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"):
        storage, offset, size, stride = arguments[:4]
        sound = isinstance(storage, Storage) and all(
            isinstance(n, tuple) and len(n) <= 16 for n in (size, stride)
        )
        sound = sound and all(isinstance(n, int) for n in (offset, *size, *stride))
        return Stored(storage, offset, tuple(size), tuple(stride)) if sound else Inert()
    return Inert()


def _storage(machine: _Machine, said: Any) -> Any:
    """Read the storage that a persistent id names: ("storage", kind, key, device, count), and one more in old files."""
    if not isinstance(said, tuple) or len(said) < 5 or said[0] != "storage" or not isinstance(said[1], Name):
        return Inert()
    dtype = DTYPES.get(said[1].text.rpartition(" ")[2])
    if dtype is None or not isinstance(said[2], str) or not isinstance(said[4], int) or said[4] < 0:
        return Inert()
    return machine.storages.setdefault(said[2], Storage(said[2], dtype, said[4]))
