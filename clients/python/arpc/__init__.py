"""A peer for the RPC protocol of docs/WIRE.md: asks and sends, and is called back.

    async with arpc.Env() as env:
        greeter = await env.resolve("rpc://greeter@127.0.0.1:7077")
        print(await greeter.ask("Greet", {"name": "Ada"}))
"""

from .endpoints import Context, receive, receive_and_reply
from .env import Env
from .errors import (
    AskCycle,
    BadBody,
    BadReply,
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    EndpointStopped,
    EnvShutDown,
    ForeignRef,
    HandlerFailed,
    HandlerPanicked,
    NoCommonVersion,
    NoReply,
    NoSuchEndpoint,
    Outcome,
    Overloaded,
    ProtocolBroken,
    RpcError,
    SecurityRequired,
    TooLarge,
    Unreachable,
    Unsupported,
)
from .hello import Limits
from .refs import Ref

__all__ = [
    "AskCycle",
    "BadBody",
    "BadReply",
    "Cancelled",
    "ConnectionLost",
    "Context",
    "DeadlineExceeded",
    "EndpointStopped",
    "Env",
    "EnvShutDown",
    "ForeignRef",
    "HandlerFailed",
    "HandlerPanicked",
    "Limits",
    "NoCommonVersion",
    "NoReply",
    "NoSuchEndpoint",
    "Outcome",
    "Overloaded",
    "ProtocolBroken",
    "Ref",
    "RpcError",
    "SecurityRequired",
    "TooLarge",
    "Unreachable",
    "Unsupported",
    "receive",
    "receive_and_reply",
]
