"""From torch's modules to graphs of ONNX. Needs the package ``onnx``, which is an extra."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli.errors import UsageError

if TYPE_CHECKING:
    import onnx

OPSET = 18  # what ONNX Runtime of 2023 runs; below, some sums and clips have other forms


def require_onnx() -> None:
    """Raise UsageError unless the packages that an export needs are installed."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"An ONNX export needs the package {' and '.join(missing)}: pip install 'zsar-cli[onnx]'."
        )


def to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]],
    name: str,
    *,
    weights: bool = True,
) -> onnx.ModelProto:
    """Trace a module that takes ``inputs`` in this order to a graph.

    The exporter is the one by tracing (TorchScript's): it takes less than a second for a small model, where the one by
    ``torch.export`` takes ten, and it is in every torch since 2.4. What a trace does not see, such as sizes that
    became plain numbers, is for the caller to find out, by running the graph.

    Args:
        free: axes of inputs and outputs whose length is not fixed, with their names.
        name: of the model, for the error.
        weights: whether the graph contains them; else each is an input, named as in ``module.state_dict()``.

    Raises:
        UsageError: the module has something that the exporter does not know.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="zsar-onnx-") as folder, _traceable():
        path = Path(folder) / "traced.onnx"
        try:
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={key: dict(axes) for key, axes in free.items()},
                opset_version=OPSET,
                dynamo=False,
                export_params=weights,
                do_constant_folding=weights,
            )
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            raise UsageError(f"{name} cannot be exported to ONNX: {reason}") from error
        return onnx.load(str(path))


@contextmanager
def _traceable() -> Iterator[None]:
    """Have torch take the operators that ONNX knows, and keep to itself what it says of tracing."""
    fast: Any = torch.backends.mha
    before, interpolate = fast.get_fastpath_enabled(), F.interpolate
    log: Any = getattr(torch._C, "_jit_set_onnx_log_enabled", lambda enabled: None)
    fast.set_fastpath_enabled(False)
    log(False)
    F.interpolate = partial(_untraced, interpolate)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        F.interpolate = interpolate
        fast.set_fastpath_enabled(before)


def _untraced(function: Callable[..., Tensor], *given: Any, **options: Any) -> Tensor:
    """Compute a constant outside of the trace: towers resize position embeddings, for which ONNX has no operator."""
    tracing: Any = torch._C
    state = tracing._get_tracing_state()
    tracing._set_tracing_state(None)
    try:
        return function(*given, **options)
    finally:
        tracing._set_tracing_state(state)
