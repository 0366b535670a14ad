"""A metadata server or Secret Manager that answers nonsense ends a boot with one error, which repeats nothing of it."""

from __future__ import annotations

import json
import subprocess
from contextlib import AbstractContextManager
from typing import NamedTuple

import pytest

from tests.emulator.http_listener import HttpReply, HttpRequest, serving
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


class Lie(NamedTuple):
    """What answers otherwise, and how, and how the boot ends then: its exit code, and words of its error."""

    kind: str
    answer: Answer
    code: int
    words: str


LIES: dict[str, Lie] = {
    "a nested token": Lie("token", Answer(b"[" * 100_000), 75, "has no access token"),
    "a token of many lines": Lie(
        "token", token(access_token=f"{MARK}\r\nX-Other: 1"), 75, "the access token is empty, or has characters"
    ),
    "a token beyond ASCII": Lie("token", token(access_token=f"{MARK}\u00e9\0"), 75, "or has characters that none may"),
    "an empty token": Lie("token", token(access_token=""), 75, "the access token is empty"),
    "a long token": Lie("token", token(access_token=MARK * 30_000), 75, "HTTP status 431"),
    "a token without end": Lie(
        "token",
        Answer(b'{"access_token":"' + MARK.encode() * 2_000_000),
        75,
        "the reply is longer than any that is expected",
    ),
    "a list": Lie("token", Answer(b"[]"), 75, "has no access token"),
    "another server": Lie("token", token()._replace(headers={}), 5, "is not from a metadata server"),
    "a name that steers a terminal": Lie(
        "name", Answer(b"\x1b[2Jvm\nFAKE"), 2, "name '\\x1b[2Jvm\\nFAKE' is not a DNS label"
    ),
    "a name that is no text": Lie("name", Answer(b"\xff\xfe"), 2, "xfe' is not a DNS label"),
    "a long name": Lie("name", Answer(b"v" * 5_000_000), 75, "the reply is longer than any that is expected"),
    "a nested refusal": Lie("secrets", Answer(b"[" * 100_000, 403), 5, "HTTP status 403"),
    "a refusal of other types": Lie(
        "secrets", Answer(b'{"error":{"message":[1],"status":5,"details":[5]}}', 403), 5, "HTTP status 403"
    ),
    "a long refusal": Lie(
        "secrets",
        Answer(json.dumps({"error": {"message": "\x1b[2J\nFAKE" * 50_000}}).encode(), 403),
        5,
        "\\x1b[2J FAKE",
    ),
    "a refusal with details that steer a terminal": Lie(
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
        5,
        "is off in project \\x1b[2J FAKE",
    ),
    "a nested payload": Lie(
        "secrets", Answer(b"[" * 100_000), 75, "the reply is not the JSON that Secret Manager sends"
    ),
    "a payload of other types": Lie(
        "secrets",
        Answer(b'{"name":[1],"payload":{"data":5,"dataCrc32c":[]}}'),
        75,
        "the reply is not the JSON that Secret Manager sends",
    ),
}


def answering(answers: dict[str, Answer]) -> AbstractContextManager[str]:
    def answer(request: HttpRequest) -> HttpReply:
        kind = next((kind for kind in answers if kind in request.target), None)
        told = answers[kind] if kind else Answer(b"x")
        return HttpReply(told.status, told.body, told.headers)

    return serving(answer)


def boot(answers: dict[str, Answer]) -> subprocess.CompletedProcess[str]:
    with answering(answers) as address:
        environ = plain_environ(
            GCE_METADATA_HOST=address,
            DASKPKI_STORE="gsm://a-project",
            DASKPKI_SECRET_MANAGER_ENDPOINT=f"http://{address}",
            DASKPKI_DEADLINE="1",
        )
        return run_entrypoint(environ, "exec", "worker", "--name", "@instance", "--", "true")


@pytest.mark.parametrize("lie", LIES)
def test_one_error_and_nothing_of_the_answer(lie: str) -> None:
    kind, answer, code, words = LIES[lie]
    done = boot(TRUE | {kind: answer})
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert len(done.stderr) < 2000
    assert [text for text in (MARK, "Traceback", "\x1b", "\nFAKE") if text in done.stderr] == []


def test_without_a_lie_the_boot_gets_as_far_as_the_secrets() -> None:
    """The control: none of the errors above is about anything else than the lie."""
    done = boot(TRUE)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "has no credential worker/vm-1" in done.stderr
