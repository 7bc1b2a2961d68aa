"""From the name of a model to the model: bundled, trained, published, or any backbone as a plain CLIP."""

from __future__ import annotations

from pathlib import Path

from zsar_cli.errors import UsageError
from zsar_cli.files import checksum
from zsar_cli.model.backbone import Backbone, load_backbone
from zsar_cli.model.config import BUNDLED, Description, model_directory, read_description
from zsar_cli.model.factory import for_weights
from zsar_cli.model.hub import moved, offline
from zsar_cli.model.precision import check_precision, resolve_precision
from zsar_cli.model.published.load import load_named
from zsar_cli.model.published.openvclip import OpenVCLIP
from zsar_cli.model.published.records import families, named_family
from zsar_cli.model.weights import brief, check_finite, check_header, read_safetensors
from zsar_cli.model.zsar import RecognizerModel, TrainingRecord

TRAINABLE = ("vifi", "ost", "maxi", "openvclip", "froster")


def load_model(
    spec: str, *, device: str = "cpu", precision: str = "fp32", backbone: str | None = None
) -> RecognizerModel:
    """Load a bundled model by name, a directory that ``zsar train`` wrote, or any backbone as a plain CLIP.

    Args:
        backbone: where the weights are now that such a directory was trained on, if they have moved.

    Raises:
        UsageError: nothing is found under ``spec``, or what is found is damaged or does not fit together.
    """
    check_precision(precision)
    if is_recognizer(spec):
        directory = model_directory(spec)
        model = _load_directory(directory, device=device, precision=precision, base=backbone)
        model.record.name = spec if spec in BUNDLED else str(directory)
    elif (named := named_family(spec)) is not None:
        loaded = load_named(*named, base=backbone)
        loaded.set_precision(resolve_precision(precision, device, loaded))
        record = families()[named[0]]
        about = TrainingRecord(frames=loaded.family.frames or record.frames, templates=record.templates)
        model = RecognizerModel(loaded, record=about, as_published=True)
    elif backbone is not None:
        raise UsageError(
            f"--backbone gives the backbone weights of a run, but {spec} is not a folder written by zsar train; "
            "remove --backbone."
        )
    else:
        model = RecognizerModel(load_backbone(spec, device=device, precision=precision))
    return model.to(device).eval()


def is_recognizer(spec: str) -> bool:
    """Tell whether ``spec`` names a model of zsar's own, bundled or trained, and not a plain backbone."""
    return (model_directory(spec) / "config.yaml").is_file()


def load_trainable(spec: str, *, device: str = "cpu", base: str | None = None) -> Backbone:
    """Load what modules are trained on, in fp32: a backbone, or a published model that is a CLIP like any other.

    Args:
        base: the CLIP that a published model was trained from, where it lacks parts.

    Raises:
        UsageError: as :func:`load_backbone`; or a family whose scores are its own.
    """
    named = named_family(spec)
    if named is None:
        return load_backbone(spec, device=device, precision="fp32")
    if named[0] not in TRAINABLE:
        titles = ", ".join(families()[name].title for name in TRAINABLE)
        raise UsageError(
            f"{families()[named[0]].title} is no backbone to train modules on, as its scores are its own; {titles} are."
        )
    backbone = load_named(*named, base=base).to(device)
    if not backbone.family.across_frames:
        backbone.family = None  # a CLIP under other names
    return backbone


def _load_base(run: Path, said: Description, place: str | None, device: str) -> Backbone:
    """Load the backbone that a run's modules were trained on, from where it was then or from ``place``.

    Raises:
        UsageError: it is not there, or ``place`` holds other weights. Names the run and what it needs.
    """
    named = named_family(said.backbone)
    spec = said.backbone if place is None or named else moved(said.backbone, place)
    try:
        backbone = load_trainable(spec, device=device, base=place if named else None)
    except UsageError as error:
        hint = "" if place else " If they have moved, give their path with --backbone PATH."
        raise UsageError(
            f"{run} holds only what was trained on top of {said.backbone}, and it cannot have these weights: "
            f"{error}{hint}"
        ) from error
    if said.fingerprint is not None and backbone.fingerprint() != said.fingerprint:
        raise UsageError(
            f"{spec} holds other weights (fingerprint {backbone.fingerprint()}) than those that {run} was trained "
            f"on ({said.backbone}, fingerprint {said.fingerprint}). Name these with --backbone PATH."
        )
    return backbone


def _load_directory(
    directory: Path, *, device: str, precision: str, base: str | None = None
) -> RecognizerModel:
    said = read_description(directory / "config.yaml")
    weights = directory / "model.safetensors"
    check_header(weights)
    if said.checksum is not None and checksum(weights) != said.checksum:
        raise UsageError(
            f"{weights} is not the file that its config.yaml tells of; copy the directory again."
        )
    if said.architecture is not None and base is not None:
        raise UsageError(f"{directory} includes its backbone weights; remove --backbone.")
    tensors = read_safetensors(weights)
    if said.architecture is not None:
        with for_weights(tensors, directory), offline():
            backbone = Backbone.from_config(said.architecture, preprocess=said.preprocess, spec=said.backbone)
        if said.family is not None:
            backbone.family = OpenVCLIP()
            backbone.family.name = said.family
        size = getattr(backbone.clip.visual, "image_size", backbone.preprocess.size)
        if backbone.preprocess.size != ((size, size) if isinstance(size, int) else tuple(size)):
            raise UsageError(
                f"{directory / 'config.yaml'} names two sizes of pictures; copy the directory again."
            )
        expected = None
    else:
        backbone = _load_base(directory, said, base, device)
        expected = {f"backbone.{name}" for name in backbone.state_dict()}
    with for_weights(tensors, directory):
        model = RecognizerModel(backbone, said.parts, TrainingRecord(**said.remembered))
    model.beta = said.beta
    try:
        missing, unexpected = model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    except RuntimeError as error:
        mismatch = (str(error).splitlines()[1:2] or [brief(error)])[0].strip()[:200]  # the first is a heading
        raise UsageError(f"The weights in {directory} do not fit its config.yaml: {mismatch}") from error
    missing = [name for name in missing if expected is None or name not in expected]
    if missing or unexpected:
        odd = (missing or unexpected)[0]
        raise UsageError(
            f"The weights in {directory} do not fit its config.yaml: {odd} is {'missing' if missing else 'unknown'}."
        )
    check_finite(model.state_dict(), weights)
    del tensors  # before others are made of the model's
    backbone.set_precision(resolve_precision(precision, device, backbone), fine=said.parts.separation)
    return model
