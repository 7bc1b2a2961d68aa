"""The page of ``zsar predict --report``: every answer with its frames in one HTML file that needs nothing else.

The page is a template with the answers as JSON and, behind them, a text block of frames for each video, so that a
browser shows the first cards while the rest is still being read. What the page does is in ``assets/answers.js``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zsar_cli.cache_files import open_file
from zsar_cli.files import ASSETS, atomic_write
from zsar_cli.outputs import Lock, may_replace, refuse_taken
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.records import Failure, Prediction, Shown
from zsar_cli.video.address import is_remote

if TYPE_CHECKING:
    from zsar_cli.prediction.timeline import Timeline
    from zsar_cli.video.pool import DecodePool
    from zsar_cli.video.transforms import Preprocess


FEW, MANY = 500, 2000  # videos up to which a card has large and middling frames
QUALITY = 55  # of WebP; a thumbnail shows what happens, not every hair
CANDIDATES = 20  # of the labels that a record ranks: the page shows five, and with several answers those
OF_TIMELINE = 24  # frames of a video with segments that is decoded again


@dataclass(frozen=True)
class FilmSize:
    """How many frames a card has, and how wide they are: the page of many videos stays one that a browser opens."""

    frames: int = 8
    width: int = 112  # pixels

    @classmethod
    def for_videos(cls, count: int | None) -> FilmSize:
        """Choose what suits so many videos; None where nobody knows how many there will be."""
        count = MANY if count is None else count
        return cls(8, 160) if count <= FEW else cls() if count <= MANY else cls(4, 96)


def filmstrip(shown: Shown | None, size: FilmSize, *, whole: bool = False) -> dict[str, Any] | None:
    """Join frames side by side in one picture, as JSON holds it; None where there are none.

    ``whole``: with all the frames there are and their times, for a timeline.
    """
    import numpy as np
    from PIL import Image

    if shown is None or not len(shown.frames):
        return None
    frames = shown.frames
    if not whole and len(frames) > size.frames:
        frames = frames[(np.arange(size.frames) * 2 + 1) * len(frames) // (2 * size.frames)]
    width = min(size.width, frames.shape[2])
    height = max(1, round(width * frames.shape[1] / frames.shape[2]))
    strip = Image.new("RGB", (width * len(frames), height))
    for number, frame in enumerate(frames):
        small = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        strip.paste(small, (width * number, 0))
    picture = io.BytesIO()
    strip.save(picture, "WEBP", quality=QUALITY, method=2)
    about: dict[str, Any] = {"frames": len(frames), "width": width, "height": height}
    if whole:
        about["times"] = [round(float(time), 2) for time in shown.times]
    return about | {"webp": base64.b64encode(picture.getvalue()).decode("ascii")}


class AnswersPage:
    """Collects the answers of a run and writes them as one page.

    Args:
        labels: the labels of the run.
        summary: the line below the headline.
        command: the command line without its threshold, for the page to complete.
        confidence: the smallest confidence (``1 - unknown``) that the page starts with.
        multi: whether a video may have several answers, every label whose ``yes`` is at least that.
        folder: where the page will be: links to the videos start there, and frames are kept there meanwhile.
    """

    def __init__(
        self,
        labels: Sequence[str],
        folder: Path,
        *,
        summary: str = "",
        command: str = "",
        confidence: float = 0.5,
        multi: bool = False,
    ) -> None:
        self.labels = list(labels)
        self.folder = os.path.abspath(folder)
        self.summary = summary
        self.run = hashlib.sha256(json.dumps(self.labels).encode()).hexdigest()[:12]
        self.about = {"command": command, "threshold": confidence, "multi": multi, "id": self.run}
        self._videos: list[dict[str, Any]] = []
        self._known: set[str] = set()
        self._place = {label: number for number, label in enumerate(self.labels)}
        self._strips: IO[str] = tempfile.TemporaryFile("w+", encoding="ascii", dir=_room(self.folder))

    def __contains__(self, same: str) -> bool:
        """Tell whether a video was added, by what :func:`zsar_cli.prediction.inputs.same_input` calls it."""
        return same in self._known

    def add(self, record: dict[str, Any], strip: dict[str, Any] | None = None) -> None:
        """Add a video: its record, as ``zsar predict`` writes it, and its :func:`filmstrip`."""
        name = record["video"]
        self._known.add(same_input(name))
        card: dict[str, Any] = {
            "video": name,
            "name": os.path.basename(name.rstrip("/")) or name,
            "absolute": name if is_remote(name) else os.path.abspath(name),
            "href": _link(name, self.folder),
        }
        if "error" in record:
            card["error"] = record["error"]["message"]
        else:
            card |= {key: record[key] for key in ("duration", "unknown", "warning") if key in record}
            if "segments" in record:
                card["segments"] = [
                    {"start": s["start"], "end": s["end"], "unknown": s["unknown"]} | self._predictions(s)
                    for s in record["segments"]
                ]
                for part, (before, after) in zip(
                    card["segments"][1:], pairwise(map(_answered, record["segments"])), strict=True
                ):
                    if before == after:  # nothing but a cut parts them
                        part["cut"] = True
            else:
                card |= self._predictions(record)
            if strip is not None:
                text = strip["webp"]
                self._strips.write(
                    f'<script type="text/plain" id="frames-{len(self._videos)}">{text}</script>\n'
                )
                card |= {key: value for key, value in strip.items() if key != "webp"}
        self._videos.append(card)

    def _predictions(self, part: dict[str, Any]) -> dict[str, Any]:
        best = part["predictions"][:CANDIDATES]
        if self.about["multi"]:
            surest = sorted(part["predictions"], key=lambda p: -p["yes"])[:CANDIDATES]
            best += [p for p in surest if p not in best]
        return {"predictions": [[self._place[p["label"]], p["score"], p["yes"]] for p in best]}

    def write(self, path: Path) -> None:
        """Write the page of what was added."""
        from jinja2 import Environment
        from markupsafe import Markup

        script = (ASSETS / "answers.js").read_text(encoding="utf-8")
        template = Environment(autoescape=True).from_string(
            (ASSETS / "answers.html.j2").read_text(encoding="utf-8")
        )
        data = {"labels": self.labels, "videos": self._videos, "about": self.about}
        page = template.render(
            title=f"{_count(len(self._videos), 'video')}, {_count(len(self.labels), 'label')}",
            summary=_encodable(self.summary),
            run=self.run,
            data=Markup(_json(data)),
            script=Markup(script),  # ours
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        self._strips.seek(0)
        with self._strips, open(path, "w", encoding="utf-8", newline="\n") as out:
            out.write(page + "\n")
            while block := self._strips.read(1 << 20):
                out.write(block)
            out.write("</body>\n</html>\n")


def is_page(path: Path, run: str = "") -> bool:
    """Tell whether a file is a page that zsar predict wrote; with ``run``, one about these labels."""
    try:
        with open(open_file(path, os.O_RDONLY), "rb") as file:
            return f'<meta name="generator" content="zsar predict {run}'.encode() in file.read(1000)
    except OSError:
        return False


def write_report(
    answers: Iterable[Prediction | Timeline | Failure],
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    confidence: float = 0.5,
    frames: bool = True,
    overwrite: bool = False,
) -> None:
    """Write the page of ``zsar predict --report`` about answers that were had in Python.

    Args:
        answers: what ``predict``, ``predict_many`` and ``segments`` of a Recognizer give.
        labels: all labels, to choose from in the page; by default those that the answers name.
        confidence: the smallest ``1 - unknown`` that the page starts with.
        frames: whether to decode the videos again, where an answer does not hold its frames.
        overwrite: replace what is there.

    Raises:
        UsageError: the file already exists, or cannot be written.
    """
    from zsar_cli.resources import default_workers
    from zsar_cli.video.pool import DecodePool

    page_path, found = Path(path), list(answers)
    size = FilmSize.for_videos(len(found))
    records = [answer.to_record() for answer in found]
    page = AnswersPage(labels or _labels_of(records), page_path.parent, confidence=confidence)
    unseen = [r for a, r in zip(found, records, strict=True) if frames and getattr(a, "shown", None) is None]
    with Lock(page_path), DecodePool(min(default_workers(), len(unseen))) as pool:
        refuse_taken([page_path], overwrite=overwrite, option="file")
        with atomic_write(page_path, replace=may_replace(page_path, overwrite)) as aside:
            strips = iter(decoded_again(unseen, pool, size))
            for answer, record in zip(found, records, strict=True):
                shown = None if isinstance(answer, Failure) else answer.shown
                strip = filmstrip(shown, size, whole="segments" in record)
                if strip is None and frames:
                    strip = next(strips)
                page.add(record, strip)
            page.write(aside)


def decoded_again(
    records: Sequence[dict[str, Any]],
    pool: DecodePool,
    size: FilmSize,
    preprocess: Preprocess | None = None,
) -> Iterator[dict[str, Any] | None]:
    """Yield for each record of a video its filmstrip; None of a failure, and where it cannot be read any more."""
    from zsar_cli.errors import VideoError
    from zsar_cli.prediction.clips import shown_of
    from zsar_cli.video.pool import ClipRequest, Ready
    from zsar_cli.video.sampling import Sampling
    from zsar_cli.video.transforms import Preprocess

    def request(record: dict[str, Any]) -> Any:
        if "error" in record:
            return Ready(None)
        count = OF_TIMELINE if "segments" in record else size.frames
        return ClipRequest(record["video"], Sampling(count), preprocess or Preprocess(), look=True)

    for record, clip in pool.imap(records, request):
        if clip is None or isinstance(clip, VideoError):
            yield None
        else:
            yield filmstrip(shown_of(clip, 0), size, whole="segments" in record)


def _answered(segment: dict[str, Any]) -> Any:
    return segment.get("answers", segment.get("answer"))


def _labels_of(records: Iterable[dict[str, Any]]) -> list[str]:
    """List the labels that records name, the first ones first."""
    parts = [part for record in records for part in record.get("segments", [record])]
    return list(dict.fromkeys(found["label"] for part in parts for found in part.get("predictions", ())))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _room(folder: str) -> str | None:
    """Choose where frames are kept meanwhile: beside the page, where there is room; None for a stream."""
    return folder if os.path.isdir(folder) and os.access(folder, os.W_OK) else None


def _json(data: Any) -> str:
    """Write JSON in ASCII that cannot end the element it stands in, whatever a label or a name holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _link(video: str, folder: str) -> str:
    """Link from the page to the video so that it works wherever both are copied; never by a scheme of its own.

    Empty where there is none: of what lies in a storage, and on another drive.
    """
    if is_remote(video):
        return ""
    try:
        there = os.path.relpath(os.path.abspath(video), folder)
    except ValueError:
        return ""
    return "./" + urllib.parse.quote(os.fsencode(there.replace(os.sep, "/")))
