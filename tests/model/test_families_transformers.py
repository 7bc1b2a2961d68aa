"""VideoPrism-LvT and PE-AV: what transformers computes, and what is refused without running anything."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import transformers_models as tiny
from tests.cli.conftest import Result, environment, text_cache, zsar  # noqa: F401
from tests.video_files import write_video
from zsar_cli.errors import UsageError
from zsar_cli.model.load import load_model, load_trainable
from zsar_cli.text.embeddings import embed_labels
from zsar_cli.text.templates import load_templates

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)
FAMILIES = ["videoprism", "peav"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """A folder and a model of each family."""
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    return {family: (folder, tiny.make(family, folder)) for family, folder in folders.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_without_transformers_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: str
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for which in (tmp_path, f"{family}/of-the-hub"):
        with pytest.raises(
            UsageError, match=r"needs the transformers package; run `pip install 'zsar-cli\[hf\]'`"
        ):
            load_model(f"{family}:{which}")


@needs_transformers
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(made: dict[str, tuple[Path, Any]], family: str) -> None:
    folder, theirs = made[family]
    ours = load_model(f"{family}:{folder}")
    frames, (side, _) = ours.backbone.family.frames, ours.preprocess.size
    assert (frames, side) == ((4, 36) if family == "videoprism" else (16, 32))
    templates = load_templates("videoprism")
    texts = [templates.positive[0].format(label) for label in tiny.LABELS]
    pixels = torch.randn(2, frames, 3, side, side, generator=torch.Generator().manual_seed(1))
    tokens = ours.backbone.tokenizer.tokenizer(
        texts, padding="max_length", max_length=ours.backbone.context_length, return_tensors="pt"
    )
    with torch.inference_mode():
        given = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        if family == "videoprism":
            found = theirs(pixel_values_videos=pixels, **given)
            wanted = 100 * found.video_embeds @ found.text_embeds.T
        else:  # with a bias that is the same for all labels
            bias = theirs.video_model.text_video_logit_bias
            wanted = theirs.video_model(pixel_values_videos=pixels, **given).logits_video_text - bias
        positive = embed_labels(ours, tiny.LABELS, templates, bank=False).positive
        video = ours.encode_video(ours.encode_frames(pixels)).embedding
        got = ours.score(video, positive).logits
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert wanted.std() > 0.1


@needs_transformers
@pytest.mark.parametrize("family", FAMILIES)
def test_predict_windows_sheets_cache_and_prompts_work(
    zsar: Callable[..., Result],  # noqa: F811
    made: dict[str, tuple[Path, Any]],
    tmp_path: Path,
    family: str,
) -> None:
    video = write_video(tmp_path / "a.mp4", 24, size=(96, 64))
    labels = [f"--label={label}" for label in tiny.LABELS]
    model = ["--model", f"{family}:{made[family][0]}", "--workers", 0]
    plain = zsar("predict", video, *labels, *model)
    assert plain.code == 0, plain.err
    assert "licence of the weights" in plain.err
    cached = [zsar("predict", video, *labels, *model, "--cache", tmp_path / "cache") for _ in range(2)]
    assert "1 videos read" in cached[1].err
    assert zsar("embed-prompts", *labels, *model[:2], "--output", tmp_path / "p.safetensors").code == 0
    stored = zsar("predict", video, "--prompts", tmp_path / "p.safetensors", *model)
    for other in (*cached, stored):
        for got, want in zip(other.records[0]["predictions"], plain.records[0]["predictions"], strict=True):
            assert got["score"] == pytest.approx(want["score"], abs=5e-3)
    windows = zsar("predict", video, *labels, *model, "--window", 0.5, "--min-confidence", 0)
    assert windows.records[0]["segments"], windows.err
    drawn = zsar("predict", video, *labels, *model, "--explain", tmp_path / "sheets")
    assert drawn.code == 0, drawn.err
    assert (tmp_path / "sheets" / "a.png").stat().st_size > 1000
    refused = zsar("predict", video, *labels, *model, "--frames", 5)
    assert (refused.code, "use --frames" in refused.err) == (2, True)


@needs_transformers
def test_what_cannot_be_is_refused(made: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder = made["videoprism"][0]
    with pytest.raises(UsageError, match="holds a model of the kind 'videoprism' and not PE-AV"):
        load_model(f"peav:{folder}")
    with pytest.raises(UsageError, match="has no base CLIP; remove --backbone"):
        load_model(f"videoprism:{folder}", backbone="ViT-B-16/openai")
    with pytest.raises(UsageError, match="no backbone to train modules on"):
        load_trainable(f"videoprism:{folder}")
    with pytest.raises(UsageError, match=r"There is no folder 'nowhere'.*google/videoprism-lvt-base-f16r288"):
        load_model("videoprism:nowhere")
    with pytest.raises(UsageError, match="cannot be read"):
        load_model(f"videoprism:{tmp_path}")


def _pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return edit


def _config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        text = config["text_config"] | changes.pop("text", {})
        (folder / "config.json").write_text(json.dumps(config | changes | {"text_config": text}))

    return edit


NORM = "text_model.layernorm.weight"
ELSEWHERE = {
    "auto_map": _config(auto_map={"AutoModel": "evil.Evil"}),
    "attn_implementation": _config(text={"attn_implementation": "evil/kernel"}),
    "quantization_config": _config(quantization_config={"quant_method": "bitsandbytes"}),
    "architecture": _config(text={"architecture": "hf-hub:evil/model"}),
    "checkpoint_path": _config(text={"model_args": {"checkpoint_path": "evil.pth"}}),
}
DAMAGE = {
    "has no model.safetensors": _pickle_only,
    f"{NORM} is missing": _tensors(lambda tensors: tensors.pop(NORM)),
    "'odd' has no place": _tensors(lambda tensors: tensors.update(odd=torch.zeros(1))),
    "not finite": _tensors(lambda tensors: tensors[NORM].fill_(float("nan"))),
    "is not a whole VideoPrism-LvT": _tensors(lambda tensors: tensors.update({NORM: torch.zeros(3)})),
    "has an adapter": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    **{rf"names code or files elsewhere \({name}\)": edit for name, edit in ELSEWHERE.items()},
    "describes no model": lambda folder: (folder / "config.json").write_text("[]"),
    "far too few": _config(text={"vocab_size": 10**8}),
    "The tokenizer in": lambda folder: (folder / "tokenizer.json").write_text("{}"),
}


@needs_transformers
@pytest.mark.parametrize("said", DAMAGE)
def test_a_folder_that_is_damaged_or_names_code_is_refused(
    made: dict[str, tuple[Path, Any]], tmp_path: Path, said: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made["videoprism"][0], folder)
    DAMAGE[said](folder)
    with pytest.raises(UsageError, match=said):
        load_model(f"videoprism:{folder}")
