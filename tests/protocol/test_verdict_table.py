"""Rows 41 to 68 of the fault catalogue (HTTP semantics): from a reply, or a missing one, to what happens next.

This file tests the pure part: ``judge``, ``judge_fault``, ``PageReader`` and ``Reply``. The effects of a verdict are tested elsewhere, over
sockets, in ``tests/transport/``: that a 429 pauses every worker (41), that concurrency shrinks (44), that a 429 for ever ends at the deadline
(45), that a 401 takes one single-flight renewal and one replay (46, 47), that redirects are not followed and the token not sent on (58 to 61),
that no cookie is kept (66) and no cached page requested (67). ``ROWS`` at the end names the test of each row.
"""

from __future__ import annotations

import datetime as dt
import json
import pickle
import time

import pytest

from servetel_async.errors import (
    AuthenticationError,
    BodyTooLargeError,
    ConnectionFailedError,
    MalformedResponseError,
    PermissionDeniedError,
    RateLimitError,
    RequestRejectedError,
    RequestTimeoutError,
    ServerError,
    TLSError,
    WrongAddressError,
)
from servetel_async.protocol.clock import IST
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.reply import MESSAGE_LENGTH, Reply, says_no, server_message
from servetel_async.protocol.verdict import FAULTS, OK, Action, Fault, Unacceptable, is_slow, judge, judge_fault
from tests.protocol.three_parts import assert_says_what_and_what_to_do

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
PHONE = "+919800000001"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijklmnop"


def refusal(body, headers=None):
    """The verdict on a 200 that is no page."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = Reply(200, body, headers or {})
    assert judge(reply, NOW) is OK
    with pytest.raises(Unacceptable) as caught:
        PageReader().read(reply, NOW)
    verdict = caught.value.verdict
    assert verdict.error.status == 200
    return verdict


# By status --------------------------------------------------------------------------------------------------------------

NO = b'{"success":false,"message":"no"}'
STATUSES = [
    pytest.param(
        429, b'{"success":"false","message":"Too many requests."}', Action.RETRY, RateLimitError, id="row-44-429"
    ),
    pytest.param(429, b"", Action.RETRY, RateLimitError, id="row-44-429-empty"),
    pytest.param(
        401, b'{"success":false,"message":"Token has expired"}', Action.RENEW, AuthenticationError, id="row-46-401"
    ),
    pytest.param(401, b"", Action.RENEW, AuthenticationError, id="row-46-401-empty"),
    pytest.param(401, b"<html>", Action.RENEW, AuthenticationError, id="row-46-401-html"),
    pytest.param(403, NO, Action.FAIL, PermissionDeniedError, id="row-48-403-success-false"),
    pytest.param(403, b'{"success":"false"}', Action.FAIL, PermissionDeniedError, id="row-48-403-success-text"),
    pytest.param(403, b'{"success":true}', Action.FAIL, PermissionDeniedError, id="row-48-403-success-true"),
    pytest.param(403, b'{"message":"Forbidden"}', Action.FAIL, WrongAddressError, id="row-48-403-gateway"),
    pytest.param(403, b"Missing Authentication Token", Action.FAIL, WrongAddressError, id="row-48-403-text"),
    pytest.param(403, b"[]", Action.FAIL, WrongAddressError, id="row-48-403-list"),
    pytest.param(404, b"", Action.FAIL, WrongAddressError, id="row-49-404"),
    pytest.param(404, NO, Action.FAIL, WrongAddressError, id="row-49-404-json"),
    pytest.param(400, NO, Action.FAIL, RequestRejectedError, id="row-50-400"),
    pytest.param(422, b'{"errors":{"limit":["too large"]}}', Action.FAIL, RequestRejectedError, id="row-50-422"),
    *(
        pytest.param(status, b"<html>", Action.RETRY, ServerError, id=f"row-51-{status}")
        for status in (408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524)
    ),
    pytest.param(599, b"", Action.RETRY, ServerError, id="row-51-unknown-5xx"),
    *(pytest.param(status, b"", Action.FAIL, ServerError, id=f"row-52-{status}") for status in (501, 505, 511)),
    pytest.param(413, b"", Action.FAIL, RequestRejectedError, id="row-53-413"),
    pytest.param(414, b"", Action.FAIL, RequestRejectedError, id="row-53-414"),
    pytest.param(402, b"", Action.FAIL, RequestRejectedError, id="row-50-other-4xx"),
    *(
        pytest.param(status, b"", Action.FAIL, MalformedResponseError, id=f"row-57-{status}")
        for status in (100, 201, 202, 204, 206, 304)
    ),
    *(
        pytest.param(status, b"", Action.FAIL, WrongAddressError, id=f"row-58-61-{status}")
        for status in (300, 301, 302, 303, 307, 308)
    ),
]


@pytest.mark.parametrize(("status", "body", "action", "error"), STATUSES)
def test_by_status(status, body, action, error):
    """Each status but 200 leads to this action and, after the last attempt, to this error with the status."""
    verdict = judge(Reply(status, body), NOW)
    assert (verdict.action, type(verdict.error), verdict.error.status) == (action, error, status)
    assert (verdict.wait, verdict.throttled) == (None, status == 429)


def test_a_200_is_ok_until_its_body_is_read():
    """Row 57: only a 200 reaches the reader of pages."""
    assert judge(Reply(200, b"anything"), NOW) is OK


def test_every_status_has_a_verdict():
    """Row 51: each status but 200 ends in an error, and none is taken for a page."""
    for status in range(100, 700):
        verdict = judge(Reply(status, b""), NOW)
        assert (verdict.error is None) == (status == 200)
        if status != 200:
            assert_says_what_and_what_to_do(verdict.error)
        assert verdict.action is not Action.OK or status == 200


def test_each_verdict_has_an_error_of_its_own():
    """Row 47: two tasks with the same status do not share an error, because each error describes one call."""
    for status in (401, 429, 500, 404):
        assert judge(Reply(status, b""), NOW).error is not judge(Reply(status, b""), NOW).error


def test_a_captive_portal_is_named():
    """Row 52: a 511 names its cause."""
    assert "captive portal" in str(judge(Reply(511, b""), NOW).error)


@pytest.mark.parametrize(("status", "word"), [(301, "redirect"), (403, "gateway"), (404, "nothing at this path")])
def test_a_wrong_address_says_why(status, word):
    """Rows 48, 49, 58: three causes of a wrong address have three reasons and one fix."""
    text = str(judge(Reply(status, b"", {"location": "https://elsewhere.example/?token=abc"}), NOW).error)
    assert word in text
    assert "base_url" in text
    assert "elsewhere" not in text


# Waiting ----------------------------------------------------------------------------------------------------------------

WAITS = [
    pytest.param("5", 5.0, id="row-41-seconds"),
    pytest.param("0", 0.0, id="row-41-zero"),
    pytest.param("2.5", 2.5, id="row-41-decimals"),
    pytest.param(" 7 ", 7.0, id="row-41-spaces"),
    pytest.param("Tue, 14 Nov 2023 22:14:20 GMT", 60.0, id="row-42-date"),
    pytest.param("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0, id="row-42-two-digit-year"),
    pytest.param("Tue Nov 14 22:14:20 2023", 60.0, id="row-42-asctime"),
    pytest.param("Tue, 14 Nov 2023 22:14:20 -0000", 60.0, id="row-42-unknown-zone"),
    pytest.param("Wed, 15 Nov 2023 03:44:20 +0530", 60.0, id="row-42-wrong-zone"),
    pytest.param("Tue, 14 Nov 2023 22:12:20 GMT", 0.0, id="row-42-past"),
    pytest.param("Mon, 01 Jan 0001 00:00:00 GMT", 0.0, id="row-42-long-past"),
    pytest.param("Tue, 99 Nov 2023 22:14:20 GMT", None, id="row-42-no-such-day"),
    pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", 251_702_300_799.0, id="row-43-date-far-away"),
    pytest.param("1000000000", 1e9, id="row-43-absurd"),
    pytest.param("-1", None, id="row-43-negative"),
    pytest.param("+5", None, id="row-43-signed"),
    pytest.param("NaN", None, id="row-43-nan"),
    pytest.param("inf", None, id="row-43-inf"),
    pytest.param("1e309", None, id="row-43-1e309"),
    pytest.param("1e3", None, id="row-43-exponent"),
    pytest.param("soon", None, id="row-43-word"),
    pytest.param("1 day", None, id="row-43-words"),
    pytest.param("", None, id="row-43-empty"),
    pytest.param("5, 7", None, id="row-43-two-headers"),
    pytest.param("0x10", None, id="row-43-hex"),
    pytest.param("1_000", None, id="row-43-underscore"),
]
ZONES = pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])


@pytest.fixture
def clock_zone(monkeypatch, zone):
    """This computer is in another zone, which must not affect any header."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@ZONES
@pytest.mark.parametrize(("header", "seconds"), WAITS)
def test_retry_after(header, seconds, clock_zone):
    """``Retry-After`` in seconds; an invalid value leaves the wait to our own backoff."""
    verdict = judge(Reply(429, b"", {"retry-after": header}), NOW)
    assert verdict.wait == seconds
    assert verdict.error.retry_after == seconds


@ZONES
def test_two_headers_of_which_one_is_a_date(clock_zone):
    """Row 43: the first date counts, or nothing; the zone of this computer does not matter."""
    assert judge(Reply(429, b"", {"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT, 5"}), NOW).wait in (None, 60.0)


@pytest.mark.parametrize("digits", [12, 13, 20, 400])
def test_an_absurd_wait_is_not_turned_into_a_short_one(digits):
    """Row 43: a wait above the cap, with any number of digits, is an error, never our own short backoff."""
    assert judge(Reply(429, b"", {"retry-after": "9" * digits}), NOW).wait > 1e6


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        pytest.param('{"retry_after":30}', 30.0, id="row-41-body-number"),
        pytest.param('{"retry_after":1.5}', 1.5, id="row-41-body-decimal"),
        pytest.param('{"retry_after":"30"}', 30.0, id="row-41-body-text"),
        pytest.param('{"retry_after":"2023-11-15 03:44:20"}', 60.0, id="row-42-body-ist"),
        pytest.param('{"retry_after":"2023-11-14 03:44:20"}', 0.0, id="row-42-body-ist-past"),
        pytest.param('{"retry_after":"2023-11-14T22:14:20+00:00"}', 60.0, id="row-42-body-iso"),
        pytest.param('{"retry_after":"later"}', None, id="row-43-body-word"),
        pytest.param('{"retry_after":-1}', None, id="row-43-body-negative"),
        pytest.param('{"retry_after":true}', None, id="row-43-body-true"),
        pytest.param('{"retry_after":1e309}', None, id="row-43-body-1e309"),
        pytest.param('{"retry_after":NaN}', None, id="row-43-body-nan"),
        pytest.param('{"retry_after":[5]}', None, id="row-43-body-list"),
        pytest.param('{"retry_after":null}', None, id="row-43-body-null"),
        pytest.param("[30]", None, id="row-43-body-no-object"),
    ],
)
@ZONES
def test_retry_after_in_the_body(body, seconds, clock_zone):
    """Without the header, ``retry_after`` in the body counts, as seconds or as India's wall clock."""
    assert judge(Reply(429, body.encode()), NOW).wait == seconds


def test_the_header_goes_before_the_body():
    """Row 41: if both exist, the header counts."""
    assert Reply(429, b'{"retry_after":30}', {"retry-after": "5"}).retry_after(NOW) == 5.0


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        pytest.param(DATE, 60.0, id="row-42-server-clock"),
        pytest.param("Tue, 14 Nov 2023 22:13:50 GMT", 30.0, id="row-68-clock-half-a-minute-on"),
        pytest.param("Tue Nov 14 22:13:20 2023", 60.0, id="row-68-asctime"),
        pytest.param("Tue, 14 Nov 2023 22:15:20 GMT", 0.0, id="row-68-clock-past-it"),
    ],
)
@pytest.mark.parametrize("skew", [0, 3600, -86_400, 40 * 86_400])
@ZONES
def test_a_date_is_counted_from_the_servers_clock(date, seconds, skew, clock_zone):
    """Row 42 and 68: the wait is measured by the server's ``Date``, however wrong this computer's clock is."""
    headers = {"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": date}
    assert Reply(429, b"", headers).retry_after(NOW + skew) == seconds


@pytest.mark.parametrize("date", ["soon", "", "Tue, 99 Nov 2023 22:14:20 GMT"])
def test_an_unreadable_date_leaves_our_own_clock(date):
    """Row 68: without a readable ``Date``, this computer's clock is used."""
    headers = {"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": date}
    assert Reply(429, b"", headers).retry_after(NOW) == 60.0


def test_a_skewed_date_changes_nothing_else():
    """Row 68: ``Date`` affects only dates; seconds stay seconds."""
    assert Reply(429, b"", {"retry-after": "5", "date": "Thu, 01 Jan 1970 00:00:00 GMT"}).retry_after(NOW) == 5.0


def test_a_503_may_ask_for_time_without_slowing_the_account():
    """Row 51: only the request itself waits for the ``Retry-After`` of a server error."""
    verdict = judge(Reply(503, b"", {"retry-after": "5"}), NOW)
    assert (verdict.action, verdict.wait, verdict.throttled) == (Action.RETRY, 5.0, False)


# A 200 that is an error -------------------------------------------------------------------------------------------------

REFUSALS = [
    pytest.param(
        {"success": False, "message": "Token has expired"}, Action.RENEW, AuthenticationError, None, id="row-56-token"
    ),
    pytest.param(
        {"success": "false", "message": "Unauthenticated."},
        Action.RENEW,
        AuthenticationError,
        None,
        id="row-56-unauthenticated",
    ),
    pytest.param(
        {"success": 0, "message": "Unauthorized"}, Action.RENEW, AuthenticationError, None, id="row-56-unauthorized"
    ),
    pytest.param(
        {"success": "0", "message": "unauthorised"}, Action.RENEW, AuthenticationError, None, id="row-56-unauthorised"
    ),
    pytest.param(
        {"success": False, "message": "Too many requests."}, Action.RETRY, RateLimitError, None, id="row-56-rate"
    ),
    pytest.param(
        {"success": False, "message": "Rate limit exceeded"}, Action.RETRY, RateLimitError, None, id="row-56-rate-limit"
    ),
    pytest.param(
        {"success": " False ", "message": "bad date"}, Action.RETRY, RequestRejectedError, 1, id="row-56-other"
    ),
    pytest.param({"success": False}, Action.RETRY, RequestRejectedError, 1, id="row-56-silent"),
    pytest.param(
        {"success": False, "results": [], "count": 0}, Action.RETRY, RequestRejectedError, 1, id="row-56-with-results"
    ),
    pytest.param({"error": "Token has expired"}, Action.RENEW, AuthenticationError, None, id="row-56-error-token"),
    pytest.param({"error": "something"}, Action.RETRY, RequestRejectedError, 1, id="row-56-error-other"),
    pytest.param({"message": "Too many requests."}, Action.RETRY, RateLimitError, None, id="row-56-message-rate"),
    pytest.param({"errors": {"limit": ["too large"]}}, Action.RETRY, RequestRejectedError, 1, id="row-56-errors"),
]


@pytest.mark.parametrize(("body", "action", "error", "retries"), REFUSALS)
def test_a_200_that_says_no(body, action, error, retries):
    """Row 56: an error sent as a success is judged by its message, and never becomes an empty page."""
    verdict = refusal(body)
    assert (verdict.action, type(verdict.error), verdict.retries) == (action, error, retries)
    assert verdict.throttled == (error is RateLimitError)
    assert_says_what_and_what_to_do(verdict.error)
    assert verdict.error.status == 200


@pytest.mark.parametrize("said", ["Token has expired", "no such agent"])
def test_what_the_server_said_is_quoted(said):
    """Row 56: the error quotes the server's message if there is one."""
    assert f': "{said}"' in str(refusal({"success": False, "message": said}).error)
    assert '"' not in str(refusal({"success": False}).error)
    assert judge(Reply(500, b""), NOW).error.what == "the server failed (HTTP 500)"


def test_a_refusal_that_names_a_moment_is_counted_from_our_clock_where_the_server_has_none():
    """Row 43: the wait lasts until that moment."""
    then = dt.datetime.fromtimestamp(NOW + 7, IST).strftime("%Y-%m-%d %H:%M:%S")
    assert refusal({"success": False, "message": "Too many requests.", "retry_after": then}).wait == 7.0


def test_a_large_200_that_says_no():
    """Row 56: large bodies are tested for their shape too."""
    body = {
        "success": False,
        "message": "Token has expired",
        "results": [{"id": str(index), "notes": "x" * 300} for index in range(1000)],
    }
    assert type(refusal(body).error) is AuthenticationError


def test_a_200_that_says_no_and_when_to_come_back():
    """Row 56 and 41: its wait is obeyed too."""
    assert refusal({"success": False, "message": "Too many requests.", "retry_after": 9}).wait == 9.0


@pytest.mark.parametrize("odd", ["NaN", '"a\\ud800"', '"a\nb"'])
def test_a_strange_200_that_says_no(odd):
    """Row 56 and 70: a refusal is read even from JSON that is not strict."""
    verdict = refusal(('{"success":false,"message":"Token has expired","x":' + odd + "}").encode())
    assert (verdict.action, type(verdict.error)) == (Action.RENEW, AuthenticationError)


@pytest.mark.parametrize("success", [True, "true", 1, "1", "yes", None, [], {}, "", 2], ids=repr)
def test_what_is_no_refusal(success):
    """Row 56: only PHP's spellings of false mean failure."""
    assert not says_no({"success": success})
    assert (
        len(
            PageReader()
            .read(Reply(200, json.dumps({"success": success, "results": [{"id": "1"}]}).encode()), NOW)
            .rows()
        )
        == 1
    )


@pytest.mark.parametrize("success", [False, "false", "False", " FALSE ", 0, "0", 0.0], ids=repr)
def test_what_is_a_refusal(success):
    """Row 56: false, ``"false"``, 0 and ``"0"`` at any status."""
    assert says_no({"success": success})


@pytest.mark.parametrize("payload", [None, [], "false", 0, {}, {"message": "x"}], ids=repr)
def test_only_an_object_can_refuse(payload):
    """Row 56: only an object has ``success``."""
    assert not says_no(payload)


# A 200 that is no page --------------------------------------------------------------------------------------------------

NO_PAGES = [
    pytest.param(b"<!doctype html><title>Login</title>", 1, "web page", id="row-55-html"),
    pytest.param(b" \r\n\t<html>Maintenance</html>", 1, "web page", id="row-55-html-after-space"),
    pytest.param(b"\xef\xbb\xbf<html>", 1, "web page", id="row-55-html-after-bom"),
    pytest.param(b"", 3, "empty", id="row-69-empty"),
    pytest.param(b" \n", 3, "empty", id="row-69-blank"),
    pytest.param(b"Service Unavailable", 3, "JSON", id="row-55-text"),
    pytest.param(b"null", 3, "", id="row-55-null"),
    pytest.param(b"[]", 3, "", id="row-55-list"),
    pytest.param(b"{}", 3, "no list of results", id="row-56-empty-object"),
    pytest.param(b'{"count":0}', 3, "no list of results", id="row-56-no-results"),
    pytest.param(b'{"count":0,"size":0,"results":"none"}', 3, "not a list", id="row-73-text"),
    pytest.param(b'{"count":0,"size":0,"results":0}', 3, "not a list", id="row-73-number"),
    pytest.param(b'{"count":0,"size":0,"results":false}', 3, "not a list", id="row-73-false"),
]


@pytest.mark.parametrize(("body", "retries", "why"), NO_PAGES)
def test_a_200_that_is_no_page(body, retries, why):
    """It is retried (HTML once), then malformed; the error has reason, length and digest, never content."""
    verdict = refusal(body)
    assert (verdict.action, type(verdict.error), verdict.retries) == (Action.RETRY, MalformedResponseError, retries)
    assert why in verdict.error.why
    assert f"({len(body)} bytes, sha256 " in verdict.error.why


def test_the_error_holds_nothing_of_the_body():
    """Row 54, F12: neither the text nor the state of the error holds server data."""
    body = ('{"results":[{"client_number":"' + PHONE + '","recording_url":"https://x.example/?token=' + TOKEN).encode()
    error = refusal(body).error
    shown = f"{error!r} {error} {vars(error)} {error.__cause__!r} {error.__context__!r}"
    assert PHONE not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "application/octet-stream", "", "nonsense"])
def test_a_wrong_content_type_is_accepted_if_it_decodes(content_type):
    """Row 62: the body decides, not its label."""
    assert (
        len(PageReader().read(Reply(200, b'{"results":[{"id":"1"}]}', {"content-type": content_type}), NOW).rows()) == 1
    )


TEXT = '{"results":[{"id":"1","agent_name":"Zoë Ünal"}]}'
ENCODINGS = [
    pytest.param(b"\xef\xbb\xbf" + TEXT.encode(), "application/json", id="row-63-bom"),
    pytest.param(TEXT.encode("utf-16"), "application/json", id="row-64-utf-16-bom"),
    pytest.param(b"\xfe\xff" + TEXT.encode("utf-16-be"), "application/json", id="row-64-utf-16-be-bom"),
    pytest.param(TEXT.encode("utf-16-le"), "application/json; charset=utf-16le", id="row-64-utf-16-charset"),
    pytest.param(TEXT.encode("utf-32-be"), "application/json; charset=UTF_32_BE", id="row-64-utf-32-charset"),
    pytest.param(TEXT.encode("iso-8859-1"), "application/json; charset=ISO-8859-1", id="row-64-latin-1"),
    pytest.param(TEXT.encode("iso-8859-1"), "application/json;charset = 'iso-8859-1'", id="row-64-quoted"),
    pytest.param(TEXT.encode("cp1252"), 'application/json; charset="windows-1252"; q=1', id="row-64-windows"),
    pytest.param(TEXT.encode(), "application/json; charset=UTF8", id="row-64-utf-8"),
    pytest.param(TEXT.encode(), "application/json; charset=us-ascii", id="row-64-ascii-that-lies"),
]


@pytest.mark.parametrize(("body", "content_type"), ENCODINGS)
def test_other_encodings(body, content_type):
    """Rows 63, 64: a byte-order mark is removed, and other charsets become UTF-8."""
    page = PageReader().read(Reply(200, body, {"content-type": content_type}), NOW)
    assert page.open() == ("1", "1", 1)
    assert [record.agent_name for records in page.slices() for record in records] == ["Zoë Ünal"]


@pytest.mark.parametrize(
    "charset",
    [
        *("nonsense", "hex", "base64", "rot13", "undefined", "u\0x", "\udcff", "x" * 50),
        *("punycode", "idna", "utf-7", "unicode_escape", "raw_unicode_escape", "mbcs", "cp037", "gb18030", "zlib"),
    ],
    ids=ascii,
)
def test_another_charset_is_an_error_at_once(charset):
    """Row 64: only charsets that APIs use are decoded. Python knows others, and punycode takes quadratic time."""
    headers = {"content-type": f"application/json; charset={charset}"}
    verdict = refusal(b'{"results":[{"id":"1"}]}', headers)
    assert type(verdict.error) is MalformedResponseError
    assert "charset is not UTF-8" in str(verdict.error)
    assert verdict.action is Action.FAIL
    assert Reply(500, b'{"message":"x"}', headers).payload() is None


@pytest.mark.parametrize("charset", ["utf-16", "utf_32", "UTF-32LE", "utf-16-be"])
def test_a_body_in_another_charset_than_it_says_is_malformed(charset):
    """Row 64: it may have been cut, so it is requested again."""
    verdict = refusal(b'{"results":[{"id":"1"}]}', {"content-type": f"application/json; charset={charset}"})
    assert type(verdict.error) is MalformedResponseError
    assert verdict.action is Action.RETRY


def test_a_web_page_in_another_charset_is_a_web_page():
    """Row 64: a maintenance page is retried, whatever its charset."""
    verdict = refusal(b"<html>", {"content-type": "text/html; charset=koi8-r"})
    assert "web page" in str(verdict.error)
    assert verdict.action is Action.RETRY


@pytest.mark.parametrize("body", [b"\xff\xfe{", b"\xfe\xff\xd8\x00", b"\xef\xbb\xbf", b"\xef\xbb\xbf{"])
def test_a_broken_encoding_is_malformed(body):
    """Row 64: such a body starts as UTF-16 or with a mark, and continues as something else."""
    assert type(refusal(body).error) is MalformedResponseError


# What the server said ---------------------------------------------------------------------------------------------------

MESSAGES = [
    pytest.param({"message": "Invalid date"}, "Invalid date", id="row-50-text"),
    pytest.param({"message": ["one", "two"]}, "one two", id="row-50-list"),
    pytest.param({"message": {"limit": ["too large", "odd"]}}, "limit: too large limit: odd", id="row-50-fields"),
    pytest.param({"errors": {"from_date": ["bad"]}}, "from_date: bad", id="row-50-errors"),
    pytest.param({"message": "", "error": "gone"}, "gone", id="row-50-error"),
    pytest.param({"message": 5}, "", id="row-50-number"),
    pytest.param({"message": None}, "", id="row-50-null"),
    pytest.param({}, "", id="row-50-nothing"),
    pytest.param([], "", id="row-50-no-object"),
    pytest.param(None, "", id="row-50-none"),
    pytest.param({"message": "a\x1b[31mred\r\nb\u202e\u0085\x9b\x00c"}, "a [31mred b c", id="row-50-control"),
    pytest.param({"message": f"number {PHONE} is unknown"}, "number +… is unknown", id="row-50-phone"),
    pytest.param({"message": "call 98000-000 01 or (022) 2345678"}, "call … or (…", id="row-50-phone-spaced"),
    pytest.param({"message": "mail jo.doe@example.org now"}, "mail … now", id="row-50-mail"),
    pytest.param({"message": "mail @example.org now"}, "mail … now", id="row-50-half-a-mail"),
    pytest.param({"message": f"Bearer {TOKEN} is wrong"}, "Bearer … is wrong", id="row-50-token"),
    pytest.param({"message": "HTTP 422, limit 1000"}, "HTTP 422, limit 1000", id="row-50-short-numbers-stay"),
    pytest.param({"message": "lone \ud800 surrogate"}, "lone surrogate", id="row-50-surrogate"),
    pytest.param({"message": [[[["deep"]]]]}, "", id="row-50-too-deep"),
]


@pytest.mark.parametrize(("payload", "said"), MESSAGES)
def test_what_the_server_said(payload, said):
    """Row 50: one printable line, without numbers, addresses and tokens."""
    assert server_message(payload) == said


@pytest.mark.parametrize(
    "text",
    ["word " * 400_000, "x" * 2_000_000, "9 " * 1_000_000, "a@" * 1_000_000],
    ids=["words", "letters", "digits", "mail"],
)
def test_a_long_message_is_cut_and_costs_nothing(text):
    """Rows 50, 54: at most 200 characters are kept, in time that does not grow with the message."""
    begun = time.perf_counter()
    assert len(server_message({"message": text})) <= MESSAGE_LENGTH
    assert time.perf_counter() - begun < 0.5


def test_the_message_is_quoted_in_the_error():
    """Row 50: the error quotes the server's objection, sanitised, and says what to check."""
    body = json.dumps({"message": f"from_date is wrong\x1b[2J for {PHONE}"}).encode()
    assert str(judge(Reply(422, body), NOW).error) == (
        'The API refuses the request (HTTP 422: "from_date is wrong [2J for +…"). Check the filters and the dates.'
    )


def test_two_megabytes_of_html_leave_no_trace():
    """Row 54: an error page is retried, and its error stays short."""
    verdict = judge(Reply(502, b"<html>" + b"x" * 2_000_000), NOW)
    assert verdict.action is Action.RETRY
    assert len(str(verdict.error)) < 200


@pytest.mark.parametrize("status", [400, 401, 403, 422, 500, 503])
def test_no_error_holds_what_must_not_be_shown(status):
    """Row 50, 54: at no status does the error hold the message's number or token."""
    body = json.dumps({"success": False, "message": f"{TOKEN} {PHONE} \x1b]8;;"}).encode()
    error = judge(Reply(status, body), NOW).error
    shown = f"{error} {error!r} {vars(error)}"
    assert not any(secret in shown for secret in (TOKEN, PHONE, "\x1b"))


def test_a_reply_does_not_print_its_body():
    """F12: a traceback with locals shows a status, not the calls."""
    assert repr(Reply(200, b'{"x":1}', {"date": DATE})) == "Reply(status=200)"


# Without a reply --------------------------------------------------------------------------------------------------------

FAULT_TABLE = {
    Fault.REFUSED: (Action.RETRY, ConnectionFailedError, None),
    Fault.UNRESOLVED: (Action.RETRY, ConnectionFailedError, 2),
    Fault.CONNECT_TIMEOUT: (Action.RETRY, RequestTimeoutError, None),
    Fault.STALE: (Action.FREE, ConnectionFailedError, None),
    Fault.RESET: (Action.RETRY, ConnectionFailedError, None),
    Fault.CUT: (Action.RETRY, ConnectionFailedError, None),
    Fault.GARBLED: (Action.RETRY, MalformedResponseError, 1),
    Fault.TLS: (Action.FAIL, TLSError, None),
    Fault.TIMEOUT: (Action.RETRY, RequestTimeoutError, None),
    Fault.TOO_LARGE: (Action.FAIL, BodyTooLargeError, None),
    Fault.NO_FILES: (Action.FAIL, ConnectionFailedError, None),
}


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_a_fault(fault):
    """Rows 1 to 40, as far as the decision goes: whether to retry, how often, and which error is raised."""
    verdict = judge_fault(fault)
    assert (verdict.action, type(verdict.error), verdict.retries) == FAULT_TABLE[fault]
    assert verdict.error is not judge_fault(fault).error
    assert (verdict.wait, verdict.throttled, verdict.error.status) == (None, False, None)
    assert_says_what_and_what_to_do(verdict.error)


def test_what_is_slow():
    """Only after these failures may a smaller page arrive in time; a missing connection is not one of them."""
    slow = [fault for fault in Fault if is_slow(judge_fault(fault).error)]
    assert slow == [Fault.TIMEOUT]
    statuses = [status for status in range(400, 600) if is_slow(judge(Reply(status, b""), NOW).error)]
    assert statuses == [408, 504, 524]
    assert not is_slow(None)
    assert not is_slow(ServerError("it failed"))
    assert pickle.loads(pickle.dumps(judge_fault(Fault.CONNECT_TIMEOUT).error)).connected is False


def test_every_fault_is_in_the_table():
    """Every fault has a verdict."""
    assert set(FAULTS) == set(Fault) == set(FAULT_TABLE)


ROWS = {
    41: "test_retry_after, test_retry_after_in_the_body; the pause of all workers: tests/transport",
    42: "test_retry_after, test_a_date_is_counted_from_the_servers_clock",
    43: "test_retry_after, test_an_absurd_wait_is_not_turned_into_a_short_one; raising above the cap: tests/transport",
    44: "test_by_status; jitter and the shrinking of concurrency: tests/transport",
    45: "test_by_status; the end at the deadline: tests/transport",
    46: "test_by_status; one request on the wire: tests/transport",
    47: "test_by_status, test_each_verdict_has_an_error_of_its_own; single flight and replay: tests/transport",
    48: "test_by_status, test_a_wrong_address_says_why",
    49: "test_by_status; a recording's 404: tests/recordings",
    50: "test_by_status, test_what_the_server_said, test_the_message_is_quoted_in_the_error",
    51: "test_by_status, test_every_status_has_a_verdict",
    52: "test_by_status, test_a_captive_portal_is_named",
    53: "test_by_status; halving the page size: tests/transport",
    54: "test_two_megabytes_of_html_leave_no_trace, test_the_error_holds_nothing_of_the_body",
    55: "test_a_200_that_is_no_page",
    56: "test_a_200_that_says_no",
    57: "test_by_status",
    58: "test_by_status; that none is followed: tests/transport",
    59: "test_a_wrong_address_says_why; that the token is not sent on: tests/transport",
    60: "test_by_status; before any byte: tests/transport",
    61: "test_by_status; loops and junk in Location: tests/transport",
    62: "test_a_wrong_content_type_is_accepted_if_it_decodes",
    63: "test_other_encodings",
    64: "test_other_encodings, test_another_charset_is_an_error_at_once",
    65: "decided by the payload: tests/protocol/test_decoding_table.py",
    66: "nothing to decide; the cookie jar: tests/transport",
    67: "the page check: tests/protocol/test_paging_table.py; the request header: tests/transport",
    68: "test_a_date_is_counted_from_the_servers_clock, test_a_skewed_date_changes_nothing_else",
}


def test_no_row_is_left_out():
    """Existing tests cover each of the rows 41 to 68, or the table names the place that does."""
    assert list(ROWS) == list(range(41, 69))
    for row, where in ROWS.items():
        here = where.split("; ")[0]
        assert "tests/" in where or here.startswith("test_"), row
        assert all(test in globals() for test in here.split(", ") if test.startswith("test_")), row
