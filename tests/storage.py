"""Storage to test with: one that counts and fails, and a server on 127.0.0.1."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from fsspec.spec import AbstractFileSystem


class TrialStorage(AbstractFileSystem):
    """Objects in memory behind ``trial://``. ``plans``: what the next reads of an object meet, in place of bytes."""

    protocol = "trial"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    tags: ClassVar[dict[str, str]] = {}
    plans: ClassVar[dict[str, list[Any]]] = {}
    bytes_read: ClassVar[Counter[str]] = Counter()
    asked: ClassVar[Counter[str]] = Counter()

    @classmethod
    def empty(cls) -> None:
        for store in (cls.objects, cls.tags, cls.plans, cls.bytes_read, cls.asked):
            store.clear()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        self.asked[path] += 1
        if path in self.objects:
            return self._entry(path)
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def _entry(self, path: str) -> dict[str, Any]:
        return {
            "name": path,
            "size": len(self.objects[path]),
            "type": "file",
            "ETag": self.tags.get(path, "1"),
        }

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        self.asked["ls"] += 1
        found: dict[str, Any] = {}
        for name in self.objects:
            if name == path or name.startswith(f"{path}/" if path else ""):
                first = name[len(path) :].lstrip("/").partition("/")
                whole = f"{path}/{first[0]}".strip("/")
                entry = {"name": whole, "size": 0, "type": "directory"} if first[1] else self._entry(name)
                found[whole] = entry
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        plan = self.plans.get(path)
        met = plan.pop(0) if plan else None
        if isinstance(met, BaseException):
            raise met
        if callable(met):
            met()
        found = self.objects[path][start:end]
        if met == "short":
            found = found[: len(found) // 2]
        self.bytes_read[path] += len(found)
        return found


class WebHandler(BaseHTTPRequestHandler):
    """The first folder of an address says how the server behaves; the rest names an object."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}
    sent: ClassVar[Counter[str]] = Counter()  # bytes of bodies
    asked: ClassVar[list[tuple[str, str]]] = []
    fail: ClassVar[list[int]] = []  # the next answers

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.asked.append((self.command, self.path))
        way, _, name = self.path.partition("?")[0].lstrip("/").partition("/")
        data = self.objects.get(name)
        if self.fail and body:
            return self._status(self.fail.pop(0))
        if way == "moved":
            return self._status(302, Location=f"/ranges/{name}")
        if way == "signed" and not body:
            return self._status(403)
        if data is None:
            return self._status(404)
        wanted = self.headers.get("Range")
        if wanted and way in ("ranges", "signed", "moved"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data)) + 1, len(data))
            if start >= len(data):
                return self._status(416)
            extra = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}", "ETag": f'"{len(data)}"'}
            return self._send(206, data[start:end], body, **extra)
        if way == "chunked":
            return self._send(200, data, body, chunked=True)
        if way == "cut":
            return self._send(200, data, body, length=len(data) + 100)
        return self._send(200, data, body)

    def _status(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    def _send(
        self, status: int, data: bytes, body: bool, *, chunked: bool = False, length: int = 0, **headers: str
    ) -> None:
        self.send_response(status)
        size = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(length or len(data))}
        for key, value in {**size, **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.sent[self.path] += len(data)
            chunk = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
            self.wfile.write(chunk + b"0\r\n\r\n" if chunked else data)
        if length:
            self.close_connection = True


def serve() -> tuple[ThreadingHTTPServer, str]:
    """Start the server, and give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), WebHandler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"
