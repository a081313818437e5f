"""Accounts: what identifies one, what it is called, and which known account a client asks for."""

from __future__ import annotations

import base64
import json
import pickle
import time

import pytest

from servetel_async import ConfigurationError, ResumeMismatchError
from servetel_async.protocol.account import Account, check_name, identify, origin_of, resolve
from servetel_async.protocol.tokens import Secret
from tests.transport.leaks import assert_clean

URL = "https://api.servetel.in"
SUBJECT, EMAIL = "canary-subject-20417", "canary.person@example.com"


def jwt(claims: object, signature: str = "signature") -> str:
    """A token with these claims; claims given as bytes are used unchanged."""
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return f"e30.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.{signature}"


# Where --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.servetel.in", "https://api.servetel.in"),
        ("HTTPS://API.Servetel.IN/", "https://api.servetel.in"),
        ("https://api.servetel.in:443", "https://api.servetel.in"),
        ("https://api.servetel.in:0443/", "https://api.servetel.in"),
        ("https://api.servetel.in.", "https://api.servetel.in"),
        ("https://api.servetel.in:8443", "https://api.servetel.in:8443"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://127.0.0.1:443", "http://127.0.0.1:443"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://[::1]", "http://[::1]"),
        ("https://proxy.example/Servetel/", "https://proxy.example/Servetel"),
    ],
)
def test_the_origin_of_an_address(url, origin):
    """Spellings of one address give one origin. Port and path are kept: they may lead to another API."""
    assert origin_of(url) == origin


# Who ----------------------------------------------------------------------------------------------------------------------


def test_a_renewed_token_is_the_same_account():
    """The subject identifies the account; times, issuer and token id change with each token."""
    first = jwt({"sub": SUBJECT, "iat": 1, "exp": 2, "nbf": 1, "jti": "a", "iss": f"{URL}/v1/auth/login"}, "first")
    second = jwt({"sub": SUBJECT, "iat": 3, "exp": 4, "nbf": 3, "jti": "b", "iss": f"{URL}/token/generate"}, "second")

    assert identify(URL, first) == identify(URL, second)
    assert identify(URL, first).known_by == "subject"


def test_a_login_and_a_token_of_one_account_are_one():
    """A login whose token names its subject is identified by the subject, not by the e-mail address."""
    assert identify(URL, jwt({"sub": SUBJECT}), EMAIL) == identify(URL, jwt({"sub": SUBJECT}, "of the portal"))


def test_a_login_with_a_token_that_says_nothing_is_its_address():
    """The e-mail address identifies it, in any case; the token does not."""
    accounts = [identify(URL, token, email) for token, email in (("opaque-1", EMAIL), ("opaque-2", EMAIL.upper()))]

    assert accounts[0] == accounts[1]
    assert accounts[0].known_by == "login"
    assert accounts[0] != identify(URL, "opaque-1", f"another.{EMAIL}")


def test_a_token_that_says_nothing_is_itself():
    """Another opaque token is another identity, even if the account is the same."""
    assert identify(URL, "opaque-token-1") == identify(URL, "opaque-token-1")
    assert identify(URL, "opaque-token-1").known_by == "token"
    assert identify(URL, "opaque-token-1").fingerprint != identify(URL, "opaque-token-2").fingerprint


def test_what_kind_of_identity_it_is_belongs_to_it():
    """A subject, another claim, an address and a token with equal texts are four accounts."""
    tokens = [jwt({"sub": EMAIL}), jwt({"accountid": EMAIL}), EMAIL]
    accounts = {identify(URL, token) for token in tokens} | {identify(URL, "opaque", EMAIL)}

    assert len({account.fingerprint for account in accounts}) == 4


def test_equal_subjects_of_two_addresses_are_two_accounts():
    """Each brand numbers its subjects on its own, so equal subjects are different accounts."""
    here, there = identify(URL, jwt({"sub": "1"})), identify("https://api.acefone.in", jwt({"sub": "1"}))

    assert here.fingerprint != there.fingerprint


ORDER = ["sub", "accountid", "account_id", "user_id", "userid", "client_id"]


@pytest.mark.parametrize("place", range(len(ORDER)))
def test_the_claims_in_their_order(place):
    """The first usable claim of the list identifies the account."""
    later = dict.fromkeys(ORDER[place + 1 :], "another")

    assert identify(URL, jwt({**later, ORDER[place]: SUBJECT})) == identify(URL, jwt({ORDER[place]: SUBJECT}))


@pytest.mark.parametrize("value", ["", "  ", None, True, 1.5, [SUBJECT], {"id": SUBJECT}, "x" * 257, "\ud800", "a\nb"])
def test_a_claim_that_cannot_be_used_is_skipped(value):
    """A claim that is empty, too long or of the wrong type is skipped without an error."""
    assert identify(URL, jwt({"sub": value, "user_id": SUBJECT})) == identify(URL, jwt({"user_id": SUBJECT}))


def test_a_number_and_its_text_are_one_subject():
    """A subject may be a JSON number at one address and a text at another."""
    assert identify(URL, jwt({"sub": 20417})) == identify(URL, jwt({"sub": "20417"}))


@pytest.mark.parametrize(
    "token",
    [
        jwt(b"{"),
        jwt(b"\xff\xfe"),
        jwt(b"[" * 100_000),
        jwt([SUBJECT]),
        jwt(b'{"sub": ' + b"9" * 5000 + b"}"),
        jwt({"sub": 10**300}),
        jwt({"sub": "x" * 100_000}),
        jwt({}),
        "a.b",
        "a.b.c",
        "..",
        "a.b.c.d.e",
    ],
    ids=lambda token: token[:24],
)
def test_a_token_that_only_looks_like_a_jwt_is_opaque(token):
    """A token without readable claims is its own identity; nothing is raised."""
    assert identify(URL, token).known_by == "token"
    assert identify(URL, token, EMAIL).known_by == "login"


def test_an_account_shows_no_secret():
    """No form of an account shows the token, its subject or the e-mail address."""
    for account in (identify(URL, jwt({"sub": SUBJECT}), EMAIL), identify(URL, "canary-opaque", EMAIL)):
        for text in (repr(account), str(account), json.dumps(account), pickle.dumps(account).decode("latin-1")):
            assert "canary" not in text


def test_an_account_is_plain_texts():
    """An account can be written as JSON and read back; a name from a hidden source is plain text too."""
    account = identify(URL, jwt({"sub": SUBJECT}), name=check_name(Secret("delhi")))

    assert Account(*json.loads(json.dumps(account))) == account
    assert [type(value) for value in account] == [str] * 4
    assert (len(account.fingerprint), int(account.fingerprint, 16) >= 0) == (12, True)
    assert "delhi" in repr(account)


def test_a_fingerprint_is_never_computed_otherwise():
    """Databases hold fingerprints: another way to compute them would make each account a new one."""
    assert identify(URL, jwt({"sub": "20417"})).fingerprint == "3e9146d03b1b"
    assert identify(URL, "opaque-token-1").fingerprint == "b1d6b476a9d9"


def test_guessing_an_identity_costs_time():
    """A fingerprint takes milliseconds to compute, so a list of numbers cannot be tried quickly."""
    begun = time.process_time()
    identify(URL, "opaque-token-1")

    assert time.process_time() - begun > 0.002


# Names --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "called"),
    [
        (None, None),
        ("delhi", "delhi"),
        ("  Delhi office ", "Delhi office"),
        ("दिल्ली", "दिल्ली"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("x" * 64, "x" * 64),
    ],
)
def test_names(name, called):
    """A name is any printable text. It is stripped, and equal characters give equal names."""
    assert check_name(name) == called


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", "a\x00b", "a\u202eb", "\ud800", 5, b"delhi", True])
def test_names_that_are_refused(name):
    """Empty names, long names, control characters and non-texts are refused with an example."""
    with pytest.raises(ConfigurationError, match="name of the account") as caught:
        check_name(name)
    assert 'account="delhi"' in caught.value.fix


# Which --------------------------------------------------------------------------------------------------------------------

HERE, THERE = URL, "https://api.acefone.in"
A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def subject(fingerprint: str, name: str | None = None, origin: str = HERE) -> Account:
    return Account(origin, fingerprint, "subject", name)


def login(fingerprint: str, name: str | None = None, origin: str = HERE) -> Account:
    return Account(origin, fingerprint, "login", name)


def token(fingerprint: str, name: str | None = None, origin: str = HERE) -> Account:
    return Account(origin, fingerprint, "token", name)


KNOWN = [
    # the fingerprint is known: it decides, and the label that rows carry stays
    ([subject(A)], subject(A), 0),
    ([token(A)], token(A), 0),
    ([subject(A)], subject(A, "delhi"), 0),
    ([subject(A, "delhi")], subject(A), 0),
    ([subject(A, "delhi")], subject(A, "mumbai"), 0),
    ([subject(B), subject(A, "delhi")], subject(A, "delhi"), 1),
    ([token(B), token(A)], token(A), 1),
    # the name is known, and nothing shows another account
    ([token(A, "delhi")], token(B, "delhi"), 0),
    ([token(A, "delhi")], subject(B, "delhi"), 0),
    ([subject(A, "delhi")], token(B, "delhi"), 0),
    ([subject(A, "delhi")], login(B, "delhi"), 0),
    ([login(A, "delhi")], subject(B, "delhi"), 0),
    ([login(A, "delhi")], token(B, "delhi"), 0),
    ([token(A)], token(B, A), 0),
    ([token(C), token(A)], token(B, A), 1),
]


@pytest.mark.parametrize(("known", "this", "which"), KNOWN)
def test_an_account_that_is_known(known, this, which):
    """The fingerprint finds the known account, else the name does; the known label stays."""
    assert resolve(known, this) is known[which]


NEW = [
    ([], subject(A)),
    ([], token(A)),
    ([], token(A, "delhi")),
    ([subject(A)], subject(B)),
    ([login(A)], login(B)),
    ([subject(A, "delhi")], subject(B, "mumbai")),
    ([subject(A, "delhi")], subject(B)),
    ([token(A)], token(B, "mumbai")),
    ([token(A, "delhi")], token(B, "mumbai")),
    ([token(A, "delhi")], token(B, C)),
    ([token(A, "delhi")], token(B, A)),  # a fingerprint names an account only if it is the label
    ([token(A, origin=THERE)], token(B)),
    ([subject(A, origin=THERE)], subject(B)),
]


@pytest.mark.parametrize(("known", "this"), NEW)
def test_an_account_that_is_new(known, this):
    """An account is new at another address, under a new name, or with a new identity that outlives renewals."""
    assert resolve(known, this) is this


TAKEN = [
    ([subject(A, "delhi")], subject(B, "delhi"), "the token names another account"),
    ([login(A, "delhi")], login(B, "delhi"), "the login names another account"),
    ([subject(A)], subject(B, A), "the token names another account"),
    ([subject(A, "delhi"), subject(B, "mumbai")], subject(B, "delhi"), "belongs to the account 'mumbai'"),
    ([token(A, "delhi"), token(B, "mumbai")], token(B, "delhi"), "belongs to the account 'mumbai'"),
    ([token(A), token(B, "mumbai")], token(B, A), "belongs to the account 'mumbai'"),
    ([subject(A, "delhi", THERE)], subject(B, "delhi"), f"came from {THERE}"),
    ([token(A, "delhi", THERE)], token(B, "delhi"), f"came from {THERE}"),
    ([subject(A, "delhi", THERE), subject(B)], subject(B, "delhi"), f"came from {THERE}"),
]


@pytest.mark.parametrize(("known", "this", "why"), TAKEN)
def test_a_name_of_another_account(known, this, why):
    """Rows carry the label, so a name of another account would mix the calls of two."""
    with pytest.raises(ResumeMismatchError, match=f"name '{this.name}' belongs to another account") as caught:
        resolve(known, this)
    assert why in caught.value.why
    assert 'account="' in caught.value.fix
    assert_clean(caught.value)


DOUBTFUL = [
    ([token(A)], token(B), A),
    ([token(A, "delhi")], token(B), "delhi"),
    ([token(A, "delhi"), subject(C)], token(B), "delhi"),
    # a token or login of another kind may be of the same account as well
    ([subject(A, "delhi")], token(B), "delhi"),
    ([login(A, "delhi")], token(B), "delhi"),
    ([token(A, "delhi")], subject(B), "delhi"),
    ([token(A, "delhi")], login(B), "delhi"),
    ([login(A, "delhi")], subject(B), "delhi"),
    # rows of two accounts would carry one label
    ([subject(A, B)], subject(B), B),
    ([subject(A, origin=THERE)], subject(A), A),
]


@pytest.mark.parametrize(("known", "this", "label"), DOUBTFUL)
def test_an_account_that_nothing_identifies(known, this, label):
    """Without a name the account is refused, not guessed, and the error says how to answer."""
    with pytest.raises(ResumeMismatchError, match="annot tell whether this") as caught:
        resolve(known, this)
    assert f'account="{label}"' in caught.value.fix


@pytest.mark.parametrize(("known", "this", "label"), DOUBTFUL[:-2])
def test_the_answers_that_the_error_offers_work(known, this, label):
    """The label means the known account; a new name means another one."""
    assert resolve(known, this._replace(name=label)).label == label
    assert resolve(known, this._replace(name="another")).name == "another"


def test_an_error_names_a_few_accounts():
    """With hundreds of known accounts the error names only ten."""
    with pytest.raises(ResumeMismatchError) as caught:
        resolve([token(f"{number:012}") for number in range(500)], token(B))
    assert caught.value.why.count("'") == 2 * 10
