"""``zsar predict`` and ``zsar embed-prompts``, driven as people drive them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.close import assert_close, assert_same_lines
from tests.tiny_models import large_clip
from tests.video_files import numbered_frame, write_video
from zsar_cli.cli.app import app
from zsar_cli.cli.output import formats
from zsar_cli.errors import ZsarError

LABELS = ["--label", "arm wrestling", "--label", "shooting a basketball", "--label", "tai chi"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, count in (("a.mp4", 12), ("b.mp4", 5), ("c.mkv", 20), ("d.mp4", 1)):
        write_video(folder / name, count)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "cache"))


def run(*arguments: object, stdin: str | bytes | None = None):
    """The command in this process: (exit code, stdout, message of the error if it ended in one)."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    if result.exception and isinstance(result.exception, ZsarError):
        return 2, result.stdout, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def zsar(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "zsar_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=230, check=False, **options)


def records(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_record_for_each_video_in_the_order_given(videos, tiny_clip_dir):
    names = [str(videos / n) for n in ("c.mkv", "missing.mp4", "a.mp4", "d.mp4")]
    code, out, _ = run("predict", *names, names[0], "--model", tiny_clip_dir, *LABELS, "--workers", 1)
    found = records(out)
    assert code == 1
    assert [r["video"] for r in found] == names  # the one given twice comes once
    assert found[1]["error"]["kind"] == "not_found"
    good = found[2]
    assert set(good) == {"video", "predictions", "unknown", "duration", "frames"}
    assert good["frames"] == 8
    assert sum(p["score"] for p in good["predictions"]) == pytest.approx(1, abs=1e-5)
    scores = [p["score"] for p in good["predictions"]]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= good["unknown"] <= 1


def test_the_rate_of_a_folder_of_frames_is_said_and_stands_in_its_record(videos, tiny_clip_dir, tmp_path):
    for number in range(10):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"{number}.png")
    given = ["predict", tmp_path, videos / "a.mp4", "--model", tiny_clip_dir, *LABELS, "--workers", 0]
    for fps, more in ((25.0, []), (4.0, ["--fps", 4]), (4.0, ["--fps", 4, "--window", 1])):
        code, out, _ = run(*given, *more)
        frames, video = records(out)
        assert code == 0
        assert frames["assumed_fps"] == fps
        assert frames["duration"] == pytest.approx(10 / fps, abs=0.001)
        assert "assumed_fps" not in video
        assert video["duration"] == pytest.approx(0.6, abs=0.01)
    assert run(*given, "--fps", "nan")[0] == run(*given, "--fps", 0)[0] == 2


def test_list_on_standard_input(videos, tiny_clip_dir):
    listing = f"{videos / 'b.mp4'}\n\n{videos / 'a.mp4'}\r\n"
    code, out, _ = run("predict", "-", "--model", tiny_clip_dir, *LABELS, "--workers", 0, stdin=listing)
    assert code == 0
    assert [Path(r["video"]).name for r in records(out)] == ["b.mp4", "a.mp4"]


def test_null_separated_list_takes_any_name(videos, tiny_clip_dir, tmp_path):
    odd = tmp_path / "two\nlines \x1b[31m.mp4"
    odd.write_bytes((videos / "a.mp4").read_bytes())
    code, out, _ = run(
        "predict",
        "-",
        "-0",
        "--model",
        tiny_clip_dir,
        *LABELS,
        "--workers",
        0,
        stdin=os.fsencode(odd) + b"\0",
    )
    assert code == 0
    assert records(out)[0]["video"] == str(odd)


def test_directory_is_searched(videos, tiny_clip_dir):
    code, out, _ = run("predict", videos, "--model", tiny_clip_dir, *LABELS, "--workers", 0)
    assert code == 0
    assert [Path(r["video"]).name for r in records(out)] == ["a.mp4", "b.mp4", "c.mkv", "d.mp4"]


def test_same_answer_whatever_the_batch_and_the_workers(videos, tiny_clip_dir):
    answers = []
    for batch, workers in ((1, 0), (4, 2)):
        _, out, _ = run(
            "predict", videos, "--model", tiny_clip_dir, *LABELS,
            "--batch-size", batch, "--workers", workers, "--precision", "fp32",
        )  # fmt: skip
        answers.append([{p["label"]: p["score"] for p in r["predictions"]} for r in records(out)])
    for one, other in zip(*answers, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("format", ["table", "csv", "jsonl"])
def test_formats(videos, tiny_clip_dir, format):
    code, out, _ = run(
        "predict",
        videos / "a.mp4",
        "--model",
        tiny_clip_dir,
        *LABELS,
        "--format",
        format,
        "--workers",
        0,
        "-k",
        2,
    )
    assert code == 0
    assert "a.mp4" in out
    shown = [label for label in LABELS[1::2] if label in out]
    assert len(shown) == 2


def test_an_answer_that_is_not_sure_enough_is_none_of_these(videos, tiny_clip_dir):
    arguments = ("predict", videos / "a.mp4", "--model", tiny_clip_dir, *LABELS, "--workers", 0)
    (strict,) = records(run(*arguments, "--min-confidence", 1)[1])
    (lax,) = records(run(*arguments, "--min-confidence", 0)[1])
    assert (strict["answer"], strict["min_confidence"]) == ("none of these", 1)
    assert (lax["answer"], lax["min_confidence"]) == (lax["predictions"][0]["label"], 0)
    just = round(1 - lax["unknown"], 4)
    assert records(run(*arguments, "--min-confidence", just - 0.001)[1])[0]["answer"] in LABELS
    assert records(run(*arguments, "--min-confidence", just + 0.001)[1])[0]["answer"] == "none of these"


def test_the_old_name_of_the_bound_gives_the_same_and_says_so_once(videos, tiny_clip_dir):
    arguments = ("predict", videos, "--model", tiny_clip_dir, *LABELS, "--workers", 0)
    for more in ([], ["--window", 1]):
        _, old, said = run(*arguments, *more, "--threshold", 0.3)
        _, new, nothing = run(*arguments, *more, "--min-confidence", 0.7)
        assert_same_lines(old, new)
        assert said.count("--threshold 0.3 is deprecated; use --min-confidence 0.7") == 1
        assert "deprecated" not in nothing
    assert "--threshold" not in run("predict", "--help")[1]


def test_several_things_at_once(videos, tiny_clip_dir):
    arguments = ("predict", videos / "a.mp4", "--model", tiny_clip_dir, *LABELS, "--workers", 0, "-k", 1)
    (every,) = records(run(*arguments, "--multi", "--min-confidence", 0)[1])
    yes = {found["label"]: found["yes"] for found in every["predictions"]}
    assert set(yes) == set(LABELS[1::2])  # what is answered is shown, whatever -k
    assert every["answers"] == sorted(yes, key=lambda label: -yes[label])
    assert every["answer"] == every["answers"][0]
    (none,) = records(run(*arguments, "--multi", "--min-confidence", 1)[1])
    assert (none["answers"], none["answer"], len(none["predictions"])) == ([], "none of these", 1)
    values = sorted(yes.values())
    (two,) = records(run(*arguments, "--multi", "--min-confidence", (values[0] + values[1]) / 2)[1])
    assert two["answers"] == every["answers"][:2]
    assert records(run(*arguments, "--multi")[1])[0]["min_confidence"] == 0.5


def test_several_answers_in_tables_csv_and_segments(videos, tiny_clip_dir):
    arguments = ("predict", videos / "a.mp4", "--model", tiny_clip_dir, *LABELS, "--workers", 0, "--multi")
    every = ("--min-confidence", 0)
    (record,) = records(run(*arguments, *every)[1])
    table = run(*arguments, *every, "--format", "table")[1]
    assert table.count("✓") == 3
    assert "✓" not in run(*arguments, "--min-confidence", 1, "--format", "table")[1]
    rows = list(csv.DictReader(io.StringIO(run(*arguments, *every, "--format", "csv")[1])))
    assert {row["answer"] for row in rows} == {"; ".join(record["answers"])}
    (segmented,) = records(run(*arguments, *every, "--window", 1)[1])
    (segment,) = segmented["segments"]
    assert set(segment["answers"]) == set(LABELS[1::2])
    rows = list(csv.DictReader(io.StringIO(run(*arguments, *every, "--window", 1, "--format", "csv")[1])))
    assert [row["label"] for row in rows] == segment["answers"]
    assert all(float(row["yes"]) > 0 for row in rows)
    cues = run(*arguments, *every, "--window", 1, "--format", "srt")[1]
    assert cues.splitlines()[2:5] == segment["answers"]
    shown = run(*arguments, *every, "--window", 1, "--format", "table")[1]
    assert all(label in shown for label in segment["answers"])


@pytest.mark.parametrize("more", [[], ["--multi"], ["--window", 1], ["--window", 1, "--multi"]], ids=str)
def test_wide_csv_has_a_column_a_label(videos, tiny_clip_dir, tmp_path, more):
    arguments = ("predict", videos / "a.mp4", tmp_path / "no.mp4", "--model", tiny_clip_dir, *LABELS)
    asked = (*arguments, "--workers", 0, "--min-confidence", 0, *more)
    _, out, _ = run(*asked, "--format", "csv", "--wide", "-k", 1)
    good, bad = csv.DictReader(io.StringIO(out))
    record = records(run(*asked)[1])[0]
    record = record["segments"][0] if "segments" in record else record
    for found in record["predictions"]:
        assert float(good[f"yes: {found['label']}"]) == pytest.approx(found["yes"], abs=1e-5)
    assert good["answer"] == "; ".join(record.get("answers", [record["answer"]]))
    assert bad["error"].startswith("not_found")
    assert None not in {*good, *good.values(), *bad, *bad.values()}


def test_prompt_embeddings_give_the_same_answer(videos, tiny_clip_dir, tmp_path):
    file = tmp_path / "prompts.safetensors"
    assert run("embed-prompts", "--output", file, "--model", tiny_clip_dir, *LABELS)[0] == 0
    arguments = ("predict", videos / "a.mp4", "--model", tiny_clip_dir, "--workers", 0)
    assert_same_lines(run(*arguments, "--prompts", file)[1], run(*arguments, *LABELS)[1])


def test_prompt_embeddings_of_another_model_are_refused(videos, tiny_clip_dir, tmp_path):
    from tests.tiny_models import make_tiny_clip

    other = make_tiny_clip(tmp_path / "other", seed=5)
    file = tmp_path / "prompts.safetensors"
    assert run("embed-prompts", "--output", file, "--model", other, *LABELS)[0] == 0
    code, _, message = run(
        "predict", videos / "a.mp4", "--model", tiny_clip_dir, "--prompts", file, "--workers", 0
    )
    assert code == 2
    assert str(other) in message
    assert str(tiny_clip_dir) in message


def test_python_gives_the_answers_of_the_command(videos, tiny_clip_dir):
    from zsar_cli import Recognizer

    recognizer = Recognizer.load(str(tiny_clip_dir))
    prediction = recognizer.predict(videos / "a.mp4", labels=LABELS[1::2])
    _, out, _ = run("predict", videos / "a.mp4", "--model", tiny_clip_dir, *LABELS, "--workers", 0)
    assert_close(prediction.to_record(), records(out)[0])
    streamed = list(
        recognizer.predict_many([videos / "a.mp4", videos / "no.mp4"], labels=LABELS[1::2], workers=0)
    )
    assert_close(streamed[0].to_record(), prediction.to_record())
    assert streamed[1].kind == "not_found"


def wrong_usages(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    files = {
        "a.mp4": "no video",
        "empty.txt": "# nothing\n\n",
        "twice.txt": "waving\nwaving\n",
        "braces.yaml": "name: x\npositive: ['no braces']\nnegative: ['no {}']\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "hollow").mkdir()
    label = ["--label", "x"]
    return {
        "folder without videos": ([str(tmp_path / "hollow"), *label], "No videos"),
        "empty labels": (["a.mp4", "--labels", str(tmp_path / "empty.txt")], "empty.txt"),
        "duplicate label": (["a.mp4", "--labels", str(tmp_path / "twice.txt")], "waving"),
        "no labels": (["a.mp4"], "label"),
        "template without braces": (
            ["a.mp4", *label, "--templates", str(tmp_path / "braces.yaml")],
            "braces.yaml",
        ),
        "unknown model": ([str(tmp_path / "a.mp4"), *label, "--model", "VIT-B-99/laion"], "VIT-B-99"),
        "unknown format": (["a.mp4", *label, "--format", "xml"], "--format"),
        "two crops": (["a.mp4", *label, "--crops", "2"], "--crops"),
        "resume without output": (["a.mp4", *label, "--resume"], "--output"),
        "pattern without match": ([str(tmp_path / "*.avi"), *label], "*.avi"),
    }


@pytest.mark.parametrize("case", [
    "folder without videos", "empty labels", "duplicate label", "no labels", "template without braces",
    "unknown model", "unknown format", "two crops", "resume without output", "pattern without match",
])  # fmt: skip
def test_wrong_usage_is_one_clear_line(case, tmp_path, tiny_clip_dir):
    arguments, named = wrong_usages(tmp_path)[case]
    if "--model" not in arguments:
        arguments += ["--model", str(tiny_clip_dir)]
    code, out, message = run("predict", *arguments, "--workers", 0)
    assert code == 2
    assert out == ""
    assert named in message
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 4


def test_broken_file_has_its_record_and_the_rest_goes_on(videos, tiny_clip_dir, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video at all")
    code, out, _ = run("predict", broken, videos / "a.mp4", "--model", tiny_clip_dir, *LABELS, "--workers", 1)
    first, second = records(out)
    assert code == 1
    assert first["error"]["kind"] == "no_video"
    assert "predictions" in second


def test_process_errors_are_one_line_without_traceback(tmp_path):
    done = zsar("predict", tmp_path / "a.mp4", "--labels", tmp_path / "nowhere.txt")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_control_characters_of_names_never_reach_a_terminal():
    shown = formats.printable("a\x1b[31m\nb\udcff")
    assert shown.isprintable()
    assert "31m" in shown


@pytest.mark.slow
def test_scores_equal_the_plain_loop_over_open_clip(shared, tmp_path, monkeypatch):
    """With random ViT-B/32 weights from a file. Our transforms give PIL's pixels, so one bound holds for both: 1e-4."""
    import av
    import open_clip
    from PIL import Image
    from safetensors.torch import save_file

    from zsar_cli.video.upright import pixel_aspect, to_rgb  # parity is of all that follows the decoder

    torch.manual_seed(0)
    clip = large_clip(open_clip.get_model_config("ViT-B-32"))
    transform = open_clip.image_transform(224, is_train=False)
    weights = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, weights)
    names = sorted((shared / "videos").glob("*.mp4"))
    assert len(names) > 5
    monkeypatch.setattr(
        "zsar_cli.text.embeddings.phrase_bank", lambda: ("standing still",)
    )  # not in the scores
    code, out, _ = run(
        "predict", *names, "--model", f"ViT-B-32/{weights}", *LABELS, "--templates", "plain",
        "--precision", "fp32", "--frames", 2, "--workers", 1,
    )  # fmt: skip
    assert code == 0
    tokens = open_clip.get_tokenizer("ViT-B-32")(LABELS[1::2])
    with torch.no_grad():
        text = torch.nn.functional.normalize(clip.encode_text(tokens), dim=-1)
        for name, record in zip(names, records(out), strict=True):
            with av.open(str(name)) as container:
                aspect = pixel_aspect(container.streams.video[0].sample_aspect_ratio)
                frames = list(container.decode(video=0))
            chosen = [to_rgb(frames[(2 * i + 1) * len(frames) // 4], aspect) for i in range(2)]
            pixels = torch.stack([transform(Image.fromarray(frame)) for frame in chosen])
            video = torch.nn.functional.normalize(clip.encode_image(pixels).mean(dim=0), dim=-1)
            expected = (clip.logit_scale.exp() * text @ video).softmax(dim=0)
            got = {p["label"]: p["score"] for p in record["predictions"]}
            assert [got[x] for x in LABELS[1::2]] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.slow
def test_every_reference_video_has_its_record(shared, tiny_clip_dir, zsar_process):
    folder = shared / "videos"
    names = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    done = zsar_process("predict", *names, "--model", tiny_clip_dir, *LABELS, "--format", "jsonl")
    assert done.wait(200) == 1
    found = {Path(r["video"]).name: r for r in records(done.read("stdout"))}
    assert [r["video"] for r in records(done.read("stdout"))] == names
    failed = {name for name, record in found.items() if "error" in record}
    assert {"truncated_no_moov.mp4", "audio_only.m4a"} <= failed
    assert failed <= {"truncated_no_moov.mp4", "audio_only.m4a", "frame_exceeds_screen.gif"}
    for name in ("corrupted_nal.mp4", "truncated_faststart_60pct.mp4", "truncated_half_no_error.mkv"):
        assert "could be read" in found[name]["warning"]
