"""Check: a receipt against the API's counts now, a file against its digest; and the doctor's probe."""

from __future__ import annotations

import pytest

from servetel_async import CallQuery, ConfigurationError
from servetel_async.bulk.check import check
from servetel_async.bulk.probe import probe
from servetel_async.emulator import Dataset
from servetel_async.protocol.conventions import Bounds


@pytest.mark.parametrize("name", ["a.ndjson", "a.db", "a.csv.gz"])
async def test_what_has_not_changed_agrees(connect, dataset, query, tmp_path, name):
    """Every window has the same count, and the file is unchanged."""
    _, client = await connect(dataset, page_size=5)
    await client.pull(tmp_path / name, query=query)
    report = await check(client, tmp_path / name)
    assert report.agrees
    assert report.changed == ()
    assert report.differences == ()
    assert str(report).endswith("all of it agrees")


@pytest.mark.parametrize("bounds", ["end_exclusive", "start_exclusive"])
async def test_a_server_that_leaves_out_a_bound_agrees(connect, dataset, query, tmp_path, bounds):
    """A new process learns the server's bounds before it counts, so calls in edge seconds are counted too."""
    api, client = await connect(dataset, page_size=5, bounds=bounds)
    for hour in range(24):
        api.insert(f"2024-05-31 {hour:02}:59:59")
    for second in ("00:00:00", "23:59:59"):
        api.insert(f"2024-05-01 {second}")
    await client.pull(tmp_path / "a.ndjson", query=query)
    client.conventions = None
    report = await check(client, tmp_path / "a.ndjson")
    assert report.agrees, str(report)
    late = api.insert_late("2024-05-31 23:59:59")
    assert [each.last for each in (await check(client, tmp_path / "a.ndjson")).changed] == ["2024-05-31 23:59:59"], late


async def test_windows_that_changed_are_named(connect, dataset, query, tmp_path):
    """One window gained a call, another lost one; at most ten windows are named."""
    api, client = await connect(dataset, page_size=1)
    await client.pull(tmp_path / "a.ndjson", query=query)
    late = api.insert_late("2024-05-20 12:00:00")
    report = await check(client, tmp_path / "a.ndjson")
    assert not report.agrees
    assert [(each.counted_now - each.counted_then) for each in report.changed] == [1]
    assert report.changed[0].first <= "2024-05-20 12:00:00" <= report.changed[0].last
    assert "it does not agree" in str(report)
    for call in [late, *dataset.ids[::2]]:
        api.delete(call)
    report = await check(client, tmp_path / "a.ndjson")
    assert f"and {len(report.changed) - 10} more windows that differ" in str(report)


async def test_a_file_that_was_changed_does_not_agree(connect, dataset, query, tmp_path):
    """It has one more byte, or is missing."""
    _, client = await connect(dataset)
    await client.pull(tmp_path / "a.ndjson", query=query)
    with (tmp_path / "a.ndjson").open("ab") as file:
        file.write(b"\n")
    report = await check(client, tmp_path / "a.ndjson")
    assert not report.agrees
    assert "a.ndjson: it is not the file that the receipt describes" in str(report)
    (tmp_path / "a.ndjson").unlink()
    report = await check(client, tmp_path / "a.ndjson")
    assert not report.agrees
    assert "a.ndjson: it is missing" in str(report)


async def test_a_receipt_of_other_filters_is_not_compared(connect, dataset, query, tmp_path):
    """A receipt does not store filters; with the right ones given again, the check agrees."""
    _, client = await connect(dataset)
    await client.pull(tmp_path / "a.ndjson", query=query, direction="inbound")
    with pytest.raises(ConfigurationError, match="other filters"):
        await check(client, tmp_path / "a.ndjson")
    assert (await check(client, tmp_path / "a.ndjson", CallQuery(direction="inbound"))).agrees


@pytest.mark.parametrize("content", [None, b"{}", b"\xff", b'{"a":"\xff"}', b'{"a":' + b"[" * 100_000], ids=range(5))
async def test_without_a_receipt_there_is_nothing_to_check(connect, dataset, tmp_path, content):
    """A missing or unreadable receipt is an error before any request."""
    api, client = await connect(dataset)
    if content is not None:
        (tmp_path / "a.ndjson.receipt.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match="receipt"):
        await check(client, tmp_path / "a.ndjson")
    with pytest.raises(ConfigurationError, match="There is no receipt of"):
        await check(client, "-")
    assert api.requests == []


async def test_the_probe_finds_out_what_the_server_does(connect, tmp_path):
    """It reports the cap, count, bounds, order and ties."""
    day = Dataset.range("2024-05-06", "2024-05-06", calls=300)
    api, client = await connect(day, limit_cap=50)
    for _ in range(3):
        api.insert("2024-05-06 23:59:59")
    found = await probe(client)
    assert (found.page_cap, found.count_is_total, found.bounds) == (50, True, Bounds(0, 0))
    assert (found.newest_first, found.ties_stable, found.calls) == (True, True, 303)
    assert "50 calls at most" in str(found)
    assert (client.page_cap, client.count_is_total) == (50, True)
    assert len(api.requests) < 12


async def test_the_probe_sees_ties_that_change_places(connect):
    """Calls of one second come in another order each time."""
    day = Dataset.range("2024-05-06", "2024-05-06", calls=30)
    api, client = await connect(day, shuffle_ties=True)
    for _ in range(40):
        api.insert("2024-05-06 23:59:59")
    assert (await probe(client)).ties_stable is False


@pytest.mark.parametrize(("mode", "said"), [("page", "not the total"), ("missing", "not the total")])
async def test_the_probe_tells_a_count_that_is_none(connect, dataset, mode, said):
    """The server counts its page, or sends no count."""
    _, client = await connect(dataset, count_mode=mode)
    found = await probe(client)
    assert found.count_is_total is False
    assert found.page_cap is None
    assert said in str(found)


async def test_an_account_without_calls_tells_little(connect, dataset):
    """The probe says what it could not find out."""
    api, client = await connect(dataset)
    for call in dataset.ids:
        api.delete(call)
    found = await probe(client)
    assert (found.bounds, found.newest_first, found.ties_stable, found.count_is_total) == (None, None, None, None)
    assert "not known" in str(found)


async def test_where_nothing_counts_there_is_nothing_to_compare(connect, dataset, query, tmp_path):
    """The check says so, and does not call it a difference."""
    _, client = await connect(dataset, count_mode="missing")
    await client.pull(tmp_path / "a.ndjson", query=query)
    report = await check(client, tmp_path / "a.ndjson")
    assert report.changed == ()
    assert "the API sends no count" in str(report)


async def test_the_probe_says_what_it_asked_where_no_cap_was_met(connect):
    """All requested calls came: the cap, if there is one, is higher."""
    day = Dataset.range("2024-05-06", "2024-05-06", calls=6_000)
    _, client = await connect(day)
    found = await probe(client)
    assert found.rows == found.asked
    assert f"at least {found.asked:,} calls" in str(found)
