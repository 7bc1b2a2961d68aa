"""Model folders, recipes, data sets, templates and weights that were made to do harm, by a grammar and by seed."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from yaml import SafeDumper as Dumper

from tests import hostile_weights as pickles
from tests.fuzz.damage import damage_bytes
from tests.fuzz.files import Target, read_case
from tests.fuzz.videos import Findings
from zsar_cli.files import ASSETS

SLOW = 5  # s of computing after which a case counts as a hang
SMALL = ASSETS / "motion-tiny"
NUMBERS = (
    *(
        "0",
        "-1",
        "1",
        "7",
        "48",
        "1e9",
        "1000000000",
        "1e400",
        "-.inf",
        ".nan",
        "0x10",
        "0o17",
        "017",
        "1_000",
    ),
    *("1.5", "1e-4", "9" * 30, "9" * 5000, "1e", ".", "+", "65536", "4096", "2147483648", "1:30", "true"),
    str(2**64),
)
WORDS = (
    *(
        "no",
        "off",
        "~",
        "null",
        "''",
        "2001-01-01",
        "auto",
        "full",
        "learned",
        "motion-tiny",
        ".",
        "../..",
        "/",
    ),
    *("hf-hub:evil/evil", "hf_hub:evil/evil", "local-dir:/tmp", "evil/evil", "roberta-base", "test_vit"),
    *("vit_giant_patch14_224", "ViT-B-16/openai", "/dev/zero", "/dev/stdin", "{pipe}", "{loop}", "~nobody/x"),
    *("http://127.0.0.1:1/x", "file:///etc/passwd", '"\\0"', '"\\e[2J"', '"\\u202e"', "x" * 5000, "é" * 300),
    *("'{}'", "'{} {}'", "!!binary x", "!!python/none x", "!x y", "!!set {a}", "!!omap []", "|\n  a\n  b"),
    *("'a\n\n  b'", "&a [*a]", "*nobody", "<<", "!!timestamp 2001-99-99", "@", "`"),
)
KEYS = (
    *(
        "frames",
        "steps",
        "lr",
        "model",
        "data",
        "templates",
        "tune",
        "parts",
        "architecture",
        "backbone",
        "beta",
    ),
    *(
        "metrics",
        "recipe",
        "preprocess",
        "size",
        "mean",
        "std",
        "width",
        "layers",
        "heads",
        "queries",
        "negatives",
    ),
    *("vision_cfg", "text_cfg", "embed_dim", "image_size", "patch_size", "mlp_ratio", "timm_model_name"),
    *(
        "timm_model_pretrained",
        "timm_drop_path",
        "timm_pool",
        "hf_model_name",
        "hf_tokenizer_name",
        "bpe_path",
    ),
    *("context_length", "vocab_size", "head_width", "act_kwargs", "norm_kwargs", "eps", "pool_type"),
    *("tokenizer_kwargs", "init_logit_scale", "name", "positive", "negative", "splits", "subsets", "root"),
    *("classes", "lists", "folders", "fold", "format", "<<", "=", "odd"),
)
INNER = ("number", "word")
OUTER = (*INNER, *INNER, "list", "map", "bomb", "deep")


def value(rng: random.Random, depth: int = 0) -> str:
    """A value in YAML's flow style, out of the grammar."""
    kind = rng.choice(OUTER if depth < 3 else INNER)
    if kind == "number":
        return rng.choice(NUMBERS)
    if kind == "word":
        word = rng.choice(WORDS)
        return word if depth == 0 or "\n" not in word else "x"
    if kind == "list":
        count = rng.choice((0, 1, 2, 3, 40 if depth == 2 else 4))
        return "[" + ", ".join(value(rng, depth + 1) for _ in range(count)) + "]"
    if kind == "map":
        pairs = (f"{rng.choice(KEYS)}: {value(rng, depth + 1)}" for _ in range(rng.choice((0, 1, 2, 5))))
        return "{" + ", ".join(pairs) + "}"
    if kind == "deep":
        count = rng.choice((20, 40, 2000, 100_000 if depth == 0 else 100))
        return rng.choice(("[" * count + "]" * count, "{a: " * count + "1" + "}" * count, "[" * count))
    name = f"b{rng.randrange(10**9)}"
    levels = [f"&{name}_0 [x{', x' * rng.randrange(1, 12)}]"]
    for number in range(1, rng.choice((2, 5, 12, 60))):
        below = ", ".join([f"*{name}_{number - 1}"] * rng.choice((1, 2, 10)))
        levels.append(f"&{name}_{number} [{below}]")
    return "[" + ", ".join(levels) + "]"


def write_yaml(sound: dict[str, Any], path: Path, rng: random.Random) -> str:
    """A sound YAML map with some values from the grammar; or nothing but those."""
    tree, lines = sound, []
    changed: list[tuple[str, str]] = []
    wanted = rng.sample(sorted(tree), min(len(tree), rng.choice((0, 1, 1, 2)))) + rng.sample(
        KEYS, rng.choice((0, 0, 1))
    )
    for key, inner in tree.items():
        if key not in wanted:
            lines.append(yaml.dump({key: _changed(inner, rng, changed)}, Dumper=Dumper, sort_keys=False))
    for key in wanted:
        lines.append(f"{key}: {value(rng)}\n")
    text = (
        "".join(lines)
        .replace("{pipe}", str(path.parent / "pipe"))
        .replace("{loop}", str(path.parent / "loop"))
    )
    for place, new in changed:
        text = text.replace(place, new)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return f"{', '.join(wanted) or 'inside'}"


def _changed(tree: Any, rng: random.Random, changed: list[tuple[str, str]]) -> Any:
    """The tree with a mark in the place of a value here and there, for which the grammar's text is put in later."""
    if isinstance(tree, dict):
        return {key: _changed(inner, rng, changed) for key, inner in tree.items()}
    if isinstance(tree, list) or rng.random() > 0.03:
        return tree
    mark = f"MARK{len(changed)}MARK"
    changed.append((mark, value(rng, 1)))
    return mark


def write_json(path: Path, rng: random.Random) -> str:
    """An ``open_clip_config.json`` with values of the grammar."""
    content = {
        "model_cfg": deepcopy(ARCHITECTURE),
        "preprocess_cfg": {},
    }
    tower: Any = rng.choice(
        (content, content["model_cfg"], content["model_cfg"]["vision_cfg"], content["model_cfg"]["text_cfg"])
    )
    key = rng.choice((*KEYS, *tower))
    text = value(rng, 1)
    try:
        tower[key] = "x" if "&" in text else yaml.safe_load(text)  # JSON has no anchors
    except (yaml.YAMLError, ValueError, RecursionError):
        tower[key] = "x"
    path.write_text(json.dumps(content, default=str))
    return key


# --- weights


STORAGES = ("FloatStorage", "HalfStorage", "BoolStorage", "QInt8Storage", "XStorage")
REBUILD = (
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v2",
    "_rebuild_tensor",
    "_rebuild_qtensor",
    "_rebuild_tensor_v3",
)
CALLED = (
    *("collections OrderedDict", "torch Size", "torch device", "__builtin__ set", "__builtin__ bytearray"),
    *("torch FloatTensor", "torch._utils _rebuild_parameter", "os system", "torch.storage UntypedStorage"),
    *("torch._utils _rebuild_sparse_tensor", "_codecs encode", "torch.serialization _get_layout"),
)
ODD_OPERATIONS = (b"h\x00", b"r\xff\xff\xff\x7f", b"Nq\x00", b"]" * 1000, b"\x85", b"0", b"t", b"b", b"Q")
LEAVES = (b"N", b"\x88", b"K\x05", pickles.text("logit_scale"), b"G" + bytes(8), b")", b"}")


def _size(rng: random.Random) -> int:
    return rng.choice((0, 1, 4, 16, 17, 10**6, 10**10, 2**62, -1, -(2**62)))


def operations(rng: random.Random, depth: int = 0) -> bytes:
    """Operations of a pickle that leave one value, of the kinds that weights are made with."""
    nested = ("leaf", "leaf", "tensor", "tensor", "call", "list", "dict", "tuples", "reference")
    kind = rng.choice(nested if depth < 4 else ("leaf",))
    if kind == "tensor":
        length = rng.choice((0, 1, 1, 2, 70))
        size, stride = (
            b"(" + b"".join(pickles.whole(_size(rng)) for _ in range(n)) + b"t"
            for n in (length, rng.choice((length, length, length + 1)))
        )
        made = pickles.storage(_size(rng), rng.choice(STORAGES))
        arguments = (made, pickles.whole(_size(rng)), size, stride, b"\x89", b"N")
        return pickles.called(f"torch._utils {rng.choice(REBUILD)}", *arguments)
    if kind == "call":
        return pickles.called(
            rng.choice(CALLED), *(operations(rng, depth + 1) for _ in range(rng.randrange(3)))
        )
    if kind == "list":
        return b"](" + b"".join(operations(rng, depth + 1) for _ in range(rng.randrange(4))) + b"e"
    if kind == "dict":
        pairs = (operations(rng, 4) + operations(rng, depth + 1) for _ in range(rng.randrange(4)))
        return b"}(" + b"".join(pairs) + b"u"
    if kind == "tuples":
        return pickles.tuples(rng.choice((3, 20, 100, 250)), rng.choice((1, 2, 3)))
    if kind == "reference":
        return rng.choice(ODD_OPERATIONS)
    return rng.choice((*LEAVES, pickles.whole(_size(rng))))


def write_weights(path: Path, rng: random.Random) -> str:
    """Weights of one of the forms that there are, sound but for something that was made to do harm."""
    kind = rng.choice(("operations", "operations", "entry", "old form", "asking", "odd", "bytes", "header"))
    compression = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    )
    if kind == "operations":
        pickles.archive(path, operations(rng), compression)
    elif kind == "entry":
        pickles.archive(path, pickles.entry(operations(rng)), compression)
    elif kind == "old form":
        pickles.legacy(path, pickles.entry(operations(rng)), rng.randbytes(rng.choice((0, 8, 72, 1000))))
    elif kind == "asking":
        kind = rng.choice(sorted(pickles.ASKING))
        pickles.ASKING[kind](path)
    elif kind == "header":
        name = rng.choice(("t", "a" * 500, "é", "\\u0000", ""))
        path.write_bytes(pickles.header(rng.choice((0, 1, 100, 25_000)), name) + bytes(rng.choice((0, 8))))
    else:
        tensors: dict[str, Any] = {"logit_scale": torch.ones(())}
        if kind == "odd":
            kind = f"odd {(name := rng.choice(sorted(pickles.ODD)))}"
            tensors["visual.proj"] = pickles.ODD[name][0](torch.ones(4, 4))
        torch.save(tensors, path, _use_new_zipfile_serialization=rng.random() < 0.7)
        if kind == "bytes":
            kind, data = damage_bytes(path.read_bytes(), rng)
            path.write_bytes(data)
    return kind


# --- what is read


def _use_folder(folder: Path) -> Any:
    from zsar_cli.model.load import load_model

    model = load_model(str(folder))
    assert max(model.preprocess.size) <= 4096
    model.backbone.encode_text(["a"])
    return str(model.record)[:100]


def _use_weights(folder: Path) -> Any:
    from zsar_cli.model.weights import read_weights

    tensors = read_weights(folder / "w.pt").tensors
    assert (
        sum(t.numel() * t.element_size() for t in tensors.values())
        <= 4 * (folder / "w.pt").stat().st_size + 10**6
    )


def _use(module: str, function: str, name: str) -> Callable[[Path], Any]:
    import importlib

    read = getattr(importlib.import_module(module), function)
    return lambda folder: read(str(folder / name))


CONFIG = (SMALL / "config.yaml").read_text(encoding="utf-8")
ARCHITECTURE = yaml.safe_load(CONFIG)["architecture"]
RECIPE = "model: ViT-B-16/openai\ndata: motion-shapes\nsteps: 5\nlr: 0.001\nparts: {width: 32, heads: 4}\n"
DEFINITION = "name: mine\nclasses: [a, b]\nroot: .\nsplits: {test: {lists: [l.txt], fold: 1}}\n"
DEFINITION += "subsets: {base: [l.txt]}\n"
TEMPLATES = "name: own\npositive: ['a {}', '{}']\nnegative: ['no {}']\n"


def _kinds() -> dict[str, tuple[str, Callable[[Path, random.Random], str], Callable[[Path], Any]]]:
    """Name, the file that is written, how, and how it is read."""
    config, recipe, definition, templates = map(yaml.safe_load, (CONFIG, RECIPE, DEFINITION, TEMPLATES))
    return {
        "config.yaml": ("config.yaml", lambda path, rng: write_yaml(config, path, rng), _use_folder),
        "open_clip_config.json": ("open_clip_config.json", write_json, _use_folder),
        "weights": ("w.pt", write_weights, _use_weights),
        "recipe": (
            "r.yaml",
            lambda path, rng: write_yaml(recipe, path, rng),
            _use("zsar_cli.training.recipe", "load_recipe", "r.yaml"),
        ),
        "data set": (
            "d.yaml",
            lambda path, rng: write_yaml(definition, path, rng),
            _use("zsar_cli.data.definition", "load_definition", "d.yaml"),
        ),
        "templates": (
            "t.yaml",
            lambda path, rng: write_yaml(templates, path, rng),
            _use("zsar_cli.text.templates", "load_templates", "t.yaml"),
        ),
    }


@contextmanager
def no_connections(tried: list[str]) -> Iterator[None]:
    """Every attempt to connect is refused and noted."""

    def refuse(*arguments: Any, **_: Any) -> Any:
        tried.append(str(arguments[1:] or arguments)[:200])
        raise OSError("refused")

    names = ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo"))
    before = [(owner, name, getattr(owner, name)) for owner, name in names]
    for owner, name in names:
        setattr(owner, name, refuse)
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def fuzz_models(folder: Path, count: int, seed: int) -> Findings:
    """``count`` files of the grammar; those that led to a defect stay in ``folder``/kept."""
    found = Findings()
    kinds = _kinds()
    tried: list[str] = []
    for number in range(count):
        rng = random.Random(f"{seed}-model-{number}")
        kind = sorted(kinds)[number % len(kinds)]
        name, write, use = kinds[kind]
        place = folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        os.mkfifo(place / "pipe")
        (place / "loop").symlink_to("loop")
        if name in ("config.yaml", "open_clip_config.json"):
            (place / "model.safetensors").symlink_to(SMALL / "model.safetensors")
        case = f"{kind}, case {number}: {write(place / name, rng)}"
        before = time.monotonic()
        target = Target(kind, lambda folder: None, use, (name,))
        with no_connections(tried):
            outcome, wrong = read_case(target, place, None, "grammar", SLOW)
        found.slowest = max(found.slowest, (time.monotonic() - before, case))
        if tried:
            wrong = f"it connects: {tried.pop()}"
            tried.clear()
        found.cases += 1
        found.outcomes[outcome] += 1
        if wrong:
            found.defects.append(f"{case}: {wrong}")
            kept = folder / "kept" / str(number)
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(place / name, kept / name)
    return found
