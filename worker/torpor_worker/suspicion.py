"""Who is to blame when a machine that was brought back dies again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torpor_worker.ledger import Entry

Verdict = Literal["again", "undo", "set_aside"]


@dataclass(slots=True)
class Suspicion:
    """What deaths have taught since the last entry that finished; bounded, as every other verdict takes something away.

    The first death of a process that had finished an entry says nothing. A generation whose processes die twice
    before they finish a new entry is set aside, unless an entry replayed behind it can be blamed: then that is undone.
    """

    undo_limit: int
    proved: bool = True
    """The present process has finished a new entry, or was never brought back from anything."""
    deaths: int = 0
    """Of processes of the present generation, in a row."""
    undone: int = 0
    bereaved: bool = False
    """A process died, and none that came after it has finished a new entry."""
    replayed: list[int] = field(default_factory=list)
    """Seqs replayed into the present process, in order."""
    suspect: int | None = None
    """The one that was replayed when the last process died."""
    suspect_change: Entry | None = None
    """The change of files that was being made again when the last process died."""
    counted: bool = False
    """Whether the ledger has tries or deaths of the present generation."""
    tried: bool = False
    """Whether this worker's try with the present generation is counted."""

    @property
    def suspicious(self) -> bool:
        """Whether the present process follows a dead one and has finished no entry yet.

        Such a process is not saved by itself: what killed the other may be in it, and would be in every save.
        """
        return self.bereaved and not self.proved

    @property
    def careful(self) -> bool:
        """Whether entries should be replayed one by one, each with time to show what it does."""
        return self.deaths > 0 or self.undone > 0

    def brought_back(self) -> None:
        """A new process is being made."""
        self.proved = False
        self.replayed = []
        self.suspect = None
        self.suspect_change = None

    def prove(self) -> None:
        """The present process finished a new entry."""
        self.proved = True
        self.bereaved = False
        self.deaths = self.undone = 0
        self.replayed = []
        self.suspect = None

    def remember(self, deaths: int) -> None:
        """What the ledger knows of processes of the present generation that died under other workers."""
        if deaths > self.deaths:
            self.deaths = deaths
            self.bereaved = True

    def taken_over(self, tries: int, deaths: int) -> None:
        """The present process was brought back by another worker, which had counted so much and seen no proof."""
        if tries or deaths:
            self.brought_back()
            self.remember(deaths)
            self.bereaved = self.counted = self.tried = True

    def gone_back(self) -> None:
        """The present generation was set aside: the next one starts without blame."""
        self.deaths = 0
        self.counted = self.tried = False

    def died(self, *, running: bool) -> Verdict:
        """The process died; `running`: in the middle of a new entry, which was undone for it."""
        self.bereaved = True
        if self.proved or (running and self.replayed):
            # Either it had lived well, or the generation was good enough to run what was replayed.
            return "again"
        self.deaths += 1
        if self.deaths < 2:
            return "again"
        if self.suspect is None and self.replayed and not running:
            self.suspect = self.replayed[-1]
        self.deaths = 0
        if self.suspect is not None and self.undone < self.undo_limit:
            self.undone += 1
            return "undo"
        return "set_aside"
