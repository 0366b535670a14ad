"""A Compute Engine metadata server: who this VM is, and tokens for its service account."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO
from urllib.parse import parse_qs

from tests.emulator.faults import Fault, FaultPlan, Hook
from tests.emulator.http_listener import HttpListener, HttpReply, HttpRequest
from tests.emulator.journal import Entry, Journal
from tests.emulator.metadata_tree import as_json, as_listing, as_text, find_node, instance_tree
from tests.emulator.names import project_number
from tests.emulator.status import ApiError
from tests.emulator.tokens import CLOUD_PLATFORM, Token, TokenBook

_ROOT = "/computeMetadata/v1"
_FRESH = 300  # seconds that a cached token must have left, as the real server keeps it


class MetadataServer:
    """The metadata server of one VM on loopback; use it as a context manager, `host` is for GCE_METADATA_HOST.

    Its journal and faults name a request by its path below `/computeMetadata/v1/`, the ping by `/`.

    Attributes:
        tokens: The book that its tokens go into; share a SecretManagerServer's, and they are good there.
        account: The service account's email, None for a VM without one; may be changed.
        scopes: The VM's access scopes; may be changed.
        caches: Whether a token is handed out again while it is good, as the real server does; a test that lets many VMs
            share this server tells them apart by their tokens.
        faults: What is scripted to go wrong; see `fail`.
        journal: Every request.
    """

    def __init__(
        self,
        tokens: TokenBook,
        *,
        project: str = "test-project",
        account: str | None = "vm@test-project.iam.gserviceaccount.com",
        scopes: Sequence[str] = (CLOUD_PLATFORM,),
        instance: str = "vm-1",
        zone: str = "us-central1-a",
        attributes: Mapping[str, str] | None = None,
        token_lifetime: float = 3599,
        host: str = "127.0.0.1",
        port: int = 0,
        journal_sink: TextIO | None = None,
    ) -> None:
        self.tokens = tokens
        self.account = account
        self.scopes = tuple(scopes)
        self.caches = True
        self.attributes = dict(attributes or {})
        self.token_lifetime = token_lifetime
        self.faults = FaultPlan()
        self.journal = Journal(journal_sink)
        self.listener = HttpListener(self._answer, host=host, port=port)
        self._identity = {"project": project, "number": project_number(project), "instance": instance, "zone": zone}
        self._cached: dict[tuple[str, ...], Token] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self.listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port and all connections, and end all injected waiting."""
        self._closing.set()
        self.listener.stop()

    @property
    def host(self) -> str:
        """HOST:PORT."""
        return f"{self.listener.host}:{self.listener.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes google-auth, and whatever honours the same variables, ask here."""
        return {"GCE_METADATA_HOST": self.host, "GCE_METADATA_IP": self.host, "GCE_METADATA_ROOT": self.host}

    def fail(self, path: str = "*", **settings: Any) -> Fault:
        """Put a fault in force for paths such as `instance/service-accounts/*/token`; once unless `times`."""
        return self.faults.add(Fault(path, **settings))

    def before(self, path: str, hook: Hook, **settings: Any) -> Fault:
        """Run a hook before a request is answered; once unless `times`."""
        return self.faults.add(Fault(path, before=hook, **settings))

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse connections for a while, as before the network is up."""
        self.listener.stop()
        try:
            yield
        finally:
            self.listener.start()

    def require_https(self) -> Fault:
        """Answer plain HTTP with 403, as a VM does that allows HTTPS metadata only."""
        return self.fail(http=403, times=None, html=True, message="The HTTP metadata endpoint is disabled; use HTTPS.")

    def rotate_token(self) -> None:
        """Hand out a fresh token from now on; the old one stays good until it expires or is revoked."""
        with self._lock:
            self._cached.clear()

    def count(self, path: str | None = None) -> int:
        """How many requests arrived, for a path or at all."""
        return self.journal.count(path)

    def _answer(self, http: HttpRequest) -> HttpReply:
        path = http.path.removeprefix(f"{_ROOT}/") or "/"
        entry = Entry("metadata", path, "http", path=http.target, headers=http.headers, body=http.body)
        entry.principal = f"serviceAccount:{self.account}" if self.account else ""
        self.journal.arrived(entry)
        reply = self._reply(entry, http)
        entry.http_status = reply.status
        entry.status = "TRUNCATED" if reply.truncated else str(reply.status)
        self.journal.ended(entry)
        return reply

    def _reply(self, entry: Entry, http: HttpRequest) -> HttpReply:
        faults = self.faults.claim(entry)
        try:
            for fault in faults:
                self._closing.wait(fault.latency)
                if fault.before:
                    fault.before(entry)
                fault.strike()
        except ApiError as error:
            if error.html:
                return _page(error.http_status, error.message)
            return _reply(error.http_status, error.message, "text/plain")
        reply = self._look_up(http, {name: values[-1] for name, values in parse_qs(http.query).items()})
        if any(fault.truncate for fault in faults):
            return HttpReply(reply.status, reply.body, reply.headers, truncated=True)
        return reply

    def _look_up(self, http: HttpRequest, query: Mapping[str, str]) -> HttpReply:
        if http.path in ("", "/"):
            return _reply(200, "0.1/\ncomputeMetadata/\n", "application/text")
        if http.headers.get("metadata-flavor") != "Google":
            return _page(403, "Your client does not have permission: missing Metadata-Flavor:Google header.")
        if "x-forwarded-for" in http.headers:
            return _page(403, "Your client does not have permission: the request was forwarded.")
        if not http.path.startswith(f"{_ROOT}/"):
            return _page(404, f"The requested URL {http.path} was not found on this server.")
        return self._resource(http.path.removeprefix(_ROOT), query)

    def _resource(self, path: str, query: Mapping[str, str]) -> HttpReply:
        parent, _, leaf = path.rpartition("/")
        tree = instance_tree(**self._identity, attributes=self.attributes, account=self.account, scopes=self.scopes)
        if leaf == "token" and parent.startswith("/instance/service-accounts/") and find_node(tree, parent):
            return _reply(200, self._token(query.get("scopes", "")), "application/json")
        node = find_node(tree, path)
        if node is None:
            return _page(404, f"The requested URL {_ROOT}{path} was not found on this server.")
        if isinstance(node, dict) and leaf:
            return _reply(301, f"{path}/\n", "application/text", Location=f"{_ROOT}{path}/")
        recursive = query.get("recursive", "").lower() == "true"
        if query.get("alt") == "json" or (recursive and query.get("alt") != "text"):
            return _reply(200, as_json(node, keep_names=path.endswith("attributes/")), "application/json")
        return _reply(200, as_listing(node) if isinstance(node, dict) else as_text(node), "application/text")

    def _token(self, wanted: str) -> str:
        """The token reply; the same token for as long as it is good, as the real server caches it."""
        asked = tuple(scope for scope in wanted.split(",") if scope in self.scopes) or self.scopes
        with self._lock:
            token = self._cached.get(asked)
            if not token or not self.caches or self.tokens.seconds_left(token) < min(_FRESH, self.token_lifetime / 2):
                principal = f"serviceAccount:{self.account}"
                token = self.tokens.issue(principal, scopes=asked, lifetime=self.token_lifetime)
                self._cached[asked] = token
        left = int(self.tokens.seconds_left(token) + 0.5)
        return json.dumps({"access_token": token.text, "expires_in": left, "token_type": "Bearer"})


def _reply(status: int, text: str, kind: str, **headers: str) -> HttpReply:
    fixed = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM", "X-Frame-Options": "SAMEORIGIN"}
    return HttpReply(status, text.encode(), {**fixed, "Content-Type": kind, **headers})


def _page(status: int, text: str) -> HttpReply:
    return _reply(status, f"<!DOCTYPE html>\n<title>Error {status}</title>\n<p>{text}\n", "text/html; charset=UTF-8")
