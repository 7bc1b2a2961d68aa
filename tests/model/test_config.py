"""What a model folder's ``config.yaml`` may say: values in range, known towers, regular files, and no connection."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import open_clip
import pytest
import yaml

from tests.tiny_models import VIT
from zsar_cli import yaml_files
from zsar_cli.data.definition import load_definition
from zsar_cli.errors import UsageError
from zsar_cli.files import ASSETS
from zsar_cli.model import factory
from zsar_cli.model.architecture import check_architecture
from zsar_cli.model.hub import load_tokenizer, offline
from zsar_cli.model.load import load_model
from zsar_cli.model.parts import Parts
from zsar_cli.training.recipe import Recipe, load_recipe
from zsar_cli.training.start import start_model

CONFIG = yaml_files.load(ASSETS / "motion-tiny" / "config.yaml")
BOMB = "- &a0 [" + ", ".join("x" * 10) + "]\n"
BOMB += "".join(f"- &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]\n" for n in range(1, 10))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ASSETS / "motion-tiny", tmp_path / "run")
    return tmp_path / "run"


def write(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = deepcopy(CONFIG)
    change(config)
    (folder / "config.yaml").write_text(yaml_files.dump(config), encoding="utf-8")


def message(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_model(str(folder))
    text = str(caught.value)
    assert len(text) < 700
    assert text.isprintable()
    return text


@pytest.mark.parametrize("key", sorted(CONFIG))
def test_anchors_that_unfold_without_end_are_refused_under_every_key(key: str, folder: Path) -> None:
    rest = {k: v for k, v in CONFIG.items() if k != key}
    (folder / "config.yaml").write_text(f"b:\n{BOMB}{key}: *a9\n{yaml_files.dump(rest)}", encoding="utf-8")
    assert "anchor" in message(folder)


WRONG: dict[str, Any] = {
    "frames must be at most": lambda c: c.update(frames=10**9),
    "frames must be a whole number": lambda c: c.update(frames=1.5),
    "frames must be at least 1": lambda c: c.update(frames=0),
    "beta must be a number": lambda c: c.update(beta=float("nan")),
    "beta must be at most": lambda c: c.update(beta=1e300),
    "backbone must be a string": lambda c: c.update(backbone=["a"]),
    "backbone must be one line": lambda c: c.update(backbone="a\x1b[2J"),
    "templates must be at most": lambda c: c.update(templates="x" * 10_000),
    "classes must be a list": lambda c: c.update(classes="abc"),
    "classes.1 must be at most": lambda c: c.update(classes=["a", "b" * 2000]),
    "classes must have at most": lambda c: c.update(classes=["a"] * 100_001),
    "metrics.a must be a number": lambda c: c.update(metrics={"a": {"b": 1}}),
    "metrics must be a map": lambda c: c.update(metrics=[1]),
    "parts.width must be at most": lambda c: c["parts"].update(width=10**7),
    "parts.layers must be at most": lambda c: c["parts"].update(layers=10**9),
    "multiple of heads": lambda c: c["parts"].update(heads=7),
    "unknown field 'depth'": lambda c: c["parts"].update(depth=7),
    "parts is missing": lambda c: c.pop("parts"),
    "preprocess is missing": lambda c: c.pop("preprocess"),
    "preprocess.size": lambda c: c["preprocess"].update(size=[48, 10**9]),
    "preprocess.std.1 must be more than 0": lambda c: c["preprocess"].update(std=[1, 0, 1]),
    "embed_dim must be a whole number": lambda c: c["architecture"].update(embed_dim="many"),
    "vision_cfg.mlp_ratio must be at most": lambda c: c["architecture"]["vision_cfg"].update(mlp_ratio=1e12),
    "vision_cfg.layers must be at most": lambda c: c["architecture"]["vision_cfg"].update(layers=10**9),
    "vision_cfg.image_size must be at most": lambda c: c["architecture"]["vision_cfg"].update(
        image_size=10**6
    ),
    "text_cfg.vocab_size must be at most": lambda c: c["architecture"]["text_cfg"].update(vocab_size=10**12),
    "text_cfg.tokenizer_kwargs": lambda c: c["architecture"]["text_cfg"].update(tokenizer_kwargs=3),
    "unknown field 'bpe_path'": lambda c: c["architecture"]["text_cfg"].update(
        tokenizer_kwargs={"bpe_path": "/dev/zero"}
    ),
    "unknown field 'trust_remote_code'": lambda c: c["architecture"]["text_cfg"].update(
        tokenizer_kwargs={"trust_remote_code": True}
    ),
    "vision_cfg.width must be a whole number": lambda c: c["architecture"]["vision_cfg"].update(width="64"),
    "norm_kwargs.eps must be a number": lambda c: c["architecture"]["vision_cfg"].update(
        norm_kwargs={"eps": "x"}
    ),
    "unknown field 'inplace'": lambda c: c["architecture"]["text_cfg"].update(act_kwargs={"inplace": 3}),
    "cast_dtype must be left out": lambda c: c["architecture"].update(cast_dtype="float16"),
    "timm.list_models": lambda c: c["architecture"]["vision_cfg"].update(timm_model_name="hf-hub:evil/evil"),
    "text tower of one": lambda c: c["architecture"]["text_cfg"].update(hf_model_name="evil/evil"),
    "tokenizer of one": lambda c: c["architecture"]["text_cfg"].update(hf_tokenizer_name="evil/evil"),
}


@pytest.mark.parametrize("words", WRONG)
def test_values_out_of_range_are_said_before_they_are_used(words: str, folder: Path) -> None:
    write(folder, WRONG[words])
    text = message(folder)
    assert words in text
    assert "config.yaml" in text


def test_every_configuration_of_open_clips_own_is_allowed() -> None:
    for name in open_clip.list_models():
        check_architecture(open_clip.get_model_config(name), name)


LARGE: dict[str, Any] = {
    "a wide tower": lambda c: c["architecture"]["vision_cfg"].update(width=65536, layers=1000),
    "a thousand layers": lambda c: c["architecture"]["text_cfg"].update(layers=1000, width=4, heads=1),
    "a broad mlp": lambda c: c["architecture"]["vision_cfg"].update(mlp_ratio=64, width=16384),
    "many patches": lambda c: c["architecture"]["vision_cfg"].update(image_size=4096, patch_size=1),
    "a long context": lambda c: c["architecture"]["text_cfg"].update(context_length=8192),
    "many words": lambda c: c["architecture"]["text_cfg"].update(vocab_size=2_000_000),
    "a giant of timm": lambda c: c["architecture"].update(
        vision_cfg={"timm_model_name": "vit_gigantic_patch14_clip_224", "image_size": 48}
    ),
    "broad modules": lambda c: c["parts"].update(width=65536, heads=1),
    "many queries": lambda c: c["parts"].update(queries=65536, width=65536),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_model_far_larger_than_its_weights_is_refused_before_it_is_allocated(
    kind: str, folder: Path
) -> None:
    write(folder, LARGE[kind])
    assert "far too few" in message(folder)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(architecture=VIT | {"vision_cfg": {"width": 65536, "layers": 1000, "patch_size": 1}}),
        Recipe(architecture=VIT, parts=Parts(width=65536, queries=1000, layers=1000)),
    ],
)
def test_a_model_to_train_that_no_memory_holds_is_refused_before_it_is_allocated(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "available_memory", lambda: 2_000_000_000)
    with pytest.raises(UsageError, match="more memory than there is"):
        start_model(recipe, "cpu")


def test_words_and_numbers_of_yaml_stay_texts_in_classes(folder: Path) -> None:
    names = ["no", "off", "yes", "007", "1.0", "2001-01-01", "1:30", "null-like", "~a"]
    text = yaml_files.dump({k: v for k, v in CONFIG.items() if k not in ("classes", "phrases")})
    (folder / "config.yaml").write_text(text + "classes: [" + ", ".join(names) + "]\n")
    assert load_model(str(folder)).record.classes == names


def test_pipes_and_devices_are_neither_waited_for_nor_read(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (str(tmp_path / "pipe"), "/dev/zero", "/dev/stdin"):
        for key in ("backbone", "templates"):
            write(folder, lambda c, key=key, place=place: c.update({key: place}))
            assert "device or pipe" in message(folder)
        write(folder, lambda c, place=place: c.update(backbone=f"ViT-B-32/{place}", architecture=None))
        assert "device or a pipe" in message(folder)
    for name in ("config.yaml", "model.safetensors"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        os.symlink("/dev/zero", folder / name)
        message(folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        message(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(kept)


def test_a_folder_that_names_itself_as_its_backbone_ends(folder: Path) -> None:
    write(folder, lambda c: c.update(backbone=str(folder), architecture=None))
    assert "holds no model" in message(folder)


@pytest.mark.parametrize("line", ["k{}: 1\n", "k{}: {{a: }}\n", "? k{}\n"])
def test_yaml_of_values_without_end_is_not_parsed(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(line.format(number) for number in range(150_000))
    monkeypatch.setattr(yaml, "compose", None)
    for name in ("config.yaml", "recipe.yaml", "set.yaml"):
        (folder / name).write_text(text)
    assert "far more values" in message(folder)
    for read in (load_recipe, load_definition):
        with pytest.raises(UsageError, match="far more values"):
            read(str(folder / ("recipe.yaml" if read is load_recipe else "set.yaml")))


def test_hostile_files_that_were_reported_are_refused_in_a_line(shared: Path, folder: Path) -> None:
    cases = shared / "cases" / "security"
    if not cases.is_dir():
        pytest.skip("the reported files are not here")
    for name, words in (("m/config.yaml", "anchor"), ("timm_hub.config.yaml", "timm.list_models")):
        shutil.copyfile(cases / name, folder / "config.yaml")
        assert words in message(folder)
    for name, words in (
        ("expand", "more values than it holds"),
        ("memo", "TorchScript"),
        ("ops", "TorchScript"),
    ):
        with pytest.raises(UsageError, match=words):
            load_model(f"ViT-B-32/{cases / name}.pt")
    with pytest.raises(UsageError, match="anchor"):
        load_recipe(str(cases / "r.yaml"))


# --- connections


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Everything that tries to connect; a hub that is there, with every variable that names it."""
    tried: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        tried.append(str(arguments[1:] or arguments))
        raise OSError("refused")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name in ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, address)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket.socket, "connect_ex", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        yield tried


TOWERS: dict[str, Any] = {
    "a hub's tower": {"vision_cfg": {"timm_model_name": "hf-hub:evil/evil", "image_size": 48}},
    "a hub's tower, spelled otherwise": {"vision_cfg": {"timm_model_name": "hf_hub:evil/evil"}},
    "a folder's tower": {"vision_cfg": {"timm_model_name": "local-dir:/tmp"}},
    "a pretrained tower": {"vision_cfg": {"timm_model_name": "test_vit", "timm_model_pretrained": True}},
    "a pretrained tower with a tag": {
        "vision_cfg": {"timm_model_name": "test_vit.r160_in1k", "timm_model_pretrained": True}
    },
    "a text tower": {"text_cfg": {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"}},
    "a pretrained text tower": {"text_cfg": {"hf_model_name": "roberta-base", "hf_model_pretrained": True}},
    "a stranger's text tower": {"text_cfg": {"hf_model_name": "evil/evil"}},
    "a stranger's tokenizer": {"text_cfg": {"hf_tokenizer_name": "evil/evil"}},
    "a tokenizer with options": {
        "text_cfg": {"hf_tokenizer_name": "roberta-base", "tokenizer_kwargs": {"trust_remote_code": True}}
    },
}


@pytest.mark.parametrize("kind", TOWERS)
def test_a_folder_makes_no_connection_whatever_it_names(
    kind: str, folder: Path, connections: list[str]
) -> None:
    def change(config: dict[str, Any]) -> None:
        for tower, settings in TOWERS[kind].items():
            config["architecture"][tower] |= settings

    write(folder, change)
    with contextlib.suppress(UsageError):
        load_model(str(folder)).backbone.encode_text(["a"])
    towers = {name: CONFIG["architecture"][name] | settings for name, settings in TOWERS[kind].items()}
    (folder / "config.yaml").unlink()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG["architecture"] | towers}))
    with pytest.raises(UsageError):
        load_model(str(folder)).backbone.encode_text(["a"])
    assert connections == []


def test_a_tokenizer_of_weights_on_disk_comes_from_this_machine_alone(
    connections: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By what is asked of transformers, which the tests do without."""
    from huggingface_hub import constants

    asked: list[dict[str, Any]] = []

    def from_pretrained(name: str, **options: Any) -> Any:
        asked.append({"name": name, "offline": constants.HF_HUB_OFFLINE, **options})
        return SimpleNamespace()

    transformers = ModuleType("transformers")
    transformers.AutoTokenizer = SimpleNamespace(from_pretrained=from_pretrained)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    model_cfg = {
        "text_cfg": {"hf_tokenizer_name": "roberta-base", "tokenizer_kwargs": {"clean": "canonicalize"}}
    }
    load_tokenizer(None, model_cfg)
    load_tokenizer(f"local-dir:{tmp_path}", model_cfg)
    for found, name in zip(asked, ("roberta-base", str(tmp_path)), strict=True):
        assert (found["name"], found["offline"]) == (name, True)
        assert (found["local_files_only"], found["trust_remote_code"]) == (True, False)
    assert not constants.HF_HUB_OFFLINE
    (tmp_path / "tokenizer.json").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        load_tokenizer(f"local-dir:{tmp_path}", model_cfg)
    assert connections == []


def test_offline_ends_with_its_block() -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with offline():
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE
