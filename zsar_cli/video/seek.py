"""A few frames of a long file: decoding starts at the key frames before them, where the index can be trusted."""

from __future__ import annotations

from typing import Any

import av
import numpy as np

from zsar_cli.errors import VideoError
from zsar_cli.video.container import demuxed, opened
from zsar_cli.video.frames import Choose, DecodedVideo, KeptFrames, Resize, chosen
from zsar_cli.video.probe import Index
from zsar_cli.video.times import shortfall, timing
from zsar_cli.video.upright import to_rgb

THREADED = {"h264", "hevc"}  # codecs whose frames several threads decode at the same time
SEEK_GAIN = 0.2  # seeking must spare at least this much of the decoding to be worth its risk
REFERRED = 0.6  # about the share of the decoding in H.264 that goes into frames to which others refer
Run = tuple[int, int, list[int]]  # first packet, last packet that is needed, numbers of the wanted frames


def read_seeking(
    path: str, index: Index, choose: Choose, resize: Resize | None, threads: int = 1
) -> DecodedVideo | None:
    """Decode only from the key frames before the wanted frames, in so many threads.

    Returns:
        None where that is not worth it, or not to be trusted.

    Raises:
        VideoError: there is not enough memory.
    """
    if not index.cuttable:
        return None
    indices = chosen(choose, index.frame_count)
    times = index.pts[index.order]
    runs = _runs(index, sorted(set(indices)))
    cost = sum(last - first + 1 for first, last, _ in runs) * (REFERRED if index.codec == "h264" else 1.0)
    if cost > (1 - SEEK_GAIN) * index.frame_count:
        return None
    # In an open group some frames lean on the group before, which several threads report as damage: one does not
    for number in dict.fromkeys((threads if index.codec in THREADED else 1, 1)):
        kept = KeptFrames(resize)
        if _decode_runs(path, index, runs, kept, number):
            info, seconds, _ = timing(times.tolist(), index, kept.size)
            return kept.video(indices, seconds, info, shortfall(info, index, []))
    return None


def _decode_runs(path: str, index: Index, runs: list[Run], kept: KeptFrames, threads: int) -> bool:
    """Decode all runs of packets. False as soon as anything differs from what the index says, or is damaged."""
    try:
        with opened(path, index.stream, threads) as (container, stream):
            return all(_decode_run(container, stream, index, run, kept, threads) for run in runs)
    except (av.error.FFmpegError, VideoError) as error:
        if isinstance(error, MemoryError) or getattr(error, "kind", "") == "memory":
            raise
        return False


def _runs(index: Index, wanted: list[int]) -> list[Run]:
    """Group wanted frames by the key packet to start at.

    A frame is reached from the last key packet that is stored before it and shown no later than it. After the key
    frame of an open group come frames that lean on the group before, but those are shown before it.
    """
    keys = np.flatnonzero(index.key)
    runs: list[Run] = []
    for number in wanted:
        packet = int(index.order[number])
        before = keys[(keys <= packet) & (index.pts[keys] <= index.pts[packet])]
        first = int(before[-1])
        if runs and runs[-1][0] == first:
            runs[-1] = (first, max(runs[-1][1], packet), [*runs[-1][2], number])
        else:
            runs.append((first, packet, [number]))
    return runs


def _decode_run(container: Any, stream: Any, index: Index, run: Run, kept: KeptFrames, threads: int) -> bool:
    """Decode one run of packets. False as soon as anything differs from what the index says, or is damaged.

    All frames that are decoded for the wanted ones must be whole, also those that are shown later: nothing tells which
    of them a frame leans on. One thread is emptied for that; several tell nothing of damage as they are emptied.
    """
    first, last, numbers = run
    wanted = {int(index.pts[index.order[number]]): number for number in numbers}
    begin, end, latest = (
        int(pts) for pts in (index.pts[first], index.pts[last], max(index.pts[first : last + 1]))
    )
    container.seek(begin, stream=stream, backward=True, any_frame=False)
    context = stream.codec_context
    started, shown = False, begin
    for packet in demuxed(container, stream):
        if packet.size and not started:
            if packet.pts is None or packet.pts > begin:
                return False
            started = packet.pts == begin
        if context.name == "h264":
            # Nothing refers to these frames, so leaving them out changes no other
            context.skip_frame = "DEFAULT" if packet.pts in wanted or not packet.size else "NONREF"
        ended = started and threads == 1 and packet.pts == end
        for frame in [*packet.decode(), *(context.decode(None) if ended else ())]:
            if frame.is_corrupt and (frame.pts is None or frame.pts >= begin):
                return False
            shown = max(shown, frame.pts or begin)
            if frame.pts in wanted:
                kept.keep(wanted.pop(frame.pts), to_rgb(frame, index.aspect))
        if ended or (not wanted and shown >= latest):
            return started and not wanted
    return started and not wanted
