"""Cases against a real env of the Rust side. Arguments: the addresses of two, one to be shut down.

tests/tests/python_client.rs has the endpoints that they call.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys
from typing import Any, List

from cases import case, fails, main

import arpc
from arpc import Outcome


class Worker:
    """An endpoint of this side, for the server to call."""

    def __init__(self) -> None:
        self.pushed: List[int] = []
        self.journal = 0
        self.cancelled = 0
        self.waiting = asyncio.Event()

    @arpc.receive("Push")
    async def push(self, body: int, cx: arpc.Context) -> None:
        await asyncio.sleep(0)  # a handler may wait: the next message is not begun before
        self.pushed.append(body)

    @arpc.receive("Journal")
    async def on_journal(self, body: Any, cx: arpc.Context) -> None:
        self.journal += len(body["text"])

    @arpc.receive_and_reply("Count")
    async def count(self, body: Any, cx: arpc.Context) -> Any:
        return {"pushed": self.pushed, "journal": self.journal, "cancelled": self.cancelled}

    @arpc.receive_and_reply("Echo")
    async def echo(self, body: Any, cx: arpc.Context) -> Any:
        if body["text"] == "fail":
            raise RuntimeError("not today")
        if body["text"] == "odd reply":
            return object()
        if body["text"] == "wait":
            self.waiting.set()
            assert cx.remaining() is not None
            await cx.cancelled.wait()
            self.cancelled += 1
        if body["text"] == "call back":
            # The caller's own endpoint waits for us, so we ask another one.
            phoenix = cx.env.ref(self.phoenix)
            return await phoenix.ask("Echo", {"text": "from the other side"})
        return body["text"]

    phoenix = ""


def master(env: arpc.Env, address: str, name: str = "master") -> arpc.Ref:
    return env.ref(f"rpc://{name}@{address}")


@case
async def the_readme(address: str, _: str) -> None:
    text = (pathlib.Path(__file__).parents[1] / "README.md").read_text("utf-8")
    program = text.split("```python\n")[1].split("```")[0].replace("127.0.0.1:7077", address)
    # A process of its own, as it would be.
    paths = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-B", "-c", program, stdout=pipe, env=paths)
    said, _none = await child.communicate()
    assert said.decode().split() == ["hello", "HELLO"], said


@case
async def an_ask_and_its_reply(address: str, _: str) -> None:
    async with arpc.Env() as env:
        ref = await env.resolve(f"rpc://master@{address}")
        assert await ref.ask("Echo", {"text": "hello"}) == "hello"


@case
async def a_thousand_asks_at_once(address: str, _: str) -> None:
    # More than there are slots, and each slot is used more than once.
    async with arpc.Env() as env:
        ref = master(env, address)
        for _ in range(2):
            asks = [ref.ask("Echo", {"text": str(n)}) for n in range(2000)]
            assert await asyncio.gather(*asks) == [str(n) for n in range(2000)]


@case
async def messages_in_order_and_beyond_the_window(address: str, _: str) -> None:
    async with arpc.Env() as env:
        control = master(env, address)
        await control.ask("Restart", {"name": "order", "again": True})
        ref = master(env, address, "order")
        sent = [ref.send("Push", n) for n in range(5000)]
        counted = await ref.ask("Count", [])
        assert counted["pushed"] == list(range(5000))
        await asyncio.gather(*sent)


@case
async def large_asks_and_replies(address: str, _: str) -> None:
    async with arpc.Env() as env:
        ref = master(env, address)
        texts = [chr(97 + n) * (1_000_000 * (n + 1)) for n in range(3)]
        large = [ref.ask("Echo", {"text": text}) for text in texts]
        small = master(env, address, "phoenix").ask("Echo", {"text": "small"})
        assert await small == "small"
        assert await asyncio.gather(*large) == texts


@case
async def a_body_of_just_a_frame_and_around(address: str, _: str) -> None:
    async with arpc.Env() as env:
        ref = master(env, address)
        for size in range(262_144 - 40, 262_144 + 40):
            assert len(await ref.ask("Echo", {"text": "x" * size})) == size


@case
async def the_bulk_lane(address: str, _: str) -> None:
    async with arpc.Env() as env:
        control = master(env, address)
        await control.ask("Restart", {"name": "bulk", "again": True})
        ref = master(env, address, "bulk")
        bulk = [ref.send("Journal", {"text": "a" * 300_000}, bulk=True) for _ in range(20)]
        pushes = [ref.send("Push", n) for n in range(20)]
        await asyncio.gather(*bulk, *pushes)
        while True:
            counted = await ref.ask("Count", [])
            if counted["journal"] == 20 * 300_000:
                break
        assert counted["pushed"] == list(range(20))


@case
async def a_message_that_is_too_large(address: str, _: str) -> None:
    async with arpc.Env() as env:
        ref = master(env, address)
        ask = ref.ask("Echo", {"text": "x" * 17_000_000})
        await fails(ask, arpc.TooLarge, Outcome.NEVER_SENT)
        assert await ref.ask("Echo", {"text": "fine"}) == "fine"
    async with arpc.Env(arpc.Limits(message=100_000)) as env:
        ref = master(env, address)
        error = await fails(ref.ask("Echo", {"text": "x" * 200_000}), arpc.RpcError, Outcome.FAILED_IN_HANDLER)
        assert isinstance(error, arpc.TooLarge), error
        assert await ref.ask("Echo", {"text": "fine"}) == "fine"


@case
async def small_frames(address: str, _: str) -> None:
    # The least that a side may take: the server keeps to it, its large replies come in parts.
    async with arpc.Env(arpc.Limits(frame=32_768)) as env:
        ref = master(env, address)
        text = "y" * 1_000_000
        assert await ref.ask("Echo", {"text": text}) == text


@case
async def the_compact_form(address: str, _: str) -> None:
    async with arpc.Env() as env:
        ref = master(env, address)
        assert await ref.ask("Sum", [3, 4]) == 7
        assert await ref.ask("Sum", {"left": 3, "right": 5}) == 8


@case
async def failures_in_the_handler(address: str, _: str) -> None:
    async with arpc.Env() as env:
        ref = master(env, address)
        error = await fails(ref.ask("Fail", {"how": "error"}), arpc.HandlerFailed, Outcome.FAILED_IN_HANDLER)
        assert error.text == "no room"
        error = await fails(ref.ask("Fail", {"how": "panic"}), arpc.HandlerPanicked, Outcome.FAILED_IN_HANDLER)
        assert "on purpose" in error.text
        await fails(ref.ask("Fail", {"how": "silent"}), arpc.NoReply, Outcome.FAILED_IN_HANDLER)
        assert await ref.ask("Fail", {"how": "not"}) is None


@case
async def failures_that_no_handler_saw(address: str, _: str) -> None:
    async with arpc.Env() as env:
        nobody = env.resolve(f"rpc://nobody@{address}")
        await fails(nobody, arpc.NoSuchEndpoint, Outcome.NEVER_SENT)
        nobody = master(env, address, "nobody").ask("Echo", {"text": "x"})
        await fails(nobody, arpc.NoSuchEndpoint, Outcome.NEVER_SENT)
        ref = master(env, address)
        await fails(ref.ask("Unheard", {}), arpc.Unsupported, Outcome.NEVER_SENT)
        await fails(ref.ask("Push", 1), arpc.Unsupported, Outcome.NEVER_SENT)  # it is one way
        await ref.send("Echo", {"text": "an ask"})  # dropped, and nobody tells us
        await fails(ref.ask("Echo", {"texts": 1}), arpc.BadBody, Outcome.NEVER_SENT)
        deep: Any = 1
        for _ in range(100):
            deep = [deep]
        await fails(ref.ask("Echo", {"text": deep}), arpc.BadBody, Outcome.NEVER_SENT)
        assert await ref.ask("Echo", {"text": "fine"}) == "fine"
        with_port_0 = env.ref("rpc://x@127.0.0.1:1").ask("Echo", {"text": "x"})
        await fails(with_port_0, arpc.Unreachable, Outcome.NEVER_SENT)


@case
async def deadlines_and_cancel(address: str, _: str) -> None:
    async with arpc.Env() as env:
        control = master(env, address)
        await control.ask("Restart", {"name": "hold", "again": True})
        ref = master(env, address, "hold")
        assert (await ref.ask("Count", []))["cancelled"] == 0
        await fails(ref.ask("Hold", [], timeout=0.3), arpc.DeadlineExceeded, Outcome.UNKNOWN)
        ask = ref.ask("Hold", [])
        assert (await ref.ask("Count", []))["cancelled"] == 1
        ask.cancel()
        assert (await ref.ask("Count", []))["cancelled"] == 2
        # What was not sent is taken back without a word.
        late = ref.ask("Hold", [], timeout=0)
        await fails(late, arpc.DeadlineExceeded, Outcome.NEVER_SENT)
        back = ref.ask("Hold", [])
        back.cancel()
        assert (await ref.ask("Count", []))["cancelled"] == 2


@case
async def a_large_ask_that_is_taken_back(address: str, _: str) -> None:
    async with arpc.Env() as env:
        ref = master(env, address)
        assert await ref.ask("Echo", {"text": ""}) == ""
        for _ in range(50):
            ask = ref.ask("Echo", {"text": "z" * 3_000_000})
            await asyncio.sleep(0)  # the writer begins it
            await asyncio.sleep(0)
            ask.cancel()
        assert await ref.ask("Echo", {"text": "fine"}) == "fine"


@case
async def an_endpoint_that_ends_and_comes_again(address: str, _: str) -> None:
    async with arpc.Env() as env:
        control = master(env, address)
        phoenix = await env.resolve(f"rpc://phoenix@{address}")
        pinned = env.ref(await phoenix.ask("WhoAreYou", []))
        assert pinned.pin is not None
        assert await pinned.ask("Echo", {"text": "first"}) == "first"
        await phoenix.send("Push", 1)
        await control.ask("Restart", {"name": "phoenix", "again": True})
        # The name finds the next life, which knows nothing; the pinned ref has nobody.
        assert (await phoenix.ask("Count", []))["pushed"] == []
        await fails(pinned.ask("Echo", {"text": "x"}), arpc.EndpointStopped, Outcome.NEVER_SENT)
        await control.ask("Restart", {"name": "phoenix", "again": False})
        await fails(phoenix.ask("Echo", {"text": "x"}), arpc.NoSuchEndpoint, Outcome.NEVER_SENT)
        await control.ask("Restart", {"name": "phoenix", "again": True})
        assert await phoenix.ask("Echo", {"text": "again"}) == "again"


@case
async def called_back(address: str, _: str) -> None:
    async with arpc.Env() as env:
        worker = Worker()
        ref = env.serve("worker", worker)
        there = master(env, address)

        def call(text: str, millis: int = 10_000) -> Any:
            return there.ask("CallMe", {"worker": ref, "text": text, "millis": millis})

        assert await call("hello") == "hello"
        assert await call("fail") == "HandlerFailed FailedInHandler not today"
        assert (await call("odd reply")).startswith("Encode FailedInHandler")
        assert len(await call("l" * 2_000_000)) == 2_000_000
        worker.phoenix = f"rpc://phoenix@{address}"
        assert await call("call back") == "from the other side"


@case
async def called_back_and_cancelled(address: str, _: str) -> None:
    async with arpc.Env() as env:
        worker = Worker()
        ref = env.serve("worker", worker)
        there = master(env, address)
        body = {"worker": ref, "text": "hello", "millis": 5000}
        assert await there.ask("CallMe", body) == "hello"  # it is resolved now
        answer = await there.ask("CallMe", {**body, "text": "wait", "millis": 300})
        assert answer.startswith("Timeout Unknown"), answer
        # The endpoint is free again, and knows.
        counted = await there.ask("Flood", {"worker": ref, "count": 0, "journal": 0})
        assert counted["cancelled"] == 1


@case
async def called_back_in_order(address: str, _: str) -> None:
    # Far more than one window of ours, so that credit must be given.
    async with arpc.Env() as env:
        worker = Worker()
        ref = env.serve("worker", worker)
        there = master(env, address)
        counted = await there.ask("Flood", {"worker": ref, "count": 3000, "journal": 700_000})
        assert counted["pushed"] == list(range(3000))


@case
async def refs_of_ours_that_end(address: str, _: str) -> None:
    async with arpc.Env() as env:
        old = env.serve("worker", Worker())
        there = master(env, address)
        body = {"worker": old, "text": "hello", "millis": 5000}
        assert await there.ask("CallMe", body) == "hello"
        env.stop("worker")
        assert (await there.ask("CallMe", body)).startswith("EndpointStopped NeverSent")
        new = env.serve("worker", Worker())
        assert (await there.ask("CallMe", body)).startswith("EndpointStopped NeverSent")
        assert await there.ask("CallMe", {**body, "worker": new}) == "hello"
        by_name = {"at": new.uri}
        assert await there.ask("CallMe", {**body, "worker": by_name}) == "hello"
        nobody = {"at": new.uri.replace("worker", "nobody")}
        answer = await there.ask("CallMe", {**body, "worker": nobody})
        assert answer.startswith("EndpointNotFound NeverSent"), answer


@case
async def refs_are_passed_on(address: str, _: str) -> None:
    async with arpc.Env() as env:
        there = master(env, address)
        phoenix = env.ref(await master(env, address, "phoenix").ask("WhoAreYou", []))
        # A ref that came from there goes back there, and leads to the same endpoint.
        body = {"worker": phoenix, "text": "by way of you", "millis": 5000}
        assert await there.ask("CallMe", body) == "by way of you"
        # And one of our own, called from here.
        own = env.serve("own", Worker())
        assert await own.ask("Echo", {"text": "at home"}) == "at home"
        await fails(own.ask("Echo", {"text": "fail"}), arpc.HandlerFailed, Outcome.FAILED_IN_HANDLER)


@case
async def two_servers(address: str, other: str) -> None:
    async with arpc.Env() as env:
        here = master(env, address)
        ref = env.ref(await master(env, other).ask("WhoAreYou", []))
        body = {"worker": ref, "text": "from one to the other", "millis": 5000}
        assert await here.ask("CallMe", body) == "from one to the other"


@case
async def a_server_that_shuts_down(_: str, address: str) -> None:
    async with arpc.Env() as env:
        ref = master(env, address)
        held = ref.ask("Hold", [])
        assert (await ref.ask("Count", []))["pushed"] == []
        await ref.send("ShutDown", [])
        # The endpoint ends with the call in its hands.
        await fails(held, arpc.NoReply, Outcome.FAILED_IN_HANDLER)
        while True:  # the connection may live a little longer than the endpoint
            try:
                await ref.ask("Echo", {"text": "x"})
            except arpc.Unreachable as error:
                assert error.outcome is Outcome.NEVER_SENT
                break
            except arpc.RpcError as error:
                assert error.outcome is not Outcome.FAILED_IN_HANDLER, error


if __name__ == "__main__":
    main(sys.argv[1:])
