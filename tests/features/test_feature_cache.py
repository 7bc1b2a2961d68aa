"""The cache of frame features: what is found again, what is not, and that nothing is decoded or encoded twice."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from tests.close import assert_close
from tests.tiny_models import make_tiny_clip
from tests.video_files import write_video
from zsar_cli.cache_files import lock
from zsar_cli.cli.app import app
from zsar_cli.errors import UsageError
from zsar_cli.features.cache import EncodedClip, FeatureCache, _checksum, _checksum_of, _path
from zsar_cli.features.encoding import load_cached, map_features
from zsar_cli.model.backbone import Backbone, FrameFeatures, load_backbone
from zsar_cli.model.zsar import Parts, RecognizerModel
from zsar_cli.recognizer import Recognizer
from zsar_cli.video import pool
from zsar_cli.video.pool import ClipRequest, DecodePool, load_clip
from zsar_cli.video.sampling import Sampling

LABELS = ["arm wrestling", "shooting a basketball", "tai chi"]


@pytest.fixture(autouse=True)
def own_text_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "texts"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [str(write_video(folder / f"{n}.mp4", 12 + n)) for n in range(7)]


@pytest.fixture(scope="module")
def motion_dir(tmp_path_factory, tiny_clip_dir):
    """A model that looks at motion, on the tiny backbone, as zsar train writes it with tune: modules."""
    folder = tmp_path_factory.mktemp("motion")
    torch.manual_seed(1)
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)), Parts(width=16, queries=2, layers=1, heads=2))
    torch.nn.init.normal_(model.project.weight, std=0.5)
    model.save(folder, backbone=False)
    return folder


def request(path: str, **changes) -> ClipRequest:
    return ClipRequest(path, Sampling(4), **changes)


def forbid_work(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("this was to come from the cache")

    monkeypatch.setattr(Backbone, "encode_frames", refuse)
    given = [refuse if value is pool.load_clip else value for value in DecodePool.__init__.__defaults__]
    assert refuse in given
    monkeypatch.setattr(DecodePool.__init__, "__defaults__", tuple(given))
    monkeypatch.setattr(pool, "load_clip", refuse)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_records_without_decoder_or_tower(videos, motion_dir, tmp_path, monkeypatch, precision):
    names = [*videos, str(tmp_path / "missing.mp4")]

    def ask(labels, cache, batch_size=1):
        recognizer = Recognizer.load(str(motion_dir), device="cpu", precision=precision, cache=cache)
        results = recognizer.predict_many(names, labels, workers=0, views=2, crops=3, batch_size=batch_size)
        return [result.to_record() for result in results]

    plain, other = ask(LABELS, None), ask(["a", "b"], None)
    first = ask(LABELS, tmp_path / "cache")
    forbid_work(monkeypatch)
    names.pop()
    assert_close(ask(LABELS, tmp_path / "cache"), first[:-1])
    assert_close(ask(LABELS, tmp_path / "cache", batch_size=4), first[:-1])
    for labels, expected in ((LABELS, plain), (["a", "b"], other)):
        for found, record in zip(ask(labels, tmp_path / "cache"), expected[:-1], strict=True):
            assert {**found, "predictions": 0, "unknown": 0} == {**record, "predictions": 0, "unknown": 0}
            scores = {p["label"]: p["score"] for p in found["predictions"]}
            assert scores == pytest.approx({p["label"]: p["score"] for p in record["predictions"]}, abs=2e-3)
            assert found["unknown"] == pytest.approx(record["unknown"], abs=2e-3)


def test_hits_and_misses_keep_their_order(videos, tiny_clip_dir, tmp_path):
    def ask(names):
        recognizer = Recognizer.load(str(tiny_clip_dir), device="cpu", cache=tmp_path)
        return [r.to_record() for r in recognizer.predict_many(names, LABELS, workers=2)], recognizer.cache

    ask(videos[1::2])
    found, cache = ask(videos)
    assert [r["video"] for r in found] == videos
    assert (cache.read, cache.added) == (3, 4)
    alone, _ = ask(videos[3:4])
    assert_close(alone, found[3:4])


def test_what_is_asked_for_decides_the_key(videos, tiny_clip_dir, tmp_path):
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    cache = FeatureCache(tmp_path, model)
    path = str(write_video(tmp_path / "a.mp4", 12))
    requests = [
        request(path),
        ClipRequest(path, Sampling(8)),
        ClipRequest(path, Sampling(4, views=2)),
        request(path, crops=3),
        request(path, decoder="decord"),
        request(videos[0]),
    ]
    assert cache.key(request(path, image_rate=10.0)) == cache.key(request(path))  # a file tells its own
    assert cache.key(request(path, threads=4, look=True)) == cache.key(request(path))
    keys = [cache.key(r) for r in requests]
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    keys.append(cache.key(requests[0]))
    write_video(Path(path), 13)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    keys.append(cache.key(requests[0]))
    assert len(set(keys)) == len(keys)
    assert cache.key(request("/no/such.mp4")) is None
    monthly = request(path, seed=1)
    with pytest.raises(ValueError, match="chance"):
        cache.key(monthly)


def test_keys_are_those_of_version_0_1_0(tiny_clip_dir, tmp_path, monkeypatch):
    """Whoever has filled a cache for days need not again."""
    monkeypatch.setattr("zsar_cli.features.cache._identity", lambda path: [path, 1, 2])
    cache = FeatureCache(tmp_path, RecognizerModel(load_backbone(str(tiny_clip_dir))))
    key = "4ce92cbbb8a87c9943f56cada0e48e28"
    assert cache.key(ClipRequest("/a.mp4", Sampling(8))) == key
    assert cache.key(ClipRequest("/a.mp4", Sampling(8, way="ticks"))) != key


def test_a_folder_of_frames_changes_with_any_frame(tiny_clip_dir, tmp_path):
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(folder / f"{number}.png")
    cache = FeatureCache(tmp_path / "cache", RecognizerModel(load_backbone(str(tiny_clip_dir))))
    before = cache.key(request(str(folder)))
    assert cache.key(request(str(folder))) == before
    assert cache.key(request(str(folder), image_rate=10.0)) != before  # its times rest on it
    os.utime(folder / "1.png", ns=(0, 1))
    assert cache.key(request(str(folder))) != before


def test_other_weights_and_precisions_do_not_meet(videos, tiny_clip_dir, tmp_path):
    other = make_tiny_clip(tmp_path / "other", seed=1)
    loaded = [
        RecognizerModel(load_backbone(str(tiny_clip_dir))),
        RecognizerModel(load_backbone(str(tiny_clip_dir), precision="bf16")),
        RecognizerModel(load_backbone(str(other))),
    ]
    caches = [FeatureCache(tmp_path / "cache", model) for model in loaded]
    assert len({cache._folder for cache in caches}) == 3


def stored(model: RecognizerModel, cache: FeatureCache, path: str) -> str:
    key = cache.key(request(path, preprocess=model.preprocess))
    (loaded,) = load_cached(DecodePool(0), [request(path, preprocess=model.preprocess)], cache)
    map_features(model, [loaded[1:]], lambda part, _: part.embedding, cache)
    assert loaded[1] == key
    return key


def test_tokens_are_kept_only_for_models_that_look_at_motion(videos, tiny_clip_dir, tmp_path):
    plain = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    motion = RecognizerModel(load_backbone(str(tiny_clip_dir)), Parts())
    key = stored(plain, cache := FeatureCache(tmp_path, plain), videos[0])
    small = cache.added_bytes
    wanting = FeatureCache(tmp_path, motion)
    assert wanting.get(key) is None
    assert stored(motion, wanting, videos[0]) == key
    assert wanting.added_bytes > small + 4 * 16 * 32
    assert wanting.get(key).features.tokens.shape == (1, 4, 16, 32)
    assert cache.get(key).features.tokens.shape[2] == 0  # the larger file serves both


def test_what_is_not_whole_is_computed_again(videos, tiny_clip_dir, tmp_path):
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)), Parts())
    cache = FeatureCache(tmp_path, model)
    key = stored(model, cache, videos[0])
    path = _path(cache._folder, key)
    whole = path.read_bytes()
    good = cache.get(key).features.tokens.clone()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100, whole + b"x"):
        path.write_bytes(damaged)
        assert cache.get(key) is None
        stored(model, cache, videos[0])
        assert torch.equal(cache.get(key).features.tokens, good)


def test_the_next_run_removes_what_a_killed_run_left_and_nothing_else(tiny_clip_dir, tmp_path):
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    aside = FeatureCache(tmp_path, model)._aside
    left, written, other = aside / ("0" * 32), aside / ("1" * 32), aside / "notes.txt"
    for path in (left, written, other):
        path.write_text("x")
    (aside / ("2" * 32)).symlink_to(other)
    with written.open("rb+") as file:
        lock(file.fileno())  # as the run that is writing it does
        FeatureCache(tmp_path, model)
        assert sorted(path.name for path in aside.iterdir()) == ["1" * 32, "2" * 32, "notes.txt"]


def test_a_run_that_is_stopped_leaves_nothing_aside(videos, tiny_clip_dir, tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    cache = FeatureCache(tmp_path, model)
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        stored(model, cache, videos[0])
    assert not list(cache._aside.iterdir())
    assert cache.get(cache.key(request(videos[0], preprocess=model.preprocess))) is None


@pytest.mark.parametrize("level", ["aside", "prefix", "features", "file"])
def test_no_link_inside_the_folder_is_followed(videos, tiny_clip_dir, tmp_path, caplog, level):
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "cache"
    key = stored(model, cache := FeatureCache(tmp_path / "sound", model), videos[0])
    elsewhere.mkdir()
    for name in ("precious.txt", "0" * 32, f"{key}.safetensors"):
        (elsewhere / name).write_bytes(_path(cache._folder, key).read_bytes())
        os.utime(elsewhere / name, (0, 0))
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    own = folder / cache._folder.name
    place = {"features": own, "aside": own / "aside", "prefix": own / key[:2]}.get(level, _path(own, key))
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere / f"{key}.safetensors" if level == "file" else elsewhere)
    linked = FeatureCache(folder, model)
    assert linked.get(key) is None
    for video in videos[:2]:
        stored(model, linked, video)
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before
    assert len(caplog.records) == 1, "one line says that the cache is not used"
    assert (linked.get(key) is None) == (level != "file")  # a link in a file's place is replaced


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_what_is_no_file_is_not_opened(videos, tiny_clip_dir, tmp_path, kind):
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    cache = FeatureCache(tmp_path, model)
    path = _path(cache._folder, key := "ab" * 16)
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    assert cache.get(key) is None


def forged(path: Path, change) -> None:
    """The file changed as ``change(tensors, about)`` does, with checksums that fit."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tensors, about = safetensors.torch.load(content), json.loads(header["__metadata__"]["clip"])
    change(tensors, about)
    about["checksums"] = {name: _checksum(tensor) for name, tensor in tensors.items()}
    text = json.dumps(about)
    safetensors.torch.save_file(tensors, path, {"clip": text, "checksum": _checksum_of(text)})


def put(tensor: str, change):
    return lambda tensors, about: tensors.update({tensor: change(tensors[tensor]).contiguous()})


def say(key: str, value):
    return lambda tensors, about: about.update({key: value})


def inform(key: str, value):
    return lambda tensors, about: about["info"].update({key: value})


FORGERIES = {
    "more frames": put("embedding", lambda x: x.repeat(1, 2, 1)),
    "more clips": put("embedding", lambda x: x.repeat(2, 1, 1)),
    "wider": put("embedding", lambda x: x.repeat(1, 1, 2)),
    "no clips": put("embedding", lambda x: x[:0]),
    "flat": put("embedding", lambda x: x.flatten()),
    "fp32": put("embedding", lambda x: x.float()),
    "integers": put("embedding", lambda x: x.view(torch.int16)),
    "NaN": put("embedding", lambda x: x * float("nan")),
    "infinite": put("embedding", lambda x: x / 0),
    "wider tokens": put("tokens", lambda x: x.repeat(1, 1, 1, 2)),
    "fewer tokens": put("tokens", lambda x: x[:, :, :9]),
    "tokens of no clip": put("tokens", lambda x: x[:0]),
    "other tensors": lambda tensors, about: tensors.pop("embedding"),
    "ragged indices": say("indices", [[0], [1, 2]]),
    "no indices": say("indices", []),
    "negative indices": say("indices", [[-1, 2, 3, 4]]),
    "texts as indices": say("indices", [["a", "b", "c", "d"]]),
    "huge indices": say("indices", [[10**400] * 4]),
    "flat times": say("times", [0.0, 1.0, 2.0, 3.0]),
    "times without end": say("times", [[0.0, 1.0, 2.0, float("inf")]]),
    "nested times": say("times", [[[0.0]] * 4]),
    "duration NaN": inform("duration", float("nan")),
    "duration as text": inform("duration", "1"),
    "duration of ages": inform("duration", 1e300),
    "negative width": inform("width", -1),
    "unknown fact": inform("colour", 1),
    "no facts": say("info", None),
    "odd warning": say("warning", {"a": 1}),
    "warning with escapes": say("warning", "\x1b[2Jgone"),
    "long warning": say("warning", "a" * 100_000),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_features_of_another_shape_are_computed_again_whatever_their_checksum(
    videos, motion_dir, tmp_path, caplog, kind
):
    recognizer = Recognizer.load(str(motion_dir), device="cpu", precision="fp32", cache=tmp_path)

    def ask():
        return [r.to_record() for r in recognizer.predict_many(videos[:2], LABELS, workers=0, frames=4)]

    sound = ask()
    path = next(tmp_path.rglob("*.safetensors"))
    forged(path, lambda tensors, about: None)
    recognizer.cache.read = 0
    assert ask() == sound
    assert recognizer.cache.read == 2, "what is only written again is read"
    forged(path, FORGERIES[kind])
    assert ask() == sound
    assert [record.levelname for record in caplog.records] == ["WARNING"], "one line"
    caplog.clear()
    assert ask() == sound
    assert not caplog.records, "it was stored again"


def test_what_is_said_of_a_video_is_not_trusted_once_a_bit_of_it_is_lost(videos, tiny_clip_dir, tmp_path):
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    cache = FeatureCache(tmp_path, model)
    path = _path(cache._folder, key := stored(model, cache, videos[0]))
    content = path.read_bytes()
    place = content.index(b"duration") + 12
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert cache.get(key) is None


def test_a_full_disk_costs_a_warning(videos, tiny_clip_dir, tmp_path, monkeypatch, caplog):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    cache = FeatureCache(tmp_path, model)
    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING):
        for video in videos[:3]:
            stored(model, cache, video)
    assert [record.name for record in caplog.records] == ["zsar_cli.features.cache"]
    assert "No space left" in caplog.text
    assert not list(cache._aside.iterdir())


def test_a_cache_that_is_deleted_while_it_is_used_costs_a_line(videos, tiny_clip_dir, tmp_path, caplog):
    import shutil

    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    cache = FeatureCache(tmp_path / "cache", model)
    stored(model, cache, videos[0])
    shutil.rmtree(tmp_path / "cache")
    for video in videos[:3]:
        stored(model, cache, video)
    assert len(caplog.records) == 1
    assert "1 added" in cache.summary()


def test_a_cache_that_cannot_be_is_refused_before_the_work(tiny_clip_dir, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file"):
        FeatureCache(tmp_path / "file", RecognizerModel(load_backbone(str(tiny_clip_dir))))
    with pytest.raises(UsageError, match="no such home"):
        FeatureCache("~nobody-of-that-name/cache", RecognizerModel(load_backbone(str(tiny_clip_dir))))


def test_many_views_go_through_in_portions(videos, tiny_clip_dir, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)), Parts(width=16, queries=2, layers=1, heads=2))
    torch.nn.init.normal_(model.project.weight)
    requests = [ClipRequest(v, Sampling(4, views=3), model.preprocess) for v in videos[:5]]
    cache = FeatureCache(tmp_path, model)
    clips = [(cache.key(r), load_clip(r)) for r in requests]
    seen = []

    def embed(part: FrameFeatures, rows: list[int]) -> torch.Tensor:
        seen.append(list(rows))
        return model.encode_video(part).embedding

    whole = map_features(model, clips, embed)
    assert seen == [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]]
    model.backbone.frames_at_once.size = 8  # two clips; a video has three
    portions = map_features(model, clips, embed, cache)
    assert max(map(len, seen[1:])) == 2
    again = map_features(model, [clips[0], *((key, cache.get(key)) for key, _ in clips[1:])], embed, cache)
    assert isinstance(cache.get(clips[0][0]), EncodedClip)
    assert whole.shape == (5, 3, 32)
    assert torch.allclose(portions, whole, atol=2e-3)
    assert torch.allclose(again, portions, atol=1e-6)


def test_eval_reads_what_predict_stored_and_says_what_it_costs(
    videos, data, motion_dir, tmp_path, monkeypatch
):
    common = [
        "--model",
        str(motion_dir),
        "--precision",
        "fp32",
        "--workers",
        "0",
        "--cache",
        str(tmp_path / "c"),
    ]
    evaluate = ["eval", "--data", str(data), "--probe", "motion", "--format", "json", *common]
    plain = CliRunner().invoke(app, evaluate[:-2])
    assert plain.exit_code == 0, plain.output
    first = CliRunner().invoke(app, ["predict", *videos, "--label", "clap", "--label", "run", *common])
    assert "7 added" in first.stderr
    assert "a video" in first.stderr
    forbid_work(monkeypatch)
    cached = CliRunner().invoke(app, evaluate)
    assert cached.exit_code == 0, cached.output
    assert "7 videos read" in cached.stderr
    found, expected = (json.loads(result.stdout)["parts"]["test"] for result in (cached, plain))
    for name in ("top1", "top5", "probes"):
        assert found[name] == expected[name]
    assert found["ece"] == pytest.approx(expected["ece"], abs=2e-3)


def test_rendered_clips_have_keys_of_their_own(tiny_clip_dir, tmp_path):
    cache = FeatureCache(tmp_path, RecognizerModel(load_backbone(str(tiny_clip_dir))))
    keys = {cache.key(request(f"motion-shapes:seen/a shape moving left/{n}")) for n in range(3)}
    assert len(keys) == 3
    assert None not in keys


@pytest.fixture(scope="module")
def data(videos, tmp_path_factory):
    """The videos as a data set of two classes."""
    root = tmp_path_factory.mktemp("data")
    for number, video in enumerate(videos):
        folder = root / ("clap" if number < 2 else "run")  # of five clips one is held out
        folder.mkdir(exist_ok=True)
        (folder / Path(video).name).symlink_to(video)
    return root


def train(data, model, output, *more: object):
    parts = [f"--parts-{size}" for size in ("width=16", "queries=2", "layers=1", "heads=2")]
    command = [
        "train",
        "--config",
        "modules",
        "--data",
        data,
        "--model",
        model,
        "--output",
        output,
        "--steps",
        6,
    ]
    command += [
        "--batch-size",
        2,
        "--workers",
        0,
        "--frames",
        4,
        "--precision",
        "fp32",
        "--validate-every",
        3,
    ]
    command += [*parts, *more]
    return CliRunner().invoke(app, [str(part) for part in command])


def test_training_from_the_cache_is_training_without_augmentation(data, tiny_clip_dir, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    plain = train(data, tiny_clip_dir, tmp_path / "plain", "--no-augment")
    assert plain.exit_code == 0, plain.output
    first = train(data, tiny_clip_dir, tmp_path / "first", "--cache", tmp_path / "cache")
    assert first.exit_code == 0, first.output
    assert " added (" in first.stderr  # some more than once: they are decoded ahead of the tower
    forbid_work(monkeypatch)  # all that follows reads what the first run stored
    again = train(data, tiny_clip_dir, tmp_path / "again", "--cache", tmp_path / "cache")
    assert again.exit_code == 0, again.output
    assert "held_out_top1" in (tmp_path / "again" / "metrics.jsonl").read_text()  # validation reads it too
    weights = [load_file(tmp_path / run / "model.safetensors") for run in ("plain", "first", "again")]
    start = [
        json.loads((tmp_path / run / "metrics.jsonl").read_text().split("\n")[0])
        for run in ("plain", "first")
    ]
    assert start[0]["total"] == pytest.approx(start[1]["total"], abs=1e-3)
    for name in weights[0]:
        assert torch.equal(weights[1][name], weights[2][name]), name
        assert torch.allclose(weights[0][name], weights[1][name], atol=2e-3), name


def test_only_a_backbone_that_stays_can_be_cached(data, tiny_clip_dir, tmp_path):
    refused = train(data, tiny_clip_dir, tmp_path / "run", "--tune", "full", "--cache", tmp_path / "cache")
    assert refused.exit_code != 0
    assert "--tune modules" in str(refused.exception)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_will_not_fit_is_announced(videos, tiny_clip_dir, tmp_path, caplog):
    model = RecognizerModel(load_backbone(str(tiny_clip_dir)))
    stored(model, FeatureCache(tmp_path, model, expected=10**15), videos[0])
    assert "its disk has only" in caplog.text
    caplog.clear()
    stored(model, FeatureCache(tmp_path, model, expected=10), videos[1])
    assert not caplog.text


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_features_of_a_gpu_come_back_to_it(videos, tiny_clip_dir, tmp_path):
    answers = []
    for _ in range(2):
        recognizer = Recognizer.load(str(tiny_clip_dir), device="cuda", precision="fp32", cache=tmp_path)
        answers.append([r.predictions for r in recognizer.predict_many(videos, LABELS, workers=1)])
    for one, other in zip(*answers, strict=True):
        assert np.allclose([p.score for p in one], [p.score for p in other], atol=2e-3)
