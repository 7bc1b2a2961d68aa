"""Nothing that lies in the current folder runs in a process that zsar starts."""

from __future__ import annotations

import ast
import dataclasses
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import noisy_loads
import pytest

import zsar_cli
from tests.sources import trees
from tests.video_files import write_video
from zsar_cli.errors import VideoError
from zsar_cli.video import keeper
from zsar_cli.video.pool import ClipRequest, DecodePool
from zsar_cli.video.sampling import Sampling

NAMES = sorted(
    {*sys.stdlib_module_names, "numpy", "av", "PIL", "decord", "zsar_cli", "sitecustomize", "usercustomize"}
)
PLANTED = """
import os
with open({marker!r}, "a") as marker:
    marker.write(__name__ + "\\n")
raise ImportError("planted")
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch) -> Path:
    """A current folder with a module of every name that a worker may import; where one that ran leaves its name."""
    marker = tmp_path / "ran.txt"
    folder = tmp_path / "here"
    (folder / "zsar_cli" / "video").mkdir(parents=True)
    text = PLANTED.format(marker=str(marker))
    for name in NAMES:
        (folder / f"{name}.py").write_text(text)
    for place in ("zsar_cli", "zsar_cli/video"):
        (folder / place / "__init__.py").write_text(text)
    monkeypatch.chdir(folder)
    return marker


@pytest.mark.parametrize("entry", ["", ".", "absolute", "../here", None])
def test_a_worker_runs_no_module_of_the_current_folder(planted, entry, monkeypatch):
    entry = os.getcwd() if entry == "absolute" else entry
    if entry is not None:  # as ``python -c``, ``python -m`` and an empty entry of PYTHONPATH leave it
        monkeypatch.setattr(sys, "path", [entry, *sys.path, entry])
        monkeypatch.setenv("PYTHONPATH", entry)
    video = write_video(planted.parent / "a.mp4", 4)
    with DecodePool(1) as pool:
        ((_, clip),) = pool.imap([ClipRequest(str(video), Sampling(2))])
    assert clip.pixels.shape[1] == 2
    assert not planted.exists(), planted.read_text()


def test_python_dash_m_takes_the_current_folder_off_the_path_first(planted):
    """Python itself has imported some modules by then; SECURITY.md says so."""
    here = Path.cwd()
    for path in here.glob("*.py"):
        if path.stem in sys.stdlib_module_names:
            path.unlink()
    for path in sorted((here / "zsar_cli").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (here / "zsar_cli").rmdir()
    (here / "zsar_cli.py").unlink()
    (here / "typer.py").write_text(PLANTED.format(marker=str(planted)))
    package = Path(zsar_cli.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run(
        [sys.executable, "-m", "zsar_cli", "--version"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not planted.exists()


def test_a_package_that_was_taken_from_the_current_folder_is_found_there_last(monkeypatch):
    monkeypatch.chdir(Path(zsar_cli.__file__).parent.parent)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert keeper.module_folders()[0] != os.getcwd()
    assert keeper.module_folders()[-1] == os.getcwd()


def test_libraries_are_not_searched_in_the_current_folder(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", ":/opt/lib:.:lib::")
    assert keeper.worker_environment()["LD_LIBRARY_PATH"] == "/opt/lib"


# --- what goes through the pipe ---------------------------------------------------------------------------------


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc")
DEEDS = {
    **dict.fromkeys(("garbage", "text", "another pickle", "half", "exit"), "crashed"),
    "not to be pickled": "unreadable",
    "too much": "memory",
}


@LINUX
@pytest.mark.parametrize(("deed", "kind"), DEEDS.items())
def test_a_worker_whose_answer_makes_no_sense_costs_one_video(deed, kind):
    with DecodePool(1, timeout=20, memory_limit_mb=500, load=noisy_loads.load) as pool:
        first, bad, last = (found for _, found in pool.imap(["fine", deed, "fine"]))
        assert (first, last) == ("fine", "fine")
        assert bad.kind == kind
        streams = pool.stream([deed, "fine"], load=noisy_loads.chunks)
        with pytest.raises(VideoError) as caught:
            list(next(streams)[1])
        assert caught.value.kind == kind
        assert list(next(streams)[1]) == [0, "fine"]


def test_what_python_prints_at_its_start_is_no_answer(monkeypatch):
    monkeypatch.setattr(keeper, "BOOT", "print('hello from sitecustomize', flush=True)\n" + keeper.BOOT)
    with DecodePool(1, load=noisy_loads.load) as pool:
        assert [found for _, found in pool.imap(["fine"])] == ["fine"]


@pytest.mark.parametrize("boot", ["raise SystemExit(3)", "while True: print('x' * 1000)"])
def test_workers_that_do_not_start_are_said_so_for_each_video(boot, monkeypatch):
    monkeypatch.setattr(keeper, "BOOT", boot)
    with DecodePool(2, load=noisy_loads.load) as pool:
        found = [found for _, found in pool.imap(["fine", "fine"])]
    assert [error.kind for error in found] == ["crashed", "crashed"]
    assert all("no decoding process could be started" in error.message for error in found)


def test_a_request_that_cannot_reach_a_worker_is_the_callers_mistake(monkeypatch):
    with DecodePool(1, load=noisy_loads.load) as pool, pytest.raises(TypeError, match="pickle"):
        [found for _, found in pool.imap([threading.Lock()])]
    module = types.ModuleType("nowhere_to_be_found")
    exec("def load(request): return request", module.__dict__)
    module.load.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with DecodePool(1, load=module.load) as pool, pytest.raises(RuntimeError, match="nowhere_to_be_found"):
        [found for _, found in pool.imap(["fine"])]


def test_a_fault_of_the_thread_that_looks_after_a_worker_is_one_videos_error(monkeypatch):
    class Broken(keeper.threading.Timer):
        def start(self):
            raise RuntimeError("can't start new thread")

    with DecodePool(1, load=noisy_loads.load) as pool:
        results = pool.imap(["fine"] * 3)
        assert next(results) == ("fine", "fine")
        with monkeypatch.context() as patch:
            patch.setattr(keeper.threading, "Timer", Broken)
            _, error = next(pool.imap(["fine"]))
        assert error.kind == "crashed"
        assert [found for _, found in pool.imap(["fine"])] == ["fine"]


# --- pictures -----------------------------------------------------------------------------------------------------


def test_nobodys_settings_count_for_a_picture(monkeypatch):
    """As a ``matplotlibrc`` or a style file would have it: labels through LaTeX, whose preamble may run programs."""
    import matplotlib
    from matplotlib.texmanager import TexManager

    from tests.prediction.test_explain import evidence
    from zsar_cli import plots as pictures
    from zsar_cli.evaluation import report_figures as report
    from zsar_cli.prediction import sheets

    def latex(*arguments):
        raise AssertionError("LaTeX is started")

    for name in ("_run_checked_subprocess", "make_dvi"):
        monkeypatch.setattr(TexManager, name, classmethod(latex))
    found = evidence()
    found.labels[0] = dataclasses.replace(found.labels[0], label=r"$\frac{x$ or $y$")
    found.where[0] = dataclasses.replace(found.where[0], label=found.labels[0].label)
    part = {"reliability": {"edges": [0, 0.5, 1], "accuracy": [0.5, None]}, "ece": 0.1}
    record = {"label": r"a $\b$", "top": [[r"a $\b$", 1.0]], "unknown": {"no": 0.5}}

    def draw() -> list[bytes]:
        figures = [
            sheets.explain_sheet(found, r"a$\b$.mp4", [r"answer: $\c$"]),
            pictures.training_curves(
                [{"step": n, "total": 1.0 / n, "lr": 0.1} for n in (1, 2)], r"runs/$\d$"
            ),
            report.reliability({"parts": {r"$\e$": part}}),
            report.rejection_curves([record], [record], ["no"]),
            report.matrix([record], [r"a $\b$"]),
        ]
        return [pictures.to_png(figure) for figure in figures]

    plain = draw()
    settings = {
        "text.usetex": True,
        "savefig.dpi": 1,
        "font.size": 40,
        "axes.prop_cycle": "cycler('color', ['r'])",
    }
    with matplotlib.rc_context(settings):
        assert draw() == plain
        assert matplotlib.rcParams["text.usetex"]  # the caller's own are as they were


def test_every_figure_is_drawn_with_fixed_settings():
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name != "new_figure":
                calls = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
                if calls & {"new_figure", "Figure"} or any(call.endswith(".savefig") for call in calls):
                    assert "fixed_settings()" in map(ast.unparse, node.decorator_list), (path, node.name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in the file system")
def test_a_matplotlibrc_of_the_current_folder_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "matplotlibrc")  # whoever reads it waits for ever
    code = "from zsar_cli.plots import require_matplotlib; require_matplotlib()"
    environment = {**os.environ, "PYTHONPATH": str(Path(zsar_cli.__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=60)
