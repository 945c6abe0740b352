"""What a worker is told at its start."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Everything about a worker that can be set; times in seconds."""

    name: str = "local"
    """Names the worker's session in the ledger."""
    total_memory_bytes: int = 4096 * MEBIBYTE
    """What all awake machines may use together; over it the longest idle falls asleep."""
    adopt: bool = True
    """Whether sandboxes that have outlived the last worker are gone on with; otherwise machines are recovered."""
    warm_machines: int = 0
    """The most sandboxes that wait for a new machine of one template, if there are templates."""
    spare_sandboxes: int = 0
    """The most sandboxes that wait for an image to be restored into them, if there are templates."""
    wakes_at_once: int = 8
    """Sandboxes that are restored at the same time."""
    admission_seconds: float = 30.0
    """How long a wake waits for memory before it is refused (and tried again)."""
    quiet_save_seconds: float = 2.0
    """A machine that has been quiet for so long is saved without stopping."""
    save_interval_seconds: float = 60.0
    """A machine that is never quiet is saved when what no save has is so old, also in the middle of an instruction."""
    look_seconds: float = 1.0
    """A machine that has been quiet for so long looks into the log once, in case a hint was lost."""
    sweep_seconds: float = 5.0
    """How often machines that wait without a session are looked for."""
    output_batch_seconds: float = 0.02
    output_batch_bytes: int = 64 * 1024
    output_limit_bytes: int = 8 * MEBIBYTE
    """What a guest says of a command's output; the rest it only counts."""
    interrupt_again_seconds: float = 1.0
    """After the first interrupt; so are the next two."""
    kill_seconds: float = 3.0
    remove_seconds: float = 5.0
    settle_seconds: float = 0.2
    """In a careful replay, how long each entry is given to bring its process down before the next."""
    tries_limit: int = 5
    """A generation with which so many workers died before it had lived for `proof_seconds` is set aside."""
    proof_seconds: float = 10.0
    """So long a process that was brought back after a death lives until its worker is believed to survive it."""
    tail_entries: int = 1000
    """With so many instructions behind the last save, the next gap between two is used for one whatever it costs."""
    tail_bytes: int = 16 * MEBIBYTE
    """The same for what these instructions take in the log."""
    tail_seconds: float = 60.0
    """The same for how long they ran."""
    undo_limit: int = 5
    """Entries that one recovery may undo before it gives the generation up."""
    checkpoint_seconds: float = 120.0
    restore_seconds: float = 120.0
    destroy_seconds: float = 30.0
    retry_seconds: float = 1.0
    """The first wait after a failed save, wake or ledger call; it doubles with each failure."""
    retry_limit_seconds: float = 60.0

    def backoff_seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return float(min(self.retry_limit_seconds, self.retry_seconds * 2 ** min(failures - 1, 16)))
