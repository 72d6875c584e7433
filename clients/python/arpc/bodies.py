"""MessagePack, bounded before it is decoded."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, cast

import msgpack  # type: ignore[import-untyped]

MAX_DEPTH = 64
MAX_ELEMENTS = 1_048_576


class Malformed(Exception):
    """These bytes are not one MessagePack value within the bounds."""


# What follows a marker from 0xc4 up: the width of a length and what it counts. Extension types
# (0xc7 to 0xc9 and 0xd4 to 0xd8) are not here, because the protocol has none.
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_ITEMS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def scan(data: bytes) -> None:
    """Raises `Malformed` unless `data` is exactly one value with honest lengths, at most
    `MAX_DEPTH` collections within each other and at most `MAX_ELEMENTS` elements."""
    size = len(data)
    at = 0
    elements = 0
    open_counts = [1]  # values that are still to come, of the outermost first
    while open_counts:
        if open_counts[-1] == 0:
            open_counts.pop()
            continue
        open_counts[-1] -= 1
        if at >= size:
            raise Malformed("the value is cut short")
        marker = data[at]
        at += 1
        count: Optional[int] = None
        if marker <= 0x7F or marker >= 0xE0 or marker in (0xC0, 0xC2, 0xC3):
            continue
        if marker <= 0x8F:
            count = (marker & 0x0F) * 2
        elif marker <= 0x9F:
            count = marker & 0x0F
        elif marker <= 0xBF:
            at += marker & 0x1F
        elif marker in _FIXED:
            at += _FIXED[marker]
        elif marker in _BYTES:
            width = _BYTES[marker]
            at += width + int.from_bytes(data[at : at + width], "big")
        elif marker in _ITEMS:
            width, each = _ITEMS[marker]
            count = int.from_bytes(data[at : at + width], "big") * each
            at += width
        else:
            raise Malformed(f"the marker {marker:#04x} has no place here")
        if at > size:
            raise Malformed("a value is longer than what is left")
        if count is not None:
            if count > size - at:
                raise Malformed("a count is larger than what is left")
            elements += count
            if elements > MAX_ELEMENTS:
                raise Malformed(f"more than {MAX_ELEMENTS} elements")
            if len(open_counts) > MAX_DEPTH:
                raise Malformed(f"more than {MAX_DEPTH} collections within each other")
            open_counts.append(count)
    if at != size:
        raise Malformed("there are bytes behind the value")


def unpack(data: bytes) -> Any:
    """The value, or `Malformed`."""
    scan(data)
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except Exception as error:  # the library raises many kinds, TypeError for odd keys among them
        raise Malformed(str(error) or type(error).__name__) from error


def unpack_map(data: bytes) -> Dict[str, Any]:
    """The map of a control frame, or `Malformed`."""
    value = unpack(data)
    if not isinstance(value, dict):
        raise Malformed("it is not a map")
    return value


def pack(value: Any, default: Optional[Callable[[Any], Any]] = None) -> bytes:
    """The bytes of a value. `default` turns what MessagePack does not know into what it does."""
    return cast(bytes, msgpack.packb(value, use_bin_type=True, default=default))
