"""Explain sheets: what is in them, and that their numbers are those of predict. Looks are for people to judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_predict import LABELS, own_cache, run  # noqa: F401 - a fixture
from tests.video_files import write_video
from zsar_cli.errors import UsageError
from zsar_cli.plots import save, training_curves
from zsar_cli.prediction.clips import examine
from zsar_cli.prediction.explain import Evidence, LabelEvidence, LabelHeat
from zsar_cli.prediction.heat_colours import paint_label
from zsar_cli.prediction.records import Shown
from zsar_cli.prediction.sheets import explain_sheet, headline
from zsar_cli.text.labels import labels_among
from zsar_cli.video.pool import Clip
from zsar_cli.video.times import VideoInfo


@pytest.fixture(scope="module")
def recognizer(tiny_clip_dir, tmp_path_factory):
    """A model with MSM, MAB and negatives, and its texts."""
    import torch

    from zsar_cli.model.load import load_model
    from zsar_cli.model.zsar import Parts, RecognizerModel, TrainingRecord
    from zsar_cli.recognizer import Recognizer

    torch.manual_seed(0)
    backbone = load_model(str(tiny_clip_dir)).backbone
    model = RecognizerModel(backbone, Parts(width=32, heads=2, layers=1), TrainingRecord(name="tiny")).eval()
    torch.nn.init.normal_(model.project.weight, std=0.1)
    return Recognizer(model)


def evidence(frames: int = 8, size: tuple[int, int] = (32, 32), opposed: bool = True, large: int = 1):
    rng = np.random.default_rng(0)
    labels = [
        LabelEvidence(f"label {i} $x$", 0.4 - 0.1 * i, 0.5, 0.3 - 0.1 * i, 0.1 if opposed else None)
        for i in range(4)
    ]
    pixels = rng.integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    heat = rng.random((frames, 4, 4), dtype=np.float32)
    shown = Shown(pixels.repeat(large, 1).repeat(large, 2), np.arange(frames) / 4)
    where = [LabelHeat(found.label, 100 * heat - 50) for found in labels[:2]]
    return Evidence(pixels, heat, True, labels, 0.25, where, shown)


def words(figure) -> str:
    return "\n".join(text.get_text() for text in [*figure.texts, *(t for a in figure.axes for t in a.texts)])


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


@pytest.mark.parametrize(("frames", "across"), [(1, 1), (8, 8), (11, 6)])
def test_sheet_is_1200_pixels_wide_and_shows_each_frame_with_its_heat_and_its_motion(
    tmp_path, frames, across
):
    figure = explain_sheet(evidence(frames), "video.mp4", ["label 0 $x$"])
    names = [axes.get_label() for axes in figure.axes]
    assert [n for n in names if n.startswith("frame")] == [f"frame {i + 1}" for i in range(frames)]
    assert sum(n.startswith("heat") for n in names) == 2 * frames  # of two labels
    assert sum(n.startswith("motion") for n in names) == frames
    boxes = [axes.get_position() for axes in figure.axes if axes.get_label().startswith("frame")]
    assert sum(abs(b.y0 - boxes[0].y0) < 1e-6 for b in boxes) == across
    assert all(b.x0 >= 0 and b.x1 <= 1 and b.y0 >= 0 and b.y1 <= 1 for b in boxes)
    assert min(b.width for b in boxes) * 1200 > 100  # still to be made out
    assert "0.25 s" in words(figure) or frames == 1
    save(figure, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width == 1200
        assert image.height < 3200


def test_the_headline_is_the_answer_with_its_probability():
    seen = evidence()
    assert headline(seen, None).split("   ") == ["label 0 $x$", "40.0%"]
    assert headline(seen, ["label 1 $x$"]).split("   ") == ["label 1 $x$", "30.0%"]
    assert headline(seen, []).startswith("none of these")
    assert headline(seen, ["label 1 $x$", "label 0 $x$"]).count("%") == 2
    assert "none of these" in words(explain_sheet(seen, "video.mp4", []))


def test_bars_are_probabilities_and_cosines_stand_beside_them():
    figure = explain_sheet(evidence(), "video.mp4")
    bars = next(axes for axes in figure.axes if axes.get_label() == "bars")
    assert [p.get_width() for p in bars.patches] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.25])  # and unknown
    said = words(figure)
    assert "cosine 0.30, negative 0.10" in said
    assert "yes 0.50" in said
    assert "negative" not in words(explain_sheet(evidence(opposed=False), "video.mp4"))


def test_every_sheet_has_the_same_colours_for_the_same_heat():
    frame = np.zeros((8, 8, 3), np.uint8)
    alone, among = np.full((2, 2), 0.5), np.array([[0.5, 0.5], [0.5, 0.5]])
    assert (paint_label(frame, alone) == paint_label(frame, among)).all()
    against = paint_label(frame, -alone)
    assert (paint_label(frame, alone)[..., 0] > against[..., 0]).all()  # orange, and blue
    assert (paint_label(frame, 0 * alone) == paint_label(frame, 0 * alone)[0, 0, 0]).all()
    assert "the same in every sheet" in words(explain_sheet(evidence(), "video.mp4"))


def test_a_sheet_shows_the_frames_for_people():
    figure = explain_sheet(evidence(large=5), "video.mp4")
    frame = next(axes for axes in figure.axes if axes.get_label() == "frame 1")
    assert frame.images[0].get_array().shape == (160, 160, 3)


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


def test_explain_with_windows_writes_a_sheet_about_the_timeline(tiny_clip_dir, tmp_path):
    write_video(tmp_path / "long.mp4", 30)
    asked = ("predict", tmp_path / "long.mp4", "--model", tiny_clip_dir, *LABELS, "--workers", 0)
    asked = (*asked, "--precision", "fp32", "--window", 0.4, "--min-confidence", 0)
    plain = json.loads(run(*asked)[1])
    code, out, _ = run(*asked, "--explain", tmp_path / "sheets")
    assert code == 0
    record = json.loads(out)
    with Image.open(record.pop("written")) as image:
        assert image.width == 1200
        assert image.text["zsar"] == json.dumps(str(tmp_path / "long.mp4"))
    assert record == plain


def test_explain_label_is_one_of_the_labels(tiny_clip_dir, tmp_path):
    assert labels_among(["A DOG runs", "a dog runs"], ["a dog runs", "a cat"], "--explain-label") == [
        "a dog runs"
    ]
    with pytest.raises(UsageError, match="did you mean 'a dog runs'"):
        labels_among(["a dog run"], ["a dog runs", "a cat"], "--explain-label")
    code, _, said = run("predict", "x.mp4", "--model", tiny_clip_dir, *LABELS, "--explain-label", "a cat")
    assert code == 2
    assert "--explain" in said


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
