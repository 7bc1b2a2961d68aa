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
    every = motion_shapes.classes()
    few = [
        kind for group, count in CLASSES.items() for kind in [k for k in every if k.group == group][:count]
    ]
    patch(motion_shapes, "classes", lambda: tuple(few))
    patch(motion_shapes, "CLIPS_PER_CLASS", dict.fromkeys(motion_shapes.SPLITS, CLIPS))
    patch(dataset, "_rendered_list", dataset._rendered_list.__wrapped__)  # which is kept otherwise


if __name__ == "__main__":
    from zsar_cli.cli.app import main

    use_few_shapes(setattr)
    main(sys.argv[1:])
