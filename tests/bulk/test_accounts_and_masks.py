"""Several accounts and masks in one destination: calls are never mixed, and masked values never shown."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from servetel_async import AuthenticationError, CallQuery, ConfigurationError, ResumeMismatchError
from servetel_async.bulk.check import check
from servetel_async.bulk.pull import pull
from servetel_async.bulk.sync import sync
from servetel_async.protocol.mask import Mask
from tests.bulk.living_server import LivingServer, every

NOW = "2024-05-10 12:00:00"
DAYS = CallQuery(from_date="2024-05-05", to_date="2024-05-07")
NINE_DAYS = CallQuery(from_date="2024-05-01", to_date="2024-05-09")
CALLS = [*every(60, "2024-05-01", NOW)]
ALL = CallQuery()
MASKS = {True: Mask.hidden(), False: None}


def rows(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT account, id FROM call_records ORDER BY 1, 2").fetchall()


def numbers(path):
    with closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("SELECT DISTINCT client_number FROM call_records")]


@pytest.fixture
async def two():
    """Two accounts at two addresses, whose calls have equal ids."""
    async with LivingServer(list(CALLS), NOW) as one, LivingServer(CALLS[::2], NOW) as other:
        yield one, other


async def test_two_accounts_in_one_database_keep_their_calls(two, tmp_path):
    """Equal ids are different calls; each account has its own ledger."""
    target = tmp_path / "a.db"
    receipts = []
    for server in two:
        async with server.client() as client:
            receipts.append(await sync(client, target, ALL))
    one, other = ([key for account, key in rows(target) if account == receipt.account] for receipt in receipts)
    first = receipts[0].from_date
    assert one == sorted(key for start, key in CALLS if start >= first)
    assert other == sorted(key for start, key in CALLS[::2] if start >= first)
    for server in two:
        async with server.client() as client:
            report = await check(client, target)
            assert report.agrees
            assert "counts of 1 other account" in str(report)


async def test_a_database_without_calls_of_an_account_is_not_checked_for_it(two, tmp_path):
    """The error names the account whose calls are there."""
    target = tmp_path / "a.db"
    async with two[0].client() as client:
        there = await pull(client, target, DAYS)
    async with two[1].client() as client:
        with pytest.raises(ConfigurationError, match="holds no calls of the account") as failure:
            await check(client, target)
    assert there.account in str(failure.value)


async def test_two_names_at_one_address_are_two_accounts(tmp_path):
    """Opaque tokens do not distinguish accounts, so names do."""
    target = tmp_path / "a.db"
    async with LivingServer(CALLS, NOW) as server:
        for name in ("delhi", "mumbai"):
            async with server.client(f"token-of-{name}", account=name) as client:
                assert (await pull(client, target, DAYS)).account == name
    assert {account for account, _ in rows(target)} == {"delhi", "mumbai"}


async def test_a_token_that_may_be_another_accounts_is_refused(tmp_path):
    """The error names the label that identifies the account."""
    target = tmp_path / "a.db"
    async with LivingServer(CALLS, NOW) as server:
        async with server.client() as client:
            label = (await pull(client, target, DAYS)).account
        before = rows(target)
        async with server.client("another-token") as client:
            with pytest.raises(ResumeMismatchError, match="Cannot tell") as caught:
                await pull(client, target, DAYS)
            assert label in caught.value.fix
        async with server.client("another-token", account=label) as client:
            assert (await pull(client, target, DAYS)).account == label
    assert rows(target) == before


@pytest.mark.parametrize("name", ["a.ndjson", "a.db"])
async def test_an_interrupted_pull_of_one_account_is_not_resumed_by_another(two, tmp_path, name):
    """A file, like an unfinished database, holds one account."""
    one, other = two
    async with one.client(max_concurrency=1) as client:
        one.refuse_after(34)
        with pytest.raises(AuthenticationError):
            await pull(client, tmp_path / name, NINE_DAYS)
    left = {path.name for path in tmp_path.iterdir()}
    async with other.client() as client:
        with pytest.raises(ResumeMismatchError, match="another account"):
            await pull(client, tmp_path / name, NINE_DAYS)
    assert {path.name for path in tmp_path.iterdir()} == left
    one.refuses_from = None
    async with one.client() as client:
        assert (await pull(client, tmp_path / name, NINE_DAYS)).complete


async def test_a_file_is_checked_with_its_own_account(two, tmp_path):
    """Another account's counts say nothing about it."""
    one, other = two
    async with one.client() as client:
        await pull(client, tmp_path / "a.ndjson", DAYS)
        assert (await check(client, tmp_path / "a.ndjson")).agrees
    async with other.client() as client:
        with pytest.raises(ResumeMismatchError, match="another account"):
            await check(client, tmp_path / "a.ndjson")


@pytest.mark.parametrize("first", [True, False])
async def test_masked_and_plain_calls_are_not_mixed(tmp_path, first):
    """Neither a pull nor a sync writes plain rows over masked ones, or the reverse."""
    target = tmp_path / "a.db"
    async with LivingServer(CALLS, NOW) as server, server.client() as client:
        await pull(client, target, DAYS, mask=MASKS[first])
        before = rows(target)
        for run in (
            pull(client, target, DAYS, mask=MASKS[not first]),
            sync(client, target, ALL, mask=MASKS[not first]),
        ):
            with pytest.raises(ResumeMismatchError, match="in plain text"):
                await run
        assert rows(target) == before
        assert (await sync(client, target, ALL, mask=MASKS[first])).mask == ("masked" if first else "")


async def test_pseudonyms_of_two_keys_are_not_mixed(tmp_path):
    """One number would have two tokens; the error says so, and what to do."""
    target = tmp_path / "a.db"
    async with LivingServer(CALLS, NOW) as server, server.client() as client:
        await sync(client, target, ALL, mask=Mask.keyed("k" * 32))
        before = rows(target)
        with pytest.raises(ResumeMismatchError, match=r"a number would have two pseudonyms.*the same --mask or key"):
            await sync(client, target, ALL, mask=Mask.keyed("q" * 32))
        assert rows(target) == before


async def test_a_receipt_says_whose_and_how(tmp_path):
    """It names the label and the mask, and enough to recognise the account."""
    async with LivingServer(CALLS, NOW) as server, server.client(account="delhi") as client:
        receipt, address = await pull(client, tmp_path / "a.ndjson", DAYS, mask=MASKS[True]), server.base_url
    saved = json.loads((tmp_path / "a.ndjson.receipt.json").read_text())
    assert (saved["account"], saved["mask"]) == ("delhi", "masked") == (receipt.account, receipt.mask)
    assert saved["identity"][0] == address
    assert "token-123456" not in str(saved)
