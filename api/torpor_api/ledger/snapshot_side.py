"""What the API asks of the truth about snapshots: which there are, and machines that go on from one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sqlalchemy import Connection

from torpor_api.errors import SnapshotNotFound
from torpor_api.ledger import copies, forks, machines, parked, points, retention, rollbacks, saves
from torpor_api.ledger.readers import Readers
from torpor_api.ledger.rows import Idempotency, Place, Point, RolledBack, SnapshotRow, Unparked
from torpor_api.ledger.writer import Writer
from torpor_worker.snapshots import Stored


class SnapshotSide:
    """Each method is one transaction, durable when it returns."""

    _writer: Writer
    _readers: Readers

    async def snapshots(self, account: str, machine: str) -> list[SnapshotRow]:
        """The machine's snapshots that are kept, newest first. Raises `MachineNotFound`."""

        def work(connection: Connection) -> list[SnapshotRow]:
            return points.snapshots_of(connection, machines.identify(connection, account, machine))

        return await self._readers.run(work)

    async def pin(self, account: str, machine: str, generation: int, *, pinned: bool) -> None:
        """Keep a snapshot for ever, or no longer. Raises `MachineNotFound`, `SnapshotNotFound`."""

        def work(connection: Connection) -> None:
            if not saves.pin(connection, machines.identify(connection, account, machine), generation, pinned=pinned):
                raise SnapshotNotFound

        await self._writer.run(work, touches=machine)

    async def thin_out(self, after: int = 0, limit: int = 20) -> int:
        """Give up superfluous generations of the next `limit` machines behind the one with the id `after`.

        The id to go on from, 0 at the end: machines that are saved do so themselves. One transaction for each machine
        and few of its generations.
        """
        some, last = await self._readers.run(lambda connection: retention.due(connection, after, limit))
        for machine_id in some:
            while await self._writer.run(partial(retention.thin_out, machine_id=machine_id)):
                continue
        return last

    async def check_point(self, account: str, machine: str, point: Point) -> None:
        """Whether the machine can be brought to this point now.

        Raises `MachineNotFound`, `SnapshotNotFound`, `InstructionNotFound`, `PointUnreachable`.
        """

        def work(connection: Connection) -> None:
            points.place(connection, machines.identify(connection, account, machine), point)

        await self._readers.run(work)

    async def roll_back(
        self,
        account: str,
        machine: str,
        to: Point,
        *,
        answer: Callable[[RolledBack], dict[str, Any]],
        idempotency: Idempotency | None = None,
    ) -> RolledBack:
        """Put a machine that is asleep, with all that it did in its head, on a new line that begins at this point.

        What is on its way for it is fenced. Raises as `check_point` does, `MachineBusy`, and `Unsettled` if it is not
        asleep or its head lacks something. The answer is kept for a repeat of the request.
        """
        return await self._writer.run(
            lambda connection: rollbacks.roll_back(
                connection, account, machine, to, remember=answer, idempotency=idempotency
            ),
            touches=machine,
        )

    async def retry(self, account: str, machine: str) -> Unparked:
        """Let a parked machine be recovered once more. Raises `MachineNotFound`, `MachineNotParked`."""
        return await self._writer.run(lambda connection: parked.retry(connection, account, machine), touches=machine)

    async def skip(self, account: str, machine: str, seq: int | None) -> Unparked:
        """The same, without an instruction; None: the one that recovery blames.

        Raises as `retry` does, `InstructionNotFound`, and `InvalidRequest` if none is known.
        """
        return await self._writer.run(
            lambda connection: parked.skip(connection, account, machine, seq), touches=machine
        )

    async def newest_usable(self, account: str, machine: str) -> Point:
        """The newest generation of a parked machine that was not set aside.

        Raises as `retry` does, and `SnapshotNotFound` if there is none.
        """
        return await self._readers.run(lambda connection: parked.newest_usable(connection, account, machine))

    async def place_to_fork(self, account: str, machine: str, at: Point | None) -> Place:
        """Where forks of the machine are to begin; without a point at its head, which has all that it did.

        Without one, a busy machine's is its newest state in which nothing ran, and `lacks` says what is not in it.
        Raises as `check_point` does; without a point also `MachineParked`, `MachineBusy` if no such state is saved, and
        `Unsettled` if the head lacks something.
        """
        return await self._readers.run(lambda connection: forks.place_to_fork(connection, account, machine, at))

    async def expect_copies(self, keys: dict[str, str]) -> None:
        """Manifests for forks are going to be stored under these keys, by the names that the forks will have."""
        await self._writer.run(lambda connection: copies.expect(connection, keys))

    async def give_up_copies(self, names: Iterable[str]) -> dict[str, str]:
        """There will be no forks of these names: condemn what was stored for those that there are not, by name."""
        return await self._writer.run(lambda connection: copies.give_up(connection, names))

    async def fork(
        self,
        account: str,
        machine: str,
        place: Place,
        stored: dict[str, Stored | None],
        *,
        tags: dict[str, str] | None,
        answer: dict[str, Any],
        idempotency: Idempotency | None = None,
    ) -> None:
        """Make the machines that `stored` names, each with what is stored of the place under a key that was expected.

        Raises `MachineNotFound`, and `Unsettled` or `HeadMoved` if the place, or a copy of it, is not there any more.
        The answer is kept for a repeat.
        """
        await self._writer.run(
            lambda connection: forks.fork(
                connection, account, machine, place, stored, tags=tags, answer=answer, idempotency=idempotency
            )
        )
