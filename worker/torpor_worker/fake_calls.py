"""What code in a sandbox that is none may call, beside plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torpor_worker.sandbox import SandboxLost

if TYPE_CHECKING:
    from torpor_worker.fake_host import FakeSandboxHost
    from torpor_worker.fake_sandbox import FakeSandbox


class Takes(BaseException):
    """Raised by a scripted call in user code: the instruction goes on as `program`."""

    def __init__(self, program: dict[str, Any]) -> None:
        super().__init__()
        self.program = program


def calls_of(sandbox: FakeSandbox, host: FakeSandboxHost) -> dict[str, Any]:
    """What user code finds beside the builtins."""

    def takes(**program: Any) -> None:
        raise Takes(program)

    def count(end: int, seconds: float = 0.01) -> None:
        takes(next=0, end=end, seconds=seconds, text="")

    def flood(size: int) -> None:
        takes(next=0, end=size // 65536, seconds=0, text="x" * 65535)

    def hang(ignore: int = 0, immortal: bool = False) -> None:
        takes(ignore=ignore, immortal=immortal)

    def install(wanted: str) -> None:
        takes(wants=wanted)

    def lines(count: int) -> None:
        takes(lines=count)

    def lose(reason: str = "used more than its memory") -> None:
        sandbox.end(SandboxLost(reason))

    def use(size: int) -> None:
        sandbox.used_bytes = size

    def content(path: str) -> str | None:
        found = sandbox.files.get(path)
        return None if found is None else found.decode()

    def preloaded() -> list[str]:
        return sandbox.preloaded

    def times() -> int:
        host.calls += 1
        return host.calls

    calls: list[Callable[..., Any]] = [content, count, flood, hang, install, lines, lose, preloaded, use, times]
    calls += [
        sandbox.die,
        sandbox.die_after,
        sandbox.die_later,
        sandbox.input,
        sandbox.print,
        sandbox.say_later,
        sandbox.write,
    ]
    return {call.__name__: call for call in calls} | {
        "background": sandbox.set_background,
        "__builtins__": __builtins__,
    }
