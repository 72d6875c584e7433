"""Cases without a server: the bytes of docs/WIRE.md, and a server that is played by the test."""

from __future__ import annotations

import asyncio
import pathlib
import random
import re
import struct
import sys
from typing import Any, Awaitable, Callable, Dict, List, Optional, Tuple

from cases import case, fails, main

import arpc
from arpc import Outcome, bodies, connection, frames, hello
from arpc.errors import Violation, code_of, from_failure
from arpc.refs import Address

WIRE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "WIRE.md"


def golden() -> Dict[str, bytes]:
    """The hex blocks of the page."""
    blocks = re.findall(r"```hex name=([a-z0-9-]+)\n(.*?)```", WIRE.read_text("utf-8"), re.S)
    found: Dict[str, bytes] = {}
    for name, text in blocks:
        data = b""
        for line in text.splitlines():
            for word in line.split("#")[0].split():
                # "61 x5" is the byte 61, five times.
                data += data[-1:] * (int(word[1:]) - 1) if word.startswith("x") else bytes.fromhex(word)
        found[name] = data
    return found


def _kind_and_flags(data: bytes) -> Tuple[int, int]:
    at = 8 if data.startswith(frames.MAGIC) else 4
    return data[at], data[at + 1]


def frames_of(data: bytes) -> List[frames.Frame]:
    buffer = frames.Buffer(1 << 20)
    buffer.feed(data if data.startswith(frames.MAGIC) else frames.MAGIC + data)
    found = []
    while True:
        frame = buffer.next()
        if frame is None:
            assert not buffer.partial, "bytes are left"
            return found
        found.append(frame)


# ---- a server that says what a test wants


class Peer:
    """The other end of the client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, kind: int, payload: bytes, flags: int = 0, message: int = 0) -> None:
        self.writer.write(frames.pack(kind, payload, flags, message))

    async def hear(self, *kinds: int) -> frames.Frame:
        """The next frame, heartbeats aside, which must be of one of those kinds."""
        while True:
            head = await self.reader.readexactly(8)
            length, kind, flags, message = frames.HEADER.unpack(head)
            frame = frames.Frame(kind, flags, message, await self.reader.readexactly(length))
            if kind != frames.HEARTBEAT:
                assert not kinds or kind in kinds, f"{frame}"
                return frame

    async def hear_hello(self) -> hello.Hello:
        assert await self.reader.readexactly(4) == frames.MAGIC
        return hello.Hello.unpack((await self.hear(frames.HELLO)).payload)

    async def greet(self, **keys: Any) -> hello.Hello:
        theirs = await self.hear_hello()
        value = {"versions": [1, 1], "env": 7, **keys}
        self.writer.write(frames.MAGIC)
        self.say(frames.HELLO, bodies.pack(value))
        return theirs

    async def resolve(self, messages: int = 10, size: int = 1 << 20) -> Dict[str, Any]:
        """Answers a RESOLVE with that window."""
        frame = await self.hear(frames.RESOLVE)
        value = {"incarnation": [7, 1], "messages": ["Echo"], "credit": [messages, size]}
        self.say(frames.RESOLVED, frame.payload[:4] + bodies.pack(value))
        return bodies.unpack_map(frame.payload[4:])

    async def ask(self) -> Tuple[int, Any]:
        """The next ask: its call and its body."""
        frame = await self.hear(frames.ASK_KIND)
        assert (frame.flags, frame.message) == (0, 0)
        return frames.ASK.unpack_from(frame.payload)[0], bodies.unpack(frame.payload[16:])

    def reply(self, call: int, value: Any) -> None:
        self.say(frames.REPLY, frames.CALL.pack(call) + bodies.pack(value))

    async def hear_close(self, code: int, text: str) -> None:
        while True:
            frame = await self.hear()
            if frame.kind == frames.CLOSE:
                reason = bodies.unpack_map(frame.payload)
                assert reason["code"] == code, reason
                assert text in reason["text"], reason
                assert await self.reader.read() == b"", "nothing follows a CLOSE"
                return


class Played:
    """A listener whose one connection runs `part`, and an env with a ref to it."""

    def __init__(
        self, part: Callable[[Peer], Awaitable[None]], env: Optional[arpc.Env] = None
    ) -> None:
        self.part = part
        self.env = env or arpc.Env()
        self.done: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.part(Peer(reader, writer))
        except BaseException as error:
            if not self.done.done():
                self.done.set_exception(error)
        else:
            if not self.done.done():
                self.done.set_result(None)
        finally:
            writer.close()

    async def __aenter__(self) -> arpc.Ref:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        return self.env.ref(f"rpc://echo@127.0.0.1:{port}")

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        await self.env.close()
        self.server.close()
        if kind is None:
            await self.done


async def refuses(bytes_of: Callable[[Peer], None], code: int, text: str) -> None:
    """The client closes with that reason when it gets these bytes behind a resolved target and an
    open ask, and the ask ends as unknown."""

    async def part(peer: Peer) -> None:
        await peer.greet()
        await peer.resolve()
        await peer.ask()
        bytes_of(peer)
        await peer.hear_close(code, text)

    async with Played(part) as ref:
        error = await fails(ref.ask("Echo", 1), arpc.ConnectionLost, Outcome.UNKNOWN)
        assert text in error.text, error


# ---- the page


@case
async def the_frames_of_the_page() -> None:
    for name, data in golden().items():
        kind, flags = _kind_and_flags(data)
        ending = kind == frames.GONE and len(data) > frames.HEADER.size + frames.TARGET.size
        if flags & frames.HEADERS or 0x40 <= kind < 0x50 or ending:
            continue  # of a capability that we do not have
        found = frames_of(data)
        assert len(found) == 1, name
        frame = found[0]
        if frame.kind < frames.IGNORABLE:
            again = frames.pack(frame.kind, frame.payload, frame.flags, frame.message)
            assert data in (again, frames.MAGIC + again), name


@case
async def the_hellos_of_the_page() -> None:
    blocks = golden()
    said = bodies.unpack_map(frames_of(blocks["hello-client"])[0].payload)
    ours = bodies.unpack_map(hello.Hello(0x1122334455667788).pack())
    ours["capabilities"] = said["capabilities"]  # the page's client may have more than we do
    assert ours == {**said, "limits": ours["limits"]}
    assert ours["limits"].items() >= said["limits"].items()
    server = hello.Hello.unpack(frames_of(blocks["hello-server"])[0].payload)
    assert server.address == "10.0.0.7:7077"
    assert server.heartbeat == 1000


@case
async def the_ask_of_the_page() -> None:
    # The client writes, byte for byte, what the page has.
    blocks = golden()

    async def part(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.hear(frames.RESOLVE)
        assert frames.pack(*frame[:1], frame.payload) == blocks["resolve"]
        peer.writer.write(blocks["resolved"])
        frame = await peer.hear(frames.ONE_WAY)
        assert frames.pack(frame.kind, frame.payload, frame.flags, frame.message) == blocks["one-way-number"]
        frame = await peer.hear(frames.ASK_KIND)
        left = struct.pack(">I", 10_000)
        payload = frame.payload[:12] + left + frame.payload[16:]
        assert frames.ASK.unpack_from(frame.payload)[2] <= 10_000
        assert frames.pack(frame.kind, payload, frame.flags, frame.message) == blocks["ask"]
        peer.writer.write(blocks["reply"])
        frame = await peer.hear(frames.ONE_WAY)
        assert frames.pack(frame.kind, frame.payload, frame.flags, frame.message) == blocks["one-way-name"]

    env = arpc.Env()
    env.number = 0x1122334455667788
    async with Played(part, env) as ref:
        master = env.ref({"at": ref.uri.replace("echo", "master")})
        worker = {"at": "rpc-client://worker-7@1122334455667788", "pin": [env.number, 3]}
        await master.send("Heartbeat", {"worker": 7})
        assert await master.ask("RegisterWorker", {"cores": 8, "worker": env.ref(worker)}) == {"id": 7}
        await master.send("Drain", [])


@case
async def the_failures_of_the_page() -> None:
    blocks = golden()
    for name, kind, outcome, text in [
        ("failure", arpc.HandlerFailed, Outcome.FAILED_IN_HANDLER, "no room"),
        ("failure-never-sent", arpc.DeadlineExceeded, Outcome.NEVER_SENT, "too late"),
    ]:
        payload = frames_of(blocks[name])[0].payload[8:]
        error = from_failure(bodies.unpack_map(payload))
        assert (type(error), error.outcome, error.text) == (kind, outcome, text)
        assert bodies.pack({"code": code_of(error), "text": error.text}) == payload
    for code, outcome in [(99, Outcome.UNKNOWN), (1099, Outcome.NEVER_SENT), (9004, Outcome.UNKNOWN)]:
        error = from_failure({"code": code})
        assert error.outcome is outcome, code
    assert type(from_failure({"code": 99})) is arpc.RpcError
    assert type(from_failure({"code": "x", "text": 7})) is arpc.RpcError


@case
async def uris() -> None:
    assert Address.parse("rpc://a@h:1") == ("a", "h", 1, None)
    assert Address.parse("rpc://a@[::1]:65535") == ("a", "::1", 65535, None)
    assert Address.parse("rpc-client://a@00000000000000ff") == ("a", None, 0, 255)
    for bad in [
        "rpc://a@h:65536", "rpc://a@h", "rpc://@h:1", "rpc://a b@h:1", "rpc://a@h:1/x", "rpc://a@::1:1",
        "rpc-client://a@ff", "rpc-client://a@00000000000000ff0", "http://a@h:1", "rpc://" + "a" * 256 + "@h:1", "",
    ]:
        try:
            Address.parse(bad)
        except ValueError:
            continue
        raise AssertionError(bad)


@case
async def a_ref_keeps_what_it_does_not_know() -> None:
    async with arpc.Env() as env:
        value = {"at": "rpc://a@h:1", "pin": [1, 2], "relay": "rpc://x@y:2"}
        assert bodies.unpack(bodies.pack([env.ref(value)], arpc.refs.unref)) == [value]
        for bad in [{}, {"at": 1}, {"at": "rpc://a@h:1", "pin": [1]}, {"at": "rpc://a@h:1", "pin": [1, -2]}, 5]:
            try:
                env.ref(bad)
            except ValueError:
                continue
            raise AssertionError(bad)


# ---- bodies


@case
async def bodies_that_are_refused() -> None:
    for bad in [
        b"", b"\x01\x01", b"\xc1", b"\x91", b"\x92\x01", b"\x81\x01", b"\xa2a", b"\xdb\xff\xff\xff\xffa",
        b"\xdd\xff\xff\xff\xff\x01", b"\xdf\xff\xff\xff\xff\x01", b"\xcf\x01", b"\xd4\x01\x02", b"\xc7\x00\x01",
        b"\x91" * 65 + b"\x01", b"\xa1\xff", b"\x81\x90\x01", b"\xdd\x00\x10\x00\x01" + b"\x01" * 0x100001,
    ]:
        try:
            bodies.unpack(bad)
        except bodies.Malformed:
            continue
        raise AssertionError(bad[:20].hex())
    bodies.unpack(b"\x91" * 64 + b"\x01")
    bodies.unpack(b"\xdd\x00\x10\x00\x00" + b"\x01" * 0x100000)
    for good in [None, True, 0, -1, 1 << 63, 1.5, "a" * 70_000, b"b" * 300, [[]] * 20, {str(n): n for n in range(99)}]:
        assert bodies.unpack(bodies.pack(good)) == good


# ---- the hello


@case
async def hellos_that_make_no_sense() -> None:
    for keys, code, text in [
        ({"versions": [2, 3]}, Violation.VERSION, "no common version"),
        ({"versions": [0, 0]}, Violation.VERSION, "no common version"),
        ({"versions": [1]}, Violation.HELLO, "versions"),
        ({"versions": [3, 1]}, Violation.VERSION, "no common version"),
        ({"versions": [1, 1 << 16]}, Violation.HELLO, "versions"),
        ({"heartbeat": -1}, Violation.HELLO, "heartbeat"),
        ({"env": -1}, Violation.HELLO, "env"),
        ({"limits": {"frame": 1000}}, Violation.HELLO, "limits.frame"),
        ({"limits": {"in_flight": 0}}, Violation.HELLO, "in_flight"),
        ({"capabilities": "x"}, Violation.HELLO, "capabilities"),
    ]:

        async def part(peer: Peer) -> None:
            await peer.greet(**keys)
            await peer.hear_close(code, text)

        async with Played(part) as ref:
            kind = arpc.NoCommonVersion if code == Violation.VERSION else arpc.Unreachable
            await fails(ref.ask("Echo", 1), kind, Outcome.NEVER_SENT)


@case
async def hellos_of_the_future() -> None:
    # Other versions beside ours, capabilities and keys that nobody knows, kinds to skip.
    for versions in ([1, 9], [0, 1]):

        async def part(peer: Peer) -> None:
            assert (await peer.hear_hello()).versions == (1, 1)
            value = {"versions": versions, "env": 7, "capabilities": ["telepathy"], "mood": {"a": [1]}}
            peer.writer.write(frames.MAGIC)
            peer.say(frames.HELLO, bodies.pack({**value, "limits": {"patience": 5}}))
            peer.say(0x80, b"")
            peer.say(0xFE, b"skip me", flags=0xFF, message=9)
            await peer.resolve()
            call, value = await peer.ask()
            peer.reply(call, value)

        async with Played(part) as ref:
            assert await ref.ask("Echo", "x") == "x"


@case
async def a_server_that_says_something_before_its_hello() -> None:
    for kind in (frames.PING, 0x80):

        async def part(peer: Peer) -> None:
            await peer.hear_hello()
            peer.writer.write(frames.MAGIC)
            peer.say(kind, bytes(8))
            await peer.hear_close(Violation.PROTOCOL, "before the hello")

        async with Played(part) as ref:
            await fails(ref.ask("Echo", 1), arpc.Unreachable, Outcome.NEVER_SENT)


@case
async def a_server_that_is_ourselves() -> None:
    env = arpc.Env()

    async def part(peer: Peer) -> None:
        await peer.greet(env=env.number)
        await peer.hear_close(Violation.HELLO, "our own")

    async with Played(part, env) as ref:
        await fails(ref.ask("Echo", 1), arpc.Unreachable, Outcome.NEVER_SENT)


@case
async def a_reply_that_cannot_be_read() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet()
        await peer.resolve()
        call, _ = await peer.ask()
        peer.say(frames.REPLY, frames.CALL.pack(call) + b"\xc1")
        call, value = await peer.ask()
        peer.reply(call, value)

    async with Played(part) as ref:
        await fails(ref.ask("Echo", 1), arpc.BadBody, Outcome.FAILED_IN_HANDLER)
        assert await ref.ask("Echo", 2) == 2


@case
async def a_server_that_closes_at_once() -> None:
    async def part(peer: Peer) -> None:
        await peer.hear_hello()
        peer.writer.write(frames.MAGIC)
        peer.say(frames.CLOSE, bodies.pack({"code": 7, "text": "full"}))

    async with Played(part) as ref:
        error = await fails(ref.ask("Echo", 1), arpc.Unreachable, Outcome.NEVER_SENT)
        assert "full" in error.text


@case
async def a_server_of_another_protocol() -> None:
    async def part(peer: Peer) -> None:
        peer.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.reader.read()

    async with Played(part) as ref:
        await fails(ref.ask("Echo", 1), arpc.Unreachable, Outcome.NEVER_SENT)


# ---- what a server must not send


@case
async def frames_that_make_no_sense() -> None:
    table: List[Tuple[int, bytes, int, int, int, str]] = [
        (0x07, b"", 0, 0, 1, "0x07"),
        (0x40, b"", 0, 0, 1, "0x40"),
        (frames.HELLO, bodies.pack({"versions": [1, 1], "env": 1}), 0, 0, 1, "second hello"),
        (frames.PING, b"1234567", 0, 0, 1, "7 bytes"),
        (frames.PING, b"12345678", 0, 1, 1, "message number"),
        (frames.PING, b"12345678", frames.BULK, 0, 1, "flags 0x08"),
        (frames.REPLY, b"12345678", frames.HEADERS, 0, 1, "flags 0x04"),
        (frames.ONE_WAY, b"1234", 0x10, 0, 1, "flags 0x10"),
        (frames.REPLY, frames.CALL.pack(5) + b"\x01", 0, 0, 1, "never made"),
        (frames.FAILURE, frames.CALL.pack(1 << 24) + b"\x80", 0, 0, 1, "never made"),
        (frames.ONE_WAY, frames.TARGET.pack(0) + b"\x01", 0, 0, 1, "never resolved"),
        (frames.ONE_WAY, frames.TARGET.pack(0) + b"\x09a", frames.NAMED, 0, 1, "within the name"),
        (frames.RESOLVE, frames.TARGET.pack(65_536) + bodies.pack({"name": "x"}), 0, 0, 1, "target 65536"),
        (frames.RESOLVE, frames.TARGET.pack(0) + b"\x80", 0, 0, 1, "without a name"),
        (frames.RESOLVED, frames.TARGET.pack(0) + b"\x80", 0, 0, 1, "waits for none"),
        (frames.GONE, frames.TARGET.pack(9), 0, 0, 1, "never resolved"),
        (frames.CREDIT_KIND, frames.CREDIT.pack(9, 1, 1), 0, 0, 1, "never resolved"),
        (frames.CHUNK, frames.TARGET.pack(3) + b"x", 0, 0, 1, "not open"),
        (frames.GOODBYE, b"\xc1", 0, 0, 1, "the map"),
        (frames.REPLY, frames.FIRST_PART.pack(1, 1 << 30) + frames.CALL.pack(0), frames.FIRST, 0, 3, "the limit"),
        (frames.REPLY, frames.FIRST_PART.pack(1, 1) + frames.CALL.pack(0) + b"ab", frames.FIRST, 0, 1, "more than"),
    ]
    for kind, payload, flags, message, code, text in table:
        await refuses(lambda peer: peer.say(kind, payload, flags, message), code, text)
    await refuses(lambda peer: peer.writer.write(b"\xff\xff\xff\xff\x12\0\0\0"), 3, "a frame of")


@case
async def the_order_of_chunks() -> None:
    first = frames.FIRST_PART.pack(1, 9) + frames.CALL.pack(0) + b"\xa8hel"

    def chunk(peer: Peer, flags: int = 0, stream: int = 1) -> None:
        peer.say(frames.CHUNK, frames.TARGET.pack(stream) + b"lo", flags)

    def twice(peer: Peer) -> None:
        peer.say(frames.REPLY, first, frames.FIRST)
        peer.say(frames.REPLY, first, frames.FIRST)

    def bulk(peer: Peer) -> None:
        peer.say(frames.REPLY, first, frames.FIRST)
        chunk(peer, frames.BULK)

    def dropped(peer: Peer) -> None:
        peer.say(frames.REPLY, first, frames.FIRST)
        peer.say(frames.CHUNK_DROP, frames.TARGET.pack(1))
        chunk(peer)

    def many(peer: Peer) -> None:
        for stream in range(257):
            peer.say(frames.REPLY, frames.TARGET.pack(stream) + first[4:], frames.FIRST)

    await refuses(twice, 1, "in use")
    await refuses(bulk, 1, "another lane")
    await refuses(dropped, 1, "not open")
    await refuses(many, 1, "256 large")


@case
async def asks_that_the_client_refuses() -> None:
    class Echo:
        @arpc.receive_and_reply("Echo")
        async def echo(self, body: Any, cx: arpc.Context) -> Any:
            await cx.cancelled.wait()

    def asked(*calls: int) -> Callable[[Peer], None]:
        def say(peer: Peer) -> None:
            peer.say(frames.RESOLVE, frames.TARGET.pack(0) + bodies.pack({"name": "echo"}))
            for call in calls:
                peer.say(frames.ASK_KIND, frames.ASK.pack(call, 0, 1000) + b"\x01")

        return say

    def overrun(peer: Peer) -> None:
        asked()(peer)
        for _ in range(300):
            peer.say(frames.ONE_WAY, frames.TARGET.pack(0) + b"\x01")

    for bytes_of, code, text in [
        (asked(1, 1), 5, "in use"),
        (asked(1, 1 << 24 | 1), 5, "in use"),
        (asked(1024), 1, "slot 1024"),
        (overrun, 8, "overrun"),
    ]:

        async def part(peer: Peer) -> None:
            await peer.greet()
            await peer.resolve()
            await peer.ask()
            bytes_of(peer)
            await peer.hear_close(code, text)

        env = arpc.Env()
        async with Played(part, env) as ref:
            env.serve("echo", Echo())
            await fails(ref.ask("Echo", 1), arpc.ConnectionLost, Outcome.UNKNOWN)


@case
async def noise() -> None:
    # A sound session of a server with bytes changed, cut out or put in: whatever comes, the ask ends
    # with a reply or an `RpcError`, and no task of the client ends with anything else.
    class Echo:
        @arpc.receive_and_reply("Echo")
        async def echo(self, body: Any, cx: arpc.Context) -> Any:
            return body

    target, call = frames.TARGET.pack(0), frames.CALL.pack(0)
    resolved = {"incarnation": [7, 1], "messages": ["Echo"], "credit": [10, 1000]}
    session = [
        frames.pack(frames.HELLO, bodies.pack({"versions": [1, 1], "env": 7, "limits": {}})),
        frames.pack(frames.RESOLVED, target + bodies.pack(resolved)),
        frames.pack(frames.RESOLVE, target + bodies.pack({"name": "echo"})),
        frames.pack(frames.CREDIT_KIND, frames.CREDIT.pack(0, 1, 2)),
        frames.pack(frames.ASK_KIND, frames.ASK.pack(1, 0, 1000) + b"\x01"),
        frames.pack(frames.ASK_KIND, frames.ASK.pack(2, 0, 1000) + b"\x04Echo\x01", frames.NAMED),
        frames.pack(frames.ONE_WAY, frames.FIRST_PART.pack(1, 4) + target + b"\xa3", frames.FIRST),
        frames.pack(frames.CHUNK, frames.TARGET.pack(1) + b"abc"),
        frames.pack(frames.CANCEL, frames.CALL.pack(1)),
        frames.pack(frames.PING, bytes(8)),
        frames.pack(frames.REPLY, frames.FIRST_PART.pack(2, 4) + call + b"\xa3", frames.FIRST),
        frames.pack(frames.CHUNK, frames.TARGET.pack(2) + b"abc"),
        frames.pack(frames.FAILURE, call + bodies.pack({"code": 14, "text": "no"})),
        frames.pack(frames.GONE, target),
        frames.pack(frames.UNRESOLVED, frames.TARGET.pack(1) + bodies.pack({"code": 3})),
        frames.pack(frames.CLOSE, bodies.pack({"code": 6, "text": "over"})),
    ]
    dice = random.Random(7)
    loop = asyncio.get_running_loop()
    unexpected: List[Any] = []
    loop.set_exception_handler(lambda _, context: unexpected.append(context))
    ends = set()
    for _round in range(300):
        data = bytearray(frames.MAGIC + b"".join(session))
        for _ in range(dice.randrange(4)):
            at = dice.randrange(4, len(data))
            change = dice.randrange(4)
            if change == 0:
                data[at] = dice.randrange(256)
            elif change == 1:
                data[at] ^= 1 << dice.randrange(8)
            elif change == 2:
                del data[at : at + dice.randrange(1, 9)]
            else:
                data[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 9)))
            if len(data) < 8:
                break

        async def part(peer: Peer) -> None:
            begin = 4 + len(session[0]) + len(session[1])
            peer.writer.write(data[:begin])
            try:
                await peer.hear_hello()
                while (await peer.hear()).kind not in (frames.ASK_KIND, frames.CLOSE):
                    pass
                peer.writer.write(data[begin:])
                peer.writer.write_eof()
                await peer.reader.read()
            except (ConnectionError, EOFError):
                pass

        env = arpc.Env()
        env.serve("echo", Echo())
        async with Played(part, env) as ref:
            try:
                await ref.ask("Echo", 1, timeout=0.2)
                ends.add("replied")
            except arpc.RpcError as error:
                ends.add(type(error).__name__)
    loop.set_exception_handler(None)
    assert not unexpected, unexpected[:3]
    assert len(ends) > 3, ends


# ---- what the client must do


@case
async def pings_are_answered_and_heartbeats_sent() -> None:
    async def part(peer: Peer) -> None:
        theirs = await peer.greet()
        assert theirs.heartbeat == 50
        await peer.resolve()
        call, value = await peer.ask()
        token = bytes(range(8))
        peer.say(frames.PING, token)
        assert (await peer.hear(frames.PONG)).payload == token
        for _ in range(3):
            assert await peer.reader.readexactly(8) == golden()["heartbeat"]
        peer.reply(call, value)

    async with Played(part, arpc.Env(heartbeat=0.05)) as ref:
        assert await ref.ask("Echo", 1) == 1


@case
async def a_peer_that_falls_silent() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet(heartbeat=10)
        await peer.resolve()
        await peer.ask()
        await peer.hear_close(Violation.TOO_SLOW, "said nothing")

    silence, connection.SILENCE = connection.SILENCE, 0.2
    try:
        async with Played(part) as ref:
            await fails(ref.ask("Echo", 1), arpc.ConnectionLost, Outcome.UNKNOWN)
    finally:
        connection.SILENCE = silence


@case
async def a_connection_that_is_lost() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet()
        await peer.resolve(messages=1)
        await peer.ask()

    async with Played(part) as ref:
        sent, not_sent = ref.ask("Echo", 1), ref.ask("Echo", 2)
        await fails(sent, arpc.ConnectionLost, Outcome.UNKNOWN)
        await fails(not_sent, arpc.ConnectionLost, Outcome.NEVER_SENT)


@case
async def a_close_says_why() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet()
        await peer.resolve(messages=1)
        await peer.ask()
        peer.say(frames.GOODBYE, bodies.pack({"reason": "shutdown"}))
        peer.say(frames.CLOSE, bodies.pack({"code": 6, "text": "over"}))

    async with Played(part) as ref:
        sent, not_sent = ref.ask("Echo", 1), ref.ask("Echo", 2)
        error = await fails(sent, arpc.ConnectionLost, Outcome.UNKNOWN)
        assert (error.close_code, "over" in error.text) == (6, True)
        await fails(not_sent, arpc.ConnectionLost, Outcome.NEVER_SENT)


@case
async def credit_slots_and_generations() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet(limits={"in_flight": 2})
        await peer.resolve(messages=3, size=10)
        one, _ = await peer.ask()
        two, _ = await peer.ask()
        assert (one, two) == (0, 1)
        # Two slots only: the third waits for an answer, and takes the slot with a new generation.
        peer.say(frames.PING, bytes(8))
        await peer.hear(frames.PONG)
        peer.reply(two, "two")
        three, _ = await peer.ask()
        assert three == 1 << 24 | 1
        # A late answer to a call that is over is no offence. Now the credit is used up.
        peer.reply(two, "late")
        peer.reply(three, "three")
        peer.reply(one, "one")
        peer.say(frames.PING, bytes(8))
        await peer.hear(frames.PONG)
        peer.say(frames.CREDIT_KIND, frames.CREDIT.pack(0, 1, 3))
        four, value = await peer.ask()
        assert value == "x" * 100  # its body may overdraw the bytes
        peer.reply(four, "four")
        peer.say(frames.CREDIT_KIND, frames.CREDIT.pack(0, 1, 90))
        peer.say(frames.PING, bytes(8))
        await peer.hear(frames.PONG)
        peer.say(frames.CREDIT_KIND, frames.CREDIT.pack(0, 0, 100))
        five, _ = await peer.ask()
        peer.reply(five, "five")

    async with Played(part) as ref:
        asks = [ref.ask("Echo", n) for n in (1, 2, 3)] + [ref.ask("Echo", "x" * 100), ref.ask("Echo", 5)]
        assert await asyncio.gather(*asks) == ["one", "two", "three", "four", "five"]


@case
async def gone_with_a_large_message_under_way() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet(limits={"frame": 32_768})
        await peer.resolve()
        frame = await peer.hear(frames.ASK_KIND)
        assert frame.flags == frames.FIRST
        stream = frame.payload[:4]
        peer.say(frames.GONE, frames.TARGET.pack(0))
        while True:
            frame = await peer.hear(frames.CHUNK, frames.CHUNK_DROP)
            assert frame.payload[:4] == stream
            if frame.kind == frames.CHUNK_DROP:
                break
        await peer.hear(frames.CANCEL)
        assert (await peer.hear(frames.RELEASE)).payload == frames.TARGET.pack(0)
        # The number is free, so it comes again; what crossed the release means nothing.
        peer.say(frames.GONE, frames.TARGET.pack(0))
        peer.say(frames.CREDIT_KIND, frames.CREDIT.pack(0, 1, 1))
        assert await peer.resolve() == {"name": "echo"}
        call, value = await peer.ask()
        peer.reply(call, value)

    async with Played(part) as ref:
        large = ref.ask("Echo", "l" * 8_000_000)
        behind = ref.ask("Echo", "to whoever comes next")
        await fails(large, arpc.EndpointStopped, Outcome.NEVER_SENT)
        assert await behind == "to whoever comes next"


@case
async def large_bodies_keep_to_the_room_of_the_peer() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet(limits={"frame": 32_768, "assembly": 100_000})
        for _ in range(3):
            await peer.resolve()
        most, totals = 0, {}
        while not totals or len(totals) < 4:
            frame = await peer.hear(frames.ONE_WAY, frames.CHUNK)
            stream = frames.TARGET.unpack_from(frame.payload)[0]
            if frame.kind == frames.ONE_WAY:
                left = frames.FIRST_PART.unpack_from(frame.payload)[1] - (len(frame.payload) - 16)
                totals[stream] = (left, left + len(frame.payload) - 16)
            else:
                left, total = totals[stream]
                totals[stream] = (left - len(frame.payload) + 4, total)
            most = max(most, sum(total for left, total in totals.values() if left > 0))
        # The one that is larger than the room goes alone.
        assert most == 200_005, most

    async with Played(part) as ref:
        refs = [ref._env.ref(ref.uri.replace("echo", name)) for name in ("a", "b", "c")]
        large = ["x" * 60_000, "x" * 60_000, "x" * 200_000]
        sends = [to.send("Echo", text) for to, text in zip(refs, large)]
        sends.append(refs[0].send("Echo", "y" * 60_000))
        await asyncio.wait(sends)


@case
async def a_target_that_is_released() -> None:
    class Echo:
        @arpc.receive_and_reply("Echo")
        async def echo(self, body: Any, cx: arpc.Context) -> Any:
            return body

    async def part(peer: Peer) -> None:
        await peer.greet()
        await peer.resolve()
        await peer.ask()
        target = frames.TARGET.pack(0)
        for generation in range(2):  # the number may be used again at once
            peer.say(frames.RESOLVE, target + bodies.pack({"name": "echo"}))
            await peer.hear(frames.RESOLVED)
            call = generation << 24
            peer.say(frames.ASK_KIND, frames.ASK.pack(call, 0, 1000) + b"\x07")
            peer.say(frames.RELEASE, target)
            # What was asked before is answered.
            frame = await peer.hear(frames.REPLY, frames.CREDIT_KIND)
            while frame.kind != frames.REPLY:
                frame = await peer.hear(frames.REPLY, frames.CREDIT_KIND)
            assert frame.payload == frames.CALL.pack(call) + b"\x07"
        peer.say(frames.RELEASE, target)
        await peer.hear_close(Violation.PROTOCOL, "never resolved")

    env = arpc.Env()
    async with Played(part, env) as ref:
        env.serve("echo", Echo())
        await fails(ref.ask("Echo", 1), arpc.ConnectionLost, Outcome.UNKNOWN)


@case
async def an_endpoint_that_is_not_needed() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet()
        for _ in range(2):
            assert await peer.resolve() == {"name": "echo"}
            call, value = await peer.ask()
            peer.reply(call, value)
            assert (await peer.hear(frames.RELEASE)).payload == frames.TARGET.pack(0)

    async with Played(part) as ref:
        for value in range(2):
            assert await ref.ask("Echo", value) == value
            ref._env.release(ref)
            ref._env.release(ref)  # once is enough


@case
async def windows_and_targets_have_an_end() -> None:
    class Echo:
        @arpc.receive("Note")
        async def note(self, body: Any, cx: arpc.Context) -> None:
            pass

    async def part(peer: Peer) -> None:
        await peer.greet()
        await peer.resolve()
        await peer.ask()
        granted = []
        for number in range(1025):
            peer.say(frames.RESOLVE, frames.TARGET.pack(number) + bodies.pack({"name": "echo"}))
            frame = await peer.hear(frames.RESOLVED, frames.UNRESOLVED)
            value = bodies.unpack_map(frame.payload[4:])
            if number < 1024:
                granted.append(value["credit"])
            else:
                assert (frame.kind, value["code"]) == (frames.UNRESOLVED, 2)
        # The first gets much, the last the least; and what is released may be had again.
        assert granted[0] == [256, 4_194_304]
        assert granted[-1] == [8, 262_144]
        for number in range(1024):
            peer.say(frames.RELEASE, frames.TARGET.pack(number))
        peer.say(frames.RESOLVE, frames.TARGET.pack(1024) + bodies.pack({"name": "echo"}))
        value = bodies.unpack_map((await peer.hear(frames.RESOLVED)).payload[4:])
        assert value["credit"] == granted[0]

    env = arpc.Env()
    async with Played(part, env) as ref:
        env.serve("echo", Echo())
        await fails(ref.ask("Echo", 1), arpc.ConnectionLost, Outcome.UNKNOWN)


@case
async def a_resolution_that_fails() -> None:
    async def part(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.hear(frames.RESOLVE)
        # Never sent, whatever the code says; and a map that cannot be read is no reason.
        peer.say(frames.UNRESOLVED, frame.payload[:4] + bodies.pack({"code": 3014, "text": "no"}))
        frame = await peer.hear(frames.RESOLVE)
        peer.say(frames.UNRESOLVED, frame.payload[:4] + b"\xc1")

    async with Played(part) as ref:
        await fails(ref.ask("Echo", 1), arpc.HandlerFailed, Outcome.NEVER_SENT)
        await fails(ref.ask("Echo", 1), arpc.RpcError, Outcome.NEVER_SENT)


if __name__ == "__main__":
    main([])
