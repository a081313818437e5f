"""Which replies refuse the token: a table of yes and no. A wrong yes costs a login; a wrong no ends a run."""

from __future__ import annotations

import json

import pytest

from servetel_async.errors import (
    AuthenticationError,
    MalformedResponseError,
    PermissionDeniedError,
    RequestRejectedError,
    ServerError,
    WrongAddressError,
)
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.token_refusal import refuses_token
from servetel_async.protocol.verdict import Action, Unacceptable, judge

NOW = 1_700_000_000.0

YES = [
    *("Token has expired", "token_expired", "TOKEN_EXPIRED", "token-expired", "Token expired!", "Token is Expired"),
    *(
        "The incoming token has expired",
        "Provided token is expired.",
        "The access token expired",
        "Access token expired",
    ),
    *("The security token included in the request is expired", "The access token is invalid or has expired"),
    *("[401] Token expired", "Error 401: Invalid access token provided", "Login failed: token has expired"),
    *("invalid_token", "Invalid token", "Invalid token.", "invalid access token", "Invalid or expired token"),
    *("Expired token", "Token is Invalid", "Token is no longer valid", "The token has been blacklisted", "No token"),
    *("Access token has been revoked", "Bearer token invalid", "Token not provided", "Auth token missing"),
    *("Token could not be parsed from the request.", "Token Signature could not be verified.", "No token provided"),
    *("Authorization Token not found", "jwt expired", "JWT expired at 2024-05-01T00:00:00Z", "jwt malformed"),
    *("JsonWebTokenError: jwt expired", "Signature has expired", "Signature verification failed"),
    *("TokenExpiredException", "Tymon\\JWTAuth\\Exceptions\\TokenExpiredException", "ExpiredTokenException"),
    *(
        "TokenInvalidException",
        "Unauthenticated.",
        "UNAUTHENTICATED",
        "Not authenticated",
        "Unauthorized",
        "unauthorised",
    ),
    *("Session expired", "Your session has expired, please log in again"),
]
NO = [
    *("", "no calls found", "Forbidden", "Password expired", "Your account has expired", "Certificate has expired"),
    *("Unexpected token < in JSON at position 0", "Unexpected token '<', \"<html>\" is not valid JSON"),
    *("Syntax error, unexpected token ';'", "syntax error, unexpected end of file, expecting token"),
    *("Invalid token in expression at position 3", "Invalid token '<' near line 1", "Invalid token: <"),
    *("too many tokens", "maximum number of tokens exceeded", "token bucket exhausted", "invalid token limit"),
    *("invalid page token", "The page token is invalid", "next_page_token expired", "continuation token is not valid"),
    *("CSRF token mismatch.", "The CSRF token has expired", "csrf_token_invalid", "TokenMismatchException"),
    *(
        "device token invalid",
        "tokenization failed",
        "Invalid tokenizer",
        "token_type is invalid",
        "Token count invalid",
    ),
    *("Session limit reached", "Unauthorized field: limit", "Unauthenticated users may not use limit"),
    *("User is not authorized to access this resource with an explicit deny", "Missing Authentication Token"),
]


def told(text):
    return {"message": text}


@pytest.mark.parametrize("text", YES)
def test_a_sentence_about_our_token(text):
    """The sentence says that our token is bad, in any case, word joining and surrounding text."""
    assert refuses_token(Reply(400, b""), told(text))


@pytest.mark.parametrize("text", NO)
def test_a_sentence_about_something_else(text):
    """The sentence is about another kind of token, about no token, or about a good token."""
    assert not refuses_token(Reply(400, b""), told(text))


FORMS = [
    pytest.param({"message": "Token has expired"}, id="message"),
    pytest.param({"Message": "Token has expired"}, id="capital"),
    pytest.param({"success": False, "message": "Token has expired"}, id="success-false"),
    pytest.param({"status": "error", "message": "Token has expired"}, id="status-error"),
    pytest.param({"status": "Token is Expired"}, id="status"),
    pytest.param({"error": "token_expired"}, id="error"),
    pytest.param({"error": "invalid_token", "error_description": "The access token expired"}, id="oauth"),
    pytest.param({"error": {"code": "token_expired", "message": "x"}}, id="error-object"),
    pytest.param({"errors": [{"title": "Unauthenticated", "status": "401"}]}, id="error-list"),
    pytest.param({"message": "Server Error", "exception": "TokenExpiredException"}, id="exception"),
    pytest.param({"detail": "Signature has expired"}, id="detail"),
    pytest.param({"code": "token_expired"}, id="code"),
    pytest.param({"message": "Unauthenticated."}, id="unauthenticated"),
    pytest.param("Token has expired", id="text"),
]
STATUSES = [400, 401, 403, 404, 409, 419, 422, 440, 498, 500, 501, 503, 511]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("proved", [False, True], ids=["first", "proved"])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_at_any_status_renews(form, status, proved):
    """Gateways and frameworks choose any status: the message decides."""
    verdict = judge(Reply(status, json.dumps(form).encode()), NOW, proved=proved)
    assert (verdict.action, type(verdict.error), verdict.error.status) == (Action.RENEW, AuthenticationError, status)


@pytest.mark.parametrize("form", FORMS)
def test_any_form_in_a_200_renews(form):
    """A 200 with such a message renews the token too, with or without ``success``."""
    with pytest.raises(Unacceptable) as caught:
        PageReader().read(Reply(200, json.dumps(form).encode()), NOW)
    verdict = caught.value.verdict
    assert (verdict.action, type(verdict.error)) == (Action.RENEW, AuthenticationError)


@pytest.mark.parametrize("status", [200, 400, 403, 500])
def test_a_plain_text_is_heard(status):
    """Not every gateway sends JSON."""
    reply = Reply(status, b" Token has expired\n")
    if status != 200:
        assert judge(reply, NOW).action is Action.RENEW
        return
    with pytest.raises(Unacceptable) as caught:
        PageReader().read(reply, NOW)
    assert caught.value.verdict.action is Action.RENEW


@pytest.mark.parametrize(
    "header",
    ['Bearer error="invalid_token"', 'Bearer realm="x", error="invalid_token", error_description="y"'],
)
@pytest.mark.parametrize("status", [400, 403, 500])
def test_the_header_of_oauth_renews(status, header):
    """``WWW-Authenticate`` may refuse the token if the body does not."""
    assert judge(Reply(status, b"", {"www-authenticate": header}), NOW).action is Action.RENEW


@pytest.mark.parametrize("header", ['Basic realm="x"', 'Bearer error="insufficient_scope"', "Bearer", "invalid_token"])
def test_another_challenge_is_none(header):
    """Only ``invalid_token`` in that header is a refusal."""
    assert not refuses_token(Reply(403, b"", {"www-authenticate": header}), None)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RequestRejectedError), (422, RequestRejectedError), (500, ServerError), (403, WrongAddressError)],
)
@pytest.mark.parametrize("text", ["Unexpected token < in JSON", "too many tokens", "invalid page token"])
def test_the_mere_word_renews_nothing(text, status, error):
    """A 400 or 500 that names other kinds of token keeps its meaning."""
    verdict = judge(Reply(status, json.dumps(told(text)).encode()), NOW)
    assert verdict.action is not Action.RENEW
    assert type(verdict.error) is error


@pytest.mark.parametrize("extra", [{}, {"success": True}, {"success": None}])
def test_a_page_is_never_a_refusal(extra):
    """A 200 with its list of results is a page, whatever else it says."""
    body = {"message": "Token has expired", "error": "token_expired", "count": 1, "results": [{"id": "1"}], **extra}
    assert len(PageReader().read(Reply(200, json.dumps(body).encode()), NOW).rows()) == 1


def test_a_page_that_was_cut_is_never_a_refusal():
    """Text in a cut body does not count: the page is requested again."""
    with pytest.raises(Unacceptable) as caught:
        PageReader().read(Reply(200, b'{"message": "Token has expired", "results": [{"id"'), NOW)
    assert type(caught.value.verdict.error) is MalformedResponseError


def test_a_429_is_never_a_refusal():
    """A 429 means waiting, whatever the server calls its quota."""
    assert judge(Reply(429, b'{"message": "Token has expired"}'), NOW).throttled


def test_a_firewall_that_says_unauthorized_is_no_refusal():
    """At a 403 the bare word may come from a firewall and pass; at a 400 or in a 200 it is the API's."""
    body = b'{"message": "Unauthorized"}'
    assert type(judge(Reply(403, body), NOW).error) is WrongAddressError
    assert type(judge(Reply(403, body), NOW, proved=True).error) is ServerError
    assert judge(Reply(400, body), NOW).action is Action.RENEW


@pytest.mark.parametrize("text", ["the " * 5000, "expired token " * 3000, "access " * 4000 + "token", "-_" * 9000])
def test_a_long_text_takes_no_time(text):
    """Only the beginning of a long text is read, and no pattern backtracks."""
    assert not refuses_token(Reply(400, b""), {"errors": [[told(text)] * 2]})


def test_what_lies_deep_is_not_looked_for():
    """Error messages are near the top of a body; deeper keys hold other data."""
    assert not refuses_token(Reply(400, b""), {"errors": [[[["Token has expired"]]]]})
    assert not refuses_token(Reply(400, b""), {"notes": "Token has expired", "error": 5})


# A 403 or 404 at an address that has worked -----------------------------------------------------------------------------

PASSING = [
    pytest.param(403, b'{"Message":"User is not authorized to access this resource with an explicit deny"}', id="deny"),
    pytest.param(403, b'{"message":"Forbidden"}', id="gateway"),
    pytest.param(403, b'{"success":false,"message":"no"}', id="success-false"),
    pytest.param(403, b'{"success":true}', id="success-true"),
    pytest.param(403, b'{"message":"Missing Authentication Token"}', id="no-route"),
    pytest.param(403, b"<html>Access Denied</html>", id="html"),
    pytest.param(403, b"", id="empty"),
    pytest.param(403, b"[]", id="list"),
    pytest.param(404, b"", id="404-empty"),
    pytest.param(404, b"<html>Not Found</html>", id="404-html"),
    pytest.param(404, b'{"message":"Not Found"}', id="404-json"),
]


@pytest.mark.parametrize(("status", "body"), PASSING)
def test_an_address_that_has_worked_is_asked_again(status, body):
    """Such a fault is temporary, perhaps until a new token: it is retried with backoff like any server error."""
    verdict = judge(Reply(status, body), NOW, proved=True)
    assert (verdict.action, verdict.retries, verdict.perhaps_token) == (Action.RETRY, None, True)
    assert type(verdict.error) is ServerError
    assert (verdict.error.retryable, verdict.error.status) == (True, status)
    assert "has given good replies" in str(verdict.error)
    assert f"HTTP {status}" in str(verdict.error)


@pytest.mark.parametrize(("status", "body"), PASSING)
def test_an_address_that_has_not_worked_is_none(status, body):
    """The same reply to the first request is final, and no token is suspected."""
    verdict = judge(Reply(status, body), NOW)
    assert (verdict.action, verdict.perhaps_token) == (Action.FAIL, False)
    assert type(verdict.error) in (PermissionDeniedError, WrongAddressError)
    assert not verdict.error.retryable


def test_a_passing_403_may_ask_for_time():
    """The client obeys ``Retry-After``, and only this request waits."""
    verdict = judge(Reply(403, b"", {"retry-after": "7"}), NOW, proved=True)
    assert (verdict.wait, verdict.throttled) == (7.0, False)


def test_what_the_server_says_of_a_passing_403_is_quoted():
    """Also if a gateway sends the message."""
    said = b'{"Message":"an explicit deny"}'
    assert ': "an explicit deny"' in str(judge(Reply(403, said), NOW, proved=True).error)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 405, 410, 422])
def test_everything_else_is_judged_as_ever(status):
    """A redirect stays final: it could carry the token elsewhere. So does any failure that a retry cannot mend."""
    first, later = judge(Reply(status, b""), NOW), judge(Reply(status, b""), NOW, proved=True)
    assert (first.action, type(first.error)) == (later.action, type(later.error)) == (Action.FAIL, type(first.error))
