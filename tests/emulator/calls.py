"""The calls that tests of the servers make again and again, through the official client."""

from __future__ import annotations

from typing import Any

from google.cloud.secretmanager_v1 import Secret, SecretManagerServiceClient, SecretVersion

PROJECT = "projects/p"


def create(client: SecretManagerServiceClient, name: str = "s", parent: str = PROJECT, **fields: Any) -> Secret:
    """Create a secret of this id, replicated automatically unless it is regional or the fields say otherwise."""
    if "/locations/" not in parent:
        fields.setdefault("replication", {"automatic": {}})
    return client.create_secret(request={"parent": parent, "secret_id": name, "secret": fields})


def update(client: SecretManagerServiceClient, name: str, mask: list[str], **fields: Any) -> Secret:
    """Change the fields that the mask names."""
    return client.update_secret(request={"secret": {"name": name, **fields}, "update_mask": {"paths": mask}})


def add(client: SecretManagerServiceClient, name: str, data: bytes, **payload: Any) -> SecretVersion:
    """Add a version."""
    return client.add_secret_version(request={"parent": name, "payload": {"data": data, **payload}})


def access(client: SecretManagerServiceClient, name: str, version: str | int) -> bytes:
    """Read a version's payload."""
    return bytes(client.access_secret_version(request={"name": f"{name}/versions/{version}"}).payload.data)
