"""Headers of a hostile server: each names an algorithm, a size or a time, and is damaged as pages are."""

from __future__ import annotations

CHARSETS = (
    "utf-8",
    "UTF_8",
    '"utf-8"',
    "utf-16",
    "utf-32-be",
    "latin-1",
    "cp1252",
    "utf-7",
    "punycode",
    "idna",
    "unicode_escape",
    "raw_unicode_escape",
    "zlib_codec",
    "base64",
    "uu",
    "rot13",
    "undefined",
    "QXJZ",
    "utf-8; charset=punycode",
    "",
)
DATES = (
    "Thu, 02 May 2024 10:00:00 GMT",
    "Thu, 02 May 2024 10:00:00 +9999",
    "Thu, 31 Dec 9999 23:59:59 GMT",
    "Mon, 01 Jan 0001 00:00:00 GMT",
    "Thu, 02 May 99999999999999999999 10:00:00 GMT",
    "Thu, 02 May 2024 99:99:99 GMT",
    "02 May 24",
    "QXJZ",
    "",
)
WAITS = ("0", "1", "-1", "120", "1e9", "1" * 401, "nan", "inf", "0x10", "QXJZ 910000077777", *DATES)
CHALLENGES = (
    "Bearer",
    'Bearer error="invalid_token"',
    'Bearer realm="QXJZ", error="expired"',
    'Bearer error="' + "x" * 99,
)
#: Replacements for a part of a header: runs on which a careless pattern backtracks.
RUNS = ("a", " ", "=", ";", '"', "charset=", "7", ",", "\t", "Bearer ", "error=", "é")
#: Characters of a header that aiohttp accepts.
LARGEST = 8_000


def mutated_headers(dice, counted):
    """Some headers, half of them valid, and their damage."""
    headers = {}
    for name, kinds, form in (
        ("content-type", CHARSETS, "application/json; charset={}"),
        ("date", DATES, "{}"),
        ("retry-after", WAITS, "{}"),
        ("www-authenticate", CHALLENGES, "{}"),
    ):
        if dice.random() < 0.4:
            headers[name] = form.format(dice.choice(kinds))
            counted[f"header {name}"] += 1
    if headers and dice.random() < 0.5:
        name = dice.choice(list(headers))
        text, run = headers[name], dice.choice(RUNS)
        place = dice.randrange(len(text) + 1)
        kind = dice.choice(("cut off", "one character", "a run", "a long run"))
        counted[f"header, {kind}"] += 1
        times = {"cut off": 0, "one character": 1, "a run": 30, "a long run": LARGEST // len(run)}[kind]
        rest = "" if kind == "cut off" else text[place + dice.choice((0, 1, 9)) :]
        headers[name] = (text[:place] + run * times + rest)[:LARGEST]
    return headers
