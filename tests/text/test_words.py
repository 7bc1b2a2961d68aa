"""Class names become words in prompts, and stay what they are in records."""

from __future__ import annotations

import json

import pytest

from zsar_cli.text.class_lists import class_names, list_names
from zsar_cli.text.embeddings import as_trained
from zsar_cli.text.labels import Labels, load_labels
from zsar_cli.text.templates import load_templates
from zsar_cli.text.words import as_words, words_line
from zsar_cli.training.inputs import phrases_of


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


def test_a_model_reads_its_own_classes_as_its_training_did(tiny_clip_dir, tmp_path) -> None:
    import torch

    from zsar_cli.model.load import load_model
    from zsar_cli.text.embeddings import embed_labels
    from zsar_cli.text.labels import class_labels

    model, templates = load_model(str(tiny_clip_dir)), load_templates("plain")
    names = ["brush_hair", "ApplyLipstick"]
    for phrases in ([], ["brush_hair", "lips"]):  # version 0.1.0 kept none, and put the names in
        model.record.classes, model.record.phrases = names, phrases
        model.save(tmp_path / "run")
        again = load_model(str(tmp_path / "run"))
        found = class_labels(str(tmp_path / "run"))
        said = phrases or names
        assert found is not None
        assert found.phrases == tuple((phrase,) for phrase in said)
        wanted = Labels(tuple(names), tuple((phrase,) for phrase in said))
        model.record.classes, model.record.phrases = [], []
        expected = embed_labels(model, wanted, templates, bank=False).positive
        for asked in (names, found, load_labels(None, names)):
            assert torch.equal(embed_labels(again, asked, templates, bank=False).positive, expected)
    described = Labels(("brush_hair",), (("a comb",),))
    assert as_trained(described, again.record.prompted) == described


def test_a_run_goes_on_with_the_words_it_began_with(tmp_path) -> None:
    classes = ["brush_hair", "clap"]
    assert phrases_of(tmp_path, classes, resume=True) == ["brush hair", "clap"]  # nothing is there
    old = {"classes": classes, "clips": 1, "clips_hash": "", "held_out": 0, "held_out_hash": ""}
    old |= {"templates": "", "weights": ""}
    (tmp_path / "inputs.json").write_text(json.dumps(old))
    assert phrases_of(tmp_path, classes, resume=True) == classes
    assert phrases_of(tmp_path, classes, resume=False) == ["brush hair", "clap"]
    (tmp_path / "inputs.json").write_text(json.dumps(old | {"phrases": ["hair", "clap"]}))
    assert phrases_of(tmp_path, classes, resume=True) == ["hair", "clap"]
