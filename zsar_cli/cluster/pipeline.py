"""The two stages of a cluster as Ray Data has them: pools of actors that grow and shrink apart from each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from zsar_cli.cluster.connect import Share
from zsar_cli.cluster.stages import Columns, Decode

Stage: TypeAlias = "Callable[[Columns], Any]"

CLIPS_AT_ONCE = 32 * 2**20  # bytes of decoded clips that go from one actor to another


@contextlib.contextmanager
def settings(ray: Any, checkpoints: Any = None) -> Iterator[None]:
    """Set how Ray Data works, for the data sets that are made in the block."""
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = CLIPS_AT_ONCE
    context.checkpoint_config = checkpoints
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        yield


def staged(ray: Any, videos: Any, decode: Decode, answer: Stage, share: Share, batch_size: int) -> Any:
    """Decode videos, and hand their clips to the actors that have a model.

    An actor that dies is started again, on another node if its own is gone; what it was given is done again.
    """
    pool, folder = ray.data.ActorPoolStrategy, os.getcwd()
    clips = videos.map_batches(
        _Actor,
        fn_constructor_args=(folder, [ray.put(decode)]),
        batch_size=batch_size,
        compute=pool(min_size=1, max_size=share.decoders),
        num_cpus=share.decoder_cpus,
    )
    return clips.map_batches(
        _Actor,
        fn_constructor_args=(folder, [ray.put(answer)]),
        batch_size=batch_size,
        compute=pool(min_size=1, max_size=share.models),
        num_cpus=share.model_cpus,
        **({"num_gpus": share.model_gpus} if share.model_gpus else {}),
    )


class _Actor:
    """Runs a stage, in the folder that the command was started in if it is there: a model may have a relative path."""

    def __init__(self, folder: str, stage: Sequence[Any]) -> None:
        import ray

        with contextlib.suppress(OSError):
            os.chdir(folder)
        self.stage: Stage = ray.get(
            stage[0]
        )  # a reference in a list: what is large is kept by the driver's node

    def __call__(self, batch: Columns) -> Any:
        return self.stage(batch)
