"""An index of a video, made without decoding: which frames there are, when, and where decoding may start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from zsar_cli.video.boxes import avi_ticks
from zsar_cli.video.container import leave_out_others, opened, packets
from zsar_cli.video.upright import pixel_aspect

# Containers that store an index. MPEG-TS, MPEG-PS, GIF and raw streams have none to trust.
INDEXED = {"mov", "matroska", "avi"}
CUTTABLE = {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libaom-av1", "mpeg4", "mjpeg"}
FROM_ZERO = {"mov", "matroska"}  # clocks begin there; others' begin anywhere, so with their first stream
SHUFFLED = {"avi"}  # its time stamps are those of decoding
ORDERED_IN_AVI = {"mpeg4", "mjpeg"}
PACKED = 8  # bytes: an MPEG-4 packet this short stands for a frame that was packed into the one before
MOST_PACKETS = 20_000_000  # 90 hours at 60 frames a second
LONGEST_TAIL = 3600.0  # s that a last frame may be shown
DELAY = 3  # frames that a decoder holds back: a stamp that late may be the first
SLIDES = 10  # a stream with so many times fewer frames than another is a row of slides or previews
THUMBNAIL = 16  # one with so many times fewer pixels is a thumbnail


@dataclass
class Index:
    """What demuxing tells. ``pts`` and ``key``: in stored order, one entry a packet that gives a frame."""

    container: str
    codec: str
    stream: int  # its number in the container
    alone: bool  # there is no other video stream
    aspect: float  # of a stored pixel, width over height
    start: float  # s from the start of the container's clock to the first frame
    time_base: float
    pts: np.ndarray  # int64 ticks; all zero when some are missing (see timed)
    key: np.ndarray
    timed: bool  # every packet has its own time stamp
    whole: bool  # nothing to drop, nothing damaged, and the first packet starts the video
    claimed: float | None  # s that the header promises for the video
    rate: float
    tail: float  # s that the last frame is shown
    order: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # packets by time

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        return len(self.pts)

    @property
    def seconds(self) -> np.ndarray:
        """When each frame is shown, s from the first."""
        if not self.timed:
            return np.arange(self.frame_count) / self.rate
        times = self.pts[self.order]
        return (times - times[0]) * self.time_base if len(times) else np.empty(0)

    @property
    def span(self) -> float:
        """How many s from the first frame to the last, by their time stamps; 0 without any."""
        return float(self.seconds[-1]) if self.timed and self.frame_count else 0.0

    @property
    def shuffled(self) -> bool:
        """Tell whether a decoder gives time stamps in another order than frames: AVI has those of decoding."""
        return self.container in SHUFFLED

    @property
    def cuttable(self) -> bool:
        """Tell whether decoding can start at any key frame and frames be told by their time stamps."""
        if self.container == "avi" and self.codec not in ORDERED_IN_AVI:
            return False  # AVI stores the order of decoding only
        return self.container in INDEXED and self.codec in CUTTABLE and self.timed and self.whole


def read_index(path: str) -> Index:
    """Demux the whole file, decoding nothing. Of several video streams, the best is chosen.

    Raises:
        VideoError: the file cannot be read.
    """
    with opened(path) as (container, streams):
        tracks = {stream.index: _Track(stream) for stream in streams}
        claims = {stream.index: _claimed_duration(container, stream) for stream in streams}
        everything = any(from_container for _, from_container in claims.values())
        if not everything:
            leave_out_others(container, streams)
        problems: list[str] = []
        furthest, count = 0.0, 0
        for packet in packets(container, None if everything else streams, problems):
            if everything:
                furthest = max(furthest, _end_of(packet))
            track = tracks.get(packet.stream_index)
            if track is None or not packet.size:
                continue
            track.take(packet)
            count += 1
            if count >= MOST_PACKETS:
                break
        track = _best(list(tracks.values()))
        stream = track.stream
        times, order, timed = track.times()
        index = Index(
            container=container.format.name.split(",")[0],
            codec=stream.codec_context.name,
            stream=stream.index,
            alone=len(container.streams.video) == 1,
            aspect=pixel_aspect(stream.sample_aspect_ratio),
            start=0.0,
            time_base=float(stream.time_base),
            pts=times,
            key=np.asarray(track.key, bool),
            timed=timed,
            whole=track.whole and not problems and bool(track.key) and track.key[0] and order[0] == 0,
            claimed=None,
            rate=_rate(stream, timed),
            tail=float((track.last or 0) * stream.time_base),
            order=order,
        )
        beginning = max(container.start_time or 0, 0) / av.time_base  # before 0 is sound that is not played
        claimed, from_container = claims[stream.index]
        if from_container and claimed is not None and not problems:
            # The container speaks for all its streams; a longer sound track is no missing video
            claimed = max(index.span, claimed - (furthest - beginning) + index.span) if furthest else claimed
        index.claimed = claimed
        if index.shuffled:
            _time_avi(index, path)
        elif timed and index.frame_count and container.start_time is not None:
            origin = 0.0 if index.container in FROM_ZERO else beginning
            index.start = max(float(times[order[0]] * stream.time_base) - origin, 0.0)
        index.tail = min(index.tail or 1 / index.rate, LONGEST_TAIL)
        return index


def _time_avi(index: Index, path: str) -> None:
    """Start and end of an AVI, which stores frames by the order of decoding and says "no frame" for dropped ones."""
    step = float(np.median(np.diff(index.seconds))) if index.frame_count > 1 and index.timed else 0.0
    first = float(index.pts[index.order[0]]) * index.time_base if step else 0.0
    index.start = first if first > DELAY * step else 0.0  # less is a decoder's delay
    ticks = avi_ticks(path, index.stream)
    if ticks is not None and index.timed:
        index.claimed = ticks * index.time_base - index.start
        index.tail = max(index.claimed - index.span, step)
    elif index.claimed is not None:
        index.claimed -= index.start


class _Track:
    """One video stream while its packets are read: those that give a frame, in stored order."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.pts: list[int] = []
        self.key: list[bool] = []
        self.timed = self.whole = True
        self.latest, self.last = -(2**63), 0  # the packet shown last, and how long
        self.vp8 = stream.codec_context.name in ("vp8", "libvpx")
        self.mpeg4 = stream.codec_context.name == "mpeg4"

    def take(self, packet: Any) -> None:
        if packet.is_corrupt or packet.is_discard or (self.mpeg4 and packet.size <= PACKED):
            self.whole = False
        if packet.is_discard or (self.vp8 and not _shown_vp8(packet)):
            return
        self.timed = self.timed and packet.pts is not None
        pts = packet.pts if packet.pts is not None else 0
        self.pts.append(pts)
        self.key.append(packet.is_keyframe)
        if pts >= self.latest:
            self.latest, self.last = pts, packet.duration or 0

    def times(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """Compute time stamps in stored order, the order they are shown in, and whether they tell frames apart."""
        times = np.asarray(self.pts if self.timed else [0] * len(self.pts), np.int64)
        return times, np.argsort(times, kind="stable"), self.timed and len(np.unique(times)) == len(times)

    @property
    def count(self) -> int:
        return len(self.pts)

    @property
    def area(self) -> int:
        return int(self.stream.codec_context.width * self.stream.codec_context.height)


def _best(tracks: list[_Track]) -> _Track:
    """Choose the stream to watch.

    Still pictures come last, then masks without colour, then thumbnails, then what is not the default.
    """
    most = max(track.count for track in tracks)

    def moves(track: _Track) -> bool:
        return track.count > 1 and track.count * SLIDES >= most

    def coloured(track: _Track) -> bool:
        return not str(track.stream.codec_context.pix_fmt).startswith(("gray", "mono"))

    def default(track: _Track) -> bool:
        return bool(track.stream.disposition & av.stream.Disposition.default)

    def large(track: _Track) -> bool:
        return track.area * THUMBNAIL >= largest

    for fits in (moves, coloured, large, default):
        largest = max(track.area for track in tracks)
        tracks = [track for track in tracks if fits(track)] or tracks
    return max(tracks, key=lambda track: (track.area, track.count, -track.stream.index))


def _claimed_duration(container: Any, stream: Any) -> tuple[float | None, bool]:
    """Seconds promised, and whether it is the container's word, which covers sound too."""
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
        if (
            container.format.name == "avi"
        ):  # FFmpeg shortens it to fit a file cut short; the frame count stays
            duration = max(duration, stream.frames / _rate(stream))
        return duration, container.format.name == "asf"
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = tag.split(":")
        # Matroska's tag counts from zero, not from the first frame
        start = max(float((stream.start_time or 0) * stream.time_base), 0.0)
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start, False
    except ValueError:
        pass
    return (container.duration / av.time_base, True) if container.duration else (None, False)


def _end_of(packet: Any) -> float:
    if packet.pts is None or not packet.size:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _shown_vp8(packet: Any) -> bool:
    """VP8 stores frames that are only referred to as packets of their own; bit 4 of the frame tag says so."""
    return bool(memoryview(packet)[0] & 0x10)


def _rate(stream: Any, timed: bool = True) -> float:
    """Estimate frames a second. Without time stamps FFmpeg's average counts packets, which may be single fields."""
    rates = (stream.average_rate, stream.guessed_rate)
    for rate in rates if timed else reversed(rates):
        if rate and 0.01 < float(rate) < 1000:
            return float(rate)
    return 25.0  # unknown: times then only order the frames
