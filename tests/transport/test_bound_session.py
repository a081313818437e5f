"""A session and the loop and process it belongs to, in this process, where it can be measured."""

import asyncio
import os

from servetel_async import ServetelClient
from servetel_async.emulator import Dataset, Emulator

DATA = Dataset.month("2024-05", calls=3)


def test_a_client_outlives_its_loop():
    """In each loop it opens what it needs, and the loop closes it: nobody has to."""
    client = ServetelClient("token-of-the-test", base_url="http://127.0.0.1:1", rate=None)

    async def count():
        async with Emulator(DATA, token="token-of-the-test") as api:
            client._transport.base_url = api.base_url
            return await client.count("2024-05-01", "2024-05-31"), client._transport._bound.session

    (first, session), (second, other) = asyncio.run(count()), asyncio.run(count())
    assert (first, second) == (3, 3)
    assert session is not other
    assert session.closed
    assert other.closed


async def test_a_forked_process_leaves_its_parents_session_alone(monkeypatch):
    """It makes one of its own, and keeps the parent's, unclosed: closing it would close the parent's connections."""
    async with (
        Emulator(DATA) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=None) as client,
    ):
        assert await client.count("2024-05-01", "2024-05-31") == 3
        parents = client._transport._bound
        monkeypatch.setattr(os, "getpid", lambda: parents.pid + 1)
        assert await client.count("2024-05-01", "2024-05-31") == 3
        assert not parents.session.closed
        await parents.aclose()
        assert not parents.session.closed
        await client.aclose()
        monkeypatch.undo()
        await parents.aclose()
        assert parents.session.closed
