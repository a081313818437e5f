"""A pull gets a 403 or 404 midway: it waits as in an outage, renews a login's token, and can be resumed."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from servetel_async import CallQuery, Retry, ServerError, ServetelClient, WrongAddressError
from servetel_async.bulk.pull import pull
from tests.bulk import fake_clock
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at

CALLS = calls_at(*(f"2024-05-{day:02} {hour:02}:00:00" for day in range(1, 29) for hour in range(0, 24, 2)))
MAY = CallQuery.month("2024-05")
QUICK = Retry(base=0.01, cap=0.02)
LOGIN = "/v1/auth/login"
BLOCKS = [
    Answer(status=403, body=b'{"Message": "User is not authorized to access this resource with an explicit deny"}'),
    Answer(status=403, body=b'{"message": "Forbidden"}'),
    Answer(status=403, body=b'{"success": false, "message": "Forbidden"}'),
    Answer(status=403, body=b"<html>Access Denied</html>"),
    Answer(status=404, body=b""),
]
BLOCK = pytest.mark.parametrize("block", BLOCKS, ids=["authorizer", "gateway", "success", "web page", "404"])


class Portal(SmallServer):
    """Logs in; each of its tokens is good for some requests, and then a gateway refuses."""

    def __init__(self, block: Answer, lives: int) -> None:
        super().__init__(CALLS)
        self.block = block
        self.lives = lives
        self.left = 0
        self.logins = 0

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == LOGIN:
            self.logins += 1
            self.left = self.lives
            return web.json_response({"access_token": f"token-number-{self.logins}", "expires_in": 3600})
        self.left -= 1
        if self.left < 0 or request.headers["Authorization"] != f"Bearer token-number-{self.logins}":
            headers = {"Content-Type": "application/json"}
            return web.Response(status=self.block.status, body=self.block.body, headers=headers)
        return await super()._handle(request)


@BLOCK
async def test_a_pull_over_tokens_that_end_without_a_word(block, tmp_path):
    """Each token ends midway: the pull is complete, with about one login per token."""
    async with (
        Portal(block, lives=40) as server,
        ServetelClient(
            email="a@example.com", password="x", base_url=server.base_url, rate=None, retry=QUICK, page_size=5
        ) as client,
    ):
        receipt = await client.pull(tmp_path / "may.ndjson", query=MAY)

    assert (receipt.complete, receipt.records) == (True, len(CALLS))
    assert 2 <= server.logins <= len(server.asked) / 40 + 3


@BLOCK
def test_a_block_of_an_hour_is_an_outage(block, tmp_path):
    """With a fixed token the pull waits, probes now and then, and is complete when the block ends."""
    blocked = fake_clock.Switch()

    async def main():
        async with SmallServer(CALLS, lambda _: block if blocked.on else HONEST) as server:
            client = ServetelClient("token-123456", base_url=server.base_url, rate=None, page_size=5)
            async with client:

                def begin(progress):
                    if progress.windows == 1 and not blocked.on and not len(ended):
                        blocked.turn(on=True)
                        ended.append(asyncio.get_running_loop().call_later(3600, lambda: blocked.turn(on=False)))

                ended = []
                receipt = await pull(client, tmp_path / "may.ndjson", MAY, patience=7200, on_progress=begin)
                assert len(ended) == 1
            assert (receipt.complete, receipt.records) == (True, len(CALLS))

    fake_clock.run(main())


@BLOCK
def test_a_block_that_outlasts_patience_can_be_resumed(block, tmp_path):
    """The error is retryable and says why; the calls are kept, and the same pull completes them."""
    blocked = fake_clock.Switch()

    async def main():
        async with (
            SmallServer(CALLS, lambda _: block if blocked.on else HONEST) as server,
            ServetelClient("token-123456", base_url=server.base_url, rate=None, page_size=5) as client,
        ):

            def begin(progress):
                blocked.turn(on=progress.windows >= 1)

            with pytest.raises(ServerError) as caught:
                await pull(client, tmp_path / "may.ndjson", MAY, patience=600, on_progress=begin)
            assert caught.value.retryable
            assert "has given good replies" in caught.value.why

            blocked.turn(on=False)
            kept = (tmp_path / "may.ndjson.part").read_bytes()
            assert kept
            receipt = await pull(client, tmp_path / "may.ndjson", MAY)
            assert (receipt.complete, receipt.records) == (True, len(CALLS))
            assert (tmp_path / "may.ndjson").read_bytes().startswith(kept)

    fake_clock.run(main())


@BLOCK
async def test_a_block_from_the_start_is_not_waited_for(block, tmp_path):
    """Before the first good reply it means a wrong address or missing rights: one request, no output."""
    async with (
        SmallServer(CALLS, lambda _: block) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, retry=QUICK) as client,
    ):
        with pytest.raises(Exception, match=r"403|404") as caught:
            await client.pull(tmp_path / "may.ndjson", query=MAY)
    assert not caught.value.retryable
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []
    assert isinstance(caught.value, WrongAddressError) or b"success" in (block.body or b"")
