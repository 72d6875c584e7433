"""What can go wrong, and what is then known about the handler."""

from __future__ import annotations

import enum
from typing import Any, Dict, Optional, Type


class Outcome(enum.Enum):
    """What the caller knows about the handler of a message that failed."""

    NEVER_SENT = "never sent"
    """No handler has seen the message: it may be sent again."""
    UNKNOWN = "unknown"
    """A handler may have run: send again only what may be handled twice."""
    FAILED_IN_HANDLER = "failed in the handler"
    """A handler took the message and failed."""


class RpcError(Exception):
    """A message that failed. `code` is that of the wire, 0 for what it has no word for."""

    code = 0
    usual = Outcome.UNKNOWN

    def __init__(self, text: str = "", outcome: Optional[Outcome] = None) -> None:
        super().__init__(text)
        self.text = text
        self.outcome = self.usual if outcome is None else outcome

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r}, {self.outcome.value})"


class DeadlineExceeded(RpcError):
    """The time was over."""

    code = 1


class Overloaded(RpcError):
    """There was no room, here or there."""

    code, usual = 2, Outcome.NEVER_SENT


class NoSuchEndpoint(RpcError):
    """Nobody has that name."""

    code, usual = 3, Outcome.NEVER_SENT


class EndpointStopped(RpcError):
    """The endpoint, or the life of it that was meant, has ended."""

    code, usual = 4, Outcome.NEVER_SENT


class EnvShutDown(RpcError):
    """The env is shut down."""

    code, usual = 5, Outcome.NEVER_SENT


class Unsupported(RpcError):
    """The endpoint has no handler for the message."""

    code, usual = 6, Outcome.NEVER_SENT


class BadBody(RpcError):
    """A body could not be read."""

    code = 7


class BadReply(RpcError):
    """A reply could not be written."""

    code, usual = 8, Outcome.FAILED_IN_HANDLER


class TooLarge(RpcError):
    """A message or a reply is too large."""

    code = 9


class ConnectionLost(RpcError):
    """The connection ended. `close_code` is the reason that the peer gave, if it gave one."""

    code = 10

    def __init__(
        self, text: str = "", outcome: Optional[Outcome] = None, close_code: Optional[int] = None
    ) -> None:
        super().__init__(text, outcome)
        self.close_code = close_code


class Unreachable(RpcError):
    """There is no way to the peer."""

    code, usual = 11, Outcome.NEVER_SENT


class NoCommonVersion(RpcError):
    """The peer speaks other versions of the protocol."""

    code, usual = 12, Outcome.NEVER_SENT


class ProtocolBroken(RpcError):
    """One of the two sides broke the protocol."""

    code = 13


class HandlerFailed(RpcError):
    """The handler ended with an error; the text is its own."""

    code, usual = 14, Outcome.FAILED_IN_HANDLER


class HandlerPanicked(RpcError):
    """The handler panicked."""

    code, usual = 15, Outcome.FAILED_IN_HANDLER


class NoReply(RpcError):
    """The handler ended without an answer."""

    code, usual = 16, Outcome.FAILED_IN_HANDLER


class Cancelled(RpcError):
    """The call was cancelled."""

    code = 17


class AskCycle(RpcError):
    """The ask would wait for itself."""

    code, usual = 18, Outcome.NEVER_SENT


class ForeignRef(RpcError):
    """A ref does not belong to what it was used for."""

    code, usual = 19, Outcome.NEVER_SENT


class SecurityRequired(RpcError):
    """Security is required and missing."""

    code, usual = 20, Outcome.NEVER_SENT


_BY_CODE: Dict[int, Type[RpcError]] = {kind.code: kind for kind in RpcError.__subclasses__()}

_BY_THOUSANDS = {
    1: Outcome.NEVER_SENT,
    2: Outcome.UNKNOWN,
    3: Outcome.FAILED_IN_HANDLER,
}


def from_failure(reason: Any, outcome: Optional[Outcome] = None) -> RpcError:
    """The error for the map of a FAILURE or an UNRESOLVED. What makes no sense is a failure
    without a reason. A given `outcome` goes before that of the code."""
    code = reason.get("code") if isinstance(reason, dict) else None
    text = reason.get("text") if isinstance(reason, dict) else None
    if not isinstance(code, int) or isinstance(code, bool) or code < 0:
        code = 0
    if not isinstance(text, str):
        text = ""
    thousands, kind = divmod(code, 1000)
    error = _BY_CODE.get(kind, RpcError)
    if outcome is None and thousands != 0:
        outcome = _BY_THOUSANDS.get(thousands, Outcome.UNKNOWN)
    return error(text, outcome)


def code_of(error: RpcError) -> int:
    """The number that says this error, its outcome included."""
    if error.outcome is error.usual:
        return error.code
    thousands = {outcome: number for number, outcome in _BY_THOUSANDS.items()}
    return thousands[error.outcome] * 1000 + error.code


class Violation(Exception):
    """The peer broke the protocol: the connection ends with this code of CLOSE."""

    PROTOCOL = 1
    VERSION = 2
    TOO_LARGE = 3
    HELLO = 4
    CALL_IN_USE = 5
    SHUTDOWN = 6
    TOO_MANY = 7
    WINDOW = 8
    TOO_SLOW = 9

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
