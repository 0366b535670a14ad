"""CA keys in Google Cloud KMS, which sign there and never leave it (`gcpkms://` URIs; extra `kms`).

Commands that open the CA need `roles/cloudkms.signerVerifier` on the key, to sign and to read the public half. The
owner of the key creates and destroys its versions; daskpki does neither.

Checksums are verified both ways, as Google's guidelines on data integrity require: Cloud KMS confirms the checksum of
each request, and this module verifies those of the replies. A signature over damaged data would be valid for that data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from daskpki.errors import (
    AccessDeniedError,
    CorruptError,
    DaskpkiError,
    DisabledError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from daskpki.pki.keys import KeyType
from daskpki.settings import GRPC, KMS_SCHEME, Endpoint, parse_endpoint
from daskpki.store.gsm.client import GoogleConnection, checksum
from daskpki.store.gsm.errors import CUT_OFF, NOT_DONE, ApiError, denied_by_google

_NAME: Final = re.compile(
    r"projects/[^/]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+/cryptoKeyVersions/[0-9]+\Z"
)


def parse_kms_uri(uri: str) -> str:
    """Parse a URI to the resource name of a key version; UsageError for another form, such as a key without version."""
    name = uri.removeprefix(KMS_SCHEME)
    if not uri.startswith(KMS_SCHEME) or not _NAME.match(name):
        raise UsageError(
            f"{uri!r} does not name a key version of Cloud KMS",
            hint=f"{KMS_SCHEME}projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1",
        )
    return name


VARIABLE: Final = "DASKPKI_KMS_ENDPOINT"
_GOOGLE: Final = Endpoint("cloudkms.googleapis.com", GRPC, encrypted=True)
_TIMEOUT: Final = 30.0
_ROLE: Final = "roles/cloudkms.signerVerifier"


class KmsClient:
    """Calls Cloud KMS; `environ` has the credentials, and may name another endpoint (DASKPKI_KMS_ENDPOINT)."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        override = environ.get(VARIABLE)
        endpoint = parse_endpoint(override, VARIABLE) if override else _GOOGLE
        self._connection = GoogleConnection(_key_management, endpoint, environ)

    def public_key(self, name: str) -> tuple[bytes, str]:
        """Fetch the public half (PEM) and the algorithm of a key version.

        NotFoundError, AccessDeniedError, DisabledError, CorruptError.
        """
        answer = self._call("get_public_key", name, {"name": name})
        pem = answer.pem.encode()
        _check(answer.name == name and answer.pem_crc32c == checksum(pem), name, "public key")
        return pem, answer.algorithm.name

    def sign(self, name: str, digest_name: str, digest: bytes) -> bytes:
        """Sign a digest ("sha256" or "sha384"), and return DER; CorruptError if data was damaged on the way."""
        request = {"name": name, "digest": {digest_name: digest}, "digest_crc32c": checksum(digest)}
        answer = self._call("asymmetric_sign", name, request)
        _check(answer.name == name and answer.verified_digest_crc32c, name, "digest")
        _check(answer.signature_crc32c == checksum(answer.signature), name, "signature")
        return bytes(answer.signature)

    def _call(self, method: str, name: str, request: Mapping[str, Any]) -> Any:
        try:
            return self._connection.call(method, request, timeout=_TIMEOUT)
        except ApiError as refusal:
            raise _error_for(refusal, name) from refusal


def _key_management() -> Any:
    try:
        from google.cloud.kms_v1 import KeyManagementServiceClient
    except ImportError as error:
        raise UsageError(
            f"{KMS_SCHEME} keys need Google's client library", hint="pip install 'daskpki[kms]'"
        ) from error
    return KeyManagementServiceClient


def _check(intact: bool, name: str, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not intact:
        raise CorruptError(f"the {what} of {name} was damaged on the way from or to Cloud KMS", hint="try again")


def _error_for(refusal: ApiError, name: str) -> DaskpkiError:
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


_ALGORITHMS: Final = {"EC_SIGN_P256_SHA256": "sha256", "EC_SIGN_P384_SHA384": "sha384"}
"""A key version has one algorithm: its curve, and the only digest that it signs."""


class KmsPrivateKey(ec.EllipticCurvePrivateKey):
    """Signs by calling Cloud KMS; methods that need the secret half itself raise UsageError."""

    def __init__(self, client: KmsClient, name: str) -> None:
        pem, algorithm = client.public_key(name)
        if algorithm not in _ALGORITHMS:
            raise UsageError(f"{name} is a key for {algorithm}", hint=f"a CA takes one for {' or '.join(_ALGORITHMS)}")
        public = serialization.load_pem_public_key(pem)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise CorruptError(f"the public key of {name} is not an elliptic-curve key")
        self._client = client
        self._name = name
        self._digest = _ALGORITHMS[algorithm]
        self._public = public

    def sign(self, data: object, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Sign at Cloud KMS, and return DER (RFC 3279, 2.2.3); UsageError for another digest than its own."""
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed) or algorithm.name != self._digest:
            raise UsageError(f"{self._name} signs {self._digest} digests only")
        digest = hashes.Hash(algorithm)
        digest.update(bytes(memoryview(data)))  # type: ignore[arg-type] # any buffer, as for pyca's own key
        return self._client.sign(self._name, self._digest, digest.finalize())

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Size of the key in bits."""
        return self._public.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Raise UsageError: the key only signs."""
        raise UsageError(f"{self._name} only signs, and cannot agree on keys")

    def private_numbers(self) -> NoReturn:
        """Raise UsageError: the private half never leaves Cloud KMS."""
        raise UsageError(f"the private half of {self._name} never leaves Cloud KMS")

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - the name is pyca's
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        """Raise UsageError: the private half never leaves Cloud KMS."""
        raise UsageError(f"the private half of {self._name} never leaves Cloud KMS")

    def __copy__(self) -> KmsPrivateKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> KmsPrivateKey:
        return self


class KmsCaKeys(NamedTuple):
    """The key of one CA generation: one key version."""

    client: KmsClient
    uri: str
    sealing: str = "kms"
    """How the key is sealed, for the log."""

    def check(self) -> None:
        """Raise unless the key version exists, we may use it, and its kind is one that a CA can have."""
        KmsPrivateKey(self.client, parse_kms_uri(self.uri))

    def make(self, generation: int, kind: KeyType) -> KmsPrivateKey:
        """Open the key version, which its owner has created; UsageError if no CA can use it."""
        return self.open(generation)

    def open(self, generation: int) -> KmsPrivateKey:
        """Open the key version; NotFoundError, AccessDeniedError, DisabledError."""
        return KmsPrivateKey(self.client, parse_kms_uri(self.uri))

    def discard(self, generation: int) -> None:
        """Do nothing: the key ring's owner disables and destroys its versions."""


def kms_ca_keys(uri: str, environ: Mapping[str, str]) -> KmsCaKeys:
    """Make the key location of a `gcpkms://` URI; UsageError for a malformed one. Cloud KMS is not called yet."""
    parse_kms_uri(uri)
    return KmsCaKeys(KmsClient(environ), uri)
