"""The evaluation engine with a small stand-in for a model: records, resuming, probes, numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.close import assert_close, assert_same_file, assert_same_lines
from tests.data.make import make_ucf101
from zsar_cli.data.clips import render_request
from zsar_cli.data.splits import few_shot
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.evaluation import inference as evaluation
from zsar_cli.evaluation import results
from zsar_cli.evaluation.inference import Options, evaluate_parts, score_records
from zsar_cli.evaluation.predictions import PredictionsFile
from zsar_cli.evaluation.protocols import DataSource, combine, make_plan
from zsar_cli.evaluation.results import PromptSettings, run_plan
from zsar_cli.evaluation.summary import summarise
from zsar_cli.model.alignment import Scores, score_with_bank
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.portions import Portion
from zsar_cli.text.embeddings import PromptEmbeddings
from zsar_cli.video.pool import ClipRequest
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Preprocess, normalise


@dataclass
class Features:
    embedding: Tensor
    tokens: Tensor


class Sums(nn.Module):
    """Embeds a clip by its mean colour and, weighted by time, by its order; scores as a plain CLIP does."""

    name = "sums"
    uses_negatives = False
    trained_on = None
    preprocess = Preprocess(size=(16, 16))
    published, way, clip_seconds = None, None, None
    fingerprint, choose = RecognizerModel.fingerprint, RecognizerModel.choose
    join_views, text_vectors = RecognizerModel.join_views, RecognizerModel.text_vectors

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Identity()
        self.backbone.device, self.backbone.dtype = torch.device("cpu"), torch.float32
        self.backbone.precision, self.backbone.fingerprint = "fp32", lambda: "sums"
        self.backbone.spec, self.backbone.frames_at_once = "sums", Portion(512, "frames")
        self.backbone.normalise = partial(normalise, preprocess=self.preprocess)
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.mix = nn.Parameter(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)))

    def encode_frames(self, pixels: Tensor) -> Features:
        patches = F.adaptive_avg_pool2d(pixels.flatten(0, 1), 2).flatten(1).unflatten(0, pixels.shape[:2])
        return Features(patches, patches[:, :, None])

    def encode_video(self, features: Features) -> Features:
        times = torch.linspace(0.2, 1, features.embedding.shape[1])
        return Features(
            F.normalize((features.embedding * times[:, None]).mean(1) @ self.mix, dim=-1), features.tokens
        )

    def score(self, video: Tensor, positive: Tensor, negative: Tensor | None, bank: Tensor | None) -> Scores:
        if bank is None:
            logits = self.log_scale.exp() * (video @ positive.T)
            score = logits.softmax(-1)
            return Scores(logits, logits, score, score, 1 - score.amax(-1))
        return score_with_bank(video, positive, bank, scale=self.log_scale.exp())


def encode(names) -> PromptEmbeddings:
    def vectors(texts) -> Tensor:
        rows = [np.random.default_rng(list(text.encode())).normal(size=8) for text in texts]
        return F.normalize(torch.tensor(np.stack(rows), dtype=torch.float32), dim=-1)

    return PromptEmbeddings(list(names), vectors(names), None, vectors([f"phrase {i}" for i in range(30)]))


def shapes_plan(split: str = "seen", clips: int = 30):
    plan = make_plan(DataSource("motion-shapes"), split=split)
    for part in plan.parts:
        chosen = np.random.default_rng(0).permutation(len(part.items))[:clips]
        part.dataset.items = [part.dataset.items[i] for i in chosen]
        part.targets = [part.targets[i] for i in chosen]
    return plan


OPTIONS = Options(frames=4, batch_size=7, workers=0)
PROMPTS = PromptSettings({"name": "test", "hash": "0"})


def run(plan, output: Path | None = None, options: Options = OPTIONS) -> dict:
    return run_plan(Sums(), plan, encode, options, prompts=PROMPTS, output=output)


def test_no_video_is_dropped_and_numbers_come_from_the_records(tmp_path: Path) -> None:
    found = run(shapes_plan(clips=30), tmp_path)  # 30 is no multiple of the batch
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert sorted(record["item"] for record in lines) == list(range(30))
    part = found["parts"]["seen"]
    assert part["videos"] == 30
    assert part["top1"] == pytest.approx(np.mean([r["top"][0][0] == r["label"] for r in lines]))
    assert part["top5"] == pytest.approx(
        np.mean([r["label"] in [name for name, _ in r["top"]] for r in lines])
    )
    again = summarise(lines, encode(shapes_plan().parts[0].labels).labels)
    assert_close(part, again | {"labels_in_training": 0})
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["lists"][0]["hash"] == found["lists"][0]["hash"]
    assert saved["weights"] == found["weights"]
    confusion = (tmp_path / "confusion_seen.csv").read_text().splitlines()
    assert len(confusion) == 96
    assert len((tmp_path / "per_class_seen.csv").read_text().splitlines()) == 96


@pytest.mark.parametrize("torn", [0, 11])
def test_a_stopped_run_goes_on_to_the_same_results(tmp_path: Path, monkeypatch, torn: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(shapes_plan(), whole)
    run(shapes_plan(), cut)
    (cut / "results.json").unlink()
    records = (cut / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "predictions.jsonl").write_bytes(b"".join(records[:16]) + records[16][:torn])
    computed = []
    batch = evaluation.evaluate_batch
    monkeypatch.setattr(evaluation, "evaluate_batch", lambda *a: computed.append(a[4]) or batch(*a))
    run(shapes_plan(), cut)
    assert computed == [range(14, 21), range(21, 28), range(28, 30)]
    for name in ("results.json", "predictions.jsonl", "confusion_seen.csv", "per_class_seen.csv"):
        assert_same_file(cut / name, whole / name)


def test_records_of_another_evaluation_are_not_mixed_in(tmp_path: Path) -> None:
    run(shapes_plan(), tmp_path)
    with pytest.raises(UsageError, match="another evaluation"):
        run(shapes_plan(), tmp_path, Options(frames=8, batch_size=7, workers=0))


def test_a_last_record_without_its_line_end_is_not_counted_twice(tmp_path: Path) -> None:
    file = PredictionsFile(tmp_path, {})
    file.write({"part": "a", "item": 0})
    file.close()
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    again = PredictionsFile(tmp_path, {})
    again.close()
    assert again.done == {}
    assert path.read_bytes() == b""


def test_two_runs_do_not_write_one_file_and_failures_are_tried_again(tmp_path: Path) -> None:
    file = PredictionsFile(tmp_path, {})
    for item, more in enumerate(({}, {"error": {"kind": "timeout", "message": "slow"}}, {})):
        file.write({"part": "a", "item": item} | more)
    with pytest.raises(UsageError, match="Another run"):
        PredictionsFile(tmp_path, {})
    file.close()
    again = PredictionsFile(tmp_path, {})
    assert sorted(again.done["a"]) == [0, 2]
    with pytest.raises(UsageError, match="Another run"):
        PredictionsFile(tmp_path, {})
    again.write({"part": "a", "item": 1})
    again.close()
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines] == [0, 2, 1]


def test_numbers_that_overflow_are_an_error_of_their_video(tmp_path: Path, monkeypatch) -> None:
    encode_video = Sums.encode_video

    def overflowing(self, features):
        video = encode_video(self, features)
        video.embedding[0] = float("nan")
        return video

    monkeypatch.setattr(Sums, "encode_video", overflowing)
    with pytest.raises(UsageError, match="cannot be read"):
        run(shapes_plan(clips=14), tmp_path)
    records = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    assert [r["error"]["kind"] for r in records if "error" in r] == [
        "not_finite"
    ] * 2  # the first of each batch


def test_batch_size_changes_nothing() -> None:
    model, part = Sums(), shapes_plan(clips=20).parts[0]
    texts = [encode(part.labels)]
    one = evaluate_parts(model, [part], texts, Options(frames=4, batch_size=1, workers=0))["seen"]
    many = evaluate_parts(model, [part], texts, Options(frames=4, batch_size=16, workers=0))["seen"]
    for a, b in zip(one, many, strict=True):
        assert_close(a, b)


def test_a_video_in_several_parts_is_looked_at_once(tmp_path: Path, monkeypatch) -> None:
    plan = make_plan(DataSource("motion-shapes"))
    for part in plan.parts:
        part.dataset.items, part.targets = part.dataset.items[:6], part.targets[:6]
    asked = []
    clips = evaluation.iter_clips
    monkeypatch.setattr(evaluation, "iter_clips", lambda *a: asked.extend(a[0]) or clips(*a))
    found = run(plan, tmp_path, Options(frames=2, batch_size=4, workers=0))
    assert len(asked) == len(set(asked)) == 24  # seen, unseen, shifted, neither; not again among all labels
    assert set(found["parts"]) == {"seen", "unseen", "shifted", "seen of all", "unseen of all"}
    assert found["open_set"]["known"] == "unseen"
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 36
    (tmp_path / "results.json").unlink()
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "predictions.jsonl").write_text("".join(lines[:17]))
    # What is left of a batch goes through the products in other shapes, which round otherwise on some processors
    assert_close(run(plan, tmp_path, Options(frames=2, batch_size=4, workers=0)), found)
    assert_same_lines((tmp_path / "predictions.jsonl").read_text(), "".join(lines))


def test_small_scores_are_not_rounded_into_ties() -> None:
    probability, rest = evaluation._softmax(np.array([[60.0, 0.0, -5.0], [0.0, 1.0, 2.0]]))
    assert probability.sum(axis=1) == pytest.approx([1, 1])
    assert rest[0] == pytest.approx(np.exp(-60) + np.exp(-65), rel=1e-12)
    assert rest[1] == pytest.approx(1 - probability[1].max())
    assert evaluation._digits(1.23456789012e-13) == 1.23456789e-13


def test_motion_probe_knows_what_order_is_worth() -> None:
    found = run(shapes_plan(clips=40), options=Options(frames=4, workers=0, probe_motion=True))
    probes = found["parts"]["seen"]["probes"]
    assert set(probes) == {"shuffled", "reversed", "frozen"}
    orders = evaluation._orders("reversed", [0, 0, 1, 1], 4, 0)
    assert orders.tolist() == [[3, 2, 1, 0]] * 4
    shuffled = evaluation._orders("shuffled", [0, 1, 2], 8, 0)
    assert all(sorted(row) == list(range(8)) for row in shuffled.tolist())
    assert len({tuple(row) for row in shuffled.tolist()}) == 3
    # Reversing is done to the features: it must equal reversing the frames themselves.
    model = Sums()
    pixels = torch.rand(2, 4, 3, 16, 16)
    features = model.encode_frames(pixels)
    order = evaluation._orders("reversed", [0, 1], 4, 0)
    rows = torch.arange(2)[:, None]
    turned = model.encode_video(Features(features.embedding[rows, order], features.tokens[rows, order]))
    expected = model.encode_video(model.encode_frames(pixels.flip(1)))
    assert_close(turned.embedding, expected.embedding)


def test_shuffling_does_not_depend_on_what_else_is_evaluated() -> None:
    options = Options(frames=4, workers=0, batch_size=5, probe_motion=True)
    whole = make_plan(DataSource("motion-shapes"))
    alone = make_plan(DataSource("motion-shapes"), split="unseen")
    for part in (*whole.parts, *alone.parts):
        part.dataset.items, part.targets = part.dataset.items[:12], part.targets[:12]
    found = [run(plan, options=options)["parts"]["unseen"] for plan in (whole, alone)]
    assert found[0]["probes"] == found[1]["probes"]
    assert set(found[0]["probes_of_ordered"]) == {"videos", "top1", "probes"}


def test_open_set_numbers_agree_with_scikit_learn(tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score  # takes a second

    plan = make_plan(DataSource("motion-shapes"), "open-set")
    for part in plan.parts:
        part.dataset.items, part.targets = part.dataset.items[::9], part.targets[::9]
    found = run(plan, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    truth = [r["part"] == "unknown" for r in lines]
    assert set(found["open_set"]["scores"]) == {"yes", "softmax", "energy", "bank"}
    for kind, numbers in found["open_set"]["scores"].items():
        expected = roc_auc_score(truth, [r["unknown"][kind] for r in lines])
        assert numbers["auroc"] == pytest.approx(expected, abs=1e-9)
    assert "unknown" not in found["parts"]


def test_videos_that_cannot_be_read_are_counted_not_replaced(tmp_path: Path) -> None:
    make_ucf101(tmp_path)
    broken = tmp_path / "UCF-101" / "YoYo" / "v_YoYo_g01_c01.avi"
    broken.write_bytes(b"this is no video")
    plan = make_plan(DataSource("ucf101", str(tmp_path)), split="test1")
    options = Options(frames=4, workers=0)
    found = run_plan(Sums(), plan, encode, options, prompts=PROMPTS, output=tmp_path / "out", max_missing=0.5)
    part = found["parts"]["test1"]
    assert (part["videos"], part["unreadable"]) == (2, 1)
    assert part["top1_lower"] == pytest.approx(part["top1"] * 2 / 3)
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    (failed,) = [r for r in lines if "error" in r]
    assert failed["video"] == "YoYo/v_YoYo_g01_c01.avi"


def test_training_and_evaluation_draw_the_same_few_shots(tmp_path: Path) -> None:
    from zsar_cli.data.dataset import load_dataset
    from zsar_cli.training.clips import find_data
    from zsar_cli.training.recipe import load_recipe
    from zsar_cli.training.run import Environment

    for name in ("archery", "yo yo"):
        for number in range(6):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.mp4").touch()
    recipe = load_recipe("kinetics", data=str(tmp_path), shots=2, seed=3)
    trained = find_data(Environment(recipe, tmp_path / "run")).dataset.items
    whole = load_dataset(tmp_path, split="train")
    assert trained == few_shot(whole.items, [item.label for item in whole.items], 2, seed=3)
    assert len(trained) == 4


def test_harmonic_mean_and_spread() -> None:
    plan = make_plan(DataSource("motion-shapes"), "base-to-novel")
    summary = combine(plan, {"seen": {"top1": 0.6}, "unseen": {"top1": 0.3}})
    assert summary == {"seen": 0.6, "unseen": 0.3, "harmonic_mean": pytest.approx(0.4)}
    plan.protocol = "zero-shot"
    assert combine(plan, {"seen": {"top1": 0.6}, "unseen": {"top1": 0.4}})["spread"] == pytest.approx(0.1)


def test_embeddings_at_hand_give_the_same_numbers() -> None:
    text = encode(["one", "two", "three"])
    targets = [0, 1, 2, 0]
    found = summarise(score_records(Sums(), text.positive[torch.tensor(targets)], targets, text), text.labels)
    assert found["top1"] == 1.0
    assert found["videos"] == 4


def test_a_failed_clip_error_survives_as_a_record() -> None:
    part = shapes_plan(clips=2).parts[0]
    requests = [ClipRequest(item.path, Sampling(4), Sums.preprocess) for item in part.items]
    clips = iter(
        [
            (requests[0], None, VideoError("crashed", "it died")),
            (requests[1], None, render_request(requests[1])),
        ]
    )
    places = [(0, 0, 0), (1, 0, 1)]
    texts = [encode(part.labels)]
    records = list(evaluation.evaluate_batch(Sums(), [part], texts, OPTIONS, range(2), clips, places, [0, 1]))
    assert records[0]["error"] == {"kind": "crashed", "message": "it died"}
    assert "rank" in records[1]
    assert json.loads(results.to_json({"x": float("nan")})) == {"x": None}
