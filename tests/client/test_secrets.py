"""Canaries: a token, a password, a recording's secret, a name and a number, searched for in all output of this library.

Each canary is a constant of the module: a variable of a test would be found in the test's own frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import gc
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap

import aiohttp
import msgspec
import pytest

from servetel_async import CallQuery, Retry, ServetelClient, ServetelError, Timeouts
from servetel_async import errors as error_module
from servetel_async.protocol.tokens import Secret, normalise_token
from tests.transport.leaks import TOKEN, assert_clean, chain, failure_of, shown
from tests.transport.wire_server import ACTS, OK, PAGE, call, closed_port, http, page, reply

PASSWORD = "canary-password-93f1"
EMAIL = "canary.person@example.com"
RECORDING = "canary-recording-77aa"
NAME = "Canary Personsdottir"
NUMBER = "910000077777"
ALL = (TOKEN, PASSWORD, EMAIL, RECORDING, NAME, NUMBER)

PERSON = {
    "client_number": f"+{NUMBER}",
    "caller_id_num": NUMBER,
    "agent_name": NAME,
    "recording_url": f"https://recordings.example.com/a.mp3?token={RECORDING}",
    "contact_details": {"name": NAME, "number": NUMBER},
    "call_flow": [{"type": "Agent", "name": NAME, "num": NUMBER}],
}


def found_in(text: str, canaries: tuple[str, ...] = ALL) -> list[str]:
    return [canary for canary in canaries if canary in text]


def person(number: int = 1, **fields: object) -> dict[str, object]:
    return call(number, **{**PERSON, **fields})


def said(status: int) -> bytes:
    message = f"no call for {NUMBER} of {EMAIL} with token {TOKEN} at https://x.example.com/?t={RECORDING}"
    return reply(json.dumps({"success": False, "message": message}).encode(), status)


CUT = page(person(1), person(2), count=2)[:-30]
WAYS = {
    "reset": ACTS["reset before head"],
    "cut": ACTS["short body, fin"],
    "garbled": ACTS["two lengths"],
    "hang": ACTS["head hangs"],
    "too large": ACTS["giant, announced"],
    "not json": reply(CUT),
    "not json, header": reply(CUT, 200, ("X-Name", NAME), ("Set-Cookie", TOKEN)),
    "html": reply(f"<html>{NAME} {TOKEN}</html>".encode()),
    "no page": reply(json.dumps(PERSON).encode()),
    "unreadable record": reply(page(person(1)).replace(b'"results": [{', b'"results": ["' + NAME.encode() + b'", {')),
    "bad utf-8": reply(page(person(1))[:-2].replace(b"Canary", b"Canary\xff")),
    "out of window": reply(page(person(1, date="2019-01-01"), person(2), count=2)),
    "another page": reply(page(person(1), count=99, number=7)),
    "the same page": reply(page(person(1), person(2), count=99)),
    "no calls": reply(page(count=5)),
    **{str(status): said(status) for status in (200, 400, 401, 403, 404, 422, 429, 500, 503)},
    "redirect": reply(b"", 302, ("Location", f"https://x.example.com/?token={TOKEN}&number={NUMBER}")),
}
PATIENCE = Timeouts(connect=0.2, read=0.1, total=0.5)


def asking(client: ServetelClient, method: str):
    """Send a request as a program would; made here, so that no frame of a test holds the query."""
    filters = {"callerid": f"+{NUMBER}"}
    if method == "calls":
        return client.calls("2024-05-01", "2024-05-31", page_size=1, **filters).collect()
    if method == "count":
        return client.count("2024-05-01", "2024-05-31", **filters)
    if method == "get_call":
        return client.get_call("17146577.999", from_date="2024-05-01", to_date="2024-05-31")
    return client.fetch_page(CallQuery(from_date="2024-05-01", to_date="2024-05-31", **filters))


METHODS = ("calls", "count", "get_call", "fetch_page")
#: Replies that look right to this method: ``count`` does not see the records, ``fetch_page`` not the next page.
NO_ERROR = {
    ("the same page", "count"),
    ("the same page", "fetch_page"),
    ("unreadable record", "count"),
    ("out of window", "count"),
    ("another page", "count"),
    ("no calls", "count"),
}


@pytest.mark.parametrize(
    ("way", "method"), [(way, method) for way in WAYS for method in METHODS if (way, method) not in NO_ERROR]
)
async def test_no_error_tells_a_secret(way, method, serve, connect):
    """No error that a server can cause shows a secret or a person, in any form."""
    server = await serve(WAYS[way])
    client = connect(server, timeouts=PATIENCE, retry=Retry(attempts=2, base=0.001, throttled_base=0.001))

    seen = await failure_of(asking(client, method))

    assert_clean(seen, PASSWORD, EMAIL, RECORDING, NAME)
    texts = shown(seen)
    for form in ("str", "repr", "args", "vars", "pickle", "copy", "traceback"):
        assert NUMBER not in texts[form], form


@pytest.mark.parametrize("method", ["calls", "count", "get_call", "fetch_page"])
async def test_no_frame_holds_the_number_that_was_asked_for(method, serve, connect):
    """A query's filters are personal data too: a tracker that keeps local variables does not get them."""
    server = await serve(reply(b"", 400))

    error = await failure_of(asking(connect(server), method))

    assert NUMBER not in shown(error)["traceback with locals"]


def test_every_error_class_shows_only_what_it_was_told():
    """No class adds data of its own, and each pickles whole."""
    kinds = [kind for kind in vars(error_module).values() if isinstance(kind, type) and issubclass(kind, ServetelError)]
    assert len(kinds) > 20
    for kind in kinds:
        options = {"retry_after": 3.0} if kind.__name__ == "RateLimitError" else {}
        error = kind(
            "it happened", why="because", fix="do this", attempts=2, page=3, status=400, stopped_by="final", **options
        )
        twin = pickle.loads(pickle.dumps(copy.copy(error)))
        assert (type(twin), str(twin), vars(twin)) == (kind, str(error), vars(error))
        assert list(chain(error)) == [error]


@pytest.mark.parametrize("way", ["503", "reset", "hang", "not json", "429", "200", "out of window"])
async def test_no_log_tells_a_secret(way, serve, connect, caplog):
    """At DEBUG, no log record of this library, aiohttp or asyncio in debug mode holds a canary."""
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 0.0  # every callback is then logged as too slow
    caplog.set_level(logging.DEBUG)
    for name in (
        "servetel_async",
        "asyncio",
        *(name for name in logging.root.manager.loggerDict if name.startswith("aiohttp")),
    ):
        caplog.set_level(logging.DEBUG, logger=name)
    server = await serve([WAYS[way], reply(page(person(1), count=1))])
    client = connect(server, timeouts=PATIENCE, retry=Retry(attempts=2, base=0.001, throttled_base=0.001))
    with contextlib.suppress(ServetelError):
        await asking(client, "calls")
    asyncio.get_running_loop().set_debug(False)

    records = [record for record in caplog.records if record.name != "tests"]
    assert any(record.name == "servetel_async" for record in records)
    for record in records:
        assert not found_in(record.getMessage() + repr(record.args) + repr(record.exc_info)), record.name


async def test_a_query_is_never_logged(serve, connect, caplog):
    """Our own log holds neither the query string nor the path with it."""
    caplog.set_level(logging.DEBUG, logger="servetel_async")
    server = await serve([reply(b"", 503), OK])
    await asking(connect(server), "fetch_page")

    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("servetel_async"))
    assert text
    for part in ("?", "callerid", "from_date", "limit=", "/v1/", "Bearer"):
        assert part not in text


async def test_events_tell_no_secret(serve, connect):
    """Observers get numbers and class names, and nothing of the query or the reply."""
    seen: list[object] = []
    server = await serve([said(503), WAYS["not json"], reply(page(person(1), count=1))])
    await asking(connect(server, on_event=seen.append), "fetch_page")

    assert len(seen) == 5
    assert not found_in(repr(seen) + repr([dataclasses.asdict(event) for event in seen]))


async def test_what_is_shown_of_a_record_and_a_page_is_no_person(serve, connect):
    """``repr`` shows ids and times, so a log of results holds no personal data."""
    server = await serve(reply(page(person(1), count=1)))
    client = connect(server)
    found = await client.fetch_page()
    stream = client.calls("2024-05-01", "2024-05-31", callerid=f"+{NUMBER}")
    first = await anext(stream)
    text = " ".join(
        map(repr, (found, found.records, first, first.call_flow, stream, stream.stats, client, stream.checkpoint))
    )
    text += f"{found} {first} {stream} {client}"
    await stream.aclose()

    assert not found_in(text)


async def test_a_consumer_that_fails_shows_no_person_of_ours(serve, connect):
    """An error in the caller's loop, with its locals, shows a record only as its ``repr``."""
    server = await serve(reply(page(person(1), person(2), count=2)))
    client = connect(server)

    async def consume() -> None:
        async with client.calls("2024-05-01", "2024-05-31") as stream:
            async for record in stream:
                assert record
                raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        await consume()

    assert not found_in(shown(caught.value)["traceback with locals"])


# Secrets themselves --------------------------------------------------------------------------------------------------------


def test_a_secret_does_not_print_pickle_or_encode_itself():
    """A token prints stars and loses its value in a pickle; it is text only when it is sent."""
    secret = normalise_token(TOKEN)

    assert isinstance(secret, Secret)
    assert repr(secret) == "***"
    assert repr([secret]) == "[***]"
    assert repr({"Authorization": secret}) == "{'Authorization': ***}"
    assert TOKEN not in pickle.dumps(secret).decode("latin-1")
    assert secret.encode() == TOKEN.encode()


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "msgspec", "json"])
async def test_a_client_does_not_leave_the_process(way, serve, connect):
    """No serialisation of a client holds its token."""
    client = connect(await serve())
    with pytest.raises(TypeError) as caught:
        {
            "pickle": pickle.dumps,
            "deepcopy": copy.deepcopy,
            "msgspec": msgspec.json.encode,
            "json": json.dumps,
        }[way](client)

    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"token": TOKEN}, {"token": None, "email": EMAIL, "password": PASSWORD}], ids=["token", "login"]
)
async def test_nothing_that_hangs_on_a_client_prints_a_secret(options, serve):
    """No object that a client reaches in a few steps prints it."""
    server = await serve()
    client = ServetelClient(**options, base_url=server.url, rate=None)
    waiting, seen = [(client, 0)], set()
    while waiting:
        value, depth = waiting.pop()
        if id(value) in seen or depth > 6 or isinstance(value, type | asyncio.AbstractEventLoop) or callable(value):
            continue
        seen.add(id(value))
        if type(value).__module__.startswith(("servetel_async", "builtins")):
            assert not found_in(repr(value)), type(value)
            inner = (
                value
                if isinstance(value, list | tuple | set)
                else list(value.values())
                if isinstance(value, dict)
                else list(getattr(value, "__dict__", {}).values())
            )
            waiting += [(item, depth + 1) for item in inner]
            waiting += [
                (getattr(value, name), depth + 1)
                for name in getattr(type(value), "__slots__", ())
                if hasattr(value, name)
            ]
    assert len(seen) > 10
    await client.aclose()


@pytest.mark.parametrize(
    "options",
    [
        {"token": TOKEN, "zone": "Asia/Kolkata"},
        {"token": TOKEN, "max_concurrency": 0},
        {"token": TOKEN, "email": EMAIL, "password": PASSWORD},
        {"token": None, "email": EMAIL},
        {"token": None, "email": "canary.person", "password": PASSWORD},
        {"token": TOKEN, "base_url": f"https://{PASSWORD}@api.example.com"},
        {"token": TOKEN, "base_url": f"https://api.example.com/?token={RECORDING}"},
        {"token": f"{TOKEN} {PASSWORD}"},
        {"token": f"Bearer {TOKEN}****"},
    ],
    ids=["zone", "slots", "both", "e-mail", "no e-mail", "user info", "query", "blank", "stars"],
)
def test_a_mistake_in_the_constructor_tells_no_secret(options):
    """The constructor's frames hold its arguments; a tracker that keeps locals must not see them."""
    try:
        ServetelClient(**options)
    except ServetelError as error:
        seen = error
    options = None

    assert_clean(seen, PASSWORD, EMAIL, RECORDING)


def test_a_token_file_and_the_environment_are_not_echoed(monkeypatch, tmp_path):
    """A bad token from the environment or a file is refused without being shown."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN} {PASSWORD}\n")
    file.chmod(0o600)
    for name, value in (("SERVETEL_TOKEN", f"{TOKEN}*****"), ("SERVETEL_TOKEN_FILE", str(file))):
        seen = None
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            try:
                ServetelClient()
            except ServetelError as error:
                seen = error
        value = None
        assert isinstance(seen, ServetelError), name
        assert_clean(seen, PASSWORD)


# On stderr -----------------------------------------------------------------------------------------------------------------


def test_nothing_is_said_on_stderr_under_full_debug():
    """With all loggers at DEBUG, asyncio's debug mode and a failing server, stderr shows no canary."""
    text = """
    import asyncio, logging, os, socket, sys, threading
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    from servetel_async import Retry, ServetelClient, ServetelError
    listener = socket.create_server(("127.0.0.1", 0))
    def serve():
        while True:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 900\\r\\n\\r\\n" + os.environb[b"SAID"])
            connection.close()
    threading.Thread(target=serve, daemon=True).start()
    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.0
        url = "http://127.0.0.1:%d" % listener.getsockname()[1]
        client = ServetelClient(os.environ["TOKEN"], base_url=url, rate=None, retry=Retry(attempts=2, base=0.001))
        try:
            await client.count("2024-05-01", "2024-05-31", callerid=os.environ["NUMBER"])
        except ServetelError as error:
            logging.exception("it failed")
        asyncio.ensure_future(client.count(callerid=os.environ["NUMBER"]))
        await asyncio.sleep(0)
    asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("SERVETEL_")},
            "PYTHONASYNCIODEBUG": "1",
            "TOKEN": TOKEN,  # not in the script: a traceback shows its lines
            "NUMBER": f"+{NUMBER}",
            "SAID": f"{NAME} {RECORDING}",
        },
    )

    assert "it failed" in done.stderr
    assert done.returncode == 0
    assert not found_in(done.stdout + done.stderr)


async def test_nobody_keeps_a_failed_reply(serve, connect):
    """Once a failure is handled, body and request are gone: the error keeps no object of aiohttp alive."""
    server = await serve(WAYS["not json"])
    client = connect(server)
    error = await failure_of(asking(client, "fetch_page"))
    gc.collect()

    alive = [value for value in gc.get_objects() if isinstance(value, aiohttp.ClientResponse)]
    assert not [value for value in alive if str(value.url).startswith(server.url)]  # other tests may leave theirs
    assert error.attempts == 4


async def test_a_refused_connection_tells_no_secret(connect):
    """An error before any request does not hold the request either."""
    client = connect(f"http://127.0.0.1:{closed_port()}")
    for method in ("calls", "count", "get_call", "fetch_page"):
        assert_clean(await failure_of(asking(client, method)), RECORDING, NAME, PASSWORD)


def test_the_canaries_are_on_the_wire_at_all():
    """The server does send the canaries."""
    assert found_in(page(person(1)).decode(), (RECORDING, NAME, NUMBER)) == [RECORDING, NAME, NUMBER]
    assert http(PAGE).startswith(b"HTTP/1.1 200")
