"""The stages of a cluster, called as Ray's actors call them, answer as one machine does. Ray is not started."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.close import assert_close
from tests.evaluation.test_evaluation import OPTIONS, Sums, encode, shapes_plan
from tests.video_files import write_video
from zsar_cli import BatchPredictor, Recognizer, UsageError
from zsar_cli.batch import COLUMNS
from zsar_cli.cluster.connect import Share, is_address, share_out
from zsar_cli.cluster.evaluate import DRAW, PLACES, Evaluate
from zsar_cli.cluster.stages import VIDEO, Answer, Decode, records_of, rows_of, to_id
from zsar_cli.data.clips import render_request
from zsar_cli.evaluation.inference import evaluate_parts
from zsar_cli.prediction.clips import ClipOptions, clip_requests
from zsar_cli.video.pool import ClipRequest

LABELS = ["waving", "tai chi", "running"]
BROKEN = "broken\udcff.mp4"  # a name that is no UTF-8


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_video(folder / f"{number}.mp4", 4 + number)
    (folder / BROKEN).write_bytes(b"no video at all")
    return folder


@pytest.fixture(scope="module")
def names(videos: Path) -> list[str]:
    return ["0.mp4", BROKEN, "1.mp4", str(videos / "2.mp4"), "none.mp4"]


@pytest.fixture(scope="module")
def recognizer(tiny_clip_dir: Path) -> Recognizer:
    return Recognizer.load(tiny_clip_dir, device="cpu")


def in_stages(
    batch: dict[str, list[Any]], decode: Decode, answer: Callable[..., Any]
) -> list[dict[str, Any]]:
    """Decode a batch and answer it, both of them as pickles that another process got."""
    decode, answer = pickle.loads(pickle.dumps((decode, answer)))
    decoded = [row for columns in decode(batch) for row in rows_of(columns)]
    decode.pool.close()
    return list(records_of(rows_of(answer({name: [row[name] for row in decoded] for name in decoded[0]}))))


def test_stages_answer_as_one_process_does(recognizer, tiny_clip_dir, videos, names, monkeypatch) -> None:
    monkeypatch.chdir(videos)
    here = [r.to_record() for r in recognizer.predict_many(names, LABELS, workers=0, views=2, batch_size=2)]
    text = recognizer.embed_labels(LABELS)
    (shown,) = clip_requests(recognizer.model, [""], ClipOptions(views=2))
    monkeypatch.chdir("/")  # workers start elsewhere
    predictor = BatchPredictor(text, str(tiny_clip_dir), device="cpu", views=2, calibration="off")
    batch = {VIDEO: [to_id(name) for name in names]}
    found = in_stages(batch, Decode(shown, str(videos)), Answer(predictor, threads=1))
    for record in (*here, *found):
        record.get("error", {}).pop("message", None)  # the path in it
    assert_close(found, here)
    assert [record.get("error", {}).get("kind") for record in found] == [
        None,
        "no_video",
        None,
        None,
        "not_found",
    ]


def test_actors_refuse_label_embeddings_of_other_weights(recognizer, tiny_clip_dir) -> None:
    text = recognizer.embed_labels(LABELS)
    text.model_fingerprint = "another"
    with pytest.raises(UsageError, match="made with"):
        _ = BatchPredictor(text, str(tiny_clip_dir), device="cpu").asked


def test_an_evaluation_in_stages_has_the_records_of_one_process(monkeypatch) -> None:
    monkeypatch.setattr(Evaluate, "network", Sums())
    part = shapes_plan(clips=9).parts[0]

    def engine(model, parts, texts, options, tasks) -> Generator[dict[str, Any], None, None]:
        (shown,) = [ClipRequest("", model.choose(options.frames, 1), model.preprocess)]
        rows = {
            VIDEO: [to_id(task.video) for task in tasks],
            PLACES: [json.dumps(task.places) for task in tasks],
            DRAW: [task.draw for task in tasks],
        }
        evaluate = Evaluate("sums", "sums", parts, texts, options)
        yield from in_stages(rows, Decode(shown, "/", render=render_request), evaluate)

    here = evaluate_parts(Sums(), [part], [encode(part.labels)], OPTIONS)
    done = {"seen": {record["item"]: record for record in here["seen"][:2]}}
    there = evaluate_parts(Sums(), [part], [encode(part.labels)], OPTIONS, done=done, engine=engine)
    assert_close(there, here)


def test_a_batch_predictor_is_small_until_it_is_used_and_gives_a_row_for_each_video(
    tiny_clip_dir, videos, names, recognizer, monkeypatch
) -> None:
    monkeypatch.chdir(videos)
    predictor = BatchPredictor(LABELS, str(tiny_clip_dir), device="cpu", workers=0, min_confidence=0.0)
    size = len(pickle.dumps(predictor))
    rows = predictor(names)
    assert [row["video"] for row in rows] == names
    assert all(tuple(row) == COLUMNS for row in rows)
    assert [row["error_kind"] for row in rows] == [None, "no_video", None, None, "not_found"]
    (first,) = recognizer.predict_many(names[:1], LABELS, workers=0, min_confidence=0.0)
    assert_close(json.loads(rows[0]["record"]), first.to_record())
    assert (rows[0]["label"], rows[0]["answer"]) == (first.predictions[0].label,) * 2
    assert len(pickle.dumps(predictor)) == size < 10_000  # the model stays where it was loaded
    with pytest.raises(TypeError, match="top_k"):
        BatchPredictor(LABELS, topk=3)
    with pytest.raises(UsageError, match="batch_size"):
        BatchPredictor(LABELS, batch_size=0)


@pytest.mark.parametrize(
    ("cpus", "gpus", "device", "share"),
    [
        (2, 0, "auto", Share(1, 1, 1.0, 1.0, 0.0)),
        (1, 0, "auto", Share(1, 1, 0.5, 0.5, 0.0)),
        (64, 8, "cpu", Share(63, 63, 1.0, 1.0, 0.0)),
        (64, 8, "auto", Share(56, 8, 1.0, 1.0, 1.0)),
        (8, 8, "cuda", Share(1, 8, 8 / 9, 8 / 9, 1.0)),
    ],
)
def test_what_a_cluster_has_is_shared_out_so_that_both_stages_can_start(cpus, gpus, device, share) -> None:
    assert share_out(cpus, gpus, device) == share
    assert share.decoder_cpus + share.models * share.model_cpus * bool(gpus and device != "cpu") <= cpus


def test_a_gpu_that_no_node_has_is_refused() -> None:
    with pytest.raises(UsageError, match="no GPU"):
        share_out(8, 0, "cuda")


@pytest.mark.parametrize("text", ["local", "auto", "10.0.0.1:6379", "head:6379", "ray://head:10001"])
def test_addresses_are_told_from_videos(text: str) -> None:
    assert is_address(text)
    assert not is_address(f"{text}/clips")
