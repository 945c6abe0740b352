"""A folder that becomes a root file system: safe paths, fixed modes, merged `/usr`."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import IO

from torpor_snapshotter.runtimes.errors import RuntimeProblem

_MERGED = ("bin", "sbin", "lib", "lib64")


class Tree:
    """Writes below `root` only. The host's umask, owners, times and the archive's modes leave no trace."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._directories = {root}
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        for name in _MERGED:
            self.directory(f"usr/{name}")
            self.symlink(name, f"usr/{name}", merge=False)

    def place(self, name: str, *, merge: bool = True) -> Path:
        """The path for `name`, its parents made. Raises `RuntimeProblem` for a name that leads out of the tree."""
        parts = [part for part in PurePosixPath(name).parts if part != "."]
        if not parts or parts[0] == "/" or ".." in parts:
            raise RuntimeProblem(f"An archive holds the unsafe path {name!r}: refused.")
        if merge and parts[0] in _MERGED:
            parts.insert(0, "usr")
        parent = self.root.joinpath(*parts[:-1])
        if parent not in self._directories:
            self._make(parent)
        return parent / parts[-1]

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Make a folder, and its parents."""
        if PurePosixPath(name) == PurePosixPath():
            return
        place = self.place(name)
        self._make(place)
        place.chmod(mode)

    def file(self, name: str, content: IO[bytes], *, executable: bool = False) -> None:
        """Write a file, in place of an earlier one."""
        place = self.place(name)
        place.unlink(missing_ok=True)
        with place.open("xb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
        place.chmod(0o755 if executable else 0o644)

    def text(self, name: str, text: str, *, executable: bool = False) -> None:
        """Write a small text file."""
        place = self.place(name)
        place.unlink(missing_ok=True)
        place.write_text(text)
        place.chmod(0o755 if executable else 0o644)

    def symlink(self, name: str, target: str, *, merge: bool = True) -> None:
        """Make a symbolic link, in place of an earlier one or an empty folder; never followed by this class."""
        place = self.place(name, merge=merge)
        if place.is_dir() and not place.is_symlink():
            place.rmdir()
            self._directories.discard(place)
        else:
            place.unlink(missing_ok=True)
        place.symlink_to(target)

    def hard_link(self, name: str, target: str) -> None:
        """Make a second name for the file `target`."""
        place, original = self.place(name), self.place(target)
        if original.is_symlink() or not original.is_file():
            raise RuntimeProblem(f"An archive links {name!r} to {target!r}, which is no file of it: refused.")
        place.unlink(missing_ok=True)
        place.hardlink_to(original)

    def _make(self, place: Path) -> None:
        for folder in [*reversed(place.parents), place]:
            if folder in self._directories or not folder.is_relative_to(self.root):
                continue
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise RuntimeProblem(f"An archive writes through {folder.relative_to(self.root)}: refused.")
            if not folder.exists():
                folder.mkdir()
                folder.chmod(0o755)
            self._directories.add(folder)
