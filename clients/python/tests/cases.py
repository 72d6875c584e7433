"""Runs async test functions one after the other: a line each, and the exit code of them all."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import sys
import traceback
from typing import Any, Awaitable, Callable, List

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

logging.getLogger("arpc").setLevel(logging.ERROR)  # dropped messages are part of the tests

CASES: List[Callable[..., Awaitable[None]]] = []
SECONDS = 30.0


def case(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Marks a test."""
    CASES.append(function)
    return function


async def _all(arguments: List[Any]) -> int:
    failed = 0
    for function in CASES:
        try:
            await asyncio.wait_for(function(*arguments), SECONDS)
            print("ok", function.__name__, flush=True)
        except BaseException:
            failed += 1
            print("FAILED", function.__name__, flush=True)
            traceback.print_exc()
    return failed


def main(arguments: List[Any]) -> None:
    """Runs all of them."""
    failed = asyncio.run(_all(arguments))
    print(f"{len(CASES) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


async def fails(awaitable: Awaitable[Any], kind: type, outcome: Any) -> Any:
    """The error, which must be of that kind and outcome."""
    try:
        value = await awaitable
    except kind as error:
        assert error.outcome is outcome, f"{error!r}"
        return error
    raise AssertionError(f"it should have failed as {kind.__name__}, and gave {value!r:.100}")
