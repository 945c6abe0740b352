"""`torpor mcp`: machines for every program that speaks the Model Context Protocol."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from .._async_client import AsyncClient
from .._config import config_file, load_config
from .._errors import ConfigError, TorporError
from ..tools import _mcp_clients as clients
from ._console import note, write

app = typer.Typer(
    invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)

DEFAULT_PLACE = "127.0.0.1:8765"
MachineOption = Annotated[
    str, typer.Option("--machine", "-m", metavar="NAME", help="The machine for requests that name none.")
]


@app.callback()
def mcp(
    context: typer.Context,
    machine: MachineOption = "mcp",
    http: Annotated[
        bool,
        typer.Option("--http", help="Speak streamable HTTP at /mcp instead; every request then carries its own key."),
    ] = False,
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where, with --http.")] = DEFAULT_PLACE,
) -> None:
    """Give an assistant a Python computer that is always there, over MCP.

    Programs start it themselves and talk to it through standard input and output. `torpor mcp install cursor` tells
    one of them to. A server speaks it at /mcp, too: there, the key comes as `Authorization: Bearer ...`.
    """
    if find_spec("mcp") is None:
        raise TorporError("The package `mcp` is not installed.", hint="pip install 'torpor[mcp]'")
    if context.invoked_subcommand is not None:
        return
    if http:
        _serve_http(listen, machine)
    else:
        _serve_stdio(machine)


def _serve_stdio(machine: str) -> None:
    import anyio  # noqa: PLC0415 - comes with mcp

    from ..tools.mcp import OwnSource, build_server  # noqa: PLC0415

    async def serve() -> None:
        async with AsyncClient() as client:
            await build_server(OwnSource(client, machine)).run_stdio_async()

    if sys.stdin.isatty():
        note("This talks to a program, not to people: `torpor mcp install` tells one of it. Ctrl-D leaves.")
    anyio.run(serve)


def _serve_http(place: str, machine: str) -> None:
    import uvicorn  # noqa: PLC0415 - comes with mcp

    from ..tools.mcp import http_app  # noqa: PLC0415

    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        raise TorporError("--listen wants a host and a port.", hint=f"For example: --listen {DEFAULT_PLACE}")
    url = load_config().url
    note(f"MCP at http://{host}:{port}/mcp for the Torpor server at {url}. Ctrl-C ends it.")
    uvicorn.run(
        http_app(url, machine=machine), host=host.strip("[]"), port=int(port), log_level="warning", lifespan="off"
    )


@app.command()
def install(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help=f"One of: {', '.join(clients.known_clients())}.")],
    machine: MachineOption = "mcp",
    only_print: Annotated[bool, typer.Option("--print", help="Show what would be written, and write nothing.")] = False,
) -> None:
    """Tell a program of this server: its settings get one more entry, and the rest of them stays.

    The key is not in there: `torpor mcp` reads it where every command does (see `torpor login`).
    """
    known = clients.known_clients()
    if program not in known:
        raise TorporError(f"{program} is not a program that is known here.", hint=f"Known are: {', '.join(known)}.")
    client = known[program]
    entry = clients.Entry(_own_command(), ("mcp", "--machine", machine))
    if only_print:
        write(clients.snippet(client, entry), sys.stdout)
        return
    before = _text_of(client.file)
    after = clients.installed(client, before, entry)
    if after == before:
        note(f"{client.file} has it already.")
    else:
        clients.write(client.file, after)
        names = (str(client.file), str(client.file))
        changes = difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="", n=1)
        write("\n".join(changes) + "\n", sys.stdout)
        note(f"Start {program} again, and ask it to run some Python.")
    _warn_without_a_key()


def _warn_without_a_key() -> None:
    """Say so if only this terminal knows the key: a program with windows will not."""
    hidden = ("TORPOR_URL", "TORPOR_API_KEY")
    try:
        load_config(environment={name: value for name, value in os.environ.items() if name not in hidden})
    except ConfigError:
        note(f"No key is saved in {config_file(os.environ)} yet: run `torpor login`.")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise TorporError(f"{file} cannot be read: {error}.") from error


def _own_command() -> str:
    """This command's absolute path: programs with windows have another PATH than terminals."""
    found = shutil.which(sys.argv[0]) or shutil.which("torpor")
    return str(Path(found).absolute()) if found else "torpor"
