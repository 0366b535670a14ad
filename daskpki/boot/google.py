"""Google's services at boot: the metadata server, access tokens, and Secret Manager's `access` over REST.

The metadata server is asked at its IP address, since name resolution may not work yet, and never through a proxy.
Tokens come in google-auth's order: a credentials file, else the VM's service account.

Connection errors, 408, 409 ABORTED, 429, 5xx and a wrong checksum are retried, and so is 403 IAM_PERMISSION_DENIED,
since a new grant takes minutes to act. After 401 a new token is fetched. Any other answer ends the boot at once.

A payload's checksum is CRC-32C (Castagnoli), which the standard library lacks: a table of 256 entries, 4 ms for 64 KiB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from os.path import isfile
from time import monotonic
from typing import Any, Final

from daskpki.boot.http import Connection, Reading, Reply, RetryPolicy, TryAgain, parse_date, within
from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError, UnavailableError
from daskpki.pki.json_fields import octets
from daskpki.quoting import shortened
from daskpki.settings import GsmUrl
from daskpki.store.gsm.errors import NOT_DONE, ApiError, error_for, is_temporary, missing_permission, status_of_http

_POLYNOMIAL = 0x82F63B78  # RFC 3720, B.4, with the bits reversed


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ _POLYNOMIAL if value & 1 else value >> 1
    return value


_TABLE = tuple(map(_entry, range(256)))


def crc32c(data: bytes) -> int:
    """Compute the checksum of `data`, from 0 to 2**32 - 1."""
    table, crc = _TABLE, 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


_ADDRESS: Final = "169.254.169.254"
_HOST_VARIABLES: Final = ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP")
"""Variables that name another metadata server; google-auth reads them, too."""
_ROOT: Final = "/computeMetadata/v1/instance/"
_FLAVOR: Final = "Google"
_ACCOUNT: Final = "service-accounts/default/"
_BINDING: Final = re.compile(r"workloadIdentity|getAccessToken|\bbinding\b|\biam\.", re.IGNORECASE)
_ELSEWHERE: Final = "off Google Cloud, set GOOGLE_APPLICATION_CREDENTIALS"


class Metadata:
    """This VM's metadata server."""

    def __init__(self, environ: Mapping[str, str], policy: RetryPolicy) -> None:
        host = next((environ[name] for name in _HOST_VARIABLES if environ.get(name)), _ADDRESS)
        self._connection = Connection(host, encrypted=False)
        self._policy = policy

    def token(self) -> Confidential:
        """Fetch an access token of this VM's service account; AccessDeniedError if it has none."""
        try:
            return self._policy.persist(self._token)
        except NotFoundError:
            raise AccessDeniedError(
                "this VM has no service account, so it may read no secret",
                hint="stop the VM, then gcloud compute instances set-service-account NAME --service-account EMAIL",
            ) from None

    def instance_name(self) -> str:
        """Fetch the VM's name."""
        try:
            return self._policy.persist(lambda timeout: _text(self._get("name", timeout)))
        except NotFoundError as error:
            raise NotFoundError(str(error), hint="give the credential's --name instead of @instance") from None

    def account(self) -> str | None:
        """Fetch the service account's email for messages: one attempt, None without an answer."""
        try:
            return _text(self._get(f"{_ACCOUNT}email", timeout=1.0))
        except (TryAgain, DaskpkiError):
            return None

    def _token(self, timeout: float) -> Confidential:
        reply = self._get(f"{_ACCOUNT}token", timeout)
        try:
            return Confidential(str(json.loads(reply.body)["access_token"]))
        except (ValueError, RecursionError, KeyError, TypeError):
            raise TryAgain("the metadata server's reply has no access token") from None

    def _get(self, path: str, timeout: float) -> Reply:
        try:
            reply = self._connection.get(_ROOT + path, {"Metadata-Flavor": _FLAVOR}, timeout)
        except TryAgain as error:
            raise TryAgain(f"the metadata server at {error}", hint=_ELSEWHERE) from error
        if reply.status == HTTPStatus.OK and reply.headers.get("metadata-flavor") == _FLAVOR:
            return reply
        raise _refusal(reply, path)


def _refusal(reply: Reply, path: str) -> Exception:
    status, words, flavor = reply.status, _words(reply), shortened(reply.headers.get("metadata-flavor", "missing"))
    if is_temporary(status):
        return TryAgain(f"the metadata server answers {status}{words}")
    if status == HTTPStatus.NOT_FOUND:
        return NotFoundError(f"the metadata server has no {path}")
    if status == HTTPStatus.FORBIDDEN:
        return _forbidden(words)
    return AccessDeniedError(
        f"the answer is not from a metadata server (status {status}, Metadata-Flavor {flavor})",
        hint=f"GCE_METADATA_HOST names another one; {_ELSEWHERE}",
    )


def _forbidden(words: str) -> Exception:
    """Judge a 403 by its text: on GKE, the pod may not act as its account until a new binding takes effect."""
    said = f"the metadata server refuses (403){words}"
    if _BINDING.search(words):
        return TryAgain(
            said,
            hint="on GKE, let the Kubernetes service account act as the Google one: gcloud iam service-accounts "
            "add-iam-policy-binding EMAIL --role roles/iam.workloadIdentityUser; a new one takes some minutes to act",
        )
    if words:
        return AccessDeniedError(said, hint=_ELSEWHERE)
    return AccessDeniedError(
        f"{said}, without a reason",
        hint="where this VM allows HTTPS metadata only (disable-http-mds): remove that, or set DASKPKI_CREDENTIAL_DIR",
    )


def _words(reply: Reply) -> str:
    """Return the server's text for a message; empty for a front end's HTML page."""
    text = shortened(reply.body[:1000].decode("utf-8", "replace")).removesuffix(".")
    return f": {text}" if text and text.isprintable() and not text.startswith("<") else ""


def token_source(environ: Mapping[str, str], policy: RetryPolicy) -> Metadata | FileTokens:
    """Choose this machine's source of tokens: the file in the variable, gcloud's own file, the metadata server."""
    directory = environ.get("CLOUDSDK_CONFIG") or f"{environ.get('HOME') or ''}/.config/gcloud"
    own = f"{directory}/application_default_credentials.json"
    if chosen := environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return FileTokens(chosen, environ, policy)
    return FileTokens(own, environ, policy) if isfile(own) else Metadata(environ, policy)  # noqa: PTH113 - pathlib's is slower


class FileTokens:
    """Gets tokens by google-auth: of a service account's key, a person, impersonation, workload identity federation."""

    def __init__(self, file: str, environ: Mapping[str, str], policy: RetryPolicy) -> None:
        self._file = file
        self._environ = environ
        self._policy = policy

    def token(self) -> Confidential:
        """Fetch a token by google-auth, with retries."""
        return self._policy.persist(self._attempt)

    def account(self) -> str | None:
        """Return None: google-auth does not tell."""
        return None

    def _attempt(self, timeout: float) -> Confidential:
        from pathlib import Path

        from daskpki.store.gsm.client import access_token

        try:
            ask = partial(access_token, Path(self._file), timeout, self._environ)
            return within(timeout, ask, "no access token: no answer in time")
        except (UnavailableError, TimeoutError) as error:
            raise TryAgain(str(error), hint=getattr(error, "hint", None)) from error


_METHOD: Final = "access_secret_version"
_NO_WAY: Final = "check that it can be reached from here: by Private Google Access, a NAT, or a proxy"
_TOKEN: Final = re.compile(rb"[!-~]+")
_ACCESS: Final = "secretmanager.versions.access"


class SecretManager:
    """Reads payloads; `date` is the last reading of the server's clock."""

    def __init__(self, url: GsmUrl, connection: Connection, policy: RetryPolicy, tokens: Metadata | FileTokens) -> None:
        self._url = url
        self._connection = connection
        self._policy = policy
        self._tokens = tokens
        self._token: Confidential | None = None
        self.date: Reading | None = None

    def latest(self, secret: str) -> tuple[int, Confidential]:
        """Read number and payload of `latest`; NotFoundError, DisabledError, AccessDeniedError, UnavailableError."""
        return self._access(secret, "latest")

    def access(self, secret: str, number: int) -> Confidential:
        """Read the payload of that version; raises what `latest` raises."""
        return self._access(secret, str(number))[1]

    def _access(self, secret: str, version: str) -> tuple[int, Confidential]:
        def attempt(timeout: float) -> tuple[int, Confidential]:
            token = self._token or self._tokens.token()
            if not _TOKEN.fullmatch(token.reveal()):
                raise TryAgain("the access token is empty, or has characters that none may have (RFC 6750, 2.1)")
            self._token = token
            headers = {"Authorization": f"Bearer {token.reveal().decode('ascii')}"}
            path = f"/v1/{self._url.parent}/secrets/{secret}/versions/{version}:access"
            try:
                reply = self._connection.get(path, headers, timeout)
            except TryAgain as error:
                raise TryAgain(str(error), hint=error.hint or _NO_WAY) from error
            if (time := parse_date(reply.headers.get("date", ""))) is not None:
                self.date = Reading(time, monotonic())
            if reply.status == HTTPStatus.OK:
                return _parse_payload(reply.body, secret)
            raise self._judge(reply, secret, version)

        return self._policy.persist(attempt)

    def _judge(self, reply: Reply, secret: str, version: str) -> Exception:
        refusal = parse_refusal(reply)
        subject = f"secret {secret}" + ("" if version == "latest" else f", version {version},")
        error = error_for(refusal, _METHOD, subject, self._url)
        if reply.status == HTTPStatus.UNAUTHORIZED:
            self._token = None
        elif missing_permission(refusal):
            if missing_permission(refusal) == _ACCESS:  # and not one on a key of Cloud KMS, for example
                error.hint = self._grant(secret)
        elif not (is_temporary(reply.status) or refusal.status in NOT_DONE):
            return error
        return TryAgain(str(error), hint=error.hint)

    def _grant(self, secret: str) -> str:
        """Return the command that makes the missing grant."""
        place = f" --location {self._url.location}" if self._url.location else ""
        return (
            f"gcloud secrets add-iam-policy-binding {secret} --project {self._url.project}{place} "
            f"--member serviceAccount:{self._tokens.account() or 'EMAIL'} --role roles/secretmanager.secretAccessor"
        )


def _parse_payload(body: bytes, secret: str) -> tuple[int, Confidential]:
    try:
        reply = json.loads(body)
        data = octets(reply["payload"]["data"], "the payload")
        number = int(reply["name"].rpartition("/")[2])
        checksum = int(reply["payload"]["dataCrc32c"])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, DaskpkiError):
        raise TryAgain(f"secret {secret}: the reply is not the JSON that Secret Manager sends") from None
    if checksum != crc32c(data):
        raise TryAgain(f"secret {secret}: the payload was damaged on the way (its crc32c does not match)")
    return number, Confidential(data)


def _text(reply: Reply) -> str:
    """Decode a reply of the metadata server; undecodable bytes become escapes, which are invalid in any name."""
    return reply.body.decode(errors="backslashreplace").strip()


def parse_refusal(reply: Reply) -> ApiError:
    """Parse an error reply; of a front end's HTML page, only the status is used."""
    try:
        error: dict[str, Any] = json.loads(reply.body)["error"]
        details = [entry for entry in error.get("details", ()) if str(entry.get("@type", "")).endswith("ErrorInfo")]
        info = details[0] if details else {}
        status = str(error.get("status") or status_of_http(reply.status))
        reason = shortened(str(info.get("reason", "")))
        return ApiError(shortened(status), shortened(str(error["message"])), reason, info.get("metadata"))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ApiError(status_of_http(reply.status), f"HTTP status {reply.status}")
