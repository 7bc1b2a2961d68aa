"""The backbone: every family of towers, every way to name weights, every way in which they can be wrong."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import time
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from tests.tiny_models import LAYOUTS, VIT, LettersTokenizer, large_clip, make_tiny_clip
from tests.video_files import write_video
from zsar_cli.cli import app
from zsar_cli.errors import UsageError
from zsar_cli.model import hub as sources
from zsar_cli.model import load as recognizer
from zsar_cli.model.backbone import Backbone, load_backbone
from zsar_cli.model.factory import build, preprocess_of, token_count
from zsar_cli.model.precision import resolve_device, resolve_precision

TEXTS = ["riding a horse", "a person who opens a very large cardboard box with both hands", "x"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("layouts")
    return {layout: make_tiny_clip(root / layout, layout) for layout in LAYOUTS}


@pytest.fixture
def small_arch(tmp_path: Path):
    """A small architecture that open_clip knows by name, as the ``ARCH`` of ``ARCH/path``; gone after the test."""
    from open_clip import factory

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "Tiny-32.json").write_text(json.dumps(VIT))
    open_clip.add_model_config(tmp_path / "configs")
    yield "Tiny-32"
    factory._MODEL_CONFIG_PATHS.pop()
    factory._MODEL_CONFIGS.pop("Tiny-32")


def frames(backbone: Backbone, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *backbone.preprocess.size, generator=generator)


def check_family(backbone: Backbone, tokenizer=None, count: int = 2) -> int:
    """The embedding is encode_image's; tokens are as wide as announced; texts are encode_text's, of unit length.

    Gives the number of patch tokens of a frame.
    """
    pixels = frames(backbone, count)
    with torch.no_grad():
        features = backbone.encode_frames(pixels)
        torch.testing.assert_close(
            features.embedding, backbone.clip.encode_image(pixels), atol=1e-5, rtol=1e-4
        )
        tokenizer = tokenizer or open_clip.SimpleTokenizer(context_length=backbone.context_length)
        expected = F.normalize(backbone.clip.encode_text(tokenizer(TEXTS)).float(), dim=-1)
        texts = backbone.encode_text(TEXTS)
    assert features.embedding.shape == (count, backbone.embed_dim)
    assert features.tokens.shape[0] == count
    assert features.tokens.shape[1] == token_count(backbone.clip.visual, backbone.preprocess.size)
    assert features.tokens.shape[2] == backbone.token_dim
    assert torch.isfinite(features.tokens).all()
    assert texts.dtype == torch.float32
    torch.testing.assert_close(texts, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(len(TEXTS)))
    return int(features.tokens.shape[1])


# --- towers


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiny_families(layout: str, tiny: dict[str, Path]) -> None:
    backbone = load_backbone(str(tiny[layout]))
    patches = {"vit": 16, "siglip": 4, "pe": 4, "convolutional": 4}  # 32 / 8, 32 / 16, 64 / 32, squared
    assert check_family(backbone) == patches[layout]


@pytest.mark.parametrize(("arch", "tokens"), [("ViT-SO400M-14-SigLIP-384", 27 * 27), ("RN50", 49)])
def test_the_number_of_patch_tokens_is_known_without_computing(arch: str, tokens: int) -> None:
    with torch.device("meta"):  # 384 is no multiple of 14; and the one family that has no tiny layout here
        visual = build(open_clip.get_model_config(arch), arch).visual
    assert token_count(visual, (visual.image_size,) * 2 if arch == "RN50" else visual.image_size) == tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "tokens"),
    [("ViT-B-32", 49), ("ViT-B-16-SigLIP2", 196), ("PE-Core-T-16-384", 576), ("MobileCLIP2-S0", 64)],
)
def test_real_families(arch: str, tokens: int, tmp_path: Path, monkeypatch, capsys) -> None:
    """Every family of visual towers at its true size, with random weights, and through ``zsar predict``."""
    torch.manual_seed(0)
    cfg = open_clip.get_model_config(arch)
    cfg["text_cfg"]["vocab_size"] = min(
        cfg["text_cfg"]["vocab_size"], 49408
    )  # 256000 take their time to draw
    if "layers" in cfg["text_cfg"]:
        cfg["text_cfg"]["layers"] = 2
    clip = large_clip(cfg)
    backbone = Backbone(clip, cfg, preprocess_of({}, clip), arch).eval()
    words = LettersTokenizer(backbone.context_length) if "SigLIP" in arch else None
    if words:
        backbone.tokenizer = words
    assert check_family(backbone, words, count=1) == tokens  # a batch of them is for the tiny ones
    video = write_video(tmp_path / "a.mp4", 12)
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("zsar_cli.text.embeddings.phrase_bank", lambda: ("standing still", "an empty room"))
    monkeypatch.setattr(
        recognizer, "load_model", lambda *_, **__: recognizer.RecognizerModel(backbone).eval()
    )
    options = ["--label", "waving", "--label", "running", "--frames", "1", "--workers", "0"]
    with pytest.raises(SystemExit) as exit:
        app.main(["predict", str(video), "--model", arch, *options])
    (line,) = capsys.readouterr().out.splitlines()
    assert not exit.value.code
    assert sum(found["score"] for found in json.loads(line)["predictions"]) == pytest.approx(1, abs=1e-5)


def test_tokens_lie_in_rows_from_the_top_left(tiny: dict[str, Path]) -> None:
    backbone = load_backbone(str(tiny["vit"]))
    pixels = torch.zeros(2, 3, 32, 32)
    pixels[1, :, 0:8, 16:24] = 3.0  # first row, third column of patches of 8
    with torch.no_grad():
        tokens = backbone.encode_frames(pixels).tokens
    assert (tokens[1] - tokens[0]).norm(dim=-1).argmax() == 2


def test_gradients_reach_both_towers_with_and_without_checkpointing(tiny: dict[str, Path]) -> None:
    for layout in ("vit", "pe"):
        backbone = load_backbone(str(tiny[layout])).train()
        found = []
        for checkpointing in (False, True):
            backbone.set_grad_checkpointing(checkpointing)
            backbone.zero_grad()
            (
                backbone.encode_frames(frames(backbone)).embedding.sum() + backbone.encode_text(TEXTS).sum()
            ).backward()
            assert backbone.clip.logit_scale.grad is None
            found.append({n: p.grad.clone() for n, p in backbone.named_parameters() if p.grad is not None})
        assert any("visual" in name for name in found[0])
        assert any("token_embedding" in name for name in found[0])
        for name, gradient in found[0].items():
            torch.testing.assert_close(found[1][name], gradient)


@pytest.mark.parametrize("layout", ["vit", "siglip", "convolutional"])
def test_precision(layout: str, tiny: dict[str, Path]) -> None:
    exact = load_backbone(str(tiny[layout]))
    half = load_backbone(str(tiny[layout]), precision="bf16")
    with torch.no_grad():
        features = half.encode_frames(frames(half))
        assert features.embedding.dtype == half.dtype == torch.bfloat16
        similarity = F.cosine_similarity(
            features.embedding.float(), exact.encode_frames(frames(exact)).embedding
        )
        texts = half.encode_text(TEXTS)
    assert similarity.min() > 0.99
    assert texts.dtype == torch.float32
    assert F.cosine_similarity(texts, exact.encode_text(TEXTS)).min() > 0.99
    assert half.logit_scale == exact.logit_scale, "bf16 would make 100 out of 98.9"
    assert half.fingerprint() == exact.fingerprint(), "prompt embeddings stay usable"
    assert half.text_key != exact.text_key, "but cached ones are of one precision"
    assert half.set_precision("fp32").encode_frames(frames(half)).embedding.dtype == torch.float32


def test_precision_is_open_clips(tiny: dict[str, Path]) -> None:
    """Native towers compute in bf16 as open_clip's own bf16 models do, layer norms included."""
    ours = load_backbone(str(tiny["vit"]), precision="bf16")
    theirs = open_clip.create_model(f"local-dir:{tiny['vit']}", precision="bf16").eval()
    with torch.no_grad():
        expected = theirs.encode_image(frames(ours).bfloat16())
        torch.testing.assert_close(ours.encode_frames(frames(ours)).embedding, expected, atol=0, rtol=0)
    kinds = {
        n: (type(m), m.weight.dtype) for n, m in theirs.named_modules() if isinstance(m, torch.nn.LayerNorm)
    }
    assert {n: (type(m), m.weight.dtype) for n, m in ours.clip.named_modules() if n in kinds} == kinds
    assert kinds


# --- names of models


def test_directory_loads_the_weights_and_settings_in_it(tmp_path: Path) -> None:
    settings = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.2],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    directory = make_tiny_clip(tmp_path / "own", seed=3, preprocess_cfg=settings)
    backbone = load_backbone(str(directory))
    stored = load_file(directory / "open_clip_model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in backbone.clip.state_dict().items())
    preprocess = backbone.preprocess
    assert (preprocess.size, preprocess.mean, preprocess.std) == ((32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert (preprocess.interpolation, preprocess.resize_mode) == ("bilinear", "squash")
    assert (
        load_backbone(str(directory / "open_clip_model.safetensors")).fingerprint() == backbone.fingerprint()
    )
    assert load_backbone(backbone.spec).fingerprint() == backbone.fingerprint()


def test_arch_and_path(small_arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load_file(make_tiny_clip(tmp_path / "m") / "open_clip_model.safetensors")
    (tmp_path / "w").mkdir()
    save_file(stored, tmp_path / "w" / "a.safetensors")
    torch.save(stored, tmp_path / "w" / "a.pt")
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in stored.items()}}
    torch.save(wrapped, tmp_path / "w" / "a.bin")
    torch.save(stored, tmp_path / "w" / "old.pt", _use_new_zipfile_serialization=False)
    monkeypatch.chdir(tmp_path)
    prints = set()
    for name in ("a.safetensors", "a.pt", "a.bin", "old.pt"):
        for path in (f"w/{name}", str(tmp_path / "w" / name)):
            backbone = load_backbone(f"{small_arch}/{path}")
            assert torch.equal(backbone.clip.visual.proj, stored["visual.proj"])
            prints.add(backbone.fingerprint())
            assert backbone.spec == f"{small_arch}/{tmp_path / 'w' / name}", "found again from any directory"
    assert len(prints) == 1


def test_bare_weights_get_the_settings_their_architecture_was_published_with() -> None:
    cfg = open_clip.get_model_config("PE-Core-B-16")
    settings, quick_gelu = sources._settings_of_file("PE-Core-B-16", cfg, Path("/nowhere/w.pt"))
    assert settings["mean"] == (0.5, 0.5, 0.5)
    assert (settings["interpolation"], settings["resize_mode"], quick_gelu) == ("bilinear", "squash", False)


def test_pretrained_tag_comes_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_arch: str
) -> None:
    """The tag's own settings and its QuickGELU are used."""
    from open_clip import pretrained

    weights = make_tiny_clip(tmp_path / "m") / "open_clip_model.safetensors"
    tag = pretrained._pcfg(hf_hub="owner/name/", quick_gelu=True, mean=(0.1, 0.1, 0.1))
    monkeypatch.setitem(pretrained._PRETRAINED, small_arch, {"mine": tag})
    asked = []
    monkeypatch.setattr(sources, "download", lambda name, spec: asked.append((name, spec)) or weights)
    backbone = load_backbone(f"{small_arch}/mine")
    assert asked == [("owner/name/", f"{small_arch}/mine")]
    assert backbone.model_cfg["quick_gelu"]
    assert backbone.preprocess.mean == (0.1, 0.1, 0.1)
    plain = load_backbone(str(tmp_path / "m"))
    assert plain.fingerprint() != backbone.fingerprint(), (
        "the activation is part of what a text's embedding is"
    )


def torchscript_program(path: Path) -> Path:
    """A file in the form that OpenAI published CLIP in."""
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    return path


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program_is_not_opened_and_the_tag_of_the_same_weights_is_named(
    small_arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = torchscript_program(tmp_path / "ViT-B-16.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch, "load", None)
    assert "use --model ViT-B-16/openai" in message(f"ViT-B-16/{path}")
    assert "use --model ViT-B-16/openai" in message(str(path))
    assert "use --model ViT-L-14-336/openai" in message(str(path.rename(tmp_path / "ViT-L-14-336px.pt")))
    assert "TorchScript" in message(f"{small_arch}/{tmp_path / 'ViT-L-14-336px.pt'}")


def test_openais_state_dict_is_known_by_its_sizes(small_arch: str, tmp_path: Path, caplog) -> None:
    stored = load_file(make_tiny_clip(tmp_path / "m") / "open_clip_model.safetensors")
    torch.save(stored | {"input_resolution": torch.tensor(32)}, tmp_path / "w.pt")
    assert load_backbone(f"{small_arch}/{tmp_path / 'w.pt'}").model_cfg["quick_gelu"] is True
    torch.save(stored, tmp_path / "w.pt")
    assert not load_backbone(f"{small_arch}/{tmp_path / 'w.pt'}").model_cfg.get("quick_gelu")


def test_config_beside_the_weights_says_quickgelu(tmp_path: Path) -> None:
    cfg = open_clip.get_model_config("ViT-B-32")
    content = {"model_cfg": cfg | {"quick_gelu": True}, "preprocess_cfg": {"mean": [0, 0, 0]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    assert sources._settings_of_file("ViT-B-32", cfg, tmp_path / "w.pt") == ({"mean": [0, 0, 0]}, True)


def test_a_plain_state_dict_called_openai_is_asked_about(tmp_path: Path, caplog) -> None:
    sources._settings_of_file(
        "ViT-B-32", open_clip.get_model_config("ViT-B-32"), tmp_path / "openai.safetensors"
    )
    assert "ViT-B-32-quickgelu" in caplog.text


# --- what can be wrong


def message(spec: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_backbone(spec)
    text = str(caught.value)
    assert len(text) < 400
    assert "\n" not in text
    return text


def test_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "ViT-B-16" in message("vit-b16/openai")
    assert "openai" in message("ViT-B-16/opnai")
    assert "no such file" in message("ViT-B-16/weights/w.pt")
    assert "ViT-B-16/openai" in message("ViT-B-16")
    assert "no such file or directory" in message("./nowhere")
    assert "no such file or directory" in message("/nowhere/at/all")
    (tmp_path / "w.pt").write_bytes(b"x")
    assert "add its architecture" in message("w.pt")
    (tmp_path / "empty").mkdir()
    assert "holds no model" in message("empty")
    assert "is a directory" in message("ViT-B-16/empty")
    assert message("")
    assert message("/")
    assert message("x" * 5000)
    assert message("a\0b/c")
    assert message("ViT-B-16/" + "x" * 5000)
    assert message("ViT-B-16/a\0b")
    assert message("~nobody-of-this-name/model")
    shutil.copytree(make_tiny_clip(tmp_path / "m"), tmp_path / "bare")
    (tmp_path / "bare" / "open_clip_model.safetensors").unlink()
    assert "no weights" in message("bare")


BROKEN_CONFIGURATIONS = [
    *("", "{", "[]", "{}", '{"model_cfg": 3}'),
    '{"model_cfg": {"embed_dim": "x", "vision_cfg": {}, "text_cfg": {}}}',
    json.dumps({"model_cfg": VIT | {"surprise": 1}}),
    json.dumps({"model_cfg": VIT | {"vision_cfg": VIT["vision_cfg"] | {"pool_type": "none"}}}),
    json.dumps({"model_cfg": VIT | {"text_cfg": VIT["text_cfg"] | {"pool_type": "none"}}}),
    json.dumps({"model_cfg": VIT, "preprocess_cfg": 3}),
    json.dumps({"model_cfg": VIT, "preprocess_cfg": {"resize_mode": "fold"}}),
    json.dumps({"model_cfg": VIT, "preprocess_cfg": {"mean": 1}}),
]


@pytest.mark.parametrize("config", BROKEN_CONFIGURATIONS)
def test_broken_configuration(config: str, tmp_path: Path) -> None:
    directory = make_tiny_clip(tmp_path / "m")
    (directory / "open_clip_config.json").write_text(config)
    message(str(directory))


def test_broken_weights(small_arch: str, tmp_path: Path) -> None:
    good = make_tiny_clip(tmp_path / "m") / "open_clip_model.safetensors"
    stored = load_file(good)
    path = tmp_path / "w.safetensors"
    spec = f"{small_arch}/{path}"

    save_file({n: t for n, t in stored.items() if n != "visual.proj"}, path)
    assert "visual.proj is missing" in message(spec)
    save_file(stored | {"surprise": torch.zeros(2)}, path)
    assert "surprise" in message(spec)
    save_file(stored | {"visual.proj": torch.zeros(3, 3)}, path)
    assert "visual.proj is 3x3 and not 32x32" in message(spec)
    for bad in (float("nan"), float("inf"), -float("inf")):
        spoiled = stored["visual.proj"].clone()
        spoiled[-1, -1] = bad
        save_file(stored | {"visual.proj": spoiled}, path)
        assert "visual.proj holds values that are not finite" in message(spec)
    whole = good.read_bytes()
    for cut in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "not a complete" in message(spec)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in message(spec)


def test_broken_pytorch_files(small_arch: str, tmp_path: Path) -> None:
    stored = load_file(make_tiny_clip(tmp_path / "m") / "open_clip_model.safetensors")
    path = tmp_path / "w.pt"
    spec = f"{small_arch}/{path}"
    torch.save(stored, path)
    whole = path.read_bytes()
    for cut in (0, 2, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "w.pt" in message(spec)
    for content in (b"\0" * 500, b"hello", os.urandom(500)):
        path.write_bytes(content)
        assert "w.pt" in message(spec)
    for content in ({}, [1, 2], {"a": 1}, torch.zeros(3), {"state_dict": {}}, {1: torch.zeros(1)}):
        torch.save(content, path)
        assert "w.pt" in message(spec)


class Payload:
    """What a hostile pickle does: it names a function to be called when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_pickle_with_a_payload_is_refused_unexecuted(small_arch: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "executed", tmp_path / "w.pt"
    for new in (True, False):
        torch.save({"state_dict": Payload(victim)}, path, _use_new_zipfile_serialization=new)
        assert "could run code" in message(f"{small_arch}/{path}")
    path.write_bytes(pickle.dumps(Payload(victim)))
    message(f"{small_arch}/{path}")
    assert not victim.exists()
    pickle.loads(pickle.dumps(Payload(victim)))
    assert victim.exists(), "the payload works, so refusing it was what saved the day"


# --- downloads


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that refuses every connection, and an empty cache."""
    from huggingface_hub import constants, file_download

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):
        if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("no_hub")
def test_no_hub_and_nothing_cached_fails_fast_and_names_the_ways_out(monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    text = message("PE-Core-B-16/meta")
    assert not waits, "no retries: the library's own wait for 45 s in all"
    assert "cannot be reached" in text
    assert "PE-Core-B-16/path/to/weights" in text
    assert "motion-tiny" in text
    assert text.count(". ") == 1


@pytest.mark.usefixtures("no_hub")
def test_what_is_cached_needs_no_hub(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    (snapshot / "open_clip_pytorch_model.bin").write_bytes(b"x")
    assert sources.download("owner/name/", "A/b") == snapshot / "open_clip_pytorch_model.bin"


def test_download_is_checked_against_the_published_hash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import hashlib
    from types import SimpleNamespace

    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    blob = tmp_path / "open_clip_pytorch_model.bin"
    blob.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()

    def metadata(url: str, **_):
        if url.endswith(".safetensors"):
            raise EntryNotFoundError("only the old form is there")
        return SimpleNamespace(size=7, etag=digest)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: str(blob))
    assert sources.download("owner/name/", "A/b") == blob
    blob.write_bytes(b"weighty")
    with pytest.raises(UsageError, match="was damaged"):
        sources.download("owner/name/", "A/b")
    assert not blob.exists()


def test_tokenizer_that_needs_more_than_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UsageError, match="pip install transformers"):
        sources.load_tokenizer("ViT-B-16-SigLIP2", open_clip.get_model_config("ViT-B-16-SigLIP2"))


# --- texts, fingerprints, devices


def test_long_text_is_cut_with_a_warning_that_quotes_it(tiny: dict[str, Path], caplog) -> None:
    backbone = load_backbone(str(tiny["pe"]))
    long = "opening " * 40
    with caplog.at_level(logging.WARNING):
        backbone.encode_text(["opening " * 20])
        assert not caplog.records
        found = backbone.encode_text([long])
    assert "opening opening" in caplog.text
    assert "32 tokens" in caplog.text
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("1" * 30, False),
        ("1" * 31, True),
        ("é" * 8 + "…" * 30, True),
        ("ᚠ" * 15, True),
        ("a" * 90, False),
    ],
)
def test_a_text_that_is_cut_is_named_whether_it_is_embedded_or_in_the_cache(
    tiny: dict[str, Path], caplog, text: str, cut: bool
) -> None:
    backbone = load_backbone(str(tiny["pe"]))
    for ask in (backbone.encode_text, backbone.warn_truncated):
        caplog.clear()
        ask(["short", text])
        assert [text[:20] in record.getMessage() for record in caplog.records] == [True] * cut


def test_texts_do_not_depend_on_their_company(tiny: dict[str, Path]) -> None:
    backbone = load_backbone(str(tiny["vit"]))
    with torch.no_grad():
        together = backbone.encode_text([*TEXTS, "long " * 60] * 60)
        alone = torch.cat([backbone.encode_text([text]) for text in TEXTS])
    torch.testing.assert_close(together[:3], alone, atol=1e-5, rtol=1e-5)
    assert backbone.encode_text([]).shape == (0, 32)


def test_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    same, other = make_tiny_clip(tmp_path / "a", seed=1), make_tiny_clip(tmp_path / "b", seed=2)
    backbone = load_backbone(str(same))
    first = backbone.fingerprint()
    assert first == load_backbone(str(make_tiny_clip(tmp_path / "c", seed=1))).fingerprint()
    assert first != load_backbone(str(other)).fingerprint()
    with torch.no_grad():
        backbone.clip.visual.proj.add_(1e-3)
    assert backbone.fingerprint() != first, "training changes it"
    rebuilt = Backbone.from_config(VIT)
    rebuilt.fingerprint()
    rebuilt.clip.load_state_dict(load_file(same / "open_clip_model.safetensors"))
    assert rebuilt.fingerprint() == first


def test_devices_and_precisions() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:99", "", "meta"):
        with pytest.raises(UsageError):
            resolve_device(name)


@pytest.mark.parametrize(
    ("device", "capability", "width", "expected"),
    [
        ("cpu", None, 768, "fp32"),
        ("mps", None, 768, "fp32"),
        ("cuda:0", (8, 0), 768, "bf16"),
        ("cuda:0", (7, 5), 768, "fp32"),
        ("cuda:0", (9, 0), 64, "fp32"),
    ],
)
def test_precision_of_auto_is_decided_by_the_device_alone(
    tiny: dict[str, Path],
    monkeypatch,
    device: str,
    capability: tuple[int, int] | None,
    width: int,
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    vit = load_backbone(str(tiny["vit"]))
    vit.token_dim = width
    assert resolve_precision("auto", device, vit) == expected
    assert resolve_precision("bf16", device, vit) == "bf16"


def test_a_precision_that_does_not_exist_is_refused(tiny: dict[str, Path]) -> None:
    for load in (load_backbone, recognizer.load_model):
        with pytest.raises(UsageError, match="int8"):
            load("ViT-B-32/no-such-weights", precision="fp8")
    with pytest.raises(UsageError, match="auto"):
        load_backbone(str(tiny["vit"])).set_precision("auto")  # a choice for who loads, not a form of weights
