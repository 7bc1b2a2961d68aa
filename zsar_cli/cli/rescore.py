"""``zsar predict answers.parquet --labels other.txt``: stored embeddings with other labels, without the videos."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zsar_cli.cli.convert import TAKEN, on_disk, read_answers, refuse_options
from zsar_cli.cli.output.sink import SUBTITLES
from zsar_cli.cli.predict_options import Asked
from zsar_cli.errors import UsageError
from zsar_cli.outputs import refuse_inputs
from zsar_cli.prediction.differences import difference
from zsar_cli.prediction.parquet import made_with_of, read_parquet

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel

HEEDED = (
    *("labels", "label", "templates", "prompts", "model", "backbone", "device", "precision"),
    *("top_k", "min_confidence", "threshold", "multi", "calibration", "embeddings", "resume"),
)
CLIPS = ("frames", "views", "crops", "decoder", "fps")  # how the videos were shown


def wants_rescoring(asked: Asked) -> bool:
    """Tell whether labels are asked for, rather than taken from the environment because they always are."""
    typed = (asked.context.get_parameter_source(name) for name in HEEDED[:4])
    return any(source is not None and source.name == "COMMANDLINE" for source in typed)


def open_stored(
    stack: contextlib.ExitStack, names: Sequence[str]
) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Open files of stored answers: what they were made with, and each video's record, its last as when converted.

    Raises:
        UsageError: a file does not say what it was made with, or they were made with different settings.
    """
    records: Iterable[dict[str, Any]]
    if len(names) == 1 and names[0].lower().endswith(
        ".parquet"
    ):  # which has each video once, and may have millions
        path = on_disk(stack, names[0])
        made, records = [made_with_of(path) or {}], read_parquet(path)
    else:
        answers = read_answers(stack, names)
        made, records = answers.made, answers
    for name, own in zip(names, made, strict=True):
        if not own:
            raise UsageError(
                f"{name} cannot be scored with other labels, as it does not say which model it was made with; a file "
                "written by --embeddings --output does."
            )
        if changed := difference(own, made[0], here=names[0]):
            raise UsageError(f"{name} was made with {changed}; score it separately.")
    return made[0], iter(records)


def check_model(name: str, made: dict[str, Any], model: RecognizerModel) -> None:
    """Raise UsageError that names both models where the embeddings are of another one."""
    if made.get("weights") != model.fingerprint():
        raise _other_model(name, made, model.name)


def _other_model(name: str, made: dict[str, Any], model: str) -> UsageError:
    theirs = str(made.get("model"))[:200]
    other = " of other weights" if theirs == model else ""
    return UsageError(
        f"The embeddings in {name} are of {theirs}{other}, and the model is {model}: add --model {theirs}."
    )


def rescore(asked: Asked, names: Sequence[str]) -> None:
    """Answer the stored videos with the labels that are asked for, and write the records."""
    from zsar_cli.cli import predict
    from zsar_cli.cli.predict_checks import check_outputs, chosen_rule, labels_and_templates
    from zsar_cli.cli.predict_run import Run, interruptible

    refuse_options(asked.context, names[0], (*TAKEN, *HEEDED), "are scored again without their videos")
    if asked.report is not None:
        raise UsageError(
            "--report needs answers that are stored; write --output first, and make the page of it."
        )
    check_outputs(asked)
    if asked.written_format in SUBTITLES:
        raise UsageError(f"{names[0]} has answers for whole videos; subtitles need answers of --window.")
    if asked.output is not None:
        refuse_inputs(asked.output, [*names, asked.labels, asked.prompts, asked.templates])
    rule = chosen_rule(asked)
    with contextlib.ExitStack() as stack:
        made, records = open_stored(stack, names)
        asked = _as_shown(asked, made)
        source = asked.context.get_parameter_source("model")
        if getattr(source, "name", "") == "DEFAULT" and made.get("model") != asked.model:
            raise _other_model(names[0], made, asked.model)
        wanted, templates = labels_and_templates(asked)
        from zsar_cli.cli import console
        from zsar_cli.prediction.clips import ClipOptions
        from zsar_cli.prediction.rescoring import rescored
        from zsar_cli.recognizer import Recognizer

        run = Run(ClipOptions(**{name: getattr(asked, name) for name in CLIPS}), asked.top_k, rule)
        run.embeddings, run.precision = asked.embeddings, made.get("precision")
        run.review = f"zsar predict {shlex.quote(asked.shown_place or '')} --report answers.html"
        stack.enter_context(interruptible(run))
        with console.status(f"Loading {asked.model} ..."):
            recognizer = Recognizer.load(
                asked.model, device=asked.device, precision=asked.precision, backbone=asked.backbone
            )
            check_model(names[0], made, recognizer.model)
            text = predict.embeddings_of(recognizer, wanted, asked.prompts, templates)
        predict.settle(asked, run, recognizer, text, wanted)
        sink = predict.open_records(stack, asked, run, recognizer, text, None, wanted)

        def results(left: Iterator[Any], advance: Any) -> Iterator[Any]:
            return rescored(
                recognizer.model,
                left,
                text,
                views=asked.views * asked.crops,
                top_k=run.top_k,
                rule=run.rule,
                keep=run.embeddings,
            )

        run.write_all(sink, records, results, video=lambda record: str(record["video"]))
    predict.end(asked, run, recognizer)


def _as_shown(asked: Asked, made: dict[str, Any]) -> Asked:
    """Take over how the videos were shown, so that the new records say so, too."""
    return replace(asked, **{name: made[name] for name in CLIPS if name in made})
