"""What waits to be written: control first, then normal, then bulk; and large bodies in parts."""

from __future__ import annotations

from collections import deque
from typing import Callable, Deque, List, Optional

from . import frames
from .errors import Violation

MAX_LARGE = 256
"""Large bodies that may be open at once in one direction of a connection."""
MAX_CONTROL = 1024
"""Control frames that may wait because the peer does not read."""
PART = 65_536
"""The largest payload of a part, so that small frames need not wait long."""


class Large:
    """A large body under way."""

    def __init__(self, stream: int, body: bytes, bulk: bool, done: Callable[[], None]) -> None:
        self.stream = stream
        self.body = memoryview(body)
        self.at = 0
        self.flags = frames.BULK if bulk else 0
        self.done = done

    def take(self, size: int) -> memoryview:
        """The next bytes of the body."""
        part = self.body[self.at : self.at + size]
        self.at += len(part)
        return part

    @property
    def complete(self) -> bool:
        """Whether all of it was taken."""
        return self.at == len(self.body)


class Lanes:
    """The frames of one connection in the order in which they are to be written.

    Messages are not frames before their turn comes: each source is asked for one (`pull`), so
    that what was not written can still be taken back.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.frame_limit = 32_768  # the peer's, as soon as its hello is there
        self.assembly_limit = 0
        self._under_way = 0  # bytes of all large bodies that are open
        self._wake = wake
        self._control: Deque[bytes] = deque()
        self._sources: List[List[Callable[[], Optional[bytes]]]] = [[], []]
        self._parts: List[Deque[Large]] = [deque(), deque()]
        self._part_next = [False, False]
        self._stream = 0

    def add_source(self, bulk: bool, pull: Callable[[], Optional[bytes]]) -> None:
        """`pull` gives a frame of that lane, or none while it has none that may go."""
        self._sources[bulk].append(pull)

    def control(self, kind: int, payload: bytes) -> None:
        """Queues a frame of the control lane."""
        if len(self._control) >= MAX_CONTROL:
            raise Violation(Violation.TOO_MANY, f"{MAX_CONTROL} control frames wait to be read")
        self._control.append(frames.pack(kind, payload))
        self._wake()

    def wake(self) -> None:
        """A source may have something."""
        self._wake()

    def has_room(self, fields: int, body: int) -> bool:
        """Whether a message of so many bytes may begin: any that fits into a frame, and a large one
        that the peer has room to put together."""
        open_ones = len(self._parts[False]) + len(self._parts[True])
        if fields + body <= self.frame_limit or open_ones == 0:
            return True
        return open_ones < MAX_LARGE and self._under_way + body <= self.assembly_limit

    def begin(
        self, kind: int, fields: bytes, body: bytes, flags: int, message: int, done: Callable[[], None]
    ) -> "tuple[bytes, Optional[Large]]":
        """The first frame of a message or an answer. If its body does not fit, the rest is under
        way in its lane, and `done` is called when the last part was taken; otherwise at once."""
        if len(fields) + len(body) <= self.frame_limit:
            done()
            return frames.pack(kind, fields + body, flags, message), None
        self._stream = (self._stream + 1) & 0xFFFF_FFFF
        large = Large(self._stream, body, bool(flags & frames.BULK), done)
        first = frames.FIRST_PART.pack(large.stream, len(body)) + fields
        part = large.take(max(self._part_size() - len(first), 1))
        self._under_way += len(body)
        self._parts[bool(flags & frames.BULK)].append(large)
        return frames.pack(kind, first + bytes(part), flags | frames.FIRST, message), large

    def drop(self, large: Large) -> None:
        """Takes back what was not written of a large body, and tells the peer."""
        parts = self._parts[bool(large.flags)]
        if large in parts:
            parts.remove(large)
            self._under_way -= len(large.body)
            self.control(frames.CHUNK_DROP, frames.TARGET.pack(large.stream))

    def next(self) -> Optional[bytes]:
        """The frame whose turn it is."""
        if self._control:
            return self._control.popleft()
        for bulk in (False, True):
            # Parts and small frames of a lane take turns, so that neither starves.
            turns = (self._next_part, self._next_small)
            for turn in turns if self._part_next[bulk] else turns[::-1]:
                frame = turn(bulk)
                if frame is not None:
                    self._part_next[bulk] = turn == self._next_small
                    return frame
        return None

    def _next_small(self, bulk: bool) -> Optional[bytes]:
        sources = self._sources[bulk]
        for _ in range(len(sources)):
            sources.append(sources.pop(0))
            frame = sources[-1]()
            if frame is not None:
                return frame
        return None

    def _next_part(self, bulk: bool) -> Optional[bytes]:
        parts = self._parts[bulk]
        if not parts:
            return None
        large = parts.popleft()
        part = large.take(self._part_size() - 4)
        if large.complete:
            self._under_way -= len(large.body)
            large.done()
        else:
            parts.append(large)
        return frames.pack(frames.CHUNK, frames.TARGET.pack(large.stream) + bytes(part), large.flags)

    def _part_size(self) -> int:
        return min(self.frame_limit, PART)
