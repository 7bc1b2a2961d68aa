"""The classes of procedural scenes: what the camera does, what a subject does, and pairs of both.

Labels of one group exclude each other; labels of different groups do not (the camera may pan while somebody waves),
so a clip is compared with the labels of its own group only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

# What the camera does, by its label. As film people speak: in a pan to the left the picture moves to the right.
CAMERAS = {
    "static": "a static shot",
    "pan left": "the camera pans left",
    "pan right": "the camera pans right",
    "tilt up": "the camera tilts up",
    "tilt down": "the camera tilts down",
    "zoom in": "the camera zooms in",
    "zoom out": "the camera zooms out",
    "roll clockwise": "the camera rolls clockwise",
    "roll counterclockwise": "the camera rolls counterclockwise",
    "shake": "the camera shakes",
}
# What the largest thing in the picture does, as seen from a camera that stands still.
SUBJECTS = {
    "still": "nothing moves",
    "left": "something moves left",
    "right": "something moves right",
    "up": "something moves up",
    "down": "something moves down",
    "nearer": "something comes nearer",
    "away": "something goes away",
    "turn": "something turns",
    "wave": "somebody waves",
}
# What pairs are made of
PAIRED_CAMERAS = ("pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out",
                  "roll clockwise", "roll counterclockwise", "shake")  # fmt: skip
PAIRED_SUBJECTS = ("left", "right", "up", "down", "turn", "wave", "nearer", "away")
TESTED = 6  # of each, from the first: unseen pairs are of these, the others are for training only
# What comes nearer while the camera zooms cannot be told from what does not, nor what turns while the camera rolls
_ALIKE = {("zoom", "nearer"), ("zoom", "away"), ("roll", "turn")}
SPLITS = ("train", "camera", "subject", "seen", "unseen")
CLIPS_PER_CLASS = {"camera": 20, "subject": 20, "seen": 4, "unseen": 20}
# Of training, by group: half of all clips are of the camera's moves. Each epoch has others.
TRAINING_CLIPS = {"camera": 8000, "subject": 3000, "pair": 1600}
STATIC_CLIPS = 32000  # everything else that moves must not be taken for the camera


@dataclass(frozen=True)
class SceneClass:
    """One class: ``camera`` and ``subject`` are keys of the tables above; None where the label leaves it open."""

    label: str
    camera: str | None
    subject: str | None
    group: str  # "camera", "subject" or "pair"
    unseen: bool = False  # a pair of words that training saw apart only


@cache
def classes() -> tuple[SceneClass, ...]:
    """List all classes in a fixed order: 10 of the camera, 9 of a subject, 66 pairs of which 9 are unseen."""
    cameras = [SceneClass(label, key, None, "camera") for key, label in CAMERAS.items()]
    subjects = [SceneClass(label, None, key, "subject") for key, label in SUBJECTS.items()]
    pairs = [
        SceneClass(
            f"{SUBJECTS[subject]} while {CAMERAS[camera]}",
            camera,
            subject,
            "pair",
            max(row, column) < TESTED and (row + column) % 4 == 0,
        )
        for row, camera in enumerate(PAIRED_CAMERAS)
        for column, subject in enumerate(PAIRED_SUBJECTS)
        if (camera.split()[0], subject) not in _ALIKE
    ]
    return (*cameras, *subjects, *pairs)


# What becomes of a word where a clip is shown in a mirror, or played backwards
_MIRRORED = {
    "left": "right",
    "right": "left",
    "clockwise": "counterclockwise",
    "counterclockwise": "clockwise",
}
_BACKWARDS = _MIRRORED | {
    "up": "down",
    "down": "up",
    "in": "out",
    "out": "in",
    "nearer": "away",
    "away": "nearer",
}


def changed_label(label: str, *, mirrored: bool = False, backwards: bool = False) -> str:
    """Name what a clip shows when it is mirrored, or played backwards, or both."""
    kind = find_class(label)
    camera, subject = kind.camera or "", kind.subject or ""
    for words in (_MIRRORED if mirrored else {}), (_BACKWARDS if backwards else {}):
        camera, subject = (" ".join(words.get(w, w) for w in key.split()) for key in (camera, subject))
    return _labels()[camera, subject]


@cache
def other_cameras(label: str) -> tuple[str, ...]:
    """List the classes that differ in what the camera does. What is easily taken for it comes as often as all others.

    That is a static shot, and of a static shot one that shakes: something else moves there, too.
    """
    kind = find_class(label)
    if kind.camera is None:
        return ()
    taken_for = "shake" if kind.camera == "static" else "static"
    others = [c for c in classes() if c.subject == kind.subject and c.camera not in (None, kind.camera)]
    close = [c for c in others if c.camera == taken_for]
    return tuple(c.label for c in [*others, *close * (len(others) - 2)])


@cache
def _labels() -> dict[tuple[str, str], str]:
    return {(c.camera or "", c.subject or ""): c.label for c in classes()}


@cache
def find_class(label: str) -> SceneClass:
    """Find the class with this label; KeyError where there is none."""
    return {c.label: c for c in classes()}[label]


def split_classes(split: str) -> tuple[SceneClass, ...]:
    """List the classes of a split: ``train`` all but the unseen pairs, ``seen`` and ``unseen`` pairs, or one group."""
    if split == "train":
        return tuple(c for c in classes() if not c.unseen)
    if split in ("seen", "unseen"):
        return tuple(c for c in classes() if c.group == "pair" and c.unseen == (split == "unseen"))
    return tuple(c for c in classes() if c.group == split)


def clip_ids(split: str) -> list[tuple[str, int]]:
    """List (label, index) of every clip of a split, class by class."""
    return [(kind.label, index) for kind in split_classes(split) for index in range(_count(kind, split))]


def _count(kind: SceneClass, split: str) -> int:
    if split != "train":
        return CLIPS_PER_CLASS[split]
    return STATIC_CLIPS if kind.group == "camera" and kind.camera == "static" else TRAINING_CLIPS[kind.group]
