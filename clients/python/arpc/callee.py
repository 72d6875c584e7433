"""The called half of a connection: what the peer resolves, sends and asks."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Optional, Tuple

from . import bodies, errors, frames
from .caller import pair
from .endpoints import Cell, Item
from .errors import Outcome, RpcError, Violation
from .hello import Limits
from .lanes import Lanes, Large

if TYPE_CHECKING:
    from .env import Env

ROOM = (4096, 67_108_864)
"""Messages and bytes in the queue of one endpoint that its callers may have together."""
WINDOW = (256, 4_194_304)
"""What one of them gets at most, and half of what is left of the room."""
LEAST = (8, 262_144)
"""What one of them gets at least."""
MAX_SERVED = 1024
"""Targets that a peer may have resolved at once."""
MAX_TARGETS = 65_536
MAX_TEXT = 4096
DAY = 24 * 3600.0


class Served:
    """An endpoint that the peer has resolved."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.names = cell.names
        left = [room - granted for room, granted in zip(ROOM, cell.granted)]
        self.window = tuple(
            max(min(most, rest // 2), least) for most, rest, least in zip(WINDOW, left, LEAST)
        )
        self._count(1)
        self.gone = False
        self.tell: Callable[[], None] = lambda: None  # what the cell calls when it is gone
        self.messages = 0  # in the queue
        self.bytes = 0
        self.owed_messages = 0  # taken out of it, and not yet given back as credit
        self.owed_bytes = 0


    def end(self) -> None:
        """The peer does not mean it any more, or the endpoint is gone."""
        if not self.gone:
            self.gone = True
            self._count(-1)
            if self.tell in self.cell.gone:
                self.cell.gone.remove(self.tell)

    def _count(self, sign: int) -> None:
        self.cell.granted = [
            granted + sign * own for granted, own in zip(self.cell.granted, self.window)
        ]


class Call:
    """An ask of the peer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.item: Optional[Item] = None  # none until its body is complete
        self.reply: Optional[Large] = None  # the large reply under way


class Callee:
    """What the peer wants of this side."""

    def __init__(self, env: "Env", lanes: Lanes, limits: Limits) -> None:
        self._env = env
        self._lanes = lanes
        self._limits = limits
        self._peer: Optional[Limits] = None
        self._targets: Dict[int, Optional[Served]] = {}  # none: unresolved
        self._resolved = 0  # of them, those that are not gone
        self._calls: Dict[int, Call] = {}  # by slot
        self._generations: Dict[int, int] = {}
        self._answers: Deque[Tuple[Call, int, bytes]] = deque()
        self._ended = False
        lanes.add_source(False, self._pull)

    def greeted(self, limits: Limits) -> None:
        """The peer's hello is there."""
        self._peer = limits

    def end(self) -> None:
        """The connection has ended: nobody waits for an answer."""
        self._ended = True
        for served in self._targets.values():
            if served is not None:
                served.end()
        for call in self._calls.values():
            if call.item is not None:
                call.item.cancelled.set()
        self._calls.clear()
        self._answers.clear()

    # Endpoints.

    def on_resolve(self, number: int, value: Dict[str, Any]) -> None:
        """RESOLVE."""
        if number >= MAX_TARGETS:
            raise Violation(Violation.PROTOCOL, f"target {number}, they go to {MAX_TARGETS - 1}")
        served = self._targets.get(number)
        if served is not None and not served.gone:
            raise Violation(Violation.PROTOCOL, f"target {number} is resolved already")
        name = value.get("name")
        if not isinstance(name, str):
            raise Violation(Violation.PROTOCOL, "a RESOLVE without a name")
        pin = None if value.get("pin") is None else pair(value["pin"], "pin")
        cell = self._env.cell(name)
        if cell is None and pin is None:
            return self._unresolved(number, errors.NoSuchEndpoint(f"no endpoint has the name {name}"))
        if cell is None or pin not in (None, (self._env.number, cell.number)):
            return self._unresolved(number, errors.EndpointStopped(f"that {name} has stopped"))
        if self._resolved >= MAX_SERVED:
            text = f"{MAX_SERVED} endpoints are resolved already"
            return self._unresolved(number, errors.Overloaded(text))
        served = Served(cell)
        self._resolved += 1
        self._targets[number] = served
        value = {
            "incarnation": [self._env.number, cell.number],
            "messages": served.names,
            "credit": list(served.window),
        }
        self._lanes.control(frames.RESOLVED, frames.TARGET.pack(number) + bodies.pack(value))
        served.tell = lambda: self._gone(number, served)
        cell.gone.append(served.tell)

    def on_release(self, number: int) -> None:
        """RELEASE: the number is free. What came for it is handled all the same."""
        served = self.served(number)
        self._resolved -= 0 if served.gone else 1
        served.end()
        del self._targets[number]

    def _unresolved(self, number: int, error: RpcError) -> None:
        self._targets.setdefault(number, None)  # what crosses the answer may be for the life before
        self._lanes.control(frames.UNRESOLVED, frames.TARGET.pack(number) + _reason(error))

    def _gone(self, number: int, served: Served) -> None:
        self._resolved -= 1
        served.end()
        if not self._ended:
            self._lanes.control(frames.GONE, frames.TARGET.pack(number))

    # Messages.

    def served(self, number: int) -> Served:
        """The target of a message, or `Violation` if it was never resolved."""
        served = self._targets.get(number)
        if served is None:
            raise Violation(Violation.PROTOCOL, f"target {number} was never resolved")
        return served

    def one_way(self, number: int, name: Optional[str], index: int) -> Callable[[bytes], None]:
        """What to do with the body of a ONE_WAY when it is complete."""
        served = self.served(number)

        def complete(body: bytes) -> None:
            self._deliver(served, number, name, index, body, None, None)

        return complete

    def ask(
        self, number: int, call: int, remaining: int, name: Optional[str], index: int
    ) -> Callable[[bytes], None]:
        """What to do with the body of an ASK when it is complete."""
        served = self.served(number)
        slot, generation = call & 0xFF_FFFF, call >> 24
        if slot >= self._limits.in_flight:
            raise Violation(Violation.PROTOCOL, f"slot {slot}, the limit is {self._limits.in_flight}")
        if slot in self._calls or generation <= self._generations.get(slot, -1):
            raise Violation(Violation.CALL_IN_USE, f"the call {call:#x} is in use, or was")
        self._generations[slot] = generation
        state = self._calls[slot] = Call(call)
        deadline = asyncio.get_running_loop().time() + min(remaining / 1000, DAY)

        def answer(body: Optional[bytes], error: Optional[RpcError]) -> None:
            self._answer(state, body, error)

        def complete(body: bytes) -> None:
            if self._calls.get(slot) is state:
                self._deliver(served, number, name, index, body, deadline, (state, answer))
            # else it was cancelled on the way; it never was in the queue

        return complete

    def _deliver(
        self,
        served: Served,
        number: int,
        name: Optional[str],
        index: int,
        body: bytes,
        deadline: Optional[float],
        call: Optional[Tuple[Call, Callable[[Optional[bytes], Optional[RpcError]], None]]],
    ) -> None:
        if name is None:
            name = served.names[index] if index < len(served.names) else f"number {index}"
        size = frames.charge(body)
        served.messages += 1
        served.bytes += size
        if not served.gone:
            most = served.window[1] + self._limits.message
            if served.messages > served.window[0] or served.bytes > most:
                raise Violation(Violation.WINDOW, f"the window of target {number} was overrun")

        def taken() -> None:
            served.messages -= 1
            served.bytes -= size
            served.owed_messages += 1
            served.owed_bytes += size
            self._give(number, served)

        item = Item(name, body, deadline, taken, call[1] if call else None)
        if call is not None:
            call[0].item = item
        served.cell.deliver(item)

    def _give(self, number: int, served: Served) -> None:
        if served.gone or self._ended:
            return
        messages, size = served.window
        half = served.owed_messages * 2 >= messages or served.owed_bytes * 2 >= size
        if half or served.messages == 0:
            credit = frames.CREDIT.pack(number, served.owed_messages, served.owed_bytes)
            served.owed_messages = served.owed_bytes = 0
            self._lanes.control(frames.CREDIT_KIND, credit)

    # Answers.

    def on_cancel(self, call: int) -> None:
        """CANCEL."""
        state = self._calls.get(call & 0xFF_FFFF)
        if state is None or state.number != call:
            return  # it has been answered
        del self._calls[call & 0xFF_FFFF]
        if state.item is not None:
            state.item.cancelled.set()
        if state.reply is not None:
            self._lanes.drop(state.reply)

    def _answer(self, state: Call, body: Optional[bytes], error: Optional[RpcError]) -> None:
        slot = state.number & 0xFF_FFFF
        if self._ended or self._calls.get(slot) is not state:
            return
        if body is not None and self._peer is not None and len(body) > self._peer.message:
            text = f"a reply of {len(body)} bytes, the caller takes {self._peer.message}"
            body, error = None, errors.TooLarge(text, Outcome.FAILED_IN_HANDLER)
        if body is not None:
            self._answers.append((state, frames.REPLY, body))
        else:
            self._answers.append((state, frames.FAILURE, _reason(error or errors.NoReply())))
        self._lanes.wake()

    def _pull(self) -> Optional[bytes]:
        while self._answers:
            state, kind, body = self._answers[0]
            slot = state.number & 0xFF_FFFF
            if self._calls.get(slot) is not state:
                self._answers.popleft()  # cancelled
                continue
            if not self._lanes.has_room(8, len(body)):
                return None
            self._answers.popleft()
            call = frames.CALL.pack(state.number)
            frame, state.reply = self._lanes.begin(kind, call, body, 0, 0, lambda: self._answered(state))
            return frame
        return None

    def _answered(self, state: Call) -> None:
        self._calls.pop(state.number & 0xFF_FFFF, None)


def _reason(error: RpcError) -> bytes:
    text = error.text.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore")
    return bodies.pack({"code": errors.code_of(error), "text": text})
