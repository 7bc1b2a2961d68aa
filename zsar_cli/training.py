"""Training: a recipe, a stream of batches, the losses, and a loop that can be stopped at any moment and resumed.

Everything random (order of the clips, sampling, augmentation, prompt templates) is a function of the seed and
of the step or the epoch, so a run that is killed and resumed ends in the very weights of one that was not.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zsar_cli.batches import Batch, Stream
from zsar_cli.errors import UsageError
from zsar_cli.feature_cache import to_device
from zsar_cli.model.alignment import keep_loss, negative_loss, opposition_loss, positive_loss
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.motion import separation_loss
from zsar_cli.model.recognizer import RecognizerModel, Record
from zsar_cli.prompts import Templates
from zsar_cli.recipe import Recipe
from zsar_cli.video.transforms import normalise

logger = logging.getLogger(__name__)


def total_steps(count: int, recipe: Recipe) -> int:
    """How many optimiser steps a run over ``count`` clips takes."""
    if recipe.steps is not None:
        return recipe.steps
    return max(1, math.ceil(count * recipe.epochs / (recipe.batch_size * recipe.accumulate)))


# --- losses --------------------------------------------------------------------------------------------------


def draw_templates(templates: Templates, step: int, seed: int) -> tuple[str, str]:
    """The positive and the negative template of a step."""
    rng = np.random.default_rng([seed, step, 7])
    positive = templates.positive[rng.integers(len(templates.positive))]
    return positive, templates.negative[rng.integers(len(templates.negative))]


def fill_template(template: str, labels: Sequence[str]) -> list[str]:
    """The template with each label in its place."""
    return [template.replace("{}", label) for label in labels]


def losses(
    model: RecognizerModel,
    clips: Tensor | FrameFeatures,
    target: Tensor,
    positive: Tensor,
    negative: Tensor | None,
    recipe: Recipe,
    frozen: Tensor | None = None,
) -> dict[str, Tensor]:
    """The terms of the loss for one batch, by name; ``total`` is their weighted sum.

    Args:
        clips: normalised pixels (B, T, 3, H, W), or their features from the visual tower.
        target: (B,) class indices.
        positive, negative: (C, E) of unit length.
        frozen: (B, E) embeddings of the pretrained CLIP, for L_keep.
    """
    encoding = model.encode_video(clips) if isinstance(clips, FrameFeatures) else model(clips)
    similarity = encoding.embedding @ positive.T
    terms = {"pos": positive_loss(model.log_scale.exp() * similarity, target, recipe.smoothing)}
    total = terms["pos"]
    if model.uses_negatives and negative is not None:
        moved = model.align_negatives(positive, negative)
        margin = model.log_negative_scale.exp() * (similarity - encoding.embedding @ moved.T) + model.offset
        terms["neg"] = negative_loss(margin, target)
        total = total + recipe.w_neg * terms["neg"]
        if model.adapter is not None:
            terms["opp"] = opposition_loss(positive, moved)
            total = total + recipe.w_opp * terms["opp"]
    if encoding.motion is not None and encoding.static is not None and encoding.refined is not None:
        terms["dis"] = separation_loss(encoding.motion, encoding.static)
        if model.mab is not None:
            terms["dis"] = 0.5 * (terms["dis"] + separation_loss(encoding.refined, encoding.static))
        total = total + recipe.w_dis * terms["dis"]
    if recipe.w_keep and frozen is not None:
        terms["keep"] = keep_loss(encoding.embedding, frozen)
        total = total + recipe.w_keep * terms["keep"]
    terms["total"] = total
    return terms


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """The rate at a step as part of its peak: a linear warm-up, then half a cosine down to ``final_lr``."""
    warmup = max(1, round(steps * recipe.warmup))
    if step < warmup:
        return (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return recipe.final_lr + (1 - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * along))


def make_optimizer(model: RecognizerModel, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with separate rates for the backbone and for everything else; no decay on gains, biases and scalars."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_backbone = name.startswith("backbone.")
        parameter.requires_grad_(trainable(name, recipe))
        if parameter.requires_grad:
            rate = recipe.lr if in_backbone else recipe.module_lr
            decay = recipe.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": p, "lr": rate, "peak": rate, "weight_decay": decay}
            for (rate, decay), p in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=model.backbone.device.type in ("cpu", "cuda"),  # one pass over the weights instead of ten
    )


def trainable(name: str, recipe: Recipe) -> bool:
    """Whether a parameter of the model is trained: the backbone only with ``tune: full``.

    The backbone's own logit scale never is: the model has its own copy.
    """
    if name == "backbone.clip.logit_scale" or name == "backbone.clip.logit_bias":
        return False
    return recipe.tune == "full" or not name.startswith("backbone.")


# --- the loop ------------------------------------------------------------------------------------------------


class NonFiniteLoss(UsageError):
    """The loss became infinite or not a number."""


@dataclass
class Trainer:
    """One training run: the model, the data and where they stand."""

    model: RecognizerModel
    recipe: Recipe
    labels: Sequence[str]
    templates: Templates
    stream: Stream
    steps: int
    directory: Path
    device: str = "cpu"
    step: int = 0

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.model, self.recipe)
        if self.recipe.gradient_checkpointing:
            self.model.backbone.set_grad_checkpointing(True)
        self.text: tuple[Tensor, Tensor | None] | None = None
        self.tokens: dict[str, Tensor] = {}  # of all labels, by template
        self.pretrained = (
            {k: v.detach().clone() for k, v in self.model.backbone.state_dict().items()}
            if self.recipe.tune == "full" and self.recipe.pretrained_weight > 0
            else None
        )

    def run(
        self,
        *,
        report: Callable[[dict[str, float]], None] = lambda row: None,
        checkpoint_every: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the last step, calling ``report`` with the loss terms of each step; ``stop`` ends early, resumably.

        Raises:
            NonFiniteLoss: with the last good checkpoint kept.
        """
        self.model.train()
        if self.recipe.tune == "modules":  # nothing of it may change, running statistics included
            self.model.backbone.eval()
        sums: dict[str, float] = {}
        batches = 0
        started = time.perf_counter()
        for batch in self.stream(self.step):
            step = batch.step
            terms = self._forward_backward(batch)
            batches += 1
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / self.recipe.accumulate
            if batches % self.recipe.accumulate:
                continue
            self._update(step)
            self.step = step + 1
            seconds = time.perf_counter() - started
            report(
                {"step": self.step, "epoch": batch.epoch, "lr": self._rate(step), "seconds": seconds, **sums}
            )
            sums, started = {}, time.perf_counter()
            ended = stop()
            if ended or self.step == self.steps or (checkpoint_every and self.step % checkpoint_every == 0):
                self.save_checkpoint()
            if ended:
                return

    def _rate(self, step: int) -> float:
        return learning_rate(step, self.steps, self.recipe)

    def _forward_backward(self, batch: Batch) -> dict[str, float]:
        clips = self._prepare(batch.clips)
        with torch.autocast(
            self.device.split(":")[0], torch.bfloat16, enabled=self.recipe.precision == "bf16"
        ):
            positive, negative = self._encode_prompts(batch.step)
            terms = losses(self.model, clips, batch.target.to(self.device), positive, negative, self.recipe)
        if not torch.isfinite(terms["total"]):
            raise NonFiniteLoss(
                f"The loss became {terms['total'].item()} at step {batch.step + 1}; the last good checkpoint is kept "
                f"in {self.directory}. Try a lower learning rate, or --precision fp32."
            )
        (terms["total"] / self.recipe.accumulate).backward()
        return {name: value.item() for name, value in terms.items()}

    def _prepare(self, clips: Tensor | FrameFeatures) -> Tensor | FrameFeatures:
        device = torch.device(self.device)
        if isinstance(clips, FrameFeatures):
            return FrameFeatures(to_device(clips.embedding, device), to_device(clips.tokens, device))
        return normalise(to_device(clips, device), self.model.preprocess, torch.float32)

    def _encode_prompts(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Positive and negative text embeddings of all labels; computed once where the text tower is frozen.

        Negatives are read without gradient: what they learn, the adapter learns, and it is shared by all classes.
        """
        encode = self.model.backbone.encode_text
        if self.recipe.tune != "full":
            if self.text is None:
                from zsar_cli.prompts import Labels, embed_prompts

                labels = Labels(tuple(self.labels), tuple((x,) for x in self.labels))
                prompts = embed_prompts(
                    encode,
                    labels,
                    self.templates,
                    negatives=self.model.uses_negatives,
                    cache=None,
                    model_id=self.model.name,
                )
                negative = prompts.negative.to(self.device) if prompts.negative is not None else None
                self.text = (prompts.positive.to(self.device), negative)
            return self.text
        yes, no = draw_templates(self.templates, step, self.recipe.seed)
        if not self.model.uses_negatives:
            return self._encode_labels(yes), None
        with torch.no_grad():
            against = self._encode_labels(no)
        return self._encode_labels(yes), against

    def _encode_labels(self, template: str) -> Tensor:
        """All labels in one template, (C, E); their tokens are kept."""
        if template not in self.tokens:
            self.tokens[template] = self.model.backbone.tokenize(fill_template(template, self.labels))
        return self.model.backbone.encode_tokens(self.tokens[template])

    def _update(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._rate(step)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.log_scale.clamp_(max=math.log(100.0))

    # --- checkpoints

    def save_checkpoint(self) -> Path:
        """Write ``checkpoints/step-N`` whole or not at all, then drop the older ones."""
        folder = self.directory / "checkpoints"
        final, aside = folder / f"step-{self.step:08d}", folder / f".step-{self.step:08d}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        self.model.record = self.make_record()
        self.model.save(aside, backbone=self.recipe.tune == "full")
        save_file(_optimizer_tensors(self.model, self.optimizer), aside / "optimizer.safetensors")
        (aside / "state.json").write_text(json.dumps({"step": self.step}))
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        for old in sorted(folder.glob("step-*"))[:-2]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def resume(self) -> bool:
        """Continue from the newest checkpoint, if there is one."""
        found = sorted((self.directory / "checkpoints").glob("step-*"))
        if not found:
            return False
        try:
            self.step = int(json.loads((found[-1] / "state.json").read_text())["step"])
            weights = load_file(found[-1] / "model.safetensors", device=self.device)
            moments = load_file(found[-1] / "optimizer.safetensors", device=self.device)
        except Exception as error:
            raise UsageError(
                f"The checkpoint {found[-1]} cannot be read ({error}); delete it to use the one before."
            ) from error
        self.model.load_state_dict(weights, strict=self.recipe.tune == "full")
        _restore_optimizer(self.model, self.optimizer, moments)
        return True

    def make_record(self) -> Record:
        """What the model should remember of this run."""
        return Record(
            templates=self.templates.name,
            frames=self.recipe.frames,
            data=self.recipe.data,
            classes=list(self.labels),
            recipe=asdict(self.recipe),
        )

    def finish(self, *, half: bool = False) -> None:
        """Interpolate towards the pretrained backbone where the recipe says so; write the model to the run's folder."""
        if self.pretrained is not None:
            interpolate(self.model.backbone, self.pretrained, self.recipe.pretrained_weight)
        self.model.beta = self.recipe.beta
        self.model.record = self.make_record()
        self.model.eval()
        self.model.save(self.directory, backbone=self.recipe.tune == "full", half=half)


@torch.no_grad()
def interpolate(module: torch.nn.Module, pretrained: dict[str, Tensor], weight: float) -> None:
    """``w <- (1 - weight) * w + weight * pretrained``, as in WiSE-FT: 0 keeps what was tuned, 1 undoes the tuning."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(pretrained[name].to(tensor), weight)


def _optimizer_tensors(model: RecognizerModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": (value if isinstance(value, Tensor) else torch.tensor(value)).contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(
    model: RecognizerModel, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        parameter, key = name.rsplit("/", 1)
        optimizer.state[parameters[parameter]][key] = value
