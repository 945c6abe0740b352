"""Compares a store with what the ledger says must be in it. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from torpor_api.at_once import each
from torpor_api.ledger.inventory import Inventory, Need, NeededManifest, NeededRuntime
from torpor_snapshotter.archive import Archive
from torpor_snapshotter.key import PROBE_PREFIX
from torpor_snapshotter.keys import KeyMissing, KeyStore
from torpor_snapshotter.owner import OWNER_KEY
from torpor_snapshotter.pack import Pack
from torpor_snapshotter.pack_reader import PackReader
from torpor_snapshotter.runtimes.keeping import read_description, read_part
from torpor_snapshotter.store import DamagedObject, NotStored, ObjectStore, StoreError

Report = Callable[[int, int], None]
"""Called with how many objects were looked at, and how many there are to look at as far as is known."""


class State(StrEnum):
    """What is wrong with an object."""

    MISSING = "missing"
    DAMAGED = "damaged"
    LOCKED = "locked"
    """It is there, and there is no key that opens it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that is needed and cannot be used."""

    key: str
    state: State
    reason: str
    needs: tuple[Need, ...]
    """The snapshots and templates that cannot be used for it, in order."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found."""

    manifests: int
    packs: int
    runtimes: int
    problems: tuple[Problem, ...]
    unreachable: tuple[str, ...]
    """Keys of objects that no row names: the next start of the server deletes them."""
    condemned: int
    """Objects that are there still and that the server is about to delete."""
    kept: int
    """Objects that a rebuild of the database could not read: nothing needs them, and nothing deletes them."""


class StoreCheck:
    """One check of one store."""

    def __init__(self, store: ObjectStore, keys: KeyStore, inventory: Inventory, report: Report) -> None:
        self._store = store
        self._archive = Archive(store, keys)
        self._reader = PackReader(store.read)
        self._inventory = inventory
        self._report = report
        self._looked_at = 0
        self._found = _Findings()

    async def run(self, *, quick: bool) -> Checked:
        """Read every manifest that is needed, and every pack, or if `quick` only see whether the packs are there.

        Raises `StoreError` if the store cannot be read, or is another ledger's.
        """
        try:
            return await self._run(quick=quick)
        finally:
            await self._archive.close()

    async def _run(self, *, quick: bool) -> Checked:
        await self._check_owner()
        stored = {key async for key in self._store.list() if key != OWNER_KEY and not key.startswith(PROBE_PREFIX)}
        manifests, found = self._inventory.manifests, self._found
        for manifest in manifests:
            for key in (manifest.key, *manifest.packs):
                found.needs[key].add(manifest.need)
        packs: dict[str, Pack] = {}

        async def read_manifest(manifest: NeededManifest) -> None:
            for pack in (await self._archive.read_manifest(manifest.key, manifest.sha256)).packs:
                packs[pack.key] = pack
                found.needs[pack.key].add(manifest.need)

        total = len(found.needs)
        self._report(0, total)
        await each(manifests, lambda manifest: self._look(manifest.key, read_manifest(manifest), total))
        pack_keys = sorted(found.needs.keys() - {manifest.key for manifest in manifests})
        for key in pack_keys:
            if key not in stored:
                found.add(key, State.MISSING, f"{key} is not stored.")
        if not quick:
            whole = [packs[key] for key in pack_keys if key in packs and key in stored]
            total = len(manifests) + len(whole)
            await each(whole, lambda pack: self._look(pack.key, self._reader.verify(pack), total))
        await each(self._inventory.runtimes, lambda runtime: self._look_at_runtime(runtime, stored, quick=quick))
        return Checked(
            manifests=len(manifests),
            packs=len(pack_keys),
            runtimes=len(self._inventory.runtimes),
            problems=found.problems(),
            unreachable=tuple(sorted(stored - self._inventory.known - found.needs.keys())),
            condemned=len(stored & self._inventory.condemned),
            kept=len(stored & self._inventory.kept - found.needs.keys()),
        )

    async def _look_at_runtime(self, runtime: NeededRuntime, stored: set[str], *, quick: bool) -> None:
        for key in (runtime.key, *runtime.parts):
            self._found.needs[key].add(runtime.need)
            if key not in stored:
                self._found.add(key, State.MISSING, f"{key} is not stored.")
        if runtime.key not in stored:
            return
        task = self._read_runtime(runtime, set() if quick else stored)
        await self._look(runtime.key, task, self._looked_at + 1)

    async def _read_runtime(self, runtime: NeededRuntime, parts: set[str]) -> None:
        description = await read_description(self._store, runtime.key, runtime.sha256)
        for part in {part for _, file in description.files for part in file.parts if part.key in parts}:
            try:
                await read_part(self._store, part)
            except DamagedObject as error:
                self._found.add(part.key, State.DAMAGED, str(error))

    async def _check_owner(self) -> None:
        try:
            owner = (await self._store.read(OWNER_KEY)).decode(errors="replace").strip()
        except NotStored:
            return
        if owner != self._inventory.owner:
            raise StoreError(
                f"The store is another server's ({owner[:100]}, this one is {self._inventory.owner}): "
                "name the right one with --store-url."
            )

    async def _look(self, key: str, work: Awaitable[None], total: int) -> None:
        try:
            await work
        except NotStored as error:
            self._found.add(key, State.MISSING, str(error))
        except DamagedObject as error:
            self._found.add(key, State.DAMAGED, str(error))
        except KeyMissing as error:
            self._found.add(key, State.LOCKED, str(error))
        self._looked_at += 1
        self._report(self._looked_at, total)


@dataclass(slots=True)
class _Findings:
    needs: dict[str, set[Need]] = field(default_factory=lambda: defaultdict(set))
    """Of each object that is needed, who needs it."""
    _wrong: dict[str, tuple[State, str]] = field(default_factory=dict)

    def add(self, key: str, state: State, reason: str) -> None:
        self._wrong[key] = state, reason

    def problems(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(key, state, reason, tuple(sorted(self.needs[key], key=_order)))
            for key, (state, reason) in sorted(self._wrong.items())
        )


def _order(need: Need) -> tuple[str, int]:
    return need.name, -1 if need.generation is None else need.generation
