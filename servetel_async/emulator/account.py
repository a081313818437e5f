"""The account's side of authentication: logins that lock, tokens that expire."""

import base64
import math
import time
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, TypeAlias

import msgspec

from servetel_async.emulator.clock import WallClock
from servetel_async.emulator.reply import Reply
from servetel_async.protocol.undecodable import UNDECODABLE

__all__ = ["Account", "Expiry"]

#: Answers to an expired token: one of these statuses with a body that says so, or a gateway's bare 403.
Expiry: TypeAlias = Literal["401", "200", "400", "403", "422", "500", "gateway"]

_FAILURES_BEFORE_LOCK: Final = 5


@dataclass(slots=True)
class _Lease:
    """The life of a token: in authorised requests, and until a monotonic second."""

    requests_left: float
    dies_at: float


class Account:
    """Issue tokens and check them; remember each one, to distinguish an expired token from a wrong one."""

    def __init__(
        self,
        *,
        subject: str,
        seed: int,
        clock: WallClock,
        token: str | None,
        token_requests: int | None,
        expiry: Expiry,
        expires_in: int,
        email: str | None,
        password: str | None,
        lock_seconds: float,
    ) -> None:
        self._subject = subject
        self._random = Random(f"tokens {seed}")
        self._clock = clock
        self._token_requests = float("inf") if token_requests is None else token_requests
        self._expiry = expiry
        self._expires_in = expires_in
        self._credentials = (email, password)
        self._lock_seconds = lock_seconds
        self._failures = 0
        self._locked_until = 0.0
        self.logins = 0
        self.refreshes = 0
        self.token = token if token is not None else self._forge()
        # The portal's token outlives every test: only requests or expire() end it.
        self._leases = {self.token: _Lease(self._token_requests, float("inf"))}

    def authorise(self, header: str | None) -> Reply | None:
        """Count a request against its token; return the refusal, or None if it may pass."""
        scheme, _, token = (header or "").partition(" ")
        lease = self._leases.get(token)
        if scheme.lower() != "bearer" or lease is None:
            return Reply.failure(401, "Unauthenticated.")
        if lease.requests_left < 1 or time.monotonic() >= lease.dies_at:
            if self._expiry == "gateway":
                return Reply.json(403, {"Message": "User is not authorized to access this resource"})
            return Reply.failure(int(self._expiry), "Token has expired")
        lease.requests_left -= 1
        return None

    def expire(self) -> None:
        """End every token issued so far."""
        for lease in self._leases.values():
            lease.requests_left = 0

    def log_in(self, body: bytes) -> Reply:
        """Answer `POST /v1/auth/login`: five failures lock the account for a while."""
        self.logins += 1
        if time.time() < self._locked_until:
            stamp = self._clock.stamp(math.ceil(self._locked_until))
            return Reply.failure(429, "Too many login attempts. Please try again later.", retry_after=stamp)
        sent = _credentials(body)
        if sent is None:
            return Reply.failure(422, {"email": ["The email field is required."]})
        if None not in self._credentials and sent == self._credentials:
            self._failures = 0
            return self._issue()
        self._failures += 1
        failures = self._failures
        if failures >= _FAILURES_BEFORE_LOCK:
            self._failures = 0
            self._locked_until = time.time() + self._lock_seconds
        if sent[0] != self._credentials[0]:
            return Reply.failure(401, "Invalid credentials")
        return Reply.failure(401, "The username or password is incorrect.", login_failed_count=failures)

    def refresh(self, header: str | None) -> Reply:
        """Answer `POST /v1/auth/refresh`; an expired token may still be exchanged, as the usual PHP library allows."""
        self.refreshes += 1
        token = (header or "").partition(" ")[2]
        return self._issue() if token in self._leases else Reply.failure(401, "Unauthenticated.")

    def _issue(self) -> Reply:
        self.token = self._forge(expires_at=int(time.time()) + self._expires_in)
        self._leases[self.token] = _Lease(self._token_requests, time.monotonic() + self._expires_in)
        return Reply.json(
            200,
            {
                "success": True,
                "access_token": self.token,
                "token_type": "bearer",
                "expires_in": self._expires_in,
                "number_of_days_left": 30,
            },
        )

    def _forge(self, *, expires_at: int | None = None) -> str:
        """Return text that looks like a JWT; `exp` only if it has an end, because clients must not require it."""
        claims: dict[str, Any] = {"sub": self._subject, "jti": f"{self._random.getrandbits(64):016x}"}
        if expires_at is not None:
            claims["exp"] = expires_at
        parts = (
            msgspec.json.encode({"typ": "JWT", "alg": "HS256"}),
            msgspec.json.encode(claims),
            self._random.randbytes(32),
        )
        return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class _Login(msgspec.Struct):
    email: str
    password: str


def _credentials(body: bytes) -> tuple[str, str] | None:
    try:
        login = msgspec.json.decode(body, type=_Login)
    except UNDECODABLE:
        return None
    return login.email, login.password
