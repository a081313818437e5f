"""Journals: which pull they belong to, what it has committed, and which versions and pulls are refused."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import msgspec
import pytest

from servetel_async import CallQuery, ResumeMismatchError
from servetel_async.bulk.journal import Header, account_of, claim_of, read_saved
from servetel_async.bulk.ledger import FORMAT, Unreadable
from servetel_async.bulk.windows.certified import Flaw
from servetel_async.protocol.clock import IST
from servetel_async.sinks.sink import Saved
from tests.bulk.facts import ACCOUNT, reading

MAY, JUNE = CallQuery.month("2024-05"), CallQuery.month("2024-06")
encode = msgspec.json.encode


def header(**changes):
    given = {
        "format": FORMAT,
        "pull": "p",
        "account": ACCOUNT,
        "what": "all calls, May",
        "first": "2024-05-01 00:00:00",
        "began_at": "2024-06-01T00:00:00+00:00",
        "version": "0",
    }
    return Header(**{**given, **changes})


def entry(**changes):
    return reading("2024-05-01 00:00:00", "2024-05-31 23:59:59", **changes)


# Claims


def claim(query=MAY, zone=IST, account="a", shape=("",), range_name=None):
    return claim_of(query, zone, account, shape=list(shape), range_name=range_name)


def test_the_same_pull_has_the_same_claim():
    """The claim is the same in any run: a query is compared by what it requests."""
    assert claim() == claim(CallQuery.month("2024-05"))
    assert claim(CallQuery(agents=["1", "2"])) == claim(CallQuery(agents=("1", "2")))


@pytest.mark.parametrize(
    "other",
    [
        {"query": JUNE},
        {"query": MAY.replace(callerid="+919812345678")},
        {"zone": ZoneInfo("Europe/London")},
        {"shape": ("id", "")},
        {"shape": ("masked",)},
        {"range_name": "last 7d"},
    ],
)
def test_another_pull_has_another_claim(other):
    """Query, range, zone, columns and mask all change what is written."""
    assert claim(**other).pull != claim().pull


def test_columns_are_not_run_together():
    """Two lists of columns that join to the same text are different claims."""
    assert claim(shape=("ab", "c")).pull != claim(shape=("a", "bc")).pull


def test_a_named_range_is_the_same_whatever_its_dates():
    """Yesterday's ``last 7d`` is resumed today, but not by another query."""
    assert claim(MAY, range_name="last 7d") == claim(JUNE, range_name="last 7d")
    assert claim(MAY, range_name="last 7d").pull != claim(MAY, range_name="last 8d").pull
    assert claim(MAY, range_name="last 7d").pull != claim(MAY.replace(direction="inbound"), range_name="last 7d").pull


def test_a_scope_is_the_query_without_its_range():
    """A sync compares the scope."""
    assert claim(MAY).scope == claim(JUNE).scope != claim(MAY.replace(direction="inbound")).scope


def test_a_claim_holds_nothing_personal():
    """Other users may be able to read a file beside the output."""
    assert "98123" not in str(claim(MAY.replace(callerid="+919812345678")))


# The saved state


def test_what_was_written_is_read_again():
    """Header and entries come back complete and in order."""
    full = entry(
        counted=None,
        duplicates=1,
        reused_ids=2,
        undated=3,
        kinds={"leaf": 2},
        flaws=(Flaw("a", "b", "c", lost=True),),
        quarantined=(Unreadable("why", "raw"),),
        pages=4,
        requests=5,
        retries=6,
        received=7,
    )
    saved = Saved(encode(header(pull=claim().pull)), [encode(full), encode(entry())])
    assert read_saved(saved, claim(), "may.ndjson") == (header(pull=claim().pull), [full, entry()])


def test_another_pull_is_not_gone_on_from():
    """The error quotes the header to say which pull it was."""
    with pytest.raises(
        ResumeMismatchError,
        match=r"may\.ndjson holds an interrupted pull of something else.*That one was: all calls, May.*--no-resume",
    ):
        read_saved(Saved(encode(header()), []), claim(), "may.ndjson")


@pytest.mark.parametrize(
    ("head", "entries"),
    [
        (encode(header(format=FORMAT + 1, pull=claim().pull)), []),
        (b"{}", []),
        (b"not json", []),
        (b"", []),
        (encode(header(pull=claim().pull)).replace(b"all calls", b"all \xff calls"), []),
        (encode(header(pull=claim().pull)), [b"{}"]),
        (encode(header(pull=claim().pull)), [encode(entry()), b"\xff"]),
        (encode(header(pull=claim().pull)), [encode(entry(at="x")).replace(b'"x"', b'"\xff"')]),
    ],
)
def test_another_version_is_not_gone_on_from(head, entries):
    """It is refused even if its header or one entry cannot be read."""
    with pytest.raises(
        ResumeMismatchError, match=r"Another version of this program.*\. Run that one again.*--no-resume"
    ) as caught:
        read_saved(Saved(head, entries), claim(), "may.ndjson")
    assert "may.ndjson" in str(caught.value)


def test_a_newer_version_may_say_more():
    """Unknown keys do no harm while the format is the same."""
    head = msgspec.json.decode(encode(header(pull=claim().pull)))
    saved = Saved(encode({**head, "mood": "good"}), [encode({**msgspec.to_builtins(entry()), "more": 1})])
    assert read_saved(saved, claim(), "x")[1] == [entry()]


# Accounts


def test_an_interrupted_pull_is_its_accounts():
    """The same account is recognised; the journal keeps its own label."""
    assert account_of(header(), ACCOUNT, "may.ndjson") == ACCOUNT


def test_the_pull_of_another_account_is_not_resumed():
    """Calls of the two accounts would be mixed."""
    with pytest.raises(
        ResumeMismatchError, match=r"may\.ndjson holds an interrupted pull of another account"
    ) as caught:
        account_of(header(), ACCOUNT._replace(fingerprint="ba9876543210"), "may.ndjson")
    assert "0123456789ab" in caught.value.why
    assert "--no-resume" in caught.value.fix
