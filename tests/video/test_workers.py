"""Decode workers: order, look-ahead, and what happens when a decoder dies, hangs or eats memory."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import hostile_loads
import numpy as np
import psutil
import pytest
from hostile_loads import Task

from tests.video_files import frame_number, write_video
from zsar_cli.errors import VideoError
from zsar_cli.video import keeper
from zsar_cli.video.grid import GridRequest, load_grid
from zsar_cli.video.keeper import fair_share_mb
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool, load_clip
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Augmentation, Preprocess

SMALL = Preprocess(size=(64, 160))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "worker.serve" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("videos") / "numbers.mp4"))


def test_clips_come_in_order_with_errors_in_their_place(video, tmp_path):
    paths = [video, str(tmp_path / "missing.mp4"), video, str(tmp_path), video]
    requests = [ClipRequest(path, Sampling(frames=4), SMALL) for path in paths]
    with DecodePool(2) as pool:
        results = list(pool.imap(iter(requests)))
    assert [request for request, _ in results] == requests
    clips = [clip for _, clip in results]
    assert [getattr(clip, "kind", None) for clip in clips] == [None, "not_found", None, "not_a_file", None]
    assert [frame_number(frame) for frame in clips[0].pixels[0]] == [5, 15, 25, 35]
    assert isinstance(clips[0], Clip)
    assert clips[0].times.tolist() == [[0.25, 0.75, 1.25, 1.75]]


@pytest.mark.parametrize(("deed", "kind"), [("die", "crashed"), ("hang", "timeout"), ("balloon", "memory")])
def test_a_worker_that_dies_hangs_or_balloons_costs_only_its_own_video(deed, kind):
    bad = (0, 2, 4)  # the first, the middle and the last
    tasks = [Task(number, deed if number in bad else "fine") for number in range(5)]
    timeout = 5 if deed == "hang" else 60
    with DecodePool(3, timeout=timeout, memory_limit_mb=400, load=hostile_loads.load) as pool:  # one for each
        results = [found for _, found in pool.imap(tasks)]
    assert [getattr(result, "kind", "") for result in results] == [kind, "", kind, "", kind]
    assert [results[1][0], results[3][0]] == [1, 3]
    assert not children()


def test_a_worker_makes_way_for_a_fresh_one(monkeypatch):
    monkeypatch.setattr(keeper, "LIFETIME", 2)
    with DecodePool(1, load=hostile_loads.load) as pool:
        results = [found for _, found in pool.imap(Task(number) for number in range(5))]
    assert [number for number, _ in results] == list(range(5))
    first, second, third = (results[k][1] for k in (0, 2, 4))
    assert [process for _, process in results] == [first, first, second, second, third]
    assert len({first, second, third}) == 3
    assert not children()


def test_after_a_crash_the_video_is_tried_once_more_with_pyav():
    with DecodePool(1, load=hostile_loads.load) as pool:
        results = [
            found
            for _, found in pool.imap([Task(0, "die unless pyav"), Task(1, "die unless pyav", "decord")])
        ]
    assert results[0][0] == 0
    assert results[1].kind == "crashed"  # a decoder that was asked for is not swapped
    assert "SIGABRT" in results[1].message


def test_errors_bugs_and_noise_in_a_worker_become_answers():
    deeds = ["fail", "bug", "noise", "fine"]
    with DecodePool(1, load=hostile_loads.load) as pool:
        results = [found for _, found in pool.imap(Task(number, deed) for number, deed in enumerate(deeds))]
    assert [getattr(result, "kind", "") for result in results] == ["unreadable", "unreadable", "", ""]
    assert [result[0] for result in results[2:]] == [2, 3]


def test_workers_never_import_torch():
    import torch  # noqa: F401 - the parent having it must make no difference

    with DecodePool(1, load=hostile_loads.modules) as pool:
        ((_, modules),) = pool.imap([None])
    assert "zsar_cli.video.decode" in modules
    assert not {"torch", "torchvision", "open_clip"} & set(modules)


def test_requests_are_read_lazily_and_results_do_not_wait_for_the_next_request():
    read = []

    def requests():
        for number in itertools.count():
            read.append(number)
            yield Task(number)

    with DecodePool(1, ahead=3, load=hostile_loads.load) as pool:
        results = pool.imap(requests())
        assert [next(results)[1][0] for _ in range(5)] == [0, 1, 2, 3, 4]
        assert len(read) <= 5 + 3 + 1
        results.close()

    answered = threading.Event()
    waited = []

    def slow():
        yield Task(0)
        waited.append(answered.wait(60))

    with DecodePool(1, load=hostile_loads.load) as pool:
        results = pool.imap(slow())
        assert next(results)[1][0] == 0
        answered.set()
        assert not list(results)
    assert waited == [True]


def test_an_error_in_the_requests_reaches_the_caller():
    def requests():
        yield Task(0)
        raise OSError("the list cannot be read")

    with DecodePool(1, load=hostile_loads.load) as pool, pytest.raises(OSError, match="list cannot be read"):
        [found for _, found in pool.imap(requests())]


def test_closing_ends_workers_in_the_middle_of_a_video():
    pool = DecodePool(2, load=hostile_loads.load)
    results = pool.imap([Task(0), Task(1, "hang"), Task(2, "hang")])
    next(results)
    pool.close()
    pool.close()
    assert not children()  # which hang for longer than this test may take


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_workers_go_when_their_parent_does(how, tmp_path):
    script = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = [{str(Path(hostile_loads.__file__).parent)!r}]
        import hostile_loads
        from zsar_cli.video.pool import DecodePool
        with DecodePool(2, load=hostile_loads.load) as pool:
            for _ in pool.imap([hostile_loads.Task(0)] + [hostile_loads.Task(1, "hang")] * 4):
                print("begun", flush=True)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout.readline() == b"begun\n"
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    if how == signal.SIGKILL:
        parent.kill()
    else:
        os.killpg(parent.pid, how)  # as a terminal or a service manager does: everybody gets it
    _, errors = parent.communicate(timeout=200)
    assert errors.count(b"KeyboardInterrupt") <= 1  # none from the workers
    _, alive = psutil.wait_procs(workers, timeout=100)
    assert not alive


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_signals_to_all_do_not_end_the_work_in_hand():
    with DecodePool(1, load=hostile_loads.load) as pool:
        results = pool.imap([Task(0), Task(1, "wait"), Task(2)])
        next(results)
        (worker,) = children()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            worker.send_signal(number)
        assert [process for _, (_, process) in results] == [worker.pid] * 2


def test_seeded_clips_do_not_depend_on_the_number_of_workers(video):
    requests = [
        ClipRequest(video, Sampling(4, views=2), SMALL, augmentation=Augmentation(), seed=seed)
        for seed in range(4)
    ]
    alone = [load_clip(request) for request in requests]
    with DecodePool(2) as pool:
        together = [found for _, found in pool.imap(requests)]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.indices, other.indices)
    assert not np.array_equal(alone[0].pixels, alone[1].pixels)


def test_views_and_crops_have_their_places(video):
    preprocess = Preprocess(size=(64, 64))
    clip = load_clip(ClipRequest(video, Sampling(4, views=2), preprocess, crops=3))
    single = load_clip(ClipRequest(video, Sampling(4, views=2), preprocess))
    assert clip.pixels.shape == (6, 4, 64, 64, 3)
    assert clip.indices.shape == clip.times.shape == (2, 4)
    assert np.array_equal(clip.pixels[1], single.pixels[0])  # the centre crop of the first view
    assert np.array_equal(clip.pixels[4], single.pixels[1])


def test_a_long_video_streams_in_chunks_and_in_order(video, tmp_path):
    paths = (video, str(tmp_path / "no.mp4"), video)
    requests = [GridRequest(path, window=0.4, frames=8, preprocess=SMALL) for path in paths]
    seen = []
    with DecodePool(2) as pool:
        for request, chunks in pool.stream(requests, load_grid):
            try:
                parts = [(request.path, [frame_number(frame) for frame in part.pixels]) for part in chunks]
            except VideoError as error:
                parts = [(request.path, error.kind)]
            seen += parts
    halves = [(video, list(range(32))), (video, list(range(32, 40)))]
    assert seen == [*halves, (paths[1], "not_found"), *halves]


def test_a_stream_waits_for_its_consumer_and_survives_being_left(tmp_path):
    with DecodePool(1, timeout=30) as pool:
        streams = pool.stream([str(tmp_path)], load=hostile_loads.counted_stream)
        assert next(next(streams)[1]).shape == (4, 224, 224, 3)
        time.sleep(0.7)
        assert len(list(tmp_path.iterdir())) < 10
        streams.close()
        assert [value[0] for value in map(hostile_loads.load, [Task(1)])] == [1]
        again = pool.stream([Task(0), Task(1, "die"), Task(2)], load=hostile_loads.stream)
        assert len(list(next(again)[1])) == 40
        with pytest.raises(VideoError, match="crashed"):
            list(next(again)[1])
        assert len(list(next(again)[1])) == 40


def test_a_stream_ends_when_it_is_asked_to_whatever_its_worker_does():
    stop = threading.Event()
    with DecodePool(1, timeout=600) as pool:
        streams = pool.stream([Task(0, "hang")], load=hostile_loads.stream, stop=stop)
        _, chunks = next(streams)
        assert [part[0, 0, 0, 0] for part in itertools.islice(chunks, 3)] == [0, 1, 2]
        stop.set()
        assert list(chunks) == []  # the worker sleeps, and would give 37 more

    def requests():
        yield Task(0)
        stop.set()
        time.sleep(60)  # as a list on standard input that nobody goes on with
        yield Task(1)

    stop.clear()
    with DecodePool(1) as pool:
        assert len(list(pool.stream(requests(), load=hostile_loads.stream, stop=stop))) <= 1


def test_a_pool_grows_before_its_first_request_and_shares_the_memory_anew():
    with DecodePool(0) as pool:
        assert (pool.workers, pool.ahead) == (0, 2)
        pool.grow(2)
        assert (pool.workers, pool.ahead) == (2, 6)
        assert pool.work.memory_limit == fair_share_mb(2) * 2**20
        pool.grow(1)
        assert pool.workers == 2
