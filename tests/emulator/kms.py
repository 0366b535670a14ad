"""A Cloud KMS on loopback: key versions that sign and never leave, over gRPC and the real messages.

It holds to what Google documents: a key version has one algorithm and signs that digest only; `digest_crc32c` is
verified and said so; the answer names the version and carries `signature_crc32c`; a version that is not ENABLED answers
FAILED_PRECONDITION; without a grant there is PERMISSION_DENIED with the permission's name.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn, Self

import google_crc32c
import grpc
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from google.cloud.kms_v1.types import resources, service
from grpc_status.rpc_status import to_status

from tests.emulator.status import ApiError

SERVICE_NAME = "google.cloud.kms.v1.KeyManagementService"
KEY_RING = "projects/keys/locations/europe-west1/keyRings/ring/cryptoKeys"
Answer = Callable[[Any], Any]

_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
_EC = {"EC_SIGN_P256_SHA256": (ec.SECP256R1(), "sha256"), "EC_SIGN_P384_SHA384": (ec.SECP384R1(), "sha384")}


@dataclass
class KeyVersion:
    """One version: its key, algorithm, state, and how often it signed."""

    name: str
    algorithm: str
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    state: str = "ENABLED"
    signatures: int = 0


@dataclass
class KmsServer:
    """A server for one test; use it as a context manager.

    `deny` refuses every call; `damage` is what a broken network or proxy does to an answer before it leaves; `failures`
    are statuses that the next calls answer instead.
    """

    versions: dict[str, KeyVersion] = field(default_factory=dict)
    deny: bool = False
    damage: Callable[[Any], None] = lambda _answer: None
    failures: list[str] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(4))
        handlers = {
            "GetPublicKey": _handler(service.GetPublicKeyRequest.pb(), resources.PublicKey.pb(), self._public_key),
            "AsymmetricSign": _handler(
                service.AsymmetricSignRequest.pb(), service.AsymmetricSignResponse.pb(), self._sign
            ),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(grace=None).wait()

    @property
    def endpoint(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def create(self, key: str, algorithm: str = "EC_SIGN_P256_SHA256") -> KeyVersion:
        """A new key version, as `gcloud kms keys create --purpose asymmetric-signing` makes it."""
        made: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        if algorithm in _EC:
            made = ec.generate_private_key(_EC[algorithm][0])
        else:
            made = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        number = sum(name.startswith(f"{KEY_RING}/{key}/") for name in self.versions) + 1
        version = KeyVersion(f"{KEY_RING}/{key}/cryptoKeyVersions/{number}", algorithm, made)
        self.versions[version.name] = version
        return version

    def _public_key(self, request: Any) -> Any:
        version = self._usable(request.name, "cloudkms.cryptoKeyVersions.viewPublicKey")
        pem = version.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        answer = resources.PublicKey.pb()(pem=pem.decode(), name=version.name, algorithm=_number(version.algorithm))
        answer.pem_crc32c.value = google_crc32c.value(pem)
        self.damage(answer)
        return answer

    def _sign(self, request: Any) -> Any:
        version = self._usable(request.name, "cloudkms.cryptoKeyVersions.useToSign")
        kind = request.digest.WhichOneof("digest")
        wanted = _EC[version.algorithm][1] if version.algorithm in _EC else "sha256"
        if kind != wanted:
            raise ApiError("INVALID_ARGUMENT", f"Digest type {kind} does not match the algorithm {version.algorithm}.")
        digest = getattr(request.digest, kind)
        sent = request.HasField("digest_crc32c")
        if sent and request.digest_crc32c.value != google_crc32c.value(digest):
            raise ApiError("INVALID_ARGUMENT", "The checksum in field digest_crc32c did not match the data.")
        assert isinstance(version.key, ec.EllipticCurvePrivateKey)
        signature = version.key.sign(digest, ec.ECDSA(Prehashed(_HASHES[kind])))
        version.signatures += 1
        answer = service.AsymmetricSignResponse.pb()(
            signature=signature, name=version.name, verified_digest_crc32c=sent
        )
        answer.signature_crc32c.value = google_crc32c.value(signature)
        self.damage(answer)
        return answer

    def _usable(self, name: str, permission: str) -> KeyVersion:
        if self.failures:
            raise ApiError(self.failures.pop(0), "The service is currently unavailable.")
        if self.deny:
            raise ApiError("PERMISSION_DENIED", f"Permission '{permission}' denied on resource '{name}'.")
        version = self.versions.get(name)
        if version is None:
            raise ApiError("NOT_FOUND", f"CryptoKeyVersion {name} not found.")
        if version.state != "ENABLED":
            raise ApiError("FAILED_PRECONDITION", f"{name} is not enabled, current state is: {version.state}.")
        return version


def _number(algorithm: str) -> int:
    return int(getattr(resources.CryptoKeyVersion.CryptoKeyVersionAlgorithm, algorithm))


def _handler(request_type: Any, response_type: Any, answer: Answer) -> grpc.RpcMethodHandler[Any, Any]:
    def behave(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return answer(request)
        except ApiError as error:
            _abort(context, error)

    return grpc.unary_unary_rpc_method_handler(
        behave, request_deserializer=request_type.FromString, response_serializer=response_type.SerializeToString
    )


def _abort(context: grpc.ServicerContext, error: ApiError) -> NoReturn:
    context.abort_with_status(to_status(error.rpc_status()))
    raise AssertionError("abort_with_status raises")
