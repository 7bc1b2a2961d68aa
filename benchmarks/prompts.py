"""How the wording of prompts changes what motion-tiny answers: positives first, then kinds of negatives.

    python -m benchmarks.prompts

Every row embeds the same clips of motion-shapes (unseen classes, and clips of neither list); only the text differs.
"""

from __future__ import annotations

from dataclasses import replace

SHIPPED = ("plain", "video", "kinetics", "ssv2")
# Negatives beside the positives of ``video``
NEGATIVES = {
    "absence": ("a video without any {}", "a clip where {} never happens"),
    "contrast": ("a video that looks like {} but is not",),
    "something else": ("a video of something other than {}", "a different activity instead of {}"),
    "one word before the label": ("no {}",),
    "one sentence for all labels": ("a video where nothing happens",),
    "the positive again": ("a video of {}",),
}


def main() -> None:
    """Print the table."""
    print(table())


def table() -> str:
    """Markdown: a row for each choice of templates."""
    from benchmarks.material import embed_rendered
    from zsar_cli.data import motion_shapes
    from zsar_cli.evaluation.inference import score_records
    from zsar_cli.evaluation.summary import detect_unknown, summarise
    from zsar_cli.model.load import load_model
    from zsar_cli.text.embeddings import embed_labels
    from zsar_cli.text.templates import Templates, load_templates

    model = load_model("motion-tiny")
    clips = {
        split: embed_rendered(model, motion_shapes.clip_ids(split), split, model.record.frames, "cpu")
        for split in ("unseen", "neither")
    }
    labels = motion_shapes.class_labels("unseen")
    targets = [labels.index(label) for label, _ in motion_shapes.clip_ids("unseen")]

    def row(name: str, templates: Templates) -> str:
        text = embed_labels(model, labels, templates)
        known = score_records(model, clips["unseen"], targets, text)
        unknown = score_records(model, clips["neither"], [-1] * len(clips["neither"]), text)
        found = detect_unknown(known, unknown)["yes"]
        numbers = (summarise(known, labels)["top1"], found["auroc"], found["fpr95"])
        return f"| {name} | " + " | ".join(f"{100 * number:.1f}" for number in numbers) + " |"

    video = load_templates("video")
    rows = [row(f"`{name}`", load_templates(name)) for name in SHIPPED]
    rows += [row(f"`video`, negatives: {name}", replace(video, negative=t)) for name, t in NEGATIVES.items()]
    head = "| templates | unseen top-1 | AUROC of `unknown` | FPR at TPR 0.95 |\n|---|---:|---:|---:|\n"
    return head + "\n".join(rows)


if __name__ == "__main__":
    main()
