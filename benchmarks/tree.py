"""Put the tree of the package into docs/architecture.md: a line a file, the first of its docstring.

python -m benchmarks.tree
"""

from __future__ import annotations

import ast
from pathlib import Path

from benchmarks.readme import ROOT, replace_block

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "zsar_cli"


def main() -> None:
    """Rewrite the block of the page."""
    replace_block(PAGE, "tree", tree())


def tree() -> str:
    """List the modules of each folder, and of the folders in it, with what they say of themselves, as Markdown."""
    tables = []
    for name in ["", *sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))]:
        folder = PACKAGE / name
        files = sorted(folder.glob("*.py") if not name else folder.rglob("*.py"))
        rows = [f"| `{path.relative_to(folder)}` | {line} |" for path in files if (line := first_line(path))]
        title = f"`{name}/`" if name else "`zsar_cli/`"
        tables.append("\n".join([f"### {title}", "", "| file | |", "|---|---|", *rows]))
    return "\n\n".join(tables)


def first_line(path: Path) -> str:
    """Read the first sentence of a module's docstring; a file without code has none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    main()
