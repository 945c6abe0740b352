"""The machine of a notebook: found by its name, replaced by another one."""

from __future__ import annotations

from .._client import Client
from .._machine import Machine
from .binding import Binding


class NotebookMachine:
    """Made or found at the first use, so that a kernel starts at once and needs no server to do so."""

    def __init__(self, client: Client, binding: Binding) -> None:
        self._client = client
        self._binding = binding
        self._machine: Machine | None = None

    def __str__(self) -> str:
        if self._machine is None:
            return "This notebook has no machine yet: its first cell finds or makes it."
        return f"This notebook runs on machine {self._machine.name} at {self._client.url}."

    @property
    def is_bound(self) -> bool:
        """Whether another kernel of this notebook would find the same machine."""
        return self._binding.name is not None

    def machine(self) -> Machine:
        """The machine. Raises `TorporError` if there can be none now."""
        if self._machine is None:
            name, notebook = self._binding.name, self._binding.notebook
            if name is None:
                self._machine = self._client.new_machine(tags={"made-by": "jupyter"})
            else:
                self._machine = self._client.machine(name)
                if notebook is not None and "notebook" not in self._machine.detail().tags:
                    self._machine.update(tags={"made-by": "jupyter", "notebook": notebook[-_TAG_CHARACTERS:]})
        return self._machine

    def use(self, name: str) -> None:
        """Run on this one from now on. Raises `TorporError` if it cannot be, and nothing has changed then."""
        machine = self._client.machine(name)
        machine.detail()
        self._binding, self._machine = Binding(name), machine

    def renew(self) -> None:
        """Run on a new one from now on, which has the name from now on; the old one stays under its first name."""
        if self._binding.name is not None:
            self.machine().update(alias=None)
        self._machine = None
        self.machine()


_TAG_CHARACTERS = 200
