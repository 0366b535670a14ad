"""The two calls that a CA key needs, by the official client, with their checksums checked on both ways.

Cloud KMS says itself whether what it received is what was sent; what it answers is checked here, as Google's guidelines
on data integrity want it: a signature over damaged data would be a valid one over something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daskpki.errors import (
    AccessDeniedError,
    CorruptError,
    DaskpkiError,
    DisabledError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from daskpki.store.gsm.client import bearer, checksum, credentials_for, translate
from daskpki.store.gsm.endpoint import Endpoint, parse_endpoint
from daskpki.store.gsm.refusals import CUT_OFF, NOT_DONE, Refusal, denied_by_google

if TYPE_CHECKING:
    from google.cloud.kms_v1 import KeyManagementServiceClient

VARIABLE: Final = "DASKPKI_KMS_ENDPOINT"
_GOOGLE: Final = Endpoint("cloudkms.googleapis.com", "grpc", encrypted=True)
_TIMEOUT: Final = 30.0
_ROLE: Final = "roles/cloudkms.signerVerifier"
_DIGESTS: Final = {"sha256": 32, "sha384": 48}


class KmsPublicKey(NamedTuple):
    """The public half as PEM, and the algorithm that the key version is bound to."""

    pem: bytes
    algorithm: str


class KmsClient:
    """Speaks to Cloud KMS; `environ` may name another endpoint (DASKPKI_KMS_ENDPOINT), and says who asks."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        override = environ.get(VARIABLE)
        self._endpoint = parse_endpoint(override, VARIABLE) if override else _GOOGLE
        self._environ = environ
        self._client: KeyManagementServiceClient | None = None
        self._metadata: Any = list

    def public_key(self, name: str) -> KmsPublicKey:
        """The public half of that key version; NotFoundError, AccessDeniedError, DisabledError, CorruptError."""
        answer = self._call("get_public_key", name, {"name": name})
        pem = answer.pem.encode()
        _check(answer.name == name and answer.pem_crc32c == checksum(pem), name, "public key")
        return KmsPublicKey(pem, answer.algorithm.name)

    def sign(self, name: str, digest_name: str, digest: bytes) -> bytes:
        """The DER signature over a digest ("sha256" or "sha384"); CorruptError when either way was damaged."""
        if len(digest) != _DIGESTS[digest_name]:
            raise UsageError(f"{len(digest)} bytes are no {digest_name} digest")
        request = {"name": name, "digest": {digest_name: digest}, "digest_crc32c": checksum(digest)}
        answer = self._call("asymmetric_sign", name, request)
        _check(answer.name == name and answer.verified_digest_crc32c, name, "digest")
        _check(answer.signature_crc32c == checksum(answer.signature), name, "signature")
        return bytes(answer.signature)

    def _call(self, method: str, name: str, request: Mapping[str, Any]) -> Any:
        try:
            client = self._connected()
            return getattr(client, method)(request=dict(request), timeout=_TIMEOUT, metadata=self._metadata())
        except DaskpkiError:
            raise
        except Exception as error:
            refusal = translate(error, self._endpoint.address)
            if refusal is None:
                raise
            raise (_error_for(refusal, name) if isinstance(refusal, Refusal) else refusal) from error

    def _connected(self) -> KeyManagementServiceClient:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> KeyManagementServiceClient:
        try:
            from google.cloud.kms_v1 import KeyManagementServiceClient
        except ImportError as error:
            raise UsageError(
                "gcpkms:// keys need Google's client library", hint="pip install 'daskpki[kms]'"
            ) from error
        credentials = credentials_for(self._endpoint, self._environ)
        if self._endpoint.encrypted:
            return KeyManagementServiceClient(
                credentials=credentials, client_options={"api_endpoint": self._endpoint.address}
            )
        return self._connect_plain(credentials)

    def _connect_plain(self, credentials: Any) -> KeyManagementServiceClient:
        """GRPC without TLS, to loopback only: grpc attaches no token there, so each call carries its own."""
        import grpc
        from google.cloud.kms_v1 import KeyManagementServiceClient
        from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport

        self._metadata = bearer(credentials)
        channel = grpc.insecure_channel(self._endpoint.address)
        transport = KeyManagementServiceGrpcTransport(channel=channel, credentials=credentials)
        return KeyManagementServiceClient(transport=transport)


def _check(intact: bool, name: str, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not intact:
        raise CorruptError(f"the {what} of {name} was damaged between Cloud KMS and here", hint="try again")


def _error_for(refusal: Refusal, name: str) -> DaskpkiError:
    if refusal.status == "NOT_FOUND":
        return NotFoundError(f"Cloud KMS has no key version {name}")
    if error := denied_by_google(refusal, api="cloudkms.googleapis.com"):
        return error
    if refusal.status in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        hint = f"grant {_ROLE} on the key; a new grant takes some minutes to act"
        return AccessDeniedError(f"Cloud KMS refuses {name}: {refusal.message}", hint=hint)
    if refusal.status == "FAILED_PRECONDITION":
        return DisabledError(f"{name}: {refusal.message}", hint="gcloud kms keys versions enable, or another version")
    if refusal.status in NOT_DONE | CUT_OFF:
        return UnavailableError(f"Cloud KMS, {name}: {refusal.message}", hint="try again in a minute")
    return DaskpkiError(f"Cloud KMS, {name}: {refusal.message}")
