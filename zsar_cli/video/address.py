"""Addresses of videos in storage (``s3://bucket/clip.mp4``): which texts are some, and how they are shown."""

from __future__ import annotations

import difflib
import posixpath
import re
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit, urlunsplit

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.I)  # of two letters at least: C: is a drive
# Schemes of fsspec that are no storage: those of this machine's files, and those that wrap another file system
# fmt: off
_NOT_STORAGE = frozenset((
    "asynclocal", "async_wrapper", "asyncwrapper", "blockcache", "cached", "data", "dir", "file", "filecache",
    "generic", "libarchive", "local", "reference", "simplecache", "tar", "zip",
))
# fmt: on
WEB = ("http", "https")
# Parameters that give access to whoever has them. Those of the second kind are such only beside one of the first
_SECRET = re.compile(
    r"x-(amz|goog|oss|obs)-.*|signature|sig|token|access_token|auth_token|awsaccesskeyid|googleaccessid|key-pair-id"
    r"|hdnea|hdnts|hdntl",
    re.I,
)
_OF_A_SIGNATURE = re.compile(
    r"expires|policy|se|sp|sv|sr|st|spr|sip|ss|srt|sks|skoid|sktid|skt|ske|skv", re.I
)


def scheme_of(text: str) -> str | None:
    """Find the scheme of an address, in small letters; None where there is none."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else None


def is_remote(text: Any) -> bool:
    """Tell whether it is an address in a storage that fsspec knows; whether its driver is there is another matter."""
    scheme = scheme_of(text) if isinstance(text, str) else None
    return scheme is not None and _is_storage(scheme)


@cache
def _known_schemes() -> frozenset[str]:
    from fsspec.registry import known_implementations

    return frozenset(known_implementations) - _NOT_STORAGE


def _is_storage(scheme: str) -> bool:
    from fsspec.registry import registry  # with those that a program has registered itself

    return scheme in _known_schemes() or (scheme in registry and scheme not in _NOT_STORAGE)


def suggestion(scheme: str) -> str:
    """Suggest a scheme that is spelt nearly so, as the end of a sentence."""
    near = difflib.get_close_matches(
        scheme, ["https", "http", "s3", "gs", "hf", *_known_schemes()], n=1, cutoff=0.6
    )
    return f"; did you mean {near[0]}://?" if near else ""


def public(url: str) -> str:
    """Leave out what gives access to whoever reads it: a password, and the signature of a signed link.

    So is an address called in records, logs and caches. A link that was signed again is the same video.
    """
    scheme = scheme_of(url)
    if scheme is None:
        return url
    url = re.sub(r"^([^/]*//)([^/@:]*)(:[^/]*)?@", lambda m: f"{m[1]}{m[2]}@" if m[2] else m[1], url)
    if scheme not in WEB or "?" not in url:
        return url
    start, _, query = url.partition("?")
    query, mark, fragment = query.partition("#")
    fields = query.split("&")
    names = [field.partition("=")[0] for field in fields]
    signed = any(map(_SECRET.fullmatch, names))
    kept = [
        field
        for field, name in zip(fields, names, strict=True)
        if not (_SECRET.fullmatch(name) or (signed and _OF_A_SIGNATURE.fullmatch(name)))
    ]
    return start + ("?" + "&".join(kept) if kept else "") + mark + fragment


def path_of(url: str) -> str:
    """Find the part that names a file: without the scheme, and of a web address without its query."""
    if scheme_of(url) in WEB:
        # Not by urlsplit, which raises ValueError for a host such as "[x", and lists have everything
        return unquote_to_bytes(re.split("[?#]", re.sub("^[^/]*//[^/?#]*", "", url))[0]).decode(
            "utf-8", "replace"
        )
    return url.partition("://")[2]


def beside(url: str, entry: str) -> str:
    """Find what a path means in a list that lies at ``url``: it starts from the list's folder."""
    if scheme_of(url) in WEB:
        parts = urlsplit(url)
        folder = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        with suppress(ValueError):  # a host that is none
            return urljoin(folder, entry.replace("\\", "/"))
        return entry
    start, _, path = url.partition("://")
    store, _, inside = path.partition("/")
    if start.lower() == "memory":  # which has no stores
        store, inside = "", path.lstrip("/")
    joined = posixpath.normpath(
        "/" + posixpath.join(posixpath.dirname(inside), entry)
    )  # no higher than the store
    return f"{start}://{store}{joined}"
