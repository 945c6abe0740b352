"""A simple index on the loopback interface, with tiny wheels that are made for a test."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

JSON = "application/vnd.pypi.simple.v1+json"


def wheel_bytes(name: str, version: str, needs: tuple[str, ...] = (), *, tag: str = "py3-none-any") -> bytes:
    """A wheel with one module, whose `VERSION` is its version."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *map("Requires-Dist: {}".format, needs)]
        )
        + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return packed.getvalue()


@dataclass
class IndexServer:
    """What it has, and what it was asked; used as a context it answers."""

    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    broken: bool = False
    delay_seconds: float = 0.0

    def add(
        self,
        name: str,
        version: str,
        needs: tuple[str, ...] = (),
        *,
        tag: str = "py3-none-any",
        metadata: bool = True,
        body: bytes | None = None,
        **fields: Any,
    ) -> bytes:
        """One wheel more; the bytes that its digest is of."""
        content = wheel_bytes(name, version, needs, tag=tag)
        filename = f"{name.replace('-', '_')}-{version}-{tag}.whl"
        listed = {
            "filename": filename,
            "url": f"../../files/{filename}",
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            "size": len(content),
        }
        self.bodies[f"/files/{filename}"] = content if body is None else body
        if metadata:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                text = archive.read(f"{name.replace('-', '_')}-{version}.dist-info/METADATA")
            listed["core-metadata"] = {"sha256": hashlib.sha256(text).hexdigest()}
            self.bodies[f"/files/{filename}.metadata"] = text
        self.files.setdefault(name, []).append(listed | fields)
        return content

    def add_source(self, name: str, version: str) -> None:
        """One source archive more."""
        filename = f"{name}-{version}.tar.gz"
        self.files.setdefault(name, []).append({"filename": filename, "url": filename, "hashes": {}})

    @property
    def address(self) -> str:
        """Of the index."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/simple/"

    def __enter__(self) -> Self:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                time.sleep(index.delay_seconds)
                index.authorizations.append(self.headers.get("Authorization"))
                kind, body = index.answer(self.path)
                self.send_response(200 if body is not None else 404 if not index.broken else 503)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str) -> tuple[str, bytes | None]:
        """Content type and body; None for what there is not."""
        if self.broken:
            return "text/plain", None
        if path.startswith("/simple/"):
            name = path.split("/")[2]
            if name not in self.files:
                return "text/plain", None
            listed = {"meta": {"api-version": "1.0"}, "name": name, "files": self.files[name]}
            return JSON, json.dumps(listed).encode()
        return "application/octet-stream", self.bodies.get(path)
