"""What a finished training run leaves to look at."""

from __future__ import annotations

import builtins
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from zsar_cli.cli import console
from zsar_cli.run_log import NOTE
from zsar_cli.training.train import draw_curves

HISTORY = [
    *({"step": s, "total": 2 / s, "pos": 1 / s, "lr": 1e-4, "module_lr": 1e-3} for s in range(1, 9)),
    {"step": 8, "held_out_top1": 0.5},
]


def test_curves_are_drawn(tmp_path):
    draw_curves(HISTORY, tmp_path)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width == 1200
    draw_curves([], tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_run_does_not_fail_for_want_of_matplotlib(tmp_path, monkeypatch, caplog):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with caplog.at_level(NOTE):
        draw_curves(HISTORY, tmp_path)
    assert "matplotlib" in caplog.text
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    ("validation", "command"), [({"seen": 0.9, "unseen": 0.6}, "zsar eval"), ({}, "zsar predict")]
)
def test_the_end_says_how_good_it_is_and_what_to_do_next(tmp_path, capsys, validation, command):
    summary = SimpleNamespace(
        **{"steps": 8, "seconds": 3.0, "loss": 0.25, "best": 0.5, "best_step": 8, "data_wait": 1.2},
        **{"validation": validation, "baselines": None},
    )
    console.train_summary(summary, tmp_path / "my run")
    said = capsys.readouterr()
    assert not said.out
    assert "0.250" in said.err
    assert "in 3 s (1.2 s waiting for clips)" in said.err
    assert "50.0%" in said.err
    assert all(f"{value:.1%}" in said.err for value in validation.values())
    assert f"{command} " in said.err.split("Next:")[1]
    assert f"'{tmp_path / 'my run'}'" in said.err  # can be pasted


def test_lines_beside_the_bar_stay_as_they_are(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = sys.stderr
    with console.training_progress() as progress:
        assert sys.stderr is stream  # in Rich's place, what erases a line would be shown
        with console.status("Waiting ..."):
            console.note("a line")
        row = {"step": 1, "seconds": 1.0, "data_wait": 0.0, "module_lr": 1e-3, "total": 0.5, "pos": 0.25}
        progress(row, 4)
    assert "a line" in capsys.readouterr().err


def test_a_line_of_progress_says_how_long_the_model_waited_for_clips(capsys):
    row = {"step": 1, "seconds": 2.0, "data_wait": 0.05, "lr": 1e-5, "module_lr": 1e-3, "total": 0.5}
    with console.training_progress() as progress:
        progress(row, 2)
        progress({**row, "step": 2, "data_wait": 1.5}, 2)
    first, second = capsys.readouterr().err.splitlines()
    assert "2.00 s/step, " in first
    assert "2.00 s/step (1.5 s waiting for clips), " in second
