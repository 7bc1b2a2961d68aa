"""How cost grows with videos, labels, frames and length, and what sliding windows cost."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from benchmarks import material
from benchmarks.measure import Contender, Figure, interleaved, python

if TYPE_CHECKING:
    from benchmarks.__main__ import Setup
    from benchmarks.report import Results


def videos(setup: Setup, results: Results) -> None:
    """1 to 1,000 short clips through a tiny model: seconds and memory."""
    source = material.make_clip(setup.work / "videos" / "short.mp4", (320, 240), 9, seconds=1)
    folder = setup.work / "many"
    folder.mkdir(exist_ok=True)
    counts = (1, 10, 100) if setup.quick else (1, 10, 100, 1000)
    paths = [folder / f"{number:04d}.mp4" for number in range(max(counts))]
    for path in paths:
        if not path.is_file():
            shutil.copyfile(source, path)
    rows, figures = [], {}
    for count in counts:
        command = [*python("zsar_cli"), "--quiet", "predict", "-", "--model", setup.tiny, "--format", "jsonl"]
        contender = Contender("zsar", [*command, "--label", "one thing", "--label", "another thing"])
        contender.turn([str(source)])
        seconds, _ = contender.turn([str(path) for path in paths[:count]])
        peak = contender.close() / 2**20
        figures[count] = {"seconds": Figure([seconds]), "memory_mb": Figure([peak])}
        rows.append([str(count), f"{seconds:.2f}", f"{1000 * seconds / count:.1f}", f"{peak:.0f}"])
    results.table(
        "growth with videos: clips of 1 s, a tiny model",
        ["videos", "seconds", "ms a video", "peak memory, MB"],
        rows,
        figures,
    )
    if 1000 in counts:
        memory = [figures[count]["memory_mb"].median for count in (100, 1000)]
        results.ratio("memory, 1,000 clips : 100", memory[1] / memory[0], at_most=1.05)
        each = [figures[count]["seconds"].median / count for count in (100, 1000)]
        results.ratio("time a clip, 1,000 : 100", each[1] / each[0], at_most=1.1)


def labels(setup: Setup, results: Results) -> None:
    """Scores of one video against 5 to 10,000 labels."""
    import torch
    from torch.nn import functional as F

    from zsar_cli.recognizer import Recognizer

    model = Recognizer.load(setup.motion).model
    embeddings = {
        count: F.normalize(torch.randn(2, count, model.backbone.embed_dim), dim=-1)
        for count in (5, 400, 10_000)
    }
    video = F.normalize(torch.randn(1, model.backbone.embed_dim), dim=-1)
    figures = interleaved(
        {str(n): (lambda e=e: model.score(video, e[0], e[1])) for n, e in embeddings.items()},  # type: ignore[misc]
        setup.rounds,
    )
    results.table(
        "growth with labels: scores of one video, milliseconds",
        ["labels", "ms"],
        [[name, Figure([1000 * v for v in figure.values]).text(2)] for name, figure in figures.items()],
        dict(figures),
    )
    ratio = (figures["10000"].median / 10_000) / (figures["400"].median / 400)
    results.ratio("time a label, 10,000 : 400", ratio, at_most=1.1)


def frames(setup: Setup, results: Results) -> None:
    """One video at 8 to 64 frames, decoding included."""
    from zsar_cli.recognizer import Recognizer

    recognizer = Recognizer.load(setup.motion)
    counts = (8, 16) if setup.quick else (8, 16, 32, 64)
    figures = interleaved(
        {
            str(n): (lambda n=n: recognizer.predict(setup.short, ["one thing", "another"], frames=n))  # type: ignore[misc]
            for n in counts
        },
        min(setup.rounds, 3),
    )
    results.table(
        "growth with frames: one video of 640x360, ViT-B/16, decoding included, seconds",
        ["frames", "seconds"],
        [[name, figure.text()] for name, figure in figures.items()],
        dict(figures),
    )
    most = counts[-1]
    each = (figures[str(most)].median / most) / (figures["8"].median / 8)
    results.ratio(f"time a frame, {most} : 8", each, at_most=1.1)


def length(setup: Setup, results: Results) -> None:
    """Ten seconds of video and thirty minutes of it, at 8 frames."""
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.video.pool import ClipRequest, load_clip

    minutes = 3 if setup.quick else 30
    long = material.make_long(setup.short, setup.work / "videos" / f"{minutes}min.mp4", 6 * minutes)
    recognizer = Recognizer.load(setup.motion)
    names = {"10 s": str(setup.short), f"{minutes} min": str(long)}
    decoded = interleaved(
        {name: (lambda path=path: load_clip(ClipRequest(path))) for name, path in names.items()},  # type: ignore[misc]
        setup.rounds,
    )
    whole = interleaved(
        {
            name: (lambda path=path: recognizer.predict(path, ["one thing", "another"]))  # type: ignore[misc]
            for name, path in names.items()
        },
        setup.rounds,
    )
    results.table(
        "growth with length: one video of 640x360 at 8 frames, seconds",
        ["length", "index, decode and resize", "whole prediction"],
        [[name, decoded[name].text(3), whole[name].text(3)] for name in names],
        {name: {"decode": decoded[name], "whole": whole[name]} for name in names},
    )
    short, far = names
    results.ratio(f"prediction, {minutes} min : 10 s", whole[far].median / whole[short].median, at_most=3)
    results.ratio(
        f"decoding alone, {minutes} min : 10 s", decoded[far].median / decoded[short].median, at_most=3
    )


def windows(setup: Setup, results: Results) -> None:
    """Windows of 4 s, 2 s apart, over two minutes of 720p; and one prediction over as many of its frames."""
    from zsar_cli.recognizer import Recognizer

    source = setup.work / "videos" / "1280x720.mp4"
    minutes = material.make_long(source, setup.work / "videos" / "2min.mp4", 12)
    recognizer = Recognizer.load(setup.motion)
    labels = ["one thing", "another"]
    count = recognizer.segments(minutes, labels).frames
    figures = interleaved(
        {
            f"one prediction over {count} frames": lambda: recognizer.predict(minutes, labels, frames=count),
            "windows of 4 s, 2 s apart": lambda: recognizer.segments(minutes, labels),
        },
        min(setup.rounds, 3),
    )
    results.table(
        f"windows: 2 minutes of 1280x720, ViT-B/16, {count} frames, seconds",
        ["", "seconds"],
        [[name, figure.text()] for name, figure in figures.items()],
        dict(figures),
    )
    once, slid = figures.values()
    results.ratio("windows : one pass over as many frames", slid.median / once.median, at_most=1.3)
