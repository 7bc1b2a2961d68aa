"""``zsar embed-prompts``: compute prompt embeddings once, for many runs of ``zsar predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
from zsar_cli.outputs import Lock, refuse_inputs, refuse_taken


def embed_prompts(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Output file (.safetensors).", metavar="FILE")
    ] = Path("prompts.safetensors"),
    labels: LabelsOption = None,
    label: LabelOption = None,
    model: ModelOption = "PE-Core-B-16/meta",
    backbone: BackboneOption = None,
    templates: TemplatesOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Embed labels with positive and negative prompt templates, and save the embeddings."""
    from zsar_cli.cli import console
    from zsar_cli.text.templates import load_templates

    refuse_directory(output)
    refuse_inputs(output, [labels, templates])
    refuse_taken([output], overwrite=overwrite)
    if templates is not None:
        load_templates(templates)
    wanted = labels_or_classes(labels, label, model)

    from zsar_cli.recognizer import Recognizer
    from zsar_cli.run_log import log_setup

    with Lock(output):
        with console.status(f"Loading {model} ..."):
            recognizer = Recognizer.load(model, device=device, precision=precision, backbone=backbone)
        log_setup(recognizer.model)
        with console.status(f"Embedding {len(wanted)} labels ..."):
            embeddings = recognizer.embed_labels(wanted, templates, negatives=True)
        refuse_taken([output], overwrite=overwrite)
        embeddings.save(output)
    console.note(
        f"{len(embeddings.labels)} labels, templates {embeddings.templates}, model {embeddings.model}: {output}"
    )
    console.detail(f"Time: {recognizer.times}.")
