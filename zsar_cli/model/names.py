"""Error messages with suggestions for unknown model names."""

from __future__ import annotations

import difflib
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from zsar_cli.files import beside, existing
from zsar_cli.model.config import BUNDLED
from zsar_cli.model.pickle_check import is_torchscript, read_members

OPEN_CLIP_CONFIG = "open_clip_config.json"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
LIST = "`zsar predict --list-models` lists models."


def listed(names: Iterable[str], last: str = "") -> str:
    """Join up to eight names."""
    names = list(names)
    shown = names[:8]
    text = ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
    return text if len(shown) < 2 or not last else f"{', '.join(shown[:-1])} {last} {shown[-1]}"


def no_model(spec: str, architectures: list[str]) -> str:
    """Explain why a name is no model's, and which one may have been meant."""
    spec = spec[:100]
    path = existing(spec)
    if path and path.is_file():
        return _no_weights(spec, path, architectures)
    if path:
        return _no_model_folder(spec, path)
    if address := re.match(
        r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf[-_]hub:|[a-z][\w+.-]*://", spec, re.I
    ):
        name = spec[address.end() :].strip("/")
        if spec[: address.end()].lower().endswith(("co/", ":")):
            return _of_a_hub(name)
        return f"{spec} is a URL; download the model and give its path."
    close = difflib.get_close_matches(spec.casefold().replace("_", "-"), BUNDLED, n=1, cutoff=0.75)
    if close:
        return f"Unknown model {spec!r}. Did you mean {close[0]}?"
    owner, slash, name = spec.partition("/")
    if spec.startswith((".", "/", "~")) or spec.endswith(SUFFIXES) or (slash and existing(Path(spec).parent)):
        return f"There is no model {spec}: no such file or directory{beside(spec, folders=True)}"
    folded = {name.casefold(): name for name in architectures}
    arches = [folded[found] for found in difflib.get_close_matches(owner.casefold(), folded, n=3, cutoff=0.7)]
    if arches:
        return f"Unknown model {spec!r}: open_clip has no architecture {owner!r}. Did you mean {listed(arches, 'or')}?"
    if slash and "/" not in name and _nearest(spec):
        return _of_a_hub(spec)
    where = f", and there is no folder {owner} here" if slash else ""
    return f"Unknown model {spec!r}: open_clip has no architecture {owner!r}{where}. {LIST}"


def _no_weights(spec: str, path: Path, architectures: list[str]) -> str:
    if (path.parent / "config.yaml").is_file():
        return f"{spec} is a file in a model folder; give the folder: --model {path.parent}"
    if zipfile.is_zipfile(path) and is_torchscript(member.filename for member in read_members(path)):
        known = path.stem.removesuffix("px") in architectures
        published = (
            f"{path.stem.removesuffix('px')}/openai" if known else "ARCH/openai, as in ViT-B-16/openai"
        )
        return (
            f"{spec} is a TorchScript program, like OpenAI's CLIP files, and is not opened for security: use "
            f"--model {published} for the same weights."
        )
    if path.suffix.lower() in SUFFIXES:
        return (
            f"{spec} is a weights file; add its architecture, as in ViT-B-16/{spec}, or its published family, as in "
            f"vifi:{spec}."
        )
    return f"{spec} is not a model file: the extension of weights is {', '.join(SUFFIXES)}. {LIST}"


def _no_model_folder(spec: str, path: Path) -> str:
    missing = f"neither {OPEN_CLIP_CONFIG} nor a config.yaml written by `zsar train`"
    try:
        inside = sorted(found.parent.name for found in path.glob("*/config.yaml"))[:100]
    except OSError:
        inside = []
    if inside:
        runs = listed((str(path / name) for name in inside[:3]), "or")
        return f"The directory {spec} is not a model, but contains some; give one of them: {runs}."
    if (path / "config.json").is_file():
        return f"The directory {spec} holds no model in the form of open_clip ({missing}), but of another library."
    return f"The directory {spec} holds no model: {missing}."


def _of_a_hub(name: str) -> str:
    """Find the repository on a hub that a name means; many have the same weights under a name of open_clip's."""
    near = _nearest(name)
    hint = f"The nearest in open_clip is {near}." if near else LIST
    return f"{name!r} is the name of a repository; models are named ARCH/TAG as in open_clip. {hint}"


def _nearest(repository: str) -> str | None:
    """Find the ARCH/TAG whose words are most like a repository's, or that lies in it; None where none is much alike."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained

    wanted, best = _words(repository), (0.5, "")
    for arch, tag in list_pretrained():
        if (get_pretrained_cfg(arch, tag).get("hf_hub") or "").rpartition("/")[0] == repository:
            return f"{arch}/{tag}"
        words = _words(f"{arch}/{tag}")
        share = len(wanted & words) / max(1, len(wanted | words))
        if share > best[0]:
            best = share, f"{arch}/{tag}"
    return best[1] or None


_SAME = {
    "base": "b",
    "large": "l",
    "huge": "h",
    "small": "s",
    "facebook": "meta",
    "google": "webli",
    "timm": "",
}
_NO_DIFFERENCE = {"clip", "224", "vit", "hf", ""}


def _words(name: str) -> set[str]:
    """Split a model's name into the words that tell models apart: patch16 and B16 are like B-16."""
    split = re.sub(r"patch(?=\d)|(?<=[-_/.][a-z])(?=\d)", "-", name.lower())
    return {_SAME.get(word, word) for word in re.split(r"[-_/.@]+", split)} - _NO_DIFFERENCE
