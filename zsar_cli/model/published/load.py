"""A published file to a backbone: read safely, told by its names, completed from the base CLIP, checked whole."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zsar_cli.errors import UsageError, shown
from zsar_cli.files import existing
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.factory import build, for_weights
from zsar_cli.model.hub import find_source
from zsar_cli.model.pickle_check import HoldsObjectsError
from zsar_cli.model.published.families import (
    ALIKE,
    HEADS,
    TITLES,
    Geometry,
    configuration,
    detect,
    geometry,
    make,
    split,
)
from zsar_cli.model.published.files import fetch, read_once
from zsar_cli.model.published.hf import load_towers, require_transformers
from zsar_cli.model.published.inert import read_inert
from zsar_cli.model.published.records import FamilyRecord, PublishedFile, families, where_to_find
from zsar_cli.model.published.xclip import from_transformers
from zsar_cli.model.weights import (
    check_finite,
    check_kinds,
    is_safetensors,
    read_pytorch,
    read_safetensors,
    read_weights,
)
from zsar_cli.run_log import NOTE

logger = logging.getLogger(__name__)
MIXED = {"mote": "visual."}  # the names that a family's authors mix with CLIP, where these are not all
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-]+")  # of Hugging Face's; a path to a file has an ending
STATE_DICTS = ("model_state_dict", "model_state", "model", "state_dict")


def load_published(
    family: str | None, path: str | Path, *, base: str | None = None, mix: float | str = 0.0
) -> Backbone:
    """Load a published file.

    Args:
        family: its name in :data:`TITLES`; None: as the file's names say.
        base: the CLIP that the file was trained from, where it lacks parts or is mixed with it: a weights file, or
            a name as :func:`~zsar_cli.model.backbone.load_backbone` takes it; by default OpenAI's of its sizes.
        mix: the base CLIP's part of the weights that both have, or ``published``.

    Raises:
        UsageError: the file is not there, damaged, of another family, or lacks tensors or has others besides; or the
            base CLIP cannot be had or has other sizes.
    """
    path = Path(path)
    tensors, wrapper = read_published(path)
    family = told(family, detect(tensors, wrapper), tensors, path)
    clip, own = split(family, tensors)
    share = part_of_base(str(mix), families()[family], sizes_of(clip, family, path).patch) if mix else 0.0
    clip = complete(clip, family, path, base, share)
    try:
        model_cfg = configuration(clip)
        with for_weights(clip, path):
            built = build(model_cfg, str(path))
        module = make(family, own, clip)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        missing = (
            f"{error.args[0]} is missing" if isinstance(error, KeyError) else "a tensor has another shape"
        )
        raise UsageError(f"{path} holds no whole {TITLES[family]}: {missing}.") from error
    fill(built, clip, path, family)
    fill(module, own, path, family)
    record = families()[family]
    preprocess = record.preprocess(int(built.visual.image_size[0]))
    backbone = Backbone(built, model_cfg, preprocess, f"{family}:{path}").eval()
    module.name, module.mix, module.file = family, share, record.of_sizes(geometry(clip).backbone)
    module.averages_probabilities = record.average == "probabilities"
    backbone.family = module.eval()
    backbone.fingerprint()
    return backbone


def read_published(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a file's tensors by the authors' names without wrappers, and the key that they lay under.

    A pickle is read once, and then what was kept of it.

    Raises:
        UsageError: it is not there, damaged, or no file of weights.
    """
    if is_safetensors(path):
        return sorted_out(read_safetensors(path), path)
    return read_once(path, read_pickle)


def read_pickle(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a file of PyTorch's as :func:`read_published` does, whatever objects lie beside the tensors."""
    try:
        found = read_pytorch(path)
    except HoldsObjectsError:
        found = read_inert(path)
    return sorted_out(found, path)


def sorted_out(found: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Find the state dicts in what a file holds, and check their tensors."""
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no model weights.")
    wrapper = next((key for key in STATE_DICTS if isinstance(found.get(key), dict)), "")
    tensors = plain(found[wrapper] if wrapper else found, path)
    if isinstance(head := found.get("fusion_model_state_dict"), dict):
        if any(name.startswith("fusion_model.") for name in tensors):
            wrapper = "fusion inside"
        tensors |= {
            f"fusion_model.{name.removeprefix('fusion_model.')}": t for name, t in plain(head, path).items()
        }
    elif any(name.startswith("fusion_model.") for name in tensors):
        wrapper = "fusion inside"
    check_kinds(tensors, path)
    check_finite(tensors, path)
    if any(name.startswith("vision_model.") for name in tensors) and any(
        "message_fc" in name for name in tensors
    ):
        tensors = from_transformers(tensors)
    return tensors, wrapper


def plain(found: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Convert the tensors of a state dict to fp32, without ``module.`` and ``model.`` before their names."""
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    odd = next((name for name in found if name not in tensors or not isinstance(name, str)), None)
    if odd is not None or not tensors:
        what = f"its entry {shown(odd)} is not a tensor" if odd is not None else "there is no tensor in it"
        raise UsageError(f"{path} is no model's state dict: {what}.")
    return {re.sub(r"^(module\.|model\.)*", "", name): tensor.detach() for name, tensor in tensors.items()}


def told(said: str | None, found: str | None, tensors: Mapping[str, Tensor], path: Path) -> str:
    """Decide the family from what the user said and what the file's names say; UsageError where they differ."""
    if said is None and found is None:
        raise UsageError(
            f"{path} holds none of the published models that zsar knows ({', '.join(TITLES.values())}); where it is "
            "an Open-VCLIP whose wrapping was taken off, say so: openvclip:PATH."
        )
    if said is None or said == found:
        assert found is not None
        return found
    if any({said, found} <= group for group in ALIKE):
        return said
    if found is None and said in ("openvclip", "froster") and "token_embedding.weight" in tensors:
        return said  # without the authors' wrapping it is a CLIP like any other
    if found is None:
        raise UsageError(f"{path} holds no {TITLES[said]}, nor another published model that zsar knows.")
    raise UsageError(f"{path} holds {TITLES[found]} and not {TITLES[said]}; name it {found}:{path}.")


def complete(
    clip: dict[str, Tensor], family: str, path: Path, base: str | None, mix: float
) -> dict[str, Tensor]:
    """Take what a file lacks from its base CLIP, and mix the two. UsageError where it is not there or does not fit."""
    clip = {name: tensor.float() for name, tensor in clip.items()}
    lacks = "token_embedding.weight" not in clip and may_lack(family, "token_embedding.weight")
    if not lacks and not mix:
        return clip
    original = base_tensors(clip, family, path, base)
    for name, tensor in original.items():
        there = clip.get(name)
        if there is None:
            if may_lack(family, name):  # of all else that is missing the file is told to be incomplete
                clip[name] = tensor
        elif there.shape != tensor.shape:
            raise UsageError(
                f"The base CLIP does not fit {path}: {name} is {tuple(tensor.shape)} and not {tuple(there.shape)}."
            )
    return mix_with(clip, original, mix, MIXED.get(family, ""))


def mix_with(
    clip: Mapping[str, Tensor], original: Mapping[str, Tensor], share: float, prefix: str = ""
) -> dict[str, Tensor]:
    """Mix weights with those of the CLIP that they were trained from: ``(1 - share) clip + share original``.

    Args:
        share: from 0 to 1.
        prefix: mix only names that begin so; what a family adds to the CLIP is no name of both.
    """
    return {
        name: torch.lerp(tensor, original[name], share)
        if share and name in original and name.startswith(prefix)
        else tensor
        for name, tensor in clip.items()
    }


def may_lack(family: str, name: str) -> bool:
    """Tell whether the authors' files leave this tensor of the CLIP out, as they did not train it."""
    if family in HEADS:
        return not name.startswith("visual.")
    return family in ("vifi", "ost", "maxi", "tcclip") and name == "token_embedding.weight"


def base_tensors(clip: Mapping[str, Tensor], family: str, path: Path, base: str | None) -> dict[str, Tensor]:
    """Select the tensors of the base CLIP, by OpenAI's names, in fp32."""
    place = existing(base) if base else None
    if place is not None and place.is_file():
        return {name: tensor.float() for name, tensor in read_weights(place).tensors.items()}
    name = base or sizes_of(clip, family, path).base
    if name is None:
        raise UsageError(
            f"{path} is of no size of OpenAI's CLIP; name the CLIP that it was trained from with --backbone."
        )
    try:
        source = find_source(name)
    except UsageError as error:
        raise UsageError(
            f"{path} needs the CLIP that it was trained from, {name}: {error} Where that lies elsewhere, say so with "
            "--backbone PATH."
        ) from error
    return {name: tensor.float() for name, tensor in source.weights.tensors.items()}


def sizes_of(clip: Mapping[str, Tensor], family: str, path: Path) -> Geometry:
    """Read the sizes of the visual tower. UsageError where its tensors do not tell them."""
    try:
        return geometry(clip)
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"{path} holds no whole {TITLES[family]}: its visual tower is incomplete."
        ) from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, family: str) -> None:
    """Put tensors into a module: each must have its place, and each place its tensor, of that shape."""
    expected = module.state_dict()
    wrong = [f"{name} is missing" for name in expected if name not in tensors]
    wrong += [f"{shown(name)} has no place in it" for name in tensors if name not in expected]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)} and not {tuple(there.shape)}"
        for name, there in expected.items()
        if name in tensors and tensors[name].shape != there.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UsageError(f"{path} is not a whole {TITLES[family]}: {wrong[0]}{more}.")
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def load_named(family: str, which: str, *, base: str | None = None) -> Backbone:
    """Load ``FAMILY:WHICH``, where WHICH is a path or a file that zsar knows the address of; a line says its licence.

    ``WHICH@R`` mixes R of the base CLIP into the weights, ``WHICH@published`` as much as the authors did.

    Raises:
        UsageError: there is none, with where the authors put it; or as :func:`load_published`.
    """
    record = families()[family]
    name, mixed = which, None
    if existing(which) is None and "@" in which:
        name, _, mixed = which.rpartition("@")
    path, file = existing(name), record.file(name)
    if record.transformers is not None:
        require_transformers(record)
        if base is not None or mixed is not None:
            raise UsageError(
                f"{record.title} has no base CLIP; remove {'@' + mixed if mixed else '--backbone'}."
            )
    if (
        path is None
        and file is None
        and any(other.hub for other in record.files)
        and REPOSITORY.fullmatch(name)
    ):
        file = PublishedFile(name=name, backbone=name, hub=name)
    if path is None and file is not None and (file.url or file.hub):
        path = fetch(family, file)
    if path is None:
        raise where_to_find(family, name)
    if record.transformers is not None:
        loaded = load_towers(family, path.absolute(), name)
    else:
        if path.is_dir():  # as transformers writes
            files = [path / name for name in ("model.safetensors", "pytorch_model.bin")]
            path = next((file for file in files if file.is_file()), files[0])
        loaded = load_published(family, path.absolute(), base=base, mix=0.0 if mixed is None else mixed)
    logger.log(NOTE, "%s; licence of the weights: %s; %s", record.title, record.licence, record.where)
    if mixed is not None:
        loaded.spec = f"{loaded.spec}@{mixed}"
    return loaded


def part_of_base(mix: str, record: FamilyRecord, patch: int) -> float:
    """Read the part of the base CLIP in the weights: a number from 0 to 1, or ``published``."""
    if mix == "published":
        return record.mix.get(patch, 0.0)
    try:
        part = float(mix)
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1:
        raise UsageError(f"@{mix[:50]} is neither @published nor a number from @0 to @1.")
    return part
