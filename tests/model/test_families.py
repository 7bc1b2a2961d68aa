"""Published families: the authors' logits, through the loading path, from files in the authors' formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import published_files as files
from zsar_cli.errors import UsageError
from zsar_cli.model.load import load_model
from zsar_cli.model.published import files as fetched
from zsar_cli.model.published import load as load_module
from zsar_cli.model.published import openvclip, tcclip
from zsar_cli.model.published.load import load_published
from zsar_cli.model.zsar import RecognizerModel

FAMILIES = list(files.EXPECTED)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RecognizerModel]:
    """A family's model, from a file as its authors write it."""
    return files.loader(tmp_path_factory.mktemp("published"))


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is kept in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ZSAR_CACHE_DIR", str(folder))
        yield folder


def clips(family: str) -> Tensor:
    return files.pixels((2, 4, 3, 224, 224)) if family == "tcclip" else files.pixels()


@torch.inference_mode()
def logits(model: RecognizerModel, pixels: Tensor) -> Tensor:
    video = model.encode_video(model.encode_frames(pixels)).embedding
    found = model.score(video, files.texts(model)).logits
    return found / 100 if model.backbone.family.name in ("mote", "bike") else found


def first_row(model: RecognizerModel) -> Tensor:
    return logits(model, clips(model.backbone.family.name)[:1])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_authors_code(load: Callable[[str], RecognizerModel], family: str) -> None:
    torch.testing.assert_close(
        first_row(load(family)), torch.tensor(files.EXPECTED[family]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "tcclip"])
def test_each_clip_of_a_batch_is_answered_as_alone(
    load: Callable[[str], RecognizerModel], family: str
) -> None:
    model, pixels = load(family), clips(family)
    together = logits(model, pixels)
    torch.testing.assert_close(together[1:], logits(model, pixels[1:]), atol=1e-4, rtol=0)
    torch.testing.assert_close(together.flip(0), logits(model, pixels.flip(0)), atol=1e-4, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3


# What is taken away or changed, by the names of the family's own tensors
PARTS = [
    ("mote", r"transformer\..*out_proj", "zero"),
    ("mote", r"frame_position_embeddings", "zero"),
    ("mote", r"spe_cls_feature", "roll"),
    ("text4vis", r"transformer\.resblocks\.5\.mlp\.c_proj", "zero"),
    ("xclip", r"messages\.\d\.fc", "zero"),
    ("xclip", r"messages\.\d\.attn\.out_proj", "zero"),
    ("xclip", r"mit\.positional_embedding", "zero"),
    ("xclip", r"mit\.resblocks\.0\.(attn\.out_proj|mlp\.c_proj)", "zero"),
    ("xclip", r"prompts_visual_proj", "zero"),
    ("xclip", r"prompts_generator\.decoder\.1\.cross_attn\.proj", "zero"),
    ("xclip", r"prompts_generator\.alpha", "zero"),
    ("tcclip", r"tables\.", "zero"),
    ("tcclip", r"ctx", "roll"),
    ("tcclip", r"prompt\.(attn\.out_proj|mlp\.c_proj)", "zero"),
    ("viclip", r"temporal_positional_embedding", "zero"),
    ("ezclip", r"prompts", "zero"),
    ("ezclip", r"temporal_embedding", "zero"),
    ("ezclip", r"visual_adapters\.0\.D_fc2", "zero"),
    ("ezclip", r"text_adapters\.0\.D_fc2", "zero"),
]


@pytest.mark.parametrize(("family", "part", "how"), PARTS, ids=[f"{f}-{p}" for f, p, _ in PARTS])
def test_without_a_part_the_logits_are_others(
    load: Callable[[str], RecognizerModel], family: str, part: str, how: str
) -> None:
    model = load(family)
    own = model.backbone.family
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    changed = [name for name in before if re.match(part, name)]
    assert changed
    try:
        for name in changed:
            tensor = own.state_dict()[name]
            tensor.copy_(
                torch.zeros_like(tensor) if how == "zero" else tensor.flatten().roll(7).view_as(tensor)
            )
        difference = (first_row(model) - torch.tensor(files.EXPECTED[family])).abs().max()
    finally:
        own.load_state_dict(before)
    assert difference > 5e-4


def test_the_experts_of_mote_are_all_used(tmp_path: Path, load: Callable[[str], RecognizerModel]) -> None:
    whole = load("mote").backbone.family.state_dict()
    content = files.content("mote", files.texts(load("openvclip")))
    own = content["fusion_model_state_dict"]
    for name in ("fc_up.3.bias", "fc_dn.0.weight", "mote_fusion_weight"):
        changed = dict(own)
        place = f"module.transformer.resblocks.1.mlp.{name}"
        changed[place] = own[place].roll(1, 0)
        path = files.write(tmp_path, "mote", content | {"fusion_model_state_dict": changed})
        torch.save(files.clip(), tmp_path / "base.pt")
        other = load_published(None, path, base=str(tmp_path / "base.pt")).family.state_dict()
        assert any((whole[n] - other[n]).abs().max() > 1e-3 for n in whole)


def test_the_gate_of_mote_closes_for_labels_far_from_its_training(
    load: Callable[[str], RecognizerModel],
) -> None:
    model = load("mote")
    family, features = model.backbone.family, model.encode_frames(files.pixels())
    frames = family.encode_video(model.backbone.clip, features)[:, :64]
    labels = files.texts(model)
    torch.testing.assert_close(
        family.gate(frames, labels).flatten(), torch.tensor([0.0691, 0.0638]), atol=5e-5, rtol=0
    )
    assert family.gate(frames, labels[:2]).shape == (2, 1)  # fewer labels than the gate compares
    far = torch.nn.functional.normalize(files.draw("far", (5, 64)), dim=-1)
    assert (family.gate(frames, far) < 0.1 * family.gate(frames, labels)).all()


def test_beyond_the_ends_of_a_clip_zeros_keep_their_share_of_the_softmax(
    load: Callable[[str], RecognizerModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, right = load("openvclip"), torch.tensor(files.EXPECTED["openvclip"])

    def without_padding(attention: object, x: Tensor, frames: int) -> Tensor:
        q, k, v = openvclip.project(attention, x)
        parts = [
            openvclip.F.scaled_dot_product_attention(
                q[t : t + 1],
                *(torch.cat(list(part[max(0, t - 1) : t + 2]), dim=1)[None] for part in (k, v)),
            )
            for t in range(frames)
        ]
        return attention.out_proj(openvclip.join_heads(torch.cat(parts)))  # type: ignore[attr-defined]

    monkeypatch.setattr(openvclip, "attend_across", without_padding)
    assert (first_row(model) - right).abs().max() > 5e-4


@pytest.mark.parametrize(("name", "value"), [("CONTEXT", 48), ("SEEDS", 0.6)])
def test_tcclip_shares_ninety_six_tokens_of_the_best_patches(
    load: Callable[[str], RecognizerModel], monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(tcclip, name, value)
    assert (first_row(load("tcclip")) - torch.tensor(files.EXPECTED["tcclip"])).abs().max() > 5e-4


def test_tcclip_reads_labels_longer_than_thirty_tokens(load: Callable[[str], RecognizerModel]) -> None:
    backbone = load("tcclip").backbone
    long = "a photo of a " + "very " * 40
    states = backbone.encode_text([f"{long}{end}." for end in ("archery", "brush hair")])
    first, second = backbone.family.text_embedding(backbone.clip, states)
    assert (first - second).abs().max() > 1e-4


# --- files


def edited(family: str, edit: Callable[[dict[str, Tensor]], None]) -> dict[str, object]:
    content = files.content(family)
    edit(content[next(key for key in ("model_state_dict", "model_state", "model") if key in content)])
    return content


def noisy(name: str) -> Callable[[dict[str, Tensor]], None]:
    def edit(state: dict[str, Tensor]) -> None:
        state[name] = torch.full_like(state[name], torch.nan)

    return edit


ODD = [
    (lambda s: s.pop("mit.positional_embedding"), "X-CLIP: mit.positional_embedding is missing"),
    (lambda s: s.pop("visual.transformer.resblocks.1.message_fc.weight"), "messages.1.fc.weight is missing"),
    (lambda s: s.update({"visual.conv9": torch.ones(3)}), "'visual.conv9' has no place in it"),
    (lambda s: s.update({"prompts_generator.alpha": torch.ones(65)}), r"prompts_generator.alpha is \(65,\)"),
    (lambda s: s.update({"ln_final.bias": torch.ones(4)}), r"ln_final.bias is \(4,\) and not \(128,\)"),
    (
        lambda s: s.update({"visual.conv1.weight": torch.ones(4, 4)}),
        "not a whole X-CLIP|holds no whole X-CLIP",
    ),
    (noisy("mit.resblocks.0.ln_1.weight"), "mit.resblocks.0.ln_1.weight holds values that are not finite"),
]


@pytest.mark.parametrize(("edit", "message"), ODD, ids=[message for _, message in ODD])
def test_a_tensor_too_few_too_many_or_wrong_is_named(
    tmp_path: Path, edit: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    path = files.write(tmp_path, "xclip", edited("xclip", edit))
    with pytest.raises(UsageError, match=message):
        load_published("xclip", path)


def test_the_wrong_family_is_refused_by_name(tmp_path: Path) -> None:
    path = files.write(tmp_path, "xclip", files.content("xclip"))
    with pytest.raises(UsageError, match=f"holds X-CLIP and not MoTE; name it xclip:{path}"):
        load_published("mote", path)
    assert load_published(None, path).family.name == "xclip"
    other = tmp_path / "other.pt"
    torch.save({"layer1.weight": torch.ones(3)}, other)
    with pytest.raises(UsageError, match="none of the published models that zsar knows"):
        load_published(None, other)
    with pytest.raises(UsageError, match="holds no ViFi-CLIP"):
        load_published("vifi", other)


def test_a_file_that_lacks_parts_says_which_clip_it_needs(tmp_path: Path) -> None:
    path = files.write(tmp_path, "vifi", files.content("vifi"))
    with pytest.raises(UsageError, match="name the CLIP that it was trained from with --backbone"):
        load_published("vifi", path)
    torch.save(files.clip(width=64), tmp_path / "base.pt")
    with pytest.raises(UsageError, match="The base CLIP does not fit"):
        load_published("vifi", path, base=str(tmp_path / "base.pt"))


@pytest.mark.parametrize(
    ("family", "name"),
    [("vifi", "module.image_encoder.ln_post.weight"), ("vifi", "module.text_encoder.ln_final.bias"),
     ("mote", "module.visual.transformer.resblocks.1.ln_1.weight"), ("openvclip", "model.token_embedding.weight")],
)  # fmt: skip
def test_what_the_authors_trained_is_never_taken_from_the_base(
    tmp_path: Path, family: str, name: str
) -> None:
    vectors = torch.nn.functional.normalize(files.draw("labels", (5, 64)), dim=-1)
    content = files.content(family, vectors)
    del content[next(key for key in ("model_state_dict", "model_state", "model") if key in content)][name]
    torch.save(files.clip(), tmp_path / "base.pt")
    with pytest.raises(UsageError, match=f"{re.sub('.*encoder.|module.|model.', '', name)} is missing"):
        load_published(family, files.write(tmp_path, family, content), base=str(tmp_path / "base.pt"))


def test_a_repository_of_hugging_face_that_cannot_be_had_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(name: str, spec: str) -> Path:
        asked.append(name)
        raise UsageError("no network")

    asked: list[str] = []
    monkeypatch.setattr(fetched, "download", refuse)
    for which in ("B-16", "microsoft/xclip-base-patch32"):
        with pytest.raises(
            UsageError, match=r"could not be downloaded from Hugging Face; .* --model xclip:PATH"
        ):
            load_model(f"xclip:{which}")
    assert asked == [f"microsoft/xclip-base-patch{n}/model.safetensors" for n in ("16-zero-shot", "32")]
    with pytest.raises(UsageError, match=r"There is no file 'folder/file\.pth'"):
        load_model("xclip:folder/file.pth")


def test_weights_are_mixed_with_those_of_the_base(tmp_path: Path) -> None:
    path = files.write(tmp_path, "openvclip", files.content("openvclip"))
    base = {name: tensor + 1 for name, tensor in files.clip().items()}
    torch.save(base, tmp_path / "base.pt")
    mixed = load_published("openvclip", path, base=str(tmp_path / "base.pt"), mix=0.25).clip.state_dict()
    plain = load_published("openvclip", path).clip.state_dict()
    torch.testing.assert_close(mixed["visual.proj"], plain["visual.proj"] + 0.25)
    torch.testing.assert_close(mixed["ln_final.weight"], plain["ln_final.weight"] + 0.25)


def test_the_fingerprint_tells_families_and_their_own_tensors_apart(
    load: Callable[[str], RecognizerModel], tmp_path: Path
) -> None:
    prints = {load(name).backbone.fingerprint() for name in FAMILIES if name != "tcclip"}
    assert len(prints) == len(FAMILIES) - 1
    content = edited("xclip", lambda state: state.update({"mit.positional_embedding": torch.zeros(1, 8, 64)}))
    assert load_published("xclip", files.write(tmp_path, "xclip", content)).fingerprint() not in prints


# --- files that are fetched, and files that are kept


def test_a_pickle_is_read_once(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.write(tmp_path, "ezclip", files.content("ezclip"))
    read = []
    real = load_module.read_pickle
    monkeypatch.setattr(load_module, "read_pickle", lambda path: read.append(path) or real(path))
    first = load_published(None, path).fingerprint()
    assert load_published("ezclip", path).fingerprint() == first
    assert len(read) == 1
    (kept,) = [p for p in own_cache.glob("published/*/config.yaml") if str(path) in p.read_text()]
    assert "wrapper: model_state_dict" in kept.read_text()
    weights = kept.with_name("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")  # a damaged copy is no reason to answer wrongly
    assert load_published("ezclip", path).fingerprint() == first
    files.write(
        tmp_path, "ezclip", edited("ezclip", lambda state: state.update({"logit_scale": torch.tensor(1.0)}))
    )
    assert load_published("ezclip", path).fingerprint() != first  # nor is the copy of an older file
    assert len(read) == 3


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A server of files on this machine, where MoTE's B-16 lies; and what was asked of it."""
    served, asked = tmp_path / "served", list[str]()
    served.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(served))

        def log_message(self, format: str, *arguments: Any) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/MoTE_B16.pt"
        file = fetched.families()["mote"].file("b-16")
        assert file is not None
        record = fetched.families()["mote"].model_copy(
            update={"files": [file.model_copy(update={"url": url})]}
        )
        monkeypatch.setitem(fetched.families(), "mote", record)
        monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield served, asked
        server.shutdown()


def test_a_file_with_an_address_is_fetched_once_and_checked_ever_after(
    tmp_path: Path, address: tuple[Path, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    served, asked = address
    vectors = torch.nn.functional.normalize(files.draw("labels", (5, 64)), dim=-1)
    files.write(served, "MoTE_B16", files.content("mote", vectors)).rename(served / "MoTE_B16.pt")
    torch.save(files.clip(), tmp_path / "base.pt")
    caplog.set_level("DEBUG", "zsar_cli")
    first, second = (load_model("mote:B-16", backbone=str(tmp_path / "base.pt")) for _ in range(2))
    assert first.fingerprint() == second.fingerprint()
    assert asked == ["/MoTE_B16.pt"]
    assert "MoTE; licence of the weights: Apache-2.0; https://github.com/ZMHH-H/MoTE" in caplog.text
    (path,) = (tmp_path / "cache" / "published").glob("*.pt")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UsageError, match="no longer what was downloaded"):
        load_model("mote:B-16", backbone=str(tmp_path / "base.pt"))


def test_what_cannot_be_fetched_leaves_nothing_and_says_where_it_lies(
    tmp_path: Path, address: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UsageError, match=r"could not be downloaded .* fetch it from https://github.com/ZMHH-H/MoTE"
    ):
        load_model("mote:B-16")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE forbids"):
        load_model("mote:B-16")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_name_says_how_much_of_the_base_is_mixed_in(tmp_path: Path) -> None:
    path = files.write(tmp_path, "openvclip", files.content("openvclip"))
    torch.save({name: tensor + 1 for name, tensor in files.clip().items()}, tmp_path / "base.pt")
    base = str(tmp_path / "base.pt")
    projections = {
        name: load_model(f"openvclip:{path}{name}", backbone=base).backbone.clip.visual.proj
        for name in ("", "@0", "@0.25", "@published")
    }
    for name, part in {"@0": 0.0, "@0.25": 0.25, "@published": 0.5}.items():
        torch.testing.assert_close(projections[name], projections[""] + part)
    with pytest.raises(UsageError, match="neither @published nor a number"):
        load_model(f"openvclip:{path}@much", backbone=base)
