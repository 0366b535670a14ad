"""The real gcloud CLI as judge: what it writes the official client reads, and the other way round."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulator.calls import access
from tests.emulator.clients import rest_client
from tests.emulator.server import SecretManagerServer

pytestmark = pytest.mark.needs_gcloud
SECRET = "projects/p/secrets/s"
Gcloud = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gcloud(server: SecretManagerServer, tmp_path: Path) -> Gcloud:
    own = {"CLOUDSDK_CONFIG": str(tmp_path / "gcloud"), "CLOUDSDK_CORE_PROJECT": "p"}
    environment = {**os.environ, **server.gcloud_environment, **own}

    def run(*arguments: str, data: str = "") -> subprocess.CompletedProcess[str]:
        command = ["gcloud", "secrets", *arguments]
        return subprocess.run(command, env=environment, input=data, capture_output=True, text=True, check=False)

    return run


def test_the_life_of_a_secret(server: SecretManagerServer, gcloud: Gcloud) -> None:
    def done(*arguments: str, data: str = "") -> str:
        result = gcloud(*arguments, data=data)
        assert result.returncode == 0, result.stderr
        return result.stdout

    done("create", "s", "--data-file=-", "--labels=env=prod", "--replication-policy=automatic", data="one")
    assert access(rest_client(server.rest_url), SECRET, 1) == b"one"
    done("versions", "add", "s", "--data-file=-", data="two")
    assert done("versions", "access", "latest", "--secret=s") == "two"
    done("update", "s", "--update-labels=team=x")
    described = json.loads(done("describe", "s", "--format=json"))
    assert described["labels"] == {"env": "prod", "team": "x"}
    listed = json.loads(done("list", "--filter=labels.env=prod", "--format=json"))
    assert [secret["name"] for secret in listed] == [described["name"]]
    done("versions", "disable", "2", "--secret=s")
    done("versions", "destroy", "1", "--secret=s", "--quiet")
    states = {v["name"][-1]: v["state"] for v in json.loads(done("versions", "list", "s", "--format=json"))}
    assert states == {"2": "DISABLED", "1": "DESTROYED"}


def test_refusals_and_regional_secrets(server: SecretManagerServer, gcloud: Gcloud) -> None:
    refused = gcloud("versions", "access", "latest", "--secret=s")
    assert refused.returncode == 1
    assert "NOT_FOUND: Secret [" in refused.stderr
    gcloud("create", "s", "--location=us-east1", "--data-file=-", data="one")
    assert server.payloads("projects/p/locations/us-east1/secrets/s") == [b"one"]
    policy = gcloud("add-iam-policy-binding", "s", "--location=us-east1", "--member=user:a@b.c",
                    "--role=roles/secretmanager.secretAccessor", "--format=json")  # fmt: skip
    assert json.loads(policy.stdout)["bindings"][0]["members"] == ["user:a@b.c"]
