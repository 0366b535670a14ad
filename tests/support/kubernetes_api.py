"""As much of the Kubernetes API as the operator of dask-kubernetes asks when it scales a worker group down.

It knows one DaskCluster, its scheduler's Service, and a Deployment for each worker, the newest last. What is deleted is
told to `deleted`, as a kubelet would be told to end the pod. Anything else that is asked is not found, and noted.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

NAMESPACE = "lab"


def _resources(version: str, plural: str, kind: str) -> dict[str, Any]:
    resource = {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True}
    return {"kind": "APIResourceList", "groupVersion": version, "resources": [resource]}


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


_DISCOVERY: Mapping[str, Mapping[str, Any]] = {
    "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": _resources("v1", "services", "Service"),
    "/apis": {"kind": "APIGroupList", "groups": [_group("apps"), _group("kubernetes.dask.org")]},
    "/apis/apps/v1": _resources("apps/v1", "deployments", "Deployment"),
    "/apis/kubernetes.dask.org/v1": _resources("kubernetes.dask.org/v1", "daskclusters", "DaskCluster"),
}
"""How clients learn which kinds there are."""


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, dict[str, Any]]]
    deleted: ClassVar[Callable[[str], object]]
    unknown: ClassVar[list[str]]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        """An object, or those of a kind; of the selectors only the one for a name is looked at."""
        url = urlsplit(self.path)
        path = url.path.rstrip("/")
        if path in _DISCOVERY:
            return self._answer(_DISCOVERY[path])
        if path in self.objects:
            return self._answer(self.objects[path])
        if path not in {known.rpartition("/")[0] for known in self.objects}:
            return self._unknown()
        names = re.findall(r"metadata\.name=([^,]+)", parse_qs(url.query).get("fieldSelector", [""])[0])
        found = [one for known, one in self.objects.items() if known.rpartition("/")[0] == path]
        found = [one for one in found if not names or one["metadata"]["name"] in names]
        return self._answer({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found})

    def do_DELETE(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "/deployments/" not in path or path not in self.objects:
            return self._unknown()
        self.objects.pop(path)
        type(self).deleted(path.rpartition("/")[2])
        return self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _unknown(self) -> None:
        self.unknown.append(f"{self.command} {self.path}")
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "not found", "code": 404}
        self._answer(status, 404)

    def _answer(self, document: Mapping[str, Any], status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(
    objects: Mapping[str, dict[str, Any]], deleted: Callable[[str], object], kubeconfig: Path
) -> Iterator[list[str]]:
    """Serve these objects, by path, and write a kubeconfig that leads here; yields what was asked in vain."""
    unknown: list[str] = []
    handler = type("Served", (Api,), {"objects": dict(objects), "deleted": staticmethod(deleted), "unknown": unknown})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    named = {"name": "it"}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [named | {"cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [named | {"user": {}}],
        "contexts": [named | {"context": {"cluster": "it", "user": "it", "namespace": NAMESPACE}}],
    }  # fmt: skip
    kubeconfig.write_text(json.dumps(config), encoding="utf-8")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield unknown
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
