"""`torpor recover` on a real folder: a ledger that was lost comes back from its store and its keys."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from tests.support.ledger import ACCOUNT, accepted, awake, open_ledger, ran, result, started
from typer.testing import CliRunner, Result

from torpor_api.commands.fsck import app as fsck
from torpor_api.commands.recover import app
from torpor_api.errors import InstructionNotFound, PointUnreachable
from torpor_api.ledger import MachineSettings, Point, SqlLedger
from torpor_api.ledger.database import FILE_NAME
from torpor_api.ledger.facts import SETTINGS
from torpor_api.ledger.rebuild import rebuild
from torpor_api.rebuild.plan import SEQS_SKIPPED, plan
from torpor_api.rebuild.survey import StoreSurvey
from torpor_snapshotter.archive import Archive, ParentKey
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.key import pack_key
from torpor_snapshotter.keys import FolderKeyStore
from torpor_snapshotter.owner import StoreOwned, claim
from torpor_snapshotter.runtimes.description import Description, FileParts, Part
from torpor_worker.ledger import EntryKind, Hold, KeptRuntime, Snapshot, StoredTemplate
from torpor_worker.snapshots import Stored


@dataclass
class House:
    """A data folder with a ledger and a store that is its own."""

    folder: Path
    ledger: SqlLedger
    archive: Archive
    store: FolderStore
    heads: dict[str, Snapshot] = field(default_factory=dict)
    template: ParentKey | None = None
    runtime: dict[str, str] = field(default_factory=dict)

    async def store_template(self) -> None:
        key = await self.ledger.allot_template("python", "1")
        fields = {"machine": key.split("/")[1], "generation": 0, "template": "python", "version": "1"}
        image = self._image()
        put = await self.archive.store(image, key, fields)
        await self.ledger.commit_template("python", StoredTemplate(key, put.sha256), put.stored_bytes)
        self.template = ParentKey(key, put.sha256, image)

    async def new(self, **tags: str) -> Hold:
        name, _ = await self.ledger.create_machine(
            ACCOUNT, MachineSettings(tags=tags, memory_mb=512, idle_seconds=None, template="python")
        )
        return await awake(self.ledger, name)

    async def save(self, hold: Hold, position: int, running_seq: int | None = None) -> Snapshot:
        """As a worker saves: the manifest says what the ledger and the capture know."""
        generation, key = await self.ledger.allot_save(hold)
        head = self.heads.get(hold.machine, hold.head)
        facts = await self.ledger.facts(hold, running_seq)
        running = {"seq": running_seq, "used_seconds": 1.5, "output_offset": 7, **facts.pop("running", {})}
        fields = {
            "machine": hold.machine,
            "account": hold.account,
            "epoch": hold.epoch,
            "line": hold.line,
            "generation": generation,
            "parent": None if head is None else head.generation,
            "position": position,
            "series": "series",
            "runtime": self.runtime,
            **facts,
            "running": None if running_seq is None else running,
        }
        parent = self.template if head is None else ParentKey(head.manifest_key, head.manifest_sha256, None)
        put = await self.archive.store(self._image(), key, fields, parent)
        snapshot = Snapshot(
            generation=generation,
            line=hold.line,
            parent=fields["parent"],
            position=position,
            running_seq=running_seq,
            running_used_seconds=1.5 if running_seq is not None else 0.0,
            output_offset=7 if running_seq is not None else 0,
            manifest_key=key,
            manifest_sha256=put.sha256,
            stored_bytes=put.stored_bytes,
            image_bytes=put.image_bytes,
            series="series",
            packs=put.packs,
        )
        await self.ledger.commit_snapshot(hold, snapshot.parent, snapshot)
        self.heads[hold.machine] = snapshot
        return snapshot

    def _image(self) -> Path:
        image = self.folder / "image"
        image.mkdir(exist_ok=True)
        shared = b"".join(bytes([number]) * 4096 for number in range(1, 50))
        (image / "pages.img").write_bytes(shared + os.urandom(4096))
        (image / "checkpoint.img").write_bytes(os.urandom(100))
        return image


@dataclass
class Lost:
    """What a test knows of a house whose database is gone."""

    folder: Path
    machine: str = ""
    kept: Any = None

    @property
    def database(self) -> Path:
        return self.folder / FILE_NAME

    def recover(self, *arguments: str, status: int = 0) -> Result:
        done = self._run(app, *arguments)
        assert done.exit_code == status, done.output
        return done

    def fsck(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._run(fsck, "--json").stdout)
        return answer

    def _run(self, command: Any, *arguments: str) -> Result:
        flags = ["--data-dir", str(self.folder), "--database-url", f"sqlite:///{self.database}"]
        return CliRunner().invoke(command, [*flags, *arguments], env={"COLUMNS": "200"})

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(query).fetchall()


async def _open(folder: Path) -> House:
    ledger = await open_ledger(folder)
    store = FolderStore(folder / "store")
    await claim(store, await ledger.identity(), has_objects=False)
    return House(folder, ledger, Archive(store, FolderKeyStore(folder / "keys")), store)


def lose(folder: Path, live: Any) -> Lost:
    """Let a house live, and lose its database."""

    async def run() -> Lost:
        house = await _open(folder)
        lost = await live(house)
        await house.archive.close()
        await house.ledger.close()
        return lost

    lost = asyncio.run(run())
    for path in folder.glob(f"{FILE_NAME}*"):
        path.unlink()
    return lost


def look(lost: Lost, work: Any) -> Any:
    """What a server of the rebuilt database sees."""

    async def run() -> Any:
        ledger = await open_ledger(lost.folder)
        try:
            return await work(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())


async def _travelled(house: House) -> Lost:
    """A machine with a template, tags, settings, three generations and a rollback between them."""
    await house.store_template()
    hold = await house.new(team="blue")
    await ran(house.ledger, hold)
    first = await house.save(hold, 1)
    await ran(house.ledger, hold)
    await house.save(hold, 2)
    assert await house.ledger.release(hold, 1)
    await house.ledger.roll_back(ACCOUNT, hold.machine, Point(generation=0), answer=lambda done: {})
    house.heads[hold.machine] = first
    hold = await awake(house.ledger, hold.machine)
    await ran(house.ledger, hold)
    await house.save(hold, 3)
    assert await house.ledger.release(hold, 2)
    kept = await house.ledger.machine(ACCOUNT, hold.machine), await house.ledger.snapshots(ACCOUNT, hold.machine)
    return Lost(house.folder, hold.machine, kept)


def test_machines_come_back_with_settings_lines_and_snapshots_and_say_what_is_lost(tmp_path: Path) -> None:
    lost = lose(tmp_path, _travelled)
    before, snapshots = lost.kept
    told = lost.recover()
    assert "1 machines of 1 accounts with 3 snapshots" in told.stdout

    async def check(ledger: SqlLedger) -> None:
        row = await ledger.machine(ACCOUNT, lost.machine)
        same = ("name", "account", "created_at", "tags", "memory_mb", "idle_seconds", "template", "generation", "undo")
        assert {name: getattr(row, name) for name in same} == {name: getattr(before, name) for name in same}
        assert row.stored_bytes == before.stored_bytes
        assert (row.state, row.lost_before) == ("asleep", 3 + SEQS_SKIPPED)
        assert [notice.code for notice in row.notices] == ["rebuilt"]
        again = await ledger.snapshots(ACCOUNT, lost.machine)
        facts = [
            [
                (s.generation, s.line, s.parent, s.position, s.packs, s.stored_bytes, s.manifest_sha256)
                for s in (row.snapshot for row in rows)
            ]
            for rows in (again, snapshots)
        ]
        assert facts[0] == facts[1]
        await accepted(ledger, lost.machine)
        hold = await awake(ledger, lost.machine)
        entry = await ledger.start_next(hold)
        assert entry is not None
        assert (entry.seq, entry.position) == (3 + SEQS_SKIPPED, 4)
        assert (await ledger.allot_save(hold))[0] == 3

    look(lost, check)
    assert lost.fsck()["ok"]
    [api_key] = [line.strip() for line in told.stdout.splitlines() if line.startswith(f"  {ACCOUNT}.")]
    assert look(lost, lambda ledger: ledger.authenticate(api_key)) == ACCOUNT


def test_every_column_of_a_machine_is_a_setting_or_known_to_be_none() -> None:
    """Whoever adds a column decides whether a rebuild gives it back: if not, `facts.py` names it."""
    assert set(SETTINGS) == {
        "memory_bytes",
        "idle_seconds",
        "template",
        "durability",
        "recovery",
        "replay_seconds",
        "alias",
    }


async def _renamed(house: House) -> Lost:
    """Two machines, of which the second took over the first one's alias."""
    names = []
    for _ in range(2):
        hold = await house.new()
        if names:
            await house.ledger.change_machine(ACCOUNT, names[0], settings={"alias": None}, tags={})
        await house.ledger.change_machine(ACCOUNT, hold.machine, settings={"alias": "analysis"}, tags={})
        await ran(house.ledger, hold)
        await house.save(hold, 1)
        names.append(hold.machine)
    return Lost(house.folder, names[1], names[0])


def test_an_alias_that_two_manifests_claim_goes_to_the_one_that_was_saved_last(tmp_path: Path) -> None:
    lost = lose(tmp_path, _renamed)
    lost.recover()
    assert dict(lost.rows("SELECT name, alias FROM machines")) == {lost.kept: None, lost.machine: "analysis"}


def test_a_dry_run_changes_nothing_and_a_second_run_is_refused(tmp_path: Path) -> None:
    lost = lose(tmp_path, _travelled)
    assert "Nothing was changed. Could be rebuilt: 1 machines" in lost.recover("--dry-run").stdout
    assert not lost.database.exists()
    said = json.loads(lost.recover("--json").stdout)
    assert (said["rebuilt"], [one["snapshots"] for one in said["machines"]]) == (True, [[0, 1, 2]])
    assert list(said["api_keys"]) == [ACCOUNT]
    before = lost.rows("SELECT * FROM machines")
    assert "is never rebuilt over them" in lost.recover(status=3).stderr
    assert lost.rows("SELECT * FROM machines") == before


def test_a_database_that_a_refused_server_made_is_filled_and_the_store_then_accepted(tmp_path: Path) -> None:
    lost = lose(tmp_path, _travelled)
    owner = (tmp_path / "store" / "torpor-owner").read_text()

    async def refused() -> str:
        ledger = await SqlLedger.open("sqlite:", tmp_path)
        identity = await ledger.identity()
        with pytest.raises(StoreOwned, match="torpor recover"):
            await claim(FolderStore(tmp_path / "store"), identity, has_objects=False)
        await ledger.close()
        return identity

    assert asyncio.run(refused()) != owner
    lost.recover()
    assert look(lost, lambda ledger: ledger.identity()) == owner


def test_an_instruction_that_ran_in_the_head_goes_on(tmp_path: Path) -> None:
    async def live(house: House) -> Lost:
        hold = await house.new()
        entry = await started(house.ledger, hold, "while True: ...")
        await house.save(hold, 1, running_seq=entry.seq)
        return Lost(house.folder, hold.machine)

    async def check(ledger: SqlLedger) -> None:
        assert await ledger.waiting() == [lost.machine]
        hold = await awake(ledger, lost.machine)
        assert hold.head is not None
        assert (hold.head.running_seq, hold.head.running_used_seconds, hold.head.output_offset) == (0, 1.5, 0)
        [entry] = await ledger.behind(hold, 0)
        assert (entry.seq, entry.code, entry.timeout_seconds, entry.position) == (0, "while True: ...", 15.0, 1)
        await ledger.finish(hold, 0, await ledger.count_attempt(hold, 0, 0), result("1"))

    lost = lose(tmp_path, live)
    lost.recover()
    look(lost, check)


def test_a_fork_that_was_never_saved_is_reseeded_again(tmp_path: Path) -> None:
    async def live(house: House) -> Lost:
        hold = await house.new(team="blue")
        await ran(house.ledger, hold)
        head = await house.save(hold, 1)
        place = await house.ledger.place_to_fork(ACCOUNT, hold.machine, Point(generation=0))
        said = {"generation": 0, "line": 0, "lines": [], "parent": None, "epoch": 0}
        key = f"machines/fork/{0:08}-ab"
        derived = {**said, "base": True, "next_seq": 0, "tags": {"team": "red"}}
        await house.ledger.expect_copies({"fork": key})
        [put] = await house.archive.derive(head.manifest_key, head.manifest_sha256, {"fork": key}, derived)
        stored = Stored(key, put.sha256, put.stored_bytes, put.image_bytes, put.packs)
        await house.ledger.fork(ACCOUNT, hold.machine, place, {"fork": stored}, tags={"team": "red"}, answer={})
        await house.ledger.delete_machine(ACCOUNT, hold.machine)
        return Lost(house.folder, "fork")

    async def check(ledger: SqlLedger) -> None:
        row = await ledger.machine(ACCOUNT, "fork")
        assert (row.tags, row.generation, row.lost_before) == ({"team": "red"}, 0, SEQS_SKIPPED)
        hold = await awake(ledger, "fork")
        [reseed] = await ledger.behind(hold, 1)
        assert (reseed.kind, reseed.position) == (EntryKind.RESEED, 2)

    lost = lose(tmp_path, live)
    lost.recover()
    look(lost, check)


def test_what_cannot_be_read_is_listed_left_out_and_never_deleted(tmp_path: Path) -> None:
    async def live(house: House) -> Lost:
        machines = []
        for _ in range(2):
            hold = await house.new()
            await ran(house.ledger, hold)
            await house.save(hold, 1)
            await ran(house.ledger, hold)
            await house.save(hold, 2)
            machines.append(hold.machine)
        return Lost(house.folder, machines[0], (machines[1], house.heads[machines[0]].manifest_key))

    lost = lose(tmp_path, live)
    locked, newest = lost.kept
    (tmp_path / "keys" / "machines" / locked).rename(tmp_path / "found later")
    content = bytearray((tmp_path / "store" / newest).read_bytes())
    content[-1] ^= 1
    (tmp_path / "store" / newest).write_bytes(content)
    told = lost.recover(status=1)
    assert f"damaged The object {newest} is damaged" in told.stdout
    assert told.stdout.count(f"locked The key of machine {locked}") == 2

    async def check(ledger: SqlLedger) -> None:
        row = await ledger.machine(ACCOUNT, lost.machine)
        assert (row.generation, [notice.code for notice in row.notices]) == (0, ["rebuilt"])
        assert "up to generation 1" in row.notices[0].message
        stored = {
            path.relative_to(tmp_path / "store").as_posix() for path in (tmp_path / "store").rglob("machines/*/*")
        }
        assert stored <= await ledger.known_keys()
        assert (await ledger.allot_save(await awake(ledger, lost.machine)))[0] == 2

    look(lost, check)
    checked = lost.fsck()
    assert (checked["ok"], checked["unreachable"], checked["kept"]) == (True, [], 6)

    (tmp_path / "found later").rename(tmp_path / "keys" / "machines" / locked)
    (tmp_path / "store" / newest).unlink()
    added = json.loads(lost.recover("--add", "--json").stdout)
    assert ([one["name"] for one in added["machines"]], added["api_keys"]) == ([locked], {})
    assert look(lost, lambda ledger: ledger.machine(ACCOUNT, locked)).generation == 1
    assert lost.fsck()["ok"]


def test_whoever_dies_while_it_writes_has_written_nothing(tmp_path: Path) -> None:
    lost = lose(tmp_path, _travelled)
    survey = asyncio.run(
        StoreSurvey(FolderStore(tmp_path / "store"), FolderKeyStore(tmp_path / "keys"), lambda done, total: None).run()
    )
    planned = plan(survey, 0)
    with pytest.raises(IntegrityError):
        rebuild("sqlite:", tmp_path, replace(planned, machines=planned.machines * 2))
    assert [lost.rows(f"SELECT * FROM {table}") for table in ("machines", "accounts", "packs")] == [[], [], []]
    lost.recover()


def test_a_snapshot_without_its_pack_is_left_out(tmp_path: Path) -> None:
    async def live(house: House) -> Lost:
        hold = await house.new()
        await ran(house.ledger, hold)
        await house.save(hold, 1)
        await ran(house.ledger, hold)
        head = await house.save(hold, 2)
        await house.store.delete(pack_key(head.manifest_key))
        return Lost(house.folder, hold.machine, head.manifest_key)

    lost = lose(tmp_path, live)
    assert f"missing {pack_key(lost.kept)} is not stored" in lost.recover(status=1).stdout
    assert lost.rows("SELECT head_generation, next_generation FROM machines") == [(0, 2)]


def test_runtimes_in_the_store_are_known_again(tmp_path: Path) -> None:
    parts = FileParts("a" * 64, (Part("b" * 64, 3),))
    whole = Description("series", "version", "series", parts, parts)
    halved = Description("older", "version", "older", parts, FileParts("c" * 64, (Part("d" * 64, 3),)))

    async def live(house: House) -> Lost:
        house.runtime = whole.facts
        lost = await _travelled(house)
        for described in (whole, halved):
            for name, content in ((described.key, described.to_bytes()), (described.runsc.parts[0].key, b"part")):
                path = house.folder / "store" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return lost

    lost = lose(tmp_path, live)
    assert "runtime older needs it" in lost.recover(status=1).stdout
    assert look(lost, lambda ledger: ledger.kept_runtime("series")) == KeptRuntime(whole.key, whole.sha256)
    assert look(lost, lambda ledger: ledger.kept_runtime("older")) is None
    assert {*whole.keys, halved.key} <= look(lost, lambda ledger: ledger.known_keys())


def test_with_a_name_it_is_the_sdks_command() -> None:
    environment = {"TORPOR_URL": "http://127.0.0.1:9", "TORPOR_API_KEY": "me.secret"}
    done = CliRunner().invoke(app, ["--how", "retry", "m"], env=environment)
    assert "The server does not answer" in str(done.exception)


def test_without_a_store_or_a_data_folder_there_is_nothing_to_rebuild(tmp_path: Path) -> None:
    lost = Lost(tmp_path)
    assert "has no snapshots" in lost.recover(status=3).stderr
    assert not lost.database.exists()
    assert "no data folder" in Lost(tmp_path / "none").recover(status=3).stderr


async def test_states_that_need_the_lost_log_are_refused_and_later_ones_are_reached(tmp_path: Path) -> None:
    lost = await asyncio.to_thread(lose, tmp_path, _travelled)
    await asyncio.to_thread(lost.recover)
    ledger = await open_ledger(tmp_path)
    hold = await awake(ledger, lost.machine)
    seq = await ran(ledger, hold)
    await ledger.check_point(ACCOUNT, lost.machine, Point(seq=seq))
    await ledger.check_point(ACCOUNT, lost.machine, Point(generation=0))
    with pytest.raises(PointUnreachable, match="lost with the database"):
        await ledger.check_point(ACCOUNT, lost.machine, Point(seq=0))
    with pytest.raises(InstructionNotFound, match="not known any more"):
        await ledger.instruction(ACCOUNT, lost.machine, 0)
    older = await ledger.go_back(hold, 0)
    assert older.rebuilt_from == 2
    with pytest.raises(PointUnreachable, match="lost with the database"):
        await ledger.check_point(ACCOUNT, lost.machine, Point(seq=seq))
    await ledger.close()
