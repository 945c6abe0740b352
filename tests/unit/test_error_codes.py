"""The server's closed list of errors and the classes of the SDK are the same list."""

from __future__ import annotations

import torpor
from torpor._errors import ERRORS_BY_CODE
from torpor_api import errors as server


def of_the_server(kind: type[server.TorporError]) -> dict[str, int]:
    found = {kind.code: kind.status}
    for child in kind.__subclasses__():
        found |= of_the_server(child)
    return found


def test_every_code_of_the_server_has_a_class_in_the_sdk_with_the_same_status() -> None:
    assert {code: kind.status for code, kind in ERRORS_BY_CODE.items()} == of_the_server(server.TorporError)


def test_every_error_of_the_sdk_is_public() -> None:
    assert all(getattr(torpor, kind.__name__) is kind for kind in ERRORS_BY_CODE.values())
