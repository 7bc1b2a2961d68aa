"""``zsar embed-prompts``: turn labels and templates into embeddings once, for many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from zsar_cli.errors import UsageError


def embed_prompts(
    output: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    labels: Annotated[
        Optional[str],  # noqa: UP045 - typer reads this on Python 3.10
        typer.Option(
            help="Labels: a file or a built-in list (kinetics400, ucf101, ...).", envvar="ZSAR_LABELS"
        ),
    ] = None,
    label: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="One more label; repeats."),
    ] = None,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="The model that will use them.", envvar="ZSAR_MODEL"),
    ] = "PE-Core-B-16/meta",
    templates: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="plain, video, kinetics, ssv2, or a YAML file.", envvar="ZSAR_TEMPLATES"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", envvar="ZSAR_DEVICE")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or fp16.", envvar="ZSAR_PRECISION")
    ] = "auto",
) -> None:
    """Embed labels with prompt templates and save the embeddings, positive and negative.

    Example:  zsar embed-prompts kinetics.safetensors --labels kinetics400 --templates kinetics

    Then:  zsar predict video.mp4 --prompts kinetics.safetensors
    """
    from zsar_cli.cli import console
    from zsar_cli.labels import load_labels

    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file to write.")
    wanted = load_labels(labels, label or [])

    from zsar_cli.prediction import Recognizer

    recognizer = Recognizer.load(model, device=device, precision=precision)
    embeddings = recognizer.embed_labels(wanted, templates, negatives=True)
    embeddings.save(output)
    console.note(
        f"{len(embeddings.labels)} labels, templates {embeddings.templates}, model {embeddings.model}: {output}"
    )
