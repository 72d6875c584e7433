"""The calling half of a connection: targets, credit, slots, calls."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional, Tuple

from . import bodies, errors, frames
from .errors import Outcome, RpcError, Violation
from .hello import Limits
from .lanes import Lanes, Large

if TYPE_CHECKING:
    from .refs import Pin

log = logging.getLogger("arpc")

MAX_WAITING = 8192
"""Messages that may wait in one connection."""
MAX_TARGETS = 65_536
MOST_FIELDS = 16 + 256
"""Bytes before the body of an ASK, its name included."""
DAY_MS = 24 * 3600 * 1000

QUEUED, UNDER_WAY, SENT, OVER = range(4)
IDLE, RESOLVING, OPEN = range(3)


class Message:
    """One message on its way, and the future that its caller holds."""

    def __init__(
        self, name: str, body: bytes, asks: bool, bulk: bool, deadline: Optional[float]
    ) -> None:
        self.name = name
        self.body = body
        self.asks = asks
        self.bulk = bulk
        self.deadline = deadline
        self.future: "asyncio.Future[Any]" = asyncio.get_running_loop().create_future()
        self.state = QUEUED
        self.target: Optional[Target] = None
        self.call = -1
        self.large: Optional[Large] = None
        self.timer: Optional[asyncio.TimerHandle] = None

    def end(self, error: Optional[RpcError] = None, value: Any = None) -> None:
        """Gives the caller its answer, once."""
        self.state = OVER
        if self.timer is not None:
            self.timer.cancel()
        if self.future.done():
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)


class Target:
    """An endpoint of the peer."""

    def __init__(self, name: str, pin: Optional["Pin"]) -> None:
        self.name = name
        self.pin = pin
        self.state = IDLE
        self.number = -1
        self.numbers: Dict[str, int] = {}
        self.messages = 0  # credit
        self.bytes = 0
        self.queues: Tuple[Deque[Message], Deque[Message]] = (deque(), deque())
        self.large: List[Optional[Message]] = [None, None]  # the one under way in each lane
        self.waiters: List["asyncio.Future[None]"] = []

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it to be resolved."""
        return bool(self.queues[0] or self.queues[1] or self.waiters)


class Caller:
    """What this side sends, and what comes back."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._limits: Optional[Limits] = None
        self._targets: Dict[Tuple[str, Optional["Pin"]], Target] = {}
        self._by_number: Dict[int, Optional[Target]] = {}  # none: it was used before
        self._free: List[int] = []  # a heap: small numbers first
        self._rotation: List[Deque[Target]] = [deque(), deque()]
        self._waiting = 0
        self._slots: List[int] = []
        self._generations: Dict[int, int] = {}  # of the last use of each slot
        self._calls: Dict[int, Message] = {}  # by slot
        self._ended: Optional[RpcError] = None
        self.leaving = False
        """Set when the peer has said goodbye: what was not sent stays here, and is *never sent*."""
        lanes.add_source(False, lambda: self._pull(False))
        lanes.add_source(True, lambda: self._pull(True))

    # What the connection says.

    def greeted(self, limits: Limits) -> None:
        """The peer's hello is there: messages may go."""
        self._limits = limits
        for target in self._targets.values():
            self._want(target)
        self._lanes.wake()

    def end(self, lost: RpcError) -> None:
        """The connection has ended: what was given to it is *unknown*, the rest *never sent*."""
        self._ended = lost
        calls, self._calls = self._calls, {}
        for message in calls.values():
            unknown = message.state == SENT
            message.end(_like(lost, Outcome.UNKNOWN if unknown else Outcome.NEVER_SENT))
        for target in self._targets.values():
            self._fail(target, _like(lost, Outcome.NEVER_SENT))

    # What the user wants.

    def submit(self, name: str, pin: Optional["Pin"], message: Message) -> None:
        """Takes the message's place in the order."""
        if self._ended is not None:
            return message.end(_like(self._ended, Outcome.NEVER_SENT))
        loop = asyncio.get_running_loop()
        if message.deadline is not None and message.deadline <= loop.time():
            return message.end(errors.DeadlineExceeded("no time was given", Outcome.NEVER_SENT))
        if self._waiting >= MAX_WAITING:
            return message.end(errors.Overloaded(f"{MAX_WAITING} messages wait already"))
        target = self._target(name, pin)
        message.target = target
        target.queues[message.bulk].append(message)
        self._waiting += 1
        if target not in self._rotation[message.bulk]:
            self._rotation[message.bulk].append(target)
        if message.deadline is not None:
            message.timer = loop.call_at(message.deadline, self._expire, message)
        message.future.add_done_callback(
            lambda future: self._take_back(message) if future.cancelled() else None
        )
        self._want(target)
        self._lanes.wake()

    def resolve(self, name: str, pin: Optional["Pin"]) -> "asyncio.Future[None]":
        """Done when the endpoint is known to be there."""
        future: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        if self._ended is not None:
            future.set_exception(_like(self._ended, Outcome.NEVER_SENT))
            return future
        target = self._target(name, pin)
        if target.state == OPEN:
            future.set_result(None)
        else:
            target.waiters.append(future)
            self._want(target)
        return future

    def _target(self, name: str, pin: Optional["Pin"]) -> Target:
        key = (name, pin)
        if key not in self._targets:
            self._targets[key] = Target(name, pin)
        return self._targets[key]

    def _want(self, target: Target) -> None:
        if target.state != IDLE or self._limits is None or not target.wanted:
            return
        number = heapq.heappop(self._free) if self._free else len(self._by_number)
        if number >= MAX_TARGETS:
            return self._fail(target, errors.Overloaded(f"{MAX_TARGETS} targets on a connection"))
        target.number = number
        target.state = RESOLVING
        self._by_number[number] = target
        wanted: Dict[str, Any] = {"name": target.name}
        if target.pin is not None:
            wanted["pin"] = list(target.pin)
        self._lanes.control(frames.RESOLVE, frames.TARGET.pack(number) + bodies.pack(wanted))

    def _expire(self, message: Message) -> None:
        text = f"no answer from {message.target.name if message.target else '?'} in time"
        unknown = message.state == SENT
        self._take_back(message)
        message.end(errors.DeadlineExceeded(text, Outcome.UNKNOWN if unknown else Outcome.NEVER_SENT))

    def _take_back(self, message: Message) -> None:
        """Nobody waits for it any more."""
        state, message.state = message.state, OVER
        target = message.target
        if message.timer is not None:
            message.timer.cancel()
        if state == QUEUED:
            self._lanes.wake()  # what stood behind it may go
        if state == UNDER_WAY and message.large is not None and target is not None:
            self._lanes.drop(message.large)
            target.large[message.bulk] = None
            target.messages += 1
            target.bytes += frames.charge(message.body)
        if state in (UNDER_WAY, SENT) and message.asks and message.call >= 0:
            self._release(message)
            self._lanes.control(frames.CANCEL, frames.CALL.pack(message.call))

    def _release(self, message: Message) -> None:
        slot = message.call & 0xFF_FFFF
        if self._calls.get(slot) is message:
            del self._calls[slot]
            self._slots.append(slot)
            self._lanes.wake()

    def _fail(self, target: Target, error: RpcError) -> None:
        """All that waits for the target, and was not given to the transport as a whole."""
        waiters, target.waiters = target.waiters, []
        for future in waiters:
            if not future.done():
                future.set_exception(_like(error, Outcome.NEVER_SENT))
        for lane in (0, 1):
            queue = target.queues[lane]
            self._waiting -= len(queue)
            while queue:
                queue.popleft().end(_like(error, Outcome.NEVER_SENT))
            under_way = target.large[lane]
            if under_way is not None:
                self._take_back(under_way)
                under_way.end(_like(error, Outcome.NEVER_SENT))

    # What is written.

    def _pull(self, bulk: bool) -> Optional[bytes]:
        rotation = self._rotation[bulk]
        if self.leaving:
            return None
        for _ in range(len(rotation)):
            target = rotation.popleft()
            frame = self._pull_from(target, bulk)
            if target.queues[bulk]:
                rotation.append(target)
            if frame is not None:
                return frame
        return None

    def _pull_from(self, target: Target, bulk: bool) -> Optional[bytes]:
        queue = target.queues[bulk]
        while queue and queue[0].future.done():  # it is over, or was cancelled just now
            queue.popleft()
            self._waiting -= 1
        if not queue or target.state != OPEN or target.large[bulk] is not None:
            return None
        limits, message = self._limits, queue[0]
        cost = frames.charge(message.body)
        if limits is None or target.messages < 1 or (cost and target.bytes < 1):
            return None
        size = len(message.body)
        if size > limits.message:
            self._waiting -= 1
            text = f"a message of {size} bytes, the peer takes {limits.message}"
            queue.popleft().end(errors.TooLarge(text, Outcome.NEVER_SENT))
            return self._pull_from(target, bulk)
        if not self._lanes.has_room(MOST_FIELDS, size):
            return None
        slot = self._free_slot() if message.asks else -1
        if slot is None:
            return None
        queue.popleft()
        self._waiting -= 1
        target.messages -= 1
        target.bytes -= cost
        return self._begin(target, message, slot)

    def _begin(self, target: Target, message: Message, slot: int) -> bytes:
        flags = frames.BULK if message.bulk else 0
        number = target.numbers.get(message.name)
        fields = frames.TARGET.pack(target.number)
        kind = frames.ONE_WAY
        if message.asks:
            generation = self._generations.get(slot, -1) + 1
            self._generations[slot] = generation
            message.call = generation << 24 | slot
            self._calls[slot] = message
            fields = frames.ASK.pack(message.call, target.number, _remaining(message.deadline))
            kind = frames.ASK_KIND
        if number is None:
            name = message.name.encode()
            fields += bytes([len(name)]) + name
            flags |= frames.NAMED
        message.state = UNDER_WAY
        frame, message.large = self._lanes.begin(
            kind, fields, message.body, flags, number or 0, lambda: self._sent(message)
        )
        if message.large is not None:
            target.large[message.bulk] = message
        return frame

    def _sent(self, message: Message) -> None:
        target = message.target
        if target is not None and target.large[message.bulk] is message:
            target.large[message.bulk] = None
        message.state = SENT
        message.large = None
        if not message.asks:
            message.end()

    def _free_slot(self) -> Optional[int]:
        if self._slots:
            return self._slots.pop()
        used = len(self._generations)
        most = min(self._limits.in_flight if self._limits else 0, 1 << 24)
        # Every slot that was ever used is either in `_slots` or has a call, so this one is new.
        return used if used < most else None

    # What comes back.

    def on_resolved(self, number: int, value: Dict[str, Any]) -> None:
        """RESOLVED."""
        target = self._resolving(number)
        pair(value.get("incarnation"), "incarnation")
        names = value.get("messages")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Violation(Violation.PROTOCOL, "messages is not an array of strings")
        credit = pair(value.get("credit"), "credit")
        target.state = OPEN
        target.numbers = {name: n for n, name in reversed(list(enumerate(names[:65_536])))}
        target.messages, target.bytes = credit
        waiters, target.waiters = target.waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)
        self._lanes.wake()

    def on_unresolved(self, number: int, reason: Any) -> None:
        """UNRESOLVED: never sent, whatever the code says."""
        target = self._resolving(number)
        target.state = IDLE
        self._by_number[number] = None
        heapq.heappush(self._free, number)
        self._fail(target, errors.from_failure(reason, Outcome.NEVER_SENT))
        self._forget(target)

    def _resolving(self, number: int) -> Target:
        target = self._by_number.get(number)
        if target is None or target.state != RESOLVING:
            raise Violation(Violation.PROTOCOL, f"an answer for target {number}, which waits for none")
        return target

    def on_gone(self, number: int) -> None:
        """GONE: a pinned ref has nothing more to send to, a name is resolved again."""
        if number not in self._by_number:
            raise Violation(Violation.PROTOCOL, f"target {number} was never resolved")
        target = self._by_number[number]
        if target is None or target.state != OPEN:
            return  # it is about a former use of the number
        self._by_number[number] = None
        target.state = IDLE
        for under_way in list(target.large):
            if under_way is not None:  # the endpoint that began to get it does not see it
                self._take_back(under_way)
                under_way.end(errors.EndpointStopped("the endpoint has stopped"))
        self._give_up(number)
        if target.pin is not None:
            self._fail(target, errors.EndpointStopped("the endpoint has stopped"))
        self._want(target)
        self._forget(target)

    def release(self, name: str, pin: Optional["Pin"]) -> None:
        """Tells the peer that the endpoint is not needed, if nothing waits to be sent to it."""
        target = self._targets.get((name, pin))
        if target is None or target.state != OPEN or target.wanted or any(target.large):
            return
        target.state = IDLE
        self._by_number[target.number] = None
        self._give_up(target.number)
        self._forget(target)

    def _give_up(self, number: int) -> None:
        # Behind all that was written with the number, and the drops of large bodies.
        self._lanes.control(frames.RELEASE, frames.TARGET.pack(number))
        heapq.heappush(self._free, number)

    def _forget(self, target: Target) -> None:
        """Nothing is kept of what nobody wants and the peer does not have."""
        if target.state == IDLE and not target.wanted:
            self._targets.pop((target.name, target.pin), None)

    def on_credit(self, number: int, messages: int, size: int) -> None:
        """CREDIT."""
        if number not in self._by_number:
            raise Violation(Violation.PROTOCOL, f"credit for target {number}, which was never resolved")
        target = self._by_number[number]
        if target is None or target.state != OPEN:
            return
        target.messages += messages
        target.bytes += size
        self._lanes.wake()

    def expects(self, call: int) -> bool:
        """Whether an answer to that call has somebody who waits for it. Raises `Violation` if the
        call was never made."""
        slot, generation = call & 0xFF_FFFF, call >> 24
        if generation > self._generations.get(slot, -1):
            raise Violation(Violation.PROTOCOL, f"an answer to call {call:#x}, which was never made")
        message = self._calls.get(slot)
        return message is not None and message.call == call

    def on_reply(self, call: int, body: bytes) -> None:
        """REPLY, complete."""
        message = self._answered(call)
        if message is None:
            return
        try:
            message.end(value=bodies.unpack(body))
        except bodies.Malformed as error:
            message.end(errors.BadBody(f"the reply cannot be read: {error}", Outcome.FAILED_IN_HANDLER))

    def on_failure(self, call: int, reason: Any) -> None:
        """FAILURE."""
        message = self._answered(call)
        if message is not None:
            message.end(errors.from_failure(reason))

    def _answered(self, call: int) -> Optional[Message]:
        if not self.expects(call):
            return None
        message = self._calls[call & 0xFF_FFFF]
        if message.state == UNDER_WAY:  # answered before all of it was sent
            self._take_back(message)
        else:
            self._release(message)
        return message


def pair(value: Any, what: str) -> Tuple[int, int]:
    """An array of two integers of 64 bits, or `Violation`."""
    sound = isinstance(value, list) and len(value) == 2
    if not sound or not all(type(n) is int and 0 <= n < 1 << 64 for n in value):
        raise Violation(Violation.PROTOCOL, f"{what} is not an array of two integers")
    return value[0], value[1]


def _remaining(deadline: Optional[float]) -> int:
    if deadline is None:
        return DAY_MS
    left = deadline - asyncio.get_running_loop().time()
    return min(max(math.ceil(left * 1000), 0), DAY_MS)


def _like(error: RpcError, outcome: Outcome) -> RpcError:
    if isinstance(error, errors.ConnectionLost):
        return errors.ConnectionLost(error.text, outcome, error.close_code)
    return type(error)(error.text, outcome)
