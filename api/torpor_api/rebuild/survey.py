"""Reads all that a store says of machines and templates, without a ledger. Changes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from torpor_api.at_once import each
from torpor_api.ledger.accounts import NAME as ACCOUNT_NAME
from torpor_api.store_check import Report, State
from torpor_snapshotter.archive import Archive, FoundManifest
from torpor_snapshotter.key import PROBE_PREFIX, pack_key
from torpor_snapshotter.keys import KeyMissing, KeyStore
from torpor_snapshotter.owner import OWNER_KEY
from torpor_snapshotter.runtimes.description import Description
from torpor_snapshotter.store import DamagedObject, NotStored, ObjectStore

_SNAPSHOT: Final = re.compile(r"machines/(?P<machine>[A-Za-z0-9]+)/(?P<generation>[0-9]+)-[0-9a-f]+")
_TEMPLATE: Final = re.compile(r"templates/(?P<machine>template-[A-Za-z0-9-]+)/image")
_RUNTIME: Final = re.compile(r"runtimes/(?!parts/)[^/]+/[0-9a-f]{64}")
_NUMBERS: Final = ("epoch", "line", "position")


@dataclass(frozen=True, slots=True)
class StoredPack:
    """A pack that a manifest needs, and that is there."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FoundSnapshot:
    """A manifest that can be read, with all its packs there."""

    key: str
    sha256: str
    stored_bytes: int
    """Of the manifest, and of the pack that was made with it."""
    image_bytes: int
    fields: dict[str, Any]
    packs: tuple[StoredPack, ...]


@dataclass(frozen=True, slots=True)
class Unusable:
    """An object that cannot be used, and why."""

    key: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What a store has."""

    owner: str | None
    """The id of the ledger that the store is marked with; None: it has no mark."""
    snapshots: tuple[FoundSnapshot, ...]
    templates: tuple[FoundSnapshot, ...]
    runtimes: tuple[Description, ...]
    """Those with all their parts there."""
    unusable: tuple[Unusable, ...]
    """In order of their keys."""
    generations: dict[str, int]
    """The highest generation of each machine that any key names, readable or not."""
    left_over: tuple[str, ...]
    """Keys of objects that nothing readable needs."""


class StoreSurvey:
    """One look through one store."""

    def __init__(self, store: ObjectStore, keys: KeyStore, report: Report) -> None:
        self._store = store
        self._archive = Archive(store, keys)
        self._report = report
        self._stored: set[str] = set()
        self._looked_at = 0
        self._found: dict[str, FoundSnapshot] = {}
        self._runtimes: dict[str, Description] = {}
        self._unusable: dict[str, Unusable] = {}

    async def run(self) -> Survey:
        """Read every manifest, and look whether its packs are there. Raises `StoreError` if the store fails."""
        try:
            return await self._run()
        finally:
            await self._archive.close()

    async def _run(self) -> Survey:
        listed = {key async for key in self._store.list() if not key.startswith(PROBE_PREFIX)}
        self._stored = listed - {OWNER_KEY}
        snapshots = sorted(key for key in self._stored if _SNAPSHOT.fullmatch(key))
        templates = sorted(key for key in self._stored if _TEMPLATE.fullmatch(key))
        runtimes = sorted(key for key in self._stored if _RUNTIME.fullmatch(key))
        total = len(snapshots) + len(templates) + len(runtimes)

        async def look(key: str) -> None:
            await (self._look_at_runtime if _RUNTIME.fullmatch(key) else self._look)(key)
            self._looked_at += 1
            self._report(self._looked_at, total)

        self._report(0, total)
        await each([*runtimes, *templates, *snapshots], look)
        needed = set(self._found) | {pack.key for one in self._found.values() for pack in one.packs}
        needed.update(key for one in self._runtimes.values() for key in one.keys)
        generations: dict[str, int] = {}
        for key in self._stored:
            if match := _SNAPSHOT.match(key):
                machine, generation = match["machine"], int(match["generation"])
                generations[machine] = max(generation, generations.get(machine, generation))
        return Survey(
            owner=await self._owner() if OWNER_KEY in listed else None,
            snapshots=tuple(self._found[key] for key in snapshots if key in self._found),
            templates=tuple(self._found[key] for key in templates if key in self._found),
            runtimes=tuple(self._runtimes[key] for key in runtimes if key in self._runtimes),
            unusable=tuple(self._told(self._unusable[key]) for key in sorted(self._unusable)),
            generations=generations,
            left_over=tuple(sorted(self._stored - needed)),
        )

    async def _owner(self) -> str:
        return (await self._store.read(OWNER_KEY)).decode(errors="replace").strip()

    async def _look(self, key: str) -> None:
        try:
            found = await self._archive.find_manifest(key)
        except NotStored as error:
            self._cannot_use(key, State.MISSING, str(error))
        except DamagedObject as error:
            self._cannot_use(key, State.DAMAGED, str(error))
        except KeyMissing as error:
            self._cannot_use(key, State.LOCKED, str(error))
        else:
            self._take(key, found)

    async def _look_at_runtime(self, key: str) -> None:
        try:
            found = Description.from_bytes(await self._store.read(key))
        except (ValueError, NotStored) as error:
            self._cannot_use(key, State.DAMAGED, f"The object {key} is damaged: {error}.")
            return
        if found.key != key:
            self._cannot_use(key, State.DAMAGED, f"The object {key} is damaged: it is {found.key}.")
        elif missing := [part for part in found.keys if part not in self._stored]:
            self._cannot_use(
                key, State.MISSING, f"{', '.join(missing)} is not stored, and runtime {found.series} needs it."
            )
        else:
            self._runtimes[key] = found

    def _take(self, key: str, found: FoundManifest) -> None:
        manifest = found.manifest
        packs = tuple(StoredPack(pack.key, pack.size_bytes) for pack in manifest.packs)
        if reason := _contradiction(key, found):
            self._cannot_use(key, State.DAMAGED, f"The object {key} is damaged: {reason}.")
        elif missing := [pack.key for pack in packs if pack.key not in self._stored]:
            self._cannot_use(key, State.MISSING, f"{', '.join(missing)} is not stored, and {key} needs it.")
        else:
            own = sum(pack.size_bytes for pack in packs if pack.key == pack_key(key))
            self._found[key] = FoundSnapshot(
                key, found.sha256, found.size_bytes + own, manifest.image_bytes, manifest.fields, packs
            )

    def _cannot_use(self, key: str, state: State, reason: str) -> None:
        self._unusable[key] = Unusable(key, state, reason)

    def _told(self, one: Unusable) -> Unusable:
        """A manifest that does not open is damaged if its machine's key is right, as others of it show."""
        if one.state is State.LOCKED and any(
            key.rpartition("/")[0] == one.key.rpartition("/")[0] for key in self._found
        ):
            return Unusable(one.key, State.DAMAGED, f"The object {one.key} is damaged: its machine's key opens others.")
        return one


def _contradiction(key: str, found: FoundManifest) -> str | None:
    """Why a manifest cannot be what its key says; None if it can."""
    fields = found.manifest.fields
    said = {"machine": found.machine, "generation": found.generation}
    if said != {name: fields.get(name) for name in said}:
        return "it contradicts itself"
    if match := _TEMPLATE.fullmatch(key):
        is_template = all(isinstance(fields.get(name), str) for name in ("template", "version"))
        return None if is_template and match["machine"] == found.machine else "it is no template of that name"
    match = _SNAPSHOT.fullmatch(key)
    if match is None or (match["machine"], int(match["generation"])) != (found.machine, found.generation):
        return f"it is generation {found.generation} of machine {found.machine}"
    if not ACCOUNT_NAME.fullmatch(str(fields.get("account", ""))):
        return "it names no account"
    if not all(isinstance(fields.get(name), int) for name in _NUMBERS) or not isinstance(fields.get("series"), str):
        return "it does not say what a rebuild must know"
    return None
