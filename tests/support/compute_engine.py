"""Compute Engine as far as dask-cloudprovider asks for it: a VM that is inserted runs its user-data, less `docker run`.

Each VM has a metadata server of its own, with the service account and the scopes that the request gave it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

import yaml

from daskpki.identity import Role
from tests.emulator.http_listener import HttpListener, HttpReply, HttpRequest
from tests.emulator.metadata import MetadataServer
from tests.emulator.server import SecretManagerServer
from tests.support.boot_cloud import ENTRYPOINT, plain_environ

ACCOUNTS = {role: f"{role.value}@test-project.iam.gserviceaccount.com" for role in (Role.SCHEDULER, Role.WORKER)}
IMAGE = "europe-west1-docker.pkg.dev/test-project/dask/dask:1"
INSTANCES = "/compute/v1/projects/test-project/zones/us-east1-c/instances"


class Machine:
    """A running VM: the container's command as a process of this machine."""

    def __init__(self, body: Mapping[str, Any], secrets: SecretManagerServer, log: Path) -> None:
        (account,) = body["serviceAccounts"]
        self.metadata = MetadataServer(secrets.tokens, account=account["email"], scopes=account["scopes"])
        self.metadata.__enter__()
        arguments, variables = container_of(body)
        environ = {"DASKPKI_SECRET_MANAGER_ENDPOINT": secrets.rest_url, "DASKPKI_DEADLINE": "20", **variables}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*ENTRYPOINT, *arguments],
                env=plain_environ(**self.metadata.environment, **environ),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.metadata.__exit__(None, None, None)


def container_of(body: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """What the VM's `docker run` passes to daskpki-entrypoint, and the variables that it sets."""
    (text,) = [item["value"] for item in body["metadata"]["items"] if item["key"] == "user-data"]
    (line,) = [line for line in yaml.safe_load(text)["runcmd"] if line.startswith("docker run")]
    words = shlex.split(line)
    image = words.index("--entrypoint") + 2
    assert words[image - 1 : image + 1] == ["daskpki-entrypoint", IMAGE]
    variables = [words[at + 1] for at, word in enumerate(words) if word == "-e"]
    return words[image + 1 :], dict(variable.partition("=")[::2] for variable in variables)


class ComputeEngine:
    """The server; `bodies` is what VMs were asked for. With `full` there is no room for one."""

    def __init__(self, secrets: SecretManagerServer, directory: Path, *, full: bool = False) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self._machines: dict[str, Machine] = {}
        self._secrets = secrets
        self._directory = directory
        self._full = full
        self._listener = HttpListener(self._answer, host="127.0.0.1", port=0)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.stop()
        for machine in self._machines.values():
            machine.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.port}"

    def _answer(self, request: HttpRequest) -> HttpReply:
        match request.method, request.path.removeprefix(INSTANCES).strip("/"):
            case "POST", "token":
                return _reply({"access_token": "token", "expires_in": 3600, "token_type": "Bearer"})
            case "POST", "":
                return self._insert(json.loads(request.body))
            case "GET", "":
                name = parse_qs(request.query)["filter"][0].removeprefix("name=")
                return _reply({"items": [_instance(name)] if name in self._machines else []})
            case "DELETE", name:
                self.deleted.append(name)
                if name in self._machines:
                    self._machines.pop(name).stop()
                return _reply({"id": "2", "status": "DONE"})
        return _reply({}, HTTPStatus.NOT_FOUND)

    def _insert(self, body: dict[str, Any]) -> HttpReply:
        self.bodies.append(body)
        if self._full:
            return _reply({"error": {"message": "ZONE_RESOURCE_POOL_EXHAUSTED"}}, HTTPStatus.FORBIDDEN)
        self._machines[body["name"]] = Machine(body, self._secrets, self._directory / f"{body['name']}.log")
        return _reply({"id": "1", "status": "DONE"})


def _reply(content: Any, status: HTTPStatus = HTTPStatus.OK) -> HttpReply:
    return HttpReply(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def _instance(name: str) -> dict[str, Any]:
    interface = {"networkIP": "127.0.0.1", "accessConfigs": [{"natIP": "127.0.0.1"}]}
    return {"name": name, "status": "RUNNING", "networkInterfaces": [interface]}
