"""Class lists and splits against the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsar_cli.data.splits import few_shot, split_classes
from zsar_cli.errors import UsageError
from zsar_cli.text.class_lists import NameMatcher, class_list, class_names, list_names, normalise_name
from zsar_cli.text.labels import load_labels

PUBLISHED = {
    ("kinetics400", "all"): "kinetics_400_labels.csv",
    ("kinetics400", "base"): "kinetics_400_base_labels.csv",
    ("kinetics400", "novel"): "kinetics_400_novel_labels.csv",
    ("kinetics400", "temporal"): "kinetics_400_temporal32_labels.csv",
    ("kinetics400", "static"): "kinetics_400_static32_labels.csv",
    ("kinetics600", "all"): "kinetics_600_labels.csv",
    ("kinetics600", "split1"): "ZS_split1_K600.csv",
    ("kinetics600", "split2"): "ZS_split2_K600.csv",
    ("kinetics600", "split3"): "ZS_split3_K600.csv",
    ("ucf101", "all"): "ucf_101_labels.csv",
    ("ucf101", "seen"): "ucf_101_base_labels.csv",
    ("ucf101", "unseen"): "ucf_101_novel_labels.csv",
    ("hmdb51", "all"): "hmdb_51_labels.csv",
    ("hmdb51", "base"): "hmdb_51_base_labels.csv",
    ("hmdb51", "novel"): "hmdb_51_novel_labels.csv",
    ("ssv2", "all"): "ssv2_labels.csv",
    ("ssv2", "base"): "ssv2_174_base_labels.csv",
    ("ssv2", "novel"): "ssv2_174_novel_labels.csv",
    ("ssv2", "temporal"): "ssv2_temporal18_labels.csv",
    ("ssv2", "static"): "ssv2_static16_labels.csv",
}


@pytest.mark.parametrize(("name", "split"), PUBLISHED)
def test_lists_and_splits_are_the_published_ones(shared: Path, name: str, split: str) -> None:
    published = load_labels(str(shared / "data" / "labels" / PUBLISHED[name, split])).names
    known = class_list(name)
    matcher = NameMatcher(known.names, known.aliases)
    ours = split_classes(name, split)
    assert [known.names[matcher.find(label)] for label in published] == list(ours)


@pytest.mark.parametrize("name", ["kinetics400", "kinetics600", "ucf101", "hmdb51", "ssv2"])
def test_names_are_phrases_that_stay_apart(name: str) -> None:
    names = class_names(name)
    assert len({normalise_name(label) for label in names}) == len(names)
    for label in names:
        assert "_" not in label
        assert "[" not in label
        assert label == label.strip()


def test_base_and_novel_halves_make_the_whole() -> None:
    for name in ("kinetics400", "ucf101", "hmdb51", "ssv2"):
        base, novel = split_classes(name, "base"), split_classes(name, "novel")
        assert sorted(base + novel) == sorted(class_names(name))


def test_ucf_names_are_words() -> None:
    names = class_names("UCF-101")
    for expected in (
        "apply eye makeup",
        "hula hoop",
        "tai chi",
        "yo yo",
        "baseball pitch",
        "handstand push ups",
    ):
        assert expected in names


def test_matching_of_spellings() -> None:
    matcher = NameMatcher(
        ["hurling (sport)", "apply eye makeup", "jet ski", "kick", "kick ball"], {"jet ski": ("Skijet",)}
    )
    found = [
        matcher.find(name)
        for name in ("hurling_sport", "ApplyEyeMakeup", "Skijet", "kick", "kick_ball", "kiss")
    ]
    assert found == [0, 1, 2, 3, 4, None]
    assert NameMatcher(["a b", "ab"]).find("A_B") is None  # either could be meant
    assert NameMatcher(["a b", "ab"]).find("ab") == 1


def test_names_in_any_script_stay_apart() -> None:
    # Vowel signs are marks: without them these pairs would be one word.
    assert normalise_name("कूदना") != normalise_name("कादना")
    assert normalise_name("चलना") != normalise_name("चलाना")
    assert normalise_name("ยืน") != normalise_name("ยัน")
    assert normalise_name("Ｙｏｇａ") == normalise_name("yoga")  # full width
    assert normalise_name("cafe\u0301") == normalise_name("Caf\u00e9")  # composed or not
    matcher = NameMatcher(["कूदना", "कादना"])
    assert [matcher.find(name) for name in ("कूदना", "कादना")] == [0, 1]


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(UsageError, match="ucf101"):
        class_list("ucf-102")
    with pytest.raises(UsageError, match="base, novel"):
        split_classes("ucf101", "split1")
    assert "motion-shapes" in list_names()


def test_few_shot_draws_are_nested_and_repeatable() -> None:
    labels = [i % 3 for i in range(60)] + [3]
    draws = {k: few_shot(range(61), labels, k, seed=5) for k in (2, 4, 8)}
    assert set(draws[2]) < set(draws[4]) < set(draws[8])
    assert [sum(labels[i] == c for i in draws[4]) for c in range(4)] == [4, 4, 4, 1]
    assert draws[4] == few_shot(range(61), labels, 4, seed=5) != few_shot(range(61), labels, 4, seed=6)


def test_camera_is_a_built_in_list_of_ten_movements() -> None:
    names = load_labels("camera").names
    assert (len(names), names[0], names[-1]) == (10, "a static shot", "the camera shakes")
    opposites = {"left": "right", "up": "down", "in": "out", "clockwise": "counterclockwise"}
    last = [name.split()[-1] for name in names[1:-1]]
    assert dict(zip(last[::2], last[1::2], strict=True)) == opposites
