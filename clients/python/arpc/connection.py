"""One connection: the socket, the hello, who reads and who writes, and the end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from . import bodies, errors, frames
from .assembly import Assembly
from .callee import Callee
from .caller import Caller
from .errors import Outcome, RpcError, Violation
from .frames import Frame
from .hello import MAX_HELLO, Hello
from .lanes import Lanes
from .refs import authority

if TYPE_CHECKING:
    from .env import Env

log = logging.getLogger("arpc")

CONNECT = 10.0
"""Seconds for the transport."""
HANDSHAKE = 5.0
"""Seconds for the hellos."""
FRAME = 30.0
"""Seconds for a frame that has begun."""
STALL = 10.0
"""Seconds that the peer may leave the transport unread."""
SILENCE = 3.0
"""Seconds, and heartbeats of the peer, without a word before it counts as dead."""
LINGER = 2.0
"""Seconds that the peer has to close after a CLOSE."""
BATCH = 65_536


class PeerClosed(Exception):
    """CLOSE came."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Connection:
    """A connection that this side opens. Messages may be submitted from the first moment."""

    def __init__(self, env: "Env", host: str, port: int) -> None:
        self.peer: Optional[Hello] = None
        self.ended = False
        self._env = env
        self._host = host
        self._port = port
        self._work = asyncio.Event()
        self._clock: Optional[asyncio.TimerHandle] = None  # for the hello, then for a frame
        self._beat_clock: Optional[asyncio.TimerHandle] = None
        self._silence_clock: Optional[asyncio.TimerHandle] = None
        self._wrote = False  # since the last look
        self._heard = False
        loop = asyncio.get_running_loop()
        self._stop: "asyncio.Future[None]" = loop.create_future()  # or the violation that ends it
        self._lanes = Lanes(self._work.set)
        self.caller = Caller(self._lanes)
        self._callee = Callee(env, self._lanes, env.limits)
        self._assembly = Assembly(env.limits)
        self._task = loop.create_task(self._run())

    async def close(self) -> None:
        """Says goodbye, closes, and is done when the transport is closed."""
        if not self._stop.done():
            self._stop.set_result(None)
        await asyncio.wait([self._task])

    # The life of it.

    async def _run(self) -> None:
        where = authority(self._host, self._port)
        try:
            opening = asyncio.open_connection(self._host, self._port)
            reader, writer = await asyncio.wait_for(opening, CONNECT)
        except (OSError, asyncio.TimeoutError) as error:
            return self._end(errors.Unreachable(f"cannot connect to {where}: {error or 'timeout'}"))
        lost: RpcError = errors.ConnectionLost(f"the connection to {where} was lost")
        try:
            await self._serve(reader, writer)
            lost = errors.EnvShutDown("this env is shut down")
            await self._say_close(reader, writer, Violation.SHUTDOWN, "the client is done")
        except Violation as violation:
            lost = _lost(self.peer is not None, violation.code, violation.text, None)
            await self._say_close(reader, writer, violation.code, violation.text)
            writer.transport.abort()  # what could not be written by now never will be
        except PeerClosed as closed:
            lost = _lost(self.peer is not None, closed.code, f"{where} closed: {closed.text}", closed.code)
        except (OSError, EOFError) as error:
            log.debug("the connection to %s ended: %r", where, error)
            if self.peer is None:
                lost = errors.Unreachable(f"{where} ended the connection before its hello")
        finally:
            self._end(lost)
            writer.close()

    def _end(self, lost: RpcError) -> None:
        self.ended = True
        self._env.ended(self)
        self._callee.end()
        self.caller.end(lost)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Returns when this side wants to end."""
        hello = Hello(
            self._env.number,
            limits=self._env.limits,
            heartbeat=_millis(self._env.heartbeat),
            dialled=authority(self._host, self._port),
        )
        writer.write(frames.MAGIC + frames.pack(frames.HELLO, hello.pack()))
        loop = asyncio.get_running_loop()
        late = f"the hellos were not through after {HANDSHAKE} s"
        self._clock = loop.call_later(HANDSHAKE, self._too_slow, late)
        tasks = [loop.create_task(self._read(reader)), loop.create_task(self._write(writer))]
        try:
            await asyncio.wait([*tasks, self._stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for clock in (self._clock, self._beat_clock, self._silence_clock):
                if clock is not None:
                    clock.cancel()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        # What was read says more than that writing failed.
        for end in ends:
            if isinstance(end, Exception):
                raise end
        self._stop.result()

    # Liveness.

    def _beat(self, every: float) -> None:
        """Twice in each interval: a heartbeat, if nothing was written in this half."""
        if not self._wrote:
            self._lanes.control(frames.HEARTBEAT, b"")
        self._wrote = False
        loop = asyncio.get_running_loop()
        self._beat_clock = loop.call_later(every / 2, self._beat, every)

    def _listen(self, patience: float, silent: int) -> None:
        """Looks several times within `patience`, so that a busy loop of ours, which wakes up late,
        reads what has come before it decides."""
        silent = 0 if self._heard else silent + 1
        self._heard = False
        if silent > 5:
            return self._too_slow(f"the peer has said nothing for {patience} s")
        loop = asyncio.get_running_loop()
        self._silence_clock = loop.call_later(patience / 5, self._listen, patience, silent)

    def _too_slow(self, text: str) -> None:
        if not self._stop.done():
            self._stop.set_exception(Violation(Violation.TOO_SLOW, text))

    async def _say_close(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, code: int, text: str
    ) -> None:
        """Writes CLOSE and waits until the peer has closed, for unread bytes would make the
        close a reset, which can destroy what is on the way."""
        try:
            if code == Violation.SHUTDOWN and self.peer is not None:
                writer.write(frames.pack(frames.GOODBYE, bodies.pack({"reason": text})))
            writer.write(frames.pack(frames.CLOSE, bodies.pack({"code": code, "text": text})))
            writer.write_eof()
            await asyncio.wait_for(_drain(reader), LINGER)
        except (OSError, asyncio.TimeoutError, RuntimeError):
            pass

    # Writing.

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            size = 0
            # Nothing but our hello goes out before theirs is there.
            while self.peer is not None and size < BATCH:
                frame = self._lanes.next()
                if frame is None:
                    break
                writer.write(frame)
                size += len(frame)
                self._wrote = True
            if size == 0:
                self._work.clear()
                await self._work.wait()
                continue
            stalled = f"the peer has read nothing for {STALL} s"
            clock = loop.call_later(STALL, self._too_slow, stalled)
            try:
                await writer.drain()
            finally:
                clock.cancel()

    # Reading.

    async def _read(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        buffer = frames.Buffer(MAX_HELLO)
        while True:
            data = await reader.read(BATCH)
            if not data:
                raise EOFError("the end of the stream")
            self._heard = True
            buffer.feed(data)
            came = False
            frame = buffer.next()
            while frame is not None:
                came = True
                self._handle(frame)
                if self.peer is not None:
                    buffer.limit = self._env.limits.frame
                frame = buffer.next()
            if self.peer is not None and (came or not buffer.partial):
                if self._clock is not None:
                    self._clock.cancel()
                if buffer.partial:
                    late = f"a frame was not complete after {FRAME} s"
                    self._clock = loop.call_later(FRAME, self._too_slow, late)

    def _handle(self, frame: Frame) -> None:
        if self.peer is None and frame.kind not in (frames.HELLO, frames.CLOSE):
            raise Violation(Violation.PROTOCOL, f"kind {frame.kind:#04x} before the hello")
        if frame.kind >= frames.IGNORABLE:
            return
        _HANDLERS[frame.kind](self, frame)

    def _on_hello(self, frame: Frame) -> None:
        if self.peer is not None:
            raise Violation(Violation.PROTOCOL, "a second hello")
        hello = Hello.unpack(frame.payload)
        if hello.env == self._env.number:
            raise Violation(Violation.HELLO, "the hello makes no sense: it is our own")
        self.peer = hello
        limits = self.peer.limits
        self._lanes.frame_limit = min(limits.frame, 262_144)
        self._lanes.assembly_limit = limits.assembly
        self._callee.greeted(limits)
        self.caller.greeted(limits)
        self._env.greeted(self)
        self._work.set()
        if self._env.heartbeat is not None:
            self._beat(self._env.heartbeat)
        if self.peer.heartbeat is not None:
            self._listen(max(SILENCE * self.peer.heartbeat / 1000, SILENCE), 0)

    def _on_message(self, frame: Frame) -> None:
        """ONE_WAY, ASK or REPLY: fields, then the body or its first part."""
        fields = _Fields(frame.payload)
        stream = total = 0
        if frame.flags & frames.FIRST:
            stream, total = fields.take(frames.FIRST_PART)
        done = self._receiver(frame, fields)
        body = fields.rest()
        if frame.flags & frames.FIRST:
            self._assembly.begin(stream, total, body, frame.flags & frames.BULK, done)
        elif len(body) > self._env.limits.message:
            text = f"a body of {len(body)} bytes, the limit is {self._env.limits.message}"
            raise Violation(Violation.TOO_LARGE, text)
        elif done is not None:
            done(body)

    def _receiver(self, frame: Frame, fields: "_Fields") -> Optional[Callable[[bytes], None]]:
        if frame.kind == frames.REPLY:
            (call,) = fields.take(frames.CALL)
            if not self.caller.expects(call):
                return None
            return lambda body: self.caller.on_reply(call, body)
        call, remaining = 0, 0
        if frame.kind == frames.ONE_WAY:
            (target,) = fields.take(frames.TARGET)
        else:
            call, target, remaining = fields.take(frames.ASK)
        name = fields.name() if frame.flags & frames.NAMED else None
        if frame.kind == frames.ONE_WAY:
            return self._callee.one_way(target, name, frame.message)
        return self._callee.ask(target, call, remaining, name, frame.message)

    def _on_chunk(self, frame: Frame) -> None:
        fields = _Fields(frame.payload)
        (stream,) = fields.take(frames.TARGET)
        self._assembly.add(stream, fields.rest(), frame.flags & frames.BULK)

    def _on_chunk_drop(self, frame: Frame) -> None:
        self._assembly.drop(*frames.TARGET.unpack(frame.payload))

    def _on_failure(self, frame: Frame) -> None:
        fields = _Fields(frame.payload)
        (call,) = fields.take(frames.CALL)
        self.caller.on_failure(call, _lenient(fields.rest()))

    def _on_cancel(self, frame: Frame) -> None:
        self._callee.on_cancel(*frames.CALL.unpack(frame.payload))

    def _on_resolve(self, frame: Frame) -> None:
        fields = _Fields(frame.payload)
        (target,) = fields.take(frames.TARGET)
        self._callee.on_resolve(target, _strict(fields.rest()))

    def _on_resolved(self, frame: Frame) -> None:
        fields = _Fields(frame.payload)
        (target,) = fields.take(frames.TARGET)
        self.caller.on_resolved(target, _strict(fields.rest()))

    def _on_unresolved(self, frame: Frame) -> None:
        fields = _Fields(frame.payload)
        (target,) = fields.take(frames.TARGET)
        self.caller.on_unresolved(target, _lenient(fields.rest()))

    def _on_gone(self, frame: Frame) -> None:
        self.caller.on_gone(*frames.TARGET.unpack(frame.payload))

    def _on_release(self, frame: Frame) -> None:
        self._callee.on_release(*frames.TARGET.unpack(frame.payload))

    def _on_credit(self, frame: Frame) -> None:
        self.caller.on_credit(*frames.CREDIT.unpack(frame.payload))

    def _on_ping(self, frame: Frame) -> None:
        self._lanes.control(frames.PONG, frame.payload)

    def _on_pong(self, frame: Frame) -> None:
        """We send no pings, and an answer too many does no harm."""

    def _on_heartbeat(self, frame: Frame) -> None:
        """That it came is all."""

    def _on_goodbye(self, frame: Frame) -> None:
        log.info("goodbye from %s: %s", self._host, _strict(frame.payload).get("reason"))
        self.caller.leaving = True
        self._env.forget(self)

    def _on_close(self, frame: Frame) -> None:
        raise _closed(frame.payload)


# Every kind that `frames` lets through.
_HANDLERS: Dict[int, Callable[[Connection, Frame], None]] = {
    frames.HELLO: Connection._on_hello,
    frames.RESOLVE: Connection._on_resolve,
    frames.RESOLVED: Connection._on_resolved,
    frames.UNRESOLVED: Connection._on_unresolved,
    frames.GONE: Connection._on_gone,
    frames.RELEASE: Connection._on_release,
    frames.ONE_WAY: Connection._on_message,
    frames.ASK_KIND: Connection._on_message,
    frames.REPLY: Connection._on_message,
    frames.FAILURE: Connection._on_failure,
    frames.CANCEL: Connection._on_cancel,
    frames.CHUNK: Connection._on_chunk,
    frames.CHUNK_DROP: Connection._on_chunk_drop,
    frames.CREDIT_KIND: Connection._on_credit,
    frames.PING: Connection._on_ping,
    frames.PONG: Connection._on_pong,
    frames.HEARTBEAT: Connection._on_heartbeat,
    frames.GOODBYE: Connection._on_goodbye,
    frames.CLOSE: Connection._on_close,
}


class _Fields:
    """The fields of a payload, one after the other."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def take(self, form: Any) -> Any:
        end = self._at + form.size
        if end > len(self._payload):
            raise Violation(Violation.PROTOCOL, "a frame ends within its fields")
        values = form.unpack_from(self._payload, self._at)
        self._at = end
        return values

    def name(self) -> str:
        at = self._at
        end = at + 1 + (self._payload[at] if at < len(self._payload) else 0)
        if end > len(self._payload):
            raise Violation(Violation.PROTOCOL, "a frame ends within the name of its message")
        self._at = end
        try:
            return self._payload[at + 1 : end].decode()
        except UnicodeDecodeError:
            raise Violation(Violation.PROTOCOL, "the name of a message is not UTF-8") from None

    def rest(self) -> bytes:
        return self._payload[self._at :]


def _strict(payload: bytes) -> Dict[str, Any]:
    try:
        return bodies.unpack_map(payload)
    except bodies.Malformed as error:
        raise Violation(Violation.PROTOCOL, f"the map of a frame: {error}") from error


def _lenient(payload: bytes) -> Dict[str, Any]:
    try:
        return bodies.unpack_map(payload)
    except bodies.Malformed:
        return {}


def _closed(payload: bytes) -> PeerClosed:
    reason = _lenient(payload)
    code, text = reason.get("code"), reason.get("text")
    return PeerClosed(code if type(code) is int else 0, text if isinstance(text, str) else "")


def _millis(seconds: Optional[float]) -> Optional[int]:
    return None if seconds is None else max(round(seconds * 1000), 1)


def _lost(greeted: bool, code: int, text: str, close_code: Optional[int]) -> RpcError:
    if code == Violation.VERSION:
        return errors.NoCommonVersion(text)
    if not greeted:
        return errors.Unreachable(text)
    return errors.ConnectionLost(text, Outcome.UNKNOWN, close_code)


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass
