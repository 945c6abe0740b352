"""Machines as sandboxes of the Agents SDK."""

from __future__ import annotations

from types import TracebackType
from typing import Literal

from agents.sandbox.manifest import Manifest
from agents.sandbox.session import SandboxSession, SandboxSessionState
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.snapshot import NoopSnapshot, SnapshotBase, SnapshotSpec

from ..._async_client import AsyncClient
from .._binding import alias_of
from ._session import HOME, TorporSandboxSession, TorporSandboxSessionState

_DEFAULT_ROOT = Manifest().root


class TorporSandboxClientOptions(BaseSandboxClientOptions):
    """Whose machine it is: `TorporSandboxClientOptions("thread-42")`."""

    type: Literal["torpor"] = "torpor"
    conversation: str
    """The id of the conversation or thread: the same id, the same machine."""


class TorporSandboxClient(BaseSandboxClient[TorporSandboxClientOptions]):
    """Gives an agent the machine of its conversation, which is there before the run and after it.

    A manifest is written to the machine once; then what the agent makes of it stays. Its root is the home folder,
    `/home/user`, unless it names another. Deleting a session deletes nothing: `client.machine(name).delete()` does.

    >>> sandbox = SandboxRunConfig(client=TorporSandboxClient(), options=TorporSandboxClientOptions("thread-42"))
    >>> Runner.run_sync(agent, "List the primes.", run_config=RunConfig(sandbox=sandbox))
    """

    backend_id = "torpor"

    def __init__(self, client: AsyncClient | None = None) -> None:
        """By default with an `AsyncClient()` of its own, which `close` closes."""
        self._client = client or AsyncClient()
        self._is_own = client is None

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: TorporSandboxClientOptions,
    ) -> SandboxSession:
        """A session on the machine of the options' conversation, which is made if there is none.

        `snapshot` may be one of another sandbox's, with which a new machine begins. A kind of snapshot to be made is
        not needed, since the machine keeps everything, and none is made.
        """
        manifest = self._validate_manifest_for_create(_at_home(manifest or Manifest()))
        if manifest.users or manifest.groups:
            raise ValueError("A machine has one user, who owns the workspace: leave `users` and `groups` out.")
        state = TorporSandboxSessionState(
            machine_name=alias_of(options.conversation),
            manifest=manifest,
            snapshot=snapshot if isinstance(snapshot, SnapshotBase) else NoopSnapshot(id=options.conversation),
        )
        return self._session(state)

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """A session on the machine of a state, which may come from another process, and from any time ago."""
        if not isinstance(state, TorporSandboxSessionState):
            raise TypeError("This state is that of another kind of sandbox.")
        state.assert_path_grants_rebound()
        return self._session(state)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Nothing: the machine is always there."""
        return session

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """A state as `serialize_session_state` has written it."""
        return self._deserialize_session_state_payload(payload, TorporSandboxSessionState)

    async def close(self) -> None:
        """Close the connections, if they are its own. Machines do not notice."""
        if self._is_own:
            await self._client.close()

    async def __aenter__(self) -> TorporSandboxClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _session(self, state: TorporSandboxSessionState) -> SandboxSession:
        return self._wrap_session(TorporSandboxSession(state, self._client.machine(state.machine_name)))


def _at_home(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"root": HOME}) if manifest.root == _DEFAULT_ROOT else manifest
