"""The second half of the protocol: snapshots, the objects that they need, and what becomes of these.

README.md says what the parts stand for, and which function of the code has each condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from docs.protocol.checker import Step

Names = frozenset[str]

PARENT: Final = "parent"
FORK: Final = "fork"
FORK_MANIFEST: Final = "manifest of the fork"
OLD_TEMPLATE: Final = "pack of the old template"
NEW_TEMPLATE: Final = "pack of the new template"
NOTHING: Final[Names] = frozenset()


class Condition(Enum):
    """What the code heeds. The model can leave out one, to show that it is needed."""

    REGISTERED_FIRST = "the keys of a save's objects are in the ledger before the objects are put"
    COPY_REGISTERED_FIRST = "the key of a fork's manifest is in the ledger before it is put"
    STORED_FIRST = "a snapshot is committed when its objects are stored"
    STILL_THERE = "a commit is refused if a pack that it needs was condemned"
    FORK_STILL_THERE = "a fork is refused if its snapshot, or a pack that it needs, was condemned"
    COMMIT_REFERS = "a commit refers to the packs that it needs"
    FORK_REFERS = "a fork refers to the packs that it needs"
    REFERRED_KEPT = "a pack is condemned only if no snapshot refers to it"
    TEMPLATE_KEPT = "a pack is condemned only if no template needs it"
    HEAD_KEPT = "retention never gives up a head"
    LISTED_FIRST = "what no row names is looked for in a list of the store that is older than the rows"
    ABANDONED_CONDEMNED = "saves that can never be committed are condemned with the next epoch"
    KEY_ROW_LAST = "the row of a key that is to be destroyed goes after the key"
    KEY_AFTER_SAVES = "that row stays while a save of the machine is under way, which would make the key anew"
    COPIES_CONDEMNED = "the copies for forks that a dead server was making are condemned at the next start"


class Save(NamedTuple):
    """A row of a save; a snapshot if it is committed, which refers to packs."""

    machine: str
    number: int
    epoch: int
    committed: bool = False
    needs: Names = NOTHING
    refers: Names = NOTHING

    @property
    def manifest(self) -> str:
        """The key of its manifest."""
        return FORK_MANIFEST if self.machine == FORK else f"manifest {self.number}"

    @property
    def pack(self) -> str:
        """The key of its own pack."""
        return "" if self.machine == FORK else f"pack {self.number}"


class Saver(NamedTuple):
    """A save under way: what it needs, and how many of its two objects are stored."""

    save: Save
    on: int
    stored: int = 0


class Forker(NamedTuple):
    """A fork under way, from a snapshot."""

    source: Save
    stored: bool = False


class State(NamedTuple):
    """Rows, objects, and what is under way."""

    machines: Names = frozenset({PARENT})
    heads: tuple[tuple[str, int], ...] = ()
    saves: frozenset[Save] = frozenset()
    epoch: int = 0
    packs: Names = NOTHING
    template: str = NEW_TEMPLATE
    copies: Names = NOTHING
    condemned: Names = NOTHING
    condemned_keys: Names = NOTHING
    objects: Names = NOTHING
    keys: Names = NOTHING
    """Machines that have one in the key store."""
    saver: Saver | None = None
    forker: Forker | None = None
    listed: Names | None = None
    """Of the collector at the start: the objects that it saw."""
    known: Names | None = None
    """The same without `LISTED_FIRST`: the rows that it saw."""
    looked: bool = False
    stray: str = ""
    """What a dead server was putting, and may still arrive."""
    next_number: int = 0
    forked: bool = False
    harms: int = 0


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of everything."""

    saves: int
    harms: int = 0
    """Deaths of the server."""
    forks: bool = False
    """A fork is made, once."""
    templates: bool = False
    """The template is replaced by another, once."""


class Keeping:
    """One machine, one server and its successors; `without` one of the conditions."""

    def __init__(self, size: Size, without: Condition | None = None) -> None:
        self._size = size
        self._without = without

    # What the checker asks.

    def initial(self) -> list[State]:
        """A machine that was never saved."""
        template = OLD_TEMPLATE if self._size.templates else NEW_TEMPLATE
        return [
            State(
                harms=self._size.harms,
                forked=not self._size.forks,
                template=template,
                packs=frozenset({template}),
                objects=frozenset({template}),
            )
        ]

    def steps(self, state: State) -> Iterator[Step[State]]:
        """All that can happen next."""
        yield from self._saving(state)
        yield from self._forking(state)
        yield from self._travel(state)
        yield from self._giving_up(state)
        yield from self._collecting(state)
        if state.stray:
            yield Step(f"{state.stray} arrives late", _put(state, state.stray)._replace(stray=""), True)
        if state.saver is None and state.forker is None and state.looked and not state.objects <= _named(state):
            yield Step("the server is started anew", self._started(state))
        if state.harms:
            stray = "" if state.saver is None else _next_object(state.saver)
            if state.forker is not None and not state.forker.stored:
                stray = FORK_MANIFEST
            died = state._replace(harms=state.harms - 1, saver=None, forker=None, stray=stray or state.stray)
            yield Step("the server dies, and is started anew", self._started(died), True)

    def broken(self, state: State) -> str | None:
        """The promise that this state breaks."""
        for save in state.saves:
            if save.committed:
                missing = ({save.manifest} | save.needs) - state.objects
                if missing:
                    return f"a snapshot of the {save.machine} needs what is not there: {', '.join(sorted(missing))}"
                if save.machine not in state.keys:
                    return f"a snapshot of the {save.machine} cannot be read without the key"
        if state.condemned & (state.packs | state.copies | {save.manifest for save in state.saves}):
            return "a row names an object that is condemned"
        for machine, number in state.heads:
            if not any(save.committed for save in state.saves if (save.machine, save.number) == (machine, number)):
                return f"the head of the {machine} is not there"
        return None

    def settled(self, state: State) -> bool:
        """Nothing is under way, and what is stored is what is needed."""
        if state.saver is not None or state.forker is not None:
            return False
        needed = {state.template}
        for save in state.saves:
            if not save.committed:
                return False
            needed |= {save.manifest} | save.needs
        has_key = {save.machine for save in state.saves}
        return state.objects == needed and state.keys - state.machines == NOTHING and has_key <= state.keys

    # Saves.

    def _saving(self, state: State) -> Iterator[Step[State]]:
        saver = state.saver
        if saver is None:
            if state.next_number < self._size.saves and PARENT in state.machines:
                yield from self._begun(state)
            return
        if saver.stored < 2:
            after = _put(state, _next_object(saver), PARENT)
            yield Step(
                f"{_next_object(saver)} is stored", after._replace(saver=saver._replace(stored=saver.stored + 1))
            )
        yield Step("the save fails", state._replace(saver=None), True)
        if saver.stored == 2 or self._without is Condition.STORED_FIRST:
            yield Step(f"snapshot {saver.save.number} is committed, or refused", self._committed(state, saver))

    def _begun(self, state: State) -> Iterator[Step[State]]:
        head = _head(state, PARENT)
        number = state.next_number
        own = f"pack {number}"
        save = Save(PARENT, number, state.epoch)
        after = state._replace(next_number=number + 1)
        if self._without is not Condition.REGISTERED_FIRST:
            after = after._replace(saves=state.saves | {save}, packs=state.packs | {own})
        older = frozenset({state.template}) if head is None else head.needs
        on = -1 if head is None else head.number
        for needs, how in ((older | {own}, "on the packs of the last"), (frozenset({own}), "alone")):
            saver = Saver(save._replace(needs=needs), on)
            yield Step(f"save {number} begins, {how}", after._replace(saver=saver))

    def _committed(self, state: State, saver: Saver) -> State:
        save, state = saver.save, state._replace(saver=None)
        if self._without is Condition.REGISTERED_FIRST:
            state = state._replace(packs=state.packs | {save.pack})
        head = _head(state, PARENT)
        same_epoch = save.epoch == state.epoch
        there = save.needs <= state.packs or self._without is Condition.STILL_THERE
        if PARENT not in state.machines or not same_epoch or not there:
            return state
        if saver.on != (-1 if head is None else head.number):
            return state
        refers = NOTHING if self._without is Condition.COMMIT_REFERS else save.needs
        committed = save._replace(committed=True, refers=refers)
        saves = frozenset(one for one in state.saves if one.number != save.number or one.machine == FORK)
        return _with_head(state._replace(saves=saves | {committed}), PARENT, save.number)

    # Forks, rollbacks, deletions.

    def _forking(self, state: State) -> Iterator[Step[State]]:
        forker = state.forker
        if forker is None:
            for save in state.saves:
                if save.machine == PARENT and save.committed and not state.forked:
                    registered = self._without is not Condition.COPY_REGISTERED_FIRST
                    after = state._replace(forker=Forker(save), forked=True)
                    if registered:
                        after = after._replace(copies=frozenset({FORK_MANIFEST}))
                    yield Step(f"a fork of {save.number} begins", after)
            return
        if not forker.stored:
            after = _put(state, FORK_MANIFEST, FORK)
            yield Step("the manifest of the fork is stored", after._replace(forker=forker._replace(stored=True)))
        else:
            yield Step("the fork is made, or refused", self._forked(state, forker))

    def _forked(self, state: State, forker: Forker) -> State:
        source = forker.source
        state = state._replace(forker=None)
        there = source in state.saves and source.needs <= state.packs and PARENT in state.machines
        if not there and self._without is not Condition.FORK_STILL_THERE:
            return self._given_up(state)
        refers = NOTHING if self._without is Condition.FORK_REFERS else source.needs
        save = Save(FORK, 0, 0, True, source.needs, refers)
        state = state._replace(machines=state.machines | {FORK}, saves=state.saves | {save}, copies=NOTHING)
        return _with_head(state, FORK, 0)

    def _given_up(self, state: State) -> State:
        return state._replace(
            copies=NOTHING,
            condemned=state.condemned | {FORK_MANIFEST},
            condemned_keys=state.condemned_keys | {FORK},
        )

    def _travel(self, state: State) -> Iterator[Step[State]]:
        head = _head(state, PARENT)
        for save in state.saves:
            # A rollback needs a machine that is asleep, but knows nothing of the saves of those who have lost it.
            if head is not None and save.machine == PARENT and save.committed and save.number < head.number:
                after = _with_head(state._replace(epoch=state.epoch + 1), PARENT, save.number)
                yield Step(f"a rollback to {save.number}", self._abandoned(after), True)
        if state.saver is None and any(not save.committed for save in state.saves):
            after = self._abandoned(state._replace(epoch=state.epoch + 1))
            yield Step("the machine is acquired anew", _renumbered(after))
        for machine in state.machines:
            yield Step(f"the {machine} is deleted", self._deleted(state, machine), True)
        if state.template == OLD_TEMPLATE:
            after = state._replace(template=NEW_TEMPLATE, packs=state.packs | {NEW_TEMPLATE})
            after = _put(after, NEW_TEMPLATE)
            yield Step("another template takes the place of the old", self._let_go(after, frozenset({OLD_TEMPLATE})))

    def _deleted(self, state: State, machine: str) -> State:
        mine = [save for save in state.saves if save.machine == machine]
        state = state._replace(
            machines=state.machines - {machine},
            heads=tuple(head for head in state.heads if head[0] != machine),
            condemned_keys=state.condemned_keys | {machine},
        )
        return self._condemned(state, mine)

    # What is not needed any more.

    def _giving_up(self, state: State) -> Iterator[Step[State]]:
        for save in state.saves:
            head = _head(state, save.machine)
            if head is None or (save.number == head.number and self._without is not Condition.HEAD_KEPT):
                continue
            if save.committed or save.number < head.number:
                yield Step(f"snapshot {save.number} is given up", self._condemned(state, [save]))

    def _condemned(self, state: State, saves: list[Save]) -> State:
        """Rows of saves go; their manifests, and packs that nothing needs any more, are condemned."""
        gone = frozenset(save.manifest for save in saves)
        state = state._replace(saves=state.saves - frozenset(saves), condemned=state.condemned | gone)
        packs = frozenset(pack for save in saves for pack in (*save.refers, save.pack) if pack)
        return self._let_go(state, packs)

    def _let_go(self, state: State, packs: Names) -> State:
        if self._without is not Condition.REFERRED_KEPT:
            packs = packs.difference(*(save.refers for save in state.saves))
        if self._without is not Condition.TEMPLATE_KEPT:
            packs -= {state.template}
        packs &= state.packs
        return state._replace(packs=state.packs - packs, condemned=state.condemned | packs)

    def _abandoned(self, state: State) -> State:
        if self._without is Condition.ABANDONED_CONDEMNED:
            return state
        late = [
            save for save in state.saves if not save.committed and save.machine == PARENT and save.epoch < state.epoch
        ]
        return self._condemned(state, late)

    # The collector.

    def _started(self, state: State) -> State:
        """A new session: every machine is taken over, and the collector looks through the store."""
        state = state._replace(epoch=state.epoch + 1, looked=False, listed=None, known=None)
        if state.copies and self._without is not Condition.COPIES_CONDEMNED:
            state = self._given_up(state)
        return _renumbered(self._abandoned(state))

    def _collecting(self, state: State) -> Iterator[Step[State]]:
        for machine in state.condemned_keys:
            if machine in state.keys:
                yield Step(f"the key of the {machine} is destroyed", state._replace(keys=state.keys - {machine}))
            may_be_made = state.saver is not None and machine == PARENT
            if may_be_made and self._without is not Condition.KEY_AFTER_SAVES:
                continue
            if machine not in state.keys or self._without is Condition.KEY_ROW_LAST:
                rest = state.condemned_keys - {machine}
                yield Step(f"the row of the key of the {machine} goes", state._replace(condemned_keys=rest))
        for key in state.condemned:
            after = state._replace(objects=state.objects - {key}, condemned=state.condemned - {key})
            yield Step(f"{key} is deleted", after)
        if state.looked:
            return
        rows = _named(state)
        if self._without is Condition.LISTED_FIRST:
            if state.known is None:
                yield Step("the rows are read", state._replace(known=rows))
            else:
                yield Step("what is none of them is deleted", _forgotten(state, state.objects - state.known))
        elif state.listed is None:
            yield Step("the store is listed", state._replace(listed=state.objects))
        else:
            yield Step("what no row names is deleted", _forgotten(state, state.listed - rows))


def _head(state: State, machine: str) -> Save | None:
    number = dict(state.heads).get(machine)
    return next((save for save in state.saves if (save.machine, save.number) == (machine, number)), None)


def _with_head(state: State, machine: str, number: int) -> State:
    return state._replace(heads=tuple(sorted((dict(state.heads) | {machine: number}).items())))


def _next_object(saver: Saver) -> str:
    return (saver.save.pack, saver.save.manifest, "")[saver.stored]


def _put(state: State, key: str, machine: str = "") -> State:
    """An object is stored, and the key of its machine is made before."""
    keys = state.keys | {machine} if machine else state.keys
    return state._replace(objects=state.objects | {key}, keys=keys)


def _named(state: State) -> Names:
    """Every object that a row names."""
    return state.packs | state.copies | state.condemned | {save.manifest for save in state.saves}


def _forgotten(state: State, unknown: Names) -> State:
    return state._replace(objects=state.objects - unknown, looked=True, listed=None, known=None)


def _renumbered(state: State) -> State:
    """Epochs grow for ever, and only which is the greater makes a difference."""
    saves = {save for save in state.saves if not save.committed}
    if state.saver is not None:
        saves.add(state.saver.save)
    known = sorted({save.epoch for save in saves} | {state.epoch})
    epochs = {epoch: index for index, epoch in enumerate(known)}

    def renumbered(save: Save) -> Save:
        return save._replace(epoch=0 if save.committed else epochs[save.epoch])

    saver = state.saver
    if saver is not None:
        saver = saver._replace(save=renumbered(saver.save))
    return state._replace(
        epoch=epochs[state.epoch], saves=frozenset(renumbered(save) for save in state.saves), saver=saver
    )
