"""A metadata server or Secret Manager that answers nonsense ends a boot with one error, which repeats nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

import pytest

from tests.support.boot_cloud import plain_environ, run_entrypoint

MARK = "MARKED-TOKEN"
FLAVOR = {"Metadata-Flavor": "Google"}


class Answer(NamedTuple):
    body: bytes
    status: int = 200
    headers: dict[str, str] = FLAVOR


def token(**fields: object) -> Answer:
    return Answer(json.dumps({"access_token": MARK, "expires_in": 3599} | fields).encode())


TRUE = {"token": token(), "name": Answer(b"vm-1"), "secrets": Answer(b"{}", 404)}
LIES: dict[str, tuple[str, Answer]] = {
    "a nested token": ("token", Answer(b"[" * 100_000)),
    "a token of many lines": ("token", token(access_token=f"{MARK}\r\nX-Other: 1")),
    "a token beyond ASCII": ("token", token(access_token=f"{MARK}\u00e9\0")),
    "a long token": ("token", token(access_token=MARK * 30_000)),
    "a token without end": ("token", Answer(b'{"access_token":"' + MARK.encode() * 2_000_000)),
    "a list": ("token", Answer(b"[]")),
    "another server": ("token", token()._replace(headers={})),
    "a name that steers a terminal": ("name", Answer(b"\x1b[2Jvm\nFAKE")),
    "a name that is no text": ("name", Answer(b"\xff\xfe")),
    "a long name": ("name", Answer(b"v" * 5_000_000)),
    "a nested refusal": ("secrets", Answer(b"[" * 100_000, 403)),
    "a refusal of other types": ("secrets", Answer(b'{"error":{"message":[1],"status":5,"details":[5]}}', 403)),
    "a long refusal": ("secrets", Answer(json.dumps({"error": {"message": "\x1b[2J\nFAKE" * 50_000}}).encode(), 403)),
    "a refusal with details that steer a terminal": (
        "secrets",
        Answer(
            json.dumps(
                {
                    "error": {
                        "message": "x",
                        "status": "PERMISSION_DENIED",
                        "details": [
                            {
                                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                                "reason": "SERVICE_DISABLED",
                                "metadata": {"consumer": "projects/\x1b[2J\nFAKE", "service": "\x1b[2J\nFAKE" * 1000},
                            }
                        ],
                    }
                }
            ).encode(),
            403,
        ),
    ),
    "a nested payload": ("secrets", Answer(b"[" * 100_000)),
    "a payload of other types": ("secrets", Answer(b'{"name":[1],"payload":{"data":5,"dataCrc32c":[]}}')),
}


@contextmanager
def answering(answers: dict[str, Answer]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind = next((kind for kind in ("token", "name", "secrets") if kind in self.path), None)
            answer = Answer(b"x") if kind is None else answers[kind]
            try:
                self.send_response(answer.status)
                for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            except OSError:  # the boot has had enough
                self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("lie", LIES)
def test_one_error_and_nothing_of_the_answer(lie: str) -> None:
    kind, answer = LIES[lie]
    with answering(TRUE | {kind: answer}) as address:
        environ = plain_environ(
            GCE_METADATA_HOST=address,
            DASKPKI_STORE="gsm://a-project",
            DASKPKI_SECRET_MANAGER_ENDPOINT=f"http://{address}",
            DASKPKI_DEADLINE="1",
        )
        done = run_entrypoint(environ, "exec", "worker", "--name", "@instance", "--", "true")
    assert done.returncode in (2, 3, 4, 5, 75), done.stderr
    assert len(done.stderr) < 2000
    assert [text for text in (MARK, "Traceback", "\x1b", "\nFAKE") if text in done.stderr] == []
