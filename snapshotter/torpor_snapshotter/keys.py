"""The keys of machines: kept outside the store, so that without them a copy of it is noise."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from torpor_snapshotter.store import StoreError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TRIES: Final = 3
_MACHINE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
_MASTER: Final = re.compile(r"[0-9]+")


class KeyMissing(StoreError):
    """The key store does not have what is needed; the message says where it would be."""


class KeyStore(Protocol):
    """One key of `KEY_BYTES` for each machine, for as long as it lives."""

    def get(self, machine: str) -> bytes:
        """The machine's key. Raises `KeyMissing`."""
        ...

    def make(self, machine: str) -> bytes:
        """The machine's key; a new one, durable when this returns, if it has none."""
        ...

    def destroy(self, machine: str) -> None:
        """Make the machine's key unknowable; no error if it has none."""
        ...

    def rotate(self) -> None:
        """Replace the key that protects the others; they stay what they are. Raises `KeyMissing` if there are none."""
        ...


class FolderKeyStore:
    """A `KeyStore` in a folder of mode 0700, with files of mode 0600.

    `masters/N` holds 32 random bytes. `machines/NAME` holds the number of a master (4 bytes, big-endian), a nonce of 12
    bytes, and the machine's key under AES-256-GCM with that master, with NAME as associated data. Each file is written
    to the side, flushed and renamed. A rotation makes a new master, wraps every key with it, and then destroys the old
    ones; it may die anywhere and be started again.
    """

    def __init__(self, folder: Path) -> None:
        """Keys in `folder`, which is made with the first one."""
        self._folder = folder
        self._machines = folder / "machines"
        self._masters = folder / "masters"

    def get(self, machine: str) -> bytes:
        """The machine's key. Raises `KeyMissing`."""
        reason = ""
        for _ in range(_TRIES):
            # A rotation between the two reads leaves a file that names a master that is gone: then once more.
            try:
                wrapped = self._path(machine).read_bytes()
                master = (self._masters / str(int.from_bytes(wrapped[:4], "big"))).read_bytes()
                return _unwrap(machine, wrapped, master)
            except FileNotFoundError as error:
                reason = f"{error.filename} is missing"
            except (InvalidTag, ValueError):
                reason = f"{self._path(machine)} or its master is damaged"
        raise KeyMissing(f"The key of machine {machine} cannot be used: {reason}.")

    def make(self, machine: str) -> bytes:
        """The machine's key; a new one, durable when this returns, if it has none."""
        if not self._path(machine).exists():
            with self._lock():
                if not self._path(machine).exists():
                    self._wrap(machine, secrets.token_bytes(KEY_BYTES), *self._newest_master())
        return self.get(machine)

    def destroy(self, machine: str) -> None:
        """Make the machine's key unknowable; no error if it has none."""
        if self._path(machine).exists():
            with self._lock():
                _destroy(self._path(machine))

    def rotate(self) -> None:
        """Replace the master key; machines' keys stay what they are. Raises `KeyMissing` if there are none."""
        if not self._machines.is_dir():
            raise KeyMissing(f"There are no keys in {self._folder} yet: the first save of a machine makes them.")
        with self._lock():
            old = self._numbers()
            number = max(old, default=0) + 1
            master = secrets.token_bytes(KEY_BYTES)
            _write(self._masters / str(number), master)
            for path in self._machines.iterdir():
                if _MACHINE.fullmatch(path.name):
                    self._wrap(path.name, self.get(path.name), number, master)
            for earlier in old:
                _destroy(self._masters / str(earlier))

    def _path(self, machine: str) -> Path:
        if not _MACHINE.fullmatch(machine):
            raise KeyMissing(f"{machine!r} is not the name of a machine.")
        return self._machines / machine

    def _newest_master(self) -> tuple[int, bytes]:
        number = max(self._numbers(), default=0)
        if number:
            return number, (self._masters / str(number)).read_bytes()
        master = secrets.token_bytes(KEY_BYTES)
        _write(self._masters / "1", master)
        return 1, master

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self._masters.iterdir() if _MASTER.fullmatch(path.name)]

    def _wrap(self, machine: str, key: bytes, number: int, master: bytes) -> None:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        wrapped = AESGCM(master).encrypt(nonce, key, machine.encode())
        _write(self._path(machine), number.to_bytes(4, "big") + nonce + wrapped)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        for folder in (self._folder, self._masters, self._machines):
            if not folder.is_dir():
                folder.mkdir(parents=True, mode=0o700, exist_ok=True)
                _sync_folder(folder.parent)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _unwrap(machine: str, wrapped: bytes, master: bytes) -> bytes:
    nonce, sealed = wrapped[4 : 4 + _NONCE_BYTES], wrapped[4 + _NONCE_BYTES :]
    return AESGCM(master).decrypt(nonce, sealed, machine.encode())


def _write(path: Path, content: bytes) -> None:
    """Make `content` the file's, durably; whoever dies, it has the old content or this."""
    aside = path.with_name(f".{path.name}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.rename(path)
    _sync_folder(path.parent)


def _destroy(path: Path) -> None:
    """Overwrite a file where it lies, as far as the file system does that, and remove it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, secrets.token_bytes(os.fstat(descriptor).st_size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
