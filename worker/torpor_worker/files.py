"""Files in a machine: what may be asked of them, and how it is answered.

Paths are text in which bytes that are no UTF-8 stand as lone surrogates, as `os.fsdecode` has it. Relative ones begin
in the user's home folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from torpor_worker.errors import WorkerError

CODES = frozenset(
    {
        "disk_full",
        "file_changed",
        "file_failed",
        "file_not_found",
        "files_unsupported",
        "folder_not_empty",
        "invalid_archive",
        "invalid_path",
        "is_a_folder",
        "not_a_file",
        "not_a_folder",
        "permission_denied",
    }
)
"""Why work on files is refused: a closed list."""


class FileRefused(WorkerError):
    """Work on a machine's files was refused; `code` is one of `CODES`.

    `half_made`: some of a change of many files may have been made.
    """

    def __init__(self, code: str, message: str, *, half_made: bool = False) -> None:
        super().__init__(message)
        self.half_made = half_made
        self.code = code if code in CODES else "file_failed"


class TransferLost(WorkerError):
    """The machine's process ended in the middle of it; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is at a path, behind symbolic links."""

    path: str
    digest: bool = False
    """Tell the SHA-256 of a file's bytes, too."""
    work: Literal["look"] = "look"


@dataclass(frozen=True, slots=True)
class Read:
    """A file's bytes from `start` (below 0: so many from the end) to `stop`, if it still has this tag."""

    path: str
    start: int = 0
    stop: int | None = None
    tag: str | None = None
    work: Literal["read"] = "read"


@dataclass(frozen=True, slots=True)
class List:
    """A folder's entries by name, those behind `after`, as lines of JSON."""

    path: str
    after: str | None
    limit: int
    work: Literal["list"] = "list"


@dataclass(frozen=True, slots=True)
class Archive:
    """A folder as a tar archive."""

    path: str
    work: Literal["archive"] = "archive"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of files. It is an entry of the log; what it writes, its body, is kept beside that."""

    work: Literal["write", "remove", "unpack"]
    path: str
    mode: int | None = None
    """Of a written file; None: that of the one that it replaces, or 0644."""
    recursive: bool = False
    """Whether a folder is removed with what is in it."""

    def text(self) -> str:
        """As the log has it."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Change:
        """From the log."""
        return cls(**json.loads(text))


FileWork = Look | Read | List | Archive | Change


class FileTransfer(Protocol):
    """One piece of work under way. Methods raise `FileRefused`, and `SandboxError` if the sandbox is gone."""

    @property
    def number(self) -> int:
        """Names it in its sandbox."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        ...

    async def begun(self) -> dict[str, Any]:
        """What is read, as `kind`, `size`, `mode`, `modified_ns` and `tag`; of a file with `start` and `stop`."""
        ...

    async def receive(self) -> bytes:
        """The next bytes that are read; none at the end."""
        ...

    async def send(self, data: bytes) -> None:
        """The next bytes of a change's body; waits while the other end has not taken enough."""
        ...

    async def prepared(self) -> None:
        """End the body, and wait until the change only needs to be made true."""
        ...

    async def ended(self) -> dict[str, Any]:
        """Wait for the end; what it answers."""
        ...

    async def close(self) -> None:
        """Give it up if it has not ended; what is being applied goes on."""
        ...
