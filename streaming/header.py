"""Typed, bounded access to the JSON header of a message: every value is checked before it is used."""

import json
import math
from typing import Any, NoReturn

from streaming.label_codec import WireError

MAX_HEADER_BYTES = 8 * 2**20
"""Room for 65535 objects; a larger header is refused unread."""

_INT_LIMIT = 2**63


class Header:
    """One JSON object whose getters raise `WireError` naming the key, what it holds and what is needed."""

    def __init__(self, fields: dict[str, Any], where: str = "header") -> None:
        self.fields = fields
        self._where = where

    @classmethod
    def parse(cls, data: bytes) -> "Header":
        """Parse UTF-8 JSON bytes; NaN and infinities, which JSON does not have, are refused."""
        if len(data) > MAX_HEADER_BYTES:
            raise WireError(f"header has {len(data)} bytes, at most {MAX_HEADER_BYTES} are read")
        try:
            fields = json.loads(data.decode(), parse_constant=_refuse_constant)
        except WireError:
            raise
        except (ValueError, RecursionError) as error:
            raise WireError(f"header is not UTF-8 JSON: {error}") from None
        if not isinstance(fields, dict):
            raise WireError(f"header is a JSON {type(fields).__name__}, an object is needed")
        return cls(fields)

    def _refuse(self, key: str, needed: str) -> NoReturn:
        if key not in self.fields:
            raise WireError(f"{self._where} has no {key!r}: {needed} is needed")
        value = self.fields[key]
        # Not the text of containers: a deeply nested one would exhaust the stack a second time.
        shown = f"a {type(value).__name__}" if isinstance(value, list | dict) else repr(value)[:60]
        raise WireError(f"{self._where}: {key!r} is {shown}, {needed} is needed")

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        if not isinstance(value, str):
            self._refuse(key, "a string")
        return value

    def whole(self, key: str, least: int = 0, most: int = _INT_LIMIT - 1) -> int:
        value: Any = self.fields.get(key)
        if not _is_whole(value) or not least <= value <= most:
            self._refuse(key, f"an integer from {least} to {most}")
        return int(value)

    def optional_whole(self, key: str) -> int | None:
        return None if self.fields.get(key) is None else self.whole(key, -_INT_LIMIT)

    def number(self, key: str) -> float:
        value: Any = self.fields.get(key)
        if not _is_finite(value):
            self._refuse(key, "a finite number")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        return None if self.fields.get(key) is None else self.number(key)

    def truth(self, key: str) -> bool:
        value = self.fields.get(key)
        if not isinstance(value, bool):
            self._refuse(key, "true or false")
        return value

    def wholes(self, key: str, count: int) -> tuple[int, ...]:
        value = self.fields.get(key)
        if not isinstance(value, list) or len(value) != count or not all(map(_is_whole, value)):
            self._refuse(key, f"a list of {count} integers")
        return tuple(value)

    def size(self, key: str) -> tuple[int, int]:
        h, w = self.wholes(key, 2)
        if h < 1 or w < 1:
            self._refuse(key, "[height, width] from 1")
        return h, w

    def numbers(self, key: str) -> dict[str, float]:
        """An optional object of finite numbers, such as stage times."""
        value = self.fields.get(key, {})
        if not isinstance(value, dict) or not all(map(_is_finite, value.values())):
            self._refuse(key, "an object of finite numbers")
        return {name: float(number) for name, number in value.items()}

    def counts(self, key: str) -> dict[str, int]:
        """An optional object of integers, such as drop counts."""
        value = self.fields.get(key, {})
        if not isinstance(value, dict) or not all(map(_is_whole, value.values())):
            self._refuse(key, "an object of integers")
        return dict(value)

    def optional_section(self, key: str) -> "Header | None":
        value = self.fields.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._refuse(key, "an object")
        return Header(value, key)

    def optional_sections(self, key: str) -> list["Header"]:
        return [] if self.fields.get(key) is None else self.sections(key)

    def sections(self, key: str) -> list["Header"]:
        value = self.fields.get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._refuse(key, "a list of objects")
        return [Header(item, f"{key}[{i}]") for i, item in enumerate(value)]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_INT_LIMIT <= value < _INT_LIMIT


def _is_finite(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _refuse_constant(name: str) -> NoReturn:
    raise WireError(f"header contains {name}: only finite numbers are allowed")
