"""Explain sheets: what is in them, and that their numbers are those of predict. Looks are for people to judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_predict import LABELS, own_cache, run  # noqa: F401 - a fixture
from tests.video_files import write_video
from zsar_cli.plots import explain_sheet, save, training_curves
from zsar_cli.prediction.clips import examine
from zsar_cli.prediction.explain import Evidence, LabelEvidence
from zsar_cli.video.pool import Clip
from zsar_cli.video.times import VideoInfo


@pytest.fixture(scope="module")
def recognizer(tiny_clip_dir, tmp_path_factory):
    """A model with MSM, MAB and negatives, and its texts."""
    import torch

    from zsar_cli.model.zsar import Parts, RecognizerModel, Record, load_model
    from zsar_cli.recognizer import Recognizer

    torch.manual_seed(0)
    backbone = load_model(str(tiny_clip_dir)).backbone
    model = RecognizerModel(backbone, Parts(width=32, heads=2, layers=1), Record(name="tiny")).eval()
    torch.nn.init.normal_(model.project.weight, std=0.1)
    return Recognizer(model)


def evidence(frames: int = 8, size: tuple[int, int] = (32, 32), opposed: bool = True):
    rng = np.random.default_rng(0)
    labels = [
        LabelEvidence(f"label {i} $x$", 0.5, 0.5, 0.3 - 0.1 * i, 0.1 if opposed else None) for i in range(4)
    ]
    return Evidence(
        rng.integers(0, 256, (frames, *size, 3), dtype=np.uint8),
        rng.random((frames, 4, 4)),
        True,
        labels,
        0.25,
    )


def test_examine_gives_what_predict_answers(recognizer):
    import torch

    text = recognizer.embed_labels(LABELS[1::2])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 32, 32, 3), dtype=np.uint8)
    clip = Clip(pixels, np.arange(8), np.arange(8.0), VideoInfo(1, 32, 32, 8, 8))
    found = examine(recognizer.model, clip, text, crops=3)
    assert (found.frames == pixels[1]).all()  # the centre crop
    assert found.heat.shape == (8, 4, 4)
    assert found.learned
    best = found.labels[0]
    assert best.score == max(label.score for label in found.labels)
    assert found.unknown == pytest.approx(1 - max(label.yes for label in found.labels), abs=1e-6)
    model = recognizer.model
    margin = model.log_negative_scale.exp() * (best.similarity - best.opposed) + model.offset
    assert best.yes == pytest.approx(torch.sigmoid(margin).item(), abs=1e-5)


@pytest.mark.parametrize(("frames", "across"), [(1, 1), (4, 4), (8, 8), (11, 6), (32, 8)])
def test_sheet_is_1200_pixels_wide_and_has_two_panels_a_frame(tmp_path, frames, across):
    figure = explain_sheet(evidence(frames), "video.mp4", "answer: label 0")
    names = [axes.get_label() for axes in figure.axes]
    assert [n for n in names if n.startswith("frame")] == [f"frame {i + 1}" for i in range(frames)]
    assert sum(n.startswith("heat") for n in names) == frames
    boxes = [axes.get_position() for axes in figure.axes if axes.get_label().startswith("frame")]
    assert sum(abs(b.y0 - boxes[0].y0) < 1e-6 for b in boxes) == across
    assert all(b.x0 >= 0 and b.x1 <= 1 and b.y0 >= 0 and b.y1 <= 1 for b in boxes)
    assert min(b.width for b in boxes) * 1200 > 100  # still to be made out
    save(figure, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width == 1200
        assert image.height < 2000


def test_sheet_shows_the_bars_and_unknown():
    figure = explain_sheet(evidence(), "video.mp4", "answer: none of these")
    bars = next(axes for axes in figure.axes if axes.get_xlabel().startswith("cosine"))
    assert len(bars.patches) == 8  # four labels, positive and negative
    assert sorted({round(p.get_width(), 6) for p in bars.patches}) == [0.0, 0.1, 0.2, 0.3]
    assert any(axes.get_title() == "unknown 0.25" for axes in figure.axes)
    plain = explain_sheet(evidence(opposed=False), "video.mp4")
    bars = next(axes for axes in plain.axes if axes.get_xlabel().startswith("cosine"))
    assert len(bars.patches) == 4


def test_portrait_and_wide_models_keep_their_shape():
    for size in ((64, 32), (32, 64)):
        figure = explain_sheet(evidence(size=size), "video.mp4")
        box = next(a for a in figure.axes if a.get_label() == "frame 1").get_position()
        width, height = figure.get_size_inches()
        assert box.height * height / (box.width * width) == pytest.approx(size[0] / size[1], rel=1e-3)


def test_explain_from_the_command_line(tiny_clip_dir, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "clip.mp4", 10)
    arguments = (
        "predict",
        tmp_path / "a",
        tmp_path / "b",
        tmp_path / "no.mp4",
        "--model",
        tiny_clip_dir,
        *LABELS,
    )
    arguments = (*arguments, "--workers", 0, "--precision", "fp32")
    plain = [json.loads(line) for line in run(*arguments)[1].splitlines()]
    code, out, _ = run(*arguments, "--explain", tmp_path / "sheets")
    assert code == 1
    for one, other in zip([json.loads(line) for line in out.splitlines()], plain, strict=True):
        assert one.keys() - other.keys() == ({"written"} if "error" not in one else set())
        assert one.get("error") == other.get("error")
        assert one.get("unknown") == pytest.approx(other.get("unknown"), abs=1e-5)
        assert "error" in one or Path(one["written"]).read_bytes().startswith(b"\x89PNG")
    found = sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "sheets").rglob("*.png"))
    assert found == ["sheets/a/clip.png", "sheets/b/clip.png"]
    code, _, said = run(*arguments, "--explain", tmp_path / "sheets", "--window", 2)
    assert code == 2
    assert "--window" in said


def test_curves_show_every_loss_and_both_rates():
    history = [
        {"step": s, "total": 3 / s, "pos": 2 / s, "neg": 1 / s, "lr": 1e-3, "module_lr": 1e-2}
        for s in range(1, 60)
    ]
    losses, rates = training_curves(history, "run").axes
    assert [t.get_text() for t in losses.get_legend().get_texts()] == ["total", "pos", "neg"]
    assert [t.get_text() for t in rates.get_legend().get_texts()] == ["lr", "module lr"]
    assert losses.get_xlabel() == "step"


def test_curves_have_no_loss_where_only_held_out_clips_were_looked_at():
    history = [{"step": s, "total": 3.0, "lr": 1e-3} for s in range(1, 60)] + [
        {"step": 59, "held_out_top1": 0.5}
    ]
    losses, _, accuracy = training_curves(history).axes
    assert all(line.get_ydata() == pytest.approx([3.0] * 59) for line in losses.get_lines())
    assert accuracy.get_lines()[0].get_ydata() == pytest.approx([0.5])
