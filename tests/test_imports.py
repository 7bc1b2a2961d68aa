"""Modules import what stands below them (docs/architecture.md), and none imports itself through others."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from functools import cache

from tests.sources import PACKAGE, trees

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
# A package may import what stands below it; the other modules on top, such as errors.py, are below all of them.
ORDER = [
    *(
        "__main__",
        "cli",
        "cluster",
        "__init__",
        "batch",
        "recognizer",
        "training",
        "evaluation",
        "prediction",
    ),
    *("export", "features", "data", "text", "model", "video"),
]


def imports(module: str, nodes: list[ast.stmt], inside: bool = False) -> Iterator[tuple[str, bool]]:
    """The package's modules that these statements import, and whether a function does so when it is called."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "zsar_cli":
            source = f"{node.module}."
            names = [source + alias.name for alias in node.names] + [source]
            found = [name.partition(".")[2].rstrip(".") for name in names]
            yield from ((name, inside) for name in found if name in MODULES and name != module)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue  # never runs
        inner = inside or isinstance(node, ast.FunctionDef)
        for field in ("body", "orelse", "finalbody", "handlers"):
            yield from imports(module, getattr(node, field, []), inner)


@cache
def all_imports() -> dict[str, list[tuple[str, bool]]]:
    return {name: [*imports(name, trees()[path].body)] for name, path in MODULES.items()}


def layer(module: str) -> int:
    package = module.partition(".")[0]
    return ORDER.index(package) if package in ORDER else len(ORDER)


def test_imports_point_one_way():
    upwards = [(a, b) for a, found in all_imports().items() for b, _ in found if layer(b) < layer(a)]
    assert not upwards


def test_no_module_imports_itself_through_others():
    at_import = {
        name: [other for other, inside in found if not inside] for name, found in all_imports().items()
    }
    graphlib.TopologicalSorter(at_import).prepare()  # CycleError names them


def test_imports_are_seen():
    assert ("model.motion", False) in all_imports()["model.zsar"]
    assert ("cli.console", True) in all_imports()["cli.output.sink"]
