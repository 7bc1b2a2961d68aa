"""Every command line and every Python block of README and docs is run.

A comment before a block marks what cannot be run here: ``<!-- run: no, WHY -->`` or ``<!-- run: slow -->``. A tiny
random model stands in for the default one, which would be downloaded; those of motion-tiny need it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from PIL import Image

from benchmarks.tree import tree
from tests.conftest import REPOSITORY
from tests.video_files import numbered_frame, write_video
from zsar_cli.cli.app import LazyCommands, _flags_first

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BUNDLED = REPOSITORY / "zsar_cli" / "assets" / "motion-tiny" / "model.safetensors"
BLOCK = re.compile(
    r"(?:<!-- run: (?P<mark>[^>]*?) -->\n)?^```(?P<kind>console|python)\n(?P<text>.*?)^```", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    page: str
    number: int
    kind: str
    mark: str
    text: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), start=1):
            found.append(Block(page.name, number, match["kind"], match["mark"] or "", match["text"]))
    return found


def parameters() -> list:
    found = []
    for block in blocks():
        marks = [pytest.mark.slow] if block.mark.startswith("slow") else []
        if block.mark.startswith("no"):
            marks.append(pytest.mark.skip(reason=block.mark))
        if "motion-tiny" in block.text and not ("--dry-run" in block.text or "zsar train" in block.text):
            marks.append(pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled model is not here"))
        found.append(pytest.param(block, id=f"{block.page}-{block.number}", marks=marks))
    return found


# motion-shapes has 320 clips of a class to train with, and up to 24 to test with
FEW_CLIPS = """
import sys
from tests.few_shapes import use_few_clips
from zsar_cli.cli.app import main

use_few_clips(setattr, train=5, test=1)
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory, tiny_clip_dir, server) -> tuple[Path, dict[str, str]]:
    """A folder with the files that the pages speak of, and an environment in which ``zsar`` is this code."""
    folder = tmp_path_factory.mktemp("desk")
    write_video(folder / "video.mp4", 60)
    (folder / "clips").mkdir()
    for name in ("one.mp4", "two.mp4"):
        write_video(folder / "clips" / name, 10)
    (folder / "frames").mkdir()
    for number in range(4):
        Image.fromarray(numbered_frame(number)).save(folder / "frames" / f"{number}.png")
    (folder / "labels.txt").write_text("arm wrestling\nplaying chess\n")
    (folder / "mine.yaml").write_text("name: mine\npositive: ['a video of {}']\nnegative: ['no {}']\n")
    (folder / "phrases.yaml").write_text(
        "drinking: [drinking from a glass, a sip]\npouring: [pouring water]\n"
    )
    (folder / "bin").mkdir()
    shim = folder / "bin" / "zsar"
    client = REPOSITORY / "tests" / "forked.py"
    few_clips = folder / "bin" / "few_clips.py"
    few_clips.write_text(FEW_CLIPS)
    shim.write_text(
        f'#!/bin/sh\ncase $1 in *.py) ;; *) set -- "{few_clips}" "$@";; esac\n'
        f'exec "{sys.executable}" -S "{client}" "{server.place}" "$@"\n'
    )
    shim.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "ZSAR_MODEL": str(tiny_clip_dir),
        "ZSAR_CACHE_DIR": str(folder / "cache"),
        "ZSAR_WORKERS": "1",
        "ZSAR_DEVICE": "cpu",
    }
    return folder, environment


@pytest.mark.parametrize("block", parameters())
def test_what_the_pages_say_works(block: Block, desk):
    folder, environment = desk
    if block.kind == "python":
        script = folder / "script.py"
        script.write_text(block.text)
        commands = ["zsar script.py"]  # as python script.py
    else:
        joined = block.text.replace("\\\n", " ")
        commands = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        assert commands, "a console block without a command"
    for command in commands:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=230, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}"


def test_pages_link_to_files_that_are_there():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


EXAMPLES = sorted((REPOSITORY / "docs" / "examples").iterdir())


@pytest.mark.parametrize(
    "page", [*EXAMPLES, REPOSITORY / "docs" / "distributed.md"], ids=lambda path: path.name
)
def test_examples_of_clusters_are_sound(page: Path):
    """YAML and Python parse, shells find no error, and ``zsar`` takes each of the commands."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".yaml":
        yaml.safe_load(text)
    elif page.suffix == ".py":
        compile(text, str(page), "exec")
    elif page.suffix == ".sh":
        assert subprocess.run(["bash", "-n", page], check=False).returncode == 0
    commands = re.findall(r"\bzsar ((?:predict|eval|train) [^#`|\n\"]+)", text.replace("\\\n", " "))
    assert commands or page.suffix == ".py"
    for command in commands:
        name, *arguments = _flags_first(shlex.split(command.strip()))
        LazyCommands().get_command(None, name).make_context(name, arguments)


def test_the_tree_has_each_file_with_its_docstring():
    assert tree() in (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_pages_have_commands_and_code():
    kinds = [block.kind for block in blocks() if not block.mark]
    assert kinds.count("console") > 8
    assert kinds.count("python") >= 4
