"""Videos that Python gives as something else than a path: what is accepted, and what is refused in a sentence."""

from __future__ import annotations

import io
import os
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.video_files import frame_number, numbered_frame
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.video.given import Given, Inputs, check_videos, frames_at_hand
from zsar_cli.video.images import ImageSequence

FRAMES = np.stack([numbered_frame(number, 40, 20) for number in range(3)])  # (3, 20, 40, 3)


def frames_of(video: Any) -> np.ndarray:
    found = frames_at_hand(video, 10.0)
    assert found is not None
    return np.stack(list(found[1].read(range(len(found[1])))))


FORMS = {
    "array": FRAMES,
    "array, channels first": FRAMES.transpose(0, 3, 1, 2),
    "array of floats": FRAMES / 255,
    "array of float32": (FRAMES / 255).astype(np.float32),
    "read-only view": np.broadcast_to(FRAMES, FRAMES.shape)[::1],
    "tensor": torch.from_numpy(FRAMES),
    "tensor, channels first": torch.from_numpy(FRAMES).movedim(-1, 1),
    "tensor of floats": torch.from_numpy(FRAMES).movedim(-1, 1).float().div(255).requires_grad_(),
    "tensor of halves": torch.from_numpy(FRAMES).half().div(255),
    "pictures": [Image.fromarray(frame) for frame in FRAMES],
    "list of arrays": list(FRAMES),
    "list of tensors, channels first": list(torch.from_numpy(FRAMES).movedim(-1, 1)),
    "deque of arrays": deque(FRAMES, maxlen=3),
}


@pytest.mark.parametrize("video", FORMS.values(), ids=FORMS)
def test_every_form_has_the_same_frames(video: Any) -> None:
    assert np.array_equal(frames_of(video), FRAMES)


def test_times_come_from_the_frame_rate_that_is_given() -> None:
    _, sequence = frames_at_hand(FRAMES, 10.0) or ("", None)
    assert isinstance(sequence, ImageSequence)
    assert sequence.times.tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert sequence.duration == pytest.approx(0.3)
    assert sequence.assumed_rate == 10.0


REFUSED = {
    "single image": (FRAMES[0], "(T, H, W, 3)"),
    "one PIL image": (Image.fromarray(FRAMES[0]), "list"),
    "grey": (FRAMES[..., 0], "(T, H, W, 3)"),
    "RGBA": (np.zeros((2, 4, 5, 4), np.uint8), "RGB"),
    "no frames": (FRAMES[:0], "(0, 20, 40, 3)"),
    "several videos": (FRAMES[None], "(1, 3, 20, 40, 3)"),
    "frames of no height": (np.zeros((2, 0, 5, 3), np.uint8), "(2, 0, 5, 3)"),
    "two ways to read it": (np.zeros((2, 3, 5, 3), np.uint8), "ambiguous"),
    "whole numbers": (FRAMES.astype(np.int64), "int64"),
    "16 bits": (FRAMES.astype(np.uint16), "uint16"),
    "truths": (torch.from_numpy(FRAMES) > 9, "bool"),
    "floats up to 255": (FRAMES.astype(np.float32), "between 0 and 1"),
    "normalised": (torch.from_numpy(FRAMES).float().div(255).sub(0.5), "between 0 and 1"),
    "NaN": (np.full(FRAMES.shape, np.nan), "between 0 and 1"),
    "a tensor without values": (torch.zeros(2, 4, 5, 3, device="meta"), "cannot be read"),
    "a sparse tensor": (torch.zeros(2, 4, 5, 3).to_sparse(), "cannot be read"),
    "a list of tensors without values": ([torch.zeros(4, 5, 3, device="meta")] * 2, "cannot be read"),
    "a tensor for oneDNN": (torch.zeros(2, 4, 5, 3).to_mkldnn(), "cannot be read"),
    "frames too large": (np.broadcast_to(np.uint8(0), (1, 20_000, 20_000, 3)), "too large"),
    "frames of two sizes": ([FRAMES[0], FRAMES[0][:-1]], "same shape"),
}


@pytest.mark.parametrize(("video", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_video_is_refused_in_a_sentence(video: Any, said: str) -> None:
    with pytest.raises(UsageError) as raised, Inputs(25.0) as inputs:
        inputs.take(video)
    assert said in str(raised.value)
    assert str(raised.value).endswith(".")
    assert len(str(raised.value)) < 200


def test_an_open_file_is_copied_from_where_it_stands_and_the_copy_goes(tmp_path) -> None:
    (tmp_path / "some video.y4m").write_bytes(b"abcdef")
    with Inputs(25.0) as inputs, (tmp_path / "some video.y4m").open("rb") as file:
        file.seek(2)
        named, unnamed = inputs.take(file), inputs.take(io.BytesIO(b"xyz"), 7)
        assert isinstance(named, Given)
        assert isinstance(unnamed, Given)
        assert named.name == str(tmp_path / "some video.y4m")
        assert unnamed.name == "<file 7>"
        assert str(named.source).endswith(".y4m")
        with open(str(named.source), "rb") as copy:
            assert copy.read() == b"cdef"
        named.done()
        assert not os.path.exists(str(named.source))
        assert os.path.exists(str(unnamed.source))
    assert not os.path.exists(str(unnamed.source))


class Broken(io.BytesIO):
    def readinto(self, buffer: Any) -> int:
        raise OSError(5, "Input/output error")

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(5, "Input/output error")


def test_files_that_cannot_be_read_are_refused_in_a_sentence(tmp_path) -> None:
    read, closed = io.BytesIO(b"video"), io.BytesIO(b"video")
    read.read()
    closed.close()
    written, damaged = (tmp_path / "a.mp4").open("wb"), io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8")
    said = {"seek": read, "closed": closed, "'rb'": io.StringIO("text"), "input/output": Broken()}
    said |= {"writing": written, "for reading text": damaged}
    with Inputs(25.0) as inputs, written:
        for word, file in said.items():
            with pytest.raises(UsageError, match=word):
                inputs.take(file)


def test_one_video_is_no_list_of_videos() -> None:
    for one in (
        np.array("a.mp4"),
        FRAMES,
        torch.from_numpy(FRAMES),
        Image.fromarray(FRAMES[0]),
        io.BytesIO(b"a"),
        "a.mp4",
        b"a",
        3,
    ):
        with pytest.raises(UsageError, match=r"predict\(\) takes a single video"):
            check_videos(one)
    with pytest.raises(UsageError, match="single image"):
        check_videos([Image.fromarray(FRAMES[0])])


def test_lists_and_arrays_of_videos_are_taken_one_by_one() -> None:
    with Inputs(25.0) as inputs:
        assert list(inputs.each(check_videos(np.array(["a.mp4", "b.mp4"])))) == ["a.mp4", "b.mp4"]
        several = list(inputs.each(check_videos([FRAMES, "a.mp4", io.BytesIO(b"x")])))
        assert [getattr(video, "name", video) for video in several] == ["<array 1>", "a.mp4", "<file 3>"]
        both = list(inputs.each(check_videos(np.stack([FRAMES, FRAMES]))))
        assert [video.name for video in both if isinstance(video, Given)] == ["<array 1>", "<array 2>"]


def test_frames_are_converted_only_where_they_are_read() -> None:
    found = frames_at_hand([Image.fromarray(frame) for frame in FRAMES], 1.0)
    assert found is not None
    assert [frame_number(frame) for frame in found[1].read([2, 0])] == [2, 0]


def test_pictures_without_pixels_are_no_frames() -> None:
    with Inputs(25.0) as inputs:
        video = inputs.take([Image.new("RGB", (0, 5))])
    assert isinstance(video, Given)
    assert isinstance(video.source, ImageSequence)
    with pytest.raises(VideoError, match="without pixels"):
        list(video.source.read([0]))


def test_arrays_of_the_other_byte_order_and_paths_of_numpy_are_as_good() -> None:
    assert frames_at_hand(np.zeros((2, 4, 5, 3), ">f4"), 25.0) is not None
    with Inputs(25.0) as inputs:
        assert type(inputs.take(np.str_("a.mp4"))) is str


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused_in_a_sentence(layout: torch.layout) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2, 4, 3), torch.zeros(3, 4, 3)], layout=layout)
    with pytest.raises(UsageError, match="nested"):
        frames_at_hand(nested, 25.0)
    with pytest.raises(UsageError, match="nested"):
        check_videos(nested)
