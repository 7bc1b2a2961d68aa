"""Class names become words in prompts, and stay what they are in records."""

from __future__ import annotations

import pytest

from zsar_cli.text.class_lists import class_names, list_names
from zsar_cli.text.labels import load_labels
from zsar_cli.text.templates import load_templates
from zsar_cli.text.words import as_words, words_line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("YoYo", "yo yo"),
        ("brush_hair", "brush hair"),
        ("Baby_CrawlingFast", "Baby crawling fast"),
        ("Archery", "Archery"),
        ("push-up", "push-up"),
        ("riding a BigBike", "riding a BigBike"),
        ("DJ", "DJ"),
        ("iPhone", "iPhone"),
        ("___", "___"),
        ("跳_舞", "跳 舞"),
        ("STIR_2", "STIR 2"),
    ],
)
def test_names_are_read_as_words(name: str, words: str) -> None:
    assert as_words(name) == words
    assert as_words(words) == words


def test_built_in_lists_are_words_already() -> None:
    assert [name for listed in list_names() for name in class_names(listed) if as_words(name) != name] == []


def test_names_stay_and_phrases_are_words(tmp_path) -> None:
    (tmp_path / "labels.txt").write_text("brush_hair\nclap\n")
    labels = load_labels(str(tmp_path / "labels.txt"), ["ApplyLipstick"])
    assert labels.names == ("brush_hair", "clap", "ApplyLipstick")
    assert labels.phrases == (("brush hair",), ("clap",), ("apply lipstick",))
    (tmp_path / "phrases.yaml").write_text("YouTube: YouTube\nclap_hands: [a person claps]\n")
    described = load_labels(str(tmp_path / "phrases.yaml"))
    assert described.phrases == (("YouTube",), ("a person claps",))
    assert words_line(["clap"]) is None


def test_training_reads_them_alike(tiny_clip_dir) -> None:
    import torch

    from zsar_cli.model.load import load_model
    from zsar_cli.text.embeddings import embed_labels

    model, templates = load_model(str(tiny_clip_dir)), load_templates("plain")
    one, other = (
        embed_labels(model, names, templates, bank=False) for names in (["brush_hair"], ["brush hair"])
    )
    assert torch.equal(one.positive, other.positive)
    assert one.labels == ["brush_hair"]
