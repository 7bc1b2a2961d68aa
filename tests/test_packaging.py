"""The wheel holds what the package needs."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import REPOSITORY


def test_wheel_brings_templates_assets_and_lists(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "target"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile",
         "--target", str(target), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    code = (
        "import zsar_cli, zsar_cli.text.templates as p; from zsar_cli.text.class_lists import class_names;"
        "print(zsar_cli.__file__); assert len(p.phrase_bank()) > 100; assert len(class_names('kinetics400')) == 400;"
        "assert {p.load_templates(n).name for n in p.builtin_templates()} >= {'plain', 'video', 'ssv2', 'clip28'}"
    )
    # From an empty folder, so that nothing comes from the checkout.
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(target)!r}); {code}"],
        cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout
    assert (target / "zsar_cli" / "prompt_templates" / "video.yaml").is_file()
    assert (target / "zsar_cli" / "assets" / "answers.html.j2").is_file()
    assert (target / "zsar_cli" / "assets" / "answers.js").is_file()
    assert (target / "zsar_cli" / "assets" / "recipes" / "motion-tiny.yaml").is_file()
