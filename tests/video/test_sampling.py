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


# --- the ways of published models


def test_ticks_are_the_frames_of_mote_and_its_kin() -> None:
    for count in (3, 8, 100, 301):
        tick = count / 8
        starts = [int(x) for x in np.linspace(0, max(tick - 1, 0), 3)]
        wanted = [[min(int(start + tick * i), count - 1) for i in range(8)] for start in starts]
        assert view_indices(count, Sampling(8, 3, "ticks")).tolist() == wanted


def test_spans_last_sixteen_thirtieths_of_a_second_a_frame_and_are_spread_over_the_video() -> None:
    found = view_indices(300, Sampling(8, 3, "spans"), rate=30.0)
    assert found[:, 0].tolist() == [0, 86, 172]
    assert found[:, -1].tolist() == [127, 213, 299]
    assert set(np.diff(found[0]).tolist()) <= {18, 19}
    assert view_indices(300, Sampling(8, 1, "spans"), rate=30.0)[0, [0, -1]].tolist() == [86, 213]
    slow = view_indices(300, Sampling(8, 3, "spans"), rate=15.0)
    assert (slow[:, -1] - slow[:, 0]).tolist() == [63, 63, 63]
    short = view_indices(20, Sampling(8, 3, "spans"), rate=30.0)
    assert (short == short[0]).all()
    assert (short.min(), short.max()) == (0, 19)


def test_steps_begin_at_the_first_frame() -> None:
    assert view_indices(100, Sampling(8, 1, "steps")).tolist() == [[0, 12, 24, 36, 48, 60, 72, 84]]
    assert view_indices(5, Sampling(8, 1, "steps")).tolist() == [[0, 1, 2, 3, 4, 4, 4, 4]]


def test_one_clip_of_x_clips_sampler_is_the_middle_of_each_segment() -> None:
    for count in (5, 32, 100, 257):
        step = count / 32
        wanted = [int(i * step + step / 2) for i in range(32)]
        assert segment_indices(count, 32).tolist() == wanted


@pytest.mark.parametrize("way", ["ticks", "spans", "steps"])
@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_published_ways_stay_in_the_video_and_rise(way: str, count: int) -> None:
    found = view_indices(count, Sampling(8, 4, way))
    assert found.shape == (4, 8)
    assert (np.diff(found, axis=1) >= 0).all()
    assert (found >= 0).all()
    assert (found < count).all()
