"""Damaged labels, templates, lists, embeddings, models and checkpoints: each is read, or refused in a line."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.fuzz import caches
from tests.fuzz.damage import damage_bytes, damage_text, damage_tree
from tests.fuzz.videos import Findings
from zsar_cli.errors import ZsarError

SLOW = 20  # s of computing after which a case counts as a hang; of waiting, ten times that
LONGEST_MESSAGE = 700

CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


class TooSlow(BaseException):
    """Raised by the clock inside whatever is running; no Exception, so that nothing swallows it."""


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Attributes:
        make: writes sound files into a folder.
        use: reads them, and returns what was read in a form that can be compared.
        files: those that are damaged.
        exact: what is read from a file whose bytes were damaged must be what was written, or be refused.
        damage: changes a file in place and says how; by what the file is unless given.
    """

    name: str
    make: Callable[[Path], None]
    use: Callable[[Path], Any]
    files: tuple[str, ...]
    exact: bool = False
    damage: Callable[[Path, random.Random, Path], str] | None = None


# --- damage of a file, by what it is ---------------------------------------------------------------------------


def damage_file(path: Path, rng: random.Random, marker: Path) -> str:
    """Damages a file in place; says how."""
    data = path.read_bytes()
    suffix = path.suffix
    if suffix == ".safetensors" and rng.random() < 0.5:
        return _damage_tensors(path, rng)
    if suffix == ".pt":
        return damage_pickle(path, rng, marker)
    if suffix in (".json", ".yaml") and rng.random() < 0.5:
        tree = json.loads(data) if suffix == ".json" else yaml.safe_load(data)
        kind, tree = damage_tree(tree, rng)
        path.write_text(json.dumps(tree) if suffix == ".json" else yaml.safe_dump(tree, allow_unicode=True))
        return f"tree {kind}"
    if suffix == ".safetensors":
        kind, data = damage_bytes(data, rng)
    else:
        kind, data = damage_text(data, rng, str(marker))
    path.write_bytes(data)
    return f"bytes {kind}" if suffix == ".safetensors" else kind


def _damage_tensors(path: Path, rng: random.Random) -> str:
    """Sound safetensors of something else."""
    tensors = load_file(path)
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = header.get("__metadata__", {})
    name = rng.choice(sorted(tensors))
    kind = rng.choice(
        ("nan", "infinite", "shape", "gone", "extra", "kind", "empty", "huge", "metadata", "renamed")
    )
    tensor = tensors[name]
    if kind in ("nan", "infinite"):
        tensor = tensor.float().clone().reshape(-1)
        if len(tensor):
            tensor[rng.randrange(len(tensor))] = (
                float("nan") if kind == "nan" else rng.choice((1, -1)) * float("inf")
            )
        tensors[name] = tensor.reshape(tensors[name].shape)
    elif kind == "shape":
        tensors[name] = rng.choice(
            (
                tensor.flatten(),
                tensor[None],
                torch.cat([tensor.reshape(-1)] * 2),
                tensor.T if tensor.ndim == 2 else tensor[None, None],
            )
        ).contiguous()
    elif kind == "gone":
        del tensors[name]
    elif kind == "extra":
        tensors[rng.choice(("extra", "", "backbone.clip.extra", "é"))] = torch.zeros(3)
    elif kind == "kind":
        tensors[name] = tensor.to(
            rng.choice((torch.int64, torch.bool, torch.float64, torch.uint8, torch.bfloat16))
        )
    elif kind == "empty":
        tensors[name] = torch.zeros(rng.choice(((0,), (0, 16), (0, 0))))
    elif kind == "huge":
        tensors[name] = torch.full_like(tensor.float(), rng.choice((1e30, -3e38, 1e-40)))
    elif kind == "renamed":
        tensors[name + "x"] = tensors.pop(name)
    elif metadata:
        key = rng.choice(sorted(metadata))
        metadata[key] = rng.choice(
            ("", "[]", "{}", "null", "NaN", '["a"]', "[1, 2, 3]", "\x00", "2", "[" * 3000, '["a", "a", "a"]')
        )
    save_file(tensors, path, metadata or None)
    return f"tensors {kind}"


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path, how: str) -> None:
        self.marker, self.how = marker, how

    def __reduce__(self) -> Any:
        if self.how == "system":
            return os.system, (f"touch '{self.marker}'",)
        if self.how == "eval":
            return eval, (f"open({str(self.marker)!r}, 'w')",)
        if self.how == "open":
            return open, (str(self.marker), "w")
        import subprocess

        return subprocess.call, (["touch", str(self.marker)],)


def damage_pickle(path: Path, rng: random.Random, marker: Path) -> str:
    """A PyTorch file that is damaged, or that carries code in one of the forms that such files have."""
    if rng.random() < 0.4:
        kind, data = damage_bytes(path.read_bytes(), rng)
        path.write_bytes(data)
        return f"bytes {kind}"
    payload = Payload(marker, rng.choice(("system", "eval", "open", "call")))
    tensors = torch.load(path, weights_only=True)
    form = rng.choice(
        ("plain pickle", "among tensors", "old form", "torchscript", "constants", "wrong", "nan")
    )
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"state_dict": payload}, protocol=rng.randrange(6)))
    elif form == "among tensors":
        torch.save({**tensors, "x": payload}, path)
    elif form == "old form":
        torch.save({**tensors, "x": payload}, path, _use_new_zipfile_serialization=False)
    elif form in ("torchscript", "constants"):
        with zipfile.ZipFile(path, "w") as archive:
            evil = pickle.dumps(payload, protocol=2)
            sound = pickle.dumps({}, protocol=2)
            archive.writestr("archive/data.pkl", evil if form == "torchscript" else sound)
            archive.writestr("archive/constants.pkl", sound if form == "torchscript" else evil)
            archive.writestr("archive/version", "3\n")
    elif form == "nan":
        torch.save({**tensors, "logit_scale": torch.tensor(float("nan"))}, path)
    else:
        torch.save(
            rng.choice(([1, 2], {}, {"a": 1}, torch.zeros(3), None, {"state_dict": []}, {1: torch.zeros(2)})),
            path,
        )
    return f"pickle {form}"


# --- what is read ----------------------------------------------------------------------------------------------


def _labels(name: str, text: str) -> Target:
    def use(folder: Path) -> Any:
        from zsar_cli.text.labels import load_labels

        labels = load_labels(str(folder / name))
        assert labels.names
        assert len(labels.names) == len(labels.phrases)
        return labels

    return Target(f"labels {name}", partial(_write, {name: text}), use, (name,))


def _write(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _templates() -> Target:
    text = 'name: own\npositive:\n  - "a video of {}"\n  - "a person {}"\nnegative: ["nobody doing {}", "no {}"]\n'

    def use(folder: Path) -> Any:
        from zsar_cli.text.templates import load_templates

        found = load_templates(str(folder / "t.yaml"))
        assert all(template.count("{}") == 1 for template in (*found.positive, *found.negative))
        return found

    return Target("templates", partial(_write, {"t.yaml": text}), use, ("t.yaml",))


def _definition() -> Target:
    definition = (
        "name: mine\nclasses: names.csv\nroot: .\npage: https://example.org\n"
        "splits:\n  train: train.txt\n"
        "  test:\n    lists: [test.txt]\n    folders: [clips]\n    format: lines\n    fold: 1\n"
        "subsets:\n  base: [test.txt]\n"
    )
    files = {
        "set.yaml": definition,
        "names.csv": "id,name\n0,waving\n1,tai chi\n",
        "test.txt": "clips/waving/a.mp4 0\nclips/tai chi/b c.mp4 1\n",
        "train.txt": "clips/waving/a.mp4 waving\n",
        "clips/waving/a.mp4": "x",
        "clips/tai chi/b c.mp4": "x",
    }
    return Target(
        "definition",
        partial(_write, files),
        partial(_dataset, "set.yaml"),
        ("set.yaml", "names.csv", "test.txt"),
    )


def _dataset(name: str, folder: Path, classes: tuple[str, ...] | None = None) -> Any:
    from zsar_cli.evaluation.protocols import DataSource, describe_data, make_plan

    plan = make_plan(DataSource(str(folder / name), str(folder), None, classes))
    for part in plan.parts:
        with contextlib.suppress(ZsarError):
            part.dataset.check_missing(0.5)
        assert len(part.targets) == len(part.items)
        assert all(-1 <= target < len(part.labels) for target in part.targets)
    return json.dumps(describe_data(plan))


def _listing(name: str, text: str, *others: str) -> Target:
    files = {name: text, **dict.fromkeys(others, "x")}
    use = partial(_dataset, name, classes=("waving", "tai chi"))
    return Target(f"list {name}", partial(_write, files), use, (name,))


def _built_in(data: str, listed: str, text: str, *videos: str) -> Target:
    """A benchmark as it lies on disk, with its own list damaged."""

    def use(folder: Path) -> Any:
        from zsar_cli.data.dataset import load_dataset

        found = load_dataset(data, str(folder))
        return [(item.listed, item.label) for item in found.items]

    return Target(data, partial(_write, {listed: text, **dict.fromkeys(videos, "x")}), use, (listed,))


def _recipe() -> Target:
    text = "model: ViT-B-16/openai\ndata: motion-shapes\nsteps: 5\nlr: 0.001\nflip: true\n"
    text += "parts:\n  width: 32\n  heads: 4\n"

    def use(folder: Path) -> Any:
        from zsar_cli.training.recipe import load_recipe

        return load_recipe(str(folder / "r.yaml"))

    return Target("recipe", partial(_write, {"r.yaml": text}), use, ("r.yaml",))


def _embeddings() -> Target:
    def make(folder: Path) -> None:
        from zsar_cli.text.embeddings import PromptEmbeddings

        rows = torch.nn.functional.normalize(
            torch.randn(3, 3, 16, generator=torch.Generator().manual_seed(0)), dim=-1
        )
        names = ["waving", "tai chi", "running"]
        PromptEmbeddings(names, *rows, "m", "f", "video", "h").save(folder / "p.safetensors")

    def use(folder: Path) -> Any:
        from zsar_cli.text.embeddings import PromptEmbeddings

        found = PromptEmbeddings.load(folder / "p.safetensors")
        assert len(found.labels) == len(set(found.labels)) == len(found.positive)
        return found.labels, _digest({"p": found.positive, "n": found.negative, "b": found.bank})

    return Target("prompt embeddings", make, use, ("p.safetensors",), exact=True)


def _digest(tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {None if tensor is None else tuple(tensor.shape)}".encode())
        if tensor is not None:
            digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tiny_model() -> Any:
    from zsar_cli.model.backbone import Backbone
    from zsar_cli.model.parts import Parts
    from zsar_cli.model.zsar import RecognizerModel, TrainingRecord

    torch.manual_seed(0)
    record = TrainingRecord(
        templates="video", data="ucf101", classes=["waving", "running"], metrics={"top1": 0.5}
    )
    return RecognizerModel(Backbone.from_config(CLIP), Parts(width=16, queries=2, layers=1, heads=2), record)


def _use_model(folder: Path) -> Any:
    from zsar_cli.model.load import load_model

    model = load_model(str(folder))
    if model.preprocess.size[0] <= 512:  # weights of 1e38 overflow, which predict tells in each record
        assert model(torch.zeros(1, 2, 3, *model.preprocess.size)).embedding.shape == (1, 16)
    return _digest(model.state_dict())


def _model_directory() -> Target:
    def make(folder: Path) -> None:
        _tiny_model().save(folder)

    return Target("model directory", make, _use_model, ("config.yaml", "model.safetensors"), exact=True)


def _clip_directory(suffix: str) -> Target:
    weights = f"open_clip_model.{suffix}"

    def make(folder: Path) -> None:
        from zsar_cli.model.backbone import Backbone

        torch.manual_seed(0)
        tensors = {name: t.contiguous() for name, t in Backbone.from_config(CLIP).clip.state_dict().items()}
        save_file(tensors, folder / weights) if suffix == "safetensors" else torch.save(
            tensors, folder / weights
        )
        description = {"model_cfg": CLIP, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
        (folder / "open_clip_config.json").write_text(json.dumps(description))

    return Target(
        f"open_clip directory, {suffix}", make, _use_model, ("open_clip_config.json", weights, weights)
    )


def _checkpoint() -> Target:
    state = "checkpoints/step-00000001"

    def trainer(folder: Path) -> Any:
        from zsar_cli.text.templates import load_templates
        from zsar_cli.training.recipe import Recipe
        from zsar_cli.training.trainer import Trainer

        recipe = Recipe(model="custom", architecture=CLIP, frames=2, batch_size=2)
        return Trainer(
            _tiny_model(),
            recipe,
            ["waving", "running"],
            load_templates("video"),
            lambda step: iter(()),
            3,
            folder,
        )

    def make(folder: Path) -> None:
        running = trainer(folder)
        for parameter in running.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        running.optimizer.step()
        running.progress.step = 1
        running.save_checkpoint()

    def use(folder: Path) -> Any:
        running = trainer(folder)
        assert running.resume()
        running.model.zero_grad()
        for parameter in running.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        running.optimizer.step()
        return running.step, _digest(running.model.state_dict())

    names = ("model.safetensors", "optimizer.safetensors", "state.json", "config.yaml")
    return Target("checkpoint", make, use, tuple(f"{state}/{name}" for name in names), exact=True)


def _records() -> Target:
    line = {"video": "a.mp4", "predictions": [{"label": "waving", "score": 0.9, "yes": 0.5}], "unknown": 0.1}
    lines = [json.dumps({**line, "video": f"{number}.mp4"}) for number in range(4)]

    def use(folder: Path) -> Any:
        from zsar_cli.prediction.record_file import RecordFile

        file = RecordFile(folder / "r.jsonl", resume=True)
        file.close()
        return sorted(file.done)

    return Target("records", partial(_write, {"r.jsonl": "\n".join(lines) + "\n"}), use, ("r.jsonl",))


def _evaluation_records() -> Target:
    """What an earlier run of eval left: a record that is used is one that this evaluation could have written."""
    labels = ("waving", "tai chi")
    lines = [
        {
            "part": "test",
            "item": number,
            "video": f"{number}.mp4",
            "label": labels[number % 2],
            "rank": 0,
            "top": [[labels[number % 2], 0.75], [labels[1 - number % 2], 0.25]],
            "unknown": {"yes": 0.5},
        }
        for number in range(4)
    ]

    def use(folder: Path) -> Any:
        from zsar_cli.data.dataset import Dataset, Item
        from zsar_cli.evaluation.predictions import PredictionsFile, usable
        from zsar_cli.evaluation.protocols import EvaluationPart
        from zsar_cli.evaluation.summary import class_table, detect_unknown, summarise

        items = [Item(f"/{number}.mp4", number % 2, f"{number}.mp4") for number in range(4)]
        part = EvaluationPart("test", Dataset("d", labels, items, "l", 4, "h"), labels, [0, 1, 0, 1])
        file = PredictionsFile(folder, {"weights": "w"})
        file.close()
        found = list(usable(file.done, [part])["test"].values())
        detect_unknown(found, found)
        return summarise(found, labels)["top1"], class_table(found, labels)[0].tolist()

    def make(folder: Path) -> None:
        from zsar_cli.evaluation.predictions import PredictionsFile

        file = PredictionsFile(folder, {"weights": "w"})
        for line in lines:
            file.write(line)
        file.close()

    return Target("evaluation records", make, use, ("predictions.jsonl", "settings.json"))


def _caches() -> list[Target]:
    texts, features = ("text-m.vectors",), (caches.feature_file(),)
    return [
        Target("text cache", caches.make_texts, caches.use_damaged_texts, texts, damage=caches.damage),
        Target(
            "forged text cache", caches.make_texts, caches.use_forged_texts, texts, damage=caches.forge_texts
        ),
        Target(
            "feature cache", caches.make_features, caches.use_damaged_features, features, damage=caches.damage
        ),
        Target(
            "forged feature cache",
            caches.make_features,
            caches.use_forged_features,
            features,
            damage=caches.forge_features,
        ),
    ]


def targets() -> list[Target]:
    """Everything that reads files."""
    kinetics = "label,youtube_id,time_start,time_end,split\n"
    kinetics += "waving,0wR5jVB-WPk,417,427,val\ntai chi,-aNccq2jvUA,5,15,val\n"
    ssv2 = [
        {"id": "74225", "label": "spinning cup", "template": "Spinning [something]", "placeholders": ["cup"]}
    ]
    mixed = [{"filename": "a.mp4", "label": 0, "total_frames": 4}, {"filename": "b c.mp4", "label": 1}]
    return [
        _labels("l.txt", "# actions\nwaving\ntai chi\nplaying the guitar\n"),
        _labels("l.csv", 'id,name\n0,waving\n1,"tai, chi"\n2,running\n'),
        _labels("l.yaml", "waving: a hand moves\ntai chi: [slow moves, 'a person: calm']\nrunning:\n"),
        _labels("l.json", json.dumps({"waving": "a hand", "tai chi": ["slow", "calm"], "running": None})),
        _templates(),
        _definition(),
        _listing("list.txt", "a.mp4 0\nb c.mp4 1\nframes 12 1\n", "a.mp4", "b c.mp4", "frames/1.jpg"),
        _listing("list.csv", "path,label\na.mp4,waving\nb c.mp4,tai chi\n", "a.mp4", "b c.mp4"),
        _listing("list.json", json.dumps(mixed), "a.mp4", "b c.mp4"),
        _listing("k.csv", kinetics, "waving/0wR5jVB-WPk_000417_000427.mp4", "tai_chi/-aNccq2jvUA.mp4"),
        _listing("ssv2.json", json.dumps(ssv2), "74225.webm"),
        _built_in(
            "ucf101",
            "ucfTrainTestlist/testlist01.txt",
            "YoYo/v_YoYo_g01_c01.avi\nBiking/v_Biking_g01_c01.avi\n",
            "UCF-101/YoYo/v_YoYo_g01_c01.avi",
            "UCF-101/Biking/v_Biking_g01_c01.avi",
        ),
        _built_in(
            "hmdb51",
            "splits/clap_test_split1.txt",
            "a_clap_u.avi 2 \nb_clap_u.avi 1 \n",
            "clap/a_clap_u.avi",
            "clap/b_clap_u.avi",
        ),
        _built_in(
            "kinetics400",
            "val.csv",
            kinetics.replace("waving", "yoga"),
            "val/yoga/0wR5jVB-WPk_000417_000427.mp4",
        ),
        _built_in(
            "ssv2",
            "labels/validation.json",
            json.dumps(ssv2),
            "20bn-something-something-v2/74225.webm",
        ),
        _labels("c.txt", "1 waving\n2 tai chi\n"),
        _labels("c.csv", 'id,name\n0,waving\n1,"tai chi"\n'),
        _labels("data.yaml", "train: x\nnc: 2\nnames: {0: waving, 1: tai chi}\n"),
        _labels("german.csv", "sep=;\nid;name\n0;waving\n1;tai chi\n"),
        _labels("m.pbtxt", "item { id: 1 name: 'waving' }\nitem { id: 2 name: 'tai chi' }\n"),
        _labels("r.jsonl", '{"id": 0, "name": "waving"}\n{"id": 1, "name": "tai chi"}\n'),
        _listing(
            "columns.csv",
            "label,n,file,split\nwaving,0,a.mp4,val\ntai chi,1,b c.mp4,val\n",
            "a.mp4",
            "b c.mp4",
        ),
        _listing("crime.txt", "a.mp4 waving 1 2 -1 -1\nb c.mp4 tai chi 3 4 5 6\n", "a.mp4", "b c.mp4"),
        _listing(
            "m.jsonl",
            '{"file_name": "a.mp4", "label": "waving"}\n{"file_name": "b c.mp4", "label": 1}\n',
            "a.mp4",
        ),
        _labels("c.json", json.dumps({"waving": "0", "tai chi": "1"})),
        _recipe(),
        _embeddings(),
        _model_directory(),
        _clip_directory("safetensors"),
        _clip_directory("pt"),
        _checkpoint(),
        _records(),
        *_caches(),
        _evaluation_records(),
    ]


# --- the run ---------------------------------------------------------------------------------------------------


def fuzz_files(folder: Path, count: int, seed: int) -> Findings:
    """``count`` damaged text and tensor files; those that led to a defect stay in ``folder``/kept."""
    marker = folder / "executed"
    found = Findings()
    everything = targets()
    sound: dict[str, Any] = {}
    for target in everything:
        with _fresh(folder / "sound" / target.name, target) as place:
            sound[target.name] = target.use(place)
            shutil.copytree(place, folder / "base" / target.name)
    for number in range(count):
        rng = random.Random(f"{seed}-file-{number}")
        target = everything[number % len(everything)]
        place = folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "base" / target.name, place)
        name = rng.choice(target.files)
        kind = (target.damage or damage_file)(place / name, rng, marker)
        case = f"{target.name}, case {number}, {name}: {kind}"
        before = time.monotonic()
        outcome, wrong = read_case(target, place, sound[target.name], kind)
        found.slowest = max(found.slowest, (time.monotonic() - before, case))
        if marker.exists():
            wrong = "code that the file carried was run"
            marker.unlink()
        found.cases += 1
        found.outcomes[outcome] += 1
        if wrong:
            found.defects.append(f"{case}: {wrong}")
            shutil.rmtree(folder / "kept" / str(number), ignore_errors=True)
            shutil.copytree(folder / "base" / target.name, folder / "kept" / str(number))
            damage = target.damage or damage_file
            damage(folder / "kept" / str(number) / name, _replayed(seed, number, target), marker)
    return found


def _replayed(seed: int, number: int, target: Target) -> random.Random:
    rng = random.Random(f"{seed}-file-{number}")
    rng.choice(target.files)
    return rng


@contextlib.contextmanager
def _fresh(place: Path, target: Target) -> Iterator[Path]:
    place.mkdir(parents=True)
    target.make(place)
    yield place


def read_case(
    target: Target, place: Path, expected: Any, kind: str, slow: int | None = None
) -> tuple[str, str | None]:
    """(how it ended, what is wrong with that)."""
    said = io.StringIO()
    try:
        with _clock(slow or SLOW), contextlib.redirect_stdout(said):
            value = target.use(place)
    except ZsarError as error:
        message = str(error)
        if "\n" in message or not message.strip() or len(message) > LONGEST_MESSAGE + len(str(place)):
            return "refused", f"the message is not a line: {message[:1000]!r}"
        return "refused", None
    except TooSlow:
        return "hung", f"more than {slow or SLOW} s of computing"
    except AssertionError as error:
        return "wrong", f"what was read does not hold together: {error}"
    except Exception as error:
        return "raised", f"{type(error).__name__}: {str(error)[:300]}"
    if said.getvalue():
        return "printed", f"printed {said.getvalue()[:200]!r}"
    if target.exact and kind.startswith("bytes") and value != expected:
        return "wrong", "damaged, and read without a word as something else"
    return "read", None


@contextlib.contextmanager
def _clock(seconds: int) -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise TooSlow

    faulthandler.enable()
    before = {number: signal.signal(number, ring) for number in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_PROF, seconds)  # a busy machine makes nothing a hang
    signal.alarm(10 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
