"""A real S3 server for tests: versitygw, built once and kept in the user's cache. As a program it builds it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from torpor_snapshotter.runtimes.lock import load_lock
from torpor_snapshotter.runtimes.runsc import find_go, go_environment

VERSION: Final = "v1.8.0"
BUCKET: Final = "torpor-test"
_PACKAGE: Final = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
_CACHE: Final = Path("~/.cache/torpor-tests").expanduser()
_BUILD_SECONDS: Final = 1800
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0


def build_s3_server() -> Path:
    """The server's binary; the first call takes minutes."""
    folder = _CACHE / f"versitygw-{VERSION}"
    binary = folder / "versitygw"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            with tempfile.TemporaryDirectory(dir=_CACHE) as work:
                _go_install(Path(work))
                folder.mkdir(exist_ok=True)
                (Path(work) / "bin" / "versitygw").rename(binary)
    return binary


def _go_install(work: Path) -> None:
    lock = load_lock()
    go = find_go(lock, work, lambda task, fraction=None: None)
    environment = {**go_environment(lock, work), "GOBIN": str(work / "bin")}
    done = subprocess.run(
        [go, "install", "-trimpath", _PACKAGE],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"versitygw could not be built: {done.stderr[-2000:]}")


class S3Server:
    """versitygw in a process of its own, on a free port of the loopback, with one bucket, in a folder."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.access_key = secrets.token_hex(8)
        self.secret_key = secrets.token_hex(16)
        self.objects = folder / "objects"
        self._binary = binary
        self._folder = folder
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (self.objects / BUCKET).mkdir(parents=True)
        for name in ("sidecar", "home"):
            (folder / name).mkdir()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self._port)

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self._port}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The variables by which boto3 reaches it, or it through another endpoint, and nothing else."""
        nowhere = str(self._folder / "none")
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL_S3": endpoint or self.url,
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def start(self) -> None:
        """Start it and wait until it listens."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), "--port", f"127.0.0.1:{self._port}", "posix", *self._options(), self.objects],
                cwd=self._folder / "home",
                env={"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key, "PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(self.address, 5).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"versitygw did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def _options(self) -> list[str]:
        """Metadata go into attributes of files, and into other files where the file system has none."""
        try:
            os.setxattr(self.objects, "user.torpor", b"")
        except OSError:
            return ["--sidecar", str(self._folder / "sidecar")]
        return []

    def stop(self) -> None:
        """End it; what it holds stays."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running server in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="torpor-s3-"))
    try:
        with S3Server(build_s3_server(), folder) as server:
            yield server
    finally:
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.stderr.write(f"{build_s3_server()}\n")
