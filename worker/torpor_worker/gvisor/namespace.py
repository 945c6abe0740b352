"""How `runsc` gets the privileges it needs: as root it has them, an ordinary user gives it a user namespace.

Each command runs in a new namespace of the same kind, so nothing holds namespaces open and nothing outlives a server.
A small copy of `unshare` at a path of ours makes them, so that an AppArmor profile can name it without letting every
user of `unshare` do the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from torpor_worker.sandbox import SandboxError

_CAP_SYS_ADMIN = 21

_IN_NAMESPACE = ("--user", "--map-root-user", "--mount", "--")


def has_system_privileges(status: str) -> bool:
    """Whether a process may mount and make namespaces as it is, from the text of its `/proc/PID/status`."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    effective_user = int(fields["Uid"].split()[1])
    capabilities = int(fields["CapEff"], 16)
    return effective_user == 0 and bool(capabilities >> _CAP_SYS_ADMIN & 1)


def command_prefix(folder: Path) -> tuple[str, ...]:
    """What to put before a `runsc` command on this host; installs the launcher in `folder` where one is needed.

    Raises `SandboxError` if this user cannot have a working namespace.
    """
    if has_system_privileges(Path("/proc/self/status").read_text()):
        return ()
    prefix = namespace_prefix(install_launcher(folder))
    problem = namespace_problem(prefix)
    if problem is not None:
        raise SandboxError(
            f"This user cannot make a user namespace with a mount in it: {problem}. Run `torpor doctor`."
        )
    return prefix


def namespace_prefix(launcher: Path) -> tuple[str, ...]:
    """What makes the command behind it run in new user and mount namespaces, as root of the former."""
    return (str(launcher), *_IN_NAMESPACE)


def install_launcher(folder: Path) -> Path:
    """Put a copy of `unshare` at `folder`/unshare, atomically, unless it is there. Raises `SandboxError`."""
    launcher = folder / "unshare"
    source = shutil.which("unshare")
    if source is None:
        raise SandboxError("`unshare` is not installed; it is part of the package util-linux.")
    if not launcher.exists() or launcher.stat().st_size != Path(source).stat().st_size:
        folder.mkdir(parents=True, exist_ok=True)
        half = folder / f".unshare.{os.getpid()}"
        shutil.copyfile(source, half)
        half.chmod(0o755)
        half.replace(launcher)
    return launcher


def namespace_problem(prefix: tuple[str, ...]) -> str | None:
    """Use a capability in a new namespace (mount a tmpfs); None if that works, else what was printed."""
    mount = ["mount", "-t", "tmpfs", "tmpfs", "/tmp"]  # noqa: S108 - seen in the new namespace only
    try:
        done = subprocess.run([*prefix, *mount], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return done.stderr.strip() or f"exit status {done.returncode}"
