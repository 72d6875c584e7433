"""Refs: ways to endpoints, as values in bodies and as what one calls."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional, Tuple, Union

if TYPE_CHECKING:
    from .env import Env

DEFAULT_TIMEOUT = 10.0
"""Seconds that an ask waits if nothing else is said."""

Pin = Tuple[int, int]

_NAME = r"[^\s\x00-\x1f\x7f@/:?#\[\]]+"
_LISTENING = re.compile(rf"rpc://({_NAME})@(\[[0-9a-fA-F:.%]+\]|[^\s@/:?#\[\]]+):([0-9]{{1,5}})")
_CLIENT = re.compile(rf"rpc-client://({_NAME})@([0-9a-fA-F]{{16}})")


class Address(NamedTuple):
    """Where an endpoint is: at a listening env, or at an env known by its number alone."""

    name: str
    host: Optional[str]
    port: int
    env: Optional[int]

    @classmethod
    def parse(cls, uri: str) -> "Address":
        """Reads a URI. Raises `ValueError`."""
        found = _LISTENING.fullmatch(uri)
        if found:
            name, host, port = found[1], found[2], int(found[3])
            if port <= 65_535 and len(name.encode()) <= 255:
                return cls(name, host.strip("[]"), port, None)
        found = _CLIENT.fullmatch(uri)
        if found and len(found[1].encode()) <= 255:
            return cls(found[1], None, 0, int(found[2], 16))
        raise ValueError(f"not the URI of an endpoint: {uri!r}")


def authority(host: str, port: int) -> str:
    """`host:port` as it stands in URIs and hellos."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Ref:
    """A way to an endpoint. Cheap; may be put into any body as a value, and is called with
    `ask` and `send`. `Env.ref` makes one from a URI or from a value that came in a body."""

    def __init__(self, env: "Env", value: Dict[str, Any]) -> None:
        at, pin = value.get("at"), value.get("pin")
        if not isinstance(at, str):
            raise ValueError("a ref needs the key 'at'")
        if pin is not None:
            sound = isinstance(pin, (list, tuple)) and len(pin) == 2
            if not sound or not all(isinstance(n, int) and 0 <= n < 1 << 64 for n in pin):
                raise ValueError("the pin of a ref is an array of two integers")
            pin = (pin[0], pin[1])
        self.address = Address.parse(at)
        self.pin: Optional[Pin] = pin
        self._env = env
        self._value = dict(value)  # with the keys that we do not know, for those who do

    @property
    def uri(self) -> str:
        """The URI of the endpoint."""
        return str(self._value["at"])

    def to_value(self) -> Dict[str, Any]:
        """What it is in a body."""
        return self._value

    def ask(
        self, message: str, body: Any = None, timeout: Optional[float] = DEFAULT_TIMEOUT, bulk: bool = False
    ) -> "asyncio.Future[Any]":
        """Asks. The message has its place in the order when this returns; the future has the
        reply, or an `RpcError` by `timeout` seconds. Cancelling the future cancels the call."""
        return self._env._submit(self, message, body, timeout, bulk, True)

    def send(
        self, message: str, body: Any = None, timeout: Optional[float] = DEFAULT_TIMEOUT, bulk: bool = False
    ) -> "asyncio.Future[None]":
        """Sends one way. The message has its place in the order when this returns; the future is
        done when it was given to the socket. Cancelling it takes back what was not."""
        return self._env._submit(self, message, body, timeout, bulk, False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and (self.uri, self.pin) == (other.uri, other.pin)

    def __hash__(self) -> int:
        return hash((self.uri, self.pin))

    def __repr__(self) -> str:
        return f"<Ref {self.uri}{'' if self.pin is None else ' pinned'}>"


def unref(value: Any) -> Any:
    """For MessagePack: a ref as the value that it is."""
    if isinstance(value, Ref):
        return value.to_value()
    raise TypeError(f"{type(value).__name__} cannot be written as MessagePack")


RefLike = Union[str, Dict[str, Any], Ref]
