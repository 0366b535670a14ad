"""The floor for `daskpki issue` in Python: read the CA, make a key, sign, write two files; no store, record, check."""

import datetime as dt
import secrets
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

directory, name = Path(sys.argv[1]), sys.argv[2]
ca = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
ca_key = serialization.load_pem_private_key((directory / "ca-key.pem").read_bytes(), None)
assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
key = ec.generate_private_key(ec.SECP256R1())
now = dt.datetime.now(dt.UTC)
usage = dict.fromkeys(
    (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)
certificate = (
    x509.CertificateBuilder()
    .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
    .issuer_name(ca.subject)
    .public_key(key.public_key())
    .serial_number(1 << 126 | secrets.randbits(126))
    .not_valid_before(now - dt.timedelta(minutes=5))
    .not_valid_after(now + dt.timedelta(days=30))
    .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
    .add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
        critical=False,
    )
    .add_extension(
        x509.SubjectAlternativeName(
            [
                x509.DNSName(f"{name}.worker.bench.internal"),
                x509.UniformResourceIdentifier(f"spiffe://bench.internal/worker/{name}"),
            ]
        ),
        critical=False,
    )
    .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    .sign(ca_key, hashes.SHA256())
)
pem = serialization.Encoding.PEM
(directory / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
(directory / f"{name}-key.pem").write_bytes(
    key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
)
