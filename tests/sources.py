"""The package's own source, parsed once."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import zsar_cli

PACKAGE = Path(zsar_cli.__file__).parent


@cache
def trees() -> dict[Path, ast.Module]:
    """The syntax tree of each module, by its path."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
