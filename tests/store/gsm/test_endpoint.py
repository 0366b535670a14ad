"""Which endpoint is spoken to, and that nothing unencrypted leaves this machine."""

from __future__ import annotations

from contextlib import closing

import pytest

from daskpki.errors import AccessDeniedError, UsageError
from daskpki.settings import ENDPOINT, Endpoint, GsmUrl, endpoint_for, parse_endpoint
from daskpki.store.gsm.store import GsmStore


def test_google_s_own_endpoints_are_global_and_regional() -> None:
    assert endpoint_for(GsmUrl("my-project"), {}) == Endpoint("secretmanager.googleapis.com", "grpc", encrypted=True)
    regional = endpoint_for(GsmUrl("my-project", "europe-west1"), {})
    assert regional.address == "secretmanager.europe-west1.rep.googleapis.com"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://sm.example.com", Endpoint("sm.example.com", "rest", encrypted=True)),
        ("https://sm.example.com:8443/", Endpoint("sm.example.com:8443", "rest", encrypted=True)),
        ("http://127.0.0.1:8080", Endpoint("127.0.0.1:8080", "rest", encrypted=False)),
        ("http://localhost:8080", Endpoint("localhost:8080", "rest", encrypted=False)),
        ("grpc://[::1]:8080", Endpoint("[::1]:8080", "grpc", encrypted=False)),
    ],
)
def test_an_override_names_address_and_transport(text: str, expected: Endpoint) -> None:
    assert parse_endpoint(text) == expected
    assert endpoint_for(GsmUrl("my-project"), {ENDPOINT: text}) == expected


@pytest.mark.parametrize(
    "text", ["http://10.0.0.1:80", "grpc://sm.example.com:443", "http://127.0.0.1.example.com", "http://0.0.0.0:1"]
)
def test_an_unencrypted_one_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sm.example.com",
        "ftp://127.0.0.1",
        "https://",
        "https://h/path",
        "https://h?q",
        "https://u@h",
        "http://[::1",
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not an endpoint"):
        parse_endpoint(text)


def test_an_encrypted_endpoint_never_gets_anonymous_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
    store = GsmStore(GsmUrl("my-project"), environ={ENDPOINT: "https://127.0.0.1:1"})
    with closing(store), pytest.raises(AccessDeniedError, match="no Google credentials"):
        store.secrets.latest("daskpki_c_trust")
