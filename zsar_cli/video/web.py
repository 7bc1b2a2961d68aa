"""Objects on the web, by aiohttp's session in fsspec's driver.

The first request is for the first part already: many signed links allow no HEAD, and some servers know no ranges and
send all of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import IO, Any

from fsspec.asyn import sync

from zsar_cli.errors import VideoError
from zsar_cli.files import NO_ROOM
from zsar_cli.video.storage import BLOCK, PART, REQUEST_LIMIT, State, check_size, file_system, remember, whole
from zsar_cli.video.storage_errors import changed, explained, of_status

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def begin(url: str, out: IO[bytes], most: int, room: Callable[[int | None], None], *, fresh: bool) -> State:
    """Write the first part of an object to ``out``, or all of it where the server knows no ranges.

    Raises:
        VideoError: see :func:`zsar_cli.video.storage_errors.explained`; too_large.
    """
    system, path = file_system(url)
    try:
        response, state, first = sync(system.loop, _open, system, path, timeout=REQUEST_LIMIT)
        try:
            check_size(state.size, most)
            room(state.size)
            if first is not None:
                out.write(first)
                return remember(url, state)
            while block := sync(system.loop, _block, response.content, timeout=REQUEST_LIMIT):
                out.write(block)
                check_size(out.tell(), most)
        finally:
            system.loop.call_soon_threadsafe(response.close)
    except OSError as error:
        if error.filename is not None or error.errno in NO_ROOM:  # of the temporary file
            raise
        raise explained(error, url) from None
    except Exception as error:
        raise explained(error, url) from None
    check_size(out.tell(), most)
    return remember(url, State(out.tell(), state.tag))


def read_parts(url: str, state: State, parts: Sequence[tuple[int, int]]) -> list[bytes | VideoError]:
    """Read ranges of an object at the same time: the bytes of each, or why they did not come."""
    system, path = file_system(url)

    async def all_parts() -> list[bytes | BaseException]:
        asked = (_part(system, path, state, *part) for part in parts)
        return await asyncio.gather(*asked, return_exceptions=True)

    try:
        found: list[Any] = sync(system.loop, all_parts, timeout=REQUEST_LIMIT)
    except Exception as error:
        found = [error] * len(parts)
    return [
        explained(part, url) if isinstance(part, BaseException) else whole(part, end - start)
        for part, (start, end) in zip(found, parts, strict=True)
    ]


async def _open(system: Any, path: str) -> tuple[Any, State, bytes | None]:
    """Ask for the first part: the answer, what it says of the object, and the part where it is no more than that."""
    response = await _get(system, path, 0, PART)
    try:
        if response.status == 416:  # of an object of no bytes, no range can be given
            return response, State(0, None), b""
        if response.status >= 400:
            raise of_status(response.status)
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if response.status == 206 and found and found[1] == "0":
            part = await response.read()
            state = State(int(found[3]), _tag(response))
            short = whole(part, min(PART, int(found[3])))
            if isinstance(short, VideoError):
                raise short
            return response, state, part
        packed = response.headers.get("Content-Encoding", "identity") != "identity"
        return response, State(None if packed else response.content_length, _tag(response)), None
    except BaseException:
        response.close()
        raise


async def _part(system: Any, path: str, state: State, start: int, end: int) -> bytes:
    async with await _get(system, path, start, end) as response:
        if response.status >= 400 and response.status != 416:
            raise of_status(response.status)
        if response.status != 206 or _tag(response) != state.tag:
            raise changed()
        return bytes(await response.read())


async def _get(system: Any, path: str, start: int, end: int) -> Any:
    session = await system.set_session()
    options = dict(system.kwargs)
    headers = {
        **options.pop("headers", {}),
        "Range": f"bytes={start}-{end - 1}",
        "Accept-Encoding": "identity",
    }
    return await session.get(system.encode_url(path), headers=headers, **options)


async def _block(content: Any) -> bytes:
    parts, size = [], 0
    while size < BLOCK and (part := await content.read(BLOCK - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _tag(response: Any) -> str | None:
    tag: str | None = response.headers.get("ETag") or response.headers.get("Last-Modified")
    return tag and tag[:200]
