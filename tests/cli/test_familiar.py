"""The bundled model says what it knows nothing about."""

from __future__ import annotations

import numpy as np
import pytest

from tests.video_files import write_video
from zsar_cli.files import ASSETS
from zsar_cli.prediction.familiar import MEANS_NOTHING, usual_frames

SAMPLE = ASSETS / "samples" / "shape-moving-left-growing.mp4"
pytestmark = pytest.mark.skipif(
    not (ASSETS / "motion-tiny" / "model.safetensors").is_file(), reason="the bundled model is not here"
)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A video that shows no shapes."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("videos") / "photo.mp4", 12, picture=noise)


@pytest.mark.parametrize("more", [[], ["--window", "1"]], ids=str)
def test_motion_tiny_says_of_which_videos_its_answers_mean_nothing(zsar, photo, more) -> None:
    labels = ("--label", "a shape moving left", "--label", "a shape growing", "--workers", 0, *more)
    done = zsar("predict", photo, SAMPLE, "--model", "motion-tiny", *labels)
    assert [MEANS_NOTHING in record.get("warning", "") for record in done.records] == [True, False]
    (said,) = (line for line in done.err.splitlines() if "are meaningless" in line)
    assert said.startswith("1 of 2 videos without the rendered shapes")
    table = zsar("predict", photo, "--model", "motion-tiny", *labels, "--format", "table", "-q")
    assert MEANS_NOTHING in " ".join(table.out.split())
    assert table.err == ""


def test_labels_that_motion_tiny_knows_nothing_about_are_said_once(zsar) -> None:
    done = zsar(
        "predict", SAMPLE, "--model", "motion-tiny", "--label", "ironing", "--label", "a shape growing"
    )
    (said,) = (line for line in done.err.splitlines() if "are meaningless" in line)
    assert said.startswith("1 of 2 labels, such as 'ironing', share no word with the classes of motion-tiny")


def test_other_models_know_no_bounds(tiny_clip_dir) -> None:
    from zsar_cli.model.load import load_model

    assert usual_frames(load_model(str(tiny_clip_dir))) is None
