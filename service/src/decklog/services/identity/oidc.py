"""Sign-in by OpenID Connect: authorization code with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636).

The ID token is verified like any token of its issuer, with the same tenants and roles, so a provider grants nothing here that a bearer
token would not. Nothing is stored: what belongs to one sign-in is in a cookie of the browser that began it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
import structlog

from decklog.domain.errors import Code, DecklogError, invalid_parameter
from decklog.domain.identity.access import Principal
from decklog.domain.identity.session import new_token
from decklog.services.identity.identity import Identity, unauthenticated
from decklog.services.identity.issuers import Fetch
from decklog.services.turns import Turns

Post = Callable[[str, Mapping[str, str], tuple[str, str] | None], Awaitable[bytes]]
"""Sends a form, with a user and a password if given, and returns the answer; raises OSError."""

BEGUN_SECONDS: Final = 600
"""Time for a person to sign in at the provider."""
CONFIGURATION_SECONDS: Final = 600.0
"""Age at which the configuration of the provider is read again."""
CODE_CHARS_MAX: Final = 4_096
RETURN_CHARS_MAX: Final = 1_000
_AT_ONCE: Final = 4
"""Sign-ins of a process that ask the provider at once; further ones wait, and are refused beyond the bounds of `Turns`."""
_TURN_SECONDS: Final = 5.0
_RETURN = re.compile(r"/board(?:/[A-Za-z0-9._~%-]+)*/?(?:\?[A-Za-z0-9._~%&=+:;,()*!$'@/-]*)?")
_PART = re.compile(r"[A-Za-z0-9_-]{43}")

_log = structlog.get_logger("decklog.oidc")


class Provider(msgspec.Struct, frozen=True):
    """The provider, as the settings have it. `secret` is empty for a public client."""

    issuer: str
    client_id: str
    secret: str
    scopes: str
    name: str


class _Configuration(msgspec.Struct, frozen=True):
    """The members of the provider's metadata (OpenID Connect Discovery 1.0) that are used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Tokens(msgspec.Struct):
    id_token: str


class Begun(msgspec.Struct, frozen=True):
    """A sign-in that a browser has begun. `kept` goes into its cookie, `location` is where it goes."""

    location: str
    kept: str


def checked_return(path: str | None) -> str:
    """Return the page of the board that a sign-in returns to. Raises `invalid-parameter` for any other address."""
    if path is None:
        return "/board"
    steps = path.partition("?")[0].split("/")
    if (
        len(path) > RETURN_CHARS_MAX
        or not _RETURN.fullmatch(path)
        or {".", ".."} & {each.replace("%2e", ".").replace("%2E", ".") for each in steps}
    ):
        raise invalid_parameter("return", "must be the path of a page of the board, as in /board/search.")
    return path


class OidcSignIn:
    """The sign-in by one provider.

    Args:
        provider: The provider.
        identity: Verifies ID tokens.
        fetch: Reads a document over the network.
        post: Sends a form.
        monotonic: Returns seconds that never jump.
    """

    def __init__(
        self, provider: Provider, identity: Identity, *, fetch: Fetch, post: Post, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.provider = provider
        self._identity = identity
        self._fetch = fetch
        self._post = post
        self._monotonic = monotonic
        self._configuration: _Configuration | None = None
        self._read_at = float("-inf")
        self._turns = Turns(_AT_ONCE, each=_AT_ONCE, of="oidc")

    async def begin(self, redirect_uri: str, return_to: str) -> Begun:
        """Begin a sign-in that comes back to `redirect_uri`. Raises `issuer-unavailable` and `overloaded`."""
        configuration = await self._configured()
        state, nonce, verifier = new_token(), new_token(), new_token()
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": self.provider.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in configuration.authorization_endpoint else "?"
        kept = ".".join((state, nonce, verifier, urlsafe_b64encode(return_to.encode()).rstrip(b"=").decode()))
        return Begun(f"{configuration.authorization_endpoint}{joint}{urlencode(asked)}", kept)

    async def finish(self, kept: str, *, state: str, code: str, redirect_uri: str) -> Principal:
        """Return the principal of the sign-in that `kept` belongs to.

        Raises:
            DecklogError: `unauthenticated` where state, code or token are not valid; `issuer-unavailable` and `overloaded`.
        """
        parts = kept.split(".")
        if len(parts) != 4 or not all(_PART.fullmatch(each) for each in parts[:3]):
            raise _not_begun()
        begun, nonce, verifier, _ = parts
        if not hmac.compare_digest(begun.encode(), state.encode("utf-8", "surrogatepass")):
            raise _not_begun()
        if not 0 < len(code) <= CODE_CHARS_MAX:
            raise unauthenticated()
        token = await self._token(code, verifier, redirect_uri)
        return await self._identity.by_id_token(token, client=self.provider.client_id, nonce=nonce)

    async def _token(self, code: str, verifier: str, redirect_uri: str) -> str:
        """Return the ID token for an authorization code."""
        configuration = await self._configured()
        provider = self.provider
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
        user = None
        if not provider.secret:
            form["client_id"] = provider.client_id
        elif "client_secret_basic" in configuration.token_endpoint_auth_methods_supported:
            user = (provider.client_id, provider.secret)
        else:
            form |= {"client_id": provider.client_id, "client_secret": provider.secret}
        try:
            async with self._turns.turn(0, seconds=_TURN_SECONDS):
                answer = await self._post(configuration.token_endpoint, form, user)
            return msgspec.json.decode(answer, type=_Tokens).id_token
        except (OSError, msgspec.DecodeError) as error:
            _log.info("sign-in refused", reason="the provider gave no token for the code", cause=str(error)[:300])
            raise unauthenticated() from None

    async def _configured(self) -> _Configuration:
        """Return the configuration of the provider, at most so many seconds old. Raises `issuer-unavailable`."""
        if self._configuration is not None and self._monotonic() - self._read_at < CONFIGURATION_SECONDS:
            return self._configuration
        issuer = self.provider.issuer
        try:
            async with self._turns.turn(0, seconds=_TURN_SECONDS):
                found: Any = await self._fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
            configuration = msgspec.json.decode(found, type=_Configuration)
            if configuration.issuer != issuer:
                raise OSError("the configuration is that of another issuer")
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("provider of the sign-in cannot be used", issuer=issuer, reason=str(error)[:300])
            raise DecklogError(
                Code.ISSUER_UNAVAILABLE,
                "The provider of the sign-in cannot be reached, or its configuration cannot be used.",
                retry_after=5,
            ) from None
        self._configuration, self._read_at = configuration, self._monotonic()
        return configuration


def return_of(kept: str) -> str:
    """Return the page that a begun sign-in returns to, checked again, as a browser kept it."""
    text = kept.rpartition(".")[2]
    try:
        return checked_return(_decoded(text))
    except (DecklogError, ValueError):
        return checked_return(None)


def _decoded(text: str) -> str:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()


def _not_begun() -> DecklogError:
    return DecklogError(Code.UNAUTHENTICATED, "This browser has not begun this sign-in, or it took too long. Sign in again.")
