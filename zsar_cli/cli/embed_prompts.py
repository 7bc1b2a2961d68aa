"""``zsar embed-prompts``: compute prompt embeddings once, for many runs of ``zsar predict``, or for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from zsar_cli import checks
from zsar_cli.cli.options import (
    BackboneOption,
    DeviceOption,
    LabelOption,
    LabelsOption,
    ModelOption,
    OverwriteOption,
    PrecisionOption,
    TemplatesOption,
    labels_or_classes,
    refuse_directory,
)
from zsar_cli.errors import UsageError
from zsar_cli.outputs import Lock, refuse_inputs, refuse_taken

if TYPE_CHECKING:
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.embeddings import PromptEmbeddings

DEFAULT_OUTPUT = Path("prompts.safetensors")


def embed_prompts(
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates this on Python 3.10 too
        typer.Option(
            "--output",
            "-o",
            help="Output file: .safetensors for predict --prompts (default: prompts.safetensors), .npz for an ONNX "
            "file whose labels are inputs.",
            metavar="FILE",
        ),
    ] = None,
    labels: LabelsOption = None,
    label: LabelOption = None,
    model: ModelOption = "PE-Core-B-16/meta",
    backbone: BackboneOption = None,
    templates: TemplatesOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    overwrite: OverwriteOption = False,
    onnx: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--onnx",
            help="Write the model and the labels as ONNX into this folder, with a script that runs them without "
            "torch and zsar. --precision: fp32 or int8.",
            metavar="FOLDER",
            rich_help_panel="ONNX",
        ),
    ] = None,
    frames: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=checks.FRAMES[0],
            max=checks.FRAMES[1],
            help="Fix the number of frames of a clip. Default: any number where the model allows it.",
            rich_help_panel="ONNX",
        ),
    ] = None,
    labels_as_input: Annotated[
        bool,
        typer.Option(
            "--labels-as-input",
            help="Make the labels' embeddings inputs of the ONNX file, so that it serves other labels too.",
            rich_help_panel="ONNX",
        ),
    ] = False,
    min_confidence: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0.0,
            max=1.0,
            help='Have the script answer "none of these" below this confidence. Default: the calibration of zsar '
            "eval --calibrate, if there is one.",
            rich_help_panel="ONNX",
        ),
    ] = None,
) -> None:
    """Embed labels with positive and negative prompt templates, and save the embeddings."""
    from zsar_cli.cli import console
    from zsar_cli.text.templates import load_templates

    if onnx is None:
        _refuse_without_onnx(frames, labels_as_input, min_confidence)
        output = output or DEFAULT_OUTPUT
    elif precision not in ("auto", "fp32", "int8"):
        raise UsageError(f"An ONNX file is in fp32 or int8, not in {precision}.")
    if output is not None:
        refuse_directory(output)
        refuse_inputs(output, [labels, templates])
        refuse_taken([output], overwrite=overwrite)
    if onnx is not None or (output is not None and output.suffix == ".npz"):
        from zsar_cli.model.onnx_trace import require_onnx

        require_onnx()
    if onnx is not None:
        from zsar_cli.export.folder import check_folder

        check_folder(onnx, overwrite=overwrite)
    if templates is not None:
        load_templates(templates)
    wanted = labels_or_classes(labels, label, model)

    from zsar_cli.recognizer import Recognizer
    from zsar_cli.run_log import log_setup

    if onnx is not None:
        device, precision_of_model = "cpu", "fp32"  # the graph is traced there
    else:
        precision_of_model = precision
    with console.status(f"Loading {model} ..."):
        recognizer = Recognizer.load(model, device=device, precision=precision_of_model, backbone=backbone)
    log_setup(recognizer.model)
    with console.status(f"Embedding {len(wanted)} labels ..."):
        embeddings = recognizer.embed_labels(wanted, templates, negatives=True)
    if output is not None:
        _save(recognizer, embeddings, output, overwrite)
    if onnx is not None:
        from zsar_cli.export.folder import ExportOptions

        least = min_confidence
        if least is None:
            least = _calibrated(recognizer, wanted, embeddings, frames)
        asked = ExportOptions("int8" if precision == "int8" else "fp32", frames, labels_as_input, least)
        _export(recognizer, embeddings, onnx, asked, model, overwrite)
    console.detail(f"Time: {recognizer.times}.")


def _refuse_without_onnx(frames: int | None, labels_as_input: bool, min_confidence: float | None) -> None:
    given = {
        "--frames": frames is not None,
        "--labels-as-input": labels_as_input,
        "--min-confidence": min_confidence is not None,
    }
    if named := [name for name, there in given.items() if there]:
        raise UsageError(f"{named[0]} is about an ONNX file; name its folder with --onnx.")


def _save(recognizer: Recognizer, embeddings: PromptEmbeddings, output: Path, overwrite: bool) -> None:
    from zsar_cli.cli import console

    with Lock(output):
        refuse_taken([output], overwrite=overwrite)
        if output.suffix == ".npz":
            from zsar_cli.export.folder import save_npz

            save_npz(recognizer.model, embeddings, output)
        else:
            embeddings.save(output)
    console.note(
        f"{len(embeddings.labels)} labels, templates {embeddings.templates}, model {embeddings.model}: {output}"
    )


def _export(
    recognizer: Recognizer,
    embeddings: PromptEmbeddings,
    folder: Path,
    options: Any,
    model: str,
    overwrite: bool,
) -> None:
    from zsar_cli.cli import console
    from zsar_cli.cli.listing import licence_of
    from zsar_cli.export.folder import export_folder

    with console.status(f"Exporting {model} ..."):
        found = export_folder(
            recognizer.model, embeddings, folder, options, licence=licence_of(model), overwrite=overwrite
        )
    count = "any number of" if found.free_frames else options.frames or recognizer.model.frames
    console.note(
        f"{', '.join(found.names)} in {folder}: {len(embeddings.labels)} labels, {count} frames, {options.precision}. "
        f"On random frames its outputs differ from those of {model} by at most {found.difference:.1e}."
    )


def _calibrated(
    recognizer: Recognizer, labels: Any, embeddings: PromptEmbeddings, frames: int | None
) -> float | None:
    """Find the bound that predict would use by itself."""
    from zsar_cli.cli import console
    from zsar_cli.prediction import calibration

    model = recognizer.model
    found = calibration.bound(model, labels, embeddings.templates_hash, frames or model.frames, "90")
    if found is None:
        return None
    console.note(f"{found[1]}.")
    return found[0]
