"""What cannot be meant is a UsageError of one sentence, from Python as from the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.video_files import write_video
from zsar_cli import Recognizer
from zsar_cli.errors import UsageError
from zsar_cli.evaluation.inference import Options
from zsar_cli.prediction.clips import ClipOptions
from zsar_cli.prediction.windows import WindowOptions

NAN, INF = float("nan"), float("inf")
LABELS = ["waving", "running"]


@pytest.fixture(scope="module")
def recognizer(tiny_clip_dir) -> Recognizer:
    return Recognizer.load(tiny_clip_dir)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("usage") / "a.mp4", 12)


def refused(call: Any, *arguments: Any, **options: Any) -> str:
    """The message of the UsageError that a call ends in: a sentence or two."""
    with pytest.raises(UsageError) as raised:
        call(*arguments, **options)
    message = str(raised.value)
    assert message.endswith((".", "?"))
    assert "\n" not in message
    assert len(message) < 400
    return message


def ids(options: dict[str, Any]) -> str:
    """``frames-0``; Python refuses to spell out a number of thousands of digits."""
    return "-".join(str(part)[:20] if part != 10**5000 else "huge" for part in next(iter(options.items())))


SHOWN = [
    *({"frames": value} for value in (0, -1, 513, 2.5, "8", True, NAN, [8], 10**5000)),
    *({"views": value} for value in (0, 65, None, 1.0)),
    *({"crops": value} for value in (2, 0, 3.0, True, None, "3")),
    *({"decoder": value} for value in ("x", "", None, 1, "PyAV")),
]
ANSWERED = [
    *({"top_k": value} for value in (0, -1, None, 2.5, True)),
    *({"min_confidence": value} for value in (5, -0.1, NAN, INF, "0.5", True)),
    *({"multi": value} for value in (1, None, "yes")),
    *({"calibration": value} for value in (90, None, "85")),
    *({"threshold": value} for value in (5, -0.1, NAN, INF, "0.5", True)),
]


@pytest.mark.parametrize("options", [*SHOWN, *ANSWERED], ids=ids)
def test_wrong_options_of_predict_are_named(recognizer, video, options):
    (name,) = options
    assert name in refused(recognizer.predict, video, LABELS, **options)
    assert name in refused(recognizer.predict_many, [video], LABELS, **options)
    if name == "top_k" or options in SHOWN:
        assert name in refused(recognizer.explain, video, LABELS, **options)


@pytest.mark.parametrize(
    "options",
    [
        *({"batch_size": value} for value in (0, -1, 2.0, None, 10**9)),
        *({"workers": value} for value in (-1, 257, 1.5, "2", True)),
        *({"timeout": value} for value in (0, NAN, INF, -5, None, "60")),
    ],
    ids=str,
)
def test_wrong_options_of_predict_many_are_named_at_once(recognizer, video, options):
    (name,) = options
    assert name in refused(recognizer.predict_many, [video], LABELS, **options)


@pytest.mark.parametrize(
    "options",
    [
        *({"window": value} for value in (0, NAN, INF, -1, "4", True)),
        *({"stride": value} for value in (0, NAN, -1, 5.0, "2")),
        {"frames": 0},
        {"top_k": 0},
        {"min_confidence": NAN},
        {"multi": 1},
        {"threshold": NAN},
        {"decoder": "x"},
    ],
    ids=str,
)
def test_wrong_options_of_segments_are_named(recognizer, video, options):
    (name,) = options
    assert name in refused(recognizer.segments, video, LABELS, **options)


@pytest.mark.parametrize(
    "labels",
    [
        [],
        "",
        None,
        {"waving"},
        {"waving": "x"},
        b"waving",
        ["waving", 3],
        [b"waving"],
        [None],
        7,
        [["a"]],
    ],
    ids=repr,
)
def test_labels_that_are_none_are_refused(recognizer, video, labels):
    assert "label" in refused(recognizer.predict, video, labels)
    assert "label" in refused(recognizer.embed_labels, labels)
    assert "label" in refused(recognizer.predict_many, [video], labels)
    assert "label" in refused(recognizer.segments, video, labels)


@pytest.mark.parametrize("labels", [["", "a"], ["a", "a"], ["a", "A "], ["\n"], "no such list"], ids=repr)
def test_labels_that_say_nothing_or_repeat_are_refused(recognizer, labels):
    refused(recognizer.embed_labels, labels)


def test_labels_may_be_any_ordered_collection_of_texts(recognizer, tmp_path):
    (tmp_path / "labels.txt").write_text("waving\nrunning\n")
    forms: list[Any] = [LABELS, tuple(LABELS), iter(LABELS), np.array(LABELS), tmp_path / "labels.txt"]
    for form in forms:
        assert list(recognizer.embed_labels(form).labels) == LABELS


@pytest.mark.parametrize("video", [None, 3, "", b"", [], ["a.mp4"], 1.5, object], ids=repr)
def test_what_is_no_path_is_no_video(recognizer, video):
    assert "video" in refused(recognizer.predict, video, LABELS)
    assert "video" in refused(recognizer.explain, video, LABELS)
    assert "video" in refused(recognizer.segments, video, LABELS)


@pytest.mark.parametrize(
    "videos", ["video.mp4", b"video.mp4", Path("video.mp4"), None, 3, [None], ["a.mp4", 7]], ids=repr
)
def test_one_path_is_no_list_of_videos(recognizer, videos):
    assert "video" in refused(recognizer.predict_many, videos, LABELS)


def test_a_name_is_no_model_and_a_label_no_list(recognizer, video):
    assert "Recognizer.load('motion-tiny')" in refused(Recognizer, "motion-tiny")
    assert "in Python a list" in refused(recognizer.predict, video, "hugging")


def test_a_wrong_path_among_videos_that_come_one_by_one(recognizer, video):
    results = recognizer.predict_many(iter([video, None]), LABELS, workers=0)
    assert next(results).predictions
    assert "video" in refused(next, results)


def test_paths_may_be_texts_path_objects_and_bytes(recognizer, video):
    forms = [str(video), video, os.fsencode(video)]
    results = list(recognizer.predict_many(forms, LABELS, workers=0))
    assert [result.video for result in results] == [str(video)] * 3
    assert recognizer.predict(os.fsencode(video), LABELS).video == str(video)


def test_numbers_of_numpy_count_as_numbers(recognizer, video):
    found = recognizer.predict(
        video, LABELS, frames=np.int64(4), top_k=np.int32(1), min_confidence=np.float32(0.5)
    )
    assert found.frames == 4
    assert len(found.predictions) == 1


@pytest.mark.parametrize(
    "options",
    [
        *({"model": value} for value in (None, 3, "", b"motion-tiny")),
        *({"device": value} for value in (None, "gpu", 0, "", "cuda:99")),
        *({"precision": value} for value in (None, "fp31", 16, "")),
        *({"cache": value} for value in (3, "", "/proc/none/such")),
    ],
    ids=str,
)
def test_wrong_options_of_load_are_named(tiny_clip_dir, options):
    refused(Recognizer.load, **{"model": tiny_clip_dir, **options})


def test_a_device_may_be_torch_s_own(tiny_clip_dir):
    assert Recognizer.load(tiny_clip_dir, device=torch.device("cpu")).model.backbone.device.type == "cpu"


@pytest.mark.parametrize("templates", ["no such", 3, "", b"video"], ids=repr)
def test_templates_that_are_none(recognizer, video, templates):
    assert "templates" in refused(recognizer.predict, video, LABELS, templates=templates)


def test_embeddings_bring_their_templates(recognizer):
    prompts = recognizer.embed_labels(LABELS)
    assert "templates" in refused(recognizer.embed_labels, prompts, "ssv2")


def test_templates_that_change_on_the_disk_are_read_again(recognizer, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text('name: own\npositive: ["see {}"]\nnegative: ["no {}"]\n')
    before = recognizer.embed_labels(LABELS, file).positive
    file.write_text('name: own\npositive: ["hear {} not"]\nnegative: ["no {}"]\n')
    assert not recognizer.embed_labels(LABELS, file).positive.allclose(before)


@pytest.mark.parametrize("kind", [ClipOptions, Options])
@pytest.mark.parametrize("options", SHOWN, ids=ids)
def test_the_options_of_the_engines_check_themselves(kind, options):
    refused(kind, **options)


def test_windows_check_themselves():
    refused(WindowOptions, window=NAN)
    refused(WindowOptions, window=2.0, stride=3.0)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["predict", __file__, "--model", "motion-tiny", "--label", "x", *more] for more in (
            ["--crops", "2"], ["--crops", "0"], ["--frames", "0"], ["--frames", "513"], ["--views", "0"],
            ["--threshold", "5"], ["--threshold", "nan"], ["--min-confidence", "5"], ["--min-confidence", "nan"],
            ["--min-confidence", "0.5", "--threshold", "0.5"], ["--wide"], ["--top-k", "0"], ["--batch-size", "0"],
            ["--workers", "-1"], ["--timeout", "0"], ["--timeout", "nan"], ["--window", "nan"],
            ["--window", "4", "--stride", "nan"], ["--decoder", "x"], ["--precision", "x"], ["--device", "x"],
        )),
        *(["eval", "--dry-run", *more] for more in (
            ["--crops", "2"], ["--frames", "0"], ["--views", "0"], ["--views", "65"],
            ["--sampling", "1000x1"], ["--sampling", "8x2x1"], ["--sampling", "8x99"], ["--workers", "-1"],
            ["--timeout", "0"], ["--timeout", "nan"], ["--batch-size", "0"],
        )),
    ],
    ids=lambda arguments: " ".join(arguments[-2:]),
)  # fmt: skip
def test_the_command_line_refuses_the_same(zsar, arguments):
    done = zsar(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.splitlines()[-1].startswith("zsar: ")
