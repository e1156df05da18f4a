"""Requests and replies of the control channel: one JSON object each, every value checked before it is used."""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from engine.errors import EngineError, ModelError, SourceError, StoreError, UsageError
from streaming.label_codec import WireError

VERSION = 1
MAX_REQUEST_BYTES = 2**20
"""Larger requests are answered with `too_large` and not parsed."""

_ID_LIMIT = 2**63
_ID_CHARACTERS = 128
_KEYS = frozenset({"v", "id", "op", "args"})

RequestId = int | str | None


class ControlError(EngineError):
    """A request that was refused; `code` says why, for programs.

    Codes: `malformed`, `version`, `too_large`, `unknown_op`, `bad_args`, `busy`, `unavailable`, `usage`,
    `source`, `model`, `store`, `internal`; and on the client's side `no_answer`.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, request_id: RequestId = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
        self.exit_code = _EXIT_CODES.get(code, 1)


_EXIT_CODES = {
    **dict.fromkeys(("malformed", "version", "too_large", "unknown_op", "bad_args", "usage"), 2),
    **{"source": 3, "model": 4, "store": 5},
}
_ERROR_CODES: tuple[tuple[type[Exception], str], ...] = (
    (SourceError, "source"),
    (ModelError, "model"),
    (StoreError, "store"),
    (WireError, "bad_args"),
    (UsageError, "usage"),
    (EngineError, "unavailable"),
)


def error_code(error: Exception) -> str:
    """The protocol's code of what an operation raised."""
    if isinstance(error, ControlError):
        return error.code
    return next((code for kind, code in _ERROR_CODES if isinstance(error, kind)), "internal")


@dataclass(frozen=True, slots=True)
class Request:
    """An operation asked for: `args` is an object whose content is still unchecked."""

    id: int | str
    op: str
    args: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: `result`, or `error` when the request was refused."""

    id: RequestId
    result: Any = None
    error: ControlError | None = None


def parse_request(data: bytes) -> Request:
    """Check one request.

    Raises:
        ControlError: what is wrong, with the request's id where it has a usable one.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise ControlError("too_large", f"request of {len(data)} bytes: at most {MAX_REQUEST_BYTES} are accepted")
    fields = _parse_object(data, "request")
    request_id = _usable_id(fields.get("id"))
    if request_id is None:
        raise ControlError("malformed", f"request needs an id: an integer or up to {_ID_CHARACTERS} characters")
    unknown = sorted(fields.keys() - _KEYS)
    if unknown:
        raise ControlError("malformed", f"request has an unknown key {unknown[0][:60]!r}", request_id)
    version = fields.get("v")
    if type(version) is not int or version != VERSION:
        shown = version if type(version) is int and abs(version) < _ID_LIMIT else f"a {type(version).__name__}"
        raise ControlError("version", f"request has v {shown}: this engine speaks v {VERSION}", request_id)
    op, args = fields.get("op"), fields.get("args", {})
    if not isinstance(op, str):
        raise ControlError("malformed", "request needs an op: a string", request_id)
    if not isinstance(args, dict):
        raise ControlError("malformed", f"args is a {type(args).__name__}: an object is needed", request_id)
    return Request(request_id, op, args)


def encode_request(request: Request) -> bytes:
    """The bytes `parse_request` reads.

    Raises:
        ControlError: the arguments are not JSON or too large.
    """
    fields = {"v": VERSION, "id": request.id, "op": request.op, "args": request.args}
    try:
        data = json.dumps(fields, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ControlError("bad_args", f"{request.op}: arguments are not JSON ({error})", request.id) from None
    if len(data) > MAX_REQUEST_BYTES:
        message = f"{request.op}: {len(data)} bytes of arguments, at most {MAX_REQUEST_BYTES} are accepted"
        raise ControlError("too_large", message, request.id)
    return data


def encode_result(request_id: int | str, result: Any) -> bytes:
    """A reply that carries a result."""
    return json.dumps({"v": VERSION, "id": request_id, "ok": True, "result": result}, allow_nan=False).encode()


def encode_error(request_id: RequestId, code: str, message: str) -> bytes:
    """A reply that says in one line why the request was refused."""
    error = {"code": code, "message": " ".join(message.split())[:500]}
    return json.dumps({"v": VERSION, "id": request_id, "ok": False, "error": error}).encode()


def parse_reply(data: bytes) -> Reply:
    """Check one reply, as a client.

    Raises:
        ControlError: it does not follow the protocol.
    """
    fields = _parse_object(data, "reply")
    request_id, ok = _usable_id(fields.get("id")), fields.get("ok")
    if ok is True:
        return Reply(request_id, result=fields.get("result"))
    error = fields.get("error")
    if ok is not False or not isinstance(error, dict):
        raise ControlError("malformed", "reply has neither a result nor an error")
    code, message = error.get("code"), error.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        raise ControlError("malformed", "reply has an error without code and message")
    return Reply(request_id, error=ControlError(code, message, request_id))


def _parse_object(data: bytes, what: str) -> dict[str, Any]:
    try:
        fields = json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise ControlError("malformed", f"{what} is not UTF-8 JSON: {str(error)[:200]}") from None
    if not isinstance(fields, dict):
        raise ControlError("malformed", f"{what} is a JSON {type(fields).__name__}: an object is needed")
    return fields


def _usable_id(value: Any) -> RequestId:
    if type(value) is int and -_ID_LIMIT <= value < _ID_LIMIT:
        return value
    return value if isinstance(value, str) and 0 < len(value) <= _ID_CHARACTERS else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields
