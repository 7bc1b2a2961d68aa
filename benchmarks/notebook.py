"""The notebook of docs/python.md, run: what its cells give, printed, and its card as docs/images/notebook.png.

``python -m benchmarks.notebook``; needs pandas, and Chromium for the picture.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "python.md"
PICTURE = ROOT / "docs" / "images" / "notebook.png"
SECTION = re.compile(r"^## In a notebook\n(.*?)^## ", re.M | re.S)
CELL = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def run(cell: str, names: dict[str, Any]) -> Any:
    """The value of a cell's last line, as a notebook shows it; None where that is no expression."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def draw(html: str) -> None:
    """A card as a browser shows it, cut to its size."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print(f"(no Chromium here: {PICTURE.name} stays as it is)")
        return
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "card.html", Path(folder) / "card.png"
        page.write_text(f"<!doctype html><meta charset=utf-8><body style='margin:8px;width:760px'>{html}")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1.5"]
        command = [browser, *options, "--window-size=780,400", f"--screenshot={shot}", str(page)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        with Image.open(shot) as image:
            drawn = ImageChops.difference(
                image.convert("RGB"), Image.new("RGB", image.size, "white")
            ).getbbox()
            image.convert("RGB").crop(drawn).save(PICTURE, optimize=True)


def main() -> None:
    """Run the cells in order, in the repository's folder."""
    os.chdir(ROOT)
    section = SECTION.search(PAGE.read_text(encoding="utf-8"))
    assert section is not None
    names: dict[str, Any] = {}
    for number, cell in enumerate(CELL.findall(section[1]), start=1):
        value = run(cell, names)
        if value is not None:
            shown = value.to_string() if hasattr(value, "to_string") else repr(value)  # tables whole
            print(f"Out[{number}]:\n{shown}\n")
        if type(value).__name__ == "Prediction":
            draw(value._repr_html_())


if __name__ == "__main__":
    main()
