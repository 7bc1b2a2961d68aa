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
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zsar_cli.files import ASSETS, atomic_write

if TYPE_CHECKING:
    import numpy as np


FEW, MANY = 500, 2000  # videos up to which a card has large and middling frames
QUALITY = 55  # of WebP; a thumbnail shows what happens, not every hair


class AnswersPage:
    """Collects the answers of a run and writes them as one page.

    Args:
        path: the HTML file.
        labels: the labels of the run.
        title, summary: the headline and the line below it.
        command: the command line without its threshold, for the page to complete.
        threshold: the smallest confidence (``1 - unknown``) that the page starts with.
        multi: whether a video may have several answers, every label whose ``yes`` is at least the threshold.
        expected: how many videos are to come, None if that is not known; decides the size of the frames.
    """

    def __init__(
        self,
        path: Path,
        labels: list[str],
        *,
        title: str,
        summary: str,
        command: str,
        threshold: float = 0.5,
        multi: bool = False,
        expected: int | None = None,
    ) -> None:
        self.path = path
        self.labels = list(labels)
        self.title, self.summary = title, summary
        self.about = {"command": command, "threshold": threshold, "multi": multi}
        self.about["id"] = hashlib.sha256(json.dumps(self.labels).encode()).hexdigest()[:12]
        count = MANY if expected is None else expected
        self.most_frames, self.width = (8, 160) if count <= FEW else (8, 112) if count <= MANY else (4, 96)
        self._videos: list[dict[str, Any]] = []
        self._place = {label: number for number, label in enumerate(self.labels)}
        self._strips: IO[str] = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 - closed by write()

    def add(
        self, record: dict[str, Any], frames: np.ndarray | None = None, times: np.ndarray | None = None
    ) -> None:
        """Add a video.

        Args:
            record: its record, as ``zsar predict`` writes it.
            frames: (T, h, w, 3) uint8 frames to show, or None.
            times: (T,) their times in s, for segments.
        """
        name = record["video"]
        card: dict[str, Any] = {
            "video": name,
            "name": os.path.basename(name.rstrip("/")) or name,
            "absolute": os.path.abspath(name),
            "href": _link(name, self.path),
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
            else:
                card |= self._predictions(record)
            if frames is not None and len(frames):
                card |= self._strip(frames, times, all_of_them="segments" in record)
        self._videos.append(card)

    def _predictions(self, part: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": [[self._place[p["label"]], p["score"], p["yes"]] for p in part["predictions"]]}

    def _strip(self, frames: np.ndarray, times: np.ndarray | None, *, all_of_them: bool) -> dict[str, Any]:
        """The frames side by side in one picture, put aside; what the page must know of it."""
        import numpy as np
        from PIL import Image

        if not all_of_them and len(frames) > self.most_frames:
            chosen = (np.arange(self.most_frames) * 2 + 1) * len(frames) // (2 * self.most_frames)
            frames, times = frames[chosen], None if times is None else times[chosen]
        height = max(1, round(self.width * frames.shape[1] / frames.shape[2]))
        strip = Image.new("RGB", (self.width * len(frames), height))
        for number, frame in enumerate(frames):
            small = Image.fromarray(frame).resize((self.width, height), Image.Resampling.BILINEAR)
            strip.paste(small, (self.width * number, 0))
        picture = io.BytesIO()
        strip.save(picture, "WEBP", quality=QUALITY, method=2)
        text = base64.b64encode(picture.getvalue()).decode("ascii")
        self._strips.write(f'<script type="text/plain" id="frames-{len(self._videos)}">{text}</script>\n')
        about: dict[str, Any] = {"frames": len(frames), "width": self.width, "height": height}
        return about | ({} if times is None else {"times": [round(float(t), 2) for t in times]})

    def write(self) -> None:
        """Write the file, whole or not at all. UsageError where it cannot be written."""
        from jinja2 import Environment
        from markupsafe import Markup

        script = (ASSETS / "answers.js").read_text(encoding="utf-8")
        template = Environment(autoescape=True).from_string(
            (ASSETS / "answers.html.j2").read_text(encoding="utf-8")
        )
        data = {"labels": self.labels, "videos": self._videos, "about": self.about}
        page = template.render(
            title=_clean(self.title),
            summary=_clean(self.summary),
            data=Markup(_json(data)),
            script=Markup(script),  # ours
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        self._strips.seek(0)
        with self._strips, atomic_write(self.path) as aside, open(aside, "w", encoding="utf-8") as out:
            out.write(page + "\n")
            while block := self._strips.read(1 << 20):
                out.write(block)
            out.write("</body>\n</html>\n")


def _json(data: Any) -> str:
    """JSON in ASCII that cannot end the element it stands in, whatever a label or a name holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _link(video: str, page: Path) -> str:
    """A link from the page to the video that works wherever both are copied; never one with a scheme of its own."""
    try:
        there = os.path.relpath(os.path.abspath(video), os.path.dirname(os.path.abspath(page)))
    except ValueError:  # another drive on Windows
        return ""
    return "./" + urllib.parse.quote(os.fsencode(there.replace(os.sep, "/")))
