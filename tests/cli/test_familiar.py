"""The bundled model says which labels it knows nothing about."""

from __future__ import annotations

import pytest

from zsar_cli.files import ASSETS

SAMPLE = ASSETS / "samples" / "shape-moving-left-growing.mp4"
pytestmark = pytest.mark.skipif(
    not (ASSETS / "motion-tiny" / "model.safetensors").is_file(), reason="the bundled model is not here"
)


def test_labels_that_motion_tiny_knows_nothing_about_are_said_once(zsar) -> None:
    done = zsar(
        "predict", SAMPLE, "--model", "motion-tiny", "--label", "ironing", "--label", "a shape growing"
    )
    (said,) = (line for line in done.err.splitlines() if "are meaningless" in line)
    assert said.startswith("1 of 2 labels, such as 'ironing', share no word with the classes of motion-tiny")
