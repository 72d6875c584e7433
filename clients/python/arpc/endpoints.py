"""Endpoints of this side: what users write, and the queue in front of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Deque, Dict, List, Optional, TypeVar

from . import bodies, errors
from .errors import Outcome, RpcError
from .refs import Ref, unref

if TYPE_CHECKING:
    from .env import Env

log = logging.getLogger("arpc")
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])


def receive(name: str) -> Callable[[Handler], Handler]:
    """Marks the handler of a one-way message: `async def f(self, body, cx)`."""
    return _mark(name, False)


def receive_and_reply(name: str) -> Callable[[Handler], Handler]:
    """Marks the handler of an ask; what it returns is the reply, what it raises is the failure."""
    return _mark(name, True)


def _mark(name: str, replies: bool) -> Callable[[Handler], Handler]:
    def mark(function: Handler) -> Handler:
        function._arpc = (name, replies)  # type: ignore[attr-defined]
        return function

    return mark


class Context:
    """What a handler is told beside the message."""

    def __init__(self, env: "Env", cell: "Cell", item: "Item") -> None:
        self.env = env
        self.cancelled = item.cancelled
        """Set when the caller does not wait any more, its connection has ended, or the time is over."""
        self._cell = cell
        self._item = item

    def self_ref(self) -> Ref:
        """A ref to this life of the endpoint."""
        return self._cell.ref()

    def remaining(self) -> Optional[float]:
        """Seconds that the caller still waits, none for a one-way message."""
        if self._item.deadline is None:
            return None
        return max(self._item.deadline - asyncio.get_running_loop().time(), 0.0)


class Item:
    """A message in the queue of an endpoint.

    `taken` is called when it leaves the queue; `answer` once, for an ask that is not cancelled,
    with a body or an error.
    """

    def __init__(
        self,
        name: str,
        body: bytes,
        deadline: Optional[float],
        taken: Callable[[], None],
        answer: Optional[Callable[[Optional[bytes], Optional[RpcError]], None]],
    ) -> None:
        self.name = name
        self.body = body
        self.deadline = deadline
        self.taken = taken
        self.answer = answer
        self.cancelled = asyncio.Event()

    def fail(self, error: RpcError) -> None:
        """Answers with a failure, if anybody waits."""
        if self.answer is None:
            log.warning("dropped the message %s: %r", self.name, error)
        elif not self.cancelled.is_set():
            self.answer(None, error)


class Cell:
    """An endpoint, its number, its queue. One message at a time, in order."""

    def __init__(self, env: "Env", name: str, number: int, endpoint: Any) -> None:
        self.env = env
        self.name = name
        self.number = number
        self.handlers: Dict[str, Callable[..., Awaitable[Any]]] = {}
        self.replies: Dict[str, bool] = {}
        for attribute in dir(type(endpoint)):
            mark = getattr(getattr(type(endpoint), attribute), "_arpc", None)
            if mark is not None:
                self.handlers[mark[0]] = getattr(endpoint, attribute)
                self.replies[mark[0]] = mark[1]
        self.granted = [0, 0]  # messages and bytes of all windows
        self.gone: List[Callable[[], None]] = []
        self.stopped = False
        self._queue: Deque[Item] = deque()
        self._more = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def names(self) -> List[str]:
        """The messages that it takes, in the order of their numbers."""
        return list(self.handlers)

    @property
    def waiting(self) -> int:
        """Messages in its queue."""
        return len(self._queue)

    def ref(self) -> Ref:
        """A ref to this life."""
        pin = [self.env.number, self.number]
        return Ref(self.env, {"at": f"rpc-client://{self.name}@{self.env.number:016x}", "pin": pin})

    def deliver(self, item: Item) -> None:
        """Puts a message into the queue."""
        if self.stopped:
            item.taken()
            return item.fail(errors.EndpointStopped(f"{self.name} has stopped"))
        self._queue.append(item)
        self._more.set()

    def stop(self) -> None:
        """Ends it: what is queued fails, and its callers hear that it is gone."""
        self.stopped = True
        gone, self.gone = self.gone, []
        for tell in gone:
            tell()
        while self._queue:
            item = self._queue.popleft()
            item.taken()
            item.fail(errors.EndpointStopped(f"{self.name} has stopped"))
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            while self._queue:
                item = self._queue.popleft()
                item.taken()
                if not item.cancelled.is_set():
                    await self._handle(item)
            self._more.clear()
            await self._more.wait()

    async def _handle(self, item: Item) -> None:
        loop = asyncio.get_running_loop()
        if item.deadline is not None and loop.time() >= item.deadline:
            text = f"{item.name} waited too long"
            return item.fail(errors.DeadlineExceeded(text, Outcome.NEVER_SENT))
        asks = item.answer is not None
        if self.replies.get(item.name) is not asks:
            text = f"{self.name} has no handler for the {'ask' if asks else 'message'} {item.name}"
            return item.fail(errors.Unsupported(text))
        try:
            body = bodies.unpack(item.body)
        except bodies.Malformed as error:
            text = f"{item.name} cannot be read: {error}"
            return item.fail(errors.BadBody(text, Outcome.NEVER_SENT))
        timer = None
        if item.deadline is not None:
            timer = loop.call_at(item.deadline, item.cancelled.set)
        try:
            reply = await self.handlers[item.name](body, Context(self.env, self, item))
        except asyncio.CancelledError:
            item.fail(errors.EndpointStopped(f"{self.name} has stopped", Outcome.UNKNOWN))
            raise
        except Exception as error:
            item.fail(errors.HandlerFailed(str(error) or type(error).__name__))
        else:
            self._answer(item, reply)
        finally:
            if timer is not None:
                timer.cancel()

    def _answer(self, item: Item, reply: Any) -> None:
        if item.answer is None or item.cancelled.is_set():
            return
        try:
            body = bodies.pack(reply, unref)
        except Exception as error:
            return item.fail(errors.BadReply(f"the reply to {item.name} cannot be written: {error}"))
        item.answer(body, None)
