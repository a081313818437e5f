"""Pages, the kinds of damage to them, and what an error may show of them.

The letters Q, X, J and Z are in every text of the pages and in no error of ours, and no error holds a long number, so
any leak of a page is detected.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from servetel_async import CallQuery
from tests.transport.leaks import shown

SAMPLE = json.loads((Path(__file__).parent.parent / "protocol" / "data" / "page.json").read_bytes())
DAY = CallQuery(from_date="2024-05-02", to_date="2024-05-02").window()
PLAIN = ("id", "date", "time", "end_stamp", "direction", "status")


def secret(value, key=""):
    """The same, with letters in each of its texts that no error of ours holds."""
    if isinstance(value, dict):
        return {name: secret(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [secret(item) for item in value]
    return f"QXJZ {value} ZJXQ" if isinstance(value, str) and key not in PLAIN else value


RECORD = secret(SAMPLE["results"][0]) | {"client_number": "+910000077777", "date": "2024-05-02", "time": "19:19:59"}
SHORT = {name: RECORD[name] for name in (*PLAIN, "client_number", "agent_name", "notes", "call_duration", "circle")}


def page(*records, **fields):
    envelope = {"count": len(records), "limit": 100, "size": len(records), "page": 1, "results": list(records)}
    return json.dumps(envelope | fields).encode()


BASES = (
    page(RECORD),
    page(SHORT),
    page(SHORT, SHORT | {"id": "66aa"}),
    page(),
    page(SHORT, success=True),
    page(SHORT, results={"1": SHORT, "0": SHORT | {"id": "66aa"}}),
    page(SHORT).replace(b", ", b",\r\n  "),
    page(SHORT).decode().encode("utf-16"),
    b'{"success": false, "message": "not for 910000077777 of a@example.com"}',
    b'{"success": false, "errors": {"from_date": ["not a day"]}, "retry_after": "910000077777"}',
    b"<html><title>QXJZ</title> 910000077777</html>",
)
#: Texts that are inserted into a page; each is a kind of its own.
PIECES = {
    "NUL": b"\x00",
    "bad UTF-8": b"\xff\xc3(\xed\xa0\x80",
    "BOM": b"\xef\xbb\xbf",
    "lone surrogate": b"\\ud83d",
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "large number": b"1e999",
    "huge number": b"7" * 5_000,
    "number of 2**64": b"18446744073709551616",
    "deep list": b"[" * 3_000,
    "deep list, closed": b"[" * 1_200 + b"]" * 1_200,
    "deep object": b'{"QXJZ":' * 1_200,
    "key again": b'"id": "QXJZ-again", "results": [], ',
    "ours": b'"servetel_async:extra": {"QXJZ": 1}, "servetel_async:zone": "QXJZ", ',
    "unknown key": b'"QXJZ": [{"QXJZ": "QXJZ"}], ',
    "refusal": b'"success": false, "message": "not so", ',
    "quote": b'"',
    "escape": b"\\",
    "bracket": b"]}",
    "comment": b"/* QXJZ */",
}


# Damage ------------------------------------------------------------------------------------------------------------------


def flip_bits(body, dice):
    damaged = bytearray(body)
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def cut_off(body, dice):
    return body[: dice.randrange(len(body))]


def leave_out(body, dice):
    first = dice.randrange(len(body))
    return body[:first] + body[first + dice.choice((1, 2, 10, 100)) :]


def say_again(body, dice):
    first = dice.randrange(len(body))
    return body[:first] + body[first : first + dice.choice((1, 20, 300))] * 2 + body[first:]


def splice(body, dice):
    other = dice.choice(BASES)
    return body[: dice.randrange(len(body))] + other[dice.randrange(len(other)) :]


def replace_value(body, dice):
    """Replace one value by another: the page mostly stays JSON."""
    values = list(re.finditer(rb'(?<=: )("[^"]*"|[-\d.]+|null|true|false|\[\]|\{\})', body))
    if not values:
        return b"[" + body + b"]"
    place = dice.choice(values)
    value = dice.choice(
        (b"null", b"[]", b"{}", b"0", b"-1", b"1.5", b"true", b'""', b'"QXJZ"', b'{"1": "QXJZ"}', b"9" * 30)
    )
    return body[: place.start()] + value + body[place.end() :]


def change_digits(body, dice):
    """Other numbers, dates and lengths: the page stays JSON."""
    changed = bytearray(body)
    places = [match.start() for match in re.finditer(rb"\d", body)] or [0]
    for place in dice.choices(places, k=dice.choice((1, 3, 30))):
        changed[place] = dice.choice(b"0123456789")
    return bytes(changed)


def put_in(name):
    def put(body, dice):
        places = [match.start() for match in re.finditer(rb'(?<=[{\[:,"] )|"', body)] if dice.random() < 0.7 else []
        place = dice.choice(places) if places else dice.randrange(len(body) + 1)
        return body[:place] + PIECES[name] + body[place:]

    return put


DAMAGE = {
    "bits flipped": flip_bits,
    "cut off": cut_off,
    "left out": leave_out,
    "said again": say_again,
    "spliced": splice,
    "another value": replace_value,
    "other digits": change_digits,
    **{name: put_in(name) for name in PIECES},
}
STATUSES = (*[200] * 40, 204, 304, 400, 401, 403, 422, 429, 500, 503)


def damaged(body, dice, counted):
    """Return the page with one to three kinds of damage."""
    for _ in range(dice.choice((1, 1, 1, 1, 2, 3))):
        kind = dice.choice(("another value", "other digits")) if dice.random() < 0.65 else dice.choice(list(DAMAGE))
        counted[kind] += 1
        body = DAMAGE[kind](body or b" ", dice)
    return body


# What an error may say ------------------------------------------------------------------------------------------------------

#: What an error may say of a body: its length, a hash, the page number and the count that it is about, a time to wait.
TOLD = re.compile(r"\d+ bytes|sha256 [0-9a-f]{12}|page \d+|counts \d+|\b\d+ calls|retry_after': [\d.e+]+")
#: The server's message is quoted, with numbers and addresses masked.
QUOTED = re.compile(r': "(.*)"', re.DOTALL)


def assert_nothing_of_it(error):
    """An error holds no text and no number of the page, except for the server's message."""
    quoted = "".join(QUOTED.findall(error.what))
    assert not re.search(r"\d{6,}|@example", quoted)
    for form, text in shown(error).items():
        if form == "traceback with locals":
            continue  # its frames are those of this file
        for written in (quoted, repr(quoted)[1:-1], quoted.encode().decode("latin-1")):
            text = text.replace(written, "") if written else text
        found = re.search(r"[QXJZ]{3}|\d{6,}", TOLD.sub("", text))
        assert not found, f"{found[0]!r} in the {form} of {type(error).__name__}"
