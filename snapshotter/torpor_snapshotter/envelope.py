"""Manifests as objects: a header that anybody can read, and the manifest, sealed with a key of the machine's."""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC: Final = b"TORPSNAP"
FORMAT_VERSION: Final = 1

_HEADER: Final = struct.Struct("<8sHQH")
"""Magic, format version, generation, length of the machine's name; the name follows."""
_NONCE_BYTES: Final = 12


class BadEnvelope(ValueError):
    """The object does not begin as a manifest does, or cannot be opened."""


class LaterFormat(ValueError):
    """It is a manifest of a format that is not known here."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a manifest says in the clear, and is authenticated with it."""

    machine: str
    generation: int

    def to_bytes(self) -> bytes:
        """As it stands at the beginning of the object."""
        name = self.machine.encode()
        return _HEADER.pack(MAGIC, FORMAT_VERSION, self.generation, len(name)) + name

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """The header of the object `data`. Raises `BadEnvelope`, `LaterFormat`."""
        try:
            magic, version, generation, length = _HEADER.unpack_from(data)
            name = data[_HEADER.size : _HEADER.size + length].decode()
        except (struct.error, ValueError) as error:
            raise BadEnvelope("it does not begin as a snapshot does") from error
        if magic != MAGIC:
            raise BadEnvelope("it does not begin as a snapshot does")
        if version != FORMAT_VERSION:
            raise LaterFormat(
                f"it has version {version} of the snapshot format, and only {FORMAT_VERSION} is known here"
            )
        return cls(name, generation)


@dataclass(frozen=True, slots=True, repr=False)
class MachineKeys:
    """What is derived from a machine's key (BLAKE3, key derivation mode), one for each use."""

    sealing: bytes
    """AES-256-GCM, for manifests."""
    wrapping: bytes
    """AES-256 key wrap, for packs' secrets."""

    @classmethod
    def of(cls, machine_key: bytes) -> MachineKeys:
        """The keys of a machine."""
        return cls(
            blake3(machine_key, derive_key_context="torpor snapshot format 1: manifests").digest(),
            blake3(machine_key, derive_key_context="torpor snapshot format 1: pack secrets").digest(),
        )


def close_envelope(header: Header, manifest: bytes, keys: MachineKeys) -> bytes:
    """The object."""
    clear = header.to_bytes()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return clear + nonce + AESGCM(keys.sealing).encrypt(nonce, manifest, clear)


def open_envelope(data: bytes, keys: MachineKeys) -> bytes:
    """The manifest in the object `data`. Raises `BadEnvelope`, `LaterFormat`."""
    clear = Header.from_bytes(data).to_bytes()
    nonce = data[len(clear) : len(clear) + _NONCE_BYTES]
    try:
        return AESGCM(keys.sealing).decrypt(nonce, data[len(clear) + _NONCE_BYTES :], clear)
    except (InvalidTag, ValueError) as error:
        raise BadEnvelope("it cannot be opened with the machine's key") from error
