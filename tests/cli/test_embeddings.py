"""``predict --embeddings``, and ``predict answers.parquet --labels other.txt``: other labels without the videos."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from tests.close import assert_close
from tests.video_files import write_video

TWO, OTHERS = ["--label=waving", "--label=running"], ["--label=sitting", "--label=waving", "--label=jumping"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{number}.mp4", 8 + number, size=(64, 48)) for number in range(3)]


@pytest.fixture
def model(tiny_clip_dir: Path) -> list[object]:
    return ["--model", tiny_clip_dir]


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "rule"),
    [("answers.jsonl", ["--min-confidence", 0.1, "--top-k", 1]), ("answers.parquet", ["--multi"])],
)
def test_stored_embeddings_with_other_labels_are_a_fresh_predict(
    zsar, model, videos, tmp_path: Path, name: str, rule: list[object]
) -> None:
    stored, again, fresh = tmp_path / name, tmp_path / "again.jsonl", tmp_path / "fresh.jsonl"
    inputs = [*videos, tmp_path / "missing.mp4", *model, "--workers", 0, "--views", 2]
    assert zsar("predict", *inputs, *TWO, "--embeddings", "-o", stored).code == 1
    assert zsar("predict", *inputs, *OTHERS, *rule, "-o", fresh).code == 1
    for video in videos:  # they are not opened
        video.rename(video.with_suffix(".away"))
    try:
        done = zsar("predict", stored, *model, *OTHERS, *rule, "-o", again)
    finally:
        for video in videos:
            video.with_suffix(".away").rename(video)
    assert done.code == 1, done.err
    assert_close(records(again), records(fresh))
    # ... and the file goes on where a fresh one would
    assert "3 answered before" in zsar("predict", *inputs, *OTHERS, *rule, "-o", again, "--resume").err


def test_stored_embeddings_can_be_kept_and_scored_once_more(zsar, model, videos, tmp_path: Path) -> None:
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    assert zsar("predict", videos[0], *model, *TWO, "--workers", 0, "--embeddings", "-o", first).code == 0
    assert zsar("predict", first, *model, *OTHERS, "--embeddings", "-o", second).code == 0
    before, after = (zsar("predict", path, "-f", "jsonl").records[0] for path in (first, second))
    assert after["embedding"] == before["embedding"]
    assert [found["label"] for found in after["predictions"]] != [f["label"] for f in before["predictions"]]
    both = zsar("predict", first, second, *model, *TWO)
    assert both.code == 2
    assert "2.parquet was made with number of labels 3" in both.err


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_stored_embeddings_are_not_replaced_by_the_answers_made_of_them(
    zsar, model, videos, tmp_path: Path, name: str
) -> None:
    stored, there = tmp_path / name, f"memory://again/{name}"
    zsar("predict", videos[0], *model, *TWO, "--workers", 0, "--embeddings", "-o", stored)
    before = stored.read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/again/{name}", before)
    try:
        for place in (stored, there):
            done = zsar("predict", place, *model, *OTHERS, "-o", place, "--overwrite")
            assert (done.code, f"{place} is an input of this run" in done.err) == (2, True)
        assert memory.cat(f"/again/{name}") == stored.read_bytes() == before
    finally:
        memory.rm("/again", recursive=True)


def test_what_cannot_be_scored_again_is_told_in_a_sentence(zsar, model, videos, tmp_path: Path) -> None:
    def predict(*arguments: object) -> str:
        done = zsar("predict", *arguments)
        assert (done.code, done.out) == (2, "")
        return done.err

    stored, plain, piped = tmp_path / "a.jsonl", tmp_path / "plain.jsonl", tmp_path / "piped.jsonl"
    zsar("predict", videos[0], *model, *TWO, "--workers", 0, "--embeddings", "-o", stored)
    zsar("predict", videos[0], *model, *TWO, "--workers", 0, "-o", plain)
    line = records(stored)[0]
    made = line.pop("made_with")
    piped.write_text(json.dumps(line))
    name = made["model"]
    assert f"are of {name}, and the model is PE-Core-B-16/meta: add --model {name}." in predict(stored, *TWO)
    assert f"are of {name}, and the model is motion-tiny" in predict(stored, *TWO, "--model", "motion-tiny")
    assert "has no embedding. Run zsar predict --embeddings" in predict(plain, *model, *TWO)
    assert "does not say which model it was made with" in predict(piped, *model, *TWO)
    assert "without their videos; remove --frames." in predict(stored, *model, *TWO, "--frames", 4)
    assert "subtitles need answers of --window" in predict(stored, *model, *TWO, "-f", "srt")
    on_ray = predict(stored, *model, *TWO, "--ray", "local", "-o", tmp_path / "b.jsonl")
    assert "holds stored answers, which need no cluster; leave --ray out." in on_ray
    for damage in ([0.5, 0.25], ["a"] * len(line["embedding"]), 3):
        piped.write_text(json.dumps({**line, "embedding": damage, "made_with": made}))
        assert "are damaged, or not of" in predict(piped, *model, *TWO), damage
    inputs = [videos[0], *model, *TWO, "--embeddings"]
    for more, said in (
        (["-f", "csv"], "--embeddings needs --format jsonl or parquet; csv has no place for them."),
        (["--window", 2, "-f", "jsonl"], "--window makes many; remove one of them."),
    ):
        assert said in predict(*inputs, *more)


def test_embeddings_are_one_of_the_settings_that_a_file_was_made_with(
    zsar, model, videos, tmp_path: Path
) -> None:
    output = tmp_path / "a.jsonl"
    inputs = ["predict", videos[0], *model, *TWO, "--workers", 0, "-o", output]
    assert zsar(*inputs).code == 0
    assert "no --embeddings (this run has --embeddings True)" in zsar(*inputs, "--embeddings", "--resume").err
