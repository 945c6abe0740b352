"""The root file system: Debian packages and Python wheels, unpacked and packed into one EROFS file.

Nothing here needs root, name spaces or Debian's tools, and no maintainer script is run. Programs from the packages
(Python, mkfs.erofs) are started through the packages' own loader, so the host's C library does not matter.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torpor_snapshotter.runtimes.deb import unpack_deb
from torpor_snapshotter.runtimes.errors import RuntimeProblem
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.runtimes.tree import Tree
from torpor_snapshotter.runtimes.wheels import PYTHON, SITE, unpack_wheel

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = f"{_LIBRARIES}/ld-linux-x86-64.so.2"
_COMPILER = Path(__file__).with_name("compile_bytecode.py")
_COMPILE_SHARES = 8
_TOOL_TIMEOUT_SECONDS = 1800

_UNWANTED = (
    "etc/apt/",
    "etc/cron",
    "etc/default/",
    "etc/init.d/",
    f"etc/{PYTHON}/",
    "etc/systemd/",
    "usr/lib/systemd/",
    "usr/share/bash-completion/",
    "usr/share/bug/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    f"usr/lib/{PYTHON}/sitecustomize.py",  # a hook for Debian's crash reports
    f"usr/lib/{PYTHON}/EXTERNALLY-MANAGED",  # a hint about Debian's own packaging that misleads here
)
_DOC = "usr/share/doc/"

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000:user:/home/user:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/hostname": "torpor\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "etc/resolv.conf": "",
}
_LINKS = {
    "usr/bin/python3": PYTHON,
    "usr/bin/python": PYTHON,
    "usr/bin/awk": "mawk",
    "usr/bin/sh": "dash",
    "usr/bin/which": "which.debianutils",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt",
    "usr/lib/ssl/certs": "/etc/ssl/certs",
    "var/run": "/run",
}
FOLDERS = {
    "dev": 0o755,
    "home": 0o755,
    "home/user": 0o777,  # every file belongs to root in the image, and only `user` lives here
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}


def build_rootfs(debs: list[Path], tool_debs: list[Path], wheels: list[Path], work: Path, report: Report) -> Path:
    """Build `work/rootfs.erofs`. Equal inputs give equal bytes on every host."""
    tree, tools = Tree(work / "tree"), Tree(work / "tools")
    task = "Unpacking the root file system"
    total = len(debs) + len(tool_debs) + len(wheels)
    for done, deb in enumerate(debs):
        report(task, done / total)
        unpack_deb(deb, tree, is_wanted)
    for done, deb in enumerate(tool_debs, start=len(debs)):
        report(task, done / total)
        unpack_deb(deb, tools, is_wanted)
    for done, wheel in enumerate(wheels, start=len(debs) + len(tool_debs)):
        report(task, done / total)
        unpack_wheel(wheel, tree)
    _configure(tree)
    report(task, 1)
    _compile_bytecode(tree.root, report)
    return pack(tree.root, tools.root, work / "rootfs.erofs", report)


def is_wanted(path: str) -> bool:
    """Whether a package's file belongs into the sandbox: no manuals and translations, but every licence."""
    if path.startswith(_DOC):
        return path.endswith("/copyright") or path.count("/") == _DOC.count("/")
    return not path.startswith(_UNWANTED)


def _configure(tree: Tree) -> None:
    for name, mode in FOLDERS.items():
        tree.directory(name, mode)
    for name, text in FILES.items():
        tree.text(name, text)
    for name, target in _LINKS.items():
        tree.symlink(name, target)
    certificates = sorted((tree.root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    if not certificates:
        raise RuntimeProblem("The package ca-certificates holds no certificates.")
    tree.text("etc/ssl/certs/ca-certificates.crt", "".join(path.read_text() for path in certificates))


def _compile_bytecode(tree: Path, report: Report) -> None:
    task = "Compiling Python modules"
    report(task, 0)
    folders = (f"usr/lib/{PYTHON}", SITE)
    python = [*_loaded(tree, tree / _LIBRARIES), str(tree / "usr/bin" / PYTHON), "-S", "-P", "-s", "-W", "ignore"]
    environment = {"PYTHONHOME": str(tree / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shares = [
            [*python, str(_COMPILER), str(tree), str(_COMPILE_SHARES), str(share), *folders]
            for share in range(_COMPILE_SHARES)
        ]
        for done, _ in enumerate(pool.map(lambda command: _run(command, environment), shares), start=1):
            report(task, done / _COMPILE_SHARES)


def pack(tree: Path, tools: Path, image: Path, report: Report) -> Path:
    """Pack a tree into the EROFS file `image`, with the packer in `tools`, started through the tree's own loader."""
    task = "Packing the root file system"
    report(task)
    command = [
        *_loaded(tree, tools / _LIBRARIES, tree / _LIBRARIES),
        str(tools / "usr/bin/mkfs.erofs"),
        "--quiet",
        "-Enoinline_data",  # gVisor maps files from the image: they must lie on whole blocks
        "--all-root",
        "-T0",
        "-Uclear",
        "-x-1",  # no extended attributes: the host's file system may have added some
        str(image),
        str(tree),
    ]
    _run(command, {})
    report(task, 1)
    return image


def _loaded(tree: Path, *libraries: Path) -> list[str]:
    return [str(tree / _LOADER), "--library-path", ":".join(map(str, libraries))]


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_SECONDS, env=environment, check=False
    )
    if done.returncode:
        name = next(word for word in command[3:] if "/usr/bin/" in word)
        raise RuntimeProblem(f"{Path(name).name} failed with status {done.returncode}: {done.stderr.strip()[-2000:]}")
