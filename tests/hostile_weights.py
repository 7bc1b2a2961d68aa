"""Weights that ask for more than they hold, or hold something else than weights; small files all of them."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROTO, STOP = b"\x80\x02", b"."
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def text(value: str) -> bytes:
    """The pickle operation that makes a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    """The pickle operation that makes a whole number."""
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def called(name: str, *arguments: bytes) -> bytes:
    """The operations that call a function by its name."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def storage(numel: int, kind: str = "FloatStorage", legacy: bool = False) -> bytes:
    """The operations that refer to a storage."""
    view = b"N" if legacy else b""
    return (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text("0") + text("cpu") + whole(numel)
        + view + b"tQ"
    )  # fmt: skip


def tensor(numel: int, size: int, stride: int, legacy: bool = False) -> bytes:
    """The operations that make a vector of a storage."""
    hooks = b"ccollections\nOrderedDict\n)R"
    size_and_stride = whole(size) + b"\x85" + whole(stride) + b"\x85"
    return called(
        "torch._utils _rebuild_tensor_v2",
        storage(numel, legacy=legacy),
        whole(0),
        size_and_stride,
        b"\x89",
        hooks,
    )


def archive(path: Path, value: bytes, compression: int = zipfile.ZIP_STORED, data: bytes = bytes(64)) -> None:
    """Write what ``torch.save`` would, but for the pickle's operations."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", PROTO + value + STOP)
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/data/0", data)
        file.writestr("archive/version", "3\n")


def entry(value: bytes) -> bytes:
    """The operations that make a state dict of one entry."""
    return b"}(" + text("logit_scale") + value + b"u"


def legacy(path: Path, value: bytes, data: bytes) -> None:
    """Write a file as PyTorch did before 1.6."""
    machine = {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    head = MAGIC + pickle.dumps(1001, protocol=2) + pickle.dumps(machine, protocol=2)
    path.write_bytes(head + PROTO + value + STOP + pickle.dumps(["0"], protocol=2) + data)


def tuples(depth: int, times: int) -> bytes:
    """A key of tuples in tuples, each of which stands ``times`` times in the next: what takes for ever to hash."""
    made = b"K\x01q\x00"
    for number in range(depth):
        made += b"(" + (b"h" + bytes([number])) * times + b"t" + b"q" + bytes([number + 1])
    return b"}(" + made + b"K\x01u"  # with SETITEM, torch refuses a tuple as a key


def header(entries: int, name: str = "t") -> bytes:
    """The start of a safetensors file of many empty tensors."""
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    content = ("{" + ",".join(f'"{name}{number}":{empty}' for number in range(entries)) + "}").encode()
    return len(content).to_bytes(8, "little") + content


def _described(path: Path, shape: str, metadata: str = "") -> None:
    """A safetensors file of one value, with a long header."""
    content = f'{{{metadata}"t":{{"dtype":"F32",{shape},"data_offsets":[0,4]}}}}'.encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(4))


def _members(path: Path) -> None:
    """A zip file whose list names one member again and again."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", b"")
    whole = path.read_bytes()
    start, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    listed = whole[start:end] * 200_000
    tail = whole[end : end + 8] + b"\xff\xff\xff\xff" + struct.pack("<II", len(listed), start) + b"\0\0"
    path.write_bytes(whole[:start] + listed + tail)


def _two_lists(path: Path, by_locator: bool) -> None:
    """A zip file with two lists of members: zipfile finds a sound pickle, and torch.load one without end."""
    archive(path, tuples(60, 2))
    bad = path.read_bytes()
    archive(path, entry(tensor(16, 16, 1)))
    good = path.read_bytes()
    (bad_start, bad_end), (start, end) = ((w.index(b"PK\1\2"), w.rindex(b"PK\5\6")) for w in (bad, good))
    first, size = bad[:bad_end], end - start
    if not by_locator:  # zipfile takes what lies before the end for the list, and all offsets for shifted
        moved = bad_start - start
        last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, size, bad_start, 0)
        path.write_bytes(first + good[:start] + _moved(good[start:end], moved) + last)
        return

    def end64(length: int, place: int) -> bytes:
        return struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 4, 4, length, place)

    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(first), 1)
    first += end64(bad_end - bad_start, bad_start)
    place = len(first) + start
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, size, place, 0)
    listed = _moved(good[start:end], len(first))
    path.write_bytes(first + good[:start] + listed + end64(size, place) + locator + last)


def _moved(members: bytes, by: int) -> bytes:
    """A list of members whose data lie elsewhere."""
    moved, place = bytearray(members), 0
    while place < len(moved):
        name, extra, comment = struct.unpack_from("<3H", moved, place + 28)
        struct.pack_into("<L", moved, place + 42, struct.unpack_from("<L", moved, place + 42)[0] + by)
        place += 46 + name + extra + comment
    return bytes(moved)


HUGE = 10**10
ASKING: dict[str, Callable[[Path], None]] = {
    "an expanded tensor": lambda path: archive(path, entry(tensor(16, HUGE, 0))),
    "a tensor longer than its storage": lambda path: archive(path, entry(tensor(16, HUGE, 1))),
    "a storage longer than the file": lambda path: archive(path, entry(tensor(HUGE, HUGE, 1))),
    "the same of the old form": lambda path: legacy(path, entry(tensor(HUGE, HUGE, 1, True)), bytes(72)),
    "an expanded tensor of the old form": lambda path: legacy(
        path, entry(tensor(16, HUGE, 0, True)), struct.pack("<q", 16) + bytes(64)
    ),
    "a stretched tensor of the old form": lambda path: legacy(
        path, entry(tensor(16, HUGE, 1, True)), struct.pack("<q", 16) + bytes(64)
    ),
    "deflated storages": lambda path: archive(
        path, entry(tensor(10**7, 10**7, 1)), zipfile.ZIP_DEFLATED, bytes(4 * 10**7)
    ),
    "deflated operations": lambda path: archive(path, b"]" * 10**7, zipfile.ZIP_DEFLATED),
    "four million operations": lambda path: archive(path, b"]" * 4_000_000),
    "an index of the memo": lambda path: archive(path, b"}r\xff\xff\xff\x7f"),
    "tuples of tuples": lambda path: archive(path, tuples(60, 2)),
    "deep tuples": lambda path: archive(path, b"}(" + b")" + b"\x85" * 400_000 + b"K\x01u"),
    "an array of bytes": lambda path: archive(path, entry(called("__builtin__ bytearray", whole(HUGE)))),
    "a tensor made by its class": lambda path: archive(path, entry(called("torch FloatTensor", whole(HUGE)))),
    "a storage that is called": lambda path: archive(
        path, entry(called("torch.storage UntypedStorage", whole(HUGE)))
    ),
    "a codec that takes for ever": lambda path: archive(
        path, entry(called("_codecs encode", text("é" * 100_000), text("punycode")))
    ),
    "an empty quantized tensor": lambda path: archive(
        path, entry(called("torch._utils _rebuild_qtensor", whole(1)))
    ),
    "a pickle that is no more than a text": lambda path: archive(path, b"X\xff\xff\xff\x7fa"),
    "members without end": _members,
    "two lists of members": lambda path: _two_lists(path, by_locator=False),
    "two lists of members by two ends": lambda path: _two_lists(path, by_locator=True),
    "a header of half a million entries": lambda path: path.write_bytes(header(500_000)) and None,
    "a header of long names": lambda path: path.write_bytes(header(30_000, "t" * 1000)) and None,
    "a header of nothing but lists": lambda path: (
        path.write_bytes((2_000_000).to_bytes(8, "little") + b'{"a":' + b"[" * 1_999_995) and None
    ),
    "a shape without end": lambda path: _described(path, '"shape":[' + "1," * 20_000_000 + "1]"),
    "metadata without end": lambda path: _described(
        path, '"shape":[1]', '"__metadata__":{' + '"k":"",' * 2_000_000 + '"l":""},'
    ),
    "a name of nothing but prefixes": lambda path: path.write_bytes(header(1, "model." * 300_000)) and None,
    "a length without end": lambda path: path.write_bytes(b"\xff" * 8 + b"{" + bytes(100)) and None,
}


class _Own(torch.Tensor):
    pass


def _with_attribute(plain: torch.Tensor) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(plain)
    parameter.note = OrderedDict()  # type: ignore[attr-defined]
    return parameter


# Tensors that are no 4x4 weights, and a word of what is said of them.
ODD: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "sparse": (lambda plain: plain.to_sparse(), "sparse"),
    "csr": (lambda plain: plain.to_sparse_csr(), "sparse"),
    "meta": (lambda plain: plain.to("meta"), "meta"),
    "nested": (lambda plain: torch.nested.nested_tensor([plain, plain]), "nested"),
    "quantized": (lambda plain: torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8), "quantized"),
    "float8": (lambda plain: plain.to(torch.float8_e4m3fn), "float8"),
    "complex": (lambda plain: plain.to(torch.complex64), "complex64"),
    "int": (lambda plain: plain.long(), "int64"),
    "bool": (lambda plain: plain.bool(), "bool"),
    "own class": (lambda plain: plain.as_subclass(_Own), "class of their own"),
    "attribute": (_with_attribute, "attributes"),
    "nan": (lambda plain: plain * float("nan"), "not finite"),
    "infinite": (lambda plain: plain / 0, "not finite"),
    "infinite in fp32": (lambda plain: plain.double() * 1e300, "not finite"),
    "scalar": (lambda plain: torch.tensor(1.0), "one number and not 4x4"),
    "longer": (lambda plain: torch.ones(5, 4), "5x4 and not 4x4"),
    "list": (lambda plain: [plain], "is not a tensor"),
    "nothing": (lambda plain: None, "is not a tensor"),
}
# Other forms of one and the same tensor, all of which are weights.
SAME: dict[str, Callable[[torch.Tensor], Any]] = {
    "plain": lambda plain: plain,
    "half": lambda plain: plain.half(),
    "bfloat16": lambda plain: plain.bfloat16(),
    "double": lambda plain: plain.double(),
    "parameter": torch.nn.Parameter,
    "requires grad": lambda plain: plain.clone().requires_grad_(),
    "transposed": lambda plain: plain.T.contiguous().T,
    "view of more": lambda plain: torch.stack([plain, plain])[1],
    "every second": lambda plain: plain.repeat_interleave(2, dim=1)[:, ::2],
}
