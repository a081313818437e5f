"""The tree of errors: each class pickles, copies, says what, why and fix, and holds no object of another library."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import re

import pytest

import servetel_async
from servetel_async import errors
from servetel_async.errors import ConfigurationError, RateLimitError, ServetelError, TLSError
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.verdict import Fault, Unacceptable, judge, judge_fault

TREE = sorted(
    (kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, ServetelError)),
    key=lambda kind: kind.__name__,
)
STATE = {
    "why": "the reason",
    "fix": "do this",
    "attempts": 3,
    "stopped_by": "deadline",
    "page": 7,
    "status": 503,
    "checkpoint": "servetel-1|x",
}
RETRYABLE = {
    "ConnectionFailedError", "CountDriftError", "DeadlineExceededError", "OutputLockedError", "OutputUnavailableError", "OverloadedError", "RateLimitError",
    "RequestTimeoutError", "ServerError",
}  # fmt: skip


#: Attributes that only one kind of error has.
OWN = {
    "OverloadedError": {"retry_after": 4.5, "waited_for": "rate"},
    "RateLimitError": {"retry_after": 4.5},
}


def make(kind):
    return kind("it happened", **STATE, **OWN.get(kind.__name__, {}))


each = pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)


@each
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_pickles(kind, protocol):
    """Every protocol keeps the class, the message and all attributes, also those set afterwards."""
    error = make(kind)
    error.attempts = 9
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert (vars(again), again.args, str(again)) == (vars(error), error.args, str(error))
    assert vars(again) == STATE | {"what": "it happened", "attempts": 9, "__notes__": ["a note"]} | OWN.get(
        kind.__name__, {}
    )


@each
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy], ids=lambda way: way.__name__)
def test_an_error_copies(kind, way):
    """A copy is equal and shares no state: changing it leaves the original alone."""
    error = make(kind)
    again = way(error)
    assert (type(again), vars(again), again.args, str(again)) == (kind, vars(error), error.args, str(error))
    again.page = 8
    assert error.page == 7


@each
def test_an_error_reads_as_what_why_and_fix(kind):
    """Three parts, three sentences: what happened, where and how often; why; what to do."""
    assert str(make(kind)) == "Page 7: it happened (after 3 attempts, stopped by deadline). The reason. Do this."
    assert str(kind("it happened")) == "It happened."
    assert "\n" not in str(make(kind))


@each
def test_whether_trying_again_may_help(kind):
    """``retryable`` is True only for failures that pass by themselves."""
    assert kind("x").retryable is (kind.__name__ in RETRYABLE)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("it happened.",), "It happened."),
        (("did it happen?",), "Did it happen?"),
        (("from_date is odd",), "from_date is odd."),
        (("Retry(base=) is odd",), "Retry(base=) is odd."),
        (("config.toml is odd",), "config.toml is odd."),
        (("",), ""),
        (("x", "y"), "X. Y."),
    ],
    ids=range(7),
)
def test_sentences(values, text):
    """The first letter is made large unless the first word is a name; the sentence ends in one full stop."""
    assert str(ServetelError(values[0], why=values[1] if len(values) > 1 else "")) == text


def test_an_end_without_a_reason_does_not_speak_of_none():
    """Without a known cause, the text does not say "stopped by None"."""
    assert str(ServetelError("it failed", attempts=3)) == "It failed (after 3 attempts)."


def test_one_attempt_is_not_counted():
    """The text does not mention a single attempt."""
    assert str(ServetelError("it failed", attempts=1, stopped_by="final")) == "It failed."


def test_the_callers_mistake_is_a_value_error():
    """``except ValueError`` catches the caller's mistakes, and no other error."""
    assert [kind for kind in TREE if issubclass(kind, ValueError)] == [ConfigurationError]


def test_the_branches():
    """Caught together: TLS with connections, body size with malformed replies, drift and filters with paging."""
    parents = {
        kind.__name__: kind.__base__.__name__
        for kind in TREE
        if kind.__base__ is not ServetelError and kind is not ServetelError
    }
    assert parents == {
        "TLSError": "ConnectionFailedError",
        "BodyTooLargeError": "MalformedResponseError",
        "CountDriftError": "PagingError",
        "OutOfWindowError": "PagingError",
        "OutputLockedError": "OutputError",
        "OutputUnavailableError": "OutputError",
        "ResumeMismatchError": "OutputError",
    }
    assert not TLSError("x").retryable


def test_the_diagram_draws_the_tree():
    """The docstring's drawing has every class once, beneath its parent."""
    drawn, above = {}, {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ([│ ]*)(?:[├└]── )?([A-Z]\w+Error)\b", line)
        if found:
            depth = 0 if "──" not in line else len(found[1]) // 4 + 1
            above[depth] = found[2]
            assert found[2] not in drawn
            drawn[found[2]] = above.get(depth - 1)
    assert drawn == {kind.__name__: None if kind is ServetelError else kind.__base__.__name__ for kind in TREE}


@each
def test_every_class_says_what_it_is_for(kind):
    """Each class has its own docstring, which ends in a full stop."""
    assert kind.__dict__["__doc__"].strip()


def test_the_public_names_agree():
    """``__all__`` is sorted, without doubles, and contains every error; each name can be imported."""
    names = servetel_async.__all__
    assert len(set(names)) == len(names)
    assert {kind.__name__ for kind in TREE} <= set(names)
    plain = [name for name in names if not name.startswith("__") and not name.isupper()]
    assert plain == sorted(plain)


@pytest.mark.parametrize("name", servetel_async.__all__)
def test_a_public_name_can_be_imported(name):
    """Each listed name exists."""
    assert getattr(servetel_async, name) is not None


def test_nothing_public_is_unlisted():
    """Besides the listed names the package shows only its own subpackages."""
    shown = {name for name in vars(servetel_async) if not name.startswith("_")}
    rooms = {name for name in shown if inspect.ismodule(getattr(servetel_async, name))}
    assert shown - rooms - {"TYPE_CHECKING", "Any", "import_module"} <= set(servetel_async.__all__)
    assert set(servetel_async.__all__) <= set(dir(servetel_async))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = servetel_async.no_such_name


FOREIGN = ("aiohttp", "msgspec", "yarl", "multidict", "ssl")


def errors_of_the_pure_part():
    for status in range(201, 600):
        yield judge(Reply(status, b'{"success":false,"message":"no"}', {"retry-after": "5"}), 0.0).error
    for fault in Fault:
        yield judge_fault(fault).error
    deep = b"[" * 100_000
    for body in (
        b"",
        b"<html>",
        b"{}",
        b'{"results":',
        b"\xff",
        b'{"results":5}',
        b'{"success":false}',
        b'{"results":[NaN',
        deep,
    ):
        try:
            PageReader().read(Reply(200, body), 0.0)
        except Unacceptable as refusal:
            yield refusal.verdict.error
    page = PageReader().read(Reply(200, b'{"results":[5]}'), 0.0)
    try:
        list(page.slices())
    except ServetelError as error:
        yield error


def test_no_error_holds_anything_foreign():
    """F7, F12: no error holds an object of aiohttp, msgspec or ssl, not even as its cause; all errors pickle."""
    seen = set()
    for error in errors_of_the_pure_part():
        seen.add(type(error))
        held = [*vars(error).values(), *error.args, error.__cause__]
        assert not [value for value in held if type(value).__module__.partition(".")[0] in FOREIGN]
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert not [name for name in FOREIGN if name in str(error)]
    assert len(seen) >= 10


def test_an_error_crosses_a_task():
    """An error raised in one task and caught in another keeps its details."""

    async def fail():
        raise make(RateLimitError)

    with pytest.raises(RateLimitError) as caught:
        asyncio.run(fail())
    assert (caught.value.retry_after, caught.value.page) == (4.5, 7)
