"""What each command leaves alone, goes on with and says, driven from the command line."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest

from tests.video_files import write_video
from zsar_cli.outputs import Lock
from zsar_cli.training.folder import clear_folder

TWO = ["--label", "waving", "--label", "running"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", 8, size=(64, 48))


@pytest.fixture
def predict(zsar, tiny_clip_dir):
    def run(*arguments: object, **more):
        return zsar(
            "predict",
            *arguments,
            "--model",
            tiny_clip_dir,
            "--workers",
            0,
            *(more.pop("labels", TWO)),
            **more,
        )

    return run


def test_a_run_goes_on_only_with_what_the_file_was_made_with(predict, video: Path, tmp_path: Path) -> None:
    output, missing = tmp_path / "answers.jsonl", tmp_path / "later.mp4"
    assert predict(video, missing, "-o", output).code == 1
    first = output.read_bytes()
    assert json.loads(first.splitlines()[0])["made_with"]["frames"] == 8
    for more, said in (
        (["--frames", 4], "--frames 8 (this run has --frames 4)"),
        (["--min-confidence", 0.5], "no --min-confidence (this run has --min-confidence 0.5)"),
        (["--multi"], "no --min-confidence (this run has --min-confidence 0.5), no --multi"),
        (["--window", 2], "no --window (this run has --window 2.0)"),
        (["--templates", "plain"], "templates name video (this run has templates name plain)"),
        (["--top-k", 1], "--top-k 5 (this run has --top-k 1)"),
        (["--label", "sitting"], "number of labels 2 (this run has number of labels 3)"),
    ):
        other = predict(video, missing, "-o", output, "--resume", *more)
        assert (other.code, output.read_bytes()) == (2, first), more
        assert said in other.err, more
        assert other.err.splitlines()[-1].count(". ") <= 1
    other = predict(video, missing, "-o", output, "--resume", labels=[*TWO[2:], *TWO[:2]])
    assert other.code == 2
    assert "order" in other.err
    missing.write_bytes(video.read_bytes())
    done = predict(video, missing, "-o", output, "--resume")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["video"] for record in records] == [str(video), str(missing)]
    assert all("predictions" in record for record in records)


def test_resuming_onto_somebody_elses_file_changes_nothing(predict, video: Path, tmp_path: Path) -> None:
    notes, link = tmp_path / "notes.txt", tmp_path / "link"
    notes.write_text("buy milk")
    link.symlink_to(notes)
    for name in (notes, link):
        for more in ([], ["--resume"]):
            done = predict(video, "-o", name, "--format", "jsonl", *more)
            assert (done.code, done.out, notes.read_text()) == (2, "", "buy milk")
            assert "it with --resume" not in done.err
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.txt", "out.srt"])
def test_what_is_there_stays_unless_overwrite_is_given(
    predict, video: Path, tmp_path: Path, name: str
) -> None:
    output, theirs = tmp_path / name, tmp_path / "theirs"
    theirs.write_text("theirs\n")
    more = ["--window", 2, "--min-confidence", 0] if name.endswith("srt") else []
    for make in (os.link, os.symlink):
        make(theirs, output)
        done = predict(video, "-o", output, *more)
        assert (done.code, done.out) == (2, "")
        assert "--overwrite" in done.err
        assert predict(video, "-o", output, *more, "--overwrite").code == 0
        assert not output.is_symlink()
        assert output.read_text() != "theirs\n"
        output.unlink()
    output.symlink_to(tmp_path / "nowhere")
    assert predict(video, "-o", output, *more).code == 2
    assert not (tmp_path / "nowhere").exists()
    assert theirs.read_text() == "theirs\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "theirs"])


def test_an_input_is_never_the_output(predict, zsar, video: Path, tmp_path: Path, tiny_clip_dir) -> None:
    labels, own = tmp_path / "labels.txt", tmp_path / "own.mp4"
    labels.write_text("waving\nrunning\n")
    own.write_bytes(video.read_bytes())
    for output, arguments in ((labels, [video, "--labels", labels]), (own, [own, *TWO])):
        before = output.read_bytes()
        done = predict(*arguments, "-o", output, "--overwrite", labels=[])
        assert (done.code, output.read_bytes()) == (2, before)
        assert "is an input of this run" in done.err
    done = zsar("embed-prompts", "--labels", labels, "-o", labels, "--overwrite", "--model", tiny_clip_dir)
    assert done.code == 2
    assert labels.read_text() == "waving\nrunning\n"


@pytest.mark.usefixtures("few_shapes")
def test_a_second_run_says_who_has_the_output(
    predict, zsar, video: Path, tmp_path: Path, tiny_clip_dir
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for output, command in (
        (tmp_path / "a.jsonl", lambda o: predict(video, "-o", o)),
        (tmp_path / "a.jsonl", lambda o: predict(video, "-o", o, "--resume")),
        (tmp_path / "a.csv", lambda o: predict(video, "-o", o)),
        (
            tmp_path / "a.safetensors",
            lambda o: zsar("embed-prompts", *TWO, "-o", o, "--model", tiny_clip_dir),
        ),
        (run, lambda o: predict(video, "--explain", o)),
        (run, lambda o: predict(video, "--window", 2, "--format", "srt", "-o", o)),
        (run, lambda o: zsar("train", "-c", "quick", "-o", o)),
        (run, lambda o: zsar("train", "-c", "quick", "-o", o, "--resume")),
        (run, lambda o: zsar("train", "-c", "quick", "-o", o, "--overwrite")),
    ):
        with Lock(output):
            done = command(output)
        assert done.code == 2, output
        assert f"Another run (process {os.getpid()} on " in done.err, done.err
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_an_output_that_goes_away_is_noticed(
    predict, video: Path, tmp_path: Path, monkeypatch, resume: list[str]
) -> None:
    from zsar_cli.cli.predict_run import Run

    output, remark = tmp_path / "answers.jsonl", Run._remark
    monkeypatch.setattr(Run, "_remark", lambda *a: output.unlink(missing_ok=True) or remark(*a))
    done = predict(video, "-o", output, *resume)
    assert done.code == 2
    assert "deleted, moved or replaced while this run wrote to it" in done.err
    assert list(tmp_path.iterdir()) == []


def test_sheets_mirror_the_tree_and_replace_nothing(
    predict, video: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cam1", "cam2"):
        Path(name).mkdir()
        (Path(name) / "clip.mp4").write_bytes(video.read_bytes())
    for name in ("cam1", "cam2"):
        done = predict(name, "--explain", "sheets")
        assert done.code == 0, done.err
        assert done.records[0]["written"] == f"sheets/{name}/clip.png"
    before = Path("sheets/cam1/clip.png").read_bytes()
    again = predict("cam1", "--explain", "sheets")
    assert again.code == 2
    assert "sheets/cam1/clip.png already exists" in again.err
    assert again.out == ""
    # A run that was killed after a sheet and before its record goes on; somebody else's picture stays
    assert predict("cam1", "--explain", "sheets", "-o", "a.jsonl", "--resume").code == 0
    Path("sheets/cam2/clip.png").write_bytes(b"\x89PNG theirs")
    assert predict("cam2", "--explain", "sheets", "-o", "b.jsonl", "--resume").code == 2
    assert Path("sheets/cam2/clip.png").read_bytes() == b"\x89PNG theirs"
    assert Path("sheets/cam1/clip.png").read_bytes() == before
    one = predict("cam1/clip.mp4", "cam2/clip.mp4", "--explain", "both")
    assert [record["written"] for record in one.records] == ["both/cam1/clip.png", "both/cam2/clip.png"]


def test_a_name_as_long_as_names_can_be(predict, video: Path, tmp_path: Path) -> None:
    name = "中" * 82
    long = tmp_path / f"{name}.mp4"
    long.write_bytes(video.read_bytes())
    done = predict(long, "--explain", tmp_path / "sheets", "-o", tmp_path / f"{name}.jsonl")
    assert done.code == 0, done.err
    assert predict(long, "-o", tmp_path / f"{name}.csv").code == 0
    folder = tmp_path / "subtitles"
    folder.mkdir()
    assert predict(long, "--window", 2, "--format", "srt", "-o", folder).code == 0
    assert [len(list(place.iterdir())) for place in (folder, tmp_path / "sheets")] == [1, 1]


def test_a_spreadsheet_runs_nothing(predict, video: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("=cmd|calc!A1.mp4").write_bytes(video.read_bytes())
    labels = ["--label", "@SUM(1+1)", "--label", "+läuft;=1", "--label", "-rot"]
    for more in ([], ["--window", 2, "--min-confidence", 0]):
        done = predict("=cmd|calc!A1.mp4", "no\x1b.mp4", "-o", "a.csv", *more, "--overwrite", labels=labels)
        assert done.code == 1
        content = Path("a.csv").read_bytes()
        assert content.startswith(b"\xef\xbb\xbfvideo,")
        assert b"\x1b" not in content
        for row in csv.reader(io.StringIO(content.decode("utf-8-sig"))):
            assert not any(cell[:1] in "=+-@" for cell in row if cell)
        shown = predict("=cmd|calc!A1.mp4", "-f", "csv", *more, labels=labels).out
        assert "\x1b" not in shown
        assert not shown.startswith("\ufeff")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("format", ["jsonl", "csv", "table"])
def test_a_stream_that_is_not_utf8_gets_escapes(
    predict, video: Path, monkeypatch, tmp_path: Path, encoding: str, format: str
) -> None:
    """As with PYTHONIOENCODING=ascii or LANG=C."""
    name = tmp_path / "中é.mp4"
    name.write_bytes(video.read_bytes())
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    done = predict(name, tmp_path / "💥.mp4", "-f", format, labels=["--label", "日本", "--label", "x"])
    assert done.code == 1, done.err
    shown = out.buffer.getvalue().decode(encoding)
    if format == "jsonl":
        records = [json.loads(line) for line in shown.splitlines()]
        assert [record["video"] for record in records] == [str(name), str(tmp_path / "💥.mp4")]
        assert "日本" in [found["label"] for found in records[0]["predictions"]]
    else:
        assert "\\u4e2d" in shown
        assert "\\u65e5\\u672c" in shown


@pytest.mark.usefixtures("few_shapes")
def test_training_replaces_no_files_of_others(zsar, tmp_path: Path) -> None:
    for name in ("config.yaml", "model.safetensors", "best/config.yaml", "curves.png", "recipe.json"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("theirs")
        for more in ([], ["--resume"]):
            done = zsar("train", "-c", "quick", "-o", folder, *more)
            assert done.code == 2, name
            assert f"{folder / name} already exists" in done.err
        assert (folder / name).read_text() == "theirs"
        assert len(list(folder.iterdir())) == 1


def test_evaluation_replaces_no_files_of_others(zsar, tmp_path: Path, tiny_clip_dir, video: Path) -> None:
    data = tmp_path / "data"
    for name in ("waving", "running"):
        (data / name).mkdir(parents=True)
        (data / name / "a.mp4").write_bytes(video.read_bytes())
    arguments = ("eval", "--data", data, "--model", tiny_clip_dir, "--workers", 0)
    first = zsar(*arguments, "--output", tmp_path / "first")
    assert first.code == 0, first.err
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert "results.json" in written
    for number, name in enumerate(written):
        folder = tmp_path / f"out{number}"
        folder.mkdir()
        (folder / name).write_text('{"editor": 12}')
        done = zsar(*arguments, "--output", folder)
        assert done.code == 2, name
        assert f"{folder / name} already exists" in done.err
        assert [(p.name, p.read_text()) for p in folder.iterdir()] == [(name, '{"editor": 12}')]
    assert zsar(*arguments, "--output", tmp_path / "out0", "--overwrite").code == 0
    other = zsar(*arguments, "--output", tmp_path / "first", "--frames", 4)
    assert other.code == 2
    assert "another evaluation, with --frames 8 (this run has --frames 4)" in other.err
    assert zsar(*arguments, "--output", tmp_path / "first", "--frames", 4, "--overwrite").code == 0
    records = (tmp_path / "first" / "predictions.jsonl").read_bytes()
    assert zsar(*arguments, "--output", tmp_path / "first", "--frames", 4).code == 0
    assert (tmp_path / "first" / "predictions.jsonl").read_bytes() == records


def test_a_report_is_replaced_only_by_its_own_evaluation(
    zsar, tmp_path: Path, tiny_clip_dir, video: Path, monkeypatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("zsar_cli.evaluation.report.to_png", lambda *_: b"")  # its figures take the time
    data = tmp_path / "data"
    for name in ("waving", "running"):
        (data / name).mkdir(parents=True)
        (data / name / "a.mp4").write_bytes(video.read_bytes())
    arguments = ("eval", "--data", data, "--model", tiny_clip_dir, "--workers", 0, "--report", tmp_path / "r")
    assert zsar(*arguments).code == 0
    assert zsar(*arguments).code == 0
    (tmp_path / "r" / "report.html").write_text("theirs")
    done = zsar(*arguments)
    assert done.code == 2
    assert "choose another --report" in done.err
    assert (tmp_path / "r" / "report.html").read_text() == "theirs"
    (tmp_path / "r" / "report.html").unlink()
    os.mkfifo(tmp_path / "r" / "report.html")
    done = zsar(*arguments)
    assert (done.code, "is a device or a pipe" in done.err) == (2, True), done.err


@pytest.mark.usefixtures("few_shapes")
def test_nothing_is_read_from_or_written_to_pipes_and_links_in_a_folder_of_others(
    predict, zsar, video: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("model.safetensors", "config.yaml"):
        (precious / name).write_text("theirs")
    train = ("train", "-c", "quick", "-o")
    for number, name in enumerate(("recipe.json", "metrics.jsonl", "model.safetensors", "curves.png")):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        os.mkfifo(folder / name)
        for more in ([], ["--resume"]):
            done = zsar(*train, folder, *more)
            assert (done.code, f"{folder / name} is " in done.err) == (2, True), done.err
    for number, name in enumerate(("best", "checkpoints")):
        folder = tmp_path / f"linked{number}"
        folder.mkdir()
        (folder / name).symlink_to(precious)
        done = zsar(*train, folder)
        assert (done.code, f"{folder / name} is a link" in done.err) == (2, True), done.err
        clear_folder(folder)  # what --overwrite does
        assert not (folder / name).is_symlink()
    sheets = tmp_path / "sheets"
    sheets.mkdir()
    os.mkfifo(sheets / "a.png")
    done = predict(video, "--explain", sheets, "-o", "a.jsonl", "--resume")
    assert (done.code, f"{sheets / 'a.png'} is a device or a pipe" in done.err) == (2, True), done.err
    cues = tmp_path / "cues"
    cues.mkdir()
    (cues / "a.srt").symlink_to("/dev/null")
    windows = ("--window", 1, "-f", "srt", "-o", cues)
    assert predict(video, *windows).code == 2
    assert predict(video, *windows, "--overwrite").code == 0
    assert (cues / "a.srt").is_file()
    assert not (cues / "a.srt").is_symlink()
    (tmp_path / "cam").mkdir()
    (tmp_path / "cam" / "a.mp4").write_bytes(video.read_bytes())
    (cues / "cam").symlink_to(precious)
    done = predict("cam", *windows)
    assert (done.code, "cam is a link to something else" in done.err) == (2, True), done.err
    assert sorted(path.name for path in precious.iterdir()) == ["config.yaml", "model.safetensors"]
    assert {path.read_text() for path in precious.iterdir()} == {"theirs"}


def test_what_a_file_was_made_with_is_told_briefly(predict, video: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    line = {"video": "b.mp4", "predictions": [], "made_with": {"k" * 100_000: 1}}
    output.write_text(json.dumps(line) + "\n")
    done = predict(video, "-o", output, "--resume")
    assert done.code == 2
    assert len(done.err) < 1000


def test_embeddings_replace_nothing(zsar, tmp_path: Path, tiny_clip_dir) -> None:
    output = tmp_path / "prompts.safetensors"
    output.write_text("theirs")
    arguments = ("embed-prompts", *TWO, "-o", output, "--model", tiny_clip_dir)
    done = zsar(*arguments)
    assert (done.code, output.read_text()) == (2, "theirs")
    assert zsar(*arguments, "--overwrite").code == 0
    assert list(tmp_path.iterdir()) == [output]
