"""Annotation lists in every form, real ones whole, and any path and label that a line can hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar_cli.data.annotations import parse_lines, read_folders, read_listing
from zsar_cli.data.dataset import load_dataset
from zsar_cli.data.rows import Row
from zsar_cli.errors import UsageError
from zsar_cli.text.labels import load_labels

# Rows of real lists: a change of reader that loses or merges one shows here.
REAL = {
    "hmdb_b2n_base_val.txt": (780, 26),
    "hmdb_b2n_fs_base_s1_train.txt": (416, 26),
    "hmdb_b2n_novel_val.txt": (750, 25),
    "hmdb_splits_val1.txt": (1530, 51),
    "hmdb_splits_val2.txt": (1530, 51),
    "hmdb_splits_val3.txt": (1530, 51),
    "k400_val.txt": (19877, 400),
    "k600_zs_split1_head2000.txt": (2000, 23),
    "ucf_b2n_base_val.txt": (2088, 51),
    "ucf_b2n_fs_base_s1_train.txt": (816, 51),
    "ucf_b2n_novel_val.txt": (1695, 50),
    "ucf_splits_val1.txt": (3783, 101),
    "ucf_splits_val2.txt": (3734, 101),
    "ucf_splits_val3.txt": (3696, 101),
}


@pytest.mark.parametrize("name", REAL)
def test_real_lists_are_read_whole(shared: Path, name: str) -> None:
    listing = read_listing(shared / "data" / "lists" / name)
    assert (len(listing.rows), len({row.label for row in listing.rows})) == REAL[name]
    assert all(row.path.endswith((".avi", ".mp4")) and isinstance(row.label, int) for row in listing.rows)
    assert listing.format == "lines"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "val/0wR5jVB-WPk_000417_000427.mp4 0\r\nb.mp4 12\r\n\r\n",
            [("val/0wR5jVB-WPk_000417_000427.mp4", 0), ("b.mp4", 12)],
        ),
        ("val/abseiling/a.mp4,0\nb c.mp4,1", [("val/abseiling/a.mp4", 0), ("b c.mp4", 1)]),
        ("my clip.mp4 3\nother.mp4 4", [("my clip.mp4", 3), ("other.mp4", 4)]),
        ("a.mp4\tplaying guitar\nb c.mp4\tyo yo", [("a.mp4", "playing guitar"), ("b c.mp4", "yo yo")]),
        ("a b.mp4, hurling (sport)\nc;d.avi; golf", [("a b.mp4", "hurling (sport)"), ("c;d.avi", "golf")]),
        ("path,label\na.mp4,run\nb.mp4,walk", [("a.mp4", "run"), ("b.mp4", "walk")]),
        ('"a, b.mp4",3\nc.mp4,4', [("a, b.mp4", 3), ("c.mp4", 4)]),
        ("#20_Rhythm_clap.avi 4\nA&B;_[HD] x.avi 4", [("#20_Rhythm_clap.avi", 4), ("A&B;_[HD] x.avi", 4)]),
        (
            "K/v_K_g01_c01.avi\r\nK/v_K_g01_c02.avi\r\n",
            [("K/v_K_g01_c01.avi", None), ("K/v_K_g01_c02.avi", None)],
        ),
        ("clip 3 two.mp4 lifting it, then letting go\n", [("clip 3 two.mp4", "lifting it, then letting go")]),
        ("視頻 1.mp4 跑步\n", [("視頻 1.mp4", "跑步")]),
    ],
)
def test_lines(text: str, expected: list[tuple[str, int | str | None]]) -> None:
    assert [(row.path, row.label) for row in parse_lines(text)] == expected


def test_frame_folders_even_where_they_are_named_avi() -> None:
    rows = parse_lines("brush_hair/Brushing_0 469 0\nclap/Forrester_3.avi 53 4\n")
    assert rows == [Row("brush_hair/Brushing_0", 0, 469), Row("clap/Forrester_3.avi", 4, 53)]


paths = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=30).map(
    lambda text: text.strip().strip('"') or "x"
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(paths, st.integers(0, 999)), min_size=1, max_size=8),
    st.sampled_from([" ", "\t", ",", ";", ", "]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_path_comes_back_as_it_went_in(rows, separator: str, end: str) -> None:
    listed = [(f"{path}.mp4", label) for path, label in rows]
    text = end.join(f"{path}{separator}{label}" for path, label in listed)
    assert [(row.path, row.label) for row in parse_lines(text)] == listed


def test_hash_is_of_what_the_list_says(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x.mp4 0\r\ny.mp4 1\r\n")
    (tmp_path / "b.txt").write_bytes(b"x.mp4,0\ny.mp4,1")
    (tmp_path / "c.txt").write_bytes(b"x.mp4,0\ny.mp4,2")
    one, two, three = (read_listing(tmp_path / f"{name}.txt").hash for name in "abc")
    assert one == two != three


def test_kinetics_csv_without_labels_or_with_several_splits(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("youtube_id,time_start,time_end,split\n---QUuC4vJs,84,94,test\n")
    assert read_listing(path).rows == (Row("---QUuC4vJs_000084_000094", None),)
    path.write_text("label,youtube_id,time_start,time_end,split\na,x,1,2,train\nb,y,3,4,validate\n")
    assert [row.label for row in read_listing(path).rows] == ["b"]
    assert [row.label for row in read_listing(path, split="train").rows] == ["a"]


def test_mmaction_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(
        json.dumps([{"filename": "a.mp4", "label": 3}, {"frame_dir": "b", "label": 1, "total_frames": 9}])
    )
    assert read_listing(path).rows == (Row("a.mp4", 3), Row("b", 1, 9))


@pytest.mark.parametrize("content", ["", "[1]", "{", "[]"])
def test_damaged_json_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UsageError, match=r"bad\.json"):
        read_listing(tmp_path / "bad.json")


def test_class_maps(tmp_path: Path) -> None:
    forms = {
        "classInd.txt": "1 Archery\r\n2 Yo Yo\r\n",
        "labels.csv": 'id,name\r\n0,"Archery"\r\n1,Yo Yo\r\n',
        "labels.json": '{"Archery": "0", "Yo Yo": "1"}',
        "index.json": '{"1": "Yo Yo", "0": "Archery"}',
        "names.txt": "Archery\nYo Yo",
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert load_labels(str(tmp_path / name)).names == ("Archery", "Yo Yo"), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test.mp4 0 3\n", [("test.mp4", 0, (3,))]),
        ("x.mp4 3 4\ny.mp4 5\n", [("x.mp4", 3, (4,)), ("y.mp4", 5, ())]),
        ("x.mp4,30,4\ny.mp4,50,6\n", [("x.mp4", 30, (4,)), ("y.mp4", 50, (6,))]),
    ],
)
def test_several_labels_of_a_video_are_kept_apart_from_counts_of_frames(text: str, expected) -> None:
    rows = parse_lines(text)
    assert [(row.path, row.label, row.others) for row in rows] == expected
    assert all(row.frame_count is None for row in rows)


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_names_that_end_in_a_number_keep_it(separator: str) -> None:
    text = "".join(f"clip {number}{separator}{number % 2}\n" for number in range(12))
    assert parse_lines(text) == [Row(f"clip {number}", number % 2) for number in range(12)]
    assert parse_lines("take 1.mp4 part 2\nb.mp4 part 3\n") == [
        Row("take 1.mp4", "part 2"),
        Row("b.mp4", "part 3"),
    ]


def test_the_disk_says_whether_a_path_is_a_folder_of_frames() -> None:
    text = "a_clap.avi 53 4\nb_clap.avi 60 4\n"
    assert parse_lines(text, kind=lambda path: "folder")[0] == Row("a_clap.avi", 4, 53)
    assert parse_lines(text, kind=lambda path: "file")[0] == Row("a_clap.avi", 53, None, (4,))
    assert parse_lines("clip 2 5\n", kind=lambda path: "folder") == [Row("clip", 5, 2)]
    assert parse_lines("clip 20 5\n", kind=lambda path: "file") == [Row("clip 20", 5)]
    assert parse_lines(text, frames=True)[1] == Row("b_clap.avi", 4, 60)


def test_rows_of_a_csv_with_ids_count_in_their_order(tmp_path: Path, caplog) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,name\n1,Yo Yo\n0,Archery\n")
    assert load_labels(str(path)).names == ("Yo Yo", "Archery")
    assert "not in order" in caplog.text
    path.write_text("1,Yo Yo\n0,Archery\n")  # without a header the numbers are all there is
    assert load_labels(str(path)).names == ("Archery", "Yo Yo")


@pytest.mark.parametrize("content", ["{", '{"a": 0, "b": "c"}', "[" * 3])
def test_damaged_class_maps_are_errors_that_name_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(UsageError, match=r"map\.json"):
        load_labels(str(tmp_path / "map.json"))


@pytest.mark.parametrize(
    "content",
    [
        '{"run": ["a.mp4"], "walk": ["b.mp4", "c.mp4"]}',
        '[["a.mp4", "run"], ["b.mp4", "walk"], ["c.mp4", "walk"]]',
        '{"version": 1, "database": {"a.mp4": {"annotations": [{"label": "run"}]}, "b.mp4": {"label": "walk"}, '
        '"c.mp4": {"label": "walk"}}}',
        '{"taxonomy": [{"nodeId": 1, "nodeName": "run"}], "database": {"a.mp4": {"label": "run"}, '
        '"b.mp4": {"label": "walk"}, "c.mp4": {"label": "walk"}}}',
    ],
)
def test_json_of_other_shapes_names_videos_and_labels(tmp_path: Path, content: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    rows = read_listing(path).rows
    assert [(row.path, row.label) for row in rows] == [("a.mp4", "run"), ("b.mp4", "walk"), ("c.mp4", "walk")]


def test_json_records_whose_label_has_another_name_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"file_name": "x/a.mp4", "text": "run"}\n{"file_name": "x/b.mp4", "text": "walk"}\n')
    listing = read_listing(path)
    assert [row.label for row in listing.rows] == ["run", "walk"]
    assert "labels are taken from 'text'" in listing.notes
    path.write_text('{"file_name": "x/a.mp4", "verb": "run", "noun": "dog"}\n')
    with pytest.raises(UsageError, match="verb, noun"):
        read_listing(path)
    assert read_listing(path, label_column="noun").rows[0].label == "dog"
    path.write_text('{"file_name": "x/a.mp4"}\n')
    assert read_listing(path).rows[0].label is None


def test_what_is_wrong_is_told_briefly(tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text('{"a": ' + "9" * 100_000 + ', "b": "c"}')
    wide = tmp_path / "wide.csv"
    wide.write_text("path" + ",x" * 10_000 + "\nv.mp4" + ",y" * 10_000 + "\n")
    for ask in (
        lambda: load_labels(str(names), []),
        lambda: load_dataset(wide, tmp_path),
        lambda: load_dataset("a" * 5000, tmp_path),
    ):
        with pytest.raises(UsageError) as caught:
            ask()
        assert len(str(caught.value)) < 1000


def test_a_folder_of_frames_that_cannot_be_listed_is_one_clip(tmp_path: Path, monkeypatch) -> None:
    for name in ("open", "shut"):
        (tmp_path / "jumping" / name).mkdir(parents=True)
        (tmp_path / "jumping" / name / "0.jpg").write_bytes(b"")
    real = os.listdir

    def listdir(folder: str) -> list[str]:
        if str(folder).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr("zsar_cli.video.find.os.listdir", listdir)
    assert {row.path for row in read_folders(tmp_path)} == {"jumping/open", "jumping/shut"}
