"""The `pip` that stands in front of the real one: what that would download, the server hands in.

Not imported by the guest: its text is what a machine's `pip` executes, as the user.
"""

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import select
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHIMS = "/run/torpor"
ADDRESS = f"{SHIMS}/packages"
"""A file with the address at which packages are asked for."""
NO_NETWORK = "This machine has no network: nothing outside it can be reached, and nothing can be downloaded."
FETCHING = ("install", "download", "wheel")
ASKING = ("index", "search")
SHORT_WITH_VALUE = "rctiefCdwb"
LONG_WITH_VALUE = frozenset(
    {
        "--requirement",
        "--constraint",
        "--target",
        "--platform",
        "--python-version",
        "--implementation",
        "--abi",
        "--root",
        "--prefix",
        "--src",
        "--index-url",
        "--extra-index-url",
        "--find-links",
        "--no-binary",
        "--only-binary",
        "--progress-bar",
        "--report",
        "--upgrade-strategy",
        "--config-settings",
        "--global-option",
        "--log",
        "--proxy",
        "--retries",
        "--timeout",
        "--exists-action",
        "--trusted-host",
        "--cert",
        "--client-cert",
        "--cache-dir",
        "--use-feature",
        "--use-deprecated",
        "--dest",
        "--wheel-dir",
        "--group",
        "--editable",
        "--root-user-action",
        "--python",
        "--keyring-provider",
        "--build-constraint",
        "--requirements-from-script",
        "--resume-retries",
        "--uploaded-prior-to",
        "--all-releases",
        "--only-final",
    }
)
ELSEWHERE = frozenset({"-t", "--target", "--root", "--prefix", "--force-reinstall", "-I", "--ignore-installed"})
ARCHIVES = (".whl", ".zip", ".tar.gz", ".tar.bz2", ".tar.xz", ".tgz")
POLL_SECONDS = 0.05
LONGEST_SECONDS = 900.0
KNOWN_SECONDS = 60.0
"""How long what the server has handed in before may take to come."""
TOO_MANY = "Packages are asked for too often at once; try again."
STALE_SECONDS = 3600.0
NESTED = 10


class Refused(Exception):
    """The packages are not handed in; the message says why."""


class Arguments:
    """What a command line asks for, as far as it matters here."""

    def __init__(self, argv: list[str]) -> None:
        self.command = ""
        self.requirements: list[str] = []
        self.constraints: list[str] = []
        self.options: set[str] = set()
        positional: list[str] = []
        rest = iter(argv)
        for argument in rest:
            if argument == "--":
                positional += rest
            elif argument.startswith("--"):
                name, equals, value = argument.partition("=")
                if name in LONG_WITH_VALUE and not equals:
                    value = next(rest, "")
                self._option(name, value)
            elif argument.startswith("-") and len(argument) > 1:
                self._short(argument[1:], rest)
            else:
                positional.append(argument)
        self.command, *named = positional or [""]
        self.requirements += [each for each in named if not is_local(each)]

    def _short(self, letters: str, rest: Iterator[str]) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in SHORT_WITH_VALUE:
                self._option("-" + letter, letters or next(rest, ""))
                return
            self._option("-" + letter, "")

    def _option(self, name: str, value: str) -> None:
        self.options.add(name)
        if name in ("-r", "--requirement"):
            self.requirements += read_requirements(value)
        elif name in ("-c", "--constraint"):
            self.constraints += read_requirements(value)

    def has(self, *names: str) -> bool:
        """Whether one of these options was given."""
        return not self.options.isdisjoint(names)


def is_local(argument: str) -> bool:
    """Whether it names something that is here already, as pip sees it."""
    if "://" in argument:
        return False
    path = argument.partition("[")[0] if argument.endswith("]") else argument
    return path.startswith(".") or (os.sep in path and os.path.exists(path)) or path.endswith(ARCHIVES)


def read_requirements(path: str, nested: int = 0) -> list[str]:
    """What a file of requirements names; what is wrong with it pip says better."""
    found: list[str] = []
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return found
    for line in text.replace("\\\n", " ").splitlines():
        stripped = line.partition(" #")[0].strip()
        if stripped.startswith(("-r", "--requirement")) and nested < NESTED:
            name = stripped.removeprefix("--requirement").removeprefix("-r").lstrip(" =")
            found += read_requirements(os.path.join(os.path.dirname(path), name), nested + 1)
        elif stripped and not stripped.startswith(("#", "-")) and not is_local(stripped):
            found.append(stripped.partition(" --")[0].strip())
    return found


def installed() -> dict[str, str]:
    """Versions of what is there, by name."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(Exception):  # one that is half there
            found.setdefault(str(distribution.metadata["Name"]), str(distribution.version))
    return found


def are_there(arguments: Arguments, there: dict[str, str]) -> bool:
    """Whether all that is asked for is installed, and nothing newer is wished for."""
    if arguments.command != "install" or arguments.has(*ELSEWHERE, "-U", "--upgrade", "--pre", "-c", "--constraint"):
        return False
    try:
        vendored = importlib.import_module("pip._vendor.packaging.requirements")
        canonicalize_name = importlib.import_module("pip._vendor.packaging.utils").canonicalize_name
        versions = {canonicalize_name(name): version for name, version in there.items()}
        wanted = [vendored.Requirement(text) for text in arguments.requirements]
        return all(
            not each.extras
            and each.url is None
            and each.marker is None
            and canonicalize_name(each.name) in versions
            and each.specifier.contains(versions[canonicalize_name(each.name)], prereleases=True)
            for each in wanted
        )
    except Exception:
        return False


def request(arguments: Arguments, there: dict[str, str]) -> dict[str, Any]:
    """What the server is asked."""
    libc = (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 0.0").split()[-1]
    return {
        "requirements": arguments.requirements,
        "constraints": arguments.constraints,
        "installed": there,
        "upgrade": arguments.has("-U", "--upgrade"),
        "prereleases": arguments.has("--pre"),
        "no_dependencies": arguments.has("--no-deps"),
        "fresh": arguments.command != "install" or arguments.has(*ELSEWHERE),
        "python": platform.python_version(),
        "libc": [int(part) for part in libc.split(".")[:2]],
        "architecture": platform.machine(),
        "session": os.getsid(0),
    }


def handed_in(wanted: dict[str, Any]) -> str:
    """The path of the archive with what was asked for, once it is there. Raises `Refused`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with open(ADDRESS) as file:
                connection.connect("\0" + file.read().strip())
            connection.sendall(json.dumps(wanted).encode() + b"\n")
        except BlockingIOError:
            raise Refused(TOO_MANY) from None
        except OSError:
            raise Refused("Packages cannot be asked for now.") from None
        return await_answer(connection)


def await_answer(connection: socket.socket) -> str:
    """Wait until the archive is there, or is refused. Whoever waits no longer takes no room in the user's folder."""
    paths: list[str] = []
    try:
        return _awaited(connection, paths)
    except BaseException:  # Ctrl-C too
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


def _awaited(connection: socket.socket, paths: list[str]) -> str:
    heard, path, refused = b"", "", ""
    deadline = time.monotonic() + LONGEST_SECONDS
    watched = [connection]
    while time.monotonic() < deadline:
        if path and os.path.exists(path):
            return path
        if refused:
            raise Refused(refused)
        ready, _, _ = select.select(watched, [], [], POLL_SECONDS)
        if not ready:
            continue
        try:
            data = connection.recv(64 << 10)
        except OSError:
            data = b""
        if not data:
            if not path:
                raise Refused(TOO_MANY)
            watched.clear()
            deadline = min(deadline, time.monotonic() + KNOWN_SECONDS)
        heard += data
        *lines, heard = heard.split(b"\n")
        for line in lines:
            fields = json.loads(line)
            path = fields.get("path", path)
            paths[:] = [path]
            refused = fields.get("refused", refused)
            if fields.get("known"):
                deadline = min(deadline, time.monotonic() + KNOWN_SECONDS)
    raise Refused("The packages did not come in time.")


def unpack(archive: str, folder: str) -> None:
    """Put the wheels of an archive into a folder; the archive goes."""
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                source = opened.extractfile(member) if member.isreg() else None
                if source is not None:
                    with open(os.path.join(folder, os.path.basename(member.name)), "wb") as target:
                        shutil.copyfileobj(source, target)
    finally:
        os.unlink(archive)
    with contextlib.suppress(OSError):  # what nobody has come for; others may remove it too
        for entry in os.scandir(os.path.dirname(archive)):
            if entry.name.endswith(".tar") and entry.stat().st_mtime < time.time() - STALE_SECONDS:
                os.unlink(entry.path)


def run_pip(argv: list[str], wheels: str | None = None) -> int:
    """The real one, without a network; its exit code."""
    outside = [
        each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each and not each.startswith(SHIMS)
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(outside),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    if wheels is not None:
        environment["PIP_FIND_LINKS"] = wheels
    return subprocess.run([sys.executable, "-m", "pip", *argv], env=environment, check=False).returncode


def say(what: str) -> None:
    """Tell why not, as pip tells errors."""
    sys.stderr.write(f"ERROR: {what}\n")
    sys.stderr.flush()


def main(argv: list[str]) -> int:
    """Do what was asked; the exit code."""
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(SHIMS)]
    for name in [name for name in sys.modules if name == "pip" or name.startswith("pip.")]:
        del sys.modules[name]
    arguments = Arguments(argv)
    there = installed()
    if arguments.command in ASKING:
        say(f"pip cannot {arguments.command} anything here. {NO_NETWORK}")
        return 1
    if arguments.command not in FETCHING or not arguments.requirements or are_there(arguments, there):
        return run_pip(argv)
    wheels = ""
    try:
        archive = handed_in(request(arguments, there))
        wheels = tempfile.mkdtemp(prefix="torpor-wheels-")
        unpack(archive, wheels)
        return run_pip(argv, wheels)
    except Refused as refused:
        names = ", ".join(sorted(there, key=str.lower))
        say(f"{refused}\n{NO_NETWORK} Installed already: {names}.")
        return 1
    except (OSError, tarfile.TarError) as error:
        say(f"What was handed in cannot be unpacked: {error}.")
        return 1
    finally:
        if wheels:
            shutil.rmtree(wheels, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
