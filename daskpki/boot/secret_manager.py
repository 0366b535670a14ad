"""Secret Manager's `access` over REST: the one method that a node calls, and what its refusals mean for a boot.

Tried again: connection errors, 408, 409 ABORTED, 429, 5xx, a wrong checksum, and 403 IAM_PERMISSION_DENIED, since a
new grant takes minutes to act. A 401 gets a new token. Everything else ends the boot at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from daskpki.boot.clock import Reading, parse_date
from daskpki.boot.connection import TRANSIENT, Connection
from daskpki.boot.crc32c import crc32c
from daskpki.boot.http import Reply
from daskpki.boot.retry import Patience, TryAgain
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError
from daskpki.pki.fields import octets
from daskpki.quoting import shortened
from daskpki.settings import GsmUrl
from daskpki.store.gsm.refusals import NOT_DONE, Refusal, error_for, missing_permission, status_of_http

_OK, _UNAUTHENTICATED = 200, 401
_METHOD: Final = "access_secret_version"
_NO_WAY: Final = "is there a way to it from here: Private Google Access, a NAT, or a proxy?"
_ACCESS: Final = "secretmanager.versions.access"


class SecretManager:
    """Reads payloads; `date` is what the clock of the other side said last.

    `token` fetches an access token, `account` says for whom (None when nobody knows), for the hint about a grant.
    """

    def __init__(
        self,
        url: GsmUrl,
        connection: Connection,
        patience: Patience,
        *,
        token: Callable[[], Confidential],
        account: Callable[[], str | None],
    ) -> None:
        self._url = url
        self._connection = connection
        self._patience = patience
        self._fetch_token = token
        self._account = account
        self._token: Confidential | None = None
        self.date: Reading | None = None

    def latest(self, secret: str) -> tuple[int, Confidential]:
        """Number and payload of `latest`; NotFoundError, DisabledError, AccessDeniedError, UnavailableError."""
        return self._access(secret, "latest")

    def access(self, secret: str, number: int) -> Confidential:
        """The payload of that version; raises what `latest` raises."""
        return self._access(secret, str(number))[1]

    def _access(self, secret: str, version: str) -> tuple[int, Confidential]:
        def attempt(timeout: float) -> tuple[int, Confidential]:
            token = self._token
            if token is None:
                token = self._token = self._fetch_token()
            headers = {"Authorization": f"Bearer {token.reveal().decode('latin-1')}"}
            path = f"/v1/{self._url.parent}/secrets/{secret}/versions/{version}:access"
            try:
                reply = self._connection.get(path, headers, timeout)
            except TryAgain as error:
                raise TryAgain(str(error), hint=error.hint or _NO_WAY) from error
            self._note_date(reply)
            if reply.status == _OK:
                return _parse_payload(reply.body, secret)
            raise self._judge(reply, secret, version)

        return self._patience.persist(attempt)

    def _note_date(self, reply: Reply) -> None:
        time = parse_date(reply.headers.get("date", ""))
        if time is not None:
            self.date = Reading(time, monotonic())

    def _judge(self, reply: Reply, secret: str, version: str) -> Exception:
        refusal = parse_refusal(reply)
        subject = f"secret {secret}" + ("" if version == "latest" else f", version {version},")
        error = error_for(refusal, _METHOD, subject, self._url)
        if reply.status == _UNAUTHENTICATED:
            self._token = None
        elif missing_permission(refusal):
            if missing_permission(refusal) == _ACCESS:  # and not one on a key of Cloud KMS, for example
                error.hint = self._grant(secret)
        elif not (reply.status in TRANSIENT or reply.status >= 500 or refusal.status in NOT_DONE):  # noqa: PLR2004
            return error
        return TryAgain(str(error), hint=error.hint)

    def _grant(self, secret: str) -> str:
        """The command that makes the missing grant."""
        place = f" --location {self._url.location}" if self._url.location else ""
        return (
            f"gcloud secrets add-iam-policy-binding {secret} --project {self._url.project}{place} "
            f"--member serviceAccount:{self._account() or 'EMAIL'} --role roles/secretmanager.secretAccessor"
        )


def _parse_payload(body: bytes, secret: str) -> tuple[int, Confidential]:
    try:
        reply = json.loads(body)
        data = octets(reply["payload"]["data"], "the payload")
        number = int(reply["name"].rpartition("/")[2])
        checksum = int(reply["payload"]["dataCrc32c"])
    except (ValueError, KeyError, TypeError, AttributeError, DaskpkiError):
        raise TryAgain(f"secret {secret}: the reply is not the JSON that Secret Manager sends") from None
    if checksum != crc32c(data):
        raise TryAgain(f"secret {secret}: the payload was damaged on the way (its crc32c does not match)")
    return number, Confidential(data)


def parse_refusal(reply: Reply) -> Refusal:
    """What a reply other than 200 says; a front end's page of HTML says no more than its status."""
    try:
        error: dict[str, Any] = json.loads(reply.body)["error"]
        details = [entry for entry in error.get("details", ()) if str(entry.get("@type", "")).endswith("ErrorInfo")]
        info = details[0] if details else {}
        status = str(error.get("status") or status_of_http(reply.status))
        return Refusal(status, shortened(str(error["message"])), str(info.get("reason", "")), info.get("metadata"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refusal(status_of_http(reply.status), f"HTTP status {reply.status}")
