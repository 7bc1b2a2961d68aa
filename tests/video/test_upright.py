"""Pictures as they are meant to be seen, whichever way they are read: turned, mirrored, with square pixels."""

from __future__ import annotations

import itertools
import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.video_files import patched, write_video
from zsar_cli.video import decode, seek
from zsar_cli.video.decode import iter_frames, read_frames
from zsar_cli.video.grid import GridRequest, load_grid
from zsar_cli.video.probe import read_index
from zsar_cli.video.transforms import Preprocess
from zsar_cli.video.upright import STRAIGHT, Turn, pixel_aspect, turn_of_matrix

COLOURS = np.array([[(250, 10, 10), (10, 250, 10)], [(10, 10, 250), (250, 250, 10)]], np.uint8)
CORNERS = np.kron(COLOURS, np.ones((24, 32, 1), np.uint8))  # 64 x 48, a colour in each quarter
ONE = 1 << 16
# a, b, c, d of x' = a x + c y, y' = b x + d y: 4 rotations, and 4 with a mirror
SYMMETRIES = [
    *((a, 0, 0, d) for a, d in itertools.product((1, -1), repeat=2)),
    *((0, b, c, 0) for b, c in itertools.product((1, -1), repeat=2)),
]
NOT_TURNED = {
    "zero": (0, 0, 0, 0),
    "one row": (ONE, 0, 0, 0),
    "one column": (ONE, 0, ONE, 0),
    "skewed": (ONE, ONE, 0, ONE),
    "half way": (46341, 46341, -46341, 46341),
    "nearly nothing": (-ONE, 0, 0, 1),
}


def matrix(a: int, b: int, c: int, d: int) -> bytes:
    return struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)


def with_matrix(source: Path, path: Path, *numbers: int) -> Path:
    path.write_bytes(source.read_bytes())
    return patched(path, (b"tkhd", 44, matrix(*numbers)))


def quarters(frame: np.ndarray) -> list[tuple[int, int]]:
    """Which corner of the stored picture (right, below) is seen at each corner of this one, row by row."""
    height, width = frame.shape[:2]
    seen = []
    for y, x in itertools.product((0.25, 0.75), repeat=2):
        colour = frame[int(y * height), int(x * width)].astype(int)
        distance = np.abs(COLOURS.astype(int) - colour).sum(axis=2)
        below, right = np.unravel_index(distance.argmin(), distance.shape)
        seen.append((int(right), int(below)))
    return seen


def expected(a: int, b: int, c: int, d: int) -> list[tuple[int, int]]:
    """The same by the definition of a display matrix: each corner of the picture is sent to where it is shown."""
    shown = {}
    for right, below in itertools.product((0, 1), repeat=2):
        x, y = 2 * right - 1, 2 * below - 1
        shown[b * x + d * y > 0, a * x + c * y > 0] = (right, below)
    return [shown[place] for place in itertools.product((False, True), repeat=2)]


def every_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The middle frame as each way of reading shows it."""
    ways = [read_frames(path, lambda count: [count // 2], decoder=name) for name in decode.DECODERS]
    monkeypatch.setattr(seek, "SEEK_GAIN", -9.0)
    index = read_index(str(path))
    if index.cuttable:
        sought = seek.read_seeking(str(path), index, lambda count: [count // 2], None)
        assert sought is not None
        ways.append(sought)
    parts = list(iter_frames(path, rate=1000, chunk=1))
    ways.append(parts[len(parts) // 2])
    return [way.frames[0] for way in ways]


@pytest.fixture(scope="module")
def corners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("corners") / "straight.mp4", 10, picture=CORNERS)


@pytest.mark.parametrize("numbers", SYMMETRIES)
def test_all_eight_orientations_are_shown_upright_every_way(
    numbers: tuple[int, int, int, int], corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_matrix(corners, tmp_path / "turned.mp4", *(number * ONE for number in numbers))
    for frame in every_way(path, monkeypatch):
        assert frame.shape == ((64, 48, 3) if numbers[0] == 0 else (48, 64, 3))
        assert quarters(frame) == expected(*numbers)
    squashed = Preprocess(size=(48, 48), resize_mode="squash")
    chunk = next(load_grid(GridRequest(str(path), 2.0, 4, squashed)))
    assert quarters(chunk.pixels[0]) == expected(*numbers)


@pytest.mark.parametrize("name", NOT_TURNED)
def test_a_matrix_that_is_no_rotation_turns_nothing(
    name: str, corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_matrix(corners, tmp_path / "odd.mp4", *NOT_TURNED[name])
    for frame in every_way(path, monkeypatch):
        assert quarters(frame) == expected(1, 0, 0, 1)


def native(*numbers: int) -> bytes:
    return np.array([*numbers[:2], 0, *numbers[2:], 0, 0, 0, 1 << 30], np.int32).tobytes()


def test_scaled_matrices_and_nearly_right_angles_turn_by_the_nearest() -> None:
    for numbers in SYMMETRIES:
        plain = turn_of_matrix(native(*(number * ONE for number in numbers)))
        assert turn_of_matrix(native(*(number * 3 * ONE // 2 for number in numbers))) == plain
    for degrees, turn in (
        (3, Turn()),
        (88, Turn(swap=True, mirror=True)),
        (181, Turn(mirror=True, flip=True)),
    ):
        cosine, sine = (round(ONE * f(math.radians(degrees))) for f in (math.cos, math.sin))
        assert turn_of_matrix(native(cosine, sine, -sine, cosine)) == turn


@given(st.binary(max_size=40))
def test_any_matrix_gives_a_turn(data: bytes) -> None:
    assert isinstance(turn_of_matrix(data), Turn)


def test_turning_twice_the_other_way_gives_the_picture_back() -> None:
    for swap, mirror, flip in itertools.product((False, True), repeat=3):
        back = Turn(swap, flip, mirror) if swap else Turn(swap, mirror, flip)
        assert np.array_equal(back.apply(Turn(swap, mirror, flip).apply(CORNERS)), CORNERS)
    assert STRAIGHT.apply(CORNERS) is CORNERS


# --- pixels that are not square -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "a.avi"])
def test_anamorphic_video_is_shown_with_square_pixels_every_way(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / name, 10, picture=CORNERS, aspect=Fraction(16, 9))
    for frame in every_way(path, monkeypatch):
        assert frame.shape == (48, 114, 3)
        assert quarters(frame) == expected(1, 0, 0, 1)
    video = read_frames(path, lambda count: [0])
    assert (video.info.width, video.info.height) == (114, 48)


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10, picture=CORNERS, aspect=Fraction(8, 9))
    path = with_matrix(path, tmp_path / "turned.mp4", 0, ONE, -ONE, 0)
    assert read_frames(path, lambda count: [0]).frames.shape == (1, 57, 48, 3)


@pytest.mark.parametrize(
    ("ratio", "right"), [(None, 1), (0, 1), (Fraction(64, 45), 64 / 45), (Fraction(1, 2), 0.5)]
)
def test_aspect_ratios_that_nobody_can_mean_are_taken_for_one(ratio: Fraction | None, right: float) -> None:
    assert pixel_aspect(ratio) == pytest.approx(right)
    for absurd in (Fraction(65535, 1), Fraction(1, 65535), Fraction(9, 2), Fraction(-1, 1)):
        assert pixel_aspect(absurd) == 1


def test_an_absurd_aspect_ratio_in_a_file_changes_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10, picture=CORNERS, aspect=Fraction(16, 9))
    patched(path, (b"pasp", 4, struct.pack(">II", 4000, 1)))
    assert read_frames(path, lambda count: [0]).frames.shape == (1, 48, 64, 3)


def test_reference_files_are_shown_as_players_show_them(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "cases/video"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    straight = next(iter(every_way(folder / "four_zero.mp4", monkeypatch)))
    mirrored = every_way(folder / "four_hflip.mp4", monkeypatch)
    turned = every_way(folder / "four_transpose.mp4", monkeypatch)
    for frame in every_way(folder / "four_zero.mp4", monkeypatch):
        assert frame.shape == (48, 64, 3)
    for frame in mirrored:
        assert np.abs(frame[:, ::-1].astype(int) - straight).mean() < 3
    for frame in turned:
        assert np.abs(frame.swapaxes(0, 1).astype(int) - straight).mean() < 3
    assert read_frames(folder / "anamorphic.mp4", lambda count: [0]).frames.shape == (1, 48, 114, 3)


# --- images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_frame_images_are_turned_as_their_exif_data_say(suffix: str, tmp_path: Path) -> None:
    for value in range(1, 9):
        folder = tmp_path / str(value)
        folder.mkdir()
        exif = Image.Exif()
        exif[0x0112] = value
        picture = Image.fromarray(CORNERS)
        picture.save(folder / f"a{suffix}", exif=exif, **({"quality": 95} if suffix != ".tiff" else {}))
        (frame,) = read_frames(folder, lambda count: [0]).frames
        a, b, c, d = {
            1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
            5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
        }[value]  # fmt: skip
        assert quarters(frame) == expected(a, b, c, d), value


def test_damaged_exif_data_turn_nothing(tmp_path: Path) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    (frame,) = read_frames(tmp_path, lambda count: [0]).frames
    assert quarters(frame) == expected(1, 0, 0, 1)
