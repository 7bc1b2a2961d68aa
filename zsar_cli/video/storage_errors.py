"""What a storage's driver raises, as the error of one video: its kind, and whether it may pass."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any

from zsar_cli.errors import VideoError
from zsar_cli.files import NO_ROOM, TEMPORARY_FULL
from zsar_cli.video.address import public

AGAIN = frozenset(("fetch_timeout", "unreachable", "truncated"))  # kinds of error that may pass
_PASSING = {408: "request timeout", 425: "too early", 429: "too many requests"}  # and all from 500 on
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://[^\s'\"<>)]+", re.I)
_NO_CREDENTIALS = re.compile(
    r"credential|access ?key|unauthori[sz]ed|forbidden|not authenticated|\btoken\b", re.I
)


# Exceptions of aiohttp, httpx, urllib3, botocore and Python itself; SSL errors are none of them
_NO_CONNECTION = re.compile(
    "Connector(DNS)?Error|ProxyConnectionError|Connect(ion)?Timeout|ConnectError|ConnectionRefused|EndpointConnection"
    "|gaierror|NewConnection|NameResolution"
)


class NoConnectionError(VideoError):
    """No connection to a host comes about: it does not exist, refuses, or does not answer."""


def explained(error: BaseException, url: str) -> VideoError:
    """Say of a driver's error what a record says: not_found, permission, fetch_timeout, unreachable or not_a_file.

    No message has more of an address than :func:`zsar_cli.video.address.public` leaves.
    """
    if isinstance(error, VideoError):
        return error
    chain = list(_causes(error))
    if any(re.search("payload|incomplete", type(one).__name__, re.I) for one in chain):
        return VideoError("truncated", "the storage ended its answer too early; try again later")
    status = next((found for one in chain if (found := _status(one)) is not None), None)
    if status is not None:
        return of_status(status)
    if any(isinstance(one, FileNotFoundError) for one in chain):
        return of_status(404)
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return VideoError("not_a_file", "this is a folder; end it with / to search it for videos")
    detail = _ADDRESS.sub(lambda found: public(found[0]), _first_line(error).replace(url, public(url)))
    late = any(isinstance(one, TimeoutError) or "timeout" in type(one).__name__.lower() for one in chain)
    reached = "the storage could not be reached ({}); try again later"
    if any(_NO_CONNECTION.search(type(one).__name__) for one in chain):
        return NoConnectionError("unreachable", reached.format("no connection in time" if late else detail))
    if any(isinstance(one, PermissionError) or _NO_CREDENTIALS.search(_named(one)) for one in chain):
        return of_status(403)
    if late:
        return VideoError("fetch_timeout", "the storage did not answer in time; try again later")
    if isinstance(error, (ValueError, TypeError, NotImplementedError)):
        return VideoError("unsupported", f"this address cannot be read ({detail}); check how it is written")
    return VideoError("unreachable", reached.format(detail))


def changed() -> VideoError:
    """Say that an object is another than when its reading began."""
    return VideoError("changed", "the object changed while it was read; run it again")


def of_status(status: int) -> VideoError:
    """Say what a status of HTTP means."""
    if status in (404, 410):
        return VideoError("not_found", "there is no such object; check the address")
    if status in (401, 403):
        return VideoError(
            "permission", "the storage denies access; check the credentials, or whether the link has expired"
        )
    if status in _PASSING or status >= 500:
        reason = _PASSING.get(status, "an error of the server")
        return VideoError("unreachable", f"the storage answers {status} ({reason}); try again later")
    return VideoError("refused", f"the storage answers {status} and gives nothing; check the address")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """Find the status of HTTP that a driver was answered with: of aiohttp, httpx, botocore or Google's libraries."""
    if type(error).__module__ == "aiohttp.http_exceptions":  # its own, of answers that it cannot read
        return None
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None)
    for name in ("status", "status_code", "code"):
        found = found if found is not None else getattr(error, name, None)
    return int(found) if re.fullmatch(r"[45]\d\d", str(found)) else None


def _named(error: BaseException) -> str:
    return f"{type(error).__name__} {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    text = getattr(error, "strerror", None) or str(error)
    if number in (errno.ECONNREFUSED, errno.ECONNRESET):
        text = errno.errorcode[number]
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]


def no_room(error: OSError, folder: str) -> VideoError | None:
    """Say that the temporary folder is full; None where it is something else."""
    return VideoError("no_space", f"the {TEMPORARY_FULL.format(folder)}") if error.errno in NO_ROOM else None
