"""What a list's numbers mean: by the names in its paths, by its own name, by what was asked for, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsar_cli.data.annotations import read_listing
from zsar_cli.data.dataset import load_dataset
from zsar_cli.data.label_ids import class_in_path, read_numbers, split_in_name
from zsar_cli.data.rows import Row
from zsar_cli.errors import UsageError
from zsar_cli.evaluation.protocols import DataSource, make_plan
from zsar_cli.text.class_lists import ClassList, NameMatcher, class_list

HMDB = class_list("hmdb51")
MATCHER = NameMatcher(HMDB.names, HMDB.aliases)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_numbers_mean_what_the_files_are_called(shared: Path, split: int) -> None:
    rows = read_listing(shared / "data" / "lists" / f"hmdb_splits_val{split}.txt").rows
    found = read_numbers(rows, HMDB)
    expected = {20: "kick", 21: "kick ball", 44: "sword", 45: "sword exercise"}
    assert {number: found.classes[number] for number in expected} == expected
    named = [HMDB.names[place] for row in rows if (place := class_in_path(row.path, MATCHER)) is not None]
    assert len(named) == 1530
    assert sum(found.classes[row.label] != name for row, name in zip(rows, named, strict=True)) == 0
    assert "51 of 51 numbers determined by the names in the paths, 4 of them against" in found.notes[0]
    assert not any("not the one" in note for note in found.notes)


def test_numbers_that_a_class_list_has_the_other_way_round() -> None:
    names = {20: "kick", 21: "kick_ball", 44: "sword", 45: "sword_exercise", 0: "brush_hair"}
    rows = [
        Row(f"Reel_Kick_Films_{name}_u_cm_np1_fr_med_{i}.avi", number)
        for number, name in names.items()
        for i in range(3)
    ]
    rows += [Row("no_name_here.avi", 1)]
    found = read_numbers(rows, HMDB)
    # The other numbers follow no order that is known: one whose videos have no name is left without a class.
    assert found.classes == {
        20: "kick",
        21: "kick ball",
        44: "sword",
        45: "sword exercise",
        0: "brush hair",
    }


def test_one_video_in_the_wrong_class_is_outvoted_and_told() -> None:
    rows = [Row(f"kick/{i}.mp4", 3) for i in range(19)] + [Row("wave/x.mp4", 3), Row("wave/y.mp4", 4)]
    found = read_numbers(rows, HMDB)
    assert found.classes == {3: "kick", 4: "wave"}
    assert any(note.startswith("1 rows have a number") for note in found.notes)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("kick__Bruce_Lee_sidekick_kick_f_cm_np1_ri_med_1.avi", "kick"),
        ("Nike_kick_ball_f_cm_np1_fr_med_0.avi", "kick ball"),
        ("The_Duel_-_Reel_Kick_Films_fencing_f_cm_np2_le_bad_0.avi", "fencing"),
        ("videos/draw_sword/0001.mp4", "draw sword"),
        ("my kick-ball video 3.mp4", "kick ball"),
        ("kicking.mp4", None),
        ("walk then run.mp4", None),
        ("C:\\videos\\sit_up\\1.avi", "sit up"),
    ],
)
def test_the_longest_class_name_in_a_path(path: str, name: str | None) -> None:
    place = class_in_path(path, MATCHER)
    assert (None if place is None else HMDB.names[place]) == name


@pytest.mark.parametrize(
    ("list_name", "split"),
    [
        ("ZS_split1_K600_eval.txt", "split1"),
        ("k600/test_split2_exist.txt", "split2"),
        ("k600_split3/test.csv", "split3"),
        ("k160_test_split_1.txt", "split1"),
        ("k600/val.txt", None),
        ("split1/split2.txt", "split2"),
        ("split1_and_split2.txt", None),
        ("split10.txt", None),
    ],
)
def test_a_list_may_be_named_for_its_split(list_name: str, split: str | None) -> None:
    assert split_in_name(list_name, ["split1", "split2", "split3"]) == split


def k600_list(folder: Path, name: str, classes: int = 160) -> Path:
    path = folder / name
    path.write_text("".join(f"train/{i:011d}_000001_000011.mp4 {i}\n" for i in range(classes)))
    for i in range(classes):
        (folder / f"{i:011d}.mp4").touch()
    return path


def test_a_third_of_kinetics600_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    unnamed, named = k600_list(tmp_path, "mine.txt"), k600_list(tmp_path, "ZS_split2_K600_eval.txt")
    with pytest.raises(UsageError, match=r"--split \(split1, split2, split3, all\)"):
        load_dataset("kinetics600", tmp_path, list_file=unnamed)
    with pytest.raises(UsageError, match="--split"):
        make_plan(DataSource("kinetics600", str(tmp_path), str(unnamed)))
    third = class_list("kinetics600").splits["split2"]
    for data in (
        load_dataset("kinetics600", tmp_path, list_file=unnamed, subset="split2"),
        load_dataset("kinetics600", tmp_path, list_file=named, subset="split2"),
    ):
        assert [data.classes[item.label] for item in data.items] == list(third)
    with pytest.raises(UsageError, match="split2, but split1"):
        load_dataset("kinetics600", tmp_path, list_file=named, subset="split1")
    (part,) = make_plan(DataSource("kinetics600", str(tmp_path), str(named))).parts
    assert (part.name, part.labels, len(part.items)) == ("split2", third, 160)
    whole = k600_list(tmp_path, "all.txt", 600)
    assert len(load_dataset("kinetics600", tmp_path, list_file=whole).items) == 600
    assert len(make_plan(DataSource("kinetics600", str(tmp_path), str(whole))).parts) == 3
    (tmp_path / "all.txt").unlink()
    unnamed.rename(tmp_path / "val.txt")  # found by its name, and read for each of the splits
    named.unlink()
    with pytest.raises(UsageError, match="split2 and split1 both"):
        make_plan(DataSource("kinetics600", str(tmp_path)))
    first = k600_list(tmp_path, "first.txt", 160)
    data = load_dataset("kinetics600", tmp_path, list_file=first, subset="all")
    assert data.classes[data.items[159].label] == class_list("kinetics600").names[159]


def test_a_half_of_kinetics400_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    unnamed, named = k600_list(tmp_path, "val.txt", 200), k600_list(tmp_path, "novel_val.txt", 200)
    with pytest.raises(UsageError, match="base, novel, all"):
        load_dataset("kinetics400", tmp_path, list_file=unnamed)
    data = load_dataset("kinetics400", tmp_path, list_file=named)
    assert data.counted == "novel"
    assert [data.classes[item.label] for item in data.items] == list(
        class_list("kinetics400").splits["novel"]
    )
    base = load_dataset("kinetics400", tmp_path, list_file=unnamed, subset="seen")
    assert base.counted == "base"


def test_numbers_that_no_order_holds() -> None:
    with pytest.raises(UsageError, match="only 2 classes"):
        read_numbers([Row("a.mp4", 0), Row("b.mp4", 7)], ClassList("mine", ("x", "y")))
    found = read_numbers([Row("a.mp4", -1), Row("b.mp4", 1)], ClassList("mine", ("x", "y")))
    assert found.classes == {1: "y"}


def test_videos_with_several_labels_are_told_and_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4 0 3\nb.mp4 1\nc.mp4 3\nd.mp4 50\n")
    for name in "abcd":
        (tmp_path / f"{name}.mp4").touch()
    data = load_dataset("hmdb51", tmp_path, list_file=tmp_path / "list.txt", subset="all")
    assert data.unmatched == {"more than one label": 1}
    assert len(data.items) == 3
    with pytest.raises(UsageError, match="1 have more than one label"):
        data.check_missing(0.1)
