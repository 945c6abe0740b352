"""Makes a folder of golden snapshots, with the installed sandbox binary; see `scripts/make-golden`.

The root file system is bare Python and IPython: Debian's and PyPI's files from the lock, and of them only those that a
sandbox was seen to use. Once made, such a folder is never changed: what it holds must wake for ever.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import zstandard
from tests.support.sandboxes import LIMITS, run

from torpor_api.data_dir import default_data_dir
from torpor_snapshotter import runtimes
from torpor_snapshotter.archive import Archive, ParentKey, StoredImage
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.keys import FolderKeyStore
from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes import rootfs
from torpor_snapshotter.runtimes.download import fetch, fetch_packages
from torpor_snapshotter.runtimes.folder import file_sha256, series_name
from torpor_snapshotter.runtimes.mirror import choose_mirror
from torpor_snapshotter.runtimes.runsc import MODULE
from torpor_snapshotter.runtimes.wheels import SITE, fetch_wheels
from torpor_worker.guest_code import own_code
from torpor_worker.gvisor import GVisorHost
from torpor_worker.gvisor.spec import spec_sha256

PACKAGES = """
base-files ca-certificates gcc-14-base libbz2-1.0 libc6 libdb5.3t64 libexpat1 libffi8 libgcc-s1 liblzma5 libncursesw6
libpython3.13-minimal libpython3.13-stdlib libreadline8t64 libsqlite3-0 libssl3t64 libtinfo6 libuuid1 libzstd1
ncurses-base python3.13 python3.13-minimal tzdata zlib1g libselinux1 libpcre2-8-0 libblkid1
"""
WHEELS = """
asttokens executing ipython ipython_pygments_lexers jedi matplotlib-inline parso pexpect prompt_toolkit psutil
ptyprocess pure_eval pygments stack-data traitlets typing_extensions wcwidth
"""
READ_AS_FILES = ("IPython/utils/themes/*", "encodings/ascii.py", "encodings/idna.py", "encodings/latin_1.py")
WITHOUT = ("_hashlib.", "_ssl.", "/ssl.py", "libcrypto.", "libssl.")
"""OpenSSL would be a third of it; Python's own digests do without."""
COMPRESSION_LEVEL = 22

WARM_UP = """
import ast, asyncio, collections, contextlib, ctypes, decimal, json, os, queue, random, threading, time, traceback
class A:
    def _repr_html_(self): return "<b>A</b>"
from IPython.display import display
display(A())
print(random.random())
try:
    1 / 0
except ZeroDivisionError:
    traceback.format_exc()
get_ipython().run_cell("1 / 0")
await asyncio.sleep(0)
"""
USED_FILES = """
import sys
modules = {module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
sorted(modules | {line.split()[-1] for line in open("/proc/self/maps") if "/" in line})
"""

FIRST = [
    "a = 3",
    """
def counter():
    n = 0
    while True:
        n += 1
        yield n
generator = counter()
next(generator)
""",
    """
import threading
asked, answered = threading.Semaphore(0), threading.Semaphore(0)
said = []
def answer():
    while True:
        asked.acquire()
        said.append(len(said))
        answered.release()
thread = threading.Thread(target=answer, daemon=True)
thread.start()
""",
    "file = open('/home/user/notes.txt', 'w+')\nfile.write('first ')\nfile.flush()",
]
SECOND = [
    "a += 0; b = [number * 0.5 for number in range(1000)]",
    "next(generator)",
    "file.write('second ')",
    """
import asyncio
woken = asyncio.Event()
async def wait():
    await woken.wait()
    return 'woken'
task = asyncio.create_task(wait())
""",
]
LONG = "import time\nticks = 0\nwhile ticks < 200:\n    time.sleep(0.02)\n    ticks += 1\nticks"
ASKS = [
    ("a + 5", "8"),
    ("asked.release(); answered.acquire(timeout=60) and said", "[0]"),
    ("thread.is_alive()", "True"),
    ("file.write('third'); file.seek(0); file.read()", None),
    ("next(generator)", None),
]


def files_used(tree: Path, found: list[str]) -> set[Path]:
    """What is to stay of a tree, relative to it; `found` are paths in the sandbox."""
    kept = {(tree / path.lstrip("/")).resolve().relative_to(tree.resolve()) for path in found}
    libraries = [tree / "usr/lib/python3.13", tree / SITE]
    for library in libraries:
        kept |= {path.relative_to(tree) for pattern in READ_AS_FILES for path in library.glob(pattern)}
    kept |= {Path(name) for name in rootfs.FILES}
    kept |= {path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc" for path in kept if path.suffix == ".py"}
    return {path for path in kept if not any(word in f"/{path}" for word in WITHOUT) and (tree / path).is_file()}


def prune(tree: Path, kept: set[Path], small: Path) -> None:
    """Copy these files, the folders that a sandbox needs, and every link that leads to one of either."""
    for name, mode in rootfs.FOLDERS.items():
        (small / name).mkdir(parents=True, exist_ok=True)
        (small / name).chmod(mode)
    for path in sorted(kept):
        (small / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / path, small / path)
    links = [Path(folder) / name for folder, names, files in os.walk(tree) for name in names + files]
    links = [link for link in links if link.is_symlink()]
    more = True
    while more:
        more = False
        for link in links:
            target = os.readlink(link)
            leads_to = Path(os.path.normpath(tree / target.lstrip("/") if target[0] == "/" else link.parent / target))
            place = small / link.relative_to(tree)
            if os.path.lexists(place) or not leads_to.is_relative_to(tree):
                continue
            if os.path.lexists(small / leads_to.relative_to(tree)):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(target)
                more = True


def report(task: str, fraction: float | None = None) -> None:
    """Say what is begun."""
    if not fraction:
        print(task, flush=True)


def runtime_of(image: Path, folder: Path, binary: Runtime) -> Runtime:
    """A runtime with this root file system and the installed sandbox binary."""
    folder.mkdir()
    shutil.copy(image, folder / "rootfs.erofs")
    shutil.copy(binary.runsc, folder / "runsc")
    digest = file_sha256(folder / "rootfs.erofs")
    series = series_name(binary.runsc_version, digest)
    facts = (binary.runsc_version, binary.runsc_sha256, folder / "rootfs.erofs", digest)
    return Runtime(series, folder / "runsc", *facts)


async def watch(runtime: Runtime, folder: Path) -> list[str]:
    """The files that a sandbox uses."""
    host = GVisorHost(runtime, folder)
    try:
        sandbox = await host.start("golden", LIMITS)
        await run(sandbox, 0, WARM_UP)
        found: list[str] = ast.literal_eval(await run(sandbox, 1, USED_FILES) or "[]")
        return found
    finally:
        await host.close()


async def make_snapshots(runtime: Runtime, folder: Path, work: Path) -> list[dict[str, Any]]:
    """A template, and three generations of a machine that began with it."""
    host = GVisorHost(runtime, work / "sandboxes")
    archive = Archive(FolderStore(folder / "store"), FolderKeyStore(folder / "keys"))
    made: list[dict[str, Any]] = []
    try:
        sandbox = await host.start("template", LIMITS)
        await sandbox.ping()
        await sandbox.checkpoint(work / "template")
        await sandbox.destroy()
        key = "templates/template-python-golden/image"
        fields: dict[str, Any] = {"machine": "template-python-golden", "generation": 0, "template": "python"}
        parent = _parent(await archive.store(work / "template", key, fields), work / "template")
        sandbox, _ = await host.restore("golden", work / "template", LIMITS)
        await sandbox.reseed(0, bytes(range(32)))
        position = 0
        for generation, (name, codes) in enumerate([("first", FIRST), ("second", SECOND), ("running", [])]):
            for code in codes:
                position += 1
                await run(sandbox, position, code)
            running = None
            if name == "running":
                position += 1
                await sandbox.execute(position, position, LONG, replaying=False)
                running = {"seq": position, "used_seconds": 0.0, "output_offset": 0}
                while (await sandbox.ping()).running is None:
                    continue
            await sandbox.checkpoint(work / name)
            fields = {
                "machine": "golden0000000000",
                "account": "golden",
                "tags": {"made": "once"},
                "epoch": 1,
                "line": 0,
                "generation": generation,
                "parent": generation - 1 if generation else None,
                "position": position,
                "running": running,
                "series": runtime.series,
            }
            key = f"machines/golden0000000000/{generation}-golden"
            stored = await archive.store(work / name, key, fields, parent)
            parent = _parent(stored, work / name)
            text, number = ("'first second third'", "3") if generation else ("'first third'", "2")
            asks = [[code, value or (text if "file" in code else number)] for code, value in ASKS]
            if generation:
                asks += [["woken.set(); await task", "'woken'"], ["sum(b)", "249750.0"]]
            made.append(
                {
                    "name": name,
                    "manifest_key": stored.key,
                    "manifest_sha256": stored.sha256,
                    "packs": list(stored.packs),
                    "stored_bytes": stored.stored_bytes,
                    "image_bytes": stored.image_bytes,
                    "position": position,
                    "running": None if running is None else [position, "200"],
                    "asks": asks,
                }
            )
        return made
    finally:
        await host.close()
        await archive.close()


def _parent(stored: StoredImage, image: Path) -> ParentKey:
    return ParentKey(stored.key, stored.sha256, image)


def main(folder: Path) -> None:
    """Make the folder, which must not exist."""
    folder.mkdir(parents=True)
    lock = runtimes.load_lock()
    binary = runtimes.current(default_data_dir())
    with tempfile.TemporaryDirectory(prefix="golden-") as place:
        work = Path(place)
        work.chmod(0o755)
        packages = tuple(package for package in lock.packages if package.name in PACKAGES.split())
        mirror = choose_mirror(Path("/etc/apt"), os.environ.get("TORPOR_DEBIAN_MIRROR"), lock.suite, fetch)
        debs = fetch_packages(mirror, packages + lock.tools, work / "debs", report)
        wheels = fetch_wheels(
            tuple(wheel for wheel in lock.wheels if wheel.name in WHEELS.split()), work / "wheels", report
        )
        whole = rootfs.build_rootfs(debs[: len(packages)], debs[len(packages) :], wheels, work, report)
        found = asyncio.run(watch(runtime_of(whole, work / "whole", binary), work / "sandboxes-whole"))
        small = work / "small"
        prune(work / "tree", files_used(work / "tree", found), small)
        image = rootfs.pack(small, work / "tools", work / "small.erofs", report)
        runtime = runtime_of(image, work / "runtime", binary)
        packed = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(image.read_bytes())
        (folder / "rootfs.erofs.zst").write_bytes(packed)
        snapshots = asyncio.run(make_snapshots(runtime, folder, work))
    shutil.copytree(MODULE, folder / "runsc")
    facts = {
        "made_by": f"torpor-server {metadata.version('torpor-server')}",
        "runsc_version": runtime.runsc_version,
        "runsc_sha256": runtime.runsc_sha256,
        "go_version": lock.go_version,
        "go_wheel_sha256": lock.go_wheel_sha256,
        "rootfs_sha256": runtime.rootfs_sha256,
        "spec_sha256": spec_sha256(),
        "guest_sha256": own_code().sha256,
        "snapshots": snapshots,
    }
    (folder / "golden.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
