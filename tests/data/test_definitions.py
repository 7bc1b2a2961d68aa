"""Data sets in miniature, as they lie on disk, found and matched without being told where things are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.make import make_hmdb51, make_kinetics, make_ssv2, make_ucf101, write_video
from zsar_cli.data.clips import load_rendered_clip
from zsar_cli.data.dataset import load_dataset, load_motion_shapes
from zsar_cli.data.definition import dataset_names
from zsar_cli.errors import UsageError
from zsar_cli.evaluation.protocols import DataSource, make_plan
from zsar_cli.text.class_lists import class_list
from zsar_cli.video.pool import ClipRequest, load_clip
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Preprocess


def shown(dataset) -> dict[str, str]:
    return {Path(item.path).name: dataset.classes[item.label] for item in dataset.items}


def test_ucf101(tmp_path: Path) -> None:
    make_ucf101(tmp_path)
    data = load_dataset("ucf101", tmp_path)
    assert data.list_name == "testlist01.txt"
    assert data.missing == 0
    assert not data.unmatched
    assert shown(data) == {
        "v_ApplyEyeMakeup_g01_c01.avi": "apply eye makeup",
        "v_HandStandPushups_g01_c01.avi": "handstand push ups",
        "v_YoYo_g01_c01.avi": "yo yo",
    }
    assert len(load_dataset("ucf101", tmp_path, split="train").items) == 3
    novel = load_dataset("ucf101", tmp_path, subset="unseen")
    assert len(novel.classes) == 50
    assert len(load_dataset("ucf101", tmp_path, subset="seen").items) + len(novel.items) == 3


def test_hmdb51_with_its_odd_names(tmp_path: Path) -> None:
    make_hmdb51(tmp_path)
    data = load_dataset("hmdb51", tmp_path)
    assert set(shown(data).values()) == {"brush hair", "clap", "climb stairs", "climb"}
    assert shown(data)["Up+down@home_climb_stairs_f_cm_np1_ba_med_2.avi"] == "climb stairs"
    train = load_dataset("hmdb51", tmp_path, split="train")
    assert set(shown(train)) == {
        "Haarek#mmen!_brush_hair_u_cm_np1_fr_med_0.avi",
        "A&B;_(live)_[HD]_clap_u_cm_np1_le_bad_1.avi",
    }
    assert not data.missing  # the videos marked 0 are in neither list


def test_kinetics_with_and_without_times_and_one_missing(tmp_path: Path) -> None:
    make_kinetics(tmp_path)
    data = load_dataset("kinetics400", tmp_path)
    assert data.missing_paths == ["gone_gone_1_000005_000015"]
    assert sorted(data.classes[item.label] for item in data.items) == [
        "abseiling",
        "hurling (sport)",
        "massaging person's head",
        "yoga",
        "zumba",
    ]
    with pytest.raises(UsageError, match="gone_gone_1"):
        data.check_missing(0.1)
    data.check_missing(0.2)
    # Without its list, the folders tell the classes; ids that differ in case alone stay apart.
    (tmp_path / "val.csv").unlink()
    folders = load_dataset("kinetics400", tmp_path)
    assert folders.list_format == "folders"
    assert shown(folders) == shown(data)


def test_ssv2(tmp_path: Path) -> None:
    make_ssv2(tmp_path)
    data = load_dataset("ssv2", tmp_path)
    assert shown(data)["198186.webm"] == "Lifting up one end of something, then letting it drop down"
    assert len(data.items) == 3


def test_real_lists_give_the_halves_that_the_peers_list(shared: Path, tmp_path: Path) -> None:
    lists = shared / "data" / "lists"
    cases = [
        ("hmdb51", "base", "hmdb_splits_val1.txt", "hmdb_b2n_base_val.txt"),
        ("hmdb51", "novel", "hmdb_splits_val1.txt", "hmdb_b2n_novel_val.txt"),
        ("ucf101", "base", "ucf_splits_val1.txt", "ucf_b2n_base_val.txt"),
        ("ucf101", "novel", "ucf_splits_val1.txt", "ucf_b2n_novel_val.txt"),
    ]
    for name, half, whole, part in cases:
        ours = load_dataset(name, tmp_path, subset=half, list_file=lists / whole)
        theirs = load_dataset(name, tmp_path, subset=half, list_file=lists / part)
        assert set(ours.missing_paths) == set(theirs.missing_paths)
        assert not theirs.unmatched


@pytest.mark.parametrize("base", [0, 1])
def test_numbers_from_zero_or_one_and_over_a_split(tmp_path: Path, base: int) -> None:
    names = class_list("ucf101").names
    files = [f"v_{name.title().replace(' ', '')}_g01_c01.avi" for name in names]
    (tmp_path / "x.txt").write_text("".join(f"{file} {i + base}\n" for i, file in enumerate(files)))
    for file in files:
        (tmp_path / file).touch()
    data = load_dataset("ucf101", tmp_path, list_file=tmp_path / "x.txt")
    assert [item.label for item in data.items] == list(range(101))
    assert any(f"all classes from {base}, as most names" in note for note in data.notes)
    novel = class_list("ucf101").splits["novel"]
    lines = [f"v_{name.title().replace(' ', '')}_g01_c01.avi {i}\n" for i, name in enumerate(novel)]
    (tmp_path / "y.txt").write_text("".join(lines))
    data = load_dataset("ucf101", tmp_path, list_file=tmp_path / "y.txt", subset="novel")
    assert [item.label for item in data.items] == list(range(50))


def test_own_folder_own_list_and_own_definition(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "long_jump" / "a b.mp4", 1)
    write_video(tmp_path / "clips" / "high jump" / "c.mkv", 2)
    folder = load_dataset(tmp_path / "clips", split="test")
    assert shown(folder) == {"a b.mp4": "long_jump", "c.mkv": "high jump"}
    (tmp_path / "mine.csv").write_text(
        "a b.mp4,long jump\nc.mkv,High Jump\nlost.mp4,long jump\nc.mkv,cooking\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nroot: clips\nclasses: [high jump, long jump, never shown]\nsplits: {test: mine.csv}\n"
    )
    data = load_dataset(tmp_path / "mine.yaml")
    assert shown(data) == {"a b.mp4": "long jump", "c.mkv": "high jump"}
    assert data.missing_paths == ["lost.mp4"]
    assert data.unmatched == {"cooking": 1}
    assert data.empty_classes == ["never shown"]


def test_folders_for_training_and_testing(tmp_path: Path) -> None:
    for name in ("train/jump/a.mp4", "train/run/b.mp4", "val/jump/c.mp4", "test/run/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert shown(load_dataset(tmp_path, split="train")) == {"a.mp4": "jump", "b.mp4": "run"}
    assert shown(load_dataset(tmp_path)) == {"d.mp4": "run"}
    assert shown(load_dataset(tmp_path, split="val")) == {"c.mp4": "jump"}
    (part,) = make_plan(DataSource(str(tmp_path)), split="val").parts
    assert [Path(item.path).name for item in part.items] == ["c.mp4"]
    assert load_dataset(tmp_path, split="test").classes == ("jump", "run")  # among all that are trained on
    (tmp_path / "test" / "swim").mkdir()
    (tmp_path / "test" / "swim" / "e.mp4").touch()
    # Classes of its own: zero-shot among these
    assert load_dataset(tmp_path, split="test").classes == ("run", "swim")
    assert load_dataset(tmp_path, split="train").classes == ("jump", "run")
    (tmp_path / "walk").mkdir()  # then train and val are classes, odd as they are
    assert set(load_dataset(tmp_path).classes) == {"train", "val", "test"}


def test_a_root_of_several_data_sets_and_one_whose_videos_bear_its_name(tmp_path: Path) -> None:
    make_ucf101(tmp_path / "ucf")  # UCF-101/ and ucfTrainTestlist/ beside each other
    assert len(load_dataset("ucf101", tmp_path / "ucf").items) == 3
    make_kinetics(tmp_path / "all" / "k400")
    make_hmdb51(tmp_path / "all" / "HMDB51")
    assert len(load_dataset("K400", tmp_path / "all").items) == 5
    assert len(load_dataset("hmdb51", tmp_path / "all", split="full").items) == 6
    with pytest.raises(UsageError, match=r"Looked there, and in a folder ssv2/, for .*validation\.json"):
        load_dataset("ssv2", tmp_path / "all")


@pytest.mark.parametrize("splits", ["test: one.txt", "test: [none.txt, one.txt]", "test: {lists: one.txt}"])
def test_a_definition_may_name_one_list_or_several(tmp_path: Path, splits: str) -> None:
    (tmp_path / "one.txt").write_text("a.mp4 jump\n")
    (tmp_path / "a.mp4").touch()
    (tmp_path / "mine.yaml").write_text(f"name: mine\nroot: .\nsplits: {{{splits}}}\n")
    assert shown(load_dataset(tmp_path / "mine.yaml")) == {"a.mp4": "jump"}


@pytest.mark.parametrize(
    "text", ["splits: [a]", "splits: {test: {odd: 3}}", "splits: {test: {fold: x}}", "subsets: a"]
)
def test_damaged_definitions_are_errors_that_name_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(f"name: bad\nroot: .\n{text}\n")
    with pytest.raises(UsageError, match=r"bad\.yaml"):
        load_dataset(tmp_path / "bad.yaml")


def test_frame_folders(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "clap" / "Forrester_3.avi"
    folder.mkdir(parents=True)
    for number in range(1, 12):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(folder / f"img_{number}.png")
    (tmp_path / "frames.txt").write_text("clap/Forrester_3.avi 11 4\n")
    data = load_dataset("hmdb51", tmp_path, list_file=tmp_path / "frames.txt")
    assert data.classes[data.items[0].label] == "clap"
    assert data.items[0].num_frames == 11
    clip = load_clip(ClipRequest(data.items[0].path, Sampling(frames=11), Preprocess(size=(8, 8)))).pixels
    assert clip[0, :, 4, 4, 0].tolist() == [number * 20 for number in range(1, 12)]  # 2 comes before 10


def test_motion_shapes_clips_are_those_it_renders() -> None:
    from zsar_cli.data import motion_shapes

    data, size = load_motion_shapes("unseen"), motion_shapes.SIZE
    assert len(data.items) == motion_shapes.CLIPS_PER_CLASS["unseen"] * len(data.classes)
    item = data.items[30]
    clip = load_rendered_clip(item.path, Sampling(frames=4), Preprocess(size=(size, size))).pixels
    expected = motion_shapes.render(data.classes[item.label], 30 % 24, split="unseen", frames=4)
    assert (clip[0] == expected).all()
    views = load_rendered_clip(item.path, Sampling(4, views=2), Preprocess(size=(size, size)))
    assert views.pixels.shape == (2, 4, size, size, 3)
    assert views.indices.shape == views.times.shape == (2, 4)


def test_errors_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ZSAR_DATA_ROOT"):
        load_dataset("ucf101")
    with pytest.raises(UsageError, match=r"testlist01\.txt"):
        load_dataset("ucf101", tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        load_dataset("ucf101", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="motion-shapes"):
        load_dataset("ufc101", tmp_path)
    (tmp_path / "bad.yaml").write_text("name: x\nvideos: here\n")
    with pytest.raises(UsageError, match="videos"):
        load_dataset(tmp_path / "bad.yaml")
    (tmp_path / "n.txt").write_text("a.mp4 0\n")
    with pytest.raises(UsageError, match="has numeric labels"):
        load_dataset(tmp_path / "n.txt")
    sets = ["hmdb51", "kinetics400", "kinetics600", "motion-shapes", "scenes", "ssv2", "ucf101"]
    assert dataset_names() == sets


def test_none_in_a_list_is_no_class(tmp_path: Path, caplog) -> None:
    from zsar_cli.training.clips import find_data
    from zsar_cli.training.recipe import Recipe
    from zsar_cli.training.run import Environment

    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    listed = tmp_path / "labels.csv"
    listed.write_text("path,label\na.mp4,run\nb.mp4,jump\nc.mp4,none\nd.mp4,None of these\ngone.mp4,none\n")
    data = load_dataset(listed)
    assert data.classes == ("jump", "run")
    assert shown(data) == {"a.mp4": "run", "b.mp4": "jump"}
    assert [Path(item.path).name for item in data.of_none] == ["c.mp4", "d.mp4"]
    assert data.missing_paths == ["gone.mp4"]
    assert not data.unmatched
    for plan in (make_plan(DataSource(str(listed))), make_plan(DataSource(str(listed)), split="test")):
        assert [len(part.items) for part in plan.parts] == [2]
        assert "2 videos of labels.csv marked none: skipped" in plan.notes[0]
    opened = make_plan(DataSource(str(listed)), "open-set")
    assert [(part.name, part.targets) for part in opened.parts] == [("known", [1, 0]), ("unknown", [-1, -1])]
    assert opened.parts[1].labels == ("jump", "run")
    with caplog.at_level("DEBUG", "zsar_cli"):
        found = find_data(Environment(Recipe(data=str(listed)), tmp_path / "run", max_missing=0.5))
    assert found.dataset.classes == ("jump", "run")
    assert "2 videos of labels.csv marked none" in caplog.text
    named = load_dataset(listed, classes=("run", "none", "jump"))
    assert [named.classes[item.label] for item in named.items] == ["run", "jump", "none"]
    (tmp_path / "folders" / "none").mkdir(parents=True)
    (tmp_path / "folders" / "none" / "a.mp4").write_bytes(b"")
    assert load_dataset(tmp_path / "folders").classes == ("none",)


def test_protocols_choose_videos_and_labels(tmp_path: Path) -> None:
    make_ucf101(tmp_path / "ucf101")
    make_hmdb51(tmp_path / "hmdb51")
    root = str(tmp_path)
    plan = make_plan(DataSource("ucf101", root), "zero-shot")
    assert [part.name for part in plan.parts] == ["test1", "test2", "test3"]
    halves = make_plan(DataSource("ucf101", root), "base-to-novel")
    assert [len(part.labels) for part in halves.parts] == [51, 50]
    together = make_plan(DataSource("ucf101", root), "generalised")
    assert [len(part.labels) for part in together.parts] == [101, 101]
    for part in together.parts:
        assert [part.labels[t] for t in part.targets] == [part.dataset.classes[i.label] for i in part.items]
    opened = make_plan(DataSource("ucf101", root), "open-set", unknown=DataSource("hmdb51", root))
    assert opened.parts[1].labels == opened.parts[0].labels
    assert set(opened.parts[1].targets) == {-1}
    few = make_plan(DataSource("ucf101", root), "few-shot", shots=(2,))
    assert [part.name for part in few.parts] == ["test1"]  # test2 and test3 hold videos of train1
    assert any(line.endswith("YoYo/v_YoYo_g02_c01.avi\tyo yo") for line in few.few_shot_lists[2])
    shapes = make_plan(DataSource("motion-shapes"), split="all")
    assert shapes.protocol == "generalised"
    assert len(set(shapes.parts[0].labels)) == len(shapes.parts[0].labels)
    with pytest.raises(UsageError, match="--unknown"):
        make_plan(DataSource("ucf101", root), "open-set")
    assert json.dumps(plan.notes) == "[]"


def test_the_list_of_motion_shapes_is_that_of_its_renderer():
    from zsar_cli.data import motion_shapes

    listed = class_list("motion-shapes")
    assert listed.names == motion_shapes.class_labels("all")
    groups = {group: motion_shapes.class_labels(group) for group in ("seen", "unseen", "neither")}
    assert listed.splits == groups | {"shifted": groups["unseen"]}
