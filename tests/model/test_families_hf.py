"""X-CLIP as transformers writes and computes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import published_files as files
from zsar_cli.model.load import load_model
from zsar_cli.text.embeddings import Templates, embed_labels

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
def test_xclip_is_what_transformers_computes(tmp_path: Path, safe: bool) -> None:
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    vision = text | {"image_size": 32, "patch_size": 8, "num_frames": 4, "mit_hidden_size": 64}
    vision |= {"mit_intermediate_size": 256, "mit_num_attention_heads": 1, "mit_num_hidden_layers": 1}
    tokens = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}
    config = transformers.XCLIPConfig(
        text_config=text | tokens | {"vocab_size": 49408, "hidden_act": "quick_gelu"},
        vision_config=vision | {"hidden_act": "quick_gelu", "mit_num_frames": 4},
        projection_dim=64,
        prompt_num_attention_heads=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = transformers.XCLIPModel(config).eval()
        for name, parameter in theirs.named_parameters():
            if name != "logit_scale":  # transformers draws some as zeros
                torch.nn.init.normal_(
                    parameter, std=0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                )
    theirs.save_pretrained(tmp_path)
    if not safe:
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    ours = load_model(f"xclip:{tmp_path}")
    with torch.inference_mode():
        pixels = files.pixels((2, 4, 3, 32, 32))
        wanted = theirs(input_ids=ours.backbone.tokenize(files.LABELS), pixel_values=pixels).logits_per_video
        video = ours.encode_video(ours.encode_frames(pixels)).embedding
        positive = embed_labels(ours, files.LABELS, Templates("bare", ("{}",), ()), bank=False).positive
        got = ours.score(video, positive).logits
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
    assert wanted.std() > 0.1
