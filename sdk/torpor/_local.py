"""A server of one's own, for tests and notebooks."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ._async_client import AsyncClient
from ._client import Client
from ._errors import TorporError

STOP_SECONDS = 200.0
_OF_A_TEMPORARY_FOLDER = {"TORPOR_KEEP_RUNTIMES": "false", "TORPOR_DRAIN_SECONDS": "0.1"}
"""Nothing of it is worth being saved at the end."""
LOOK_SECONDS = 0.05
_READY = re.compile(r"^Torpor is at (\S+)\n", re.MULTILINE)
_LAST_LINES = 20


class Local:
    """A server of one's own while it is entered: with `with` for a `Client`, with `async with` for an `AsyncClient`."""

    def __init__(self, data_dir: str | os.PathLike[str] | None, settings: dict[str, object]) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self._async_client: AsyncClient | None = None

    def __enter__(self) -> Client:
        with contextlib.ExitStack() as stack:
            url, api_key = self._start(stack)
            client = stack.enter_context(Client(url=url, api_key=api_key))
            self._stack = stack.pop_all()
        return client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    async def __aenter__(self) -> AsyncClient:
        with contextlib.ExitStack() as stack:
            url, api_key = await asyncio.to_thread(self._start, stack)
            self._async_client = AsyncClient(url=url, api_key=api_key)
            self._stack = stack.pop_all()
        return self._async_client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._async_client is not None:
                await self._async_client.close()
        finally:
            await asyncio.to_thread(self._stack.close)

    def _start(self, stack: contextlib.ExitStack) -> tuple[str, str]:
        if importlib.util.find_spec("torpor_api") is None:
            raise TorporError(
                "The server is not installed here.", hint="Install the distribution `torpor-server` beside `torpor`."
            )
        if self._data_dir is None:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="torpor-", ignore_cleanup_errors=True))
            )
        else:
            folder = Path(self._data_dir).absolute()
            folder.mkdir(parents=True, exist_ok=True)
        _share_runtimes(folder)
        api_key = _api_key(folder)
        temporary = self._data_dir is None
        return stack.enter_context(_server(folder, api_key, self._settings, temporary=temporary)), api_key


def local(data_dir: str | os.PathLike[str] | None = None, **settings: object) -> Local:
    """A server of its own on a free port, and a client of it; it ends with the context, and with this program.

    Args:
        data_dir: Where it keeps its machines; by default a temporary folder, which is removed at the end. With the same
            folder, the next server has the same machines.
        settings: Those of `torpor serve`, in small letters: `idle_seconds=5` is `TORPOR_IDLE_SECONDS=5`.

    >>> with torpor.local() as client:
    ...     client.machine("analysis").run("a = 3; a + 5").value
    '8'

    `async with` gives an `AsyncClient`. Needs the distribution `torpor-server` and a host that passes `torpor doctor`.
    Raises `TorporError` if it does not start. The first start on a host builds the runtime, which takes minutes.
    """
    return Local(data_dir, settings)


def _api_key(folder: Path) -> str:
    """The folder's own key: its machines are of that account at the next start, too."""
    file = folder / "local-api-key"
    if not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(f"local.{secrets.token_hex(24)}")
    return file.read_text()


@contextlib.contextmanager
def _server(folder: Path, api_key: str, settings: dict[str, object], *, temporary: bool) -> Iterator[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORPOR_")}
    environment = kept | {
        "TORPOR_DATA_DIR": str(folder),
        "TORPOR_LISTEN": "127.0.0.1:0",
        "TORPOR_BOOTSTRAP_API_KEY": api_key,
        "XDG_CONFIG_HOME": str(folder / "config"),
        **(_OF_A_TEMPORARY_FOLDER if temporary else {}),
        **{f"TORPOR_{name.upper()}": str(value) for name, value in settings.items()},
    }
    # A file and no pipe: what is stopped because this program was killed must still be able to say so.
    with (folder / "server.log").open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "torpor._guard", str(folder) if temporary else "", *_command("serve")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # what ends this program's group, a terminal perhaps, leaves the guard to clean up
        )
    try:
        yield _address(process, folder / "server.log", begin)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path, begin: int) -> str:
    """The server's address, once it says it."""
    while True:
        ended = process.poll() is not None
        with log.open("rb") as file:
            file.seek(begin)
            said = file.read().decode("utf-8", "replace")
        if (found := _READY.search(said)) is not None:
            return found[1]
        if ended:
            break
        time.sleep(LOOK_SECONDS)
    raise TorporError(
        "The server ended while it started:\n" + "\n".join(said.splitlines()[-_LAST_LINES:]),
        hint="`torpor doctor` says what is missing.",
    )


def _share_runtimes(folder: Path) -> None:
    """Use what is built on this host already, unless the folder has its own; build it if there is nothing yet."""
    own = folder / "runtimes"
    own.mkdir(exist_ok=True)
    if any(own.iterdir()):
        return
    listed = subprocess.run(_command("runtime", "build", "--quiet"), check=False, stdin=subprocess.DEVNULL)
    if listed.returncode:
        raise TorporError("The runtime could not be built.", hint="`torpor doctor` says what is missing.")
    home = os.environ.get("TORPOR_DATA_DIR")
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    common = Path(home) if home else Path(base) / "torpor"
    for runtime in (common / "runtimes").glob("[!.]*"):
        (own / runtime.name).symlink_to(runtime)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-c", "from torpor._cli import main; main()", *arguments]
