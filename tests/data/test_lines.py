"""Which column of a list is the path and which the label, decided from all its rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsar_cli.data.annotations import read_listing
from zsar_cli.data.dataset import load_dataset
from zsar_cli.data.lines import parse_lines, read_lines
from zsar_cli.data.rows import Row
from zsar_cli.data.video_index import VideoIndex
from zsar_cli.errors import UsageError

WALK, RUN = Row("train/a.mp4", "walking"), Row("train/b c.mp4", "running")
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    "text",
    [
        "path,label\ntrain/a.mp4,walking\ntrain/b c.mp4,running\n",
        "file_name;label\r\ntrain/a.mp4;walking\r\ntrain/b c.mp4;running\r\n\r\n",
        "sep=;\nDatei;Klasse\ntrain/a.mp4;walking\ntrain/b c.mp4;running",
        "label,file_name\nwalking,train/a.mp4\nrunning,train/b c.mp4\n",
        "walking,train/a.mp4\nrunning,train/b c.mp4\n",
        ",path,label\n0,train/a.mp4,walking\n1,train/b c.mp4,running\n",
        "path,label_name,label\ntrain/a.mp4,walking,0\ntrain/b c.mp4,running,1\n",
        "video,label,class_name\ntrain/a.mp4,0,walking\ntrain/b c.mp4,1,running\n",
        "train/a.mp4,walking,3,0\ntrain/b c.mp4,running,4,1\n",
        "train/a.mp4,0,walking\ntrain/b c.mp4,1,running\n",
        "train/a.mp4,walking,train\ntrain/b c.mp4,running,train\n",
        "train/a.mp4  walking  165  240  -1  -1  \ntrain/b c.mp4  running  220  315.5  -1  -1  \n",
        "train/a.mp4 walking 0\ntrain/b c.mp4 running 1\n",
        "train/a.mp4\twalking\t0.0\t9.5\ntrain/b c.mp4\trunning\t1\t2\n",
        '"train/a.mp4","walking"\n"train/b c.mp4","running"\n',
        "# a comment\n#\ntrain/a.mp4 walking\n\n   \n## more\ntrain/b c.mp4 running",
        "#path label\ntrain/a.mp4 walking\ntrain/b c.mp4 running\n",
        "Video Klasse\ntrain/a.mp4 walking\ntrain/b c.mp4 running\n",
        "train/a.mp4,walking,\ntrain/b c.mp4,running,\n",
        "train/a.mp4: walking\ntrain/b c.mp4: running\n",
        "train/a.mp4|walking\ntrain/b c.mp4|running\n",
        "\ufefftrain/a.mp4 walking\r\ntrain/b c.mp4 running\r\n",
        "video,label,start,end\ntrain/a.mp4,walking,0,5\ntrain/b c.mp4,running,5,9\n",
        '{"file_name": "train/a.mp4", "label": "walking"}\n{"file_name": "train/b c.mp4", "label": "running"}\n',
        '[{"video": "train/a.mp4", "label": 0, "label_name": "walking"}, '
        '{"video": "train/b c.mp4", "class": "running"}]',
        '{"metainfo": {"classes": ["x"]}, "data_list": [{"filename": "train/a.mp4", "label": "walking"}, '
        '{"filename": "train/b c.mp4", "label": "running"}]}',
        '{"train/a.mp4": "walking", "train/b c.mp4": "running"}',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_lists_of_any_shape_give_paths_and_labels(text: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(text.removeprefix("\ufeff" if encoding == "utf-16" else "").encode(encoding))
    assert read_listing(path).rows == (WALK, RUN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 part 2\nb.mp4 part 3\n", [("a.mp4", "part 2"), ("b.mp4", "part 3")]),
        ("a.mp4,lifting, then letting go\nb.mp4,run\n", [("a.mp4", "lifting, then letting go"), ("b.mp4", "run")]),
        ("a.mp4,run, then jump\nb.mp4,sit, then stand\n", [("a.mp4", "run, then jump"), ("b.mp4", "sit, then stand")]),
        ("34870;Drumming, twice\n56557;Sliding\n", [("34870", "Drumming, twice"), ("56557", "Sliding")]),
        ("#20_Rhythm_clap.avi 4\n# x\n#a b.avi 5\n", [("#20_Rhythm_clap.avi", 4), ("#a b.avi", 5)]),
        ("a, b.mp4\nc.mp4\n", [("a, b.mp4", None), ("c.mp4", None)]),
        ("id,label\n17,run\n18,walk\n", [("17", "run"), ("18", "walk")]),
        ("Fall001_x Fall 165 240 -1 -1\nCalm003_x Calm -1 -1 -1 -1\n", [("Fall001_x", "Fall"), ("Calm003_x", "Calm")]),
        ("path\nrun/a.mp4\nwalk/b.mp4\n", [("run/a.mp4", None), ("walk/b.mp4", None)]),
    ],
)  # fmt: skip
def test_what_belongs_to_a_path_or_label_stays(text: str, expected) -> None:
    assert [(row.path, row.label) for row in parse_lines(text)] == expected


def test_several_labels_are_several_whether_numbers_or_names() -> None:
    assert parse_lines("a.mp4,run\nb.mp4,run,jump\nc.mp4,jump\n")[1] == Row("b.mp4", "run", None, ("jump",))
    assert parse_lines("a.mp4\trun\tjump\nb.mp4\trun\n")[0] == Row("a.mp4", "run", None, ("jump",))
    assert parse_lines("path,labels\na.mp4,0 3\nb.mp4,1\n")[0] == Row("a.mp4", 0, None, (3,))


def test_columns_that_were_left_aside_are_told() -> None:
    for text, what in (
        ("a.mp4,run,3,0\nb.mp4,walk,4,1\n", "ignored: column 3, column 4"),
        ("path,name,label\na.mp4,x,run\nb.mp4,y,walk\n", "ignored: name"),
        ("video,label,start,end\na.mp4,run,0,5\n", "each video is used as a whole"),
        ("a.mp4 run 1 2\nb.mp4 walk 3 4\n", "ignored: the numbers after each label"),
    ):
        assert any(what in note for note in read_lines(text)[1]), text


@pytest.mark.parametrize(
    ("text", "column", "labels"),
    [
        ("a.mp4,red,run\nb.mp4,blue,walk\n", "3", ["run", "walk"]),
        ("video,colour,verb\na.mp4,red,run\nb.mp4,blue,walk\n", "verb", ["run", "walk"]),
        ("video,colour,verb\na.mp4,red,run\nb.mp4,blue,walk\n", "Colour", ["red", "blue"]),
        ("a.mp4 0 3\nb.mp4 1\n", "2", [0, 1]),
        ("a b.mp4 0 3\nb.mp4 1 4\n", "3", [3, 4]),
    ],
)
def test_the_label_column_may_be_named(text: str, column: str, labels: list[str | int]) -> None:
    rows, _ = read_lines(text, label_column=column)
    assert [row.label for row in rows] == labels


def test_two_columns_that_may_be_the_label_are_refused_with_the_option(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    for text in ("a.mp4,red,run\nb.mp4,blue,walk\n", "video,colour,verb\na.mp4,red,run\nb.mp4,blue,walk\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"list\.csv.*--label-column"):
            read_listing(path)
    with pytest.raises(UsageError, match="it has video, colour, verb"):
        read_listing(path, label_column="verbs")
    with pytest.raises(UsageError, match="1 to 2"):
        read_lines("a.mp4,run\nb.mp4,walk\n", label_column="3")


def test_a_list_of_several_splits_gives_the_one_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("video,label,split\na.mp4,run,train\nb.mp4,walk,validation\n")
    assert read_listing(path, split="train").rows == (Row("a.mp4", "run"),)
    assert read_listing(path).rows == (Row("b.mp4", "walk"),)
    official = {
        "---QUuC4vJs": {"annotations": {"label": "run", "segment": [84.0, 94.0]}, "subset": "validate"},
        "x": {"annotations": {"label": "walk", "segment": [0, 10]}, "subset": "train"},
    }
    (tmp_path / "k.json").write_text(json.dumps(official))
    assert read_listing(tmp_path / "k.json").rows == (Row("---QUuC4vJs_000084_000094", "run"),)


def test_the_disk_says_which_column_is_the_video(tmp_path: Path) -> None:
    for name in ("a.mp4", "7,b.mp4", "3 c.mp4"):
        (tmp_path / name).touch()
    for name in ("imgs", "clip 2"):
        (tmp_path / name).mkdir()
    kind = VideoIndex(tmp_path).kind
    assert parse_lines("0,a.mp4,run\n", kind=kind) == [Row("a.mp4", "run")]
    assert parse_lines("7,b.mp4,run\n", kind=kind) == [Row("7,b.mp4", "run")]
    assert parse_lines("playing guitar a.mp4\n0 a.mp4\n", kind=kind) == [
        Row("a.mp4", "playing guitar"),
        Row("a.mp4", 0),
    ]
    assert parse_lines("3 c.mp4\n", kind=kind) == [Row("3 c.mp4", None)]
    assert parse_lines("imgs 0 5 127\n", kind=kind) == [Row("imgs", 127, 5)]
    assert parse_lines("clip 2 5 127\n", kind=kind) == [Row("clip 2", 127, 5)]


def test_kinetics_csv_as_excel_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "val.csv"
    path.write_bytes(
        "\ufeffsep=;\r\nlabel;youtube_id;time_start;time_end;split\r\nrun;x;1;2;val\r\n".encode()
    )
    assert read_listing(path, format="kinetics").rows == (Row("x_000001_000002", "run"),)
    path.write_bytes("label;youtube_id;time_start;time_end;split\r\nrun;x;1;2;val\r\n".encode("utf-16"))
    assert read_listing(path).rows == (Row("x_000001_000002", "run"),)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("l.txt", b"\0\0\0\x20ftypisom\0", "not a text file"),
        ("l.csv", b"a.mp4;Fu\xdfball\n", "cannot be printed"),
        ("l.csv", b"a.mp4,\x1b[2Jrun\n", "cannot be printed"),
        ("l.txt", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("l.json", b'[{"filename": "a.mp4", "label": {"x": 1}}]', "--label-column"),
        ("l.json", b'{"a": {"annotations": {"label": "x", "segment": ["p", 2]}}}', "segment"),
        ("l.jsonl", b'{"file_name": "a.mp4"}\n{"label": 3}\n', "Record 2"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused_in_a_sentence(
    name: str, content: bytes, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_listing(tmp_path / name)
    assert what in str(caught.value)
    assert name in str(caught.value)
    assert str(caught.value).isprintable()


def test_bytes_of_file_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"caf\xe9.mp4 run\n")
    (row,) = read_listing(tmp_path / "l.txt").rows
    assert row == Row("caf\udce9.mp4", "run")


words = st.text(st.sampled_from("abcdeXYZ\xe9\u8dd1"), min_size=1, max_size=6)
labels = st.lists(words, min_size=2, max_size=6, unique_by=str.casefold)


@FUZZ
@given(
    labels,
    st.sampled_from("\t;,|"),
    st.permutations(["file_name", "label", "label_id", "split"]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_columns_in_any_order_under_a_header(names, mark: str, header, quoted: bool, end: str) -> None:
    expected = [Row(f"clips/{i} {name}.mp4", name) for i, name in enumerate(names)]
    cells = {"file_name": "{0.path}", "label": "{0.label}", "label_id": "{1}", "split": "val"}
    lines = [mark.join(header)]
    for i, row in enumerate(expected):
        line = [cells[column].format(row, i) for column in header]
        lines.append(mark.join(f'"{cell}"' if quoted else cell for cell in line))
    assert parse_lines(end.join(lines)) == expected


@FUZZ
@given(labels, st.sampled_from("\t;,|"), st.integers(0, 3), st.booleans())
def test_numbers_beside_a_name_are_no_labels(names, mark: str, count: int, blank: bool) -> None:
    expected = [Row(f"{i}.mp4", name) for i, name in enumerate(names)]
    mark = " " if blank else mark
    lines = [
        mark.join([row.path, str(row.label), *map(str, range(i, i + count))])
        for i, row in enumerate(expected)
    ]
    assert parse_lines("\n".join(lines)) == expected


@FUZZ
@given(st.text(st.sampled_from("a1.mp4,;\t |\"'#\n \u2028\x00\x1b\udce9"), max_size=60), st.none() | words)
def test_any_text_is_rows_or_an_error(text: str, column: str | None) -> None:
    try:
        rows, _ = read_lines(text, label_column=column)
    except UsageError:
        return
    assert all(isinstance(row.path, str) for row in rows)


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_label_is_no_class(empty: str, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    rows = [
        {"video": name, "label": label}
        for name, label in zip(("a.mp4", "b.mp4", "c.mp4"), ("run", empty, "walk"), strict=True)
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    data = load_dataset(tmp_path / "list.json")
    assert (data.classes, data.unmatched) == (("run", "walk"), {empty: 1})
    with pytest.raises(UsageError, match="1 have an unknown label"):
        data.check_missing(0.1)


def test_the_cases_that_were_read_wrongly(shared: Path) -> None:
    folder = shared / "cases" / "lists"
    root = folder / "root"
    expected = {
        "ucf_crime_style.txt": ["Fall", "Fire", "Fire", "Calm"],
        "moments_style.csv": ["laughing", "greeting", "laughing"],
    }
    for name in ("two_label_cols.csv", "u16.csv", "comment.txt", "metadata.jsonl", "label_first.csv"):
        expected[name] = ["walking", "running"]
    for name, wanted in expected.items():
        data = load_dataset(folder / name, root)
        assert [data.classes[item.label] for item in data.items] == wanted, name
        data.check_missing(0)
    numbered = load_dataset(folder / "multilabel.txt", root, classes=("a", "b", "c", "d"))
    with pytest.raises(UsageError, match="--label-column"):
        numbered.check_missing(0.1)
    load_dataset(
        folder / "multilabel.txt", root, classes=("a", "b", "c", "d"), label_column="2"
    ).check_missing(0)


@pytest.mark.parametrize(
    "text",
    [
        "path,labels\na.mp4,run;jump\nb.mp4,walk\n",
        "path,labels\na.mp4,run|jump\nb.mp4,walk\n",
        'path,labels\na.mp4,"run,jump"\nb.mp4,walk\n',
        """path,labels\na.mp4,"['run', 'jump']"\nb.mp4,['walk']\n""",
        'path;labels\na.mp4;["run", "jump"]\nb.mp4;["walk"]\n',
        'a.mp4,"run,jump"\nb.mp4,walk\nc.mp4,jump\n',
        "a.mp4 run|jump\nb.mp4 walk\n",
        "a.mp4,run;jump\nb.mp4,walk\nc.mp4,run\n",
    ],
)
def test_several_labels_in_one_cell_are_several_labels(text: str) -> None:
    rows = read_lines(text)[0]
    assert [(row.label, row.others) for row in rows[:2]] == [("run", ("jump",)), ("walk", ())]


def test_several_numbers_in_one_cell_are_several_labels() -> None:
    rows = read_lines('path,labels\na.mp4,"[0, 3]"\nb.mp4,"[1]"\n')[0]
    assert [(row.label, row.others) for row in rows] == [(0, (3,)), (1, ())]


@pytest.mark.parametrize("label", ["lifting it, then letting go", "run; then jump", "[a thing] falls"])
def test_a_label_with_a_comma_is_one_label(label: str) -> None:
    assert [row.label for row in read_lines(f'path,label\na.mp4,"{label}"\nb.mp4,walk\n')[0]] == [
        label,
        "walk",
    ]


def test_a_comment_behind_a_label_is_no_part_of_it() -> None:
    rows = read_lines("a.mp4 run # twice\nb.mp4 walk\n#2 clip.mp4 jump\n")[0]
    assert [row.label for row in rows] == ["run", "walk", "jump"]


def test_times_of_one_event_and_of_several_are_no_part_of_a_label() -> None:
    rows = read_lines("a.mp4 fall 165 240 -1 -1\nb.mp4 fire 1 2\nc.mp4 step 1 10 20\n")[0]
    assert [row.label for row in rows] == ["fall", "fire", "step 1"]


def test_a_code_of_each_row_is_not_taken_for_its_label() -> None:
    with pytest.raises(UsageError, match="verb_class, noun_class"):
        read_lines("narration_id,video_id,verb_class,noun_class\nP01_1,a.mp4,3,4\nP01_2,b.mp4,5,6\n")
