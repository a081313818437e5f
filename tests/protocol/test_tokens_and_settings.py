"""Tokens as people paste them, secrets that do not print, and settings: their sources and what they refuse."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import sys
import tempfile
import traceback
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from servetel_async.errors import ConfigurationError
from servetel_async.profiles import KEYS, Sources, choose_base_url, read_sources
from servetel_async.protocol.tokens import (
    Secret,
    SecretBytes,
    as_secret,
    expires_at,
    kind_of,
    lifetime,
    normalise_token,
)
from servetel_async.secret_files import LARGEST_FILE, SecretFile
from servetel_async.settings import (
    Brand,
    RateLimit,
    Retry,
    Timeouts,
    check_base_url,
    check_kind,
    choose_rate,
)

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


def library_locals(error):
    """The local variables of the library's own frames, as Sentry or ``pytest -l`` would print them."""
    story = traceback.TracebackException.from_exception(error, capture_locals=True)
    told = []
    while story is not None:
        told += [
            str(frame.locals)
            for frame in story.stack
            if "servetel_async" in frame.filename or "tomllib" in frame.filename
        ]
        story = story.__cause__ or story.__context__
    return "\n".join(told)


# Tokens -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        JWT,
        f"Bearer {JWT}",
        f"bearer {JWT}",
        f"BEARER  {JWT}",
        f"Bearer={JWT}",
        f"Bearer: {JWT}",
        f"Authorization: Bearer {JWT}",
        f"authorization=Bearer={JWT}",
        f"{JWT}\n",
        f" {JWT}\r\n",
        f"\t{JWT} \t",
        f"  Bearer {JWT}  \n",
        f"Bearer={JWT}\n\n",
        Secret(JWT),
    ],
    ids=range(14),
)
def test_a_pasted_token(text):
    """Text pasted around a token is removed; the token keeps every character and does not print."""
    token = normalise_token(text)
    assert str.__eq__(token, JWT)
    assert type(token) is Secret


@pytest.mark.parametrize("token", ["a1b2c3d4", "bearerless-token", "Bearer-like-token", "a=b=c=d==", "x" * 5000])
def test_an_unusual_token(token):
    """Any text that a header may hold is a token; only a known prefix is removed."""
    assert str.__eq__(normalise_token(token), token)


SECRET = Secret("token-12345678")
PARTS = [
    (SECRET[:5], "token"),
    (SECRET[3], "e"),
    (next(iter(SECRET)), "t"),
    (SECRET + "x", "token-12345678x"),
    ("Bearer " + SECRET, "Bearer token-12345678"),
    (SECRET.encode(), b"token-12345678"),
    (SECRET.encode()[:5], b"token"),
    (SECRET.encode() + b"x", b"token-12345678x"),
    (b"Bearer " + SECRET.encode(), b"Bearer token-12345678"),
    (SECRET.encode().decode(), "token-12345678"),
]


@pytest.mark.parametrize(("part", "value"), PARTS, ids=range(len(PARTS)))
def test_a_part_of_a_secret_and_what_is_made_of_one_is_a_secret(part, value):
    """Printers of local variables may cut, join and encode them first."""
    assert part == value
    assert repr(part) == "***"


def test_a_secret_that_is_formatted_to_a_width_is_not_shown():
    """Only requests format a secret, and without a width."""
    assert f"{SECRET}" == "token-12345678"
    assert f"{SECRET:.5}" == "***"
    assert f"{SECRET:>20}".strip() == "***"


def test_bytes_of_a_secret_are_shown_and_pickled_as_stars():
    """A single byte is a number and reveals nothing."""
    hidden = SECRET.encode()
    assert (str(hidden), pickle.loads(pickle.dumps(hidden)), hidden[0]) == ("***", b"***", ord("t"))


BAD_TOKENS = [
    pytest.param("*" * 40, "masked", id="row-156-stars"),
    pytest.param("eyJhbGci****************", "masked", id="row-156-half-masked"),
    pytest.param("Bearer ••••••••••••", "masked", id="row-156-bullets"),
    pytest.param(f"{JWT[:20]} {JWT[20:]}", "character", id="row-156-space"),
    pytest.param(f"{JWT}\nX", "character", id="row-156-line-end-inside"),
    pytest.param(f"{JWT}\r\nX-Evil: 1", "character", id="row-156-header-injection"),
    pytest.param(f"{JWT}\t{JWT}", "character", id="row-156-tab-inside"),
    pytest.param(f"{JWT}\x00", "character", id="row-156-nul"),
    pytest.param(f"{JWT}\x7f", "character", id="row-156-delete"),
    pytest.param(f"{JWT}é", "character", id="row-156-non-ascii"),
    pytest.param(f"{JWT}\u200b", "character", id="row-156-zero-width"),
    pytest.param(f"{JWT}\u2028", "character", id="row-156-line-separator"),
    pytest.param(f"Bearer Bearer {JWT}", "character", id="row-156-twice"),
    pytest.param("", "too short", id="row-156-empty"),
    pytest.param("Bearer ", "too short", id="row-156-only-bearer"),
    pytest.param("abc1234", "too short", id="row-156-seven"),
    pytest.param(None, "NoneType", id="row-156-none"),
    pytest.param(JWT.encode(), "bytes", id="row-156-bytes"),
    pytest.param(12345678, "int", id="row-156-number"),
]


@pytest.mark.parametrize(("text", "why"), BAD_TOKENS)
def test_what_is_no_token(text, why):
    """The error has the reason and the fix; neither message nor state repeats the value."""
    with pytest.raises(ConfigurationError, match=why) as caught:
        normalise_token(text)
    assert caught.value.fix
    shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert "eyJ" not in shown
    assert "abc1234" not in shown


def test_a_refused_token_is_not_in_the_librarys_frames():
    """Row 127: error trackers collect the locals of our frames, so a refused token is in none of them."""
    with pytest.raises(ConfigurationError) as caught:
        normalise_token(f"{JWT}\x00")
    assert JWT not in library_locals(caught.value)


@pytest.mark.parametrize("value", [JWT, JWT.encode()], ids=["text", "bytes"])
def test_what_was_hidden_does_not_print(value):
    """Row 127: a value is hidden while it is checked, and keeps its value and kind."""
    hidden = as_secret(value)
    assert (repr(hidden), hidden == value, isinstance(hidden, type(value))) == ("***", True, True)
    assert kind_of(SecretBytes(b"x")) == "bytes"
    assert (as_secret(None), as_secret(5), kind_of(None)) == (None, 5, "NoneType")


def test_a_secret_does_not_print():
    """Row 125: neither ``repr``, containers, widths nor tracebacks with locals show it, but it is sent."""
    secret = Secret(JWT)
    shown = f"{secret!r} {[secret]} { ({'token': secret}) } {secret!r:>5} {secret!a}"
    try:
        _local = secret
        raise ValueError
    except ValueError as error:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
        shown += str(next(frame.locals for frame in frames if "_local" in (frame.locals or ()))["_local"])
    assert JWT not in shown
    assert shown.count("***") == 6
    assert secret.encode() == JWT.encode()
    assert f"Bearer {secret}" == f"Bearer {JWT}"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_does_not_travel(protocol):
    """Row 128: a pickle holds stars in place of the value, and so does the unpickled copy."""
    data = pickle.dumps({"token": Secret(JWT)}, protocol)
    assert JWT.encode() not in data
    assert str.__eq__(pickle.loads(data)["token"], "***")
    (again,) = copy.deepcopy([Secret(JWT)])
    assert (repr(again), again == JWT) == ("***", True)  # within the process a copy still works
    assert copy.copy(again) == JWT


# When a token ends ------------------------------------------------------------------------------------------------------


def jwt(payload):
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return f"e30.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.c2ln"


@pytest.mark.parametrize(
    ("token", "seconds"),
    [
        pytest.param(jwt({"exp": 1714657799}), 1714657799.0, id="whole"),
        pytest.param(jwt({"exp": 1714657799.5, "sub": "x"}), 1714657799.5, id="fraction"),
        pytest.param(jwt({"exp": 0}), None, id="zero"),
        pytest.param(jwt({"a": "~~~???", "exp": 7}), 7.0, id="url-safe-alphabet"),
        pytest.param(jwt({}), None, id="none"),
        pytest.param(jwt({"exp": None}), None, id="null"),
        pytest.param(jwt({"exp": "1714657799"}), None, id="text"),
        pytest.param(jwt({"exp": True}), None, id="bool"),
        pytest.param(jwt(b'{"exp": NaN}'), None, id="nan"),
        pytest.param(jwt(b'{"exp": Infinity}'), None, id="infinity"),
        pytest.param(jwt({"exp": 10**400}), None, id="400-digits"),
        pytest.param(jwt(b'{"exp": ' + b"9" * 5000 + b"}"), None, id="5000-digits"),
        pytest.param(jwt([1]), None, id="list"),
        pytest.param(jwt(b"5"), None, id="number"),
        pytest.param(jwt(b"\xff\xfe"), None, id="no-text"),
        pytest.param(jwt(b"{"), None, id="cut"),
        pytest.param(jwt(b"[" * 100_000), None, id="nested"),
        pytest.param("a.b", None, id="two-parts"),
        pytest.param("a.b.c.d", None, id="four-parts"),
        pytest.param("a.b.c", None, id="no-base64"),
        pytest.param("a.é.c", None, id="non-ascii"),
        pytest.param("opaque-token", None, id="opaque"),
        pytest.param("", None, id="empty"),
        pytest.param("..", None, id="dots"),
    ],
)
def test_when_a_token_ends(token, seconds):
    """``exp`` is read if there is one; any other token gives None and never an exception."""
    assert expires_at(token) == seconds


# The address of the API -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("https://api.servetel.in", "https://api.servetel.in"),
        ("https://api.servetel.in/", "https://api.servetel.in"),
        ("https://proxy.example:8443/servetel//", "https://proxy.example:8443/servetel"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://api.servetel.in.", "https://api.servetel.in."),
        ("HTTPS://API.Servetel.in", "HTTPS://API.Servetel.in"),
        ("https://a_b-c.example", "https://a_b-c.example"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ("https://[fe80::1%eth0]", "https://[fe80::1%eth0]"),
        ("https://1.2.3.4", "https://1.2.3.4"),
        (f"https://{'a' * 63}.in", f"https://{'a' * 63}.in"),
        ("https://h.example/~u/a;b=%2F", "https://h.example/~u/a;b=%2F"),
    ],
)
def test_a_base_url(url, given):
    """Row 157: https anywhere, http on this computer; a final slash is removed."""
    assert check_base_url(url) == given


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://user:hunter22@api.example", "user info"),
        ("https://hunter22@api.example", "user info"),
        ("https://@api.example", "user info"),
        ("https://api.example/#hunter22", "query or a fragment"),
        ("https://api.example#", "query or a fragment"),
        ("https://api.example/?key=hunter22", "query or a fragment"),
        ("https://api.example?", "query or a fragment"),
        ("ftp://api.example", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("api.servetel.in", "scheme"),
        ("//api.servetel.in", "scheme"),
        ("https:api.servetel.in", "scheme"),
        ("https://", "host"),
        ("https:///v1", "host"),
        ("https://:443", "host"),
        ("", "scheme"),
        ("https://api.example:99999", "cannot be read"),
        ("https://api.example:x", "cannot be read"),
        ("https://[::1", "cannot be read"),
        ("https://api example", "host"),
        ("https://api.example\n", "host"),
        ("https://api.exa\tmple", "host"),
        ("https://api.ex\xe4mple", "host"),
        ("https://good.example\\.evil.example", "host"),
        ("http://api.servetel.in", "plain http"),
        ("http://localhost.evil.example", "plain http"),
        ("http://127.0.0.1.evil.example", "plain http"),
        ("http://0.0.0.0", "plain http"),
        ("http://10.0.0.1", "plain http"),
        ("http://2130706433", "plain http"),
        ("https://api..servetel.in", "host that cannot exist"),
        ("https://.servetel.in", "host that cannot exist"),
        ("https://.", "host that cannot exist"),
        (f"https://{'a' * 64}.in", "host that cannot exist"),
        (f"https://{'.'.join(['a' * 60] * 5)}", "host that cannot exist"),
        ("https://%", "host that cannot exist"),
        ("https://%41.example", "host that cannot exist"),
        ("https://a,b", "host that cannot exist"),
        ("https://999.1.1.1", "host that cannot exist"),
        ("https://[::ffff:1.2.3.4.5]", "host that cannot exist"),
        ("https://[::1]x", "cannot be read"),
        ("http://[::1]x", "cannot be read"),
        ("https://[v1.x]", "cannot be read"),
        ("https://[::1%]", "cannot be read"),
        ("https://localhost:0", "port"),
        ("https://localhost:", "port"),
        ("https://localhost:+80", "port"),
        ("https://localhost:8\uff10", "port"),
        ("https://localhost:65536", "port"),
        ("https://h.example/%zz", "path"),
        ("https://h.example/a|b", "path"),
        ("https://h.example/%", "path"),
        (None, "NoneType"),
        (b"https://api.servetel.in", "bytes"),
        (5, "int"),
    ],
    ids=repr,
)
def test_what_is_no_base_url(url, why):
    """Row 157: an address to which the token could leak is refused with the fix, and not repeated."""
    with pytest.raises(ConfigurationError, match=why) as caught:
        check_base_url(url)
    assert caught.value.fix
    assert "hunter22" not in f"{caught.value} {vars(caught.value)}"


@pytest.mark.parametrize("brand", Brand, ids=lambda brand: brand.name.lower())
def test_a_brand(brand):
    """Each brand has a valid address and is found by its name in any spelling."""
    assert check_base_url(brand.base_url) == brand.base_url
    for name in (brand, brand.name, brand.name.lower(), brand.name.replace("_", "-").title()):
        assert Brand.named(name) is brand


@pytest.mark.parametrize("name", ["", "servtel", None, 5, "https://api.servetel.in"], ids=repr)
def test_no_such_brand(name):
    """An unknown brand is refused with the list of the known ones."""
    with pytest.raises(ConfigurationError, match="servetel, smartflo, acefone, acefone-uk"):
        Brand.named(name)


# Values -----------------------------------------------------------------------------------------------------------------

NONSENSE = [0, -1, float("nan"), "5", [], True]
NUMBERS = [
    *((Retry, name) for name in ("attempts", "base", "cap", "throttled_base", "throttled_cap", "longest_wait")),
    *((Timeouts, name) for name in ("connect", "read", "total", "acquire")),
    *((RateLimit, name) for name in ("per_second", "burst")),
]


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=[f"{kind.__name__}-{name}" for kind, name in NUMBERS])
def test_a_setting_refuses_nonsense(kind, name, value):
    """Zero, negative numbers, NaN and non-numbers are refused with the setting's name and an example."""
    if (name, value) == ("per_second", 0):
        assert RateLimit(0).interval == 0  # no limit
        return
    with pytest.raises(ConfigurationError, match=rf"{kind.__name__}\({name}="):
        kind(**{name: value})


def test_a_wrong_rate_learns_that_zero_is_no_limit():
    """A negative rate is refused, and the message does not deny that 0 is allowed."""
    with pytest.raises(ConfigurationError, match="or 0 for no limit"):
        RateLimit(per_second=-1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, name in NUMBERS if kind is not Timeouts],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_setting_that_must_be_there(kind, name):
    """Attempts, backoff and rate cannot be None: that would fail during the first outage."""
    with pytest.raises(ConfigurationError):
        kind(**{name: None})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Retry, {"attempts": 1.5}),
        (Retry, {"budget": -1}),
        (Retry, {"budget": 1.5}),
        (Retry, {"budget": "x"}),
        (Retry, {"budget": None}),
        (Retry, {"budget": float("nan")}),
        (RateLimit, {"burst": 1.5}),
    ],
    ids=lambda part: getattr(part, "__name__", repr(part)),
)
def test_a_whole_number(kind, values):
    """Attempts, retry tokens and bursts are whole numbers."""
    with pytest.raises(ConfigurationError):
        kind(**values)


def test_settings_that_are_allowed():
    """The edges: one attempt, no budget, no timeout, a rate below one."""
    assert Retry(attempts=1, budget=0, base=0.001, longest_wait=10**9).attempts == 1
    assert Timeouts(connect=None, read=None, total=None).acquire is None
    assert RateLimit(0.1, burst=3).interval == 10.0


@pytest.mark.parametrize(
    ("rate", "limit"),
    [
        (None, None),
        (0, None),
        (0.0, None),
        (RateLimit(0), None),
        (2.5, RateLimit(2.5)),
        (RateLimit(1, 3), RateLimit(1, 3)),
    ],
    ids=repr,
)
def test_a_rate_may_be_a_plain_number(rate, limit):
    """A number is requests per second; None and 0 mean no limit."""
    assert choose_rate(rate) == limit


@pytest.mark.parametrize("rate", [-1, float("nan"), "2", True, [2]], ids=repr)
def test_what_is_no_rate(rate):
    """Any other value is refused, never read as no limit."""
    with pytest.raises(ConfigurationError, match="per_second"):
        choose_rate(rate)


def test_a_number_in_place_of_a_value():
    """``timeouts=30`` is refused; the fix says what to write."""
    check_kind("timeouts", Timeouts(), Timeouts)
    with pytest.raises(ConfigurationError, match=r"(?i)^timeouts is of type int\. Give timeouts=Timeouts\(\.\.\.\)"):
        check_kind("timeouts", 30, Timeouts)


FOUND = Sources(base_url="https://found.example/")
CHOICES = [
    pytest.param(None, None, Sources(), "https://api.servetel.in", id="nothing"),
    pytest.param("https://given.example/", None, FOUND, "https://given.example", id="given-before-found"),
    pytest.param(None, "smartflo", FOUND, Brand.SMARTFLO.base_url, id="brand-before-found"),
    pytest.param(None, Brand.ACEFONE_UK, FOUND, Brand.ACEFONE_UK.base_url, id="brand-as-a-value"),
    pytest.param(None, None, FOUND, "https://found.example", id="found-address"),
    pytest.param(None, None, Sources(brand="acefone"), Brand.ACEFONE.base_url, id="found-brand"),
    pytest.param(
        "https://given.example", None, Sources(brand="nonsense"), "https://given.example", id="given-before-brand"
    ),
]


@pytest.mark.parametrize(("base_url", "brand", "sources", "chosen"), CHOICES)
def test_where_the_api_stands(base_url, brand, sources, chosen):
    """The argument, then the environment's address, then the profile's brand, then Servetel."""
    assert choose_base_url(base_url, brand, sources) == chosen


@pytest.mark.parametrize(
    ("base_url", "brand", "sources"),
    [
        ("https://given.example", "acefone", Sources()),
        ("http://given.example", None, Sources()),
        (None, "nonsense", FOUND),
        (None, None, Sources(base_url="found.example")),
        (None, None, Sources(brand="nonsense")),
    ],
    ids=["both", "plain-http", "no-brand", "found-nonsense", "found-no-brand"],
)
def test_where_no_api_stands(base_url, brand, sources):
    """Two addresses, or a bad one from any source, are refused before a request is sent."""
    with pytest.raises(ConfigurationError):
        choose_base_url(base_url, brand, sources)


@pytest.mark.parametrize("value", [Retry(), Timeouts(), RateLimit(), Sources()], ids=lambda value: type(value).__name__)
def test_settings_are_values(value):
    """Frozen, equal, hashable, printable and picklable."""
    assert pickle.loads(pickle.dumps(value)) == copy.copy(value) == type(value)() == value
    assert hash(value) == hash(type(value)())
    assert repr(value).startswith(type(value).__name__)
    with pytest.raises(AttributeError):
        setattr(value, next(iter(type(value).__slots__)), 1)


LIFETIMES = [
    pytest.param(3600, 3600.0, id="an-hour"),
    pytest.param(0.5, 0.5, id="decimals"),
    pytest.param("1800", 1800.0, id="digits"),
    pytest.param(int("1" + "0" * 400), 1e9, id="400-digits"),
    pytest.param(float("inf"), 1e9, id="infinite"),
    pytest.param("9" * 400, 3600.0, id="400-digits-as-text"),
    pytest.param(float("nan"), 3600.0, id="nan"),
    *(
        pytest.param(value, 3600.0, id=repr(value))
        for value in (-1, 0, -0.0, True, False, None, "soon", "", "-5", "1e3", "\u0661", [], {}, [3600])
    ),
]


@pytest.mark.parametrize(("value", "seconds"), LIFETIMES)
def test_a_lifetime_is_bounded(value, seconds):
    """The lifetime that a login states becomes a bounded number of seconds; without a usable value it is an hour."""
    assert lifetime(value) == seconds


# The environment and profiles -------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory without any file; no real profile is read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def private(file, text, mode=0o600):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)
    return file


PROFILES = """
[profiles.default]
brand = "smartflo"
token = "token-of-default"
[profiles.work]
base_url = "https://work.example"
token_file = "~/work-token"
[profiles.bare]
[profiles.login]
email = "person@example.com"
password_file = "~/password"
"""


@pytest.fixture
def profiles(home):
    private(home / "work-token", "token-of-work\n")
    return private(home / ".config" / "servetel" / "config.toml", PROFILES)


def test_an_empty_environment_says_nothing(home):
    """Without variables and files no setting is known, and the working directory is not read."""
    assert read_sources({}) == Sources()


def test_a_dotenv_is_not_read(home, monkeypatch):
    """Row 130: a ``.env`` file in the directory is ignored."""
    private(home / ".env", "SERVETEL_TOKEN=token-of-nobody")
    monkeypatch.chdir(home)
    assert read_sources({}) == Sources()


WORK = SecretFile("~/work-token")
RESOLVED = [
    pytest.param({}, Sources("token-of-default", brand="smartflo"), id="default-profile"),
    pytest.param(
        {"SERVETEL_PROFILE": "work"}, Sources(WORK, base_url="https://work.example", account="work"), id="named-profile"
    ),
    pytest.param(
        {"SERVETEL_PROFILE": "login"},
        Sources(email="person@example.com", password=SecretFile("~/password"), account="login"),
        id="login-of-a-profile",
    ),
    pytest.param(
        {"SERVETEL_PROFILE": "login", "SERVETEL_TOKEN": "t"}, Sources("t"), id="token-before-the-login-of-a-profile"
    ),
    pytest.param({"SERVETEL_PROFILE": "bare"}, Sources(), id="empty-profile"),
    pytest.param({"SERVETEL_TOKEN": "t"}, Sources("t", brand="smartflo"), id="token-before-profile"),
    pytest.param(
        {"SERVETEL_TOKEN": "t", "SERVETEL_PROFILE": "work"},
        Sources("t", base_url="https://work.example"),
        id="token-before-its-file",
    ),
    pytest.param(
        {"SERVETEL_TOKEN": "", "SERVETEL_PROFILE": ""},
        Sources("token-of-default", brand="smartflo"),
        id="empty-is-unset",
    ),
    pytest.param({"SERVETEL_TOKEN_FILE": "~/work-token"}, Sources(WORK, brand="smartflo"), id="file-before-profile"),
    pytest.param(
        {"SERVETEL_TOKEN": "t", "SERVETEL_TOKEN_FILE": "~/missing"},
        Sources("t", brand="smartflo"),
        id="token-before-file",
    ),
    pytest.param(
        {"SERVETEL_BASE_URL": "https://u.example"},
        Sources("token-of-default", base_url="https://u.example"),
        id="url-before-brand",
    ),
    pytest.param(
        {"SERVETEL_BASE_URL": "https://u.example", "SERVETEL_PROFILE": "work"},
        Sources(WORK, base_url="https://u.example", account="work"),
        id="url-before-url",
    ),
]


@pytest.mark.parametrize(("environment", "sources"), RESOLVED)
def test_what_counts_first(profiles, environment, sources):
    """A variable wins over a file, a file over the profile, and an address over a brand. Secret files are not read."""
    sources = replace(sources, **{name: at_home(getattr(sources, name)) for name in ("token", "password")})
    assert read_sources(environment) == sources


CHOSEN = [
    ("work", {}, Sources(WORK, base_url="https://work.example", account="work")),
    ("work", {"SERVETEL_PROFILE": "login"}, Sources(WORK, base_url="https://work.example", account="work")),
    (
        "work",
        {"SERVETEL_TOKEN": "t", "SERVETEL_BASE_URL": "https://u.example", "SERVETEL_ACCOUNT": "a"},
        Sources(WORK, base_url="https://work.example", account="work"),
    ),
    (
        "login",
        {"SERVETEL_TOKEN": "t", "SERVETEL_BASE_URL": "https://u.example"},
        Sources(
            email="person@example.com",
            password=SecretFile("~/password"),
            base_url="https://u.example",
            account="login",
        ),
    ),
    (
        "bare",
        {"SERVETEL_TOKEN": "t", "SERVETEL_BASE_URL": "https://u.example", "SERVETEL_ACCOUNT": "a"},
        Sources("t", base_url="https://u.example", account="a"),
    ),
    ("bare", {"SERVETEL_TOKEN": "t"}, Sources("t")),
    ("bare", {}, Sources()),
    ("default", {"SERVETEL_ACCOUNT": "a"}, Sources("token-of-default", brand="smartflo", account="a")),
    ("default", {"SERVETEL_BASE_URL": "https://u.example"}, Sources("token-of-default", brand="smartflo")),
]


@pytest.mark.parametrize(("profile", "environment", "sources"), CHOSEN)
def test_a_profile_that_was_chosen_counts_first(profiles, profile, environment, sources):
    """A profile given by name wins over the variables; they supply only what it lacks."""
    sources = replace(sources, **{name: at_home(getattr(sources, name)) for name in ("token", "password")})
    assert read_sources(environment, profile=profile) == sources


ENV_TOKEN, ENV_URL = {"SERVETEL_TOKEN": "t"}, {"SERVETEL_BASE_URL": "https://u.example"}
#: The profile of a flag, the environment, whether the call brings a login of its own, and the address or who is mixed.
MIXTURES = [
    (None, ENV_TOKEN | ENV_URL, False, "https://u.example"),
    (None, ENV_TOKEN | ENV_URL | {"SERVETEL_PROFILE": "work"}, False, "https://u.example"),
    (None, ENV_TOKEN | {"SERVETEL_PROFILE": "work"}, False, "from the environment, and the address from the profile"),
    (None, ENV_URL | {"SERVETEL_PROFILE": "work"}, False, "from the profile, and the address from the environment"),
    (None, ENV_URL, False, "from the profile, and the address from the environment"),
    (None, {"SERVETEL_PROFILE": "work"}, True, "from the call, and the address from the profile"),
    (None, ENV_URL | {"SERVETEL_PROFILE": "work"}, True, "https://u.example"),
    (None, {}, True, Brand.SMARTFLO.base_url),
    (None, ENV_TOKEN, False, Brand.SMARTFLO.base_url),
    (None, {"SERVETEL_PROFILE": "work"}, False, "https://work.example"),
    ("work", {}, True, "https://work.example"),
    ("work", ENV_TOKEN | ENV_URL, False, "https://work.example"),
    ("address", ENV_TOKEN, False, "from the environment, and the address from the chosen profile"),
    ("address", {}, False, "https://address.example"),
    ("login", ENV_URL, False, "from the chosen profile, and the address from the environment"),
]


@pytest.mark.parametrize(("profile", "environment", "has_login", "outcome"), MIXTURES)
def test_a_token_goes_only_to_an_address_that_it_is_meant_for(
    profiles, monkeypatch, profile, environment, has_login, outcome
):
    """Both must come from one source, the call or the vendor's brands. A mixture is refused before anything is sent."""
    profiles.write_text(PROFILES + '[profiles.address]\nbase_url = "https://address.example"\n')
    sources = read_sources(environment, profile=profile)
    if has_login:
        sources = sources.with_login(SecretFile("~/token"))
    assert choose_base_url("https://given.example", None, sources) == "https://given.example"
    assert choose_base_url(None, "acefone", sources) == Brand.ACEFONE.base_url
    if outcome.startswith("https"):
        assert choose_base_url(None, None, sources) == outcome
    else:
        with pytest.raises(ConfigurationError, match=outcome) as refused:
            choose_base_url(None, None, sources)
        assert "might go to a server that it is not meant for" in refused.value.why


def at_home(value):
    """The same value, in the home of this test."""
    return SecretFile(f"~/{value.path.name}") if isinstance(value, SecretFile) else value


def test_another_file_of_profiles(home):
    """``SERVETEL_CONFIG`` names another file."""
    file = private(home / "other.toml", '[profiles.default]\ntoken = "other"\n')
    assert read_sources({"SERVETEL_CONFIG": str(file)}).token == "other"
    assert read_sources({"SERVETEL_CONFIG": "~/other.toml"}).token == "other"


def test_the_real_environment_is_the_default(home, monkeypatch):
    """Without a mapping, the process's current environment is read."""
    monkeypatch.setenv("SERVETEL_TOKEN", "t")
    assert read_sources().token == "t"


@pytest.mark.parametrize("text", ["", "[profiles]", "[profiles.default]", "[profiles.other]\ntoken = 'x'"])
def test_a_profile_that_says_nothing(home, text):
    """A file without the default profile, or an empty profile, sets nothing."""
    private(home / ".config" / "servetel" / "config.toml", text)
    assert read_sources({}) == Sources()


BAD_PROFILES = [
    pytest.param("profiles = 5", "not a table", "[profiles.default]", id="no-table"),
    pytest.param("[profiles]\ndefault = 5", "not a table", "[profiles.default]", id="profile-no-table"),
    pytest.param("[profiles]\nbrand = 'acefone'", "not a table", "[profiles.default]", id="no-name"),
    pytest.param("[profile.default]\ntoken = 'x'", "unknown key, 'profile'", "[profiles.default]", id="profile-for-s"),
    pytest.param("[default]\ntoken = 'x'", "unknown key, 'default'", "[profiles.default]", id="top-level"),
    pytest.param("base_url = 'https://a.example'", "unknown key, 'base_url'", "another address", id="outside"),
    pytest.param(
        "[profiles.default]\nurl = 'https://a'", "unknown key, 'url'", ", ".join(map(repr, KEYS)), id="unknown-key"
    ),
    pytest.param("[profiles.default]\nBrand = 'x'", "unknown key, 'Brand'", "another address", id="capital"),
    pytest.param("[profiles.default]\ntoken_fle = 'x'", "unknown key, 'token_fle'", "token_file", id="misspelt"),
    pytest.param('[profiles.default]\n"\\u0007" = 1', "unknown key, '?'", "he keys are", id="control-character"),
    pytest.param("[profiles.default]\ntoken = 5", "'token' is", "type int", id="number"),
    pytest.param("[profiles.default]\nbase_url = ['x']", "'base_url' is", "type list", id="list"),
    pytest.param("[profiles.default]\nbrand = true", "'brand' is", "type bool", id="boolean"),
    pytest.param("[profiles.default]\nbrand = 2024-05-01", "'brand' is", "type date", id="date"),
    pytest.param("[profiles.default.token]\nx = 1", "'token' is", "type dict", id="table"),
    pytest.param("[profiles.default]\nbase_url = ''", "'base_url' is", "is empty", id="empty"),
    pytest.param("[profiles.default]\ntoken = '  '", "'token' is", "is empty", id="blank"),
    *(
        pytest.param(
            f"[profiles.default]\n{one} = 'x'\n{other} = 'x'",
            f"both '{one}' and '{other}'",
            "Leave one",
            id=f"{one}-{other}",
        )
        for one, other in (
            ("base_url", "brand"),
            ("token", "token_file"),
            ("password", "password_file"),
            ("token", "email"),
            ("token_file", "email"),
            ("token", "password"),
            ("token_file", "password_file"),
        )
    ),
    *(
        pytest.param(f"[profiles.default]\n{key} = 'x'", "half a login", "password_file", id=f"only-{key}")
        for key in ("email", "password", "password_file")
    ),
    pytest.param("[profiles.default]\naccount = 'x'", "neither a token", "SERVETEL_ACCOUNT", id="only-a-name"),
    pytest.param("[profiles.default]\ntoken = 'x'\naccount = ''", "is empty", "account", id="empty-name"),
]


@pytest.mark.parametrize("environment", [{}, {"SERVETEL_TOKEN": "t"}], ids=["alone", "beside-a-token"])
@pytest.mark.parametrize(("text", "what", "more"), BAD_PROFILES)
def test_a_profile_that_is_wrong(home, text, what, more, environment):
    """It is refused by name, even if a variable gives the token: an ignored key may send that to another address."""
    private(home / ".config" / "servetel" / "config.toml", text)
    with pytest.raises(ConfigurationError) as caught:
        read_sources(environment)
    told = str(caught.value)
    assert what in told
    assert more in told
    assert caught.value.fix
    assert told.isprintable()


def test_a_wrong_profile_that_is_not_chosen_is_not_looked_at(home):
    """Another profile may be for another version."""
    private(home / ".config" / "servetel" / "config.toml", '[profiles.default]\ntoken = "x"\n[profiles.new]\nnew = 1')
    assert read_sources({}) == Sources("x")


def test_an_unknown_profile_names_the_known_ones(profiles):
    """The error lists the known profiles."""
    with pytest.raises(ConfigurationError, match="default, work, bare, login"):
        read_sources({"SERVETEL_PROFILE": "wrok"})
    profiles.write_text("")
    with pytest.raises(ConfigurationError, match="unset SERVETEL_PROFILE"):
        read_sources({"SERVETEL_PROFILE": "wrok"})


MISSING = [
    pytest.param({"SERVETEL_PROFILE": "work"}, "file does not exist", id="profile-without-file"),
    pytest.param({"SERVETEL_CONFIG": "~/nowhere.toml"}, "file does not exist", id="config-missing"),
    pytest.param({"SERVETEL_TOKEN_FILE": "~/nowhere"}, "cannot be read", id="token-file-missing"),
    pytest.param({"SERVETEL_TOKEN_FILE": "~nobody-of-this-name/token"}, None, id="no-such-user"),
    pytest.param({"SERVETEL_CONFIG": "~nobody-of-this-name/config.toml"}, None, id="config-of-no-user"),
]


@pytest.mark.parametrize(("environment", "why"), MISSING)
def test_what_is_named_must_be_there(home, environment, why):
    """A named file that is missing is an error when it is needed, never ignored."""
    with pytest.raises(ConfigurationError, match=why) as caught:
        read_sources(environment).token.read()
    assert os.devnull not in str(caught.value)


def test_a_home_that_may_not_be_looked_into(home, monkeypatch):
    """A profile that this user cannot access counts as missing, unless it was named."""

    def refuse(self):
        raise PermissionError(13, "denied")

    monkeypatch.setattr("pathlib.Path.is_file", refuse)
    assert read_sources({}) == Sources()
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_sources({"SERVETEL_PROFILE": "work"})


def test_a_profile_must_be_there(profiles):
    """A named profile that is not in the file is an error."""
    with pytest.raises(ConfigurationError, match="no profile of that name"):
        read_sources({"SERVETEL_PROFILE": "hunter22"})


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660, 0o601, 0o777], ids=oct)
def test_a_secret_that_others_may_read_is_refused(home, mode):
    """Row 129: only the user may have access to token and profile files; the fix is the command to type."""
    token = private(home / "token", "token-of-somebody", mode)
    with pytest.raises(ConfigurationError, match=r"other users.*[Cc]hmod 600 "):
        read_sources({"SERVETEL_TOKEN_FILE": str(token)}).token.read()
    config = private(home / "c.toml", PROFILES, mode)
    with pytest.raises(ConfigurationError, match="other users"):
        read_sources({"SERVETEL_CONFIG": str(config)})


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700], ids=oct)
def test_a_secret_that_is_the_users_alone(home, mode):
    """Row 129: any mode without access for others is allowed; blanks around the token are removed."""
    token = private(home / "token", " token-of-somebody\r\n", mode)
    assert normalise_token(read_sources({"SERVETEL_TOKEN_FILE": str(token)}).token.read()) == "token-of-somebody"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize("mode", [0o600, 0o644], ids=oct)
def test_a_secret_of_another_user_is_refused(home, mode):
    """That user could change the token or the address in it."""
    token = private(home / "token", "token-of-another-user", mode)
    config = private(home / "c.toml", PROFILES, mode)
    for each in (token, config):
        os.chown(each, 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        read_sources({"SERVETEL_TOKEN_FILE": str(token)}).token.read()
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        read_sources({"SERVETEL_CONFIG": str(config)})


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root may act as another user")
@pytest.mark.parametrize(("mode", "is_taken"), [(0o644, True), (0o664, False), (0o646, False)])
def test_a_secret_of_root_is_taken_if_only_root_may_change_it(mode, is_taken):
    """In a container, secrets often belong to root and the running user may read them."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        token = private(Path(directory) / "token", "token-of-root", mode)
        os.seteuid(65534)
        try:
            refusal = pytest.raises(ConfigurationError, match="may be changed by other users")
            with nullcontext() if is_taken else refusal:
                assert SecretFile(token).read() == "token-of-root"
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("kind", ["directory", "no-text", "nul", "pipe", "huge"])
def test_a_token_file_that_is_none(home, kind):
    """Only a small regular text file can be a token file; the client does not wait for a pipe."""
    file = home / "token"
    if kind == "directory":
        file.mkdir(mode=0o700)
    elif kind == "no-text":
        private(file, b"\xff\xfe\xff")
    elif kind == "nul":
        file = "\0token"
    elif kind == "pipe":
        os.mkfifo(file, 0o600)
    else:
        private(file, b"x" * (LARGEST_FILE + 1))
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        SecretFile(file).read()
    assert caught.value.fix


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"token-of-somebody\n", "token-of-somebody"),
        (b"token-of-somebody\r\n", "token-of-somebody"),
        (b"\xef\xbb\xbftoken-of-somebody\n", "token-of-somebody"),
        (b" pass word \n\n", " pass word "),
        (b"x" * LARGEST_FILE, "x" * LARGEST_FILE),
    ],
    ids=["line-end", "windows", "byte-order-mark", "blanks-of-a-password", "as-large-as-may-be"],
)
def test_a_secret_is_the_content_without_its_line_end(home, content, secret):
    """Blanks stay, because a password may contain them. A token is stripped later."""
    read = SecretFile(private(home / "secret", content)).read()
    assert str.__eq__(read, secret)
    assert repr(read) == "***"


def test_a_secret_of_a_file_is_in_no_frame(home):
    """Undecodable bytes are in no error and in no local variable that an error tracker collects."""
    file = private(home / "secret", b"hunter22\xff")
    with pytest.raises(ConfigurationError) as caught:
        SecretFile(file).read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "hunter22" not in library_locals(caught.value)


@pytest.mark.parametrize(
    "text",
    ['[profiles.default]\ntoken = "hunter22', "token hunter22", "[profiles.default]\ntoken = hunter22"],
    ids=range(3),
)
def test_a_broken_file_of_profiles(home, text):
    """The error names the file and shows none of it, neither in the message nor in its attributes."""
    private(home / ".config" / "servetel" / "config.toml", text)
    with pytest.raises(ConfigurationError, match="is not TOML") as caught:
        read_sources({})
    assert caught.value.__cause__ is None
    assert "hunter22" not in f"{caught.value} {vars(caught.value)}"
    assert "hunter22" not in library_locals(caught.value)
