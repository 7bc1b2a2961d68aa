"""``zsar embed-prompts --onnx``: a folder that names what happens in videos without torch and without zsar."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import onnx
import onnxruntime
import torch
from onnx.external_data_helper import set_external_data
from torch import Tensor

from zsar_cli import __version__
from zsar_cli.errors import UsageError
from zsar_cli.export.graph import MOST_BYTES, OUTPUTS, Shape, build, other_name, text_of
from zsar_cli.files import ASIDE, ASSETS, atomic_write, read_text
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.outputs import Lock, refuse_taken_inside
from zsar_cli.text.embeddings import PromptEmbeddings
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import resize_and_crop

NAMES = (
    "run.py",
    "labels.json",
    "README.md",
    "labels.npz",
    "video.onnx.data",
    "video.onnx",
)  # the last comes last
CLOSE = 1e-4  # to zsar's own answers, in fp32
CHOOSE = {  # of run.py, by the way of sampling: view_indices in zsar_cli/video/sampling.py, for one view
    "segments": "return (2 * i + 1) * count // (2 * len(i))  # the middle of each of as many equal parts",
    "ticks": "return np.floor(count / len(i) * i).astype(int)  # from the first on, evenly",
    "spans": (
        "length = max(len(i) * 16 / 30 * rate, 1.0)  # 16 frames apart at 30 a second, in the middle\n"
        "start = max(count - length, 0.0) // 2\n"
        "chosen = np.floor(np.linspace(start, start + length - 1, len(i)))\n"
        "return np.clip(chosen, 0, count - 1).astype(int)"
    ),
    "steps": "return np.minimum(i * max(count // len(i), 1), count - 1)  # from the first on, evenly",
    "ends": "return i * (count - 1) // max(len(i) - 1, 1)  # from the first to the last, evenly",
}
WINDOW = (
    "length = min(count, max(round({seconds!r} * rate), 1))  # the {seconds:g} seconds in the middle\n"
    "return (count - length) // 2 + (2 * i + 1) * length // (2 * len(i))"
)


@dataclass(frozen=True)
class ExportOptions:
    """What is asked of an export.

    Attributes:
        precision: ``fp32`` or ``int8``.
        frames: fix the number of frames; None leaves it free where the model allows that.
        labels_as_input: leave the embeddings of the labels out of the graph.
        min_confidence: the least ``1 - unknown`` of an answer; None: run.py gives none.
    """

    precision: str = "fp32"
    frames: int | None = None
    labels_as_input: bool = False
    min_confidence: float | None = None


@dataclass(frozen=True)
class Exported:
    """What was written. ``difference``: the largest of an output from zsar's own, on random frames."""

    names: list[str]
    free_frames: bool
    difference: float


def export_folder(
    model: RecognizerModel,
    embeddings: PromptEmbeddings,
    folder: Path,
    options: ExportOptions | None = None,
    *,
    licence: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write ``video.onnx``, ``labels.json``, ``README.md`` and ``run.py``: all of them or none.

    Args:
        model: in fp32, on the CPU.
        embeddings: of the labels, made with this model.

    Raises:
        UsageError: files of these names are there, or the model cannot be exported as asked.
    """
    options = options or ExportOptions()
    check_exportable(model, options)
    check_folder(folder, overwrite=overwrite)
    parent = folder.resolve().parent
    with Lock(folder):
        aside = Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.name}.", suffix=ASIDE))
        try:
            exported = _write(model, embeddings, aside, options, licence)
            refuse_taken_inside(folder, NAMES, overwrite=overwrite, option="--onnx")
            folder.mkdir(exist_ok=True)
            (folder / NAMES[-1]).unlink(
                missing_ok=True
            )  # the old graph goes first, and the new one comes last
            for name in NAMES:
                if (aside / name).exists():
                    os.replace(aside / name, folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be written: {(error.strerror or str(error)).lower()}."
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return exported


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise UsageError where the files of an export would replace something, or cannot be written."""
    refuse_taken_inside(folder, NAMES, overwrite=overwrite, option="--onnx")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder with --onnx.")
    parent = folder.resolve().parent
    if not parent.is_dir():
        raise UsageError(f"{folder} cannot be written: the folder {parent} does not exist.")


def check_exportable(model: RecognizerModel, options: ExportOptions) -> None:
    """Raise UsageError where the model has no graph of the kind that is asked for."""
    if options.precision == "int8" and not model.backbone.takes_int8:
        raise UsageError(f"The visual tower of {model.name} has no int8; use --precision fp32.")
    if options.labels_as_input and model.backbone.reads_one_text:
        raise UsageError(
            f"{model.name} reads each label in the light of a video, so its labels cannot be an input; leave out "
            "--labels-as-input."
        )
    fixed = None if model.backbone.family is None else model.backbone.family.frames
    if options.frames is not None and fixed not in (None, options.frames):
        raise UsageError(f"{model.name} sees {fixed} frames of a clip; use --frames {fixed}.")


def save_npz(model: RecognizerModel, embeddings: PromptEmbeddings, path: Path) -> None:
    """Write the embeddings of labels as arrays, the inputs of a graph that was exported with ``labels_as_input``."""
    arrays = {name: tensor.numpy() for name, tensor in text_of(model, embeddings).items()}
    about = {"labels": np.asarray(embeddings.labels), "fingerprint": np.asarray(model.fingerprint())}
    with atomic_write(path) as aside, open(aside, "wb") as file:
        np.savez(file, **about, **arrays)  # type: ignore[arg-type]


def _write(
    model: RecognizerModel,
    embeddings: PromptEmbeddings,
    folder: Path,
    options: ExportOptions,
    licence: str | None,
) -> Exported:
    text = text_of(model, embeddings)
    frames = options.frames or model.frames
    about = {
        "labels": embeddings.labels,
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "templates": embeddings.templates,
        "precision": options.precision,
        "frames": frames,
        "min_confidence": options.min_confidence,
        "zsar": __version__,
    }
    shape, difference = _write_graph(model, text, folder / "video.onnx", options, about, licence)
    if options.labels_as_input:
        save_npz(model, embeddings, folder / "labels.npz")
    content = json.dumps(about, ensure_ascii=False, indent=1)
    (folder / "labels.json").write_text(content + "\n", encoding="utf-8")
    values = {
        "about": about,
        "choose": _choose(model.choose(frames, 1)),
        "inputs": repr(tuple(text)),
        "labels_as_input": options.labels_as_input,
        "fixed": shape.frames is not None,
        "width": text["positive"].shape[1],
        "other": other_name(model),
        "preprocess": model.preprocess,
        "difference": difference,
        "windowed": model.clip_seconds is not None,
        "external": (folder / "video.onnx.data").exists(),
        "licence": licence,
    }
    for name in ("run.py", "README.md"):
        (folder / name).write_text(_rendered(f"{name}.j2", values), encoding="utf-8")
    return Exported([name for name in NAMES if (folder / name).exists()], shape.frames is None, difference)


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(read_text(ASSETS / "onnx" / template)).render(values)


def _choose(sampling: Sampling) -> str:
    """Write how run.py chooses frames, indented."""
    code = CHOOSE[sampling.way]
    if sampling.way == "segments" and sampling.seconds is not None:
        code = WINDOW.format(seconds=sampling.seconds)
    return "\n".join(f"    {line}" for line in code.splitlines())


def _write_graph(
    model: RecognizerModel,
    text: Mapping[str, Tensor],
    path: Path,
    options: ExportOptions,
    about: Mapping[str, Any],
    licence: str | None,
) -> tuple[Shape, float]:
    """Write the graph, with a free number of frames where it then answers as the model does; check it.

    Returns:
        What is free of it, and the largest difference of its outputs from the model's.
    """
    family = model.backbone.family
    fixed = options.frames or (model.frames if family is not None and family.across_frames else None)
    shapes = [Shape(fixed, options.labels_as_input)]
    if fixed is None:
        shapes.append(Shape(model.frames, options.labels_as_input))
    for shape in shapes:
        graph = build(model, text, shape)
        _save(graph, path, about, licence)
        difference = _difference(model, text, path, shape)
        if difference <= CLOSE:
            break
    else:
        raise UsageError(f"{model.name} cannot be exported: its graph does not answer as the model does.")
    if options.precision == "int8":
        _save(build(model, text, shape, "int8"), path, about, licence)
        difference = _difference(model, text, path, shape)
    return shape, difference


def _save(graph: onnx.ModelProto, path: Path, about: Mapping[str, Any], licence: str | None) -> None:
    """Write and check a graph; with its weights in a file beside it where one cannot hold them."""
    graph.producer_name, graph.producer_version = "zsar", __version__
    told = {key: str(about[key]) for key in ("model", "fingerprint", "templates", "precision", "frames")}
    onnx.helper.set_model_props(graph, told | ({"licence": licence} if licence else {}))
    beside = path.with_name(path.name + ".data")
    beside.unlink(missing_ok=True)
    if graph.ByteSize() > MOST_BYTES:
        with open(beside, "wb") as file:
            for tensor in graph.graph.initializer:
                if len(tensor.raw_data) < 1024:
                    continue
                file.write(bytes(-file.tell() % 4096))
                start = file.tell()
                file.write(tensor.raw_data)
                set_external_data(tensor, beside.name, start, file.tell() - start)
                tensor.ClearField("raw_data")
    path.write_bytes(graph.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def _difference(model: RecognizerModel, text: Mapping[str, Tensor], path: Path, shape: Shape) -> float:
    """Run the graph on random frames, and find the largest difference of an output from the model's own."""
    session = session_of(path)
    rng = np.random.default_rng(0)
    count, (high, wide) = shape.frames or model.frames, model.preprocess.size
    cases = [(count, high + 13, 2 * wide + 7)]
    if shape.frames is None:
        cases.append((count + 1, 2 * high + 5, wide - 3))
    worst = 0.0
    for frames, height, width in cases:
        clip = rng.integers(0, 256, (frames, max(height, 1), max(width, 1), 3), dtype=np.uint8)
        feed = {"frames": clip[None]}
        if shape.labels_as_input:
            feed |= {name: tensor.numpy() for name, tensor in text.items()}
        try:
            found = session.run(list(OUTPUTS), feed)
        except Exception:  # onnxruntime's are of many kinds: the graph has no place for so many frames
            return float("inf")
        expected = _expected(model, text, clip)
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)))
    return worst


def session_of(path: Path) -> Any:
    """Open a graph in ONNX Runtime on the CPU."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what fails is an exception as well
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def _expected(model: RecognizerModel, text: Mapping[str, Tensor], clip: np.ndarray) -> list[np.ndarray]:
    pixels = torch.from_numpy(resize_and_crop(clip, model.preprocess))[None]
    with torch.inference_mode():
        video = model(model.backbone.normalise(pixels)).embedding
        found = model.score(model.join_views(video[:, None]), **text)
    return [tensor.numpy() for tensor in (found.score, found.yes, found.unknown)]
