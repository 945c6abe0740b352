"""The one OCI spec that every sandbox has, so that any sandbox takes any image of its runtime.

gVisor compares the spec of an image with the spec it is restored into: arguments, mounts, limits and the annotations
`dev.gvisor.spec.*` must be equal. Hence nothing of a machine, of a host or of an installation stands in it.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from torpor_worker.guest_code import guest_command
from torpor_worker.gvisor.cpu import BASELINE

MEBIBYTE = 1024 * 1024

OVERLAY_BYTES = 32 * MEBIBYTE
"""What may be written over the root filesystem; a user can write only into the mounts below."""

TMPFS_BYTES = {"/tmp": 192 * MEBIBYTE, "/dev/shm": 128 * MEBIBYTE, "/home/user": 160 * MEBIBYTE}  # noqa: S108
"""Sizes of what a user can write into; 512 MiB together with the overlay."""

USER_ID = 1000

_ROOTFS = "/proc/self/cwd/rootfs.erofs"
"""The image is opened by `runsc create`, whose current folder is the runtime's: so the path is equal everywhere."""

_CAPABILITIES = ["CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_RESOURCE"]

_ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    # Where the processor cannot be made to hide what it has (CPUID faulting), libraries that ask it themselves see more
    # than the baseline, and an image that uses it would die elsewhere. These keep the C library, OpenBLAS and NumPy to
    # x86-64-v3; the guest passes them on to the user's processes.
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512BW,-AVX512CD,-AVX512DQ,-AVX512VL",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
}


def sandbox_spec() -> dict[str, Any]:
    """The spec as a JSON value."""
    return {
        "ociVersion": "1.2.0",
        "hostname": "torpor",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": guest_command(),
            "env": [f"{name}={value}" for name, value in sorted(_ENVIRONMENT.items())],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "rlimits": [
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_NOFILE", "soft": 4096, "hard": 4096},
            ],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            _tmpfs("/tmp", "mode=1777"),  # noqa: S108 - a path in the sandbox
            _tmpfs("/dev/shm", "mode=1777"),  # noqa: S108 - a path in the sandbox
            _tmpfs("/home/user", "mode=0755", f"uid={USER_ID}", f"gid={USER_ID}"),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
        "annotations": {
            "dev.gvisor.spec.rootfs.source": _ROOTFS,
            "dev.gvisor.spec.rootfs.type": "erofs",
            "dev.gvisor.spec.rootfs.overlay": "memory",
            "dev.gvisor.spec.rootfs.options": f"size={OVERLAY_BYTES}",
            "dev.gvisor.internal.cpufeatures": ",".join(sorted(BASELINE)),
        },
    }


def spec_bytes() -> bytes:
    """The spec in its canonical form: JSON, keys sorted, no spaces."""
    return json.dumps(sandbox_spec(), sort_keys=True, separators=(",", ":")).encode()


@cache
def spec_sha256() -> str:
    """Names the spec; an image restores only into a sandbox whose spec has the same digest."""
    return hashlib.sha256(spec_bytes()).hexdigest()


def _tmpfs(destination: str, *options: str) -> dict[str, Any]:
    size = f"size={TMPFS_BYTES[destination]}"
    return {
        "destination": destination,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", *options, size],
    }
