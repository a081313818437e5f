"""What an error may hold. The canaries are module constants, because a test's own local variables would be a leak."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import TYPE_CHECKING, Any

from servetel_async import ServetelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

TOKEN = "canary-token-5f1d7c0b9a3e"
"""The token of every client in these tests."""


async def failure_of(work: Awaitable[object]) -> Any:
    """The ServetelError that this work ends in."""
    try:
        value = await work
    except ServetelError as error:
        return error
    raise AssertionError(f"no error, but {type(value).__name__}")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all errors in its causes, contexts and groups."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]


def shown(error: BaseException) -> dict[str, str]:
    """Every form in which an error reaches a log, a tracker or a queue."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return {
        "str": str(error),
        "repr": repr(error),
        "args": repr(error.args),
        "vars": repr(vars(error)),
        "pickle": pickle.dumps(error).decode("latin-1"),
        "copy": repr(vars(copy.copy(error))),
        "traceback": "".join(traceback.format_exception(error)),
        "traceback with locals": "".join(told.format()),
    }


def assert_clean(error: BaseException, *canaries: str) -> None:
    """The error has no foreign cause, it pickles, and it shows no canary."""
    for link in chain(error):
        home = type(link).__module__.partition(".")[0]
        assert home in ("servetel_async", "builtins", "asyncio"), f"{type(link)!r} hangs on {type(error).__name__}"
        for value in (*link.args, *vars(link).values()):
            assert value is None or isinstance(value, str | int | float | bool), f"{type(value)!r} in {type(link)!r}"
    for form, text in shown(error).items():
        for canary in (TOKEN, *canaries):
            assert canary not in text, f"{canary[:12]}... in the {form} of {type(error).__name__}"
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)
