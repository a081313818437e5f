"""The quarantine: undecodable records, kept raw and private beside the output of all others."""

from __future__ import annotations

import json
import stat

import pytest

from servetel_async import CallQuery, OutputError, ServetelClient
from servetel_async.bulk.ledger import Unreadable
from servetel_async.bulk.pull import pull
from servetel_async.bulk.quarantine import save_quarantine
from servetel_async.protocol.mask import Mask
from servetel_async.sinks.destination import sink_for
from tests.bulk.facts import reading
from tests.bulk.small_server import Answer, SmallServer

DAY = CallQuery(from_date="2024-05-06", to_date="2024-05-06")


def entry(*unreadable, hour=1):
    first, last = f"2024-05-06 {hour:02}:00:00", f"2024-05-06 {hour:02}:59:59"
    return reading(first, last, counted=1, records=1, quarantined=unreadable)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_each_record_is_a_line(tmp_path):
    """The line has the reason, the window and the bytes as they were sent."""
    save_quarantine(
        sink_for(tmp_path / "a.ndjson"),
        [
            entry(Unreadable("why", '{"x": 1}'), Unreadable("why not", "7")),
            entry(hour=3),
            entry(Unreadable("so", "नमस्ते"), hour=2),
        ],
    )
    file = tmp_path / "a.ndjson.quarantine.ndjson"
    hour = {"first": "2024-05-06 01:00:00", "last": "2024-05-06 01:59:59"}
    assert [json.loads(line) for line in file.read_bytes().splitlines()] == [
        {"reason": "why", **hour, "raw": '{"x": 1}'},
        {"reason": "why not", **hour, "raw": "7"},
        {"reason": "so", "first": "2024-05-06 02:00:00", "last": "2024-05-06 02:59:59", "raw": "नमस्ते"},
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("entries", [[], [entry()]])
def test_nothing_to_keep(tmp_path, entries):
    """No file is made without a record."""
    save_quarantine(sink_for(tmp_path / "a.ndjson"), entries)
    assert names(tmp_path) == []


async def test_standard_output_has_no_place_beside_it(tmp_path, monkeypatch, capfd):
    """No file is made, but the receipt counts the records."""
    monkeypatch.chdir(tmp_path)
    body = json.dumps({"count": 2, "page": 1, "results": [{"foreign": 1}, [7]]}).encode()
    async with (
        SmallServer([], lambda asked: Answer(body=body) if asked.page == 1 else Answer()) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, page_size=5) as client,
    ):
        receipt = await pull(client, "-", DAY)
    assert (receipt.records, receipt.quarantined, receipt.complete) == (0, 2, False)
    assert capfd.readouterr().out == ""
    assert names(tmp_path) == []


def test_an_older_one_is_replaced(tmp_path):
    """The quarantine belongs to the pull that wrote it."""
    (tmp_path / "a.ndjson.quarantine.ndjson").write_text('{"reason":"old"}')
    save_quarantine(sink_for(tmp_path / "a.ndjson"), [entry(Unreadable("why", "7"))])
    assert "old" not in (tmp_path / "a.ndjson.quarantine.ndjson").read_text()


@pytest.mark.parametrize(("name", "left"), [("a.ndjson", False), ("a/", False), ("a.db", True)])
def test_that_of_an_output_that_was_replaced_goes(tmp_path, name, left):
    """A file is replaced as a whole. A database keeps other ranges, and their quarantine."""
    quarantine = tmp_path / f"{name.rstrip('/')}.quarantine.ndjson"
    quarantine.write_text('{"reason":"old"}\n')
    save_quarantine(sink_for(f"{tmp_path}/{name}"), [entry()])
    assert quarantine.exists() is left


@pytest.mark.parametrize("entries", [[], [entry(Unreadable("why", "7"))]])
def test_a_foreign_file_of_that_name_is_kept(tmp_path, entries):
    """It is neither removed nor replaced."""
    quarantine = tmp_path / "a.ndjson.quarantine.ndjson"
    quarantine.write_text("not a call in it")
    with pytest.raises(OutputError):
        save_quarantine(sink_for(tmp_path / "a.ndjson"), entries)
    assert quarantine.read_text() == "not a call in it"


def test_it_cannot_be_written(tmp_path):
    """The error says that the output is there, and shows no path of this computer."""
    (tmp_path / "a.ndjson.quarantine.ndjson").mkdir()
    with pytest.raises(OutputError, match=r"of a\.ndjson cannot be saved.*what was read is kept") as caught:
        save_quarantine(sink_for(tmp_path / "a.ndjson"), [entry(Unreadable("why", "7"))])
    assert str(tmp_path) not in str(caught.value)


async def test_a_record_that_cannot_be_masked_is_only_named(tmp_path):
    """Its number cannot be separated from its text, so neither is kept."""
    body = json.dumps({"count": 1, "page": 1, "results": [{"foreign": "+919811112222"}]}).encode()
    async with (
        SmallServer([], lambda asked: Answer(body=body) if asked.page == 1 else Answer()) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, page_size=5) as client,
    ):
        await pull(client, tmp_path / "a.ndjson", DAY, mask=Mask.hidden())
    (kept,) = [json.loads(line) for line in (tmp_path / "a.ndjson.quarantine.ndjson").read_bytes().splitlines()]
    assert kept["raw"].startswith("28 bytes, sha256 ")


async def test_a_pull_with_a_record_that_nobody_can_read(tmp_path):
    """All others are written, the record is quarantined, and the receipt is not complete."""
    good = {"id": "1", "date": "2024-05-06", "time": "09:00:00"}
    body = json.dumps({"count": 3, "page": 1, "results": [good, {"foreign": 1}, [7]]}).encode()
    async with (
        SmallServer([], lambda asked: Answer(body=body) if asked.page == 1 else Answer()) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, page_size=5) as client,
    ):
        receipt = await pull(client, tmp_path / "a.ndjson", DAY)
    assert (receipt.records, receipt.quarantined, receipt.counted, receipt.complete) == (1, 2, 3, False)
    assert receipt.certified == "2 records cannot be read; they are kept apart, as they were sent"
    assert [json.loads(line) for line in (tmp_path / "a.ndjson").read_bytes().splitlines()] == [good]
    kept = [json.loads(line) for line in (tmp_path / "a.ndjson.quarantine.ndjson").read_bytes().splitlines()]
    assert {each["raw"] for each in kept} == {'{"foreign": 1}', "[7]"}
