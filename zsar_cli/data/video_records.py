"""JSON lists of videos: records, also one a line, and maps from a video to its label or record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zsar_cli.data.rows import Row, has_video, of_split
from zsar_cli.encodings import lines_of
from zsar_cli.errors import UsageError

# Keys that name the video and its label, the surest first
_VIDEOS = (
    *("filename", "file_name", "video_dir", "video", "path", "video_path", "file_path", "file", "frame_dir"),
    *("filepath", "clip", "video_name", "video_id", "id"),
)
_LABELS = ("template", "label_name", "class_name", "label", "class", "action", "category", "labels", "target")


def is_json(text: str) -> bool:
    """Tell whether a text is a JSON document, or one a line."""
    try:
        _documents(text)
    except (ValueError, RecursionError):
        return False
    return True


def _documents(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        lines = [line for line in lines_of(text) if line.strip()]
        if len(lines) < 2:
            raise
        return [json.loads(line) for line in lines]


def load_records(path: Path, text: str) -> list[dict[str, Any]]:
    """Find a list's records, whatever they are wrapped in. UsageError where there are none."""
    try:
        content = _documents(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON ({error}).") from error
    if isinstance(content, dict) and isinstance(content.get("database"), dict):  # ActivityNet
        content = content["database"]
    if isinstance(content, dict) and (found := _videos_of_classes(content)):
        content = found
    if isinstance(content, dict) and any(key in content for key in _VIDEOS) and not _list_in(content):
        content = [content]
    if isinstance(
        content, dict
    ):  # {"clip.mp4": "label"}, {"ID": {"annotations": ...}} or {"annotations": [...]}
        content = _list_in(content) or [
            {"path": key, **value} if isinstance(value, dict) else {"path": key, "label": value}
            for key, value in content.items()
        ]
    if isinstance(content, list) and content and all(isinstance(r, list) and len(r) == 2 for r in content):
        content = [{"path": video, "label": label} for video, label in content]
    if not isinstance(content, list) or not content or not all(isinstance(r, dict) for r in content):
        raise UsageError(f"{path} must hold a list of records, each with a video and a label.")
    return content


def _videos_of_classes(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Make records of ``{"run": ["a.mp4", "b.mp4"]}``; none where the values do not hold that."""
    if any(map(has_video, content)):
        return []
    if not all(isinstance(v, list) and v and all(isinstance(x, str) for x in v) for v in content.values()):
        return []
    pairs = [(name, video) for name, videos in content.items() for video in videos]
    return (
        [{"path": video, "label": name} for name, video in pairs]
        if all(has_video(v) for _, v in pairs)
        else []
    )


def _list_in(content: dict[str, Any]) -> list[Any] | None:
    lists = (value for value in content.values() if isinstance(value, list) and value)
    return next((value for value in lists if all(isinstance(entry, dict) for entry in value)), None)


def read_records(
    path: Path, records: list[dict[str, Any]], format: str, split: str, label_column: str | None
) -> tuple[list[Row], list[str]]:
    """Read records of the form ``json`` or ``ssv2``, and notes. UsageError naming a record that is wrong."""
    notes = []
    subsets = {value for r in records if isinstance(value := r.get("subset", r.get("split", "")), str)}
    wanted = of_split(split, subsets)
    if wanted is not None:
        chosen = [r for r in records if r.get("subset", r.get("split", "")) == wanted]
        notes.append(f"{len(chosen)} of {len(records)} records belong to the split {wanted!r}")
        records = chosen
    if label_column is None and format == "json":
        label_column = _only_label(path, records)
        notes += [f"labels are taken from {label_column!r}"] if label_column is not None else []
    rows = [
        _row(record, f"Record {i} of {path}", format, label_column) for i, record in enumerate(records, 1)
    ]
    return rows, notes


def _only_label(path: Path, records: list[dict[str, Any]]) -> str | None:
    """Find the only key with a text, where no record has a known one of labels. UsageError where there are several."""
    if any(_first(record, (*_LABELS, "annotations")) is not None for record in records):
        return None
    known = {*_VIDEOS, "subset", "split"}
    texts = [
        key
        for key in records[0]
        if key not in known and all(isinstance(record.get(key), str) for record in records)
    ]
    if len(texts) > 1:
        raise UsageError(
            f"{path}: more than one key could be the label: {', '.join(texts)[:200]}. Select one with --label-column."
        )
    return texts[0] if texts else None


def _row(record: dict[str, Any], where: str, format: str, label_column: str | None) -> Row:
    video = _first(record, _VIDEOS)
    if format == "ssv2":
        video = f"{record['id']}.webm" if "id" in record else None
    if not isinstance(video, (str, int)):
        raise UsageError(f"{where} has no video (expected id, filename, video or path).")
    if label_column is not None and label_column not in record:
        raise UsageError(f"{where} has no {label_column!r}; it has {', '.join(map(str, record))[:200]}.")
    found = record.get("annotations") if label_column is None else None
    if isinstance(found, dict):  # Kinetics: {"annotations": {"label", "segment"}}
        try:
            video = clip_name(str(video), *_two(found.get("segment")))
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{where} has {found['segment']!r} as its segment.") from None
    label = record[label_column] if label_column is not None else _label(record, found)
    labels = label if isinstance(label, list) else [] if label is None else [label]
    if not all(isinstance(entry, (str, int, float)) for entry in labels):
        raise UsageError(
            f"{where}: {str(label)[:80]!r} is not a label; give the key of the label with --label-column."
        )
    labels = [entry if isinstance(entry, int) else str(entry) for entry in labels]
    frames = record.get("total_frames")
    try:
        count = int(frames) if frames is not None else None
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"{where} has {frames!r} as total_frames.") from None
    return Row(str(video), labels[0] if labels else None, count, tuple(dict.fromkeys(labels[1:])))


def _label(record: dict[str, Any], annotations: Any) -> Any:
    if isinstance(annotations, dict):
        return annotations.get("label")
    if isinstance(annotations, list) and all(isinstance(entry, dict) for entry in annotations):
        return list(dict.fromkeys(str(entry["label"]) for entry in annotations if "label" in entry))
    return _first(record, _LABELS)


def _first(record: dict[str, Any], keys: Iterable[str]) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _two(segment: Any) -> tuple[Any, Any]:
    return (segment[0], segment[1]) if isinstance(segment, list) and len(segment) >= 2 else (None, None)


def clip_name(video: str, start: Any, end: Any) -> str:
    """Name a Kinetics clip as it is on disk: ``ID_START_END``."""
    if not video or start in (None, "") or end in (None, ""):
        return video
    return f"{video}_{int(float(start)):06d}_{int(float(end)):06d}"
