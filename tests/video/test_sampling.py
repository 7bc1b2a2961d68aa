"""Properties that hold for every video length and every way of sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.video_files import write_video
from zsar_cli.video.pool import ClipRequest, load_clip
from zsar_cli.video.sampling import Sampling, segment_indices, view_indices

counts = st.integers(1, 5000) | st.integers(1, 10**9)
samplings = st.builds(
    Sampling,
    frames=st.integers(1, 40),
    views=st.integers(1, 5),
    seconds=st.none() | st.floats(0.01, 1e5),
)
seeds = st.none() | st.integers(0, 2**32)


@settings(max_examples=200, deadline=None)
@given(counts, samplings, seeds)
def test_indices_are_in_range_sorted_and_deterministic(count, sampling, seed):
    def draw():
        return view_indices(count, sampling, rng=None if seed is None else np.random.default_rng(seed))

    indices = draw()
    assert indices.shape == (sampling.views, sampling.frames)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < count
    assert (np.diff(indices, axis=1) >= 0).all()
    assert np.array_equal(indices, draw())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 2**32))
def test_each_random_frame_lies_in_its_own_segment(frames, length, seed):
    count = frames * length
    indices = segment_indices(count, frames, rng=np.random.default_rng(seed))
    assert (indices // length == np.arange(frames)).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 16), st.integers(1, 4), st.integers(0, 2000))
def test_long_videos_repeat_no_frame_within_or_between_views(frames, views, more):
    indices = view_indices(frames * views + more, Sampling(frames, views))
    assert len(np.unique(indices)) == frames * views


def test_known_values():
    assert segment_indices(80, 8).tolist() == [5, 15, 25, 35, 45, 55, 65, 75]
    assert segment_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert segment_indices(1, 4).tolist() == [0, 0, 0, 0]
    assert view_indices(12, Sampling(2, 3)).tolist() == [[1, 7], [3, 9], [5, 11]]


def test_of_a_longer_video_a_clip_of_fixed_duration_is_its_middle_and_in_training_any_window(tmp_path):
    video = str(write_video(tmp_path / "a.mp4", 40, rate=20))
    assert load_clip(ClipRequest(video, Sampling(2, seconds=1.0))).indices.tolist() == [[15, 25]]
    two = Sampling(4, seconds=2.0)
    assert view_indices(100, two, rate=10.0).tolist() == [[42, 47, 52, 57]]
    assert view_indices(20, two, rate=10.0).tolist() == view_indices(20, Sampling(4)).tolist()
    assert view_indices(100, Sampling(4, 3, seconds=2.0), rate=10.0)[:, 0].tolist() == [2, 42, 82]
    rng = np.random.default_rng(0)
    drawn = np.concatenate([view_indices(100, two, rng=rng, rate=10.0) for _ in range(300)])
    assert (drawn[:, -1] - drawn[:, 0]).max() < 20
    assert drawn.min() < 5
    assert drawn.max() > 94


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="without frames"):
        segment_indices(0, 8)
    with pytest.raises(ValueError, match="at least 1"):
        Sampling(frames=0)
    with pytest.raises(ValueError, match="at least 1"):
        Sampling(views=0)
