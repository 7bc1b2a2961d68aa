"""What meets in an operator lies on one device, in precisions that every device has, and few results are waited for.

No GPU is needed: under PyTorch's FakeTensorMode tensors have a device and a shape but no values, nothing is computed,
and each operator checks that its inputs share a device. The device ``lazy`` stands in for ``cuda`` and ``mps``: this
build of torch knows it, and unlike theirs its backward pass needs no driver.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from tests.tiny_models import LAYOUTS, LettersTokenizer
from zsar_cli.evaluation import inference
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.parts import PLAIN, Parts
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.prediction.clips import answer_clips
from zsar_cli.text.embeddings import PromptEmbeddings
from zsar_cli.text.templates import Templates
from zsar_cli.training.data import Batch
from zsar_cli.training.recipe import Recipe, load_recipe
from zsar_cli.training.trainer import Trainer
from zsar_cli.video.pool import Clip
from zsar_cli.video.times import VideoInfo

try:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv
except ImportError:  # private: another version of torch may have it elsewhere, or not at all
    pytest.skip("this version of torch has no FakeTensorMode", allow_module_level=True)

STAND_IN = "lazy:0"
READS_A_BATCH, READS_A_STEP = 1, 1  # how often the host may wait for a result
LABELS = ("walking", "running", "jumping")
TEMPLATES = Templates("tiny", ("a video of {}",), ("no {}",))
SMALL = Parts(width=16, queries=2, layers=1, heads=2)
LAYOUTS = {**LAYOUTS, "motion-tiny": load_recipe("shapes").architecture}
TOWERS = ("vit", "pe", "siglip", "motion-tiny")
NUMBERS = {torch.bool: np.bool_, torch.int64: np.int64, torch.float32: np.float32, torch.float64: np.float64}
aten = torch.ops.aten


class Watch(TorchDispatchMode):
    """Notes what an accelerator would wait for or could not do, and goes on with made-up values."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()  # by their places in zsar_cli
        self.doubles: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            self.read(args[0])
            known = args[0].constant  # of a number that was just written down
            return NUMBERS[args[0].dtype](on_stand_in(args[0])).item() if known is None else known.item()
        mask = args[1][0] if func is aten.index.Tensor else None
        if mask is not None and mask.dtype == torch.bool:
            self.read(args[0])  # how many are taken, only the device knows; here: all
            return args[0].new_empty((mask.numel(), *args[0].shape[mask.ndim :]))
        found = func(*args, **(kwargs or {}))
        for tensor in tree_iter(found):
            if isinstance(tensor, Tensor) and on_stand_in(tensor) and tensor.dtype == torch.float64:
                self.doubles.add(place())
        if func in (aten._to_copy.default, aten.copy_.default) and not on_stand_in(found):
            self.read(args[-1])
        return found

    def read(self, tensor: Tensor) -> None:
        if on_stand_in(tensor):
            self.reads[place()] += 1


def on_stand_in(tensor: Any) -> bool:
    return bool(tensor.device.type != "cpu")


def place() -> str:
    """The innermost line of the package that is at work."""
    frames = [f for f in traceback.extract_stack() if "/zsar_cli/" in f.filename.replace("\\", "/")]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "elsewhere"


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which nothing is computed; it gives what was seen."""

    def values(tensor: Tensor) -> np.ndarray:
        assert not on_stand_in(tensor), "a GPU's tensor has no numpy()"
        return np.zeros(tuple(tensor.shape), NUMBERS[tensor.dtype])

    @contextmanager
    def watched() -> Iterator[Watch]:
        with monkeypatch.context() as patch:
            inference_mode = torch.inference_mode  # would hide operators from what watches them
            patch.setattr(
                torch, "inference_mode", lambda on=True: torch.no_grad() if on else inference_mode(on)
            )
            patch.setattr(Tensor, "numpy", values)
            patch.setattr(nn.Module, "to", move)
            tolist = FakeTensor.tolist  # reads number by number
            patch.setattr(FakeTensor, "tolist", lambda tensor: tolist(tensor.cpu()))
            with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()), Watch() as watch:
                yield watch

    return watched


def make_model(tower: str, parts: Parts) -> RecognizerModel:
    config = LAYOUTS[tower]
    one_layer = {} if "timm_model_name" in config["vision_cfg"] else {"layers": 1}
    backbone = Backbone.from_config({**config, "vision_cfg": config["vision_cfg"] | one_layer})
    backbone.tokenizer = LettersTokenizer(backbone.context_length)
    return RecognizerModel(backbone, parts).eval()


def move(model: nn.Module, device: Any = STAND_IN) -> Any:
    """Do what ``Module.to`` does, which fails for fake tensors: nothing moves but parameters and buffers."""
    for part in model.modules():
        for name, p in part._parameters.items():
            if p is not None:
                empty = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device=device)
                part._parameters[name] = nn.Parameter(empty, requires_grad=p.requires_grad)
        for name, b in part._buffers.items():
            if b is not None:
                part._buffers[name] = torch.empty_strided(b.shape, b.stride(), dtype=b.dtype, device=device)
    return model


def text_of(model: RecognizerModel) -> PromptEmbeddings:
    with torch.no_grad():
        found = model.backbone.encode_text(LABELS)
    bank = torch.empty(20, model.backbone.embed_dim, device=STAND_IN)
    negative = {"negative": found} if model.uses_negatives else {"bank": bank}
    return PromptEmbeddings(list(LABELS), found, **negative)


def two_clips(model: RecognizerModel) -> list[tuple[None, Clip]]:
    pixels = np.zeros((2, 4, *model.preprocess.size, 3), np.uint8)
    return [(None, Clip(pixels, np.zeros((2, 4)), np.zeros((2, 4)), VideoInfo(1.0, 8, 8, 8, 8.0)))] * 2


@pytest.mark.parametrize("parts", [PLAIN, SMALL], ids=["plain", "method"])
@pytest.mark.parametrize("tower", TOWERS)
def test_all_stays_on_the_device_and_the_host_waits_once(tower, parts, accelerator, tmp_path):
    model = make_model(tower, parts)
    with accelerator() as seen:
        text = text_of(move(model))
        text.rivals(model)  # once for all batches
        seen.reads.clear()
        assert len(answer_clips(model, two_clips(model), text)) == 2
        assert seen.reads.total() <= READS_A_BATCH, seen.reads
        seen.reads.clear()
        orders = evaluate(model, text)
        assert seen.reads.total() <= orders * READS_A_BATCH, seen.reads
        if parts.separation:
            run = one_step(model, tmp_path)
            seen.reads.clear()
            run.run()
            assert run.step == 1
            assert all(str(p.device) == STAND_IN for p in model.parameters())
            assert seen.reads.total() <= READS_A_STEP, seen.reads
        assert not seen.doubles  # MPS has none


def evaluate(model: RecognizerModel, text: PromptEmbeddings) -> int:
    """Make the records of two videos; in how many orders of their frames."""
    options = inference.Options(frames=4, views=2, probe_motion=model.msm is not None)
    numbered = [(number, *pair) for number, pair in enumerate(two_clips(model))]
    embedding = inference._embed_videos(model, numbered, options, None)
    assert len(inference._score_probed(model, embedding, [0, 1], text)) == 2
    return embedding.shape[1]


def one_step(model: RecognizerModel, folder: Path) -> Trainer:
    recipe = Recipe(frames=2, steps=1, batch_size=2, precision="fp32", parts=SMALL)
    pixels = torch.zeros(2, 2, *model.preprocess.size, 3, dtype=torch.uint8)
    batch = Batch(0, 0, pixels, torch.arange(2))
    run = Trainer(model, recipe, LABELS, TEMPLATES, lambda _: iter([batch]), 1, folder, STAND_IN)
    run.save_checkpoint = lambda: None  # type: ignore[method-assign]
    return run
