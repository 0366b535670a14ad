"""A capture server for what `gcloud` sends when it deploys: service usage, IAM, projects, Artifact Registry, Compute.

It keeps what was made, so that a second run finds it, and refuses what refers to nothing. Secret Manager is the
faithful server of `tests.emulator`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, Self

from tests.emulator.http_listener import HttpListener, HttpReply, HttpRequest
from tests.emulator.server import SecretManagerServer

OVERRIDES = {
    "COMPUTE": "/compute/v1/",
    "IAM": "/",
    "SERVICEUSAGE": "/",
    "CLOUDRESOURCEMANAGER": "/",
    "ARTIFACTREGISTRY": "/",
}
Json = dict[str, Any]


class Refused(Exception):  # noqa: N818 - an answer
    """A request that Google would refuse."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Captured(NamedTuple):
    """A request as it arrived."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def changes(self) -> bool:
        """Whether it may change anything."""
        return self.method != "GET" and ":getIamPolicy" not in self.target and not self.target.endswith("/wait")


class GoogleCloud:
    """The server; `requests` is all that arrived, `items` what there is by path."""

    def __init__(self) -> None:
        self.requests: list[Captured] = []
        self.items: dict[str, Json] = {}
        self.enabled: set[str] = set()
        self.policies: dict[str, Json] = {}
        self._lock = threading.Lock()
        self._listener = HttpListener(self._answer, host="127.0.0.1", port=0)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What points gcloud here."""
        return {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}": self.url + path for api, path in OVERRIDES.items()}

    def changes(self) -> list[str]:
        """The requests that may have changed anything, as METHOD PATH."""
        return [f"{one.method} {one.target.partition('?')[0]}" for one in self.requests if one.changes]

    def _answer(self, request: HttpRequest) -> HttpReply:
        with self._lock:
            self.requests.append(Captured(request.method, request.target, request.headers, request.body))
            try:
                status, reply = HTTPStatus.OK, self._route(request)
            except Refused as refusal:
                status = refusal.status
                reply = {"error": {"code": int(status), "message": str(refusal), "status": status.name}}
        return HttpReply(status, json.dumps(reply).encode(), {"Content-Type": "application/json"})

    def _route(self, request: HttpRequest) -> Json:
        body = json.loads(request.body) if request.body else {}
        for pattern, answer in self._routes().items():
            if found := re.fullmatch(pattern, f"{request.method} {request.path}"):
                return answer(body, *found.groups())
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, f"{request.method} {request.path} is not known here")

    def _routes(self) -> dict[str, Callable[..., Json]]:
        compute = r"/compute/v1/projects/project-one"
        place = r"(global|zones/[^/]+|regions/[^/]+)"
        return {
            r"GET /v1/projects/project-one/services": self._list_services,
            r"POST /v1/projects/project-one/services/([^/:]+):enable": self._enable,
            r"POST /v1/projects/project-one/services:batchEnable": self._enable_all,
            r"GET /v1/projects/project-one/services/([^/:]+)": self._service,
            r"GET /v1/projects/project-one/serviceAccounts": self._list_accounts,
            r"POST /v1/projects/project-one/serviceAccounts": self._make_account,
            r"DELETE /v1/projects/-/serviceAccounts/(.+)": self._delete_account,
            r"(?:GET|POST) /v1/(projects/project-one(?:/locations/.*)?):getIamPolicy": self._policy,
            r"POST /v1/(projects/project-one(?:/locations/.*)?):setIamPolicy": self._set_policy,
            rf"GET {compute}/aggregated/(\w+)": self._aggregated,
            rf"(?:GET|POST) {compute}/{place}/operations/.*": lambda _body, place: self._done(place, ""),
            rf"GET {compute}/(zones|regions)/([^/]+)": lambda _body, _kind, name: {"name": name, "status": "UP"},
            rf"GET {compute}/{place}/(\w+)": self._list,
            rf"POST {compute}/{place}/(\w+)": self._insert,
            rf"GET {compute}/{place}/(\w+)/([^/]+)": self._get,
            rf"PATCH {compute}/{place}/(\w+)/([^/]+)": self._patch,
            rf"DELETE {compute}/{place}/(\w+)/([^/]+)": self._delete,
            rf"POST {compute}/{place}/instanceGroupManagers/([^/]+)/resize": self._resize,
            r"GET /compute/v1/projects/cos-cloud/global/images/family/cos-stable": lambda _body: {
                "name": "cos-stable-1",
                "selfLink": f"{self.url}/compute/v1/projects/cos-cloud/global/images/cos-stable-1",
            },
        }

    # Service usage, IAM and policies.

    def _list_services(self, _body: Json) -> Json:
        return {"services": [self._service({}, name) for name in sorted(self.enabled)]}

    def _service(self, _body: Json, name: str) -> Json:
        state = "ENABLED" if name in self.enabled else "DISABLED"
        return {"name": f"projects/1/services/{name}", "config": {"name": name}, "state": state}

    def _enable(self, _body: Json, name: str) -> Json:
        self.enabled.add(name)
        return {"name": "operations/acf.1", "done": True, "response": {"service": self._service({}, name)}}

    def _enable_all(self, body: Json) -> Json:
        self.enabled.update(body["serviceIds"])
        return {"name": "operations/acf.1", "done": True, "response": {}}

    def _list_accounts(self, _body: Json) -> Json:
        return {"accounts": [item for path, item in self.items.items() if path.startswith("accounts/")]}

    def _make_account(self, body: Json) -> Json:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{4,28}[a-z0-9])", body["accountId"]):
            raise Refused(HTTPStatus.BAD_REQUEST, f"{body['accountId']} is malformed")
        email = f"{body['accountId']}@project-one.iam.gserviceaccount.com"
        return self._add(f"accounts/{email}", {"email": email, **body["serviceAccount"]})

    def _delete_account(self, _body: Json, email: str) -> Json:
        self._remove(f"accounts/{email}")
        return {}

    def _policy(self, _body: Json, resource: str) -> Json:
        return self.policies.get(resource, {"etag": "ACAB"})

    def _set_policy(self, body: Json, resource: str) -> Json:
        for binding in body["policy"].get("bindings", ()):
            for member in binding["members"]:
                self._exists(f"accounts/{member.partition(':')[2]}")
        self.policies[resource] = {**body["policy"], "etag": f"{len(self.requests):08}"}
        return self.policies[resource]

    # Compute Engine.

    def _aggregated(self, _body: Json, kind: str) -> Json:
        scopes: dict[str, Json] = {"zones/europe-west1-b": {}}
        for path, item in self.items.items():
            where, _, name = path.rpartition(f"/{kind}/")
            if name and "/" not in name:
                scopes.setdefault(where, {}).setdefault(kind, []).append(item)
        return {"items": scopes}

    def _list(self, _body: Json, place: str, kind: str) -> Json:
        prefix = f"{place}/{kind}/"
        return {"items": [item for path, item in self.items.items() if path.startswith(prefix)]}

    def _insert(self, body: Json, place: str, kind: str) -> Json:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", body["name"]):
            raise Refused(HTTPStatus.BAD_REQUEST, f"{body['name']} is malformed")
        self._check_references(kind, body)
        scope, _, where = place.partition("/")
        own = {scope[:-1]: f"{self.url}/compute/v1/projects/project-one/{place}"} if where else {}
        path = f"{place}/{kind}/{body['name']}"
        self._add(
            path, {**_completed(kind, body), **own, "selfLink": f"{self.url}/compute/v1/projects/project-one/{path}"}
        )
        return self._done(place, f"{self.url}/compute/v1/projects/project-one/{path}")

    def _check_references(self, kind: str, body: Json) -> None:
        accounts = [one["email"] for one in body.get("properties", body).get("serviceAccounts", ())]
        for email in [*accounts, *body.get("sourceServiceAccounts", ()), *body.get("targetServiceAccounts", ())]:
            self._exists(f"accounts/{email}")
        if kind == "instanceGroupManagers":
            self._exists(f"global/instanceTemplates/{body['instanceTemplate'].rpartition('/')[2]}")

    def _get(self, _body: Json, place: str, kind: str, name: str) -> Json:
        return self._exists(f"{place}/{kind}/{name}")

    def _patch(self, body: Json, place: str, kind: str, name: str) -> Json:
        item = self._exists(f"{place}/{kind}/{name}")
        item.update(body)
        if versions := body.get("versions"):
            self._exists(f"global/instanceTemplates/{versions[0]['instanceTemplate'].rpartition('/')[2]}")
            item["instanceTemplate"] = versions[0]["instanceTemplate"]
        return self._done(place, item["selfLink"])

    def _delete(self, _body: Json, place: str, kind: str, name: str) -> Json:
        self._remove(f"{place}/{kind}/{name}")
        return self._done(place, "", "delete")

    def _resize(self, _body: Json, place: str, name: str) -> Json:
        item = self._exists(f"{place}/instanceGroupManagers/{name}")
        query = self.requests[-1].target.partition("?")[2]
        item["targetSize"] = int(re.search(r"size=(\d+)", query)[1])  # type: ignore[index] # it is required
        return self._done(place, item["selfLink"])

    def _done(self, place: str, target: str, verb: str = "insert") -> Json:
        """An operation that is over already."""
        scope, _, _ = place.partition("/")
        at = f"{self.url}/compute/v1/projects/project-one/{place}"
        return {
            "kind": "compute#operation",
            "id": "1",
            "name": "operation-1",
            "status": "DONE",
            "operationType": verb,
            "selfLink": f"{at}/operations/operation-1",
            "targetLink": target,
            **({scope.removesuffix("s"): at} if scope != "global" else {}),
        }

    # What there is.

    def _add(self, path: str, item: Json) -> Json:
        if path in self.items:
            raise Refused(HTTPStatus.CONFLICT, f"{path} already exists")
        self.items[path] = item
        return item

    def _exists(self, path: str) -> Json:
        if path not in self.items:
            raise Refused(HTTPStatus.NOT_FOUND, f"The resource '{path}' was not found")
        return self.items[path]

    def _remove(self, path: str) -> None:
        self._exists(path)
        del self.items[path]


class Clouds(NamedTuple):
    """The capture server, Secret Manager, and the environment for `gcloud` and `daskpki`."""

    google: GoogleCloud
    secrets: SecretManagerServer
    environ: Mapping[str, str]


def _completed(kind: str, body: Json) -> Json:
    """What Google adds."""
    added: dict[str, Json] = {
        "addresses": {"address": "198.51.100.7", "status": "RESERVED"},
        "instances": {"status": "RUNNING"},
        "instanceGroupManagers": {
            "status": {"isStable": True, "versionTarget": {"isReached": True}},
            "instanceGroup": "g",
        },
    }
    return {"id": "1", "creationTimestamp": "2026-01-01T00:00:00.000-00:00", **body, **added.get(kind, {})}
