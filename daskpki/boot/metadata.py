"""The metadata server of Compute Engine and GKE: this VM's access token, its name, its service account.

It is asked at its address, since at boot the name server may not answer yet, and never through a proxy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from daskpki.boot.connection import TRANSIENT, Connection, parse_target, system_trust
from daskpki.boot.http import Reply
from daskpki.boot.retry import Patience, TryAgain
from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError
from daskpki.quoting import shortened

_ADDRESS: Final = "169.254.169.254"
_ROOT: Final = "/computeMetadata/v1/instance/"
_FLAVOR: Final = "Google"
_ACCOUNT: Final = "service-accounts/default/"
_OK, _FORBIDDEN, _MISSING = 200, 403, 404
_BINDING: Final = re.compile(r"workloadIdentity|getAccessToken|\bbinding\b|\biam\.", re.IGNORECASE)
_ELSEWHERE: Final = "off Google Cloud, set GOOGLE_APPLICATION_CREDENTIALS"


def metadata_host(environ: Mapping[str, str]) -> str:
    """HOST or HOST:PORT, in the variables that google-auth honours."""
    return (
        environ.get("GCE_METADATA_HOST")
        or environ.get("GCE_METADATA_ROOT")
        or environ.get("GCE_METADATA_IP")
        or _ADDRESS
    )


class Metadata:
    """This VM's metadata server."""

    def __init__(self, environ: Mapping[str, str], patience: Patience) -> None:
        self._connection = Connection(parse_target(metadata_host(environ), encrypted=False), system_trust)
        self._patience = patience

    def token(self) -> Confidential:
        """An access token of this VM's service account; AccessDeniedError when it has none."""
        try:
            return self._patience.persist(self._token)
        except NotFoundError:
            raise AccessDeniedError(
                "this VM has no service account, so it may read no secret",
                hint="stop the VM, then gcloud compute instances set-service-account NAME --service-account EMAIL",
            ) from None

    def instance_name(self) -> str:
        """The VM's name."""
        try:
            return self._patience.persist(lambda timeout: self._get("name", timeout).body.decode().strip())
        except NotFoundError as error:
            raise NotFoundError(str(error), hint="give the credential's --name instead of @instance") from None

    def account(self) -> str | None:
        """The service account's email, for messages: one attempt, None without an answer."""
        try:
            return self._get(f"{_ACCOUNT}email", timeout=1.0).body.decode().strip()
        except (TryAgain, DaskpkiError):
            return None

    def _token(self, timeout: float) -> Confidential:
        reply = self._get(f"{_ACCOUNT}token", timeout)
        try:
            return Confidential(str(json.loads(reply.body)["access_token"]))
        except (ValueError, KeyError, TypeError):
            raise TryAgain("the metadata server's reply holds no access token") from None

    def _get(self, path: str, timeout: float) -> Reply:
        try:
            reply = self._connection.get(_ROOT + path, {"Metadata-Flavor": _FLAVOR}, timeout)
        except TryAgain as error:
            raise TryAgain(f"the metadata server at {error}", hint=_ELSEWHERE) from error
        if reply.status == _OK and reply.headers.get("metadata-flavor") == _FLAVOR:
            return reply
        raise _refusal(reply, path)


def _refusal(reply: Reply, path: str) -> Exception:
    status, words = reply.status, _words(reply)
    if status in TRANSIENT or status >= 500:  # noqa: PLR2004 - server errors
        return TryAgain(f"the metadata server answers {status}{words}")
    if status == _MISSING:
        return NotFoundError(f"the metadata server has no {path}")
    if status == _FORBIDDEN:
        return _forbidden(words)
    return AccessDeniedError(
        f"what answers as the metadata server is none (status {status}, no Metadata-Flavor)",
        hint=f"GCE_METADATA_HOST names another one; {_ELSEWHERE}",
    )


def _forbidden(words: str) -> Exception:
    """A 403 by what it says: GKE tells that the node's account may not become the pod's, which a new binding mends."""
    said = f"the metadata server refuses (403){words}"
    if _BINDING.search(words):
        return TryAgain(
            said,
            hint="on GKE, let the Kubernetes service account be the one of Google: gcloud iam service-accounts "
            "add-iam-policy-binding EMAIL --role roles/iam.workloadIdentityUser; a new one takes some minutes to act",
        )
    if words:
        return AccessDeniedError(said, hint=_ELSEWHERE)
    return AccessDeniedError(
        f"{said}, without a reason",
        hint="where this VM allows HTTPS metadata only (disable-http-mds): remove that, or set DASKPKI_CREDENTIAL_DIR",
    )


def _words(reply: Reply) -> str:
    """What the server says about it, for a message; nothing of a page of HTML, which a front end made up."""
    text = shortened(reply.body[:1000].decode("utf-8", "replace"))
    return f": {text}" if text and text.isprintable() and not text.startswith("<") else ""
