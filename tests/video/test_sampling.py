"""Properties that hold for every video length and every way of sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar_cli.video.sampling import Sampling, segment_indices, view_indices

counts = st.integers(1, 5000) | st.integers(1, 10**9)
samplings = st.builds(
    Sampling,
    frames=st.integers(1, 40),
    views=st.integers(1, 5),
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


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="without frames"):
        segment_indices(0, 8)
    with pytest.raises(ValueError, match="at least 1"):
        Sampling(frames=0)
    with pytest.raises(ValueError, match="at least 1"):
        Sampling(views=0)
