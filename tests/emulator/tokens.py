"""Bearer tokens: who each stands for, for how long and with which access scopes."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.emulator.status import ApiError, error_info

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
ANONYMOUS = "anonymous"
_INVALID_TOKEN = 'Bearer realm="https://accounts.google.com/", error="invalid_token"'
_HELP = (
    "Expected OAuth 2 access token, login cookie or other valid authentication credential."
    " See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


@dataclass(frozen=True)
class Token:
    """What a bearer token says; `principal` is an IAM member such as `serviceAccount:EMAIL`."""

    text: str
    principal: str
    scopes: tuple[str, ...]
    expires: datetime


class TokenBook:
    """The tokens that are known; thread-safe. Shared by Secret Manager and the metadata server."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._tokens: dict[str, Token] = {}
        self._dead: set[str] = set()
        self._lock = threading.Lock()

    def add(
        self,
        text: str,
        principal: str,
        *,
        scopes: Sequence[str] = (CLOUD_PLATFORM,),
        lifetime: float = 3600,
    ) -> Token:
        """Make a token of this text known, for `lifetime` seconds."""
        token = Token(text, principal, tuple(scopes), self._now() + timedelta(seconds=lifetime))
        with self._lock:
            self._tokens[text] = token
        return token

    def issue(self, principal: str, *, scopes: Sequence[str] = (CLOUD_PLATFORM,), lifetime: float = 3600) -> Token:
        """A fresh random token."""
        return self.add(f"ya29.c.{secrets.token_urlsafe(48)}", principal, scopes=scopes, lifetime=lifetime)

    def revoke(self, text: str) -> None:
        """From now on this token is answered with 401."""
        with self._lock:
            self._dead.add(text)

    def revoke_all(self) -> None:
        """From now on every token issued so far is answered with 401."""
        with self._lock:
            self._dead.update(self._tokens)

    def seconds_left(self, token: Token) -> float:
        """How long a token is good for; 0 if it is expired or revoked."""
        with self._lock:
            dead = token.text in self._dead
        return 0.0 if dead else max(0.0, (token.expires - self._now()).total_seconds())

    def authenticate(self, text: str | None, *, required: bool) -> Token:
        """Whom a request comes from.

        Args:
            text: The bearer token, None without one.
            required: Whether nobody and unknown tokens are refused, rather than taken as `anonymous`.

        Raises:
            ApiError: UNAUTHENTICATED.
        """
        with self._lock:
            token = self._tokens.get(text or "")
            dead = text in self._dead
        if token and not dead and self._now() < token.expires:
            return token
        if token or required:
            raise _unauthenticated(text, expired=token is not None)
        return Token(text or "", ANONYMOUS, (CLOUD_PLATFORM,), datetime.max.replace(tzinfo=UTC))


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """The bearer token of a request's headers (names in lower case), None without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def check_scopes(token: Token, service: str, method: str) -> None:
    """Secret Manager wants the cloud-platform scope, whatever IAM grants."""
    if CLOUD_PLATFORM in token.scopes:
        return
    raise ApiError(
        "PERMISSION_DENIED",
        "Request had insufficient authentication scopes.",
        error_info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", service=service, method=method),
        headers={
            "WWW-Authenticate": 'Bearer realm="https://accounts.google.com/", error="insufficient_scope",'
            f' scope="{CLOUD_PLATFORM}"'
        },
    )


def _unauthenticated(text: str | None, *, expired: bool) -> ApiError:
    if text is None:
        return ApiError(
            "UNAUTHENTICATED",
            f"Request is missing required authentication credential. {_HELP}",
            error_info("CREDENTIALS_MISSING"),
            headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'},
        )
    return ApiError(
        "UNAUTHENTICATED",
        f"Request had invalid authentication credentials. {_HELP}",
        error_info("ACCESS_TOKEN_EXPIRED" if expired else "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
        headers={"WWW-Authenticate": _INVALID_TOKEN},
    )
