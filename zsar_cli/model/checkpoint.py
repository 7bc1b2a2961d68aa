"""Weights files to tensors, without running anything that a file may carry."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsar_cli.errors import UsageError

# What a TorchScript archive may name besides its own classes, for the storages of its tensors.
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# OpenAI's archives carry these sizes among the weights.
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Weights:
    """A model's tensors by name. ``openai``: in the form that OpenAI published, so trained with QuickGELU."""

    tensors: dict[str, Tensor]
    openai: bool = False


def read_weights(path: str | Path) -> Weights:
    """Read safetensors, a PyTorch checkpoint (``weights_only``) or a TorchScript archive's tensors.

    A TorchScript archive is read as data: its program is neither compiled nor run. Training checkpoints are
    unwrapped, and the prefixes that DataParallel and ``torch.compile`` leave are taken off.

    Raises:
        UsageError: no such file, a damaged or cut one, values that are not finite, or a pickle that holds more
            than tensors (it is refused unread).
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            start = handle.read(64)
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a directory; name the weights file in it.") from error
    except OSError as error:
        raise UsageError(f"The weights {path} cannot be read: {error.strerror or error}.") from error
    if start.startswith(b"version https://git-lfs"):
        raise UsageError(
            f"{path} is a Git LFS pointer and not the weights; run `git lfs pull` where it lies."
        )

    openai = False
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        found = _read_safetensors(path)
    elif _is_torchscript(path):
        found, openai = _read_torchscript(path), True
    else:
        found = _read_pytorch(path, cut=start.startswith(b"PK") and not zipfile.is_zipfile(path))
    tensors = _unwrap(found, path)
    openai = openai or "input_resolution" in tensors
    tensors = {name: tensor for name, tensor in tensors.items() if name not in OPENAI_SIZES}
    _check_finite(tensors, path)
    return Weights(tensors, openai)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the library raises kinds of its own
        raise UsageError(
            f"{path} is no whole safetensors file ({_brief(error)}); it may have been cut short: fetch it again."
        ) from error


def _read_pytorch(path: Path, *, cut: bool) -> Any:
    if cut:
        raise UsageError(f"{path} has been cut short; fetch it again.")
    try:
        with warnings.catch_warnings():  # about the pickle's protocol, which people can do nothing about
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
            raise UsageError(
                f"{path} holds Python objects besides tensors, and reading them could run code, so it was not "
                "opened. Save its state dict alone, or as safetensors."
            ) from error
        raise UsageError(f"{path} is no weights file that PyTorch can read, or it is damaged.") from error
    except Exception as error:  # a damaged file can fail anywhere in torch.load
        raise UsageError(f"{path} is no weights file that PyTorch can read, or it is damaged.") from error


def _unwrap(found: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside what was read."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{path} holds no model weights.")
    tensors = {}
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(
                f"{path} is no model's state dict: its entry {str(name)[:60]!r} is not a tensor."
            )
        for prefix in ("module.", "_orig_mod."):
            name = name.removeprefix(prefix)
        tensors[name] = tensor
    return tensors


def _check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            # a NaN or an infinity always shows in the extremes, and nothing of the tensor's size is allocated
            low, high = torch.aminmax(tensor)
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise UsageError(
                    f"The weights in {path} are damaged: {name} holds values that are not finite."
                )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist()
            )
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            (data,) = (n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl"))
            with archive.open(data) as stream:
                root = _ModuleReader(stream, archive, data.removesuffix("data.pkl")).load()
            tensors: dict[str, Tensor] = {}
            _collect(root, "", tensors, depth=0)
            return tensors
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can fail anywhere
        raise UsageError(
            f"{path} is no TorchScript archive that can be read as weights: {_brief(error)}"
        ) from error


class _Module:
    """Stands for any class of a TorchScript program: it keeps its attributes and has no behaviour."""

    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _ModuleReader(pickle.Unpickler):
    """Reads the objects of a TorchScript archive. Everything they may call is one of the few functions here."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(stream)
        self.archive, self.prefix = archive, prefix
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return type("Module", (_Module,), {})
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle":  # marks of a value's type
            return lambda value, *_: value
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no weights need")

    def persistent_load(self, reference: Any) -> Tensor:
        kind, dtype, key = reference[:3]
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("it refers to something that is not a tensor")
        if key not in self.storages:
            entry = self.archive.getinfo(f"{self.prefix}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:  # PyTorch never compresses; a bomb would
                raise pickle.UnpicklingError("its tensors are compressed")
            content = bytearray(self.archive.read(entry))
            self.storages[key] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


def _collect(value: Any, name: str, into: dict[str, Tensor], depth: int) -> None:
    if isinstance(value, Tensor):
        into[name] = value
    elif isinstance(value, _Module) and isinstance(value.attributes, dict):
        if depth > 50:
            raise ValueError("its modules are nested without end")
        for attribute, inner in value.attributes.items():
            _collect(inner, f"{name}.{attribute}" if name else str(attribute), into, depth + 1)


def _brief(error: Exception) -> str:
    """The first line of an error, short enough to read."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
