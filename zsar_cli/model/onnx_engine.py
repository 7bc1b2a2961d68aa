"""The visual tower in ONNX Runtime, which is faster than torch on a CPU.

What takes time, tracing the tower to a graph, is done once for a model's weights and kept in the cache folder.
The graph has no weights: in fp32 the runtime works on those that torch has in memory, in int8 on rounded ones.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zsar_cli.cache_files import cache_directory, read_file, write_file
from zsar_cli.errors import UsageError
from zsar_cli.model.weights import brief
from zsar_cli.resources import available_cores

if TYPE_CHECKING:
    import onnx

    from zsar_cli.model.backbone import Backbone

logger = logging.getLogger(__name__)

FORMAT = 1  # of the graphs that are kept; to be raised whenever they change
HEAD = b"zsar tower 1\n"
LIMIT = 256 << 20  # bytes of a graph; without weights they have less than one
AGREEMENT = 1e-5  # with torch: the largest difference of the embedding, relative to its norm
ALONE = 8  # frames of a clip, each of which a core has to itself in int8

_said: set[str] = set()


def runtime_installed() -> bool:
    """Tell whether the packages are there that the tower needs to run in ONNX Runtime."""
    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def exported(backbone: Backbone) -> bool:
    """Tell whether the tower's graph is in the cache folder, or what is known of it: that it cannot be made."""
    path = _path(backbone)
    return path is not None and path.is_file()


def load_fp32(backbone: Backbone) -> Tower | None:
    """Load the tower as torch has it; None, said once, where that cannot be.

    The runtime reads the weights where torch has them: they must stay as they are.
    """
    try:
        from zsar_cli.model.onnx_graph import visual_tensors

        graph = _graph(backbone)
        return None if graph is None else Tower(graph, visual_tensors(backbone))
    except Exception as error:  # whatever the runtime does not know; torch does
        _warn(f"The visual tower of {backbone.spec} runs in PyTorch and not in ONNX Runtime: {brief(error)}")
        return None


def load_int8(backbone: Backbone, fine: bool) -> Tower:
    """Load the tower with blocks that compute in int8, and free their weights in torch.

    Raises:
        UsageError: the tower has no graph, or no linear layers in blocks.
    """
    from zsar_cli.model.onnx_graph import quantize, visual_tensors

    graph, tensors = _graph(backbone), visual_tensors(backbone)
    graph, rounded = (None, {}) if graph is None else quantize(graph, tensors, fine)
    if graph is None or not rounded:
        raise UsageError(f"The visual tower of {backbone.spec} does not support int8; use --precision auto.")
    tower = Tower(graph, tensors | rounded, alone=ALONE)
    for name in {key.rpartition(".")[0] for key in rounded}:
        tensors[name].set_(torch.empty(0))  # type: ignore[call-overload]
    return tower


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
    return onnx.load_model_from_string(content)


def _make(backbone: Backbone) -> bytes:
    """Trace the tower and compare it with torch; empty where it has no graph, or one with other answers."""
    from zsar_cli.model.onnx_graph import trace_visual, visual_tensors

    with torch.inference_mode(False), torch.no_grad():
        try:
            graph = trace_visual(backbone, weights=False)
        except UsageError as error:
            logger.info("%s", error)
            return b""
        content: bytes = graph.SerializeToString()
        frame = torch.randn(1, 3, *backbone.preprocess.size, generator=torch.Generator().manual_seed(0))
        expected = backbone._encode_frames(frame)
        found = Tower(graph, visual_tensors(backbone))(frame)
    for ours, theirs in zip(found, (expected.embedding, expected.tokens), strict=True):
        if ours.shape != theirs.shape or not (ours - theirs).norm() <= AGREEMENT * theirs.norm():
            logger.info("The graph of the visual tower of %s answers otherwise than torch.", backbone.spec)
            return b""
    return content


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

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode frames (F, 3, H, W): embedding (F, E) and tokens (F, N, D)."""
        if not self.alone:
            return self._run(pixels)
        with ThreadPoolExecutor(self.alone) as pool:
            embeddings, tokens = zip(*pool.map(self._run, pixels.split(1)), strict=True)
        return torch.cat(embeddings), torch.cat(tokens)

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        embedding, tokens = self._session.run(None, {"pixels": pixels.detach().float().contiguous().numpy()})
        return torch.from_numpy(embedding), torch.from_numpy(tokens)


def _warn(message: str) -> None:
    """Warn once a process: a model may be loaded several times."""
    if message not in _said:
        _said.add(message)
        logger.warning("%s", message)
