"""Large bodies that come in parts."""

from __future__ import annotations

from typing import Callable, Dict, Optional

from .errors import Violation
from .hello import Limits
from .lanes import MAX_LARGE


class _Body:
    def __init__(self, total: int, bulk: int, done: Optional[Callable[[bytes], None]]) -> None:
        self.total = total
        self.bulk = bulk
        self.done = done
        self.length = 0
        self.parts = bytearray()

    def add(self, part: bytes) -> bool:
        self.length += len(part)
        if self.length > self.total:
            raise Violation(Violation.PROTOCOL, f"more than the {self.total} bytes of a body")
        if self.done is not None:
            self.parts += part
        return self.length == self.total


class Assembly:
    """The large bodies that the peer has begun and not ended."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.message
        self._most = limits.assembly + limits.message  # one body may be larger than the rest
        self._under_way = 0
        self._open: Dict[int, _Body] = {}

    def begin(
        self, stream: int, total: int, part: bytes, bulk: int, done: Optional[Callable[[bytes], None]]
    ) -> None:
        """The first part. `done` gets the whole body; without it the body is only counted."""
        if total > self._limit:
            raise Violation(Violation.TOO_LARGE, f"a body of {total} bytes, the limit is {self._limit}")
        if stream in self._open:
            raise Violation(Violation.PROTOCOL, f"stream {stream} is in use")
        if len(self._open) >= MAX_LARGE:
            raise Violation(Violation.PROTOCOL, f"more than {MAX_LARGE} large bodies at once")
        if self._under_way + total > self._most:
            raise Violation(Violation.WINDOW, f"more than {self._most} bytes of large bodies at once")
        body = _Body(total, bulk, done)
        if body.add(part):
            if done is not None:
                done(part)
        else:
            self._open[stream] = body
            self._under_way += total

    def add(self, stream: int, part: bytes, bulk: int) -> None:
        """A CHUNK."""
        body = self._open.get(stream)
        if body is None:
            raise Violation(Violation.PROTOCOL, f"a part of stream {stream}, which is not open")
        if body.bulk != bulk:
            raise Violation(Violation.PROTOCOL, f"a part of stream {stream} in another lane")
        if body.add(part):
            del self._open[stream]
            self._under_way -= body.total
            if body.done is not None:
                body.done(bytes(body.parts))

    def drop(self, stream: int) -> None:
        """A CHUNK_DROP."""
        body = self._open.pop(stream, None)
        if body is not None:
            self._under_way -= body.total
