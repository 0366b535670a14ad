"""The servers as a process of their own."""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path

import pytest
import requests
from google.api_core import exceptions

from tests.emulator.calls import access
from tests.emulator.clients import grpc_client, rest_client
from tests.emulator.process import server_process

SECRET = "projects/p/secrets/daskpki_x"
CONFIG = {
    "tokens": {"alice": {"principal": "user:alice@example.com"}, "bob": {"principal": "user:bob@example.com"}},
    "grants": [
        {
            "project": "p",
            "role": "roles/secretmanager.secretAccessor",
            "members": ["user:alice@example.com"],
            "prefix": "daskpki_",
        }
    ],
    "secrets": [{"secret": SECRET, "payloads": [base64.b64encode(b"one").decode()]}],
    "faults": [{"method": "AccessSecretVersion", "principal": "user:alice@example.com", "http": 429}],
    "metadata_faults": [{"method": "instance/name", "http": 503}],
}


def test_ports_grants_seeds_faults_and_journal(tmp_path: Path) -> None:
    config, journal = tmp_path / "iam.json", tmp_path / "journal"
    config.write_text(json.dumps(CONFIG))
    arguments = ("--iam", str(config), "--journal", str(journal), "--project", "p", "--attribute", "a=b")
    with server_process(*arguments) as where:
        alice = rest_client(where.rest_url, "alice")
        with pytest.raises(exceptions.TooManyRequests):
            access(alice, SECRET, 1)
        assert access(alice, SECRET, 1) == b"one"
        with pytest.raises(exceptions.PermissionDenied):
            access(grpc_client(where.grpc_target, "bob"), SECRET, 1)
        root = f"http://{where.metadata_host}/computeMetadata/v1/instance"
        flavor = {"Metadata-Flavor": "Google"}
        assert requests.get(f"{root}/name", headers=flavor, timeout=30).status_code == 503
        assert requests.get(f"{root}/attributes/a", headers=flavor, timeout=30).text == "b"
        where.process.send_signal(signal.SIGTERM)
        assert where.process.wait(30) == 0
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [(line["server"], line["principal"][:10], line["http_status"]) for line in lines] == [
        ("secretmanager", "user:alice", 429),
        ("secretmanager", "user:alice", 200),
        ("secretmanager", "user:bob@e", 403),
        ("metadata", "serviceAcc", 503),
        ("metadata", "serviceAcc", 200),
    ]


def test_it_ends_with_the_block() -> None:
    with server_process() as where:
        assert requests.get(where.rest_url, timeout=30).status_code == 404
    assert where.process.returncode == 0
