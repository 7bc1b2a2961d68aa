"""What is said on stderr: errors in plain words that say what to do."""

from __future__ import annotations

import pytest

from tests.video_files import write_video

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
        (["predict", "v", "-f", "xml"], "--format must be table, jsonl, csv, srt or vtt, not 'xml'."),
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
        (
            ["train", "videos"],
            "'videos' was not expected: zsar train takes options alone; a data set goes to --data.",
        ),
        (["eval", "videos"], "a data set goes to --data, a model to --model."),
        (["embed-prompts", "a"], "labels go to --labels FILE or --label TEXT."),
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
    assert f"zsar: {tmp_path}: 1 file is passed over by ending (1 .txt)." in done.err
    assert "warning" not in done.err
