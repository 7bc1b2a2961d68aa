"""Weights files: what they may hold, what they may ask for, and under which names."""

from __future__ import annotations

import os
import resource
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.hostile_weights import ASKING, ODD, SAME, archive, entry, tensor
from zsar_cli.errors import UsageError
from zsar_cli.model import weights as weights_module
from zsar_cli.model.factory import load_weights
from zsar_cli.model.weights import Weights, read_weights, without_prefixes

NAMES = {"visual.proj": (4, 4), "transformer.bias": (4,), "logit_scale": ()}


class Small(torch.nn.Module):
    """A model with the names that the weights below have."""

    def __init__(self) -> None:
        super().__init__()
        self.visual, self.transformer = torch.nn.Module(), torch.nn.Module()
        self.visual.proj = torch.nn.Parameter(torch.zeros(4, 4))
        self.transformer.bias = torch.nn.Parameter(torch.zeros(4))
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))


def sound() -> dict[str, Any]:
    return {name: torch.ones(shape) for name, shape in NAMES.items()}


def load(path: Path) -> dict[str, Tensor]:
    """The weights in the file as the small model has them afterwards."""
    model = Small()
    source: Any = SimpleNamespace(weights=read_weights(path), path=str(path), arch="Small")
    load_weights(model, source)
    return model.state_dict()


def message(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load(path)
    text = str(caught.value)
    assert len(text) < 400 + len(str(path))
    assert text.isprintable()
    return text


# --- what they ask for


@pytest.mark.parametrize("kind", ASKING)
def test_a_file_that_asks_for_more_than_it_holds_is_refused_before_it_gets_it(
    kind: str, tmp_path: Path
) -> None:
    ASKING[kind](tmp_path / "w.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "w.pt" in message(tmp_path / "w.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


def test_what_is_refused_unread_never_reaches_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch, "load", None
    )  # what calls it fails otherwise than by a UsageError... which is caught
    for kind in ("deflated storages", "tuples of tuples", "an array of bytes", "a storage that is called"):
        ASKING[kind](tmp_path / "w.pt")
        with pytest.raises(UsageError) as caught:
            read_weights(tmp_path / "w.pt")
        assert not isinstance(caught.value.__cause__, TypeError), kind


def test_an_archive_made_by_hand_is_read_where_it_asks_for_what_it_holds(tmp_path: Path) -> None:
    archive(tmp_path / "w.pt", entry(tensor(16, 16, 1)))
    assert read_weights(tmp_path / "w.pt").tensors["logit_scale"].shape == (16,)


@pytest.mark.filterwarnings("ignore")  # of PyTorch, that these are new or old
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_said_in_a_sentence(kind: str, tmp_path: Path) -> None:
    make, word = ODD[kind]
    torch.save(sound() | {"visual.proj": make(torch.ones(4, 4))}, tmp_path / "w.pt")
    assert word in message(tmp_path / "w.pt")


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("new", [True, False])
def test_weights_may_lie_in_the_file_as_they_like(kind: str, new: bool, tmp_path: Path) -> None:
    content = sound() | {"visual.proj": SAME[kind](torch.arange(16.0).reshape(4, 4))}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
    assert torch.equal(load(tmp_path / "w.pt")["visual.proj"], torch.arange(16.0).reshape(4, 4))


def test_tied_and_empty_tensors_are_weights_too(tmp_path: Path) -> None:
    one = torch.ones(4, 4)
    torch.save({"a": one, "b": one, "c": one[0], "d": torch.zeros(0)}, tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt").tensors) == {"a", "b", "c", "d"}


def test_pipes_devices_and_folders_are_no_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    for name in ("pipe.pt", "zero.safetensors", "folder.pt", "loop.pt", "nothing.pt", "x" * 300, "a\0b"):
        with pytest.raises(UsageError):
            read_weights(tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert "sharded" in message(tmp_path / "model.safetensors.index.json")


def test_a_file_of_holes_and_one_larger_than_the_memory_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("w.pt", "w.safetensors"):
        path = tmp_path / name
        torch.save(sound(), path) if name == "w.pt" else save_file(sound(), path)
        size = path.stat().st_size
        os.truncate(path, 4_000_000_000)
        assert "almost no content" in message(path)
        os.truncate(path, size)
        monkeypatch.setattr(weights_module, "available_memory", lambda size=size: size - 1)
        assert "larger than the memory" in message(path)
        monkeypatch.undo()
        load(path)


# --- training checkpoints


WRAPPED: dict[str, Any] = {
    "plain": lambda weights: weights,
    "lightning": lambda weights: {"epoch": 3, "state_dict": {f"model.{k}": v for k, v in weights.items()}},
    "of timm": lambda weights: {"state_dict": weights, "state_dict_ema": weights, "arch": "x", "version": 2},
    "ema alone": lambda weights: {"state_dict_ema": weights, "epoch": 1},
    "averaged": lambda weights: {
        "model_ema": {"n_averaged": torch.tensor(4)} | {f"module.{k}": v for k, v in weights.items()}
    },
    "deepspeed": lambda weights: {"module": weights, "global_steps": 5},
    "nested": lambda weights: {
        "model": {"state_dict": weights},
        "optimizer": {"state": {}, "param_groups": []},
    },
    "with an optimizer": lambda weights: {
        "model_state_dict": weights,
        "optimizer": _optimizer().state_dict(),
    },
}


def _optimizer() -> torch.optim.Optimizer:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([parameter])
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("form", WRAPPED)
def test_training_checkpoints_are_unwrapped(form: str, tmp_path: Path) -> None:
    torch.save(WRAPPED[form](sound()), tmp_path / "w.pt")
    assert torch.equal(load(tmp_path / "w.pt")["visual.proj"], torch.ones(4, 4))


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (Namespace(lr=1), "argparse.Namespace"),
        (np.float64(3), "numpy"),
        (np.ones(2), "numpy"),
        (Path("a"), "pathlib"),
    ],
)
def test_objects_in_a_training_checkpoint_are_named(extra: object, name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": sound(), "extra": extra}, tmp_path / "w.pt")
    text = message(tmp_path / "w.pt")
    assert name in text
    assert "save only its state dict" in text


# --- names


PREFIXES = ["model.", "module.", "clip_model.", "clip.", "backbone.", "state_dict.", "net.", "_orig_mod."]
PREFIXES += [
    "model.module.",
    "module.model.clip.",
    "anything.",
    "my_lightning.of.mine.",
    "module._orig_mod.model.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_prefix_that_all_names_have_is_taken_off(prefix: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    content = {f"{prefix}{name}": tensor for name, tensor in sound().items()}
    torch.save(content, path) if suffix == ".pt" else save_file(content, path)
    assert torch.equal(load(path)["visual.proj"], torch.ones(4, 4))


def test_prefixes_of_a_part_of_the_names_are_taken_off() -> None:
    mixed = {
        "module.visual.proj": 1,
        "visual._orig_mod.ln.bias": 2,
        "model.clip.logit_scale": 3,
        "text_projection": 4,
    }
    found: dict[str, Any] = without_prefixes(mixed)  # type: ignore[arg-type]
    assert found == {"visual.proj": 1, "visual.ln.bias": 2, "logit_scale": 3, "text_projection": 4}


@pytest.mark.parametrize("prefix", ["encoder.", "vl_model.", "my_lightning.of.mine."])
def test_any_prefix_of_most_names_is_taken_off_where_a_clip_is_behind_it(prefix: str) -> None:
    names = {f"{prefix}visual.proj", f"{prefix}visual.ln.bias", f"{prefix}logit_scale", "criterion.weight"}
    found = without_prefixes(dict.fromkeys(names, 0))  # type: ignore[arg-type]
    assert set(found) == {"visual.proj", "visual.ln.bias", "logit_scale", "criterion.weight"}
    other: dict[str, Any] = {"blocks.0.a": 1, "blocks.1.a": 2, "head": 3}
    assert without_prefixes(other) == other
    assert without_prefixes({"a": 1, "b": 2}) == {"a": 1, "b": 2}  # type: ignore[arg-type, comparison-overlap]


def test_no_tensor_takes_the_place_of_another() -> None:
    both: dict[str, Any] = {"visual.proj": 1, "ema.visual.proj": 2}
    assert without_prefixes(both) == both
    assert set(without_prefixes({"visual.a": 1, "visual.b": 2})) == {"visual.a", "visual.b"}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["vision_model.encoder.layers.0.mlp.fc1.weight", "text_model.final_layer_norm.bias"],
            "transformers",
        ),
        (
            ["model.vision_model.post_layernorm.bias", "model.text_model.a.b", "model.logit_scale"],
            "transformers",
        ),
        (["visual.proj", "visual.class_embedding"], "image tower alone"),
        (["module.visual.proj", "module.visual.class_embedding"], "image tower alone"),
        (["blocks.0.attn.qkv.weight", "patch_embed.proj.weight", "cls_token"], "image tower alone"),
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], "image tower alone"),
        (["token_embedding.weight", "transformer.bias", "logit_scale"], "text tower alone"),
        (["image_encoder.proj", "prompt_learner.ctx", "logit_scale"], "CoOp"),
        (["base_model.model.visual.proj.lora_A.weight", "visual.proj"], "LoRA"),
        (["backbone.clip.visual.proj", "msm.a.weight", "log_scale"], "zsar trained"),
    ],
)
def test_weights_in_another_layout_are_named(names: list[str], words: str, tmp_path: Path) -> None:
    save_file({name: torch.ones(2) for name in names}, tmp_path / "w.safetensors")
    assert words in message(tmp_path / "w.safetensors")


def test_names_of_weights_are_printed_short_and_without_their_control_characters(tmp_path: Path) -> None:
    torch.save({"a\x1b[2J\n" + "b" * 5000: torch.ones(2), **sound()}, tmp_path / "w.pt")
    message(tmp_path / "w.pt")
    torch.save({"a\x1b[2J\n" + "b" * 5000: 3, **sound()}, tmp_path / "w.pt")
    message(tmp_path / "w.pt")
    torch.save({((("a",) * 50,) * 50,) * 50: 3}, tmp_path / "w.pt")
    message(tmp_path / "w.pt")


def test_openais_sizes_are_taken_for_quickgelu_and_not_for_weights(tmp_path: Path) -> None:
    torch.save(sound() | {"input_resolution": torch.tensor(32)}, tmp_path / "w.pt")
    found: Weights = read_weights(tmp_path / "w.pt")
    assert found.openai
    assert set(found.tensors) == set(NAMES)
