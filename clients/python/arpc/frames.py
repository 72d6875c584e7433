"""Frames: a header of eight bytes and a payload."""

from __future__ import annotations

import struct
from typing import NamedTuple, Optional

from .errors import Violation

MAGIC = b"ARPC"
HEADER = struct.Struct(">IBBH")
FIRST_PART = struct.Struct(">IQ")  # stream, total
TARGET = struct.Struct(">I")
CALL = struct.Struct(">Q")
ASK = struct.Struct(">QII")  # call, target, remaining
CREDIT = struct.Struct(">IIQ")  # target, messages, bytes

HELLO = 0x01
RESOLVE = 0x02
RESOLVED = 0x03
UNRESOLVED = 0x04
GONE = 0x05
RELEASE = 0x06
ONE_WAY = 0x10
ASK_KIND = 0x11
REPLY = 0x12
FAILURE = 0x13
CANCEL = 0x14
CHUNK = 0x15
CHUNK_DROP = 0x16
CREDIT_KIND = 0x20
PING = 0x30
PONG = 0x31
HEARTBEAT = 0x32
GOODBYE = 0x38
CLOSE = 0x39
IGNORABLE = 0x80
"""From here up a kind that is not known is skipped."""

FIRST = 0x01
NAMED = 0x02
HEADERS = 0x04
BULK = 0x08

# The flags that a kind may have, and the sizes that its payload may have: exact or least.
_FLAGS = {ONE_WAY: FIRST | NAMED | BULK, ASK_KIND: FIRST | NAMED | BULK, REPLY: FIRST, CHUNK: BULK}
_EXACT = {GONE: 4, RELEASE: 4, CANCEL: 8, CHUNK_DROP: 4, CREDIT_KIND: 16, PING: 8, PONG: 8, HEARTBEAT: 0}
_LEAST = {
    HELLO: 1,
    RESOLVE: 5,
    RESOLVED: 5,
    UNRESOLVED: 4,
    ONE_WAY: 4,
    ASK_KIND: 16,
    REPLY: 8,
    FAILURE: 8,
    CHUNK: 4,
    GOODBYE: 0,
    CLOSE: 0,
}


class Frame(NamedTuple):
    """A frame as it came."""

    kind: int
    flags: int
    message: int
    payload: bytes


FREE_BODY = 4096  # bodies up to this cost a message of credit, and no bytes


def charge(body: bytes) -> int:
    """The bytes of credit that a body costs."""
    return len(body) if len(body) > FREE_BODY else 0


def pack(kind: int, payload: bytes, flags: int = 0, message: int = 0) -> bytes:
    """The bytes of a frame."""
    return HEADER.pack(len(payload), kind, flags, message) + payload


class Buffer:
    """Bytes as they come, and the frames in them. `limit` is the largest payload."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._bytes = bytearray()
        self._magic = False

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._bytes += data

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and is not complete, after `next` has given none."""
        return bool(self._bytes)

    def next(self) -> Optional[Frame]:
        """The next frame, or none before more bytes come. Raises `Violation` for what a peer
        must not send."""
        if not self._magic:
            if not MAGIC.startswith(bytes(self._bytes[:4])):
                raise Violation(Violation.PROTOCOL, "the peer does not speak this protocol")
            if len(self._bytes) < 4:
                return None
            del self._bytes[:4]
            self._magic = True
        if len(self._bytes) < HEADER.size:
            return None
        length, kind, flags, message = HEADER.unpack_from(self._bytes)
        if length > self.limit:
            text = f"a frame of {length} bytes, the limit is {self.limit}"
            raise Violation(Violation.TOO_LARGE, text)
        if kind < IGNORABLE:
            _check(length, kind, flags, message)
        end = HEADER.size + length
        if len(self._bytes) < end:
            return None
        payload = bytes(self._bytes[HEADER.size : end])
        del self._bytes[:end]
        return Frame(kind, flags, message, payload)


def _check(length: int, kind: int, flags: int, message: int) -> None:
    if kind in _EXACT:
        fits = length == _EXACT[kind]
    elif kind in _LEAST:
        fits = length >= _LEAST[kind]
    else:
        raise Violation(Violation.PROTOCOL, f"no frame has the kind {kind:#04x}")
    if not fits:
        raise Violation(Violation.PROTOCOL, f"a frame of kind {kind:#04x} with {length} bytes")
    if flags & ~_FLAGS.get(kind, 0):
        raise Violation(Violation.PROTOCOL, f"a frame of kind {kind:#04x} with flags {flags:#04x}")
    if message and (kind not in (ONE_WAY, ASK_KIND) or flags & NAMED):
        raise Violation(Violation.PROTOCOL, f"a frame of kind {kind:#04x} with a message number")
