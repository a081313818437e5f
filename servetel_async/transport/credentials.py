"""Sources of the token: given, read from a file, provided by a callable, or from a login.

Logins are throttled and lock accounts: one is in flight at a time, every task waits for it, and credentials that were
refused once are not sent again by this client.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol, cast

from servetel_async.errors import AuthenticationError, ConfigurationError, RateLimitError, ServetelError
from servetel_async.profiles import Sources, no_token
from servetel_async.protocol.reply import Reply, says_no, server_message
from servetel_async.protocol.tokens import Secret, as_secret, as_secrets, expires_at, kind_of, lifetime, normalise_token
from servetel_async.protocol.verdict import Action, Unacceptable, judge, malformed
from servetel_async.secret_files import SecretFile
from servetel_async.transport.callbacks import callback_failed, must_pass

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable

TokenProvider = Callable[[], Awaitable[str] | str]
#: Sends one POST: path, JSON body, token for the header.
Post = Callable[[str, "dict[str, str]", "Secret | None"], "Coroutine[Any, Any, Reply]"]
Spawn = Callable[["Coroutine[Any, Any, Secret]"], "asyncio.Task[Secret]"]

#: Seconds before its end at which a token is renewed, so that no request carries one that expires on the way.
EARLY = 30.0


class TokenSource(Protocol):
    """A source of the token."""

    @property
    def account(self) -> Hashable:
        """A key that distinguishes accounts; never the secret itself."""
        ...

    @property
    def email(self) -> Secret | None:
        """The e-mail address of a login; None without a login."""
        ...

    async def token(self) -> Secret:
        """Return the token to use now."""
        ...

    async def renew(self, rejected: Secret, *, sure: bool = True) -> bool:
        """Get a new token in place of the refused one; False if there is no other token.

        Args:
            rejected: the token that was refused.
            sure: whether the API named the token as the reason. If not, the old token is kept until there is another.

        Raises:
            ServetelError: if the attempt to get another one fails.
            Unacceptable: if the login gets no usable reply.
        """
        ...


class StaticToken:
    """A given token; there is no other."""

    email: Secret | None = None

    def __init__(self, token: object) -> None:
        self._token = normalise_token(token)
        self.account: Hashable = ("token", hashlib.sha256(self._token.encode()).hexdigest())

    async def token(self) -> Secret:
        return self._token

    async def renew(self, rejected: Secret, *, sure: bool = True) -> bool:  # noqa: ARG002 - there is no other
        return rejected != self._token


class FileToken:
    """A token from a file. The file is read again when the token is refused, because it may have been rotated."""

    email: Secret | None = None

    def __init__(self, file: SecretFile, spawn: Spawn) -> None:
        self._file = file
        self._flight = _SingleFlight(spawn)
        self._token = normalise_token(file.read())
        # The identity of the first token: another token in the same file belongs to the same account.
        self.account: Hashable = StaticToken(self._token).account

    async def token(self) -> Secret:
        return self._token

    async def renew(self, rejected: Secret, *, sure: bool = True) -> bool:
        if self._token == rejected:
            await self._flight.fly(self._read)
        if sure and self._token == rejected:
            raise self._refused("the file was read again and still holds the refused token", "write a new token into")
        return self._token != rejected

    async def _read(self) -> Secret:
        try:
            self._token = normalise_token(await asyncio.to_thread(self._file.read))
        except ConfigurationError as error:
            gone = self._refused(f"no other could be read from its file: {error.what}", "put a new token into")
        else:
            return self._token
        raise gone

    def _refused(self, why: str, fix: str) -> AuthenticationError:
        return AuthenticationError(
            "the API does not accept the token", why=why, fix=f"{fix} {self._file.path}", stopped_by="final"
        )


class _SingleFlight:
    """Run one task for all callers; a cancelled caller does not cancel it for the others."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._task: asyncio.Task[Secret] | None = None

    async def fly(self, work: Callable[[], Coroutine[Any, Any, Secret]]) -> Secret:
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._task = self._spawn(work())
        await asyncio.wait({task})
        if task.cancelled():  # only this task was cancelled: if the client closed, the caller would be cancelled too
            raise callback_failed("the token provider", asyncio.CancelledError())
        error = task.exception()
        if isinstance(error, ServetelError):
            raise copy.copy(error)  # one copy each: an error belongs to one call
        if isinstance(error, Unacceptable):
            raise Unacceptable(dataclasses.replace(error.verdict, error=copy.copy(error.verdict.error)))
        return task.result()


class ProvidedToken:
    """A token from the caller's own callable, called again when the token has ended or was refused."""

    email: Secret | None = None

    def __init__(self, provider: TokenProvider, spawn: Spawn) -> None:
        self._provider = provider
        self._flight = _SingleFlight(spawn)
        self._token: Secret | None = None
        self.account: Hashable = ("provider", *_identity(provider))

    async def token(self) -> Secret:
        token = self._token
        if token is not None:
            end = expires_at(token)
            if end is None or time.time() < end - EARLY:
                return token
        return await self._flight.fly(self._ask)

    async def renew(self, rejected: Secret, *, sure: bool = True) -> bool:
        if self._token is None or self._token == rejected:
            self._token = None if sure else self._token
            if await self._flight.fly(self._ask) == rejected:
                if sure:
                    raise AuthenticationError(
                        "the API does not accept the token",
                        why="the token provider was asked again and gave the refused token",
                        fix="let the token provider give a new one",
                        stopped_by="final",
                    )
                return False
        return True

    async def _ask(self) -> Secret:
        given = await self._provided()
        try:
            self._token = normalise_token(given)
        except ConfigurationError as error:
            failure = ConfigurationError(
                "the token provider gave what cannot be a token",
                why=error.what,
                fix="let it give the token itself, as a text",
            )
        else:
            return self._token
        raise failure

    async def _provided(self) -> object:
        task = asyncio.current_task()
        try:
            given = self._provider()
            return as_secret(await given if inspect.isawaitable(given) else given)
        except BaseException as error:
            if must_pass(error, task):
                raise
            failure = callback_failed("the token provider", error)
        raise failure


class _Same:
    """Compare by identity: a provider's own ``__hash__`` and ``__eq__`` may be missing or wrong."""

    __slots__ = ("_it",)

    def __init__(self, it: object) -> None:
        self._it = it

    def __hash__(self) -> int:
        return id(self._it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._it is other._it


def _identity(provider: TokenProvider) -> tuple[_Same, ...]:
    """Identify a provider. Python makes a new bound method at each access, so its object and function decide."""
    parts = (provider.__self__, provider.__func__) if isinstance(provider, MethodType) else (provider,)
    return tuple(_Same(part) for part in parts)


class LoginToken:
    """A token from e-mail and password, refreshed before it ends."""

    def __init__(self, email: object, password: object, post: Post, spawn: Spawn) -> None:
        email, password = as_secret(email), as_secret(password)
        if email is None or password is None:
            raise ConfigurationError(
                "half a login is given",
                why="a login needs an e-mail address and a password",
                fix="give both email= and password=",
            )
        if not isinstance(email, str) or "@" not in email:
            raise ConfigurationError(
                "the e-mail address of the login is not one", why="it is no text with an @", fix="correct email="
            )
        if not isinstance(password, str) or not password:
            raise ConfigurationError(
                f"the password of the login is {'empty' if password == '' else f'of type {kind_of(password)}'}",
                why="a login needs an e-mail address and a password",
                fix="give password= as a text",
            )
        self.email: Secret | None = Secret(email)
        self._credentials = {"email": self.email, "password": Secret(password)}
        self._post = post
        self._flight = _SingleFlight(spawn)
        self._token: Secret | None = None
        self._refresh_at = 0.0
        self._has_logged_in = False
        self._refused: AuthenticationError | None = None
        self._closed_until = 0.0
        self.account: Hashable = ("login", hashlib.sha256(email.lower().encode()).hexdigest())

    async def token(self) -> Secret:
        token = self._token
        if token is None:
            return await self._flight.fly(self._login)
        if time.monotonic() >= self._refresh_at:
            return await self._flight.fly(self._refresh)
        return token

    async def renew(self, rejected: Secret, *, sure: bool = True) -> bool:
        if self._token is None or self._token == rejected:
            self._token = None if sure else self._token
            await self._flight.fly(self._login)
        return True

    async def _refresh(self) -> Secret:
        """Exchange a valid token for a new one. If that fails for any reason, log in once."""
        with contextlib.suppress(Unacceptable):
            reply = await self._post("/v1/auth/refresh", {}, self._token)
            if reply.status == 200 and not says_no(reply.payload()):  # noqa: PLR2004
                return self._keep(reply)
        self._token = None  # otherwise each call would ask for a refresh while the login fails
        return await self._login()

    async def _login(self) -> Secret:
        if self._refused is not None:
            raise copy.copy(self._refused)
        wait = self._closed_until - time.monotonic()
        if wait > 0:
            raise self._throttled(wait)
        reply = await self._post("/v1/auth/login", cast("dict[str, str]", self._credentials), None)
        now = time.time()
        payload = as_secrets(reply.payload())
        if reply.status == 200 and not says_no(payload):  # noqa: PLR2004
            return self._keep(reply)
        verdict = judge(reply, now, proved=self._has_logged_in)
        asked = reply.retry_after(now)
        if verdict.throttled or asked is not None:
            seconds = asked or 60.0
            self._closed_until = time.monotonic() + seconds
            raise self._throttled(seconds)
        if reply.status in (200, 400, 401, 422) or verdict.action is Action.RENEW:  # it sent no token to renew
            self._refused = AuthenticationError(
                f'the login was refused: "{server_message(payload)}"',
                why="more tries with the same credentials would lock the account, so they are not sent again",
                fix="correct the e-mail address or the password, and begin again with them",
                status=reply.status,
            )
            raise copy.copy(self._refused)
        raise Unacceptable(dataclasses.replace(verdict, retries=1))

    def _keep(self, reply: Reply) -> Secret:
        payload = as_secrets(reply.payload())
        fields = cast("dict[str, Any]", payload) if isinstance(payload, dict) else {}
        try:
            token = normalise_token(fields.get("access_token"))
        except ConfigurationError:
            raise Unacceptable(malformed("the login brought no token", retries=0)) from None
        seconds = lifetime(fields.get("expires_in"))
        self._refresh_at = time.monotonic() + max(seconds - EARLY, seconds * 0.9)
        self._has_logged_in = True
        self._token = token
        return token

    def _throttled(self, seconds: float) -> RateLimitError:
        return RateLimitError(
            "logging in is throttled",
            retry_after=seconds,
            why="there were too many tries; the server says when it will listen again",
            fix=f"wait {seconds:.0f} seconds, or use a token from the portal",
            stopped_by="retry_after",
        )


def choose_tokens(  # noqa: PLR0917 - all that a token may come from
    token: str | TokenProvider | SecretFile | None,
    email: str | None,
    password: str | SecretFile | None,
    found: Sources,
    post: Post,
    spawn: Spawn,
) -> TokenSource:
    """Choose the source of the token: the arguments, the environment or the profile.

    A file is read only if its content is used: if a token was given too, the file may be missing.

    Raises:
        ConfigurationError: if there is no token, if there are two, or if the token is not valid.
    """
    if token is not None and (email is not None or password is not None):
        raise ConfigurationError("both a token and a login are given", fix="give token=, or email= and password=")
    if token is None and email is None and password is None:
        token, email, password = found.token, found.email, found.password
    if email is not None or password is not None:
        return LoginToken(email, password.read() if isinstance(password, SecretFile) else password, post, spawn)
    if token is None:
        raise no_token()
    if isinstance(token, SecretFile):
        return FileToken(token, spawn)
    return ProvidedToken(token, spawn) if callable(token) else StaticToken(token)
