"""The tables of docs/camera.md: camera movements of footage, by a model, by optical flow and by averaged frames.

python -m benchmarks.camera --data FOLDER [--data FOLDER ...] [--model motion-tiny] [--averaged MODEL]

A FOLDER has a folder a label, named as in the label list ``camera``. Clips are short: each is looked at whole.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks import flow
from zsar_cli import Recognizer, VideoError
from zsar_cli.data.dataset import load_dataset
from zsar_cli.data.scenes.classes import CAMERAS, changed_label
from zsar_cli.data.scenes.phrases import held_out_phrasings
from zsar_cli.evaluation.metrics import auroc, wilson_interval
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.text.labels import Labels, labels_of, load_labels
from zsar_cli.video.decode import read_frames


@dataclass
class Clip:
    """A clip's place in the list, its label's number, and what each method said of it as it is and changed."""

    data: str
    path: str
    label: int
    flow: int | None = None
    averaged: int | None = None
    shown: dict[str, torch.Tensor] = field(
        default_factory=dict
    )  # embeddings (E,) by what was done to the clip


def backwards(frames: np.ndarray, number: int) -> np.ndarray:
    """Play a clip backwards."""
    return frames[::-1]


def mirrored(frames: np.ndarray, number: int) -> np.ndarray:
    """Exchange left and right."""
    return frames[:, :, ::-1]


def shuffled(frames: np.ndarray, number: int) -> np.ndarray:
    """Put the frames in an order that the clip's number decides."""
    return frames[np.random.default_rng([0, number]).permutation(len(frames))]


def as_it_is(frames: np.ndarray, number: int) -> np.ndarray:
    """Change nothing."""
    return frames


CHANGES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "plain": as_it_is,
    "backwards": backwards,
    "mirrored": mirrored,
    "shuffled": shuffled,
}


def read_clips(folders: Sequence[str], labels: Labels) -> Iterator[tuple[Clip, np.ndarray, float]]:
    """Yield each clip that can be read, with its frames (T, H, W, 3) and its frames a second."""
    for folder in folders:
        items = load_dataset(folder, classes=labels.names).items
        for number, item in enumerate(items):
            print(f"\r{Path(folder).name}: {number + 1} of {len(items)} ", end="", file=sys.stderr)
            try:
                video = read_frames(item.path, range)
            except VideoError as error:
                print(f"\n{item.path} is left out: {error}", file=sys.stderr)
                continue
            yield Clip(Path(folder).name, item.path, item.label), video.frames, video.info.fps
        print(file=sys.stderr)


class Words:
    """A model's embeddings of labels, and its answers to embedded clips."""

    def __init__(self, recognizer: Recognizer, labels: Sequence[str] | Labels) -> None:
        self.model, self.text = recognizer.model, recognizer.embed_labels(labels)

    def answers(self, videos: Sequence[torch.Tensor]) -> list[int]:
        """Number the best label of each."""
        return self._scores(videos).score.argmax(dim=-1).tolist()

    def unknown(self, videos: Sequence[torch.Tensor]) -> np.ndarray:
        """Say how surely each shows none of the labels."""
        return self._scores(videos).unknown.cpu().numpy()

    def _scores(self, videos: Sequence[torch.Tensor]):
        stacked = torch.stack(list(videos)).to(self.model.backbone.device)
        return self.model.score(stacked, self.text.positive, self.text.negative, self.text.bank)


def look(args: argparse.Namespace, labels: Labels, recognizer: Recognizer) -> list[Clip]:
    """Look at every clip with every method."""
    averaged = Recognizer(RecognizerModel(recognizer.model.backbone).eval())
    if args.averaged:
        averaged = Recognizer.load(args.averaged, device=args.device)
    words = Words(averaged, labels)
    clips = []
    for clip, frames, rate in read_clips(args.data, labels):
        for name, change in CHANGES.items():
            changed = np.ascontiguousarray(change(frames, len(clips)))
            clip.shown[name] = recognizer.embed_video(changed, fps=rate)
        (clip.averaged,) = words.answers([averaged.embed_video(frames, fps=rate)])
        if args.flow:
            said = flow.name(flow.movement(frames))
            clip.flow = labels.names.index(said) if said in labels.names else -1
        clips.append(clip)
    return clips


def share(right: int, count: int) -> str:
    """Format a share with its counts and its 95% CI."""
    if not count:
        return "-"
    low, high = wilson_interval(right, count)
    return f"{100 * right / count:.1f} ({right} of {count}; {100 * low:.0f} to {100 * high:.0f})"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    print(f"\n**{title}**\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def accuracy_tables(
    args: argparse.Namespace, labels: Labels, clips: list[Clip], said: dict[str, list[int]]
) -> None:
    """Print top-1 of every method over each data set, and right answers a label."""
    methods = {args.model: said["plain"], "averaged frames": [clip.averaged for clip in clips]}
    if args.flow:
        methods["optical flow"] = [clip.flow for clip in clips]
    sets = list(dict.fromkeys(clip.data for clip in clips))

    def count(answers: list[int], wanted: Callable[[Clip], bool]) -> tuple[int, int]:
        chosen = [a == c.label for a, c in zip(answers, clips, strict=True) if wanted(c)]
        return sum(chosen), len(chosen)

    table(
        "top-1 in %, with counts and 95% CI",
        ["", *sets],
        [
            [name, *(share(*count(answers, lambda c, d=data: c.data == d)) for data in sets)]
            for name, answers in methods.items()
        ],
    )
    heads = [f"{data}: {name}" for data in sets for name in methods]
    rows = []
    for number, label in enumerate(labels.names):
        row = [label]
        for data in sets:
            for answers in methods.values():
                right, of = count(answers, lambda c, d=data, n=number: (c.data, c.label) == (d, n))
                row.append(f"{right} of {of}" if of else "-")
        rows.append(row)
    table("right answers a label", ["", *heads], rows)
    pairs = Counter(
        (labels.names[clip.label], labels.names[answer])
        for clip, answer in zip(clips, said["plain"], strict=True)
        if answer != clip.label
    )
    table(
        f"most frequent wrong answers of {args.model}",
        ["is", "answer", "clips"],
        [[*pair, str(number)] for pair, number in pairs.most_common(8)],
    )


def probe_table(labels: Labels, clips: list[Clip], said: dict[str, list[int]]) -> None:
    """Print what becomes of right answers when a clip is played backwards, mirrored or shuffled."""
    sets = list(dict.fromkeys(clip.data for clip in clips))
    rows = []
    for change in ("backwards", "mirrored"):
        for turns in (True, False):
            row = [f"{change}: {'the opposite' if turns else 'the same'}"]
            for data in sets:
                right = of = 0
                for clip, plain, changed in zip(clips, said["plain"], said[change], strict=True):
                    label = labels.names[clip.label]
                    expected = changed_label(label, **{change: True})
                    if clip.data == data and plain == clip.label and (expected != label) == turns:
                        of, right = of + 1, right + (labels.names[changed] == expected)
                row.append(share(right, of))
            rows.append(row)
    row = ["shuffled: top-1 of all clips"]
    for data in sets:
        chosen = [a == c.label for a, c in zip(said["shuffled"], clips, strict=True) if c.data == data]
        row.append(share(sum(chosen), len(chosen)))
    table(
        "of the clips that were right, the share whose answer becomes what it should, in %",
        ["", *sets],
        [*rows, row],
    )


def unknown_table(recognizer: Recognizer, labels: Labels, clips: list[Clip]) -> None:
    """Print how well ``unknown`` parts the clips of a label from all others, where the list leaves that label out."""
    sets = list(dict.fromkeys(clip.data for clip in clips))
    rows, values = [], {data: [] for data in sets}
    for number, label in enumerate(labels.names):
        words = Words(recognizer, [name for name in labels.names if name != label])
        unknown = words.unknown([clip.shown["plain"] for clip in clips])
        row = [label]
        for data in sets:
            here = np.array([clip.data == data for clip in clips])
            missing = np.array([clip.label == number for clip in clips])
            value = auroc(missing[here], unknown[here])
            values[data].append(value)
            row.append("-" if np.isnan(value) else f"{value:.3f}")
        rows.append(row)
    mean = ["mean", *(f"{np.nanmean(found):.3f}" for found in values.values())]
    table("AUROC of unknown, where the list leaves out", ["label", *sets], [*rows, mean])


def held_out(labels: Labels) -> list[Labels]:
    """Make lists of the same labels in words that training never saw."""
    return [labels_of(list(words)) for words in zip(*map(held_out_phrasings, labels.names), strict=True)]


def phrasing_table(recognizer: Recognizer, labels: Labels, clips: list[Clip], files: Sequence[str]) -> None:
    """Print top-1 with other words for the same labels; each file has them in the same order."""
    sets = list(dict.fromkeys(clip.data for clip in clips))
    rows, first = [], {}
    wordings = [("camera", labels)]
    if set(labels.names) <= set(CAMERAS.values()):
        wordings += [(f"held out {n + 1}", words) for n, words in enumerate(held_out(labels))]
    for name, wording in [*wordings, *((Path(file).stem, load_labels(file)) for file in files)]:
        if len(wording) != len(labels):
            raise SystemExit(f"{name} has {len(wording)} labels and not {len(labels)}.")
        answers = Words(recognizer, wording).answers([clip.shown["plain"] for clip in clips])
        row = [name]
        for data in sets:
            chosen = [a == c.label for a, c in zip(answers, clips, strict=True) if c.data == data]
            top1 = 100 * float(np.mean(chosen))
            before = first.setdefault(data, top1)
            row.append(f"{top1:.1f}" + (f" ({top1 / before:.0%} of {before:.1f})" if rows and before else ""))
        rows.append(row)
    table("top-1 in % with other words", ["label file", *sets], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Look at all clips and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", required=True, metavar="FOLDER")
    parser.add_argument("--model", default="motion-tiny")
    parser.add_argument(
        "--averaged", metavar="MODEL", help="one without motion modules; by default the model's own frames"
    )
    parser.add_argument(
        "--labels", default="camera", help="the names of the folders, in the words of the list"
    )
    parser.add_argument(
        "--phrasings", nargs="*", default=[], metavar="FILE", help="the same labels in other words"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-flow", dest="flow", action="store_false", help="without OpenCV")
    args = parser.parse_args(argv)
    labels = load_labels(args.labels)
    recognizer = Recognizer.load(args.model, device=args.device)
    clips = look(args, labels, recognizer)
    words = Words(recognizer, labels)
    said = {change: words.answers([clip.shown[change] for clip in clips]) for change in CHANGES}
    accuracy_tables(args, labels, clips, said)
    probe_table(labels, clips, said)
    unknown_table(recognizer, labels, clips)
    phrasing_table(recognizer, labels, clips, args.phrasings)


if __name__ == "__main__":
    main()
