"""Names obey one rule, and a refusal names the value, the rule and a way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.errors import UsageError
from daskpki.identity import (
    Identity,
    Role,
    default_name,
    parse_identity,
    parse_label,
    parse_role,
    parse_slug,
    parse_trust_domain,
)

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True), min_size=1, max_size=5).map(
    ".".join
)


@given(DOMAINS, st.sampled_from(Role), LABELS)
def test_an_identity_survives_its_uri(domain: str, role: Role, name: str) -> None:
    identity = Identity(domain, role, name)
    assert parse_identity(identity.uri) == identity
    assert identity.uri == f"spiffe://{domain}/{role}/{name}"
    assert identity.dns == f"{name}.{role}.{domain}"
    assert len(identity.dns) <= 253


@given(st.text())
def test_any_text_is_an_identity_or_a_usage_error(text: str) -> None:
    try:
        identity = parse_identity(text)
    except UsageError as error:
        assert error.exit_code == 2
    else:
        assert identity.uri == text


@given(st.text(max_size=80))
def test_a_label_is_taken_as_it_is_or_refused_with_the_rule(text: str) -> None:
    try:
        assert parse_label(text, "name") == text
    except UsageError as error:
        assert repr(text) in str(error)
        assert "DNS label" in str(error)
    else:
        assert text == text.lower()
        assert text.isascii()


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [("Alice", "'alice'"), ("alice smith", "'alice-smith'"), ("a_b", "'a-b'"), ("-x-", "'x'"), ("", None), ("é", None)],
)
def test_a_refused_label_comes_with_one_that_would_do(text: str, suggestion: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_label(text, "name")
    assert (caught.value.hint or "").startswith(suggestion or "")
    assert bool(caught.value.hint) == bool(suggestion)


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://d/worker",
        "spiffe://d/worker/w/x",
        "spiffe://d/nanny/w",
        "spiffe://D/worker/w",
        "spiffe:///worker/w",
        "https://d/worker/w",
        "spiffe://d/worker/w\n",
        "spiffe://d/worker/",
        "spiffe://d/worker/w?x=1",
        "spiffe://d/worker/w#x",
        "spiffe://u@d/worker/w",
        "spiffe://d:1/worker/w",
        "spiffe://" + "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "/worker/w",
    ],
)
def test_what_is_almost_an_identity_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        parse_identity(uri)
    parse_identity("spiffe://d/worker/w")  # the control: what they are almost


def test_slugs_default_to_the_role_but_a_client_has_a_name() -> None:
    assert parse_slug("scheduler") == (Role.SCHEDULER, "scheduler")
    assert parse_slug("worker/w-1") == (Role.WORKER, "w-1")
    assert default_name(Role.WORKER) == "worker"
    with pytest.raises(UsageError, match="a client needs a name"):
        parse_slug("client")
    with pytest.raises(UsageError, match="'nanny' is not a role"):
        parse_role("nanny")


def test_a_trust_domain_is_dns_labels() -> None:
    assert parse_trust_domain("prod.daskpki.internal") == "prod.daskpki.internal"
    for text in ("", "a..b", "A.b", "a.b.", "x" * 64, "a_b.c"):
        with pytest.raises(UsageError, match="trust domain"):
            parse_trust_domain(text)
