"""Mistakes of a caller: they are refused before a request is sent, with the fix, and without an echo of a secret."""

from __future__ import annotations

import datetime as dt
import inspect

import pytest

from servetel_async import (
    CallQuery,
    ConfigurationError,
    RateLimit,
    ResumeMismatchError,
    Retry,
    ServetelClient,
    Timeouts,
)
from tests.transport.leaks import TOKEN, assert_clean

NAIVE = dt.datetime(2024, 5, 1, 9, 30)  # noqa: DTZ001 - that is the mistake
NAN, INFINITY = float("nan"), float("inf")
MARK = CallQuery(from_date="2024-05-01", to_date="2024-05-31").fingerprint()
MAY = {"from_date": "2024-05-01", "to_date": "2024-05-31"}

RANGES = {
    "naive from": ({"from_date": NAIVE}, "IST"),
    "naive to": ({"to_date": NAIVE}, "IST"),
    "reversed": ({"from_date": "2024-05-02", "to_date": "2024-05-01"}, "swap"),
    "reversed by a second": ({"from_date": "2024-05-01 00:00:01", "to_date": "2024-05-01 00:00:00"}, "swap"),
    "reversed, mixed": ({"from_date": dt.date(2024, 5, 2), "to_date": dt.datetime(2024, 5, 1, tzinfo=dt.UTC)}, "swap"),
    "no such day": ({"from_date": "2024-02-30"}, "2024-05-01"),
    "american": ({"from_date": "05/01/2024"}, "2024-05-01"),
    "iso": ({"from_date": "2024-05-01T00:00:00Z"}, "2024-05-01"),
    "empty": ({"from_date": ""}, "2024-05-01"),
    "epoch": ({"from_date": 1714521600}, "datetime"),
    "tuple": ({"from_date": (2024, 5, 1)}, "datetime"),
}

FILTERS = {
    "direction": ({"direction": "sideways"}, "inbound"),
    "direction, type": ({"direction": 1}, "inbound"),
    "call_type": ({"call_type": "x"}, "answered"),
    "unknown": ({"start_date": "2024-05-01"}, "from_date"),
    "misspelt": ({"caller_id": "x"}, "callerid"),
    "callerid, int": ({"callerid": 910000012345}, "text"),
    "callerid, empty": ({"callerid": " "}, "text"),
    "callerid, line": ({"callerid": "1\r\n2"}, "text"),
    "callerid, surrogate": ({"callerid": "\ud800"}, "text"),
    "agents, none": ({"agents": []}, "leave"),
    "agents, one empty": ({"agents": ["1", ""]}, "text"),
    "agents, int": ({"agents": 5}, "text"),
    "agents, of another kind": ({"agents": ["department|7"]}, "agent"),
    "duration, plain": ({"duration": "60"}, ">="),
    "duration, equal": ({"duration": "=60"}, ">="),
    "duration, negative": ({"duration": ">-1"}, ">="),
    "duration, int": ({"duration": 60}, ">="),
    "broadcast, int": ({"broadcast": 1}, "text"),
    "call_id, none of text": ({"call_id": 1714657799.11930963}, "text"),
}

QUESTIONS = {
    "page_size 0": {"page_size": 0},
    "page_size -1": {"page_size": -1},
    "page_size text": {"page_size": "100"},
    "page_size float": {"page_size": 1.5},
    "page_size True": {"page_size": True},
    "max_records 0": {"max_records": 0},
    "max_records -5": {"max_records": -5},
    "max_records float": {"max_records": 2.0},
    "deadline 0": {"deadline": 0},
    "deadline -1": {"deadline": -1},
    "deadline nan": {"deadline": NAN},
    "deadline inf": {"deadline": INFINITY},
    "deadline text": {"deadline": "x"},
    "start text": {"start": "garbage"},
    "start empty": {"start": ""},
    "start int": {"start": 7},
    "start without fields": {"start": "servetel-2|"},
    "start negative": {"start": f'servetel-2|{MARK}|2024-05-31 23:59:59|[-1,"",["x"]]'},
    "start zero": {"start": f'servetel-2|{MARK}|2024-05-31 23:59:59|[0,"",["x"]]'},
    "start digits": {"start": f'servetel-2|{MARK}|2024-05-31 23:59:59|[\u00b2,"",["x"]]'},
    "start float": {"start": f'servetel-2|{MARK}|2024-05-31 23:59:59|[1.5,"",["x"]]'},
    "start unordered": {"start": f'servetel-2|{MARK}|2024-05-31 23:59:59|[9,"",["x"]]', "ordered": False},
    "query of another kind": {"query": {"from_date": "2024-05-01"}},
}

CLIENTS = {
    "max_concurrency 0": ({"max_concurrency": 0}, "max_concurrency"),
    "max_concurrency text": ({"max_concurrency": "4"}, "max_concurrency"),
    "max_concurrency None": ({"max_concurrency": None}, "max_concurrency"),
    "page_size 0": ({"page_size": 0}, "page_size"),
    "zone text": ({"zone": "Asia/Kolkata"}, "IST"),
    "zone None": ({"zone": None}, "IST"),
    "zone class": ({"zone": dt.timezone}, "IST"),
    "array_style": ({"array_style": "php"}, "brackets"),
    "array_style None": ({"array_style": None}, "brackets"),
    "array_style list": ({"array_style": ["brackets"]}, "brackets"),
    "rate text": ({"rate": "fast"}, "number"),
    "rate negative": ({"rate": -1}, "number"),
    "rate nan": ({"rate": NAN}, "number"),
    "retry number": ({"retry": 3}, "Retry"),
    "retry None": ({"retry": None}, "Retry"),
    "timeouts number": ({"timeouts": 30}, "Timeouts"),
    "timeouts None": ({"timeouts": None}, "Timeouts"),
    "session text": ({"session": "https://api.servetel.in"}, "ClientSession"),
    "on_event text": ({"on_event": "print"}, "on_event"),
    "brand": ({"base_url": None, "brand": "airtel"}, "smartflo"),
    "brand and base_url": ({"brand": "smartflo"}, "one of them"),
    "token and login": ({"email": "a@example.com", "password": "canary-password"}, "token="),
    "token and e-mail": ({"email": "a@example.com"}, "token="),
    "e-mail alone": ({"token": None, "email": "a@example.com"}, "half a login"),
    "password alone": ({"token": None, "password": "canary-password"}, "half a login"),
    "e-mail that is none": (
        {"token": None, "email": "canary-person", "password": "canary-password"},
        "no text with an @",
    ),
    "password empty": ({"token": None, "email": "a@example.com", "password": ""}, "password of the login is empty"),
    "password bytes": ({"token": None, "email": "a@example.com", "password": b"canary-password"}, "is of type bytes"),
    "nothing": ({"token": None}, "SERVETEL_TOKEN"),
}

TOKENS = {
    "spaces": "canary secret token",
    "stars": "canary**********",
    "bullets": "canary\u2022\u2022\u2022\u2022\u2022\u2022",
    "cr lf": "canary-token\r\nX-Evil: 1",
    "line end inside": "canary-token\n-1234",
    "tab": "canary\ttoken-1234",
    "nul": "canary-token\x00-1234",
    "letters": "canary-t\u0105ken-1234",
    "devanagari": "canary-\u091f\u094b\u0915\u0928",
    "short": "canary",
    "empty": "",
    "bearer alone": "Bearer ",
    "bytes": b"canary-token-1234",
    "number": 1234567890123,
}

URLS = {
    "no scheme": "api.servetel.in",
    "no host": "https://",
    "other scheme": "ftp://api.servetel.in",
    "file": "file:///etc/passwd",
    "user info": "https://canary-user:canary-password@api.servetel.in",
    "user alone": "https://canary-user@api.servetel.in",
    "plain http": "http://api.servetel.in",
    "plain http to a private host": "http://10.0.0.1",
    "plain http to a lookalike": "http://localhost.evil.example",
    "plain http to a number": "http://2130706434",
    "query": "https://api.servetel.in?token=canary",
    "fragment": "https://api.servetel.in#canary",
    "blank": "https://api.servetel.in /",
    "line": "https://api.servetel.in\r\nX-Evil: 1",
    "port": "https://api.servetel.in:port",
    "port too large": "https://api.servetel.in:99999",
    "not ascii": "https://\u0430pi.servetel.in",
    "bytes": b"https://api.servetel.in",
    "broken": "https://[::1",
    "empty": "",
}


def refused(error: BaseException, hint: str | None = None) -> None:
    assert type(error) is ConfigurationError
    assert isinstance(error, ValueError)
    assert error.attempts == 0
    assert error.fix or hint is None
    if hint is not None:
        assert hint.lower() in str(error).lower(), str(error)
    assert_clean(error, "canary")


@pytest.mark.parametrize("method", ["calls", "count"])
@pytest.mark.parametrize("case", RANGES | FILTERS)
async def test_a_question_the_api_would_misread_is_refused(case, method, serve, connect):
    """A range or a filter that the API would ignore or misread is refused, in any method, and nothing is sent."""
    server = await serve()
    wrong, hint = (RANGES | FILTERS)[case]

    with pytest.raises(ConfigurationError) as caught:
        outcome = getattr(connect(server), method)(**wrong)
        if inspect.isawaitable(outcome):
            await outcome

    refused(caught.value, hint)
    assert server.connections == 0


@pytest.mark.parametrize("case", RANGES | FILTERS)
def test_a_query_refuses_what_the_client_would(case):
    """A query is checked when it is made; only a mixed pair has to wait for the account's zone."""
    wrong, hint = (RANGES | FILTERS)[case]
    if case in ("unknown", "misspelt"):
        with pytest.raises(TypeError):
            CallQuery(**wrong)
        with pytest.raises(ConfigurationError):
            CallQuery().replace(**wrong)
        return
    if case == "reversed, mixed":
        return
    with pytest.raises(ConfigurationError) as caught:
        CallQuery(**wrong)
    refused(caught.value, hint)


@pytest.mark.parametrize("case", QUESTIONS)
async def test_a_stream_is_refused_where_it_is_made(case, serve, connect):
    """``calls`` itself refuses bad numbers, deadlines and checkpoints, before its first ``anext``."""
    server = await serve()

    with pytest.raises(ConfigurationError) as caught:
        connect(server).calls(**{**({} if "query" in QUESTIONS[case] else MAY), **QUESTIONS[case]})

    refused(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize(
    "start",
    [
        f"servetel-1|{MARK}|2024-05-31 23:59:59|9|9|9|x",
        'servetel-2|000000000000|2024-05-31 23:59:59|[9,"",["x"]]',
        f'servetel-2|{MARK}|2024-01-31 23:59:59|[9,"2024-01-31 12:00:00",["x"]]',
    ],
    ids=["another version", "another query", "another window"],
)
async def test_a_checkpoint_of_something_else_is_a_mismatch(start, serve, connect):
    """A checkpoint of another query or version is distinguished from garbage."""
    server = await serve()

    with pytest.raises(ResumeMismatchError) as caught:
        connect(server).calls(**MAY, start=start)

    assert_clean(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize("deadline", [0, -1, NAN, INFINITY, "x", b"1", [1]], ids=repr)
@pytest.mark.parametrize("method", ["count", "get_call", "fetch_page"])
async def test_a_deadline_that_is_none_is_refused_everywhere(method, deadline, serve, connect):
    """Every method that takes a deadline checks it, and sends nothing."""
    server = await serve()
    client = connect(server)

    with pytest.raises(ConfigurationError) as caught:
        await getattr(client, method)(*(["1.2"] if method == "get_call" else []), deadline=deadline)

    refused(caught.value, "deadline")
    assert server.connections == 0


@pytest.mark.parametrize("call_id", ["", " ", None, 7, 1714657799.11930963, b"1.2", "1\n2", ["1.2"]], ids=repr)
async def test_a_call_id_that_is_none_is_refused(call_id, serve, connect):
    """``get_call`` never sends a request without an id: the API would send the whole history."""
    server = await serve()

    with pytest.raises(ConfigurationError) as caught:
        await connect(server).get_call(call_id)

    refused(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize(
    "options",
    [{"page": 0}, {"page": -1}, {"page": "1"}, {"page": 1.0}, {"page": True}, {"page_size": 0}, {"query": "x"}],
    ids=repr,
)
async def test_a_page_that_is_none_is_refused(options, serve, connect):
    """``fetch_page`` counts pages from one and takes a ``CallQuery``."""
    server = await serve()

    with pytest.raises(ConfigurationError) as caught:
        await connect(server).fetch_page(**options)

    refused(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize("limit", [0, -1, "5", 1.5, True])
async def test_a_limit_that_is_none_is_refused(limit, serve, connect):
    """``collect(limit=)`` is a whole number of at least one."""
    server = await serve()
    with pytest.raises(ConfigurationError) as caught:
        await connect(server).calls().collect(limit=limit)

    refused(caught.value, "limit")
    assert server.connections == 0


@pytest.mark.parametrize("case", CLIENTS)
def test_a_client_is_refused_where_it_is_made(case):
    """The constructor checks settings, so a bad one never fails in the middle of a pull."""
    with pytest.raises(
        ConfigurationError
    ) as caught:  # no variable here holds the value: this frame is searched as well
        ServetelClient(**{"token": TOKEN, "base_url": "https://api.example.invalid", **CLIENTS[case][0]})

    refused(caught.value, CLIENTS[case][1])


@pytest.mark.parametrize("case", TOKENS)
def test_a_token_that_cannot_be_one_is_refused_without_an_echo(case):
    """A value that no token and no header may hold is refused, and not repeated in the error."""
    with pytest.raises(ConfigurationError) as caught:
        ServetelClient(TOKENS[case], base_url="https://api.example.invalid")

    refused(caught.value, "")


@pytest.mark.parametrize("case", URLS)
def test_a_base_url_that_would_send_the_token_astray_is_refused(case):
    """Only https, or http to this computer; no user info, which would be logged. Nothing of it is echoed."""
    with pytest.raises(ConfigurationError) as caught:
        ServetelClient(TOKEN, base_url=URLS[case])

    refused(caught.value, "")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://localhost",
        "http://[::1]:1",
        "https://API.example.invalid:8443/v0/",
        "HTTPS://api.example.invalid",
    ],
)
def test_a_base_url_that_is_fine_is_taken(url):
    """Any form of loopback, ports, paths and capitals are allowed."""
    assert ServetelClient(TOKEN, base_url=url)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        *(
            (Retry, {name: value})
            for name in ("attempts", "base", "cap", "throttled_base", "throttled_cap", "longest_wait")
            for value in (0, -1, NAN, "x", None)
        ),
        *((Retry, {"budget": value}) for value in (-1, 1.5, "x", None)),
        (Retry, {"attempts": 2.5}),
        *((Timeouts, {name: value}) for name in ("connect", "read", "total", "acquire") for value in (0, -1, NAN, "x")),
        *((RateLimit, {"per_second": value}) for value in (-1, NAN, "x", None)),  # 0 means no limit
        *((RateLimit, {"burst": value}) for value in (0, -1, NAN, "x", None)),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else repr(value),
)
def test_a_setting_that_means_nothing_is_refused(kind, wrong):
    """Settings are checked when they are made, and the error names the parameter."""
    with pytest.raises(ConfigurationError) as caught:
        kind(**wrong)

    refused(caught.value, next(iter(wrong)))


def test_an_unknown_keyword_of_the_constructor_is_a_type_error():
    """Python itself refuses a misspelt setting."""
    with pytest.raises(TypeError):
        ServetelClient(TOKEN, concurrency=4)


async def test_a_call_that_was_refused_leaves_nothing_behind(serve, connect):
    """After any number of refusals the client still works."""
    server = await serve()
    client = connect(server)
    for wrong in QUESTIONS.values():
        with pytest.raises(ConfigurationError):
            client.calls(**({} if "query" in wrong else MAY), **wrong)

    assert len((await client.fetch_page()).records) == 1
    assert server.asked == 1
