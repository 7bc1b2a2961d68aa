"""``--prepare``: small copies with every frame at its time, lists of every split, and a run that may be killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest

from tests.video_files import frame_number, write_video, write_with_sound
from zsar_cli.data import prepare as module
from zsar_cli.data.dataset import load_dataset
from zsar_cli.data.definition import load_definition
from zsar_cli.data.prepare import DataSource, Prepared, prepare
from zsar_cli.errors import UsageError
from zsar_cli.video import storage
from zsar_cli.video.decode import read_frames
from zsar_cli.video.probe import read_index
from zsar_cli.video.reencode import CopyRequest, copy_video

STAMPS = [0, 1, 2, 7, 8, 9, 30, 31, 33, 34, 35, 36, 37, 38, 39, 60, 61, 62, 63, 64]


def test_a_copy_has_every_frame_at_its_own_time_and_key_frames_close_together(tmp_path):
    video = write_video(tmp_path / "a.mkv", ticks=STAMPS, size=(320, 128))
    made = copy_video(CopyRequest(str(video), tmp_path / "a.mp4", side=64))
    source, copy = (
        read_frames(str(path), lambda count: range(count), decoder="pyav")
        for path in (video, tmp_path / "a.mp4")
    )
    assert made.frames == len(STAMPS)
    assert copy.times == pytest.approx(source.times, abs=1e-4)
    assert copy.info.duration == pytest.approx(source.info.duration, abs=0.05)
    assert copy.frames.shape[1:] == (64, 160, 3)
    assert [frame_number(frame) for frame in copy.frames] == list(range(len(STAMPS)))
    index = read_index(str(tmp_path / "a.mp4"))
    assert index.cuttable
    assert np.flatnonzero(index.key).tolist() == [0, 12]


def test_a_copy_is_upright_silent_even_and_never_larger(tmp_path):
    sound = write_with_sound(tmp_path / "sound.mp4", frames=5)
    copy_video(CopyRequest(str(sound), tmp_path / "silent.mp4"))
    with av.open(str(tmp_path / "silent.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert (container.streams.video[0].height, container.streams.video[0].width) == (64, 160)
    odd = write_video(tmp_path / "odd.avi", 2, codec="mjpeg", pixel_format="yuvj444p", size=(81, 45))
    copy_video(CopyRequest(str(odd), tmp_path / "even.mp4", side=32))
    copy = read_frames(str(tmp_path / "even.mp4"), lambda count: range(count))
    assert copy.frames.shape == (2, 32, 58, 3)
    assert [frame_number(frame) for frame in copy.frames] == [0, 1]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Classes in train/ and val/, two files of one stem, a broken one, one name that is a number."""
    root = tmp_path / "data"
    for folder in ("train/run", "train/7", "val/run"):
        (root / folder).mkdir(parents=True)
    first = write_video(root / "train/run/a.mp4", 3)
    for other in ("train/7/b.mp4", "train/7/c.mp4", "val/run/d.mp4"):
        shutil.copy(first, root / other)
    write_video(root / "train/run/a.avi", 3, codec="mpeg4")
    (root / "train/run/broken.mp4").write_bytes(b"no video")
    return root


def run(data: Path, folder: Path, **options: object) -> Prepared:
    return prepare(DataSource(str(data)), folder, **{"workers": 0, "max_missing": 0.5, **options})


def labelled(dataset) -> list[tuple[str, str]]:
    return sorted((Path(item.path).name, dataset.classes[item.label]) for item in dataset.items)


def test_lists_keep_labels_and_splits_and_broken_videos_keep_their_error(data, tmp_path):
    made = run(data, tmp_path / "small")
    assert (made.videos, made.new, [*made.errors]) == (5, 5, [str(data / "train/run/broken.mp4")])
    definition = load_definition(made.definition)
    assert set(definition.splits) == {"train", "val", "test"}
    assert definition.validation == "val"
    train, val = (load_dataset(made.definition, split=split) for split in ("train", "val"))
    assert train.classes == val.classes == ("7", "run")
    names = [("a.avi.mp4", "run"), ("a.mp4", "run"), ("b.mp4", "7"), ("c.mp4", "7")]
    assert labelled(train) == names
    assert labelled(val) == [("d.mp4", "run")]
    assert labelled(load_dataset(made.definition, split="test")) == [("d.mp4", "run")]
    entries = [json.loads(line) for line in (tmp_path / "small/prepared.jsonl").read_text().splitlines()]
    (broken,) = (entry for entry in entries if "error" in entry)
    assert broken["error"]["kind"] == "no_video"
    moved = (tmp_path / "small").rename(tmp_path / "moved")  # paths in it are relative
    assert labelled(load_dataset(moved / "data.yaml")) == [("d.mp4", "run")]


def test_a_run_that_was_killed_goes_on_with_what_is_missing(data, tmp_path, monkeypatch):
    copied: list[str] = []

    def count(request: CopyRequest, dies: int = 99):
        if len(copied) == dies:
            raise KeyboardInterrupt
        copied.append(Path(request.path).name)
        return copy_video(request)

    folder = tmp_path / "small"
    monkeypatch.setattr(module, "copy_video", lambda request: count(request, 2))
    with pytest.raises(KeyboardInterrupt):
        run(data, folder)
    with (folder / "prepared.jsonl").open("a") as ledger:
        ledger.write('{"source": "cut of')  # as a kill leaves it
    (folder / "videos/train/run/.a.abcdefgh.zsar-tmp.mp4").write_bytes(b"half")
    assert not (folder / "data.yaml").exists()
    monkeypatch.setattr(module, "copy_video", count)
    assert run(data, folder).videos == 5
    assert sorted(copied) == ["a.avi", "a.mp4", "b.mp4", "broken.mp4", "c.mp4", "d.mp4"]
    assert not list(folder.rglob("*zsar-tmp*"))

    copied.clear()
    (folder / "videos/val/run/d.mp4").unlink()
    shutil.copy(data / "train/run/a.avi", data / "train/7/c.mp4")  # another video of that name
    again = run(data, folder)
    assert sorted(copied) == ["broken.mp4", "c.mp4", "d.mp4"]  # what could not be read is tried again
    assert (again.videos, again.new) == (5, 2)
    copied.clear()
    run(data, folder, side=32)
    assert len(copied) == 6
    lists = (folder / "data.yaml").read_bytes()
    with pytest.raises(UsageError, match="holds the copies of data; choose another --prepare for other"):
        run(data.rename(tmp_path / "other"), folder)
    assert (folder / "data.yaml").read_bytes() == lists


def test_what_cannot_be_prepared_is_refused(data, tmp_path):
    with pytest.raises(UsageError, match="one in the other"):
        run(data, data / "small")
    with pytest.raises(UsageError, match="rendered"):
        run(Path("motion-shapes"), tmp_path / "small")
    with pytest.raises(UsageError, match=r"1 cannot be read \(such as .*broken"):
        run(data, tmp_path / "small", max_missing=0.1)
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "x.mp4").write_bytes(b"no video")
    with pytest.raises(UsageError, match="of 2 videos in broken, 2 cannot be read"):
        run(tmp_path / "broken", tmp_path / "none", max_missing=1.0)
    assert not (tmp_path / "none" / "data.yaml").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own/train.json").write_text("mine")
    with pytest.raises(UsageError, match=r"train\.json is of no earlier --prepare"):
        run(data, tmp_path / "own")
    assert (tmp_path / "own/train.json").read_text() == "mine"


def test_a_list_with_paths_from_anywhere_and_classes_of_a_file(data, tmp_path):
    elsewhere = write_video(tmp_path / "outside.mp4", 3)
    listed = tmp_path / "lists"
    listed.mkdir()
    (listed / "train.csv").write_text(
        f"{data}/train/run/a.mp4,1\n{elsewhere},0\n{elsewhere.parent}/gone.mp4,0\n"
    )
    (tmp_path / "names.txt").write_text("walking, slowly\nrunning\n")
    source = DataSource(str(listed / "train.csv"), labels=str(tmp_path / "names.txt"))
    made = prepare(source, tmp_path / "small", workers=0, max_missing=0.5)
    found = load_dataset(made.definition, split="train")
    assert found.classes == ("walking, slowly", "running")
    assert labelled(found) == [("a.mp4", "running"), ("outside.mp4", "walking, slowly")]


def test_videos_in_a_storage_are_copied_once_as_long_as_they_stay_the_same(data, tmp_path):
    fsspec.filesystem("memory").store.clear()
    for name in ("a.mp4", "d/a.mp4"):
        fsspec.filesystem("memory").put_file(str(data / "train/run/a.mp4"), f"/prepared/{name}")
    addresses = ["memory://prepared/a.mp4", "memory://prepared/d/a.mp4"]
    (data / "l.csv").write_text("path,label\n" + "".join(f"{one},run\n" for one in addresses))
    source = DataSource(str(data / "l.csv"))
    made = prepare(source, tmp_path / "small", workers=0)
    assert (made.videos, made.new) == (2, 2)
    assert labelled(load_dataset(made.definition, split="train")) == [("a.mp4", "run")] * 2
    assert prepare(source, tmp_path / "small", workers=0).new == 0
    fsspec.filesystem("memory").put_file(str(data / "val/run/d.mp4"), "/prepared/a.mp4")
    storage._states.clear()
    assert prepare(source, tmp_path / "small", workers=0).new == 1
    fsspec.filesystem("memory").store.clear()
