"""motion-shapes with few classes and clips, for tests of runs whose classes do not matter: their texts take the time.

As a script it is ``zsar`` with that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from zsar_cli.data import dataset, motion_shapes

CLASSES = {"seen": 6, "unseen": 2, "neither": 1}
CLIPS = 12  # of a class


def use_few_shapes(patch: Callable[[Any, str, Any], object]) -> None:
    """``patch``: ``setattr``, or that of pytest's ``monkeypatch``."""
    every, few = motion_shapes.classes(), []
    for group, count in CLASSES.items():
        few += [kind for kind in every if kind.group == group][:count]
    patch(motion_shapes, "classes", lambda: tuple(few))
    use_few_clips(patch, train=CLIPS, test=CLIPS)


def use_few_clips(patch: Callable[[Any, str, Any], object], *, train: int, test: int) -> None:
    """All classes, with so many clips each to train and to test with."""
    counts = dict.fromkeys(motion_shapes.SPLITS, test) | {"train": train}
    patch(motion_shapes, "CLIPS_PER_CLASS", counts)
    patch(dataset, "_rendered_list", dataset._rendered_list.__wrapped__)  # which is kept otherwise


if __name__ == "__main__":
    from zsar_cli.cli.app import main

    use_few_shapes(setattr)
    main(sys.argv[1:])
