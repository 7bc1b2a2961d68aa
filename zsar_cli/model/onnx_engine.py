"""The visual tower in ONNX Runtime, which is faster than torch on a CPU.

What takes time, tracing the tower to a graph, is done once for a model's weights and kept in the cache folder.
The graph has no weights: in fp32 the runtime works on those that torch has in memory, in int8 on rounded ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zsar_cli.cache_files import cache_directory, read_file, write_file
from zsar_cli.errors import UsageError, out_of_memory
from zsar_cli.model.factory import token_count
from zsar_cli.model.weights import brief
from zsar_cli.resources import available_cores, available_memory

if TYPE_CHECKING:
    import onnx

    from zsar_cli.model.backbone import Backbone

logger = logging.getLogger(__name__)

FORMAT = 1  # of the graphs that are kept; to be raised whenever they change
HEAD = b"zsar tower 1\n"
LIMIT = 256 << 20  # bytes of a graph; without weights they have less than one
AGREEMENT = 1e-5  # with torch: the largest difference of the embedding, relative to its norm
# Loading takes about as long as it saves in some clips of 8 frames, tracing as in some twenty
LOADED_AFTER, TRACED_AFTER = 1e12, 5e12  # FLOPs
ALONE = 8  # frames of a clip, each of which a core has to itself in int8

_said: set[str] = set()


def runtime_installed() -> bool:
    """Tell whether the packages are there that the tower needs to run in ONNX Runtime."""
    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def adds_in_32_bits() -> bool:
    """Tell whether the processor adds products of int8 in 32 bits, as x86 with VNNI and Arm do; False if in doubt."""
    if platform.machine().lower() not in ("x86_64", "amd64", "x86", "i686"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def in_block(name: str) -> bool:
    """Tell by its name whether a weight is of a block whose layers int8 is for: open_clip's own, timm's ViT and PE."""
    return bool(re.search(r"\bvisual\.(transformer\.resblocks|trunk\.blocks)\.\d", name))


def has_int8_layers(visual: nn.Module) -> bool:
    """Tell whether a tower has linear layers for int8."""
    return any(
        isinstance(module, nn.Linear | nn.MultiheadAttention) and in_block(f"visual.{name}")
        for name, module in visual.named_modules()
    )


class Engine:
    """Where a backbone's visual tower runs: in torch at first, in ONNX Runtime once that has paid for being loaded."""

    def __init__(self) -> None:
        self._tower: Tower | None = None
        self._work = 0.0  # FLOPs so far
        self._fingerprint = ""
        self._wanted = True

    @classmethod
    def in_int8(cls, backbone: Backbone, fine: bool) -> Engine:
        """Load the tower with blocks that compute in int8, and free their weights in torch.

        Raises:
            UsageError: the tower has no graph.
        """
        from zsar_cli.model.onnx_graph import quantize, visual_tensors

        engine, graph, tensors = cls(), _graph(backbone), visual_tensors(backbone)
        if graph is None:
            raise UsageError(
                f"The visual tower of {backbone.spec} does not support int8; use --precision auto."
            )
        graph, rounded = quantize(graph, tensors, fine, adds_in_32_bits())
        for name in {key.rpartition(".")[0] for key in rounded}:
            del tensors[name]
            backbone.get_parameter(name.removeprefix("backbone.")).data = torch.empty(0)
        engine._tower = Tower(graph, tensors | rounded, alone=ALONE)
        return engine

    def encode(self, backbone: Backbone, pixels: Tensor, at_once: int) -> tuple[Tensor, Tensor] | None:
        """Encode frames (F, 3, H, W): embedding (F, E) and tokens (F, N, D). None where torch has to do it.

        Args:
            at_once: how many frames are computed together, where the frames of int8 are alone.
        """
        if backbone.precision == "int8" and self._tower is not None:
            return self._tower(pixels, at_once)
        if not self._wanted or torch.is_grad_enabled() or backbone.device.type != "cpu":
            return None
        if self._tower is None and not self._loaded(backbone, len(pixels)):
            return None
        if self._fingerprint != backbone.fingerprint() or self._tower is None:
            self._tower, self._work = None, 0.0
            return None
        try:
            return self._tower(pixels, at_once)
        except Exception as error:
            if out_of_memory(error):
                raise
            self._give_up(backbone, error)
            return None

    def _loaded(self, backbone: Backbone, frames: int) -> bool:
        """Load the tower once the frames are worth it, by the work that was done before."""
        before = self._work
        self._work += frames * _flops(backbone)
        if before < LOADED_AFTER or (before < TRACED_AFTER and not _known(backbone)):
            return False
        size = sum(p.numel() * p.element_size() for p in backbone.clip.visual.parameters())
        if (
            8 * size > available_memory()
        ):  # the runtime has a copy of the weights, and needs another for a moment
            self._wanted = False
            return False
        try:
            from zsar_cli.model.onnx_graph import untransposed, visual_tensors

            graph = _graph(backbone)
            self._wanted = graph is not None
            if graph is not None:
                self._tower = Tower(untransposed(graph), visual_tensors(backbone))
                self._fingerprint = backbone.fingerprint()
        except Exception as error:  # whatever the runtime does not know; torch does
            self._give_up(backbone, error)
        return self._tower is not None

    def _give_up(self, backbone: Backbone, error: Exception) -> None:
        self._tower, self._wanted = None, False
        _warn(f"The visual tower of {backbone.spec} runs in PyTorch and not in ONNX Runtime: {brief(error)}")


def _flops(backbone: Backbone) -> float:
    """Estimate what a frame takes: two for each weight and token."""
    tokens = token_count(backbone.clip.visual, backbone.preprocess.size)
    weights: int = sum(p.numel() for p in backbone.clip.visual.parameters() if p.ndim > 1)
    return 2.0 * tokens * weights


# --- the graph


def _graph(backbone: Backbone) -> onnx.ModelProto | None:
    """Read the tower's graph, without weights, from the cache folder, or make it. None where that cannot be."""
    import onnx

    path = _path(backbone)
    content = _read(path)
    if content is None:
        content = _make(backbone)
        _write(path, content)
    if not content:
        _warn(f"The visual tower of {backbone.spec} has no ONNX form and runs in PyTorch.")
        return None
    graph = onnx.load_model_from_string(content)
    (grid,) = (json.loads(said.value) for said in graph.metadata_props if said.key == "grid")
    backbone._patch_grid = tuple(grid)  # which torch's tower tells when it runs
    return graph


def _make(backbone: Backbone) -> bytes:
    """Trace the tower and compare it with torch; empty where it has no graph, or one with other answers."""
    from zsar_cli.model.onnx_graph import trace_visual, visual_tensors

    with torch.inference_mode(False), torch.no_grad():
        try:
            graph = trace_visual(backbone, weights=False)
        except UsageError as error:
            logger.info("%s", error)
            return b""
        grid = graph.metadata_props.add()
        grid.key, grid.value = "grid", json.dumps(backbone.patch_grid)
        content: bytes = graph.SerializeToString()
        frame = torch.randn(1, 3, *backbone.preprocess.size, generator=torch.Generator().manual_seed(0))
        expected = backbone._encode_frames(frame)
        found = Tower(graph, visual_tensors(backbone))(frame)
    for ours, theirs in zip(found, (expected.embedding, expected.tokens), strict=True):
        if ours.shape != theirs.shape or not (ours - theirs).norm() <= AGREEMENT * theirs.norm():
            logger.info("The graph of the visual tower of %s answers otherwise than torch.", backbone.spec)
            return b""
    return content


def _known(backbone: Backbone) -> bool:
    path = _path(backbone)
    return path is not None and path.is_file()


def _path(backbone: Backbone) -> Path | None:
    """Name the file by what the graph depends on: weights, size of the frames, and the versions of who made it."""
    folder = cache_directory()
    if folder is None:
        return None
    made_by = [
        FORMAT,
        backbone.preprocess.size,
        *(_version(name) for name in ("torch", "open_clip_torch", "timm")),
    ]
    mark = hashlib.sha256(repr(made_by).encode()).hexdigest()[:8]
    return folder / f"tower-{backbone.fingerprint()}-{mark}.onnx"


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _read(path: Path | None) -> bytes | None:
    """Read what was kept; None where there is nothing, or it is damaged."""
    try:
        content = b"" if path is None else bytes(read_file(path, LIMIT))
    except OSError:
        return None
    start = len(HEAD) + 4
    whole = content[:start] == HEAD + zlib.crc32(content[start:]).to_bytes(4, "little")
    return content[start:] if whole else None


def _write(path: Path | None, content: bytes) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, HEAD + zlib.crc32(content).to_bytes(4, "little") + content, path.parent)
    except OSError as error:
        _warn(
            f"The visual tower cannot be kept in {path.parent} ({error.strerror or error}); set ZSAR_CACHE_DIR to "
            "another folder."
        )


# --- the runtime


class Tower:
    """The visual tower in ONNX Runtime.

    Args:
        alone: how many frames are computed at the same time, each for itself; 0: all together.
    """

    def __init__(self, graph: onnx.ModelProto, tensors: dict[str, Tensor], *, alone: int = 0) -> None:
        import onnxruntime

        from zsar_cli.model.onnx_graph import with_weights

        cores = min(torch.get_num_threads(), available_cores())
        self.alone = min(alone, cores)
        graph, self._weights = with_weights(graph, tensors)  # the runtime reads these arrays
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, cores - self.alone + 1) if alone else cores
        options.log_severity_level = 3
        # Threads that wait for work sleep: others need the core more (docs/performance.md)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not alone:  # packed weights are a second copy, and save little with several frames at once
            options.add_session_config_entry("session.disable_prepacking", "1")
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._weights.values()]
        options.add_external_initializers(list(self._weights), values)
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, pixels: Tensor, at_once: int = 1) -> tuple[Tensor, Tensor]:
        """Encode frames (F, 3, H, W): embedding (F, E) and tokens (F, N, D)."""
        if self.alone:
            with ThreadPoolExecutor(self.alone) as pool:
                parts = list(pool.map(self._run, pixels.split(1)))
        else:
            parts = [self._run(part) for part in pixels.split(at_once)]
        embeddings, tokens = zip(*parts, strict=True)
        return (torch.cat(embeddings), torch.cat(tokens)) if len(parts) > 1 else parts[0]

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        try:
            embedding, tokens = self._session.run(
                None, {"pixels": pixels.detach().float().contiguous().numpy()}
            )
        except Exception as error:
            if "alloc" in str(error):  # the runtime's own kinds of error all derive from this one
                raise RuntimeError(f"out of memory: {brief(error)}") from error
            raise
        return torch.from_numpy(embedding), torch.from_numpy(tokens)


def _warn(message: str) -> None:
    """Warn once a process: a model may be loaded several times."""
    if message not in _said:
        _said.add(message)
        logger.warning("%s", message)
