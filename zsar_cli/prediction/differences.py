"""What two runs were made with that is not the same, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def difference(
    before: dict[str, Any], now: dict[str, Any], ignored: Sequence[str] = (), *, here: str = "this run"
) -> str | None:
    """Describe what two runs were made with that is not the same; None where all is. ``here``: the second one."""
    theirs, ours = dict(_flat(before)), dict(_flat(now))
    changed = [k for k in {**theirs, **ours} if k not in ignored and theirs.get(k) != ours.get(k)]
    if "weights" in changed and len({str(theirs.get("model")), str(ours.get("model"))}) == 2:
        changed[changed.index("weights")] = "model"  # by its name
    told = list(dict.fromkeys(_told(key, theirs.get(key), ours.get(key), here) for key in changed))
    more = f", and {len(told) - 3} more that differ" if len(told) > 3 else ""
    return (", ".join(told[:3]) + more) or None


def _flat(settings: dict[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{name}{key} ")
        else:
            yield f"{name}{key}", value


_NAMES = {"zsar": "version", "labels count": "number of labels"}
_OPTIONS = (
    *(
        "frames",
        "views",
        "crops",
        "window",
        "stride",
        "shots",
        "min_confidence",
        "multi",
        "embeddings",
        "top_k",
        "precision",
        "decoder",
        "seed",
        "fps",
    ),
    *("lr", "steps", "model"),
)


def _told(key: str, before: Any, now: Any, here: str) -> str:
    last = key.split()[-1]
    name = _NAMES.get(key) or (
        f"--{last.replace('_', '-')}" if last in _OPTIONS else f"{key:.80}".replace("_", " ")
    )
    plain = all(value is None or isinstance(value, (str, int, float)) for value in (before, now))
    if "hash" in key or key == "weights" or not plain:
        return f"other {name.removesuffix(' hash')} than {here}'s"
    then, since = (f"no {name}" if value is None else f"{name} {value!s:.80}" for value in (before, now))
    return f"{then} ({here} has {since})"
