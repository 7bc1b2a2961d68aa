"""Checks of a PyTorch file's pickles before ``torch.load``: no code, and no more values than the file holds.

``weights_only=True`` runs no code, but it makes whatever sizes and shared tuples the file names. So the pickle's
operations are read first (:mod:`pickletools`, which makes nothing), against a short list and with limits.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from zsar_cli.errors import UsageError, shown

LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch's magic number as a pickle
LEGACY_PICKLES = 5  # magic number, protocol, machine, objects, keys of the storages
LARGEST_READ = 8_000_000  # bytes of a pickle, or of a zip file's list of members
OPERATIONS = 500_000  # a training checkpoint of 1,500 weights with Adam's state has some 150,000
DEPTH = 100

DAMAGE = (
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
)  # what zipfile raises besides its own

CALLED = re.compile(
    r"collections OrderedDict|__builtin__ set|torch (Size|device)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter)"
)
NAMED = re.compile(  # kinds of storages and of numbers, which are not called
    r"torch [A-Za-z0-9]+Storage|torch\.storage (UntypedStorage|TypedStorage)"
    r"|torch (b?float|complex|u?int)\d+\w*|torch bool"
)
# Tensors of other kinds than a model's weights, by what a pickle calls to make them
OTHER_KINDS = {
    "_rebuild_sparse_tensor": "sparse tensors",
    "_rebuild_qtensor": "quantized tensors",
    "_rebuild_nested_tensor": "nested tensors",
    "_rebuild_meta_tensor_no_storage": "tensors without values (of the device meta)",
    "_rebuild_wrapper_subclass": "tensors of a class of their own",
    "_rebuild_from_type_v2": "tensors of a class of their own",
    "_rebuild_parameter_with_state": "parameters with attributes of their own",
}
# The operations that torch's own reader of weights knows
KNOWN = re.compile(
    "PROTO|STOP|GLOBAL|NEWOBJ|REDUCE|BUILD|APPENDS?|SETITEMS?|MARK|TUPLE[123]?|NONE|NEWFALSE|NEWTRUE|BINPERSID|"
    "EMPTY_(TUPLE|LIST|DICT|SET)|BININT[12]?|BINFLOAT|(LONG_)?BINGET|(LONG_)?BINPUT|BINUNICODE|SHORT_BINSTRING|LONG1"
)
# Of each, how many values it takes off the stack, and whether also all above the last mark
OPERANDS = {
    operation.name: (before.index(mark), True) if mark in before else (len(before), False)
    for mark in [pickletools.markobject]
    for operation in pickletools.opcodes
    for before in [operation.stack_before]
    if KNOWN.fullmatch(operation.name)
}


class HoldsObjectsError(UsageError):
    """A pickle names something else than tensors, and was not opened."""


class Value(NamedTuple):
    """What is known of a value in a pickle: the values in it, how deep they lie, and the name it stands for."""

    values: int = 1
    depth: int = 1
    name: str = ""


LEAF = Value()


def is_archive(path: Path) -> bool:
    """Tell whether a PyTorch file is a zip file and not of the legacy form, as ``torch.load`` does."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\3\4"


def is_torchscript(names: Iterable[str]) -> bool:
    """Tell whether a zip file with members of these names is a TorchScript program, as OpenAI's CLIP files are."""
    return any(name.endswith("/constants.pkl") and name.count("/") == 1 for name in names)


def read_members(path: Path) -> list[zipfile.ZipInfo]:
    """List the members of a zip file, without reading them. UsageError where it is damaged or lists too many."""
    try:
        with zipfile.ZipFile(_BoundedFile(path)) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise _cut(path) from error


def check_archive(path: Path, published: str = "") -> None:
    """Check a zip file as ``torch.save`` writes it; ``published`` is what to name instead of OpenAI's programs.

    Raises:
        UsageError: a damaged or compressed archive, a TorchScript program, or a pickle that :func:`check_pickle`
            refuses.
    """
    check_pickle(pickle_of(path, published), path)


def pickle_of(path: Path, published: str = "") -> io.BytesIO:
    """Take the pickle out of a zip file as ``torch.save`` writes it.

    Raises:
        UsageError: a damaged or compressed archive, a TorchScript program, or a pickle that is too long.
    """
    members = read_members(path)
    if is_torchscript(member.filename for member in members):
        instead = (
            f"use --model {published} for the same weights"
            if published
            else "save its state dict as safetensors, or use a model of open_clip's such as ViT-B-16/openai"
        )
        raise UsageError(
            f"{path} is a TorchScript program, like OpenAI's CLIP files, and is not opened for security: {instead}."
        )
    if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members):
        raise UsageError(f"{path} is compressed, unlike files written by PyTorch; unpack it first.")
    pickles = [m for m in members if m.filename.endswith("/data.pkl") and m.filename.count("/") == 1]
    names = {member.filename.casefold() for member in members}
    if len(pickles) != 1 or len(names) < len(members) or not _has_one_list(path):
        raise _cut(path)
    if sum(m.file_size for m in members) > path.stat().st_size:
        raise _cut(path)
    if pickles[0].file_size > LARGEST_READ:
        raise _too_much(path)
    try:
        with zipfile.ZipFile(_BoundedFile(path)) as archive:
            return io.BytesIO(archive.read(pickles[0]))
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise _cut(path) from error


_END, _END64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_MOST = 0xFFFFFFFF


def _has_one_list(path: Path) -> bool:
    """Tell whether a zip file's list of members ends where its end begins, as in every file that PyTorch writes.

    Readers look for the list in different places where it does not: then zipfile would show us one pickle, and
    torch.load would open another.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - _END.size - _LOCATOR.size - _END64.size))
        tail = file.read()
    if len(tail) < _END.size:
        return False
    kind, *_, length, start, comment = _END.unpack(tail[-_END.size :])
    if kind != b"PK\5\6" or comment:
        return False
    before = tail[: -_END.size]
    if before[-_LOCATOR.size :][:4] != b"PK\6\7":
        return bool(start + length == size - _END.size)
    if len(before) < _LOCATOR.size + _END64.size:
        return False
    kind, *_, length64, start64 = _END64.unpack(before[: _END64.size])
    place = size - len(tail)
    return bool(
        kind == b"PK\6\6"
        and _LOCATOR.unpack(before[-_LOCATOR.size :])[2] == place == start64 + length64
        and (length, start) == (min(length64, _MOST), min(start64, _MOST))
    )


def check_legacy(path: Path) -> None:
    """Check a file in the form that PyTorch wrote before 1.6: pickles one after another, then the values.

    Raises:
        UsageError: it is something else, or :func:`check_pickle` refuses one of the pickles.
    """
    with open(path, "rb") as file:
        start = io.BytesIO(file.read(LARGEST_READ))
    if not start.getvalue().startswith(LEGACY_START):
        raise UsageError(f"{path} is no weights file that PyTorch can read, or it is damaged.")
    for _ in range(LEGACY_PICKLES):
        check_pickle(start, path)


def check_pickle(stream: io.BytesIO, path: Path) -> None:
    """Check one pickle, without making anything of it.

    The size of each value is counted with all that it refers to, as often as it does: tuples of tuples of
    tuples, each twice, would take for ever to be hashed.

    Raises:
        UsageError: it names something else than tensors, has far too many or too deep values, or is damaged.
    """
    stack: list[Value | None] = []  # None is a mark
    memo: dict[int, Value | None] = {}
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if number > OPERATIONS:
                raise _too_much(path)
            _follow(operation, argument, stack, memo, path)
    except UsageError:
        raise
    except Exception as error:  # pickletools raises all kinds, and so does a stack that is too short
        raise UsageError(f"{path} is no weights file that PyTorch can read, or it is damaged.") from error


def _follow(
    operation: pickletools.OpcodeInfo,
    argument: Any,
    stack: list[Value | None],
    memo: dict[int, Value | None],
    path: Path,
) -> None:
    """Do to the stack and the memo what one operation would, with sizes in the place of values."""
    name = operation.name
    if name not in OPERANDS:
        raise HoldsObjectsError(f"{path} is no weights file that PyTorch can read, or it is damaged.")
    count, to_mark = OPERANDS[name]
    if name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(None)
    elif name == "GLOBAL":
        _check_name(str(argument), path)
        stack.append(Value(name=str(argument)))
    elif count or to_mark:
        made = _made_of(_take(stack, count, to_mark), name, path)
        if operation.stack_after:
            stack.append(made)
    elif operation.stack_after:
        stack.append(LEAF)


def _made_of(taken: list[Value], operation: str, path: Path) -> Value:
    """Count what an operation makes of the values that it takes."""
    if operation in ("REDUCE", "NEWOBJ") and not CALLED.fullmatch(taken[-1].name):
        raise pickle.UnpicklingError("a call of something else than a function")
    made = Value(
        1 + sum(value.values for value in taken),
        1 + max((value.depth for value in taken), default=0),
    )
    if made.values > 4 * OPERATIONS or made.depth > DEPTH:
        raise _too_much(path)
    return made


def _take(stack: list[Value | None], count: int, to_mark: bool) -> list[Value]:
    """Take an operation's operands off the stack; the last that was put there comes first."""
    taken: list[Value | None] = []
    if to_mark:
        while (value := stack.pop()) is not None:
            taken.append(value)
    taken += [stack.pop() for _ in range(count)]
    if None in taken:
        raise pickle.UnpicklingError("a mark in the wrong place")
    return taken  # type: ignore[return-value]


def _check_name(called: str, path: Path) -> None:
    if CALLED.fullmatch(called) or NAMED.fullmatch(called):
        return
    name = called.replace(" ", ".", 1)
    kind = OTHER_KINDS.get(name.rpartition(".")[2]) if name.startswith("torch.") else None
    if kind:
        raise UsageError(f"{path} holds {kind}; save the weights as plain tensors in fp32 or fp16.")
    raise HoldsObjectsError(
        f"{path} holds Python objects besides tensors ({shown(name)}) and was not opened, as they could run code. "
        "If you trust it, save only its state dict, or convert it to safetensors."
    )


def _cut(path: Path) -> UsageError:
    return UsageError(f"{path} is not a complete PyTorch file; download it again.")


def _too_much(path: Path) -> UsageError:
    return UsageError(f"{path} describes far more values than a model's weights have; it was not opened.")


class _BoundedFile(io.FileIO):
    """A file from which no more is read at once than a sound archive needs (zipfile reads its list in one piece)."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > LARGEST_READ:
            raise zipfile.BadZipFile("its list of members is too long")
        return super().read(LARGEST_READ if size is None or size < 0 else size)
