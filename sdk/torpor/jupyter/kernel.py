"""The kernel: what Jupyter asks, put to a machine."""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from typing import Any

from ipykernel.kernelbase import Kernel
from IPython.core.inputtransformer2 import TransformerManager

from .._asking import Asking
from .._client import Client
from .._errors import TorporError
from .._events import Display, InputRequest, Notice, Stderr, Stdout
from .._machine import Machine, RunStream
from .._mime import mime_bundle
from .._result import Result
from .binding import binding_of
from .frontend import REQUEST, Frontend
from .magic import obey
from .notebook_machine import NotebookMachine

_SEQ_SECONDS = 30.0
_HISTORY_LENGTH = 1000


class TorporKernel(Kernel):
    """One notebook's conversation with its machine."""

    implementation = "torpor"
    implementation_version = "1"
    banner = "Python on a Torpor machine: its variables are still there next year."
    language_info: dict[str, Any] = {  # noqa: RUF012 - as the base class has it
        "name": "python",
        "version": "3.13",
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    }

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self.torpor: NotebookMachine = NotebookMachine(Client(), binding_of())
        self._running: tuple[Machine, RunStream] | None = None
        self._told = False

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, str] | None = None,
        allow_stdin: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        """Run a cell. What it shows is shown at the moment when it appears."""
        if not code.strip():
            return self._ok()
        try:
            if (said := await asyncio.to_thread(obey, self, code)) is not None:
                self._say("stdout", said.rstrip("\n") + "\n", silent)
                return self._ok()
            machine = await asyncio.to_thread(self.torpor.machine)
            self._tell_name(machine, silent)
            frontend = Frontend(self) if allow_stdin else None
            result = await asyncio.to_thread(self._run, machine, code, silent, frontend)
        except TorporError as error:
            lines = [f"{type(error).__name__}: {error}", *([error.hint] if error.hint else [])]
            return self._failed(type(error).__name__, str(error), lines, silent)
        if result.error is not None:
            return self._failed(result.error.name, result.error.message, list(result.error.traceback), silent)
        if result.value is not None and not silent:
            bundle = mime_bundle(result.value, result.data)
            content = {"execution_count": self.execution_count, "data": bundle, "metadata": {}}
            self._publish("execute_result", content)
        return self._ok()

    async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Run a cell for one of the frontends, which is the one that its questions are put to."""
        REQUEST.set((ident, parent))
        await super().execute_request(stream, ident, parent)  # type: ignore[no-untyped-call]

    def _run(self, machine: Machine, code: str, silent: bool, frontend: Frontend | None) -> Result:
        stream = machine.stream(
            code,
            timeout_seconds=math.inf,  # it is a person who interrupts a notebook
            queue=True,
            stdin_open=frontend is not None,
        )
        asking = None if frontend is None else Asking(stream, "", frontend.answer, self.log.error)
        with stream, asking or nullcontext():
            self._running = machine, stream
            try:
                for event in stream:
                    match event:
                        case Stdout():
                            self._say("stdout", event.text, silent)
                        case Stderr():
                            self._say("stderr", event.text, silent)
                        case Display() if not silent:
                            content = {"data": event.data, "metadata": event.metadata, "transient": {}}
                            self._publish("display_data", content)
                        case InputRequest() if asking is not None:
                            asking.ask(event)
                        case Notice():
                            self._say("stderr", f"[torpor] {event.message}\n", silent)
                        case _:
                            pass
            finally:
                self._running = None
            return stream.result()

    def _tell_name(self, machine: Machine, silent: bool) -> None:
        """Once, where nothing else would lead back to the machine."""
        if not self._told and not self.torpor.is_bound and not silent:
            self._told = True
            text = f"[torpor] A new machine. To come back to it, begin the notebook with: %torpor use {machine.name}\n"
            self._say("stderr", text, silent)

    def _say(self, stream: str, text: str, silent: bool) -> None:
        if not silent:
            self._publish("stream", {"name": stream, "text": text})

    def _publish(self, kind: str, content: dict[str, Any]) -> None:
        self.send_response(self.iopub_socket, kind, content)  # type: ignore[no-untyped-call]

    def _ok(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "execution_count": self.execution_count,
            "payload": [],
            "user_expressions": {},
        }

    def _failed(self, name: str, message: str, traceback: list[str], silent: bool) -> dict[str, Any]:
        content = {"ename": name, "evalue": message, "traceback": traceback}
        if not silent:
            self._publish("error", content)
        return {"status": "error", "execution_count": self.execution_count, **content}

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """End what runs on the machine: the cell, not the kernel. Called in the thread of the control channel."""
        content: dict[str, Any] = {"status": "ok"}
        try:
            await self._interrupt()
        except TorporError as error:
            content = {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
        session: Any = self.session  # a traitlet, whose type a checker does not know
        if session is not None:
            session.send(stream, "interrupt_reply", content, parent, ident=ident)

    async def _interrupt(self) -> None:
        deadline = asyncio.get_running_loop().time() + _SEQ_SECONDS
        while (running := self._running) is not None and asyncio.get_running_loop().time() < deadline:
            machine, stream = running
            if stream.seq is not None:
                await asyncio.to_thread(machine.interrupt, stream.seq)
                return
            await asyncio.sleep(0.02)  # it has not been accepted yet

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        """A restart by hand means a new machine; the end of a kernel means nothing to the machine."""
        if restart:
            try:
                await asyncio.to_thread(self.torpor.renew)
            except TorporError as error:
                self.log.error("The machine stays as it is: %s", error)
        return {"status": "ok", "restart": restart}

    async def do_complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """What could follow at the cursor, as the machine knows its own variables."""
        matches: list[str] = []
        start = end = cursor_pos
        try:
            machine = await asyncio.to_thread(self.torpor.machine)
            found = await asyncio.to_thread(machine.complete, code, cursor_pos)
            matches, start, end = list(found.matches), found.start, found.end
        except TorporError as error:
            self.log.info("No completion: %s", error)
        return {"status": "ok", "matches": matches, "cursor_start": start, "cursor_end": end, "metadata": {}}

    async def do_is_complete(self, code: str) -> dict[str, Any]:
        """Whether Enter should run it."""
        status, indent = TransformerManager().check_complete(code)  # type: ignore[no-untyped-call]
        return {"status": status, **({"indent": " " * (indent or 0)} if status == "incomplete" else {})}

    async def do_history(
        self,
        hist_access_type: str,
        output: bool,
        raw: bool,
        session: int | None = None,
        start: int | None = None,
        stop: int | None = None,
        n: int | None = None,
        pattern: str | None = None,
        unique: bool = False,
    ) -> dict[str, Any]:
        """What was run on the machine, by whomever: oldest first."""
        length = min(n or _HISTORY_LENGTH, _HISTORY_LENGTH)
        try:
            machine = await asyncio.to_thread(self.torpor.machine)
            rows = await asyncio.to_thread(lambda: list(machine.history(limit=length)))
        except TorporError as error:
            self.log.info("No history: %s", error)
            rows = []
        history = [(0, row.seq, (row.code, None) if output else row.code) for row in reversed(rows)]
        return {"status": "ok", "history": history}
