"""Both edges under TLS, since the real endpoint is nothing else."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.auth.credentials import AnonymousCredentials
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcTransport,
)

from tests.emulator.calls import access
from tests.emulator.server import SecretManagerServer

SECRET = "projects/p/secrets/s"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for loopback, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test server")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(loopback, critical=False).sign(key, hashes.SHA256())
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*pkcs8))
    return folder / "cert.pem", folder / "key.pem"


def test_both_edges_under_tls(files: tuple[Path, Path]) -> None:
    certificate, key = files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    with SecretManagerServer(tls=context, grpc_credentials=credentials) as server:
        server.seed(SECRET, b"one")
        url = f"{server.rest_url}/v1/{SECRET}/versions/1:access"
        assert url.startswith("https://")
        assert requests.get(url, verify=str(certificate), timeout=30).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=30)
        channel = grpc.secure_channel(server.grpc_target, grpc.ssl_channel_credentials(certificate.read_bytes()))
        transport = SecretManagerServiceGrpcTransport(channel=channel, credentials=AnonymousCredentials())
        assert access(SecretManagerServiceClient(transport=transport), SECRET, 1) == b"one"
