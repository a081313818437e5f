"""Rewords the library's messages for the command line: a flag in place of a Python argument.

An error of the library names arguments, for people who write Python. A person who types a command knows flags.
"""

from __future__ import annotations

import re

#: Arguments that have another name here, or none. The library spells each phrase exactly so.
PHRASES = {
    "check zone= and array_style=; a proxy that drops query parameters would show the same": (
        "check --zone; a proxy that drops query parameters would show the same"
    ),
    'give zone=ZoneInfo("Europe/London")': "give --zone Europe/London",
    "if that clock is not the account's, check zone=": "if that clock is not the account's, check --zone",
    "max_range=timedelta(days=7)": "--max-range 7d",
    "rate=RateLimit(per_second=1)": "--rate 1",
    "RateLimit(per_second=)": "--rate",
    "give it as token= or SERVETEL_TOKEN": "give it as SERVETEL_TOKEN or with --token-file",
    "give token=, or email= and password=, or set SERVETEL_TOKEN": (
        "set SERVETEL_TOKEN, or give --token-file, or give --email and --password-file"
    ),
    "correct email=": "correct --email",
    "give the token as token=, or email= and password=": "set SERVETEL_TOKEN, or give --token-file",
    "duration='>=60' or duration=('>=', 60)": "--duration '>=60'",
    "check base_url or brand": "check --base-url or --brand",
    "that is not a month": "--month is not a month",
    "both base_url and brand": "both --base-url and --brand",
}
_TOGETHER = re.compile(r"(--[a-z-]+) \([a-z_]+=\w*\)")
_TIMEOUTS = re.compile(r"Timeouts\([a-z=, ]+\)")
_VALUE = re.compile(r'\b(from_date|to_date|account)="([^"]*)"')
#: The first group are not English words. The others may be words or columns, so an equals sign must follow.
#: A name in quotes is a key of a file.
_NAMES = re.compile(
    r"(?<!')\b(?:(from_date|to_date|call_type|base_url|page_size|max_range)\b=?"
    r"|(direction|agents|department|ivr|callerid|destination|did_number|duration|services|broadcast|call_id)=(\S?))"
)


def in_flags(text: str) -> str:
    """Say ``--overwrite`` for ``--overwrite (overwrite=True)``, ``--from-date`` for ``from_date``, and so on."""
    text = _TOGETHER.sub(r"\1", text)
    for phrase, ours in PHRASES.items():
        text = text.replace(phrase, ours)
    text = _TIMEOUTS.sub("--timeout", text)
    text = _VALUE.sub(lambda match: f"{_flag(match[1])} '{match[2]}'", text)
    return _NAMES.sub(lambda match: f"{_flag(match[1] or match[2])}{f' {match[3]}' if match[3] else ''}", text)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
