"""Whether a reply says that the token is expired, invalid or missing.

A wrong yes costs a login, and logins are throttled. A wrong no ends a run that could have continued.
So a sentence counts only if our token is its subject ("Token has expired", ``token_expired``, "jwt expired",
"Invalid or expired access token"). Tokens of another kind do not count ("Unexpected token <", "too many tokens",
"invalid page token").
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servetel_async.protocol.reply import Reply

#: Keys that hold an error, in lower case.
_KEYS = frozenset(
    {
        *("message", "msg", "error", "errors", "error_description", "error_code", "errorcode", "errortype"),
        *("exception", "code", "detail", "title", "reason", "status", "type", "description"),
    }
)
#: Most texts to look at, most characters of each, and deepest nesting.
_TEXTS, _LENGTH, _DEPTH = 50, 300, 3

_OAUTH = re.compile(r'\berror\s*=\s*"?invalid_token\b', re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SPACES = re.compile(r"[\s_-]+")

_OURS = (
    r"(?:(?:the|your|this|an?|incoming|provided|supplied|given|current|access|auth|authentication|authorization"
    r"|authorisation|bearer|api|jwt|json|web|id|login|user|security|session|oauth2?) )*"
)
_BAD = (
    r"(?:expired|invalid|revoked|blacklisted|inactive|malformed|rejected|missing|required|absent"
    r"|(?:not|no longer) (?:valid|active|accepted|provided|found|present|supplied)|not be (?:parsed|decoded|verified))"
)
_IS = r"(?:(?:has|have|is|was|could|can) )?(?:been )?(?:already )?"
_BEGIN = r"(?:^|[.,:;!?()\[\]\\/\"'] ?)"
_END = r"(?=$|[.,;!?)\]\"'])"
_SENT = r"(?: (?:included|sent|provided|given) (?:in|with) the request)?"
_REFUSALS = tuple(
    re.compile(_BEGIN + pattern)
    for pattern in (
        rf"{_OURS}(?:token|jwt|session){_SENT} {_IS}{_BAD}\b",
        rf"(?:{_OURS}token )?signature (?:verification failed{_END}|has expired\b|{_IS}not be verified\b)",
        # Not "missing": a gateway answers "Missing Authentication Token" for a route that it does not know.
        _OURS
        + r"(?:no|expired|invalid|revoked|blacklisted)(?: (?:or|and) (?:expired|invalid|missing|revoked))?"
        + rf" {_OURS}(?:token|jwt)(?: (?:provided|supplied|given|received|found|error|exception|signature))*{_END}",
    )
)
_UNAUTHENTICATED = re.compile(r"(?:un|not )authenticated[.!]?")
#: A firewall's temporary 403 may say so too.
_UNAUTHORIZED = re.compile(r"unauthori[sz]ed[.!]?")
#: How JSON and HTML begin: a cut page is not a plain text.
_STRUCTURED = (b"{", b"[", b"<")


def refuses_token(reply: Reply, payload: Any) -> bool:
    """Whether the reply refuses the token, in any known form and at any status.

    Args:
        reply: its ``WWW-Authenticate`` header and a short plain-text body are looked at.
        payload: its decoded body; None if it is not JSON.
    """
    if _OAUTH.search(reply.headers.get("www-authenticate", "")):
        return True
    body = reply.body.strip()
    if payload is None and len(body) <= _LENGTH and body[:1] not in _STRUCTURED:
        payload = body.decode("utf-8", "replace")
    words = [_in_words(text) for text in islice(_texts(payload), _TEXTS)]
    if reply.status != 403 and any(_UNAUTHORIZED.fullmatch(each) for each in words):  # noqa: PLR2004
        return True
    return any(_UNAUTHENTICATED.fullmatch(each) or any(p.search(each) for p in _REFUSALS) for each in words)


def _texts(payload: Any) -> Iterator[str]:
    """Return the texts of an error: the payload itself, or the values of its error keys."""
    if not isinstance(payload, dict):
        yield from _flat(payload, 0)
        return
    for key, value in cast("dict[object, Any]", payload).items():
        if isinstance(key, str) and key.lower() in _KEYS:
            yield from _flat(value, 0)


def _flat(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:_LENGTH]
    elif depth < _DEPTH and isinstance(value, list | dict):
        inner = cast("Any", value)
        for each in inner.values() if isinstance(value, dict) else inner:
            yield from _flat(each, depth + 1)


def _in_words(text: str) -> str:
    """Write ``TokenExpired``, ``token_expired`` and "Token  expired" in the same way."""
    return _SPACES.sub(" ", _CAMEL.sub(" ", text)).strip().lower()
