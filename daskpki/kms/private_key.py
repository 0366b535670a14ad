"""A private key whose secret half stays in Cloud KMS, in the shape that pyca's X.509 builders sign with."""

from __future__ import annotations

from typing import Final, NoReturn

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from daskpki.errors import CorruptError, UsageError
from daskpki.kms.client import KmsClient

_ALGORITHMS: Final = {"EC_SIGN_P256_SHA256": "sha256", "EC_SIGN_P384_SHA384": "sha384"}
"""KMS binds a key version to one algorithm: its curve, and the only digest that it signs."""


class KmsPrivateKey(ec.EllipticCurvePrivateKey):
    """Signs by calling Cloud KMS; everything that would need the secret half itself is refused."""

    def __init__(self, client: KmsClient, name: str) -> None:
        found = client.public_key(name)
        if found.algorithm not in _ALGORITHMS:
            raise UsageError(
                f"{name} is a key for {found.algorithm}", hint=f"a CA takes one for {' or '.join(_ALGORITHMS)}"
            )
        public = serialization.load_pem_public_key(found.pem)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise CorruptError(f"the public key of {name} is not one on a curve")
        self._client = client
        self._name = name
        self._digest = _ALGORITHMS[found.algorithm]
        self._public = public

    def sign(self, data: object, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """The DER signature (RFC 3279, 2.2.3), made there; UsageError for another digest than the key version's."""
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed) or algorithm.name != self._digest:
            raise UsageError(f"{self._name} signs {self._digest} digests only")
        digest = hashes.Hash(algorithm)
        digest.update(bytes(memoryview(data)))  # type: ignore[arg-type] # any buffer, as pyca's own key takes
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
        """Bits."""
        return self._public.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Refused: the key is there to sign."""
        raise UsageError(f"{self._name} signs, and agrees on no keys")

    def private_numbers(self) -> NoReturn:
        """Refused: they never leave Cloud KMS."""
        raise UsageError(f"the private half of {self._name} never leaves Cloud KMS")

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - the name is pyca's
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        """Refused: they never leave Cloud KMS."""
        raise UsageError(f"the private half of {self._name} never leaves Cloud KMS")

    def __copy__(self) -> KmsPrivateKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> KmsPrivateKey:
        return self
