"""Files in a machine: list, read, write and remove them; folders as archives."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from torpor_api import file_lists, models
from torpor_api.authentication import AccountOf
from torpor_api.documentation import refusals
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    BodyTooLarge,
    CannotWake,
    InvalidRequest,
    IsAFolder,
    MachineNotFound,
    MachineParked,
    RangeNotSatisfiable,
    RuntimeQuarantined,
    ShuttingDown,
    StorageFull,
    Unauthorized,
)
from torpor_api.file_answers import STALL_SECONDS, Pieces, asked_range, attachment, headers_of, tag_of
from torpor_api.file_errors import REFUSALS, told
from torpor_api.file_paths import in_address, path_in_query, path_of, shown
from torpor_api.ledger import MachineRow
from torpor_api.routes.parameters import Name
from torpor_api.services import Services, services_of
from torpor_worker.files import Archive, Change, FileRefused, FileTransfer, List, Look, Read

router = APIRouter(tags=["files"])


class _AnyPath(PathConvertor):
    """A path with any character in it, line ends too."""

    regex = "(?s:.*)"


register_url_convertor("file_path", _AnyPath())

TAR = "application/x-tar"
BYTES = "application/octet-stream"
LISTED_AT_ONCE = 1000
SHARED_REFUSALS = (
    Unauthorized,
    MachineNotFound,
    MachineParked,
    RuntimeQuarantined,
    CannotWake,
    ShuttingDown,
    InvalidRequest,
    *REFUSALS,
)
FilePath = Annotated[
    str,
    Path(
        description="From the user's home folder, or absolute; percent-encoded bytes, `%2F` as good as `/`. "
        "It cannot leave the machine, whatever it says."
    ),
]
AsArchive = Annotated[Literal["tar"] | None, Query(description="A folder, as a tar archive.")]
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


async def _usable(services: Services, account: str, name: str) -> MachineRow:
    """The machine. Raises `ShuttingDown`, `MachineNotFound` or `MachineParked`."""
    services.stopping.refuse_work()
    row = await services.ledger.machine(account, name)
    if row.parked_reason is not None:
        raise MachineParked(f"The machine is parked: {row.parked_reason}")
    return row


@router.get(
    "/v1/machine/{name}/files",
    response_model=models.FileList,
    responses=refusals(*SHARED_REFUSALS),
)
async def list_files(
    request: Request,
    account: AccountOf,
    name: Name,
    path: Annotated[str, Query(description="Of a folder; by default the user's home.")] = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = LISTED_AT_ONCE,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> JsonResponse:
    """What is in a folder, by name. Links are not followed; names that are no UTF-8 are shown with escapes."""
    services = services_of(request)
    await _usable(services, account, name)
    folder = path_in_query(request.scope, "path") or ""
    after = path_in_query(request.scope, "cursor")
    with told(folder):
        async with services.machines.files.reading(name, List(folder, after, limit)) as transfer:
            found = await file_lists.said(_pieces(transfer), limit)
            more = bool((await transfer.ended()).get("more"))
    entries = [file_lists.told(folder, entry) for entry in found]
    next_cursor = in_address(found[-1]["name"]) if more and found else None
    return JsonResponse({"path": shown(folder), "entries": entries, "next_cursor": next_cursor})


@router.head(
    "/v1/machine/{name}/files/{path:file_path}",
    response_class=Response,
    responses=refusals(*SHARED_REFUSALS),
)
async def look_at_file(
    request: Request,
    account: AccountOf,
    name: Name,
    path: FilePath,
    digest: Annotated[Literal["sha256"] | None, Query(description="Tell the digest of a file's bytes too.")] = None,
) -> Response:
    """What is there, in headers: `Torpor-Kind`, `Torpor-Mode`, `ETag`, `Last-Modified`, and a file's length."""
    services = services_of(request)
    await _usable(services, account, name)
    where = path_of(request.scope)
    with told(where):
        async with services.machines.files.reading(name, Look(where, digest=digest is not None)) as transfer:
            about = await transfer.ended()
    headers = headers_of(about)
    if about["kind"] == "file":
        headers |= {"Content-Length": str(about["size"]), "Accept-Ranges": "bytes"}
        if about.get("sha256") is not None:
            headers["Torpor-SHA256"] = about["sha256"]
    return Response(headers=headers, media_type=BYTES)


@router.get(
    "/v1/machine/{name}/files/{path:file_path}",
    response_class=Response,
    responses={
        200: {"description": "All of it.", "content": {BYTES: BINARY, TAR: BINARY}},
        206: {"description": "The range that was asked for.", "content": {BYTES: BINARY}},
        **refusals(*SHARED_REFUSALS, RangeNotSatisfiable),
    },
)
async def read_file(
    request: Request,
    account: AccountOf,
    name: Name,
    path: FilePath,
    archive: AsArchive = None,
    range: Annotated[str | None, Header(description="One range of bytes.")] = None,
    if_match: Annotated[str | None, Header(description="An `ETag`: 412 if the file is another by now.")] = None,
    if_range: Annotated[str | None, Header(description="An `ETag`: all of it if it is another by now.")] = None,
) -> Response:
    """A file's bytes, or a folder as an archive. Cut off where it cannot be read to its end."""
    services = services_of(request)
    await _usable(services, account, name)
    where = path_of(request.scope)
    async with AsyncExitStack() as stack:
        with told(where):
            if archive is not None:
                transfer = await stack.enter_async_context(services.machines.files.reading(name, Archive(where)))
                headers = headers_of(await transfer.begun()) | attachment(where, ".tar")
                return Pieces(_pieces(transfer), stack.pop_all(), 200, headers, TAR)
            wanted, tag = asked_range(range), tag_of(if_match)
            if wanted is not None and (in_case := tag_of(if_range)) is not None:
                async with services.machines.files.reading(name, Look(where)) as look:
                    wanted = wanted if (await look.ended())["tag"] == in_case else None
            start, stop = wanted or (0, None)
            work = Read(where, start, stop, tag)
            transfer = await stack.enter_async_context(services.machines.files.reading(name, work))
            about = await transfer.begun()
        if wanted is not None and start >= max(1, about["size"]):
            raise RangeNotSatisfiable(f"The file has {about['size']} bytes.")
        if not about["size"]:  # of nothing there is no range
            wanted = None
        headers = headers_of(about) | attachment(where)
        headers |= {"Content-Length": str(about["stop"] - about["start"]), "Accept-Ranges": "bytes"}
        if wanted is not None:
            headers["Content-Range"] = f"bytes {about['start']}-{about['stop'] - 1}/{about['size']}"
        return Pieces(_pieces(transfer), stack.pop_all(), 200 if wanted is None else 206, headers, BYTES)


async def _pieces(transfer: FileTransfer) -> AsyncIterator[bytes]:
    while piece := await transfer.receive():
        yield piece


@router.put(
    "/v1/machine/{name}/files/{path:file_path}",
    response_model=models.WrittenFile,
    responses=refusals(*SHARED_REFUSALS, BodyTooLarge, StorageFull),
    openapi_extra={"requestBody": {"required": True, "content": {BYTES: BINARY}}},
)
async def write_file(
    request: Request,
    account: AccountOf,
    name: Name,
    path: FilePath,
    archive: AsArchive = None,
    mode: Annotated[
        str | None, Query(pattern="^[0-7]{3,4}$", description="Octal; by default that of the file before, or 0644.")
    ] = None,
) -> JsonResponse:
    """Write a file, whole or not at all, and folders on the way to it; or unpack an archive into a folder.

    When it is answered it is in the machine and in its log: no crash loses it. A repeat changes nothing.
    """
    services = services_of(request)
    room_bytes = (await _usable(services, account, name)).memory_mb << 20
    where = path_of(request.scope)
    if archive is None and (not where or where.endswith("/")):
        raise IsAFolder(f"{shown(where) or '.'}: the path names a folder.")
    if archive is not None and mode is not None:
        raise InvalidRequest("mode: an archive has the modes of its files.")
    digest = hashlib.sha256()
    octal = None if mode is None else int(mode, 8)
    change = Change("write", where, octal) if archive is None else Change("unpack", where)
    length = request.headers.get("content-length", "")
    size_bytes = int(length) if length.isascii() and length.isdigit() else None
    with told(where):
        _check_room(size_bytes or 0, room_bytes)
        pieces = _received(request, digest, room_bytes)
        async with services.machines.files.stored(account, pieces, size_bytes) as body:
            services.stopping.refuse_work()
            await services.machines.files.change(name, change, body)
    return JsonResponse({"path": in_address(where), "size": body.size_bytes, "sha256": digest.hexdigest()})


def _check_room(size_bytes: int, room_bytes: int) -> None:
    """Raise `FileRefused` for what no machine of this memory has room for, before it is on the server's disk."""
    if size_bytes > room_bytes:
        raise FileRefused("disk_full", "The machine's memory, in which its files are, is smaller.")


async def _received(request: Request, digest: Any, room_bytes: int) -> AsyncIterator[bytes]:
    """A request's body, piece by piece. Raises `ClientDisconnect`, also when nothing comes any more."""
    stream = request.stream()
    size_bytes = 0
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ClientDisconnect from None
        size_bytes += len(piece)
        _check_room(size_bytes, room_bytes)
        digest.update(piece)
        yield piece


@router.delete(
    "/v1/machine/{name}/files/{path:file_path}",
    response_model=models.RemovedFile,
    responses=refusals(*SHARED_REFUSALS),
)
async def remove_file(
    request: Request,
    account: AccountOf,
    name: Name,
    path: FilePath,
    recursive: Annotated[bool, Query(description="A folder with all that is in it.")] = False,
) -> JsonResponse:
    """Remove a file, a link, or a folder; 409 `folder_not_empty` unless `recursive`."""
    services = services_of(request)
    await _usable(services, account, name)
    where = path_of(request.scope)
    with told(where):
        await services.machines.files.change(name, Change("remove", where, recursive=recursive), None)
    return JsonResponse({"path": in_address(where)})
