"""Tiny random models of transformers, as ``save_pretrained`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ["a", "video", "of", "archery", "brush", "hair", "sword", "exercise", "eye", "makeup"]
LABELS = ["archery", "brush hair", "sword exercise"]


def make(family: str, folder: Path) -> Any:
    """Write a model and its tokenizer into a folder; gives the model."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _videoprism(transformers) if family == "videoprism" else _peav(transformers)
        for parameter in model.parameters():  # transformers draws small ones, and some as zeros
            torch.nn.init.normal_(parameter, std=0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    if family == "peav":
        model.video_model.text_video_logit_scale.data.fill_(5.0)
    model.eval().save_pretrained(folder)
    _tokenizer(transformers).save_pretrained(folder)
    return model


def _tokenizer(transformers: Any) -> Any:
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return transformers.VideoPrismTokenizer(
        vocab=[*marks, *((f"▁{word}", -1.0) for word in WORDS)],
        extra_ids=0,
        additional_special_tokens=["<extra_id_0>"],
    )


SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}


def _videoprism(transformers: Any) -> Any:
    vision = SIZES | {"image_size": 36, "num_frames": 4, "num_spatial_layers": 1, "num_temporal_layers": 1}
    text = SIZES | {"vocab_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 16}
    return transformers.VideoPrismClipModel(
        transformers.VideoPrismConfig(vision_config=vision | {"num_auxiliary_layers": 1}, text_config=text)
    )


def _peav(transformers: Any) -> Any:
    layer = SIZES | {"num_hidden_layers": 1, "head_dim": 16}
    marks = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1}
    text = SIZES | {"model_type": "modernbert", "vocab_size": 32, "num_hidden_layers": 2}
    frame = {"model_type": "timm_wrapper", "architecture": "vit_pe_core_tiny_patch16_384", "num_classes": 32}
    frame |= {"do_pooling": True, "global_pool": "map", "initializer_range": 0.02}
    sizes = {"embed_dim": 64, "depth": 1, "num_heads": 2, "img_size": 32}
    sound = {"encoder_hidden_size": 4, "downsampling_ratios": [2, 2], "decoder_hidden_size": 16}
    sound |= {"codebook_dim": 4, "hidden_size": 16, "n_codebooks": 1}
    both = {
        "video_config": layer
        | {"model_type": "pe_video_encoder", "vision_config": frame | {"model_args": sizes}},
        "audio_config": layer | {"model_type": "pe_audio_encoder", "dac_config": sound},
    }
    return transformers.PeAudioVideoModel(
        transformers.PeAudioVideoConfig(text_config=text | marks, audio_video_config=layer | both)
    )
