"""Frames for people beside those for a model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.video_files import write_video
from zsar_cli.video.grid import GridRequest, load_grid
from zsar_cli.video.looks import Cropper, look_size
from zsar_cli.video.pool import ClipRequest, load_clip
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Preprocess

SMALL = Preprocess(size=(16, 16))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("looks") / "video.mp4"
    write_video(path, 12, size=(96, 64))
    return str(path)


def test_frames_for_people_are_no_larger_than_the_video_and_never_smaller_than_the_models():
    assert look_size(SMALL, 1080, 1920) == (192, 192)
    assert look_size(SMALL, 64, 64) == (64, 64)
    assert look_size(SMALL, 8, 8) is None
    assert look_size(Preprocess(size=(224, 224)), 1080, 1920) is None


@pytest.mark.parametrize("crops", [1, 3])
def test_the_model_sees_the_same_with_and_without_frames_for_people(video, crops):
    asked = ClipRequest(video, Sampling(4, 2), SMALL, crops)
    plain = load_clip(asked)
    both = load_clip(ClipRequest(video, Sampling(4, 2), SMALL, crops, look=True))
    assert plain.look is None
    assert (both.pixels == plain.pixels).all()
    assert both.look.shape == (4, 64, 64, 3)  # of the first view
    small = both.look.reshape(4, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    assert abs(small - plain.pixels[crops // 2]).mean() < 8  # the same part of the picture


def test_frames_may_be_asked_for_by_number(video):
    clip = load_clip(ClipRequest(video, Sampling(3), SMALL, indices=(2, 2, 7)))
    assert clip.indices.tolist() == [[2, 2, 7]]
    assert (clip.pixels[0, 0] == clip.pixels[0, 1]).all()


def test_windows_have_them_too(video):
    (plain,) = load_grid(GridRequest(video, 0.2, 2, SMALL))
    (both,) = load_grid(GridRequest(video, 0.2, 2, SMALL, look=True))
    assert (both.pixels == plain.pixels).all()
    assert both.look.shape == (len(both.ticks), 64, 64, 3)
    assert both.indices.tolist() == plain.indices.tolist()


def test_a_stream_that_changes_its_size_keeps_the_first_frames_look():
    cropper = Cropper(SMALL, look=True)
    frames = [np.full((h, w, 3), 99, np.uint8) for h, w in ((32, 48), (128, 128))]
    _, look = cropper.split(np.stack([cropper(frame) for frame in frames]))
    assert look.shape == (2, 32, 32, 3)
