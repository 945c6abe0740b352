"""What a power cut would leave of a folder: the files themselves are real, and it is watched what is flushed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """A folder whose `fsync`, `link` and `rename` are watched.

    A power cut leaves what was flushed, and of the rest what it likes. Two extremes are told apart: names that were not
    flushed are lost, or they are there and what was not flushed of their files' bytes is zeros.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch `folder`, which is there, until the test ends."""
        self.steps: list[str] = []
        """What was done to the folder, in order, such as `fsync a/b`."""
        self.at_each_step: Callable[[], None] = lambda: None
        """Called after each."""
        self._folder = folder
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: dict[int, int] = {}
        """Descriptors by inode, so that no number of an inode is given to another file."""
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._flush)
        for name in ("link", "rename"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in self._held.values():
            os.close(descriptor)

    def after_a_cut(self, into: Path, *, names_are_there: bool) -> Path:
        """Write into the new folder `into` what is left if the power is cut now."""
        if names_are_there:
            self._leave_with_all_names(self._folder, into)
        else:
            self._leave(self._hold(self._folder), into)
        return into

    def _leave_with_all_names(self, folder: Path, into: Path) -> None:
        into.mkdir()
        for path in folder.iterdir():
            if path.is_dir():
                self._leave_with_all_names(path, into / path.name)
            else:
                flushed = self._bytes.get(self._hold(path), b"")
                size = path.stat().st_size
                (into / path.name).write_bytes(flushed[:size].ljust(size, b"\0"))

    def _leave(self, folder: int, into: Path) -> None:
        into.mkdir()
        for name, inode in self._names.get(folder, {}).items():
            if stat.S_ISDIR(os.fstat(self._held[inode]).st_mode):
                self._leave(inode, into / name)
            else:
                (into / name).write_bytes(self._bytes.get(inode, b""))

    def _flush(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        inode = self._hold(path)
        if path.is_dir():
            self._names[inode] = {each.name: self._hold(each) for each in path.iterdir()}
        else:
            self._bytes[inode] = path.read_bytes()
        self._step("fsync", path.readlink())

    def _watched(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(source: Any, target: Any, **named: Any) -> Any:
            done = work(source, target, **named)
            self._step(work.__name__, Path(target))
            return done

        return watched

    def _step(self, what: str, path: Path) -> None:
        if path.is_relative_to(self._folder):
            self.steps.append(f"{what} {path.relative_to(self._folder)}")
            self.at_each_step()

    def _hold(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        inode = os.fstat(descriptor).st_ino
        if self._held.setdefault(inode, descriptor) != descriptor:
            os.close(descriptor)
        return inode
