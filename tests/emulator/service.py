"""The way of every request, whatever its transport: journal, faults, caller, quota, grant, model, reply."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tests.emulator import rpc_policies, rpc_secrets, rpc_versions
from tests.emulator.faults import ConnectionReset, Fault, FaultPlan
from tests.emulator.iam import Iam
from tests.emulator.journal import Entry, Journal
from tests.emulator.messages import Pb, TestIamPermissionsResponse
from tests.emulator.model import Catalogue
from tests.emulator.names import SecretName, parse_parent, parse_secret, parse_version, project_number
from tests.emulator.quotas import Quotas
from tests.emulator.status import SERVICE, ApiError, error_info
from tests.emulator.tokens import TokenBook, check_scopes

RPC_PREFIX = "google.cloud.secretmanager.v1.SecretManagerService."


class Rpc(NamedTuple):
    """How a method is done: its body, the permission it takes, and the field that names what it acts on."""

    body: Callable[[Catalogue, Pb], Pb]
    permission: str
    field: str


RPCS = {
    "ListSecrets": Rpc(rpc_secrets.list_secrets, "secrets.list", "parent"),
    "CreateSecret": Rpc(rpc_secrets.create_secret, "secrets.create", "parent"),
    "GetSecret": Rpc(rpc_secrets.get_secret, "secrets.get", "name"),
    "UpdateSecret": Rpc(rpc_secrets.update_secret, "secrets.update", "secret.name"),
    "DeleteSecret": Rpc(rpc_secrets.delete_secret, "secrets.delete", "name"),
    "AddSecretVersion": Rpc(rpc_versions.add_secret_version, "versions.add", "parent"),
    "ListSecretVersions": Rpc(rpc_versions.list_secret_versions, "versions.list", "parent"),
    "GetSecretVersion": Rpc(rpc_versions.get_secret_version, "versions.get", "name"),
    "AccessSecretVersion": Rpc(rpc_versions.access_secret_version, "versions.access", "name"),
    "EnableSecretVersion": Rpc(rpc_versions.enable_secret_version, "versions.enable", "name"),
    "DisableSecretVersion": Rpc(rpc_versions.disable_secret_version, "versions.disable", "name"),
    "DestroySecretVersion": Rpc(rpc_versions.destroy_secret_version, "versions.destroy", "name"),
    "GetIamPolicy": Rpc(rpc_policies.get_iam_policy, "secrets.getIamPolicy", "resource"),
    "SetIamPolicy": Rpc(rpc_policies.set_iam_policy, "secrets.setIamPolicy", "resource"),
}


@dataclass(frozen=True)
class Target:
    """What a request acts on: as asked, canonical, and the secret it is or belongs to."""

    asked: str
    name: str
    project: str
    secret: SecretName | None = None
    version: str = ""


@dataclass(frozen=True)
class Reply:
    """A message to send, perhaps only half of it."""

    message: Pb
    truncated: bool = False


class Service:
    """Everything behind the two edges; thread-safe.

    Attributes:
        disabled: Numbers of projects where the API is switched off.
    """

    def __init__(self, catalogue: Catalogue, *, tokens: TokenBook, iam: Iam, quotas: Quotas, journal: Journal) -> None:
        self.catalogue = catalogue
        self.tokens = tokens
        self.iam = iam
        self.quotas = quotas
        self.journal = journal
        self.faults = FaultPlan()
        self.disabled: set[str] = set()
        self.lock = threading.RLock()
        self._closing = threading.Event()

    def open(self) -> None:
        """Let injected waiting wait."""
        self._closing.clear()

    def close(self) -> None:
        """End all injected waiting."""
        self._closing.set()

    def answer(self, entry: Entry, request: Pb, token: str | None) -> Reply:
        """Do one request.

        Args:
            entry: What the edge knows of it; the rest is filled in here.
            request: The protobuf request.
            token: The bearer token, None without one.

        Raises:
            ApiError: A refusal, real or injected.
            ConnectionReset: The edge shall drop the connection.
        """
        self.journal.arrived(entry)
        try:
            reply = self._answer(entry, request, token)
        except ApiError as error:
            entry.status, entry.http_status = error.status, error.http_status
            raise
        except ConnectionReset:
            entry.status = "RESET"
            raise
        else:
            entry.status, entry.http_status = ("TRUNCATED" if reply.truncated else "OK"), 200
            return reply
        finally:
            self.journal.ended(entry)

    def refuse(self, entry: Entry, error: ApiError) -> None:
        """Record a request that its edge refused, since it could not be read."""
        self.journal.arrived(entry)
        entry.status, entry.http_status = error.status, error.http_status
        self.journal.ended(entry)

    def _answer(self, entry: Entry, request: Pb, token: str | None) -> Reply:
        target = _target(entry.method, request)
        entry.resource, entry.version = target.name, target.version
        entry.secret_id = target.secret.secret_id if target.secret else getattr(request, "secret_id", "")
        caller = self.tokens.authenticate(token, required=self.iam.enforced)
        entry.principal = caller.principal
        faults = self.faults.claim(entry)
        self._delay(faults, entry)
        for fault in faults:
            if not fault.acts_first:
                fault.strike()
        check_scopes(caller, SERVICE, RPC_PREFIX + entry.method)
        response = self._act(entry, request, target, caller.principal)
        return self._finish(faults, entry, response)

    def _delay(self, faults: list[Fault], entry: Entry) -> None:
        for fault in faults:
            if not fault.acts_first:
                self._closing.wait(fault.latency)
            if fault.before:
                fault.before(entry)

    def _finish(self, faults: list[Fault], entry: Entry, response: Pb) -> Reply:
        for fault in faults:
            if fault.after:
                fault.after(entry)
            if fault.acts_first:
                self._closing.wait(fault.latency)
            fault.distort(response)
            fault.strike()
        return Reply(response, truncated=any(fault.truncate for fault in faults))

    def _act(self, entry: Entry, request: Pb, target: Target, principal: str) -> Pb:
        self._check_enabled(target.project)
        self.quotas.draw(entry.method, target.project, str(target.secret) if target.secret else None)
        with self.lock:
            if entry.method == "TestIamPermissions":
                return self._test_permissions(request, target, principal)
            rpc = RPCS[entry.method]
            permission = f"secretmanager.{rpc.permission}"
            self.iam.check(principal, permission, target.name, target.asked, self._bindings(target))
            return rpc.body(self.catalogue, request)

    def _test_permissions(self, request: Pb, target: Target, principal: str) -> Pb:
        bindings = self._bindings(target)
        allowed = [p for p in request.permissions if self.iam.allows(principal, p, target.name, bindings)]
        return TestIamPermissionsResponse(permissions=allowed)

    def _bindings(self, target: Target) -> list[Pb]:
        stored = self.catalogue.peek(target.secret) if target.secret else None
        return stored.bindings() if stored else []

    def _check_enabled(self, project: str) -> None:
        number = project_number(project)
        if number in self.disabled:
            raise ApiError(
                "PERMISSION_DENIED",
                f"Secret Manager API has not been used in project {number} before or it is disabled. Enable it by"
                f" visiting https://console.developers.google.com/apis/api/{SERVICE}/overview?project={number} then"
                " retry.",
                error_info("SERVICE_DISABLED", service=SERVICE, consumer=f"projects/{number}"),
            )


def _target(method: str, request: Pb) -> Target:
    field = RPCS[method].field if method in RPCS else "resource"
    asked = request.secret.name if field == "secret.name" else getattr(request, field)
    if method in ("ListSecrets", "CreateSecret"):
        parent = parse_parent(asked)
        return Target(asked, str(parent), parent.project)
    if field == "name" and "SecretVersion" in method:
        version = parse_version(asked)
        return Target(asked, str(version), version.secret.parent.project, version.secret, version.version)
    secret = parse_secret(asked)
    return Target(asked, str(secret), secret.parent.project, secret)
