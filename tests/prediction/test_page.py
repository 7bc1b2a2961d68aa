"""The page of answers as a file: what it holds, and that nothing in it runs or leads anywhere else."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tests.video_files import write_video
from zsar_cli import write_report
from zsar_cli.errors import UsageError
from zsar_cli.prediction.records import Failure, LabelScore, Prediction, Shown
from zsar_cli.prediction.report import AnswersPage, FilmSize, filmstrip
from zsar_cli.prediction.timeline import Segment, Timeline
from zsar_cli.prediction.windows import FrameKeeper
from zsar_cli.video.grid import GridChunk
from zsar_cli.video.times import VideoInfo

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)//",
    "http://example.org/a.mp4",
    "{{ 7 * 7 }}",
    "<!-- <script>",
    "\u202egpj.4pm",
    "a\nb\r\u2028c",
    "\udcff\udc80.mp4",
    "&lt;&amp;",
    "'; --",
    "x" * 100_000,
]


class Elements(HTMLParser):
    """What a browser would make of a page: the elements, and what stands in scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self._id: str | None = None

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._id = dict(attrs).get("id") or tag

    def handle_data(self, data):
        if self._id is not None:
            self.inside[self._id] = self.inside.get(self._id, "") + data

    def handle_endtag(self, tag):
        self._id = None


def read(path) -> tuple[Elements, dict]:
    elements = Elements()
    elements.feed(path.read_text(encoding="utf-8"))
    return elements, json.loads(elements.inside["data"])


def shown(count: int = 8, size: tuple[int, int] = (48, 64)) -> Shown:
    steps = np.arange(count, dtype=np.uint8)[:, None, None, None] * 20
    return Shown(np.broadcast_to(steps, (count, *size, 3)).copy(), np.arange(count) / 2)


def prediction(video: str, labels=("waving", "running"), **more) -> Prediction:
    found = [LabelScore(label, 1 / len(labels), 0.5) for label in labels]
    return Prediction(video, found, 0.25, 2.0, 8, **{"shown": shown()} | more)


@pytest.fixture
def hostile(tmp_path):
    answers = [prediction(name, [*HOSTILE, "a"], warning=name) for name in HOSTILE]
    answers += [Failure(name, "unreadable", name) for name in HOSTILE]
    path = tmp_path / "page.html"
    write_report(answers, path, labels=[*HOSTILE, "a"], frames=False)
    return path


def test_names_and_labels_of_strangers_make_no_element(hostile, tmp_path):
    plain = tmp_path / "plain.html"
    write_report([prediction(f"{n}.mp4") for n in range(len(HOSTILE))], plain)
    found, data = read(hostile)
    there, wanted = (
        [element for element in page.elements if element[1].get("name") != "generator"]
        for page in (found, read(plain)[0])
    )
    assert there == wanted
    assert data["labels"] == [*HOSTILE, "a"]
    assert [card["video"] for card in data["videos"]] == HOSTILE * 2
    assert [card["error"] for card in data["videos"][len(HOSTILE) :]] == HOSTILE


def test_only_the_script_of_the_package_runs_and_nothing_is_fetched(hostile):
    found, _ = read(hostile)
    (policy,) = [a["content"] for t, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    run = [a for t, a in found.elements if t == "script" and a.get("type") is None]
    assert run == [{}]  # no src
    wanted = base64.b64encode(hashlib.sha256(found.inside["script"].encode()).digest()).decode()
    assert f"script-src 'sha256-{wanted}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert {"base-uri 'none'", "form-action 'none'"} <= {part.strip() for part in policy.split(";")}
    attributes = {name for _, attrs in found.elements for name in attrs}
    assert not {name for name in attributes if name.startswith("on")} | attributes & {"src", "href", "action"}
    assert "http" not in found.inside["script"].replace("http-equiv", "") + found.inside["style"]
    assert "url(" not in found.inside["style"]


def test_links_are_relative_and_have_no_scheme(tmp_path):
    page = AnswersPage(["a"], tmp_path / "deep")
    for name in [*HOSTILE[:-1], "JavaScript:alert(1)", str(tmp_path / "clips" / "ä b#?.mp4")]:
        page.add(Failure(name, "unreadable", "no").to_record())
    (tmp_path / "deep").mkdir()
    page.write(tmp_path / "deep" / "page.html")
    links = [card["href"] for card in read(tmp_path / "deep" / "page.html")[1]["videos"]]
    assert all(re.fullmatch(r"(\./[A-Za-z0-9%._~/-]*)?", link) for link in links)
    assert links[-1] == "./../clips/%C3%A4%20b%23%3F.mp4"


def test_cards_hold_answers_failures_and_frames(tmp_path):
    path = tmp_path / "page.html"
    parts = [
        Segment(0, 2, "waving", [LabelScore("waving", 0.9, 0.8)], 0.2),
        Segment(2, 4, "none of these", [LabelScore("running", 0.5, 0.1)], 0.9),
        Segment(4, 5, "none of these", [LabelScore("running", 0.6, 0.1)], 0.9),
    ]
    answers = [
        prediction("a/one.mp4"),
        Failure("two.mp4", "unreadable", "not a video"),
        Timeline("three.mp4", parts, 5.0, 20, shown=shown(20)),
        prediction("four.mp4", shown=None),
    ]
    write_report(answers, path, frames=False, confidence=0.7)
    found, data = read(path)
    one, two, three, four = data["videos"]
    assert data["labels"] == ["waving", "running"]
    assert data["about"]["threshold"] == 0.7
    assert one["name"] == "one.mp4"
    assert one["predictions"] == [[0, 0.5, 0.5], [1, 0.5, 0.5]]
    assert (one["frames"], one["width"], one["height"]) == (8, 64, 48)
    assert two["error"] == "not a video"
    assert [part["predictions"][0][0] for part in three["segments"]] == [0, 1, 1]
    assert [part.get("cut", False) for part in three["segments"]] == [False, False, True]
    assert (three["frames"], len(three["times"])) == (20, 20)
    assert "frames" not in four
    strip = Image.open(io.BytesIO(base64.b64decode(found.inside["frames-0"])))
    assert (strip.format, strip.size) == ("WEBP", (8 * 64, 48))
    assert "frames-2" in found.inside
    assert "4 videos, 2 labels" in found.inside["title"]


def test_frames_of_many_videos_are_fewer_and_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (8, 14, 14, 3)).astype(np.uint8)
    frames = Shown(noise.repeat(16, axis=1).repeat(16, axis=2), np.arange(8))
    sizes = [len(filmstrip(frames, FilmSize.for_videos(n))["webp"]) for n in (12, 1000, 10_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 20_000  # 10,000 videos of noise: 200 MB
    assert FilmSize.for_videos(None) == FilmSize.for_videos(1000)


def test_a_card_has_the_candidates_of_a_record_that_ranks_all_labels(tmp_path):
    labels = [f"label {number}" for number in range(400)]
    ranked = [{"label": label, "score": 1 / 400, "yes": number / 400} for number, label in enumerate(labels)]
    record = {"video": "a.mp4", "predictions": ranked, "unknown": 0.1, "duration": 1.0, "frames": 8}
    for multi in (False, True):
        page = AnswersPage(labels, tmp_path, multi=multi)
        page.add(record)
        page.write(tmp_path / "page.html")
        (card,) = read(tmp_path / "page.html")[1]["videos"]
        shown = [place for place, _, _ in card["predictions"]]
        assert shown[:20] == list(range(20))
        assert sorted(shown[20:]) == (list(range(380, 400)) if multi else [])


def test_a_page_has_no_number_that_json_has_not(tmp_path):
    page = AnswersPage(["a"], tmp_path)
    page.add(prediction("a.mp4", ["a"]).to_record() | {"unknown": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        page.write(tmp_path / "page.html")


def test_python_decodes_the_frames_again_and_replaces_nothing(tmp_path):
    write_video(tmp_path / "clip.mp4", 12)
    path = tmp_path / "page.html"
    answers = [
        prediction(str(tmp_path / "gone.mp4"), shown=None),
        prediction(str(tmp_path / "clip.mp4"), shown=None),
        Failure("no.mp4", "unreadable", "no"),
        prediction("held.mp4", shown=shown(3)),
    ]
    write_report(iter(answers), path)
    assert [card.get("frames") for card in read(path)[1]["videos"]] == [None, 8, None, 3]
    before = path.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        write_report(answers[2:], path)
    assert path.read_bytes() == before
    write_report(answers[2:], path, overwrite=True)
    assert len(read(path)[1]["videos"]) == 2


def test_few_frames_are_kept_of_a_video_of_any_length():
    keeper = FrameKeeper()
    info = VideoInfo(0.0, 64, 48, 0, 1.0, start=10.0)
    for first in range(0, 10_000, 32):
        ticks = np.arange(first, first + 32, dtype=np.int64)
        pixels = np.zeros((32, 2, 2, 3), np.uint8) + (ticks % 251)[:, None, None, None].astype(np.uint8)
        keeper.take(GridChunk(pixels, ticks, 0.5, ticks, info))
    kept = keeper.shown()
    steps = np.diff(kept.times)
    assert 24 <= len(kept.frames) <= 48
    assert steps.max() == pytest.approx(steps.min())
    assert kept.times[0] == pytest.approx(10.25)
    assert kept.times[-1] > 10 + 5000 - 2 * steps[0]
    assert kept.frames[5, 0, 0, 0] == round((kept.times[5] - 10.25) / 0.5) % 251
    sparse = FrameKeeper(most=4)
    ticks = np.array([0, 2**40, 2**41, 2**42, 2**43, 2**44], dtype=np.int64)
    sparse.take(GridChunk(np.zeros((6, 2, 2, 3), np.uint8), ticks, 1e-3, ticks, info))
    assert 1 <= len(sparse.shown().frames) <= 4


def test_a_video_in_a_storage_has_no_link_and_keeps_its_address(tmp_path):
    page = AnswersPage(["a"], tmp_path)
    page.add(Failure("s3://b/a.mp4", "not_found", "no").to_record())
    page.write(tmp_path / "page.html")
    (card,) = read(tmp_path / "page.html")[1]["videos"]
    assert (card["href"], card["absolute"], card["name"]) == ("", "s3://b/a.mp4", "a.mp4")
