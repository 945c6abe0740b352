"""Request bodies: read with a limit, parsed as JSON whatever their content type says, validated with reasons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from torpor_api.encoding import to_json
from torpor_api.errors import BodyTooLarge, InvalidRequest

BODY_LIMIT_BYTES = 8 * 1024 * 1024

Model = TypeVar("Model", bound=BaseModel)


def _no_such_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_no_such_constant)


async def read_body(receive: Receive, limit_bytes: int = BODY_LIMIT_BYTES) -> bytes:
    """The whole body. Raises `BodyTooLarge` as soon as that is known, and Starlette's `ClientDisconnect`."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit_bytes:
            raise BodyTooLarge(f"The request's body is larger than {limit_bytes} bytes.")
        if not message.get("more_body", False):
            return piece if not pieces else b"".join([*pieces, piece])
        pieces.append(piece)


def parse_body(model: type[Model], body: bytes) -> Model:
    """Read the body as `model`; an empty one, or null, is as good as `{}`. Raises `InvalidRequest`."""
    return validate(model, parse_json(body) if body.strip() else {})


def parse_json(body: bytes | str) -> Any:
    """Read JSON as RFC 8259 has it. Raises `InvalidRequest`."""
    try:
        text = body.decode("utf-8") if isinstance(body, bytes) else body
        value = _decoder.decode(text)
    except UnicodeDecodeError:
        raise InvalidRequest("body: it is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"body: it is not JSON: {error}.") from None
    except ValueError as error:  # a number of thousands of digits, or NaN
        raise InvalidRequest(f"body: {str(error).split(';')[0]}.") from None
    except RecursionError:
        raise InvalidRequest("body: it is nested too deeply.") from None
    return {} if value is None else value


def validate(model: type[Model], value: Any) -> Model:
    """Make the model of a JSON value. Raises `InvalidRequest`, naming the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(sentence(error.errors(include_url=False, include_context=False))) from None


def sentence(problems: Sequence[Any], leave_out: Sequence[str] = ()) -> str:
    """One sentence for each thing that is wrong, the first five of them."""
    return " ".join(list(dict.fromkeys(_problem(problem, leave_out) for problem in problems))[:5])


def _problem(problem: Any, leave_out: Sequence[str]) -> str:
    # With brackets are Pydantic's names for what a field may be, but for `[key]`.
    location = [str(part)[:64] for part in problem["loc"] if part not in leave_out and "[" not in str(part)[1:]]
    field = ".".join(location) or "body"
    field = field.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{field}: {message[:1].lower()}{message[1:]}."


def fingerprint(request: BaseModel) -> str:
    """The same for two requests that say the same, however they are written."""
    return hashlib.sha256(to_json(request.model_dump(exclude_unset=True))).hexdigest()
