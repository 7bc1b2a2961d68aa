"""Objects in storage, by fsspec's drivers: what is known of one, which videos a folder has, and ranges of bytes."""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from zsar_cli.errors import UsageError, VideoError
from zsar_cli.video.address import WEB, path_of, public, scheme_of
from zsar_cli.video.find import VIDEO_ENDINGS, ending, left_out, tell_passed_over
from zsar_cli.video.storage_errors import changed, explained

CONNECT_LIMIT = 10.0  # s that a connection on the web may take
REQUEST_LIMIT = 300.0  # s that an answer may take, where the driver can be told
REMEMBERED = 100_000  # objects whose state is kept after a folder was listed
PACKAGES = {  # of drivers that do not come with zsar
    **dict.fromkeys(("s3", "s3a"), "zsar-cli[s3]"),
    **dict.fromkeys(("gs", "gcs"), "zsar-cli[gs]"),
    **dict.fromkeys(("az", "abfs", "adl"), "adlfs"),
    **dict.fromkeys(("ssh", "sftp"), "paramiko"),
    **dict.fromkeys(WEB, "aiohttp"),
    "smb": "smbprotocol",
    "hf": "huggingface_hub",
}
TAGS = ("ETag", "etag", "blob_id", "version_id", "generation", "content_hash", "md5Hash", "mtime")
TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "modified", "created")
PART = 8 * 2**20  # bytes of a range
BLOCK = 2**20  # bytes of an object of unknown size that are read together


@dataclass(frozen=True)
class State:
    """What tells an object from a later one at the same address. ``tag``: its etag, version or time of change."""

    size: int | None
    tag: str | None

    def to_record(self) -> dict[str, Any]:
        """Make what records say of it."""
        return {key: value for key, value in (("size", self.size), ("etag", self.tag)) if value is not None}


_states: OrderedDict[str, State] = OrderedDict()  # by public address, of what was listed or fetched last
_systems: dict[str, Any] = {}
_lock = threading.Lock()


def use_options(path: Path) -> None:
    """Take options for drivers from a JSON file: ``{"s3": {"endpoint_url": "http://..."}}``.

    They become fsspec's own configuration, as its environment variables and its configuration files do.

    Raises:
        UsageError: it is no such file. The message has none of its values, which may be secrets.
    """
    import fsspec.config

    from zsar_cli.files import read_text

    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON, as --storage-options needs it.") from error
    if not isinstance(found, dict) or not all(isinstance(options, dict) for options in found.values()):
        raise UsageError(
            f'{path} must map schemes to options of their drivers, such as {{"s3": {{"anon": true}}}}.'
        )
    for scheme, options in found.items():
        fsspec.config.conf.setdefault(scheme, {}).update(options)
    _systems.clear()


def file_system(url: str) -> tuple[Any, str]:
    """Find the file system of an address, and what it calls the object.

    Raises:
        VideoError: unsupported: its driver is not installed, or cannot start.
    """
    import fsspec
    from fsspec.config import conf

    scheme = scheme_of(url) or ""
    try:
        kind = fsspec.get_filesystem_class(scheme)
        options = kind._get_kwargs_from_urls(url)
        if scheme in WEB and "client_kwargs" not in conf.get(scheme, {}):
            options["client_kwargs"] = _web_client()
        key = f"{scheme} {options!r}"
        with _lock:  # one for all threads: fsspec itself would make one for each
            if key not in _systems:
                _systems[key] = kind(**options)
        return _systems[key], str(kind._strip_protocol(url))
    except ImportError as error:
        package = PACKAGES.get(scheme)
        if package is None:
            raise VideoError(
                "unsupported", f"{scheme}:// needs a driver that is not installed: {error}"
            ) from None
        raise VideoError(
            "unsupported", f"{scheme}:// needs another package: pip install '{package}'"
        ) from None
    except Exception as error:  # whatever a driver says of its options and of credentials that are not there
        raise explained(error, url) from None


def _web_client() -> dict[str, Any]:
    import aiohttp

    # However long a large file takes, an answer that stops coming is given up; proxies as the environment has them
    return {
        "timeout": aiohttp.ClientTimeout(total=None, connect=CONNECT_LIMIT, sock_read=60),
        "trust_env": True,
    }


def call(system: Any, method: str, *arguments: Any, **options: Any) -> Any:
    """Call a method of a file system, for ``REQUEST_LIMIT`` s where it can be stopped."""
    if not getattr(system, "async_impl", False):
        return getattr(system, method)(*arguments, **options)
    from fsspec.asyn import sync

    return sync(system.loop, getattr(system, f"_{method}"), *arguments, timeout=REQUEST_LIMIT, **options)


# --- what is known of an object -----------------------------------------------------------------------------------


def known_state(url: str) -> State | None:
    """Say what was last heard of an object, without asking."""
    with _lock:
        return _states.get(public(url))


def remember(url: str, state: State) -> State:
    """Keep what was heard of an object."""
    with _lock:
        _states[public(url)] = state
        _states.move_to_end(public(url))
        if len(_states) > REMEMBERED:
            _states.popitem(last=False)
    return state


def state_of(url: str, *, fresh: bool = False) -> State:
    """Ask for an object's size and etag, unless they are known.

    Raises:
        VideoError: see :func:`explained`.
    """
    if not fresh and (state := known_state(url)) is not None:
        return state
    system, path = file_system(url)
    try:
        if fresh:
            system.invalidate_cache()
        info = call(system, "info", path)
    except Exception as error:
        raise explained(error, url) from None
    if info.get("type") not in ("file", None):
        raise VideoError("not_a_file", "this is a folder; end it with / to search it for videos")
    return remember(url, _state(info))


def _state(info: dict[str, Any]) -> State:
    size = info.get("size")
    tag = next((str(info[key]) for key in (*TAGS, *TIMES) if info.get(key) not in (None, "")), None)
    return State(size if isinstance(size, int) and size >= 0 else None, tag and tag[:200])


# --- folders ------------------------------------------------------------------------------------------------------


def is_folder(url: str) -> bool:
    """Tell whether an address that someone typed is a folder. Of the web, only the stroke at its end tells."""
    if url.endswith("/"):
        return True
    if scheme_of(url) in WEB or ending(path_of(url)) in VIDEO_ENDINGS:
        return False
    system, path = file_system(url)
    try:
        return bool(call(system, "info", path).get("type") == "directory")
    except Exception:  # its record says it, or nothing is below it
        return False


def is_pattern(url: str) -> bool:
    """Tell whether an address is a pattern. ``?`` begins a query on the web, and brackets occur in signed links."""
    if scheme_of(url) in WEB:
        return "*" in path_of(url)
    return any(mark in path_of(url) for mark in "*?[") and not _exists(url)


def _exists(url: str) -> bool:
    system, path = file_system(url)
    with suppress(Exception):
        return bool(call(system, "info", path).get("type") == "file")
    return False


def videos_below(url: str) -> Iterator[str]:
    """Yield every video in a folder of a storage and its folders, or of those that a pattern stands for, sorted.

    By its ending alone, as elsewhere; of WebP and AVIF, which may be stills, none. What is passed over is logged.

    Raises:
        UsageError: the folder cannot be listed.
    """
    pattern = not url.endswith("/") and is_pattern(url)
    system, path = file_system(url)
    try:
        found = call(system, "glob" if pattern else "find", path, detail=True)
        if not found and not pattern:  # of many drivers, an error shows here alone
            call(system, "ls", path, detail=True)
        if pattern:
            folders = [name for name, info in found.items() if info.get("type") == "directory"]
            for folder in folders:
                found |= call(system, "find", folder, detail=True)
    except Exception as error:
        failed = explained(error, url)
        raise UsageError(f"{public(url)} cannot be listed: {failed.message}.") from None
    finally:
        system.invalidate_cache()  # millions of entries, which are read once
    passed: Counter[str] = Counter()
    for name in sorted(found):
        info = found[name]
        if info.get("type") != "file":
            continue
        below = name.removeprefix(path)
        end = ending(path_of(name) if "://" in name else name)
        if any(map(left_out, filter(None, below.split("/")))):
            continue
        if end in VIDEO_ENDINGS - {"webp", "avif"}:
            address = _address(url, path, name)
            remember(address, _state(info))
            yield address
        else:
            passed[end] += 1
    tell_passed_over(public(url), passed)


def _address(url: str, path: str, name: str) -> str:
    """Write the address of what was found as the folder's was written: its scheme and its host stay.

    ``path``: what the file system calls the folder; ``name``: the object.
    """
    if "://" in name:
        return name
    start, _, tail = url.partition("://")
    tail, called = tail.rstrip("/"), path.strip("/")
    host = tail[: len(tail) - len(called)] if tail.endswith(called) else ""
    return f"{start}://{host}{name.lstrip('/')}"


# --- bytes --------------------------------------------------------------------------------------------------------


def begin(url: str, out: IO[bytes], most: int, room: Callable[[int | None], None], *, fresh: bool) -> State:
    """Ask for an object's state, and for room for it; one of unknown size is written to ``out`` at once.

    Raises:
        VideoError: see :func:`zsar_cli.video.storage_errors.explained`; too_large.
    """
    state = state_of(url, fresh=fresh)
    check_size(state.size, most)
    room(state.size)
    if state.size is not None:
        return state
    system, path = file_system(url)
    try:
        with system.open(path, "rb") as stream:
            while block := stream.read(BLOCK):
                out.write(block)
                check_size(out.tell(), most)
    except VideoError:
        raise
    except Exception as error:
        raise explained(error, url) from None
    return remember(url, State(out.tell(), state.tag))


def read_parts(url: str, state: State, parts: Sequence[tuple[int, int]]) -> list[bytes | VideoError]:
    """Read ranges of an object at the same time: the bytes of each, or why they did not come."""
    system, path = file_system(url)
    # One byte more than there is: an object that grew shows
    starts, ends = [start for start, _ in parts], [end + (end == state.size) for _, end in parts]
    try:
        found = call(system, "cat_ranges", [path] * len(parts), starts, ends, on_error="return")
    except Exception as error:
        found = [error] * len(parts)
    return [
        explained(part, url) if isinstance(part, BaseException) else whole(bytes(part), end - start)
        for part, (start, end) in zip(found, parts, strict=True)
    ]


def whole(part: bytes, size: int) -> bytes | VideoError:
    """Give back a range that has as many bytes as it should."""
    if len(part) == size:
        return part
    if len(part) > size:
        return changed()
    return VideoError("truncated", f"the storage gave {len(part):,} of {size:,} bytes of a part")


def check_size(size: int | None, most: int) -> None:
    """Raise VideoError where an object is empty, or larger than ``most`` bytes."""
    if size == 0:
        raise VideoError("unreadable", "the object is empty; upload it again")
    if size is not None and size > most:
        raise VideoError("too_large", f"it has more than {most:,} bytes; allow more with --max-bytes")
