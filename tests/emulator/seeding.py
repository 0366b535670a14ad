"""Putting secrets into the catalogue past the edges, for tests that are not about creating them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.emulator.messages import METHODS, Secret
from tests.emulator.model import Catalogue
from tests.emulator.names import parse_secret
from tests.emulator.rpc_secrets import create_secret
from tests.emulator.rpc_versions import add_secret_version


def seed_secret(catalogue: Catalogue, secret: str, payloads: Iterable[bytes], labels: Mapping[str, str]) -> str:
    """Create a secret unless it is there, and add versions; its canonical name."""
    name = parse_secret(secret)
    if not catalogue.peek(name):
        message = Secret(labels=labels)
        if not name.parent.location:
            message.replication.automatic.SetInParent()
        request = METHODS["CreateSecret"][0](parent=str(name.parent), secret_id=name.secret_id, secret=message)
        create_secret(catalogue, request)
    for payload in payloads:
        add_secret_version(catalogue, METHODS["AddSecretVersion"][0](parent=secret, payload={"data": payload}))
    return str(name)
