"""Write the sample videos that ship with the package: motion-shapes clips of classes the bundled model never saw.

    python benchmarks/samples.py

Nothing is picked by hand: every fifth unseen class and the first class in neither list, the clip after those that
evaluations use. ``labels.txt`` holds all unseen labels.
"""

from __future__ import annotations

from pathlib import Path

from zsar_cli.data import motion_shapes

FILLERS = {"a", "the", "while", "each", "other"}  # file names stay short
SAMPLES = Path(__file__).parent.parent / "zsar_cli" / "assets" / "samples"


def file_name(label: str) -> str:
    """The label less its small words."""
    return "-".join(word for word in label.split() if word not in FILLERS) + ".mp4"


def main() -> None:
    """Write them."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for old in SAMPLES.glob("*.mp4"):
        old.unlink()
    unseen = motion_shapes.class_labels("unseen")
    for split, labels in (("unseen", unseen[::5]), ("neither", motion_shapes.class_labels("neither")[:1])):
        for label in labels:
            path = SAMPLES / (file_name(label) if split == "unseen" else f"neither-{file_name(label)}")
            motion_shapes.write_video(path, label, motion_shapes.CLIPS_PER_CLASS[split], split=split)
            print(path.name, path.stat().st_size)
    heading = "# Pairs of motions that motion-tiny never saw together in training.\n"
    (SAMPLES / "labels.txt").write_text(heading + "\n".join(unseen) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
