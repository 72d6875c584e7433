"""What the two sides say first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Optional, Tuple

from . import bodies
from .errors import Violation

VERSIONS = (1, 1)
MAX_HELLO = 65_536
"""Bytes of a HELLO that this side reads."""


@dataclass(frozen=True)
class Limits:
    """What a side takes. The other one must keep to it."""

    frame: int = 262_144
    """The largest payload of a frame, in bytes."""
    message: int = 16_777_216
    """The largest body of a message or a reply, in bytes, all its parts together."""
    in_flight: int = 1024
    """How many asks to this side may be open at once."""
    assembly: int = 67_108_864
    """Bytes of large bodies that may be under way at once, by what they announce."""


@dataclass(frozen=True)
class Hello:
    """The map of a HELLO."""

    env: int
    versions: Tuple[int, int] = VERSIONS
    address: Optional[str] = None
    capabilities: FrozenSet[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    heartbeat: Optional[int] = None
    """The side sends something at least every so many milliseconds."""
    dialled: Optional[str] = None
    """How this side calls the one that it has dialled: it has no other connection by that name."""

    def pack(self) -> bytes:
        """The payload of the frame."""
        limits = self.limits
        value: Dict[str, Any] = {
            "versions": list(self.versions),
            "env": self.env,
            "address": self.address,
            "capabilities": sorted(self.capabilities),
            "limits": {
                "frame": limits.frame,
                "message": limits.message,
                "in_flight": limits.in_flight,
                "assembly": limits.assembly,
            },
        }
        if self.heartbeat is not None:
            value["heartbeat"] = self.heartbeat
        if self.dialled is not None:
            value["dialled"] = self.dialled
        return bodies.pack(value)

    @classmethod
    def unpack(cls, payload: bytes) -> "Hello":
        """What the other side said. Raises `Violation` for what makes no sense, and if there is
        no version that both speak."""
        try:
            value = bodies.unpack_map(payload)
        except bodies.Malformed as error:
            raise _bad(str(error)) from error
        versions = value.get("versions")
        if not isinstance(versions, list) or len(versions) != 2:
            raise _bad("versions is not an array of two")
        lowest, highest = (_number(version, 0xFFFF, "versions") for version in versions)
        if max(lowest, VERSIONS[0]) > min(highest, VERSIONS[1]):
            raise Violation(
                Violation.VERSION,
                f"no common version: we speak {VERSIONS[0]} to {VERSIONS[1]}, "
                f"they speak {lowest} to {highest}",
            )
        address = value.get("address")
        if address is not None and not isinstance(address, str):
            raise _bad("address is not a string")
        capabilities = value.get("capabilities", [])
        if not isinstance(capabilities, list) or not all(isinstance(c, str) for c in capabilities):
            raise _bad("capabilities is not an array of strings")
        return cls(
            env=_number(value.get("env"), 0xFFFF_FFFF_FFFF_FFFF, "env"),
            versions=(lowest, highest),
            address=address,
            capabilities=frozenset(capabilities),
            limits=_limits(value.get("limits", {})),
            heartbeat=_heartbeat(value.get("heartbeat")),
        )


def _heartbeat(value: Any) -> Optional[int]:
    return None if value is None else _number(value, 0xFFFF_FFFF, "heartbeat")


def _limits(value: Any) -> Limits:
    if not isinstance(value, dict):
        raise _bad("limits is not a map")
    usual = Limits()
    big = 0xFFFF_FFFF_FFFF_FFFF
    limits = Limits(
        frame=_number(value.get("frame", usual.frame), big, "limits.frame"),
        message=_number(value.get("message", usual.message), big, "limits.message"),
        assembly=_number(value.get("assembly", usual.assembly), big, "limits.assembly"),
        in_flight=_number(value.get("in_flight", usual.in_flight), 0xFFFF_FFFF, "limits.in_flight"),
    )
    if limits.frame < 32_768:
        raise _bad(f"limits.frame is {limits.frame}, it must be at least 32768")
    if limits.in_flight < 1:
        raise _bad("limits.in_flight is 0")
    return limits


def _number(value: Any, most: int, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise _bad(f"{what} is not a number from 0 to {most}")
    return value


def _bad(text: str) -> Violation:
    return Violation(Violation.HELLO, f"the hello makes no sense: {text}")
