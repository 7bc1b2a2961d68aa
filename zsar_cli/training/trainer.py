"""The training loop, which can be stopped at any moment and resumed.

Everything random (order of the clips, sampling, augmentation, prompt templates) is a function of the seed and
of the step or the epoch, so a run that is killed and resumed ends in the very weights of one that was not.

Under torchrun each process takes its share of every batch. All classes are negatives, so each clip's loss is its
own: the gradients of the shares add up to that of the whole batch, and nothing else is exchanged.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from zsar_cli import distributed
from zsar_cli.errors import UsageError, memory_explained
from zsar_cli.model.weights import read_safetensors
from zsar_cli.model.zsar import RecognizerModel, TrainingRecord
from zsar_cli.run_log import StageTimes
from zsar_cli.text.templates import Templates
from zsar_cli.text.words import as_words
from zsar_cli.training import checkpoint
from zsar_cli.training.averaging import WeightAverage
from zsar_cli.training.checkpoint import Progress
from zsar_cli.training.data import Batch, Stream
from zsar_cli.training.losses import TERMS, make_probes
from zsar_cli.training.optimizer import learning_rate, make_optimizer, validation_interval
from zsar_cli.training.prompts import PromptEncoder, Wording
from zsar_cli.training.recipe import Recipe
from zsar_cli.training.step import Measured, StepGradient

logger = logging.getLogger(__name__)
WAITING = "waiting for clips"
BEST = "best"  # the folder of the best model, inside the run's
LEAST_SCALE = 2.0**-10  # of the loss in fp16: a gradient that still overflows is not finite
HIGHEST_SCALE = 100.0  # of the temperature, as CLIP bounds it; SigLIP starts above


class NonFiniteLossError(UsageError):
    """The loss or its gradient became infinite or not a number."""


@dataclass
class Trainer:
    """One training run: the model, the data and where they stand.

    ``whole``: files hold the backbone's weights too; without it, a loader finds them by the backbone's name.
    """

    model: RecognizerModel
    recipe: Recipe
    labels: Sequence[str]
    templates: Templates
    stream: Stream
    steps: int
    directory: Path
    device: str = "cpu"
    whole: bool = True
    data_root: str | None = None  # for the record
    micro_batch: int | None = None  # clips at once; found where it is not given
    sweep: Sequence[float] = ()  # pretrained weights that are compared at the end
    wording: Wording = field(default_factory=Wording)

    def __post_init__(self) -> None:
        recipe, backbone = self.recipe, self.model.backbone
        self.model.beta = recipe.beta  # validation asks for the answers that the released model gives
        self.highest = max(math.log(HIGHEST_SCALE), self.model.log_scale.item())
        self.progress = Progress()
        self.times = StageTimes()
        self.model.probes = make_probes(self.model) if recipe.w_dis else None
        self.optimizer = make_optimizer(self.model, recipe)
        self.pretrained = (
            deepcopy(backbone).eval().requires_grad_(False)
            if recipe.tune == "full" and (recipe.w_keep or recipe.pretrained_weight or self.sweep)
            else None
        )
        self.prompts = PromptEncoder(
            self.model, self.labels, self.templates, recipe, self.pretrained, self.wording
        )
        self.gradient = StepGradient(self.model, recipe, self.optimizer, self.pretrained, self.micro_batch)
        self.average = WeightAverage(backbone, self.pretrained, recipe, self.steps)

    @property
    def step(self) -> int:
        """Steps done."""
        return self.progress.step

    @property
    def ended(self) -> bool:
        """Tell whether the last step is done, or nothing has become better on the held-out clips for too long."""
        patience, progress = self.recipe.patience, self.progress
        waited = 0 if patience is None else patience * validation_interval(self.steps, self.recipe)
        return self.step >= self.steps or (
            progress.best_step > 0 and 0 < waited <= self.step - progress.best_step
        )

    @memory_explained("use fewer --frames, --gradient-checkpointing")
    def run(
        self,
        *,
        report: Callable[[dict[str, float]], None] = lambda row: None,
        checkpoint_every: int | None = None,
        stop: Callable[[], bool] = lambda: False,
        validate: Callable[[], float] | None = None,
    ) -> None:
        """Train to the last step, calling ``report`` with the loss terms of each step; ``stop`` ends early, resumably.

        Args:
            validate: the score of the model as it stands; the best one's weights are written to ``best/``.

        Raises:
            NonFiniteLossError: with the last good checkpoint kept.
        """
        self._training_mode()
        started = time.perf_counter()
        prompts, batches = None, 0
        if self.ended:
            return
        for batch in self.times.waiting(WAITING, self.stream(self.step)):
            prompts = prompts or self.prompts.encode(batch.step)
            batches += 1
            self.gradient.add(batch, prompts, last=batches == self.recipe.accumulate)
            if batches < self.recipe.accumulate:
                continue
            found = self.gradient.finish(prompts)
            self._update(batch.step, found)
            ended = distributed.anywhere(stop())
            report(self._row(batch, found, time.perf_counter() - started))
            prompts, batches = None, 0
            last = self.step == self.steps
            if validate is not None and (
                last or self.step % validation_interval(self.steps, self.recipe) == 0
            ):
                with self.times.measured("validation"):
                    score = self._validate(validate)
                if math.isnan(score):
                    logger.warning("none of the held-out clips can be read, so nothing chooses a best model")
                else:
                    report({"step": self.step, "held_out_top1": score})
            ended = ended or self.ended
            if ended or (checkpoint_every and self.step % checkpoint_every == 0):
                self.save_checkpoint()
            if ended:
                return
            started = time.perf_counter()

    def _training_mode(self) -> None:
        self.model.train()
        if self.recipe.tune != "full":
            self.model.backbone.eval()  # its statistics and its dropout too stay as they are

    def _row(self, batch: Batch, found: Measured, seconds: float) -> dict[str, float]:
        factor = self._rate(batch.step)
        waited = self.times.since_last(WAITING)
        row = {"step": self.step, "epoch": batch.epoch, "seconds": seconds, "data_wait": waited}
        rates = {"lr": self.recipe.lr * factor, "module_lr": self.recipe.module_lr * factor}
        measured = {
            "gradient_norm": found.norm,
            "tau": found.scale,
            "clips_per_second": found.clips / seconds,
        }
        if self.model.backbone.device.type == "cuda":
            measured["memory_gb"] = torch.cuda.max_memory_allocated(self.model.backbone.device) / 1e9
        terms = {name: value for name, value in found.terms.items() if name in self.terms}
        # fp16 leaves out a step whose gradient overflows
        return {**row, **rates, **{n: v for n, v in measured.items() if math.isfinite(v)}, **terms}

    def _rate(self, step: int) -> float:
        return learning_rate(step, self.steps, self.recipe)

    @property
    def terms(self) -> set[str]:
        """The loss terms that this run has."""
        model, recipe = self.model, self.recipe
        present = {
            "neg": model.uses_negatives,
            "opp": model.adapter is not None,
            "dis": model.probes is not None,
            "keep": recipe.w_keep > 0,
        }
        return {name for name in TERMS if present.get(name, True)}

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            kept = (
                "the last good checkpoint is kept" if checkpoint.found(self.directory) else "nothing was kept"
            )
            raise NonFiniteLossError(
                f"The {what} became {value} at step {step + 1}; {kept} in {self.directory}. "
                "Try a lower --lr and --module-lr, or --precision fp32."
            )

    def _update(self, step: int, found: Measured) -> None:
        self._check_finite("loss", found.terms["total"], step)
        scaler = self.gradient.scaler
        if scaler is None or (not math.isfinite(found.norm) and scaler.get_scale() < LEAST_SCALE):
            self._check_finite("gradient", found.norm, step)
        if found.clips:
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * self._rate(step)
            self.gradient.update()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.log_scale.clamp_(max=self.highest)
        self.progress.step = step + 1
        self.average.update(self.step)

    # --- what a run leaves behind

    def _validate(self, score: Callable[[], float]) -> float:
        with self.average.released():
            self.model.eval()
            found = score()
            better = found > self.progress.best
            # Few clips often tie; where the best model is the one released, the later of equals is taken
            if better or (self.recipe.patience is not None and found == self.progress.best):
                self.progress.best, self.progress.best_step = found, self.step
                self.write(self.directory / BEST)
        self._training_mode()
        return found

    def compare(self, score: Callable[[], float]) -> dict[float, float]:
        """Score the model with each pretrained weight of the sweep; it is left as it was."""
        found = {}
        self.model.eval()
        for weight in self.sweep:
            with self.average.released(weight):
                found[weight] = score()
        return found

    def write(self, folder: Path) -> None:
        """Write the model as it stands, with its record, for ``--model FOLDER``."""
        if distributed.rank() != 0:
            return
        self.model.record = self.make_record()
        with checkpoint.told(folder):
            self.model.save(folder, backbone=self.whole, half=self.recipe.half)

    def save_checkpoint(self) -> None:
        """Write where the run stands; one process does, and the others go on."""
        if distributed.rank() == 0:
            self.model.record = self.make_record()
            if (scaler := self.gradient.scaler) is not None:
                state = scaler.state_dict()
                self.progress.loss_scale, self.progress.growth = state["scale"], state["_growth_tracker"]
            checkpoint.save(
                self.directory, self.model, self.optimizer, self.average.mean, self.progress, self.whole
            )

    def resume(self) -> bool:
        """Continue from the newest checkpoint, if there is one. UsageError where it cannot be used."""
        newest = checkpoint.newest_step(self.directory)
        step = distributed.from_first(-1 if newest is None else newest)  # the others may see an older folder
        if step < 0:
            return False
        self.progress = checkpoint.load(
            self.directory, step, self.model, self.optimizer, self.average.mean, self.whole
        )
        if (scaler := self.gradient.scaler) is not None and self.progress.loss_scale is not None:
            told = {"scale": self.progress.loss_scale, "_growth_tracker": self.progress.growth}
            scaler.load_state_dict(scaler.state_dict() | told)
        return True

    def make_record(self) -> TrainingRecord:
        """Describe this run, for the model's ``config.yaml``."""
        score = {"held_out_top1": self.progress.best} if self.progress.best_step == self.step > 0 else {}
        return TrainingRecord(
            templates=self.templates.name,
            template_texts=self.templates.texts,
            frames=self.recipe.frames,
            clip_seconds=self.recipe.clip_seconds,
            data=self.recipe.data,
            data_root=self.data_root,
            classes=list(self.labels),
            phrases=[self.model.record.prompted.get(label, as_words(label)) for label in self.labels],
            metrics=score,
            recipe=asdict(self.recipe),
        )

    def finish(self) -> None:
        """Leave the model with its final weights, and write it to the run's folder."""
        self.average.release()
        self.model.eval()
        self.model.probes = None
        best = self.directory / BEST / "model.safetensors"
        if self.recipe.patience is not None and self.progress.best_step:
            self.model.load_state_dict(read_safetensors(best), strict=False)
            self.progress.step = self.progress.best_step
        self.write(self.directory)
