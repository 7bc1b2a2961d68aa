"""What is said on stderr: errors in plain words that say what to do."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.video_files import write_video
from zsar_cli.cli import console
from zsar_cli.cli.listing import suggested_models
from zsar_cli.cli.run_lines import answers_in, stray_labels_line, stray_list_line, tally_line
from zsar_cli.errors import UsageError
from zsar_cli.model.load import load_model

FRAMEWORKS = (
    "Value error",
    "Input should",
    "Invalid value",
    "None is not",
    "NoneType",
    "Traceback",
    "pydantic",
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["predict", "v", "--top-k", "x"],
            "--top-k must be a whole number, not 'x'. See zsar predict --help.",
        ),
        (["predict", "v", "--top-k", "0"], "--top-k must be at least 1, not '0'."),
        (["predict", "v", "-k", "99999999"], "--top-k must be at most"),
        (
            ["predict", "v", "-f", "xml"],
            "--format must be table, jsonl, csv, parquet, srt, vtt, mpegts,",
        ),
        (["predict", "v", "--precision", ""], "--precision must be auto, fp32,"),
        (["predict", "v", "--threshold", "half"], "--threshold must be a number, not 'half'."),
        (["predict", "v", "--threshold", "2"], "--threshold must be at most 1"),
        (["predict", "v", "--frames", "1.5"], "--frames must be a whole number, not '1.5'."),
        (["predict", "v", "--output"], "--output needs a value after it."),
        (["predict", "v", "--resume=3"], "--resume takes no value."),
        (["predict", "v", "--lable", "a"], "There is no option --lable; did you mean --label? See"),
        (["predict", "v", "--xyzzy"], "There is no option --xyzzy. See"),
        (["predict", "--label", "a"], "VIDEO is missing."),
        (["predct", "v"], "There is no command 'predct'. Did you mean predict?"),
        (["v.mp4", "--label", "a"], "There is no command 'v.mp4'. See zsar --help."),
        (["tests"], "There is no command 'tests'. Did you mean zsar predict tests?"),
        (["predict", "v", "--label", "a", "-o", "page.html"], "a page is written by --report FILE."),
        (["predict", "v", "--label", "a", "-o", "Answers.XLSX"], "a spreadsheet opens .csv."),
        (
            ["predict", "v", "--label", "a", "--multi", "--calibration", "95"],
            "bound those by --min-confidence.",
        ),
        (
            ["train", "videos"],
            "'videos' was not expected: zsar train takes only options; give a data set with --data.",
        ),
        (["eval", "videos"], "give a data set with --data, a model with --model."),
        (["embed-prompts", "a"], "give labels with --labels FILE or --label TEXT."),
        (["train", "--steps", "some"], "--steps must be a whole number, not 'some'."),
        (["eval", "--workers", "-1"], "--workers must be at least 0, not '-1'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_told_in_our_own_words(zsar, arguments, said) -> None:
    done = zsar(*arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not [words for words in FRAMEWORKS if words in done.err]


def test_a_wrong_value_of_the_environment_names_its_variable(zsar, monkeypatch) -> None:
    monkeypatch.setenv("ZSAR_WORKERS", "many")
    done = zsar("predict", "v.mp4", "--label", "a")
    assert "The environment variable ZSAR_WORKERS must be a whole number, not 'many'." in done.err


def test_files_that_are_passed_over_are_no_warning(zsar, tmp_path) -> None:
    write_video(tmp_path / "v.mp4", 8)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    done = zsar("predict", tmp_path, "--labels", tmp_path / "labels.txt", "--model", "motion-tin")
    assert f"zsar: {tmp_path}: 1 file is skipped by extension (1 .txt)." in done.err
    assert "warning" not in done.err


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The current folder, with one run in it and a file that is no model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/config.yaml").write_text("backbone: nothing\n")
    (tmp_path / "runs/mine/model.safetensors").write_bytes(b"x")
    (tmp_path / "v.mp4").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("motion-tin", "Did you mean motion-tiny?"),
        ("Motion_Tiny", "Did you mean motion-tiny?"),
        ("runs/nope", "There is no model runs/nope: no such file or directory."),
        ("runs/mime", "did you mean runs/mine?"),
        ("runs", "give one of them: runs/mine."),
        ("runs/mine/model.safetensors", "give the folder: --model runs/mine"),
        ("runs/mine/config.yaml", "give the folder: --model runs/mine"),
        ("best.pt", "There is no model best.pt: no such file"),
        ("v.mp4", "v.mp4 is not a model file"),
        ("~nobody/run", "its folder does not exist either."),
        ("checkpoints/best", "there is no folder checkpoints here"),
        ("openai/clip-vit-base-patch16", "The nearest in open_clip is ViT-B-16/openai."),
        ("openai/clip-vit-large-patch14-336", "The nearest in open_clip is ViT-L-14-336/openai."),
        ("google/siglip2-base-patch16-224", "The nearest in open_clip is ViT-B-16-SigLIP2/webli."),
        ("facebook/PE-Core-B16-224", "The nearest in open_clip is PE-Core-B-16/meta."),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "is ViT-B-32/laion2b_s34b_b79k."),
        ("https://huggingface.co/openai/clip-vit-base-patch32", "is ViT-B-32/openai."),
        ("https://example.org/model.pt", "is a URL; download the model"),
        ("MCG-NJU/videomae-base", "--list-models"),
        ("ViT-B-16", "use one of ViT-B-16/openai"),
        ("ViT-B16", "Did you mean ViT-B-16"),
    ],
)
def test_a_name_of_no_model_gets_the_right_hint(runs, name, said) -> None:
    with pytest.raises(UsageError) as caught:
        load_model(name)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["arm wrestling", "playing chess"], "one by one (--label 'arm wrestling'"),
        (["waving"], "the lists are camera, hmdb51"),
        (["waving"], "one by one (--label waving"),
        (["waving, standing up"], "one by one (--label waving --label 'standing up'"),
        (["ucf-11"], "did you mean ucf101?"),
        (["https://example.org/labels.txt"], "is a URL"),
        (["labels.txt"], "The file labels.txt does not exist"),
    ],
)
def test_labels_that_are_no_file_are_sent_to_label(runs, zsar, labels, said) -> None:
    done = zsar("predict", "v.mp4", "--labels", *labels)
    assert done.code == 2
    assert said in done.err


def test_models_and_lists_are_listed_on_stdout_without_a_video(zsar) -> None:
    models = zsar("predict", "--list-models")
    assert models.code == 0
    suggested, published = models.out.split("\n\n")
    assert [line.split()[0] for line in suggested.splitlines()] == [m.name for m in suggested_models()]
    assert published.startswith("published")
    assert "PE-Core-B-16/meta          448 M  Apache-2.0" in models.out
    assert "open_clip" in models.err
    lists = zsar("predict", "--list-labels", "--quiet")
    assert (lists.code, lists.err) == (0, "")
    assert "ucf101         101 labels" in lists.out
    assert "kinetics400    400 labels" in lists.out


def test_listed_models_are_what_open_clip_has() -> None:
    import open_clip
    import torch

    (own, *others) = suggested_models()
    assert own.name == "motion-tiny"
    for model in others:
        arch, tag = model.name.split("/")
        assert open_clip.get_pretrained_cfg(arch, tag), model.name
    with torch.device("meta"):
        clip = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
    (parameters,) = (m.parameters for m in others if m.name == "ViT-B-16/openai")
    assert round(sum(p.numel() for p in clip.parameters()) / 1e6) == parameters


def test_a_run_says_on_a_terminal_what_runs_and_what_was_answered(
    zsar, tiny_clip_dir, tmp_path, monkeypatch
) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, 8)
    arguments = ("predict", tmp_path / "a.mp4", tmp_path / "b.mp4", "--label", "waving", "--label", "running")
    arguments += ("--model", tiny_clip_dir, "--workers", 0, "--min-confidence", 1, "--output")
    assert zsar(*arguments, tmp_path / "quiet.jsonl").err.count("\n") <= 1  # no terminal: as short as it was

    monkeypatch.setattr(console, "configure", with_terminal(console.configure, monkeypatch))
    done = zsar(*arguments, tmp_path / "out.jsonl")
    assert (done.code, done.out) == (0, "")
    assert f"on cpu in fp32, 8 frames, 2 labels; 2 videos, to {tmp_path / 'out.jsonl'}." in done.err
    assert f", written to {tmp_path / 'out.jsonl'}." in done.err
    assert "Answers: none of these 2." in done.err
    assert "Next:  " in done.err
    assert zsar(*arguments, tmp_path / "q.jsonl", "--quiet").err == ""


def test_an_evaluation_says_on_a_terminal_what_runs_what_was_written_and_what_is_next(
    zsar, tiny_clip_dir, tmp_path, monkeypatch
) -> None:
    for name in ("run", "jump"):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_video(tmp_path / "data" / name / "a.mp4", 8)
    arguments = ("eval", "--data", tmp_path / "data", "--model", tiny_clip_dir, "--workers", 0, "--frames", 2)
    monkeypatch.setattr(console, "configure", with_terminal(console.configure, monkeypatch))
    done = zsar(*arguments, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert f"on cpu in fp32, 2 frames, 2 labels; 2 videos, to {tmp_path / 'out'}." in done.err
    assert f"Written to {tmp_path / 'out'}: results.json, predictions.jsonl and tables." in done.err
    assert "Next:  add --report FOLDER" in done.err
    assert zsar(*arguments, "--output", tmp_path / "out", "--quiet").err == ""


def test_names_that_are_read_as_words_are_said_once_and_kept(zsar, tiny_clip_dir, tmp_path) -> None:
    data = tmp_path / "data"
    for name in ("brush_hair", "ApplyLipstick"):
        (data / name).mkdir(parents=True)
        write_video(data / name / "a.mp4", 8)
    options = ("--model", tiny_clip_dir, "--workers", 0, "--frames", 2)
    done = zsar("predict", data, *options, "--label", "brush_hair", "--label", "clap")
    line = (
        "1 of 2 labels are split into words in prompts, such as 'brush_hair' into 'brush hair'; records keep"
    )
    assert [found for found in done.err.splitlines() if line in found] == [done.err.splitlines()[0]]
    assert {p["label"] for record in done.records for p in record["predictions"]} == {"brush_hair", "clap"}
    done = zsar("eval", "--data", data, *options)
    assert done.err.count("2 of 2 labels are split into words in prompts, such as 'ApplyLipstick'") == 1


def with_terminal(configure, monkeypatch):
    """The function, after which standard error is a terminal."""

    def configured(**settings):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        configure(**settings)

    return configured


def test_a_comma_in_the_only_label_is_pointed_at_label(zsar, tiny_clip_dir) -> None:
    for label, said in (("hugging, tai chi", True), ("hugging", False)):
        done = zsar("predict", __file__, "--label", label, "--model", tiny_clip_dir, "--workers", 0)
        assert ("A comma does not separate labels" in done.err) == said
        assert "score is always 1" in done.err
        assert done.err.endswith("1 failed (see the records).\n")


def test_answers_are_counted_by_label() -> None:
    assert answers_in({"error": {}}) == set()
    assert answers_in({"predictions": [{"label": "a"}]}) == {"a"}
    assert answers_in({"answer": "none of these", "predictions": [{"label": "a"}]}) == {"none of these"}
    assert answers_in({"answers": ["a", "b"], "predictions": []}) == {"a", "b"}
    assert answers_in({"answers": [], "answer": "none of these"}) == {"none of these"}
    none = {"answer": "none of these"}
    assert answers_in({"segments": [{"answer": "a"}, none, {"answer": "b"}, {"answer": "a"}]}) == {"a", "b"}
    assert answers_in({"segments": [none, none]}) == {"none of these"}
    assert answers_in({"segments": []}) == set()
    tally = Counter({"none of these": 9, **{f"label {n}": 8 - n for n in range(7)}})
    assert tally_line(tally) == (
        "Answers: label 0 8, label 1 7, label 2 6, label 3 5, label 4 4, 2 more labels 5, none of these 9."
    )


def test_a_list_of_labels_that_is_taken_for_one_of_videos_is_pointed_at_labels(tmp_path) -> None:
    (tmp_path / "labels.txt").write_text("arm wrestling\nplaying chess\n")
    (tmp_path / "videos.txt").write_text("gone.mp4\n")
    (tmp_path / "none.txt").touch()
    assert "put --labels before it" in (stray_list_line(["v.mp4", str(tmp_path / "labels.txt")]) or "")
    assert (
        stray_list_line(["-", "gone.txt", *(str(tmp_path / f"{name}.txt") for name in ("videos", "none"))])
        is None
    )


def test_a_label_that_is_taken_for_a_video_is_pointed_at_label(runs, zsar) -> None:
    done = zsar("predict", "v.mp4", "--label", "arm wrestling", "playing chess", "--model", "motion-tin")
    assert (
        "'playing chess' is read as a video. If it is a label, put --label before it: --label 'playing chess'"
        in done.err
    )
    for videos in (
        ["v.mp4"],
        ["v.mp4", "runs"],
        ["v.mp4", "gone.mp4"],
        ["v.mp4", "a/b"],
        ["-"],
        ["waving"],
        ["v.mp4", "0"],
    ):
        assert stray_labels_line(videos) is None, videos
