"""Which videos an argument stands for."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import pytest

from zsar_cli.data.annotations import read_folders
from zsar_cli.data.dataset import load_dataset
from zsar_cli.data.video_index import VideoIndex
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.prediction.inputs import find_videos
from zsar_cli.video.container import check_path
from zsar_cli.video.images import image_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MKV", "notes.txt", ".c.mp4", "z/d.avi", "z/y/e.webm", ".git/f.mp4", "k[1].mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(tree: Path, *inputs: str | Path, stdin: bytes = b"", null: bool = False) -> list[str]:
    found = find_videos([str(given) for given in inputs], io.BytesIO(stdin), null=null)
    return [os.path.relpath(path, tree) for path in found]


def test_a_directory_is_searched_in_sorted_order(tree: Path) -> None:
    assert names(tree, tree) == ["a.MKV", "b.mp4", "k[1].mp4", "z/d.avi", "z/y/e.webm"]


def test_one_path_is_not_taken_for_its_letters(tree: Path) -> None:
    several = list(find_videos([str(tree)]))
    assert list(find_videos(str(tree))) == list(find_videos(tree)) == list(find_videos([tree])) == several


def test_patterns(tree: Path) -> None:
    assert names(tree, tree / "*.mp4") == ["b.mp4", "k[1].mp4"]
    assert names(tree, tree / "**" / "*.webm") == ["z/y/e.webm"]
    assert names(tree, tree / "k[1].mp4") == ["k[1].mp4"]  # a file of that name is no pattern
    with pytest.raises(UsageError, match="matches"):
        names(tree, tree / "*.ogv")


def test_no_video_comes_twice(tree: Path) -> None:
    b = tree / "b.mp4"
    assert names(tree, b, tree, f"{tree}/./b.mp4", f"{tree}//b.mp4", "-", stdin=f"{b}\n{b}\n".encode()) == [
        "b.mp4",
        "a.MKV",
        "k[1].mp4",
        "z/d.avi",
        "z/y/e.webm",
    ]


def test_a_list(tree: Path) -> None:
    lines = b"x y.mp4\r\n\n  \nmissing*.mp4\n\xff.mp4\nlast.mp4"
    found = list(find_videos(["-"], io.BytesIO(lines)))
    assert [os.fsencode(path) for path in found] == [b"x y.mp4", b"missing*.mp4", b"\xff.mp4", b"last.mp4"]


def test_a_list_ended_by_nul(tree: Path) -> None:
    lines = b"two\nlines.mp4\0b.mp4\0"
    assert list(find_videos(["-"], io.BytesIO(lines), null=True)) == ["two\nlines.mp4", "b.mp4"]


def test_a_list_is_read_as_it_comes(tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(read, "rb") as stream:
        found = find_videos(["-"], stream)
        os.write(write, b"a.mp4\nb.m")
        assert next(found) == "a.mp4"
        os.write(write, b"p4\n")
        assert next(found) == "b.mp4"
        os.close(write)
        assert list(found) == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_a_list_that_powershell_wrote(encoding: str, end: str) -> None:
    wanted = ["clips/a.mp4", "\u89c6\u9891 \U0001f3c3.mp4", "last.mp4"]
    content = end.join(wanted).encode(encoding)
    assert list(find_videos(["-"], io.BytesIO(content))) == wanted
    assert list(find_videos(["-"], Trickle(content, 64))) == wanted


class Trickle(io.BytesIO):
    """A pipe that hands out a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self.size = size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.size)


def test_a_mark_that_comes_byte_by_byte_and_one_in_the_middle() -> None:
    assert list(find_videos(["-"], Trickle("a.mp4\n".encode("utf-8-sig"), 1))) == ["a.mp4"]
    joined = "a.mp4\n".encode("utf-8-sig") + "b.mp4\n".encode("utf-8-sig")
    assert list(find_videos(["-"], io.BytesIO(joined))) == ["a.mp4", "b.mp4"]


def test_paths_in_quotes_as_windows_copies_them(tree: Path) -> None:
    assert names(tree, "-", stdin=f'"{tree}/b.mp4"\r\n'.encode()) == ["b.mp4"]
    assert names(tree, "-", stdin=f"'{tree}/b.mp4'\n".encode()) == ["b.mp4"]
    (tree / '"q"').touch()
    assert names(tree, "-", stdin=f'{tree}/"q"\n'.encode()) == ['"q"']


def test_lines_that_are_filled_up_with_blanks_as_powershell_does(tree: Path) -> None:
    assert names(tree, "-", stdin=f"{tree}/b.mp4    \r\n".encode()) == ["b.mp4"]
    assert list(find_videos(["-"], io.BytesIO(b"not there.mp4 \n"))) == ["not there.mp4 "]


@pytest.mark.parametrize(
    ("content", "null"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0" * 9000, False),
        (b"\0\0\0\x20ftypisom\0\0\2\0", True),
        (b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1f", False),
        (b"RIFF\x24\0\0\0AVI LIST", False),
        (b"a.mp4\0b.mp4\0", False),
        (b"a.mp4\0cd.mp4\0", False),
        (b"\xff\xfea\0\n\0" + b"\0\xd8" * 5, False),
    ],
)
def test_what_is_no_list_is_one_error(content: bytes, null: bool) -> None:
    with pytest.raises(UsageError, match="tandard input"):
        list(find_videos(["-"], io.BytesIO(content), null=null))


def test_what_does_not_exist_is_passed_on(tree: Path) -> None:
    assert names(tree, tree / "missing.mp4") == ["missing.mp4"]


def test_a_directory_without_videos(tree: Path) -> None:
    (tree / "empty").mkdir()
    (tree / "frames").mkdir()
    (tree / "frames" / "img_00001.jpg").touch()
    with pytest.raises(UsageError, match="No videos in"):
        names(tree, tree / "empty")
    assert names(tree, tree / "frames") == ["frames"]
    # A list may be long: one bad line gets its record and does not end the run
    assert names(tree, "-", stdin=os.fsencode(tree / "empty") + b"\n") == ["empty"]


def test_loops_of_links_end(tree: Path) -> None:
    (tree / "z" / "loop").symlink_to(tree)
    assert len(names(tree, tree)) == 5


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def listed(root: Path) -> list[str]:
    """What eval and train see in a folder with a folder a class."""
    return [row.path for row in read_folders(root)]


JUNK = [
    *(
        "__MACOSX/a/._v.mp4",
        "__MACOSX/a/v.mp4",
        "a/.ipynb_checkpoints/v-checkpoint.mp4",
        "a/._v.mp4",
        "a/.DS_Store",
    ),
    *(
        "a/Thumbs.db",
        "@Recycle/v.mp4",
        ".@__thumb/v.mp4",
        "@__thumb/v.mp4",
        "~$v.mp4",
        "a/@eaDir/v.mp4",
        "$RECYCLE.BIN/a/v.mp4",
        "$Recycle.Bin/v.mp4",
        "lost+found/b/v.mp4",
    ),
    *("a/.hidden.mkv", "a/System Volume Information/v.mp4", "#recycle/v.mp4", ".Trash-1000/files/v.mp4"),
]


def test_what_systems_leave_behind_is_no_video_in_any_command(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    make(tmp_path, "a/v.mp4", "b/w.MKV", *JUNK)
    assert names(tmp_path, tmp_path) == listed(tmp_path) == ["a/v.mp4", "b/w.MKV"]
    assert names(tmp_path, tmp_path / "**" / "*.mp4") == ["a/v.mp4"]
    assert names(tmp_path, f"{tmp_path}/*/*") == ["a/v.mp4", "b/w.MKV"]
    assert [item.listed for item in load_dataset(tmp_path).items] == ["a/v.mp4", "b/w.MKV"]
    index = VideoIndex(tmp_path)
    assert index.find("v-checkpoint.mp4", "a") is None
    assert not caplog.records, "and it is not counted as passed over"


def test_class_folders_for_training_and_testing_may_have_junk_beside_them(tmp_path: Path) -> None:
    make(tmp_path, "train/a/v.mp4", "test/a/w.mp4", "__MACOSX/._train", ".git/x")
    assert [item.listed for item in load_dataset(tmp_path, split="train").items] == ["a/v.mp4"]


def test_frames_are_not_what_an_archive_of_macos_adds(tmp_path: Path, shared: Path) -> None:
    make(tmp_path, "f/1.jpg", "f/._1.jpg", "f/.2.jpg", "f/3.txt")
    assert image_files(str(tmp_path / "f")) == [str(tmp_path / "f" / "1.jpg")]
    assert len(image_files(str(shared / "cases" / "frames" / "seq_macos"))) == 8


@pytest.mark.parametrize(
    "name",
    [
        *(
            "v.asf",
            "v.mxf",
            "v.3g2",
            "v.f4v",
            "v.m2v",
            "v.dv",
            "v.ogm",
            "v.y4m",
            "v.rmvb",
            "v.h264",
            "v.hevc",
        ),
        *(
            "v.MP4",
            "v.Mp4",
            "v.mp4.",
            "v.mp4 ",
            "[1].mp4",
            "two\nlines.mp4",
            "v*.mp4",
            "\udcff.mp4",
            "-v.mp4",
            "a b.mp4",
        ),
    ],
)
def test_predict_and_eval_know_the_same_endings(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"a/{name}", "a/v.mp4.part", "a/mp4", "a/v.mp4~")
    assert names(tmp_path, tmp_path) == listed(tmp_path) == [f"a/{name}"]
    assert names(tmp_path, tmp_path / "a" / name) == [f"a/{name}"]  # and a file of that name is no pattern
    assert [os.path.basename(item.path) for item in load_dataset(tmp_path).items] == [name]


def test_predict_and_eval_see_the_same_files_of_a_folder(shared: Path) -> None:
    root = shared / "cases" / "folder_dataset"
    assert names(root, root) == listed(root) == ["running/b.mp4", "walking/a.mp4", "walking/c.asf"]


def test_what_is_passed_over_is_said_in_one_line(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    make(tmp_path, "a/v.mp4", "a/cover.jpg", "a/1.txt", "a/2.TXT", "a/README", ".hidden")
    names(tmp_path, tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 4 files are skipped by extension (2 .txt, 1 without extension, 1 .jpg)."
    ]


def test_pictures_that_move_are_videos_and_stills_are_not(tmp_path: Path, shared: Path) -> None:
    from PIL import Image

    stills = [Image.new("RGB", (8, 8), (n * 80, 0, 0)) for n in range(3)]
    (tmp_path / "a").mkdir()
    stills[0].save(tmp_path / "a" / "still.webp")
    stills[0].save(tmp_path / "a" / "moves.webp", save_all=True, append_images=stills[1:])
    (tmp_path / "a" / "left.avif").write_bytes((shared / "cases" / "video" / "left.avif").read_bytes())
    os.mkfifo(tmp_path / "a" / "pipe.webp")
    assert names(tmp_path, tmp_path) == listed(tmp_path) == ["a/left.avif", "a/moves.webp"]


def test_folders_of_frames_are_videos_where_there_are_no_others(tmp_path: Path) -> None:
    make(tmp_path, "run/1/img_1.jpg", "run/1/img_2.jpg", "run/2/img_1.PNG", "jump/3/img_1.jpg", "labels.txt")
    assert names(tmp_path, tmp_path) == listed(tmp_path) == ["jump/3", "run/1", "run/2"]
    assert names(tmp_path, tmp_path / "run") == ["run/1", "run/2"]
    assert names(tmp_path, tmp_path / "*" / "1") == ["run/1"]
    data = load_dataset(tmp_path)
    assert [(item.listed, data.classes[item.label], item.num_frames) for item in data.items] == [
        ("jump/3", "jump", 1),
        ("run/1", "run", 2),
        ("run/2", "run", 1),
    ]
    make(tmp_path, "run/v.mp4")
    assert names(tmp_path, tmp_path) == listed(tmp_path) == ["run/v.mp4"]


def test_links_lead_to_each_folder_once_and_neither_up_nor_round(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", make(tmp_path / "elsewhere", "v.mp4", "sub/w.mp4")
    make(root, "a/x.mp4", ".versions/3/y.mp4")
    make(tmp_path, "beside.mp4")
    (root / "a" / "again").symlink_to(root / "a")
    (root / "alias").symlink_to(root / "a")
    (root / "up").symlink_to(tmp_path)
    (root / "everything").symlink_to("/")
    (root / "b").symlink_to(elsewhere)
    (root / "c").symlink_to(elsewhere)
    (root / "current").symlink_to(root / ".versions" / "3")
    (elsewhere / "sub" / "up").symlink_to(tmp_path)
    (root / "a" / "z.mp4").symlink_to(elsewhere / "v.mp4")  # a file is a file by any name
    (root / "a" / "broken.mp4").symlink_to(root / "nowhere")
    os.mkfifo(root / "a" / "pipe.mp4")
    found = [
        *("a/broken.mp4", "a/pipe.mp4", "a/x.mp4", "a/z.mp4", "b/v.mp4", "b/sub/w.mp4", "current/y.mp4"),
    ]
    assert names(root, root) == found
    assert listed(root) == sorted(found, key=lambda path: path.split("/"))
    data = load_dataset(root)
    assert data.missing_paths == ["a/broken.mp4", "a/pipe.mp4"]
    make(root, "other/broken.mp4")
    assert load_dataset(root).missing_paths == ["a/broken.mp4", "a/pipe.mp4"], (
        "another class's file is not taken"
    )


def test_patterns_end_where_links_lead_in_circles(tmp_path: Path) -> None:
    make(tmp_path, "a/b/v.mp4", "w.mp4")
    for number in range(30):
        (tmp_path / f"here{number}").symlink_to(".")
    assert names(tmp_path, tmp_path / "**" / "*.mp4") == ["a/b/v.mp4", "w.mp4"]
    assert names(tmp_path, tmp_path / "**" / "**" / "b" / "**") == ["a/b/v.mp4"]
    assert names(tmp_path, tmp_path) == ["w.mp4", "a/b/v.mp4"]
    assert listed(tmp_path) == ["a/b/v.mp4"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["b.mp4", "k[1].mp4"]),
        ("?.*", ["a.MKV", "b.mp4"]),
        ("[a-b].*", ["a.MKV", "b.mp4"]),
        ("**", ["a.MKV", "b.mp4", "k[1].mp4", "z/d.avi", "z/y/e.webm"]),
        ("**/*", ["a.MKV", "b.mp4", "k[1].mp4", "notes.txt", "z/d.avi", "z/y/e.webm"]),
        ("z/**/*.webm", ["z/y/e.webm"]),
        (".*.mp4", [".c.mp4"]),
        ("[2020]/*.mp4", ["[2020]/g.mp4"]),
        ("*/y", ["z/y/e.webm"]),
        ("./z/*.avi", ["z/d.avi"]),
    ],
)
def test_patterns_mean_what_a_shell_means(tree: Path, monkeypatch, pattern: str, expected: list[str]) -> None:
    if "2020" in pattern:
        make(tree, "[2020]/g.mp4")
    assert names(tree, tree / pattern) == expected
    monkeypatch.chdir(tree)
    assert [os.path.normpath(path) for path in find_videos([pattern])] == expected


def test_a_very_deep_tree_and_very_many_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    deep = make(tmp_path / "deep", *(f"{number}.mp4" for number in range(2000)))
    assert len(names(deep, deep)) == 2000
    for _ in range(1500):  # deeper than Python's recursion
        os.mkdir("d")
        os.chdir("d")
    Path("v.mp4").touch()
    os.chdir(tmp_path)
    try:
        assert [path.count("/") for path in find_videos(["d"])] == [1500]
        assert [path.count("/") for path in find_videos(["**/v.mp4"])] == [1500]
    finally:  # nor could pytest remove it
        for depth in range(1500, 0, -1):
            os.chdir("/".join([str(tmp_path), *["d"] * (depth - 1)]))
            os.unlink("d/v.mp4") if depth == 1500 else None
            os.rmdir("d")


def test_a_folder_that_may_not_be_entered_has_its_record(tmp_path: Path, monkeypatch) -> None:
    make(tmp_path, "a/v.mp4", "b/w.mp4")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "no", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path, tmp_path) == ["a/v.mp4", "b"]


ADDRESSES = [
    *("htps://example.org/a.mp4", "s4://bucket/*.mp4", "rtsp://camera/1"),
    *(
        "https:/example.org/a.mp4",
        "www.example.org/a.mp4?x=1",
        "youtu.be/abc",
        "file://host/a.mp4",
        "data:video/mp4;,",
    ),
]


@pytest.mark.parametrize("address", ["s3://bucket/a.mp4?", "https://h/a.mp4?id=1", "HTTP://h/a.mp4?"])
def test_a_video_of_a_data_list_may_be_in_a_storage(tmp_path: Path, address: str) -> None:
    (tmp_path / "l.csv").write_text(f"path,label\n{address}&sig=1,run\n")
    found = load_dataset(tmp_path / "l.csv")
    found.check_missing(0.0)
    assert [(item.path, found.classes[item.label]) for item in found.items] == [(f"{address}&sig=1", "run")]
    assert ("sig=1" in found.items[0].listed) == address.startswith("s3")
    with pytest.raises(UsageError, match="not read here"):
        load_dataset(address)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_says_that_files_are_read(tmp_path: Path, address: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(find_videos([address])) == list(find_videos(["-"], io.BytesIO(address.encode()))) == [address]
    with pytest.raises(VideoError, match=r"is a URL|is a live stream"):
        check_path(address)
    with pytest.raises(UsageError, match=r"is a URL|is a live stream"):
        load_dataset(address)
    (tmp_path / "l.csv").write_text(f"path,label\n{address.replace(',', '')},run\n")
    with pytest.raises(UsageError, match=r"is a URL|is a live stream"):
        load_dataset(tmp_path / "l.csv").check_missing(0.1)


def test_a_camera_is_not_read_but_a_folder_of_that_name_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for camera in ("0", "/dev/video99", "webcam", "v4l2:/dev/video99"):
        with pytest.raises(VideoError, match="a camera is watched by zsar predict"):
            check_path(camera)
    make(tmp_path, "0/1.jpg")
    assert check_path("0") == "0"
    make(tmp_path, "https:/example.org/a.mp4")
    assert check_path("https://example.org/a.mp4"), "a file is a file by any name"


def test_the_address_of_a_file_is_its_path(tmp_path: Path) -> None:
    path = make(tmp_path, "a b%.mp4") / "a b%.mp4"
    for address in (path.as_uri(), f"file://localhost{path}", path.as_uri().replace("file", "FILE", 1)):
        assert list(find_videos([address])) == [str(path)]
        assert list(find_videos(["-"], io.BytesIO(address.encode()))) == [str(path)]
        assert check_path(address) == str(path)
    (tmp_path / "l.csv").write_text(f"path,label\n{path.as_uri()},run\n")
    assert [item.path for item in load_dataset(tmp_path / "l.csv").items] == [str(path)]
