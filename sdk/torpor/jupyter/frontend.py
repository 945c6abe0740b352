"""Who sits at a notebook, and answers what its code asks."""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar
from typing import Any

import zmq
from ipykernel.kernelbase import Kernel

from .._asking import Stopped
from .._events import InputRequest

REQUEST: ContextVar[tuple[Any, Any]] = ContextVar("REQUEST")
"""The identity of the frontend whose cell runs, and its request."""
END = "\x04"
"""What frontends send for Ctrl-D."""
LOOK_MS = 50


class Frontend:
    """The frontend that wants a cell to be run, and takes questions."""

    def __init__(self, kernel: Kernel) -> None:
        self._socket: Any = kernel.stdin_socket
        self._session: Any = kernel.session
        self._ident, self._parent = REQUEST.get()

    def answer(self, question: InputRequest, stop: threading.Event) -> str | None:
        """The line that somebody types, with its end; None for the end of input. Raises `Stopped`.

        What `Kernel.raw_input` and `Kernel.getpass` do, which cannot be stopped when the cell ends meanwhile.
        """
        with contextlib.suppress(zmq.Again):
            while True:
                self._socket.recv_multipart(zmq.NOBLOCK)  # to a question that is none any more
        content = {"prompt": question.prompt, "password": question.password}
        self._session.send(self._socket, "input_request", content, self._parent, ident=self._ident)
        while not stop.is_set():
            if not self._socket.poll(LOOK_MS):
                continue
            _, reply = self._session.recv(self._socket)
            if reply is not None and reply["msg_type"] == "input_reply":
                value = str(reply["content"].get("value", ""))
                return None if value == END else f"{value}\n"
        raise Stopped
