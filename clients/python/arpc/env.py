"""An env: endpoints of this side, and connections to others."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Dict, Optional, Set, Tuple

from . import bodies, errors
from .caller import Message
from .connection import Connection
from .endpoints import Cell, Item
from .errors import Outcome, RpcError
from .hello import Limits
from .refs import DEFAULT_TIMEOUT, Ref, RefLike, unref

LOCAL_WAITING = 4096
"""Messages that may wait in one endpoint of this side, sent from this side."""


class Env:
    """A container for endpoints, and the way to those of others. It does not listen; others call
    its endpoints over the connections that it opens.

    Use it as `async with Env() as env:`, within one event loop and one thread.
    """

    def __init__(self, limits: Optional[Limits] = None, heartbeat: Optional[float] = 1.0) -> None:
        """`heartbeat` is the time in seconds within which this side promises to say something, so
        that a peer may take a longer silence for its death. A handler that blocks the event loop
        breaks that promise; none is no promise."""
        self.number = secrets.randbits(64)
        self.limits = limits or Limits()
        self.heartbeat = heartbeat
        self._cells: Dict[str, Cell] = {}
        self._last_number = 0
        self._connections: Dict[Tuple[str, int], Connection] = {}  # that take messages
        self._open: Set[Connection] = set()
        self._closed = False

    async def __aenter__(self) -> "Env":
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends endpoints and connections. What waits fails as never sent, what was sent and not
        answered as unknown."""
        self._closed = True
        for name in list(self._cells):
            self.stop(name)
        await asyncio.gather(*(connection.close() for connection in self._open))

    # Endpoints of this side.

    def serve(self, name: str, endpoint: Any) -> Ref:
        """Gives an endpoint a name. Its methods that are marked with `receive` and
        `receive_and_reply` take messages, one at a time. The ref is to this life of it."""
        if name in self._cells:
            raise ValueError(f"there is an endpoint {name} already")
        self._last_number += 1
        cell = Cell(self, name, self._last_number, endpoint)
        cell.ref()  # an odd name is an error here
        self._cells[name] = cell
        return cell.ref()

    def stop(self, name: str) -> None:
        """Ends an endpoint; its callers hear of it."""
        cell = self._cells.pop(name, None)
        if cell is not None:
            cell.stop()

    def cell(self, name: str) -> Optional[Cell]:
        """For connections: who has that name now."""
        return self._cells.get(name)

    # Endpoints of others.

    def ref(self, like: RefLike) -> Ref:
        """A ref from a URI, or from a value that came in a body. Raises `ValueError`. Nothing is
        sent; `resolve` looks whether the endpoint is there."""
        if isinstance(like, Ref):
            return like
        if isinstance(like, str):
            like = {"at": like}
        if not isinstance(like, dict):
            raise ValueError(f"not a ref: {like!r}")
        return Ref(self, like)

    async def resolve(self, like: RefLike, timeout: float = DEFAULT_TIMEOUT) -> Ref:
        """A ref to an endpoint that is there. Raises `RpcError`, `NoSuchEndpoint` for one."""
        ref = self.ref(like)
        if ref.address.env == self.number:
            self._own(ref)
            return ref
        found = self._way_to(ref).caller.resolve(ref.address.name, ref.pin)
        try:
            await asyncio.wait_for(found, timeout)
        except asyncio.TimeoutError:
            text = f"{ref.uri} was not resolved in {timeout} s"
            raise errors.DeadlineExceeded(text, Outcome.NEVER_SENT) from None
        return ref

    def release(self, like: RefLike) -> None:
        """Lets the peer forget that this side uses the endpoint, if nothing waits to be sent there.
        For programs that get many refs; a ref that is used again is resolved again."""
        ref = self.ref(like)
        address = ref.address
        for one in set(self._connections.values()):
            dialled = self._connections.get((address.host or "", address.port)) is one
            if dialled or (one.peer is not None and one.peer.env == address.env):
                one.caller.release(address.name, ref.pin)

    # For refs and connections.

    def _submit(
        self, ref: Ref, name: str, value: Any, timeout: Optional[float], bulk: bool, asks: bool
    ) -> "asyncio.Future[Any]":
        """Takes the place of a message in the order."""
        if not 0 < len(name.encode()) <= 255:
            raise ValueError(f"the name of a message has 1 to 255 bytes: {name!r}")
        body = bodies.pack(value, unref)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        message = Message(name, body, asks, bulk, deadline)
        try:
            if ref.address.env == self.number:
                self._submit_here(self._own(ref), message)
            else:
                self._way_to(ref).caller.submit(ref.address.name, ref.pin, message)
        except RpcError as error:
            message.end(error)
        return message.future

    def _own(self, ref: Ref) -> Cell:
        cell = self._cells.get(ref.address.name)
        if cell is None or ref.pin not in (None, (self.number, cell.number)):
            raise errors.EndpointStopped(f"{ref.uri} has stopped")
        return cell

    def _submit_here(self, cell: Cell, message: Message) -> None:
        if cell.waiting >= LOCAL_WAITING:
            raise errors.Overloaded(f"{LOCAL_WAITING} messages wait in {cell.name}")

        def answer(body: Optional[bytes], error: Optional[RpcError]) -> None:
            message.end(error, None if body is None else bodies.unpack(body))

        item = Item(
            message.name, message.body, message.deadline, lambda: None, answer if message.asks else None
        )
        cell.deliver(item)
        if not message.asks:
            return message.end()
        if message.deadline is not None:
            late = errors.DeadlineExceeded(f"no answer from {cell.name} in time")
            loop = asyncio.get_running_loop()
            message.timer = loop.call_at(message.deadline, message.end, late)
        message.future.add_done_callback(
            lambda future: item.cancelled.set() if future.cancelled() else None
        )

    def _way_to(self, ref: Ref) -> Connection:
        if self._closed:
            raise errors.EnvShutDown("this env is closed")
        address = ref.address
        if address.host is None:
            for one in self._connections.values():
                if one.peer is not None and one.peer.env == address.env:
                    return one
            raise errors.Unreachable(f"there is no connection to the env of {ref.uri}")
        key = (address.host, address.port)
        connection = self._connections.get(key)
        if connection is None:
            connection = self._connections[key] = Connection(self, *key)
            self._open.add(connection)
        return connection

    def greeted(self, connection: Connection) -> None:
        """The peer may have another address than the one that was dialled."""
        hello = connection.peer
        if hello is not None and hello.address is not None:
            host, _, port = hello.address.rpartition(":")
            if port.isascii() and port.isdigit() and len(port) <= 5:
                self._connections.setdefault((host.strip("[]"), int(port)), connection)

    def ended(self, connection: Connection) -> None:
        """It is closed."""
        self.forget(connection)
        self._open.discard(connection)

    def forget(self, connection: Connection) -> None:
        """It ends, or is about to; the next message opens a new one."""
        for key in [key for key, one in self._connections.items() if one is connection]:
            del self._connections[key]

