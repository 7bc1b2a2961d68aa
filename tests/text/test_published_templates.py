"""The prompt templates that published numbers were measured with."""

from __future__ import annotations

from zsar_cli.text.templates import load_templates

NOUNS = ("photo", "video", "example", "demonstration")
VERBS = ("using", "doing", "during", "performing", "practicing")


def test_the_28_of_kinetics_are_nouns_with_and_without_a_person_who_does_it() -> None:
    expected = {f"a {noun} of {{}}." for noun in NOUNS}
    expected |= {f"a {noun} of a person {{}}." for noun in NOUNS}
    expected |= {f"a {noun} of a person {verb} {{}}." for noun in NOUNS for verb in VERBS}
    shipped = load_templates("clip28").positive
    assert len(shipped) == 28
    assert set(shipped) == expected


def test_the_48_of_ucf101_are_nouns_with_a_person_or_the_person() -> None:
    who = [f"a {noun} of {article} person" for noun in NOUNS for article in ("a", "the")]
    expected = {f"{start} {{}}." for start in who} | {
        f"{start} {verb} {{}}." for start in who for verb in VERBS
    }
    shipped = load_templates("clip48").positive
    assert len(shipped) == 48
    assert set(shipped) == expected


def test_the_16_of_actionclip_speak_of_an_action() -> None:
    shipped = load_templates("actionclip16").positive
    assert len(set(shipped)) == 16
    assert {"a photo of action {}", "{}", "{}, an action", "The woman is {}"} <= set(shipped)
