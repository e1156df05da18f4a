"""Where received messages wait for the consumer: the newest per source and kind, or all up to a limit."""

from collections import deque
from typing import Protocol

from streaming.wire import Kind, Message


class Inbox(Protocol):
    """Messages waiting for the consumer; the caller does the locking."""

    def __len__(self) -> int: ...

    def put(self, message: Message) -> int:
        """Add a message and return how many older ones it displaced."""

    def take(self) -> Message:
        """Remove and return the message that is due; there must be one."""


class NewestInbox:
    """Keeps the newest message per source and kind; whoever has waited longest is served first."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, Kind], Message] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> int:
        """Replace the waiting message of the same source and kind, which keeps its place in the line."""
        key = (message.source, message.kind)
        displaced = int(key in self._messages)
        self._messages[key] = message
        return displaced

    def take(self) -> Message:
        """Remove and return the message at the head of the line."""
        return self._messages.pop(next(iter(self._messages)))


class EveryInbox:
    """Keeps every message in order; beyond `size` the oldest goes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[Message] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> int:
        """Append a message, at the cost of the oldest when full."""
        displaced = int(len(self._messages) >= self._size)
        if displaced:
            self._messages.popleft()
        self._messages.append(message)
        return displaced

    def take(self) -> Message:
        """Remove and return the oldest message."""
        return self._messages.popleft()
