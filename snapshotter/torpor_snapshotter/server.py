"""Requests over a socket, one JSON object a line, answered in whatever order they are done.

    {"id": 1, "do": "store", "image": "/path", "key": "...", "fields": {...}, "parent": null}
    {"id": 1, "answer": {"key": "...", "sha256": "...", "packs": ["..."], "stored_bytes": 1, "image_bytes": 2}}
    {"id": 2, "do": "fetch", "key": "...", "sha256": "...", "into": "/path", "like": null}
    {"id": 2, "error": {"message": "...", "retryable": false}}

A fetch is answered `{"assemble_seconds": 0.1}`: what was left to do when the last byte had come from the store. The
parent of an image to be stored, and what one to be fetched is like, is `{"key": "...", "sha256": "...", "image":
"/path"}`, the path null if there is no local image. `derive` has `source` and `sha256` (of the manifest that it
copies), `keys` of the copies by the machines that they are for, and `fields`; it is answered with a list of what
`store` is answered with.

`describe_runtime` has the `folder` of an installed runtime and is answered with `{"key": "...", "sha256": "...",
"keys": ["..."], "description": "..."}`, `keep_runtime` has `folder` and `description`; `bring_runtime` has `key`,
`sha256` and `data_dir`, is answered with the runtime's `folder`, and says `{"id": 4, "fraction": 0.5}` before.

`delete` has `key`, `destroy_key` has `machine`, `claim` has `owner` and `has_objects`; `list` and `check` have nothing
more; `cancel` has the `id` of the request that is to end, which is then answered with an error. A list comes in parts,
`{"id": 3, "part": [...]}` until the answer, and leaves out the owner's mark.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeAlias

from torpor_snapshotter.archive import Archive, ParentKey
from torpor_snapshotter.heap import give_back
from torpor_snapshotter.image import BadImage
from torpor_snapshotter.key import BadKey
from torpor_snapshotter.keys import KeyStore
from torpor_snapshotter.owner import OWNER_KEY, StoreOwned, claim, is_marked
from torpor_snapshotter.read_cache import ReadCache
from torpor_snapshotter.runtimes.description import Description
from torpor_snapshotter.runtimes.errors import RuntimeProblem
from torpor_snapshotter.runtimes.folder import read_runtime
from torpor_snapshotter.runtimes.keeping import bring, keep
from torpor_snapshotter.store import AlreadyStored, DamagedObject, NotStored, ObjectStore, StoreError

_KEYS_A_PART: Final = 1000
_FINAL_ERRORS: Final = (BadImage, BadKey, AlreadyStored, NotStored, DamagedObject, StoreOwned)
_log: Final = logging.getLogger(__name__)
_Request: TypeAlias = dict[str, Any]


class SnapshotterServer:
    """Answers one connection."""

    def __init__(self, store: ObjectStore, keys: KeyStore, cache: ReadCache | None = None) -> None:
        self._store = store
        self._archive = Archive(store, keys, cache)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say `{"ready": true}`, then answer until the other end closes; what is in hand then is cancelled."""
        try:
            await self._send(writer, {"ready": True})
            async with asyncio.TaskGroup() as tasks:
                while line := await _read_line(reader):
                    request = json.loads(line)
                    if request["do"] == "cancel":
                        self._cancel(request["id"])
                        continue
                    name = f"{request['do']} {request['id']}"
                    self._tasks[request["id"]] = tasks.create_task(self._answer(request, writer), name=name)
                    await asyncio.sleep(0)  # a task that is cancelled before it began would never answer
                for number in list(self._tasks):
                    self._cancel(number)
        finally:
            writer.close()
            await self._archive.close()

    def _cancel(self, number: int) -> None:
        if task := self._tasks.get(number):
            task.cancel()

    async def _answer(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        answer: dict[str, Any]
        try:
            answer = {"answer": await self._do(request, writer)}
        except asyncio.CancelledError:
            answer = _error("The request was cancelled.", retryable=True)
        except _FINAL_ERRORS as error:
            answer = _error(str(error), retryable=False)
        except (StoreError, RuntimeProblem, OSError) as error:
            answer = _error(str(error), retryable=True)
        except Exception as error:
            # A request that meets a bug of ours must not end the process, and with it the requests of others.
            _log.exception("%s failed", request["do"])
            answer = _error(f"{type(error).__name__}: {error}", retryable=True)
        del self._tasks[request["id"]]
        await self._send(writer, {"id": request["id"], **answer})
        if not self._tasks:
            await asyncio.to_thread(give_back)

    async def _do(self, request: _Request, writer: asyncio.StreamWriter) -> Any:
        match request["do"]:
            case "store":
                image, parent = Path(request["image"]), _parent(request["parent"])
                return asdict(await self._archive.store(image, request["key"], request["fields"], parent))
            case "derive":
                source, sha256 = request["source"], request["sha256"]
                derived = await self._archive.derive(source, sha256, request["keys"], request["fields"])
                return [asdict(image) for image in derived]
            case "fetch":
                into, like = Path(request["into"]), _parent(request["like"])
                return {"assemble_seconds": await self._fetch(request["key"], request["sha256"], into, like)}
            case "describe_runtime":
                return await asyncio.to_thread(_described, Path(request["folder"]))
            case "keep_runtime":
                description = Description.from_bytes(request["description"].encode())
                await keep(self._store, read_runtime(Path(request["folder"])), description, self._others_first)
            case "bring_runtime":
                return await self._bring(request, writer)
            case "delete":
                await self._archive.delete(request["key"])
            case "destroy_key":
                await self._archive.destroy_key(request["machine"])
            case "list":
                await self._list(request["id"], writer)
            case "check":
                await self._store.check()
            case "claim":
                await claim(self._store, request["owner"], has_objects=request["has_objects"])
            case other:
                raise StoreError(f"A snapshotter cannot {other!r}.")
        return None

    async def _fetch(self, key: str, sha256: str, into: Path, like: ParentKey | None) -> float:
        try:
            return await self._archive.fetch(key, sha256, into, like)
        except NotStored as error:
            if await is_marked(self._store):
                raise
            # Whoever took this for the loss of one object would give up one snapshot after the other.
            raise StoreError(
                f"{error} Neither is the mark of the store's owner: the store is not the right one, or not mounted."
            ) from error

    async def _bring(self, request: _Request, writer: asyncio.StreamWriter) -> dict[str, Any]:
        loop = asyncio.get_running_loop()

        def report(task: str, fraction: float | None = None) -> None:
            message = {"id": request["id"], "fraction": fraction}
            asyncio.run_coroutine_threadsafe(self._send(writer, message), loop).result()

        runtime = await bring(self._store, request["key"], request["sha256"], Path(request["data_dir"]), report)
        return {"folder": str(runtime.rootfs.parent)}

    async def _others_first(self) -> None:
        """Wait while anything else is asked for."""
        while others := set(self._tasks.values()) - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _list(self, number: int, writer: asyncio.StreamWriter) -> None:
        keys: list[str] = []
        async for key in self._store.list():
            if key != OWNER_KEY:
                keys.append(key)
            if len(keys) == _KEYS_A_PART:
                await self._send(writer, {"id": number, "part": keys})
                keys = []
        await self._send(writer, {"id": number, "part": keys})

    async def _send(self, writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        async with self._sending:
            with suppress(ConnectionError):  # nobody is there any more; the reader sees the end of the socket
                writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
                await writer.drain()


def _described(folder: Path) -> dict[str, Any]:
    description = Description.of(read_runtime(folder))
    return {
        "key": description.key,
        "sha256": description.sha256,
        "keys": description.keys,
        "description": description.to_bytes().decode(),
    }


def _parent(described: dict[str, Any] | None) -> ParentKey | None:
    if described is None:
        return None
    image = described["image"]
    return ParentKey(described["key"], described["sha256"], None if image is None else Path(image))


def _error(message: str, *, retryable: bool) -> dict[str, Any]:
    return {"error": {"message": message, "retryable": retryable}}


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line; nothing at the end, or if the other end is gone in the middle of one."""
    with suppress(ConnectionError):
        line = await reader.readline()
        return line if line.endswith(b"\n") else b""
    return b""
