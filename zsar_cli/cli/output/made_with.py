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
    named = (
        [(name, list(phrases)) for name, phrases in zip(labels.names, labels.phrases, strict=True)]
        if labels
        else []
    )
    named = named or [(name, [name]) for name in prompts.labels]
    return {
        "zsar": __version__,
        "window": None,  # a mode of its own; said first where it differs
        "stride": None,
        "model": model.name,
        "weights": model.fingerprint(),
        "precision": run.precision or model.backbone.precision,
        "labels": {
            "count": len(named),
            "hash": labels.hash if labels else _hash(sorted(named)),
            "order hash": _hash(named),
        },
        "templates": {"name": prompts.templates, "hash": prompts.templates_hash},
        "prompts hash": None
        if labels
        else hashlib.sha256(prompts.positive.cpu().numpy().tobytes()).hexdigest()[:16],
        "top_k": run.top_k,
        "min_confidence": run.rule.min_confidence,
        **{key: value for key, value in options.items() if key not in MOVES_NOTHING},
        "multi": run.rule.multi or None,
        "embeddings": run.embeddings or None,
        "shots": options.get("shots") or None,
        "frames": options["frames"] or model.frames,
    }


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
