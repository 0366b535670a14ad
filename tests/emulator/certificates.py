"""A certificate for a test server on loopback, which its clients trust by file."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Web(NamedTuple):
    """A server's TLS context, and the PEM file by which a client trusts it (SSL_CERT_FILE)."""

    context: ssl.SSLContext
    trusted: Path


def web_certificate(directory: Path, *hosts: str) -> Web:
    """A self-signed certificate for these names and IPv6 addresses, good from an hour ago for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test web")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(list(map(_general_name, hosts))), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    trusted, both = directory / "ca.pem", directory / "web.pem"
    trusted.write_bytes(certificate.public_bytes(encoding))
    both.write_bytes(private + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return Web(context, trusted)


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(IPv6Address(host)) if ":" in host else x509.DNSName(host)
