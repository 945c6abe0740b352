"""How long the command line takes to start: what a person feels at each command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.server import ServerProcess

from bench.connection import Connection
from bench.measurement import Measurement, seconds_of

COMMAND = str(Path(sys.executable).with_name("torpor"))
BARE_CLIENT = """
import sys, httpx2
answer = httpx2.post(sys.argv[1], headers={"Authorization": f"Bearer {sys.argv[2]}"}, json={"code": "3 + 5"})
print(answer.json()["result"]["value"])
"""
BARE_HELP = """
import typer
from typer.testing import CliRunner
app = typer.Typer()
app.command()(lambda: None)
CliRunner().invoke(app, ["--help"])
"""


def measure_command_line(server: ServerProcess, connection: Connection, rounds: int) -> list[Measurement]:
    """`torpor run` and `torpor --help`, each in a process of its own."""
    machine = connection.post("/v1/machine/new", {"idle_seconds": None})["machine_name"]
    connection.post(f"/v1/machine/{machine}/run", {"code": "3 + 5"})
    environment = {**os.environ, "TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key}
    url = f"{server.url}/v1/machine/{machine}/run"

    def seconds(*command: str) -> float:
        return seconds_of(lambda: subprocess.run(command, env=environment, capture_output=True, check=True))

    run, bare, help_, bare_help = [], [], [], []
    for _ in range(rounds):
        run.append(seconds(COMMAND, "run", "-m", machine, "-c", "3 + 5"))
        bare.append(seconds(sys.executable, "-c", BARE_CLIENT, url, server.api_key))
        help_.append(seconds(COMMAND, "--help"))
        bare_help.append(seconds(sys.executable, "-c", BARE_HELP))
    connection.delete(f"/v1/machine/{machine}")
    return [
        Measurement("`torpor run -c '3 + 5'`", "a process with httpx2 alone", run, bare, most=2.0),
        Measurement("`torpor --help`, all commands", "Typer's help of one command", help_, bare_help, most=2.0),
    ]
