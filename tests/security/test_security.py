"""What SECURITY.md promises: no file runs code, nothing is written elsewhere, nothing connects anywhere."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.fuzz.damage import PAYLOAD_WORDS
from tests.fuzz.files import Payload, damage_pickle
from tests.sources import PACKAGE, trees
from tests.video_files import write_video
from zsar_cli.errors import UsageError, ZsarError

# --- no file runs code ----------------------------------------------------------------------------------------


def test_payloads_do_run_where_nobody_is_careful(tmp_path: Path) -> None:
    """Else the tests below could not fail."""
    import yaml

    for how in ("system", "eval", "open", "call"):
        marker = tmp_path / how
        pickle.loads(pickle.dumps(Payload(marker, how)))
        assert marker.exists()
    for number, word in enumerate(PAYLOAD_WORDS):
        marker = tmp_path / str(number)
        yaml.unsafe_load(word.format(marker=marker))
        assert marker.exists()


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors", ".weights"])
def test_weights_with_code_in_them_are_refused_unread(tmp_path: Path, suffix: str) -> None:
    from zsar_cli.model.weights import read_weights

    marker, refused = tmp_path / "executed", 0
    for seed in range(60):
        path = tmp_path / "w.pt"
        torch.save({"logit_scale": torch.tensor(1.0)}, path)
        kind = damage_pickle(path, random.Random(seed), marker)
        path = path.rename(tmp_path / f"w{suffix}")
        try:
            read_weights(path)
        except UsageError:
            refused += "pickle" in kind
        assert not marker.exists(), kind
    assert refused > 20


READERS = {
    "labels.yaml": ("zsar_cli.text.labels", "load_labels"),
    "templates.yaml": ("zsar_cli.text.templates", "load_templates"),
    "recipe.yaml": ("zsar_cli.training.recipe", "load_recipe"),
    "set.yaml": ("zsar_cli.data.definition", "load_definition"),
    "config.yaml": ("zsar_cli.model.config", "read_description"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("word", PAYLOAD_WORDS)
def test_yaml_makes_no_objects(tmp_path: Path, name: str, word: str) -> None:
    marker = tmp_path / "executed"
    module, function = READERS[name]
    read = getattr(importlib.import_module(module), function)
    for text in ("name: {}\n", "positive: [{}]\nname: x\n", "- {}\n", "backbone: {}\nparts: {{}}\n", "{}\n"):
        (tmp_path / name).write_text(text.replace("{}", word.format(marker=marker)).replace("{{}}", "{}"))
        path = tmp_path / name
        with contextlib.suppress(ZsarError):
            read(path if name == "config.yaml" else str(path))
        assert not marker.exists()


def test_nothing_in_the_package_unpickles_a_file_or_evaluates_text() -> None:
    """By its source: what unpickles is the pipe to zsar's own decoding processes, and the next stage under Ray."""
    found = set()
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                name.endswith(("pickle.load", "pickle.loads", "unsafe_load", "full_load", "os.system"))
                or name in ("eval", "exec", "compile", "__import__")
                or (
                    name in ("yaml.compose", "yaml.parse", "yaml.load")
                    and not options.get("Loader", "").endswith(("SafeLoader", "BaseLoader"))
                )
                or (name.endswith("torch.load") and options.get("weights_only") != "True")
                or (name.endswith(("np.load", "numpy.load")) and options.get("allow_pickle") != "False")
                or "gather_object" in name
                or "broadcast_object" in name
                or options.get("shell") == "True"
                or options.get("trust_remote_code") == "True"
            ):
                found.add((path.relative_to(PACKAGE).as_posix(), name))
    assert found == {("video/worker.py", "pickle.loads"), ("cluster/stages.py", "pickle.loads")}


def test_the_package_opens_no_connections_of_its_own() -> None:
    """But for published checkpoints, from the addresses in ``assets/families.yaml``, and the time-outs of fsspec."""
    modules = {"socket", "urllib", "http", "requests", "httpx", "ftplib", "smtplib", "aiohttp", "ssl"}
    for path, tree in trees().items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            connecting = {name.split(".")[0] for name in names if name != "urllib.parse"}
            if path.as_posix().endswith("zsar_cli/model/published/files.py"):
                connecting -= {"urllib"}
            if path.as_posix().endswith("zsar_cli/video/storage.py"):
                connecting -= {"aiohttp"}
            assert not connecting & modules, path


# --- nothing is written elsewhere, nothing connects ------------------------------------------------------------

COMMANDS = """
import socket, sys
def refuse(*arguments, **options):
    raise AssertionError("something connects: %r" % (arguments[1:],))
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from zsar_cli.cli.app import main
for command in {commands!r}:
    try:
        main(command)
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""


def test_commands_write_what_was_named_and_connect_nowhere(tmp_path: Path, tiny_clip_dir: Path) -> None:
    places = {name: tmp_path / name for name in ("home", "here", "scratch", "named", "videos")}
    for place in places.values():
        place.mkdir()
    (places["videos"] / "waving").mkdir()
    (places["videos"] / "running").mkdir()
    write_video(places["videos"] / "running" / "b.mp4", 8)
    video = write_video(places["videos"] / "waving" / "a.mp4", 8)
    named, model = places["named"], ["--model", str(tiny_clip_dir), "--label", "a", "--label", "b"]
    data = ["--data", str(places["videos"]), "--workers", "0", "--frames", "2"]
    small = ["--batch-size", "2", "--parts-width", "16", "--parts-queries", "2", "--parts-layers", "1"]
    train = ["train", "--config", "modules", "--steps", "2", *small, "--parts-heads", "2", *data]
    commands = [
        ["predict", str(video), *model, "--output", str(named / "out.jsonl")],
        ["embed-prompts", *model, "--output", str(named / "p.safetensors")],
        ["predict", str(video), "--model", str(tiny_clip_dir), "--prompts", str(named / "p.safetensors")],
        [*train, "--model", str(tiny_clip_dir), "--output", str(named / "run")],
        ["eval", *data, "--model", str(named / "run"), "--output", str(named / "eval")],
    ]
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("ZSAR", "XDG", "HF"))
    }
    environment |= {"HOME": str(places["home"]), "TMPDIR": str(places["scratch"])}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS.format(commands=commands)],
        capture_output=True,
        text=True,
        cwd=places["here"],
        env=environment,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = {
        name: sorted(p.name for p in place.rglob("*") if p.is_file()) for name, place in places.items()
    }
    assert sorted(p.name for p in named.iterdir()) == ["eval", "out.jsonl", "p.safetensors", "run"]
    assert written["videos"] == ["a.mp4", "b.mp4"]
    assert written["here"] == []
    assert written["scratch"] == []
    home = [p.relative_to(places["home"]) for p in places["home"].rglob("*") if p.is_file()]
    own = [path for path in home if path.parts[1] != "matplotlib"]
    assert {path.parts[:2] for path in own} == {(".cache", "zsar")}
    assert all(path.name.startswith("text-") for path in own)
