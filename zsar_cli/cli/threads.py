"""Number and waiting policy of OpenMP threads; the policy must be set before torch is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zsar_cli.resources import affinity, available_cores, useful_threads

if TYPE_CHECKING:
    from zsar_cli.model.backbone import Backbone

SPINS = "3000"  # some 20 microseconds: where nothing else runs, others are seldom longer behind
WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}  # of the user's own choice


def set_up_threads() -> None:
    """Limit threads to the cores of this process, and make them sleep at long barriers.

    OpenMP respects the affinity, but neither a container's quota nor the other processes of torchrun. By default,
    its threads spin for milliseconds at a barrier: if other work preempts one thread, the spinning ones use up the
    time that it needs.
    """
    if not WAITING & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS  # GNU's OpenMP, which comes with torch on Linux
        os.environ["KMP_BLOCKTIME"] = "0"  # Intel's and LLVM's
    cores = available_cores()
    if cores < affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def limit_threads(backbone: Backbone) -> None:
    """Use fewer threads of torch for a visual tower on the CPU that is too small to share; never more.

    Of a ViT, each weight is used once a patch, in a product and a sum. In int8 a frame has one thread anyway.
    """
    import torch

    from zsar_cli.model.factory import token_count

    if backbone.device.type != "cpu" or backbone.precision == "int8" or backbone.family is not None:
        return
    visual = backbone.clip.visual
    patches = token_count(visual, backbone.preprocess.size)
    weights = sum(weight.numel() for weight in visual.parameters())
    torch.set_num_threads(min(torch.get_num_threads(), useful_threads(2 * weights * patches)))
