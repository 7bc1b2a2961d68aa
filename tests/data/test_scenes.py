"""Procedural scenes: what they show is what their labels say, and training never sees what it is tested on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from zsar_cli.data.dataset import load_dataset, load_scenes
from zsar_cli.data.scenes import classes, phrases, render
from zsar_cli.errors import UsageError
from zsar_cli.text.class_lists import class_names
from zsar_cli.training.data import RenderedClips, Schedule, Visit, rendered_stream
from zsar_cli.training.twins import draw_twin
from zsar_cli.video.transforms import Preprocess

FEW = Preprocess((32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def movement(clip: np.ndarray) -> np.ndarray:
    """Estimate by brightness constancy how far the picture moves right, down, outwards and clockwise."""
    grey = clip.astype(np.float32).mean(axis=-1)
    size = grey.shape[1]
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    total = np.zeros(4)
    for before, after in itertools.pairwise(grey):
        down, right = (g * size / 2 for g in np.gradient((before + after) / 2))
        system = np.stack([right, down, right * x + down * y, down * x - right * y], axis=-1)
        total += np.linalg.lstsq(system.reshape(-1, 4), (before - after).ravel(), rcond=None)[0]
    return total


@pytest.mark.parametrize(
    ("move", "which", "sign"),
    [
        ("pan left", 0, 1),
        ("pan right", 0, -1),
        ("tilt up", 1, 1),
        ("tilt down", 1, -1),
        ("zoom in", 2, 1),
        ("zoom out", 2, -1),
        ("roll clockwise", 3, -1),
        ("roll counterclockwise", 3, 1),
    ],
)
def test_the_picture_moves_against_the_camera(move: str, which: int, sign: int) -> None:
    label = classes.CAMERAS[move]
    found = [movement(render.render(label, i, frames=12, size=40))[which] * sign > 0 for i in range(7)]
    assert sum(found) >= 5, found  # of some, large things move against it


def test_a_clip_is_a_function_of_split_label_and_index() -> None:
    first = render.render("the camera pans left", 3, size=32)
    assert first.shape == (8, 32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, render.render("the camera pans left", 3, size=32))
    others = ({"index": 4}, {"split": "camera"}, {"label": "the camera pans right"})
    for other in others:
        changed = render.render(**{"label": "the camera pans left", "index": 3, "size": 32} | other)
        assert not np.array_equal(first, changed)


def test_moments_can_be_chosen() -> None:
    label = "something moves left"
    even = render.render(label, 1, size=32, frames=4)
    assert np.array_equal(
        even, render.render(label, 1, size=32, times=np.array([0.125, 0.375, 0.625, 0.875]))
    )


def test_every_class_can_be_drawn() -> None:
    for kind in classes.classes():
        assert render.render(kind.label, 0, size=16, frames=2).shape == (2, 16, 16, 3)


def test_unseen_pairs_are_of_words_that_training_has_and_never_together() -> None:
    train = {kind.label for kind in classes.split_classes("train")}
    unseen = classes.split_classes("unseen")
    assert len(unseen) == 9
    assert not train & {kind.label for kind in unseen}
    seen = classes.split_classes("seen")
    for kind in unseen:
        assert kind.camera in {other.camera for other in seen}
        assert kind.subject in {other.subject for other in seen}
    said = {text for label in train for text in phrases.phrasings(label)}
    assert not said & {text for kind in unseen for text in phrases.phrasings(kind.label)}


def test_the_classes_of_the_camera_are_the_built_in_list() -> None:
    assert tuple(classes.CAMERAS.values()) == class_names("camera")


def test_held_out_phrasings_are_not_trained() -> None:
    trained = {text for kind in classes.classes() for text in phrases.phrasings(kind.label)}
    for label in classes.CAMERAS.values():
        held_out = phrases.held_out_phrasings(label)
        assert len(held_out) >= 4
        assert not trained & set(held_out)
    for kind in classes.classes():
        found = phrases.phrasings(kind.label)
        assert found[0] == kind.label
        assert len(found) >= 8


def test_no_two_classes_of_a_group_share_a_phrasing() -> None:
    for group in ("camera", "subject", "pair"):
        said: dict[str, str] = {}
        for kind in classes.classes():
            for text in phrases.phrasings(kind.label) if kind.group == group else ():
                assert said.setdefault(text, kind.label) == kind.label, text


def test_the_data_set_lists_scenes_and_shapes_in_groups() -> None:
    data = load_dataset("scenes", split="train")
    assert set(data.groups) == {"camera", "subject", "pair", "shapes"}
    assert len(data.groups) == len(data.classes)
    for item in data.items[:: len(data.items) // 50]:
        path = item.path.split(":", 1)[1]
        assert path.split("/", 1)[1].rsplit("/", 1)[0] == data.classes[item.label]
    assert load_dataset("scenes").name == "scenes"
    with pytest.raises(UsageError, match="scenes has no split 'novel'"):
        load_scenes("novel")


def test_worker_processes_draw_the_same_clips_in_the_same_order() -> None:
    data = load_scenes("train")
    items = data.items[:: len(data.items) // 6]
    clips = RenderedClips(items, 2, FEW)
    schedule = Schedule(len(items), 3, 1, 3, seed=5)
    alone, shared = ([*rendered_stream(clips, schedule, n)(1)] for n in (0, 1))
    assert [batch.step for batch in alone] == [1, 2] == [batch.step for batch in shared]
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.target, other.target)


def test_scenes_are_others_in_every_epoch() -> None:
    data = load_scenes("train")
    items = [next(item for item in data.items if item.path.startswith("scenes:"))] * 2
    clips = RenderedClips(items, 2, FEW)
    stream = rendered_stream(clips, Schedule(2, 2, 1, 2, seed=0))
    first, second = (batch.clips for batch in stream(0))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("label", "mirrored", "backwards", "now"),
    [
        ("the camera pans left", True, False, "the camera pans right"),
        ("the camera pans left", False, True, "the camera pans right"),
        ("the camera pans left", True, True, "the camera pans left"),
        ("the camera tilts up", True, False, "the camera tilts up"),
        ("the camera tilts up", False, True, "the camera tilts down"),
        ("the camera zooms in", True, True, "the camera zooms out"),
        ("the camera rolls clockwise", True, False, "the camera rolls counterclockwise"),
        ("something comes nearer", False, True, "something goes away"),
        ("a static shot", True, True, "a static shot"),
        (
            "something moves left while the camera zooms in",
            True,
            True,
            "something moves left while the camera zooms out",
        ),
    ],
)
def test_a_mirror_and_time_run_backwards_change_what_a_label_says(
    label: str, mirrored: bool, backwards: bool, now: str
) -> None:
    assert classes.changed_label(label, mirrored=mirrored, backwards=backwards) == now


def test_a_twin_is_the_same_scene_under_the_label_that_it_then_has() -> None:
    data = load_scenes("train")
    items = [item for item in data.items if item.path.startswith("scenes:")][:: len(data.items) // 24]
    names = {name: index for index, name in enumerate(data.classes)}
    clips = RenderedClips(items, 2, FEW, names)
    seen = set()
    for position in range(len(items)):
        visit = Visit(position, 0, 3)
        clip, twin = clips[visit]
        label, other = (data.classes[target] for target in clips.targets(visit))
        if draw_twin(label, visit.seed, names).filmed:
            continue
        ways = [(m, b) for m in (False, True) for b in (False, True)]
        fits = [
            (m, b) for m, b in ways if np.array_equal(clip[:: -1 if b else 1, :, :: -1 if m else 1], twin)
        ]
        assert any(classes.changed_label(label, mirrored=m, backwards=b) == other for m, b in fits)
        seen.update(fits)
    assert len(seen) >= 3


@pytest.mark.parametrize(
    ("label", "other"),
    [
        ("a static shot", "the camera shakes"),
        ("something turns while the camera tilts up", "something turns while the camera tilts down"),
    ],
)
def test_a_scene_is_filmed_by_another_camera_and_shows_the_same_things(label: str, other: str) -> None:
    def shown(index: int, **filmed: str) -> np.ndarray:
        return render.render(label, index, frames=2, size=32, **filmed)

    assert np.array_equal(shown(4, filmed=other), shown(4, filmed=other))
    assert not np.array_equal(shown(4, filmed=other), shown(4))
    own, same, strange = (
        np.sort(clip.reshape(-1, 3).astype(float), axis=0)
        for clip in (shown(4), shown(4, filmed=other), shown(5))
    )
    assert 4 * np.abs(own - same).mean() < np.abs(own - strange).mean()


def test_half_of_the_twins_have_another_camera_and_the_same_subject() -> None:
    names = {kind.label: index for index, kind in enumerate(classes.split_classes("train"))}
    for label in names:
        kind = classes.find_class(label)
        twins = [classes.find_class(draw_twin(label, seed, names).label) for seed in range(1, 80, 2)]
        if kind.camera is None:
            assert {twin.camera for twin in twins} == {None}
        else:
            assert kind.camera not in {twin.camera for twin in twins}
            assert {twin.subject for twin in twins} == {kind.subject}
        cameras = [twin.camera for twin in twins]
        if kind.group == "camera":  # what is easily taken for it, about half of the time
            assert 10 < cameras.count("shake" if kind.camera == "static" else "static") < 30


def test_twins_never_show_an_unseen_pair() -> None:
    data = load_scenes("train")
    assert not {c.label for c in classes.classes() if c.unseen} & set(data.classes)
    names = {name: index for index, name in enumerate(data.classes)}
    pair = next(c.label for c in classes.classes() if c.group == "pair" and not c.unseen)
    items = [item for item in data.items if data.classes[item.label] == pair][:20]
    clips = RenderedClips(items, 2, FEW, names)
    assert all(len(clips.targets(Visit(n, 0, 1))) == 2 for n in range(len(items)))


def test_a_twin_of_a_shape_has_its_motion_in_other_colours() -> None:
    data = load_scenes("train")
    items = data.items[-1:]
    clips = RenderedClips(items, 2, FEW, {name: index for index, name in enumerate(data.classes)})
    clip, twin = clips[Visit(0, 0, 0)]
    assert clips.targets(Visit(0, 0, 0)) == [items[0].label] * 2
    assert not np.array_equal(clip, twin)
