"""A masked pull fails on no record and loses none; pseudonyms still allow callers to be counted."""

from __future__ import annotations

import json

import pytest

from servetel_async import ConfigurationError, ServetelClient
from servetel_async.bulk.journal import claim_of
from servetel_async.emulator import Dataset
from servetel_async.protocol.clock import IST
from servetel_async.protocol.mask import Mask
from tests.bulk.small_server import Answer, SmallServer, calls_at

KEY = "canary-key-of-24-letters"
CALLS = calls_at(*(f"2024-05-06 10:00:{second:02}" for second in range(5)))
DAY = ("2024-05-06", "2024-05-06")
#: Fields that once broke a masked pull, or that some decoder refuses.
FIELDS = {
    "bad address": b'"recording_url":"https://[bad/x"',
    "half an address": b'"recording_url":"http://[::1"',
    "port out of range": b'"recording_url":"https://rec.example.com:99999/x"',
    "1e400": b'"score":1e400',
    "1e400 in a known key": b'"charges":1e400',
    "5,000 digits": b'"score":%s' % (b"9" * 5000),
    "5,000 digits in a known key": b'"client_number":%s' % (b"9" * 5000),
    "half a character": b'"score":"\\ud800"',
    "half a character in a name": b'"agent_name":"a\\udc00b"',
    "half a character in a key": b'"\\ud800":"Ravi"',
    "NaN": b'"charges":NaN',
    "bad byte": b'"agent_name":"\xff"',
    "control character": b'"agent_name":"a\tb"',
    "a key twice": b'"agent_name":"Asha","agent_name":"Ravi"',
    "300 levels": b'"score":%s' % (b"[" * 300 + b"]" * 300),
    "900 levels": b'"score":%s' % (b"[" * 900 + b"]" * 900),
    "900 levels in a known key": b'"call_flow":%s' % (b"[" * 900 + b"]" * 900),
}


def with_field(field):
    """A server whose second record on each page has this field."""

    def habit(asked):
        rows = [
            b'{"id":"%s","date":"%s","time":"%s"' % (key.encode(), start[:10].encode(), start[11:].encode())
            for start, key in asked.rows
        ]
        if len(rows) > 1:
            rows[1] += b"," + field
        body = b'{"count":%d,"page":%d,"results":[%s]}' % (
            len(asked.found),
            asked.page,
            b",".join(row + b"}" for row in rows),
        )
        return Answer(body=body)

    return SmallServer(CALLS, habit)


@pytest.mark.parametrize("choice", [{"mask": True}, {"pseudonyms": KEY}], ids=["masked", "pseudonyms"])
@pytest.mark.parametrize("name", FIELDS)
async def test_no_record_ends_a_masked_pull(tmp_path, name, choice):
    """A masked pull writes every call that an unmasked one writes, to a file and to a database."""
    async with (
        with_field(FIELDS[name]) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None) as client,
    ):
        plain = await client.pull(tmp_path / "plain.ndjson", *DAY)
        for target in ("a.ndjson", "a.db"):
            receipt = await client.pull(tmp_path / target, *DAY, **choice)
            assert (receipt.complete, receipt.records, receipt.quarantined) == (True, plain.records, 0)
    before, after = ((tmp_path / file).read_text().splitlines() for file in ("plain.ndjson", "a.ndjson"))
    assert [ident(line) for line in after] == [ident(line) for line in before]
    assert not [word for word in ("Ravi", "99999", "[bad") if word in "".join(after)]


def ident(line):
    """The id of a line, which may hold a number that Python cannot read."""
    return json.loads(line, parse_int=str)["id"]


async def test_pseudonyms_keep_callers_apart_and_together(connect, query, tmp_path):
    """Callers and agents, and the calls of each, stay as many as without a mask; no file has a number."""
    month = Dataset.month("2024-05", calls=250, php_quirks=True)
    _, client = await connect(month)
    receipt = await client.pull(tmp_path / "a.ndjson", query=query, mask=True, pseudonyms=KEY)
    assert receipt.complete
    masked = {str(call["id"]): call for call in map(json.loads, (tmp_path / "a.ndjson").read_bytes().splitlines())}
    for key in ("client_number", "agent_name"):
        pairs = {(sent[key], masked[str(sent["id"])][key]) for sent in month.records() if sent[key]}
        assert len(pairs) == len(dict(pairs)) == len({token for _, token in pairs}) > 10
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert KEY not in text
        assert not any(sent["client_number"][-10:] in text for sent in month.records())


async def test_a_key_is_refused_before_any_request(connect, dataset, query, tmp_path):
    """It is too short, or not a key."""
    api, client = await connect(dataset)
    for key in ("short", 7):
        with pytest.raises(ConfigurationError, match="key for pseudonyms is"):
            await client.pull(tmp_path / "a.ndjson", query=query, pseudonyms=key)
    assert (api.requests, list(tmp_path.iterdir())) == ([], [])


def test_each_mask_is_another_pull(query):
    """The claim contains the mask's name but not the key, so a journal cannot be used to guess keys."""
    masks = (None, Mask.hidden(), Mask.keyed(KEY), Mask.keyed(KEY * 2))
    claims = [claim_of(query, IST, "a", shape=["" if mask is None else mask.name], range_name=None) for mask in masks]
    assert len({claim.pull for claim in claims}) == 4
    assert len({claim.scope for claim in claims}) == 1
