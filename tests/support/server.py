"""A real `torpor serve` for tests: started, stopped, and killed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx2
import psutil

from torpor_api.data_dir import default_data_dir

_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 120.0
_KILL_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05


class ServerFailed(AssertionError):
    """The server did not do what it was told in time; the message ends with what it said last."""


class ServerProcess:
    """`torpor serve` in a process of its own, on a free port of the loopback, with a data folder under `folder`.

    The data folder, the port and the key stay the same over restarts. The runtimes are those of the user's own data
    folder, or with `own_runtimes` those that a test put into this one's. Settings are those of `torpor serve` in small
    letters: `idle_seconds=5` is `TORPOR_IDLE_SECONDS=5`.
    """

    def __init__(self, folder: Path, *, own_runtimes: bool = False, **settings: object) -> None:
        self._own_runtimes = own_runtimes
        self.data_dir = folder / "data"
        self.account = "tester"
        self.api_key = f"{self.account}.{secrets.token_hex(16)}"
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._folder = folder
        self._settings = {f"TORPOR_{name.upper()}": str(value) for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @contextmanager
    def unstarted(self) -> Iterator[Self]:
        """A context whose end is that of the server, too, but whose beginning does not start it."""
        try:
            yield self
        finally:
            self._end()

    def _end(self) -> None:
        try:
            if self.running:
                self.stop()
        finally:
            self.kill_all()
            print(self._last_words())  # pytest shows it beside a test that failed

    @property
    def running(self) -> bool:
        """Whether the server's own process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> psutil.Process:
        """The server's own process."""
        if self._process is None:
            raise ServerFailed("The server was not started.")
        return psutil.Process(self._process.pid)

    @property
    def log(self) -> str:
        """What it wrote to stdout and stderr, over all its lives."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def set(self, **settings: object) -> None:
        """Change settings from the next start on."""
        self._settings |= {f"TORPOR_{name.upper()}": str(value) for name, value in settings.items()}

    def start(self) -> None:
        """Start it and wait until it is ready. Raises `ServerFailed`."""
        if not self._own_runtimes:
            self.link_runtimes()
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name("torpor")), "serve"],
                env=self.environment(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """SIGTERM, and wait for a clean end. Raises `ServerFailed`."""
        self.send(signal.SIGTERM)
        status = self.wait()
        if status != 0:
            raise ServerFailed(f"The server ended with status {status}.\n{self._last_words()}")

    def kill(self) -> None:
        """SIGKILL of the server's own process; its sandboxes live on."""
        self.send(signal.SIGKILL)
        self.wait(_KILL_SECONDS)

    def kill_all(self) -> None:
        """SIGKILL of the server and of every sandbox of its data folder."""
        if self.running:
            self.kill()
        deadline = time.monotonic() + _KILL_SECONDS
        while sandboxes := self.sandboxes():
            for sandbox in sandboxes:
                with suppress(psutil.NoSuchProcess):
                    sandbox.kill()
            if time.monotonic() > deadline:
                raise ServerFailed(f"These could not be killed: {sandboxes}")
            time.sleep(_POLL_SECONDS)

    def restart(self) -> None:
        """Stop it if it runs, and start it again on the same data folder."""
        if self.running:
            self.stop()
        self.start()

    def send(self, number: signal.Signals) -> None:
        """Send the server's own process a signal."""
        if self._process is None:
            raise ServerFailed("The server was not started.")
        self._process.send_signal(number)

    def wait(self, seconds: float = _STOP_SECONDS) -> int:
        """Wait until the server's own process has ended; its exit status. Raises `ServerFailed`."""
        if self._process is None:
            raise ServerFailed("The server was not started.")
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ServerFailed(f"The server did not end within {seconds:.0f} s.\n{self._last_words()}") from None

    def sandboxes(self) -> list[psutil.Process]:
        """Every live process that belongs to a sandbox of this server's data folder."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                # Every process of gVisor's, the sandbox itself included, carries its folder of states.
                named = any(argument.startswith(f"--root={self.data_dir}/") for argument in process.cmdline())
                if named and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def holds(self, machine: str) -> bool:
        """Whether a sandbox of the machine is there."""
        return machine in self.held()

    def held(self) -> list[str]:
        """For whom sandboxes are there: names of machines, and `warm` for each that waits for one."""
        found = []
        for file in (self.data_dir / "sandboxes" / "machines").glob("*/machine"):
            with suppress(FileNotFoundError):
                found.append(file.read_text())
        return found

    @contextmanager
    def client(self, seconds: float = 120.0) -> Iterator[httpx2.Client]:
        """An HTTP client with the base URL and the key."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        with httpx2.Client(base_url=self.url, headers=headers, timeout=seconds) as client:
            yield client

    @property
    def _log_path(self) -> Path:
        return self._folder / "server.log"

    def environment(self) -> dict[str, str]:
        """Variables with which `torpor` finds this server's data folder, and its store."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TORPOR_")}
        return kept | {
            "TORPOR_DATA_DIR": str(self.data_dir),
            "TORPOR_LISTEN": self.url.removeprefix("http://"),
            "TORPOR_BOOTSTRAP_API_KEY": self.api_key,
            "XDG_CONFIG_HOME": str(self._folder / "config"),
            "TORPOR_KEEP_RUNTIMES": "false",  # 170 MB a server: only a test that is about it asks for it
            **self._settings,
        }

    def link_runtimes(self) -> None:
        """Install the runtimes of the user's own data folder here too."""
        own = self.data_dir / "runtimes"
        own.mkdir(parents=True, exist_ok=True)
        for runtime in (default_data_dir() / "runtimes").glob("[!.]*"):
            if not (own / runtime.name).exists():
                (own / runtime.name).symlink_to(runtime)

    def torpor(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the server's operator with the server's settings; it may fail."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("torpor")), *arguments],
            env=self.environment(),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerFailed(f"The server ended while it started.\n{self._last_words()}")
            with suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/readyz", timeout=10).is_success:
                    return
            time.sleep(_POLL_SECONDS)
        self.kill_all()
        raise ServerFailed(f"The server was not ready within {_START_SECONDS:.0f} s.\n{self._last_words()}")

    def _last_words(self) -> str:
        return self.log[-8000:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
