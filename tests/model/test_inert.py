"""PyTorch files with other objects than tensors: the tensors are read, nothing is run."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests import hostile_weights as hostile
from tests.published_files import settings
from zsar_cli.errors import UsageError
from zsar_cli.model.published.inert import read_inert
from zsar_cli.model.published.load import read_published


class Runs:
    """Runs a command when it is unpickled by pickle."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def state() -> dict[str, torch.Tensor]:
    values = torch.arange(24.0)
    return OrderedDict(
        whole=values.reshape(4, 6),
        turned=values.reshape(4, 6).T,
        part=values[5:9],
        half=values[:3].half(),
        brain=values[:3].bfloat16(),
        count=torch.tensor(7),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(values[:2]),  # type: ignore[dict-item]
    )


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_beside_foreign_objects_are_read(tmp_path: Path, legacy: bool) -> None:
    path, mark = tmp_path / "file.pth", tmp_path / "ran"
    content = {
        "model": state(),
        "config": settings(),
        "hook": Runs(mark),
        "args": SimpleNamespace(a={1, 2}, b=b"x"),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    sys.modules.pop("throw_away_settings")
    tensors, wrapper = read_published(path)
    assert wrapper == "model"
    assert list(tensors) == list(state())
    for name, tensor in state().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert not mark.exists()


def test_the_names_in_a_file_are_not_even_looked_up(tmp_path: Path) -> None:
    module = ModuleType("looked_up")
    sys.modules["looked_up"] = module
    try:
        module.Thing = type("Thing", (), {"__module__": "looked_up"})  # type: ignore[attr-defined]
        torch.save({"model": {"a": torch.ones(2)}, "config": module.Thing()}, tmp_path / "file.pth")
        del module.Thing  # type: ignore[attr-defined]
        module.__getattr__ = lambda name: pytest.fail(f"{name} was looked up")  # type: ignore[method-assign]
        assert torch.equal(read_published(tmp_path / "file.pth")[0]["a"], torch.ones(2))
    finally:
        del sys.modules["looked_up"]


NAMED = b"cos\nsystem\n"
ODD = {
    "a call as the whole": hostile.called("os system", hostile.text("touch ran")),
    "a tensor longer than its storage": b"}(" + hostile.text("a") + hostile.tensor(16, 400, 1) + b"u",
    "a tensor with a step beyond its storage": b"}(" + hostile.text("a") + hostile.tensor(16, 4, 9) + b"u",
    "a storage longer than its member": b"}(" + hostile.text("a") + hostile.tensor(1 << 40, 4, 1) + b"u",
    "a negative step": b"}(" + hostile.text("a") + hostile.tensor(16, 4, -1) + b"u",
    "values taken from an empty stack": b"\x85\x85\x86R",
    "a mark that is not there": b"u",
    "two values at the end": b"}}",
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, value: bytes) -> None:
    hostile.archive(tmp_path / "file.pth", value)
    with pytest.raises(UsageError):
        read_inert(tmp_path / "file.pth")
    assert not (tmp_path / "ran").exists()


BOMBS = {
    "tuples of tuples": b")" + b"q\x00h\x00\x86" * 20_000 + b"0}",
    "a memo at the far end": b"}r\xff\xff\xff\x7f",
    "a dictionary in itself": b"}q\x00(" + hostile.text("model") + b"h\x00u",
}


@pytest.mark.parametrize("value", BOMBS.values(), ids=BOMBS)
def test_a_file_that_asks_for_much_costs_little(tmp_path: Path, value: bytes) -> None:
    hostile.archive(tmp_path / "file.pth", NAMED + b"0" + value)
    found = read_inert(tmp_path / "file.pth")
    assert not any(isinstance(tensor, torch.Tensor) for tensor in found.values())


def test_a_legacy_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save(
        {"a": torch.arange(1000.0), "b": SimpleNamespace()}, path, _use_new_zipfile_serialization=False
    )
    whole = path.read_bytes()
    for length in (20, 300, len(whole) - 8):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError):
            read_inert(path)


def test_pickles_of_later_protocols_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save(
        {"model": state(), "config": SimpleNamespace(a=1)}, path, pickle_protocol=pickle.HIGHEST_PROTOCOL
    )
    assert torch.equal(read_published(path)[0]["turned"], state()["turned"])


def test_a_pointer_to_a_published_file_is_told_as_for_any_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "MoTE_B16.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UsageError, match="git lfs pull"):
        read_published(path)
