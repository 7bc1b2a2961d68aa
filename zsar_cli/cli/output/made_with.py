"""The settings that records were made with, which ``--resume`` compares so that a file is not mixed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zsar_cli import __version__

if TYPE_CHECKING:
    from zsar_cli.cli.predict_run import Run
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings
    from zsar_cli.text.labels import Labels

MOVES_NOTHING = ("batch_size",)


def made_with(
    model: RecognizerModel, run: Run, prompts: PromptEmbeddings, labels: Labels | None
) -> dict[str, Any]:
    """Describe the settings of a run of predict; ``labels`` is None if prompt embeddings came from a file."""
    options = asdict(run.windows or run.options)
    return {
        "zsar": __version__,
        "window": None,  # a mode of its own; said first where it differs
        "stride": None,
        "model": model.name,
        "weights": model.fingerprint(),
        "precision": run.precision or model.backbone.precision,
        "labels": _labels(prompts.labels if labels is None else labels),
        "templates": {"name": prompts.templates, "hash": prompts.templates_hash},
        "prompts hash": None
        if labels
        else hashlib.sha256(prompts.positive.cpu().numpy().tobytes()).hexdigest()[:16],
        "top_k": run.top_k,
        "min_confidence": run.rule.min_confidence,
        **{key: value for key, value in options.items() if key not in MOVES_NOTHING},
        **_modes(run),
        "shots": options.get("shots") or None,
        "frames": options["frames"] or model.frames,
    }


def known_before(run: Run, labels: Labels | None, *, wide: bool = False) -> dict[str, Any]:
    """Describe those of :func:`made_with` that the model does not decide: they are compared before it is loaded.

    ``run``: as it was asked for. ``wide``: every label has a column.
    """
    decided = {"batch_size", "shots", *(("top_k",) if wide else ())}
    options = {"top_k": run.top_k, **asdict(run.windows or run.options)}
    options |= {"frames": run.options.frames, "min_confidence": run.rule.min_confidence}
    known = {key: value for key, value in options.items() if key not in decided and value is not None}
    about = {} if labels is None else {"labels": _labels(labels)}
    return {"zsar": __version__, **about, **known, **_modes(run)}


def _modes(run: Run) -> dict[str, Any]:
    return {"multi": run.rule.multi or None, "embeddings": run.embeddings or None}


def _labels(labels: Labels | list[str]) -> dict[str, Any]:
    if isinstance(labels, list):
        named = [(name, [name]) for name in labels]
        return {"count": len(named), "hash": _hash(sorted(named)), "order hash": _hash(named)}
    named = [(name, list(phrases)) for name, phrases in zip(labels.names, labels.phrases, strict=True)]
    return {"count": len(named), "hash": labels.hash, "order hash": _hash(named)}


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
