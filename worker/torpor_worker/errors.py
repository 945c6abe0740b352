"""What a worker refuses, each with a sentence that a user can read."""

from __future__ import annotations


class WorkerError(Exception):
    """A request to a worker was refused; the message is a sentence for people."""


class SaveRefused(WorkerError):
    """The machine could not be saved; it stays awake and unharmed."""


class CannotWake(WorkerError):
    """The machine cannot be woken now; what it has accepted waits, and it is tried again."""


class Quarantined(CannotWake):
    """The machine's runtime is quarantined."""


def quarantine_sentence(series: str, reason: str) -> str:
    """What instructions of a quarantined runtime's machines are refused with."""
    return f"Runtime {series} of this machine is quarantined, and runs no instructions: {reason.rstrip('.')}."


class MachineGone(WorkerError):
    """The machine is parked, deleted, or held by another worker."""


class Draining(WorkerError):
    """The worker is stopping."""


class ProcessDied(Exception):
    """A machine's process is of no more use: its interpreter or its sandbox ended. Never leaves the worker."""


class FellAsleep(Exception):
    """A machine was put to sleep before it saw a wish: ask again. Never leaves the worker."""
