"""A client that nobody closed leaves no open connection behind, and closes none that somebody still uses."""

from __future__ import annotations

import gc

from tests.support.stub_server import API_KEY, StubServer

import torpor


def test_a_machine_outlives_its_client_and_the_last_of_both_closes_the_connections(stub: StubServer) -> None:
    machine = torpor.Client(url=stub.url, api_key=API_KEY).new_machine()
    again = torpor.Client(url=stub.url, api_key=API_KEY).machine(machine.name)
    gc.collect()
    assert machine.run("a").ok
    assert again.run("b").ok
    connections = [each._connection._http for each in (machine, again)]
    del machine
    gc.collect()
    assert [connection.is_closed for connection in connections] == [True, False]
    assert again.run("c").ok
    del again
    gc.collect()
    assert connections[1].is_closed
