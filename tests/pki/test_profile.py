"""Names and lifetimes: what the policy allows, and each refusal with its value, its rule and a control beside it."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from daskpki.authority.session import random_serial
from daskpki.errors import DaskpkiError, PolicyError, UsageError
from daskpki.identity import Identity, Role
from daskpki.pki.certificates import certificate_identity, der, extension, lifetime, seconds
from daskpki.pki.issuer import create_intermediate, create_offline_root, create_root, issue_leaf
from daskpki.pki.keys import KeyType
from daskpki.pki.profile import (
    CA_BACKDATE,
    CA_LIFETIME,
    DAY,
    DEFAULT_TTL,
    HOUR,
    LEAF_BACKDATE,
    MAX_TTL,
    MIN_TTL,
    MINUTE,
    LeafRequest,
    Lifetime,
    check_dns,
    check_request,
    format_ttl,
    is_within,
    leaf_lifetime,
    leaf_names,
    make_policy,
    parse_dns_name,
    parse_ip,
    parse_ttl,
)
from tests.support.pki_material import NOW, POLICY, TD, World, authority, identity, key, leaf, worlds


@pytest.mark.parametrize(("text", "seconds_"), [("90d", 90 * DAY), ("12h", 12 * HOUR), ("30m", 30 * MINUTE)])
def test_lifetimes_are_read(text: str, seconds_: int) -> None:
    assert parse_ttl(text) == seconds_
    assert format_ttl(seconds_) == text


@given(st.integers(1, 10**8), st.sampled_from([MINUTE, HOUR, DAY]))
def test_lifetimes_round_trip(number: int, unit: int) -> None:
    assert parse_ttl(format_ttl(number * unit)) == number * unit


@given(st.text(max_size=12))
def test_any_other_text_is_a_usage_error(text: str) -> None:
    for parse in (parse_ttl, parse_dns_name, parse_ip):
        try:
            parse(text)
        except UsageError as error:
            assert repr(text) in str(error)


@pytest.mark.parametrize(
    "text", ["", "0d", "-1d", "1", "d", "1q", "1.5d", "1 d", " 1d", "1d\n", "01d", "9999999999d", "1D"]
)
def test_what_is_no_lifetime(text: str) -> None:
    with pytest.raises(UsageError, match="is not a lifetime"):
        parse_ttl(text)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("*.example.org", "wildcard"),
        ("Example.org", "DNS label"),
        ("exa_mple.org", "DNS label"),
        ("example..org", "DNS label"),
        ("example.org.", "DNS label"),
        ("-a.example.org", "DNS label"),
        ("10.0.0.5", "unlike an IP address"),
        ("a.b.c", "last label"),
        (".".join(["a" * 60] * 5) + ".org", "253"),
    ],
)
def test_dns_names_outside_the_rule(name: str, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        parse_dns_name(name)
    assert parse_dns_name("xn--bcher-kva.example.org") == "xn--bcher-kva.example.org"


@pytest.mark.parametrize(
    ("name", "domain", "inside"),
    [
        ("example.org", "example.org", True),
        ("a.b.example.org", "example.org", True),
        ("badexample.org", "example.org", False),
        ("example.org.evil.com", "example.org", False),
        ("org", "example.org", False),
    ],
)
def test_a_subtree_is_cut_at_dots(name: str, domain: str, inside: bool) -> None:  # noqa: FBT001
    assert is_within(name, domain) is inside


@pytest.mark.parametrize("text", ["10.0.0.256", "localhost", "fe80::1%eth0", "10.0.0.1/8", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ip(text)
    assert parse_ip("::1") == ipaddress.ip_address("::1")


def test_a_single_label_is_no_domain_to_constrain_to() -> None:
    with pytest.raises(UsageError, match="two") as caught:
        make_policy("prod")
    assert caught.value.hint == "prod.internal"


@pytest.mark.parametrize("ttl", [MIN_TTL - 1, MAX_TTL + 1])
def test_a_maximum_outside_the_limits(ttl: int) -> None:
    with pytest.raises(UsageError, match="outside 10m to 397d"):
        make_policy(TD, max_ttl=ttl)


def test_names_outside_the_constraints_are_refused_by_name() -> None:
    refused = LeafRequest(identity(), dns=("worker.other.example",))
    with pytest.raises(PolicyError, match=r"^DNS name worker\.other\.example is outside the CA's name constraints"):
        check_request(refused, POLICY)
    check_request(refused._replace(dns=("worker.example.org",)), POLICY)


def test_the_issuers_own_constraints_decide() -> None:
    """A policy that was widened after the CA was made does not widen the CA."""
    wider = make_policy(TD, ["example.org", "other.example"])
    request = LeafRequest(identity(), dns=("w.other.example",))
    with pytest.raises(PolicyError, match=r"w\.other\.example is outside"):
        leaf(authority(), request, policy=wider)
    leaf(authority(policy=wider), request, policy=wider)


def test_another_trust_domain_is_refused() -> None:
    other = identity(trust_domain="prod.daskpki.internal")
    with pytest.raises(PolicyError, match="outside the CA's trust domain"):
        leaf(authority(), LeafRequest(other))


def test_too_many_names_are_refused() -> None:
    names = tuple(f"n{index}.example.org" for index in range(64))
    with pytest.raises(PolicyError, match="more than 64"):
        leaf(authority(), LeafRequest(identity(), dns=names))
    leaf(authority(), LeafRequest(identity(), dns=names[:-1]))


@pytest.mark.parametrize("role", Role)
def test_default_lifetimes(role: Role) -> None:
    period = lifetime(leaf(authority(), LeafRequest(identity(role))))
    assert period.not_before == seconds(NOW) - LEAF_BACKDATE
    assert period.not_after - seconds(NOW) + 1 == DEFAULT_TTL[role]


@pytest.mark.parametrize(
    ("ttl", "maximum", "message"),
    [
        (MAX_TTL + 1, None, r"over the maximum of 397d \(CA/B Forum BR 6\.3\.2\)"),
        (7 * DAY + 1, 7 * DAY, r"over the maximum of 7d \(init-ca --max-ttl\)"),
        (MIN_TTL - 1, None, "under the minimum of 10m"),
    ],
)
def test_lifetimes_outside_the_limits(ttl: int, maximum: int | None, message: str) -> None:
    policy = make_policy(TD, max_ttl=maximum)
    with pytest.raises(PolicyError, match=message):
        leaf(authority(), LeafRequest(identity(), ttl=ttl), policy=policy)
    allowed = ttl - 1 if ttl > MIN_TTL else ttl + 1
    leaf(authority(), LeafRequest(identity(), ttl=allowed), policy=policy)


def test_a_policys_maximum_bounds_the_default_too() -> None:
    policy = make_policy(TD, max_ttl=DAY)
    period = lifetime(leaf(authority(), policy=policy))
    assert period.not_after - seconds(NOW) + 1 == DAY


def ending_in(days: int) -> datetime:
    """When a CA was made that ends so many days after NOW."""
    return NOW - timedelta(seconds=CA_LIFETIME - days * DAY)


def test_a_leaf_never_outlives_its_issuer() -> None:
    """A lifetime that was asked for is refused by name; the default is cut."""
    own = create_root("default", POLICY, key(), generation=1, serial=random_serial(), now=ending_in(10))
    ending = LeafRequest(identity(), ttl=own.lifetime.not_after - seconds(NOW) + 1)
    control = issue_leaf(own, ending, key(which="x").public_key(), serial=1, now=NOW, policy=POLICY)
    assert lifetime(control).not_after == own.lifetime.not_after
    assert ending.ttl is not None
    longer = ending._replace(ttl=ending.ttl + 1)
    with pytest.raises(PolicyError, match=r"ends 2026-12-03T11:00:00Z, after the CA's end 2026-12-03T10:59:59Z"):
        issue_leaf(own, longer, key(which="x").public_key(), serial=1, now=NOW, policy=POLICY)
    cut = issue_leaf(own, LeafRequest(identity()), key(which="x").public_key(), serial=1, now=NOW, policy=POLICY)
    assert lifetime(cut).not_after == own.lifetime.not_after


def test_an_issuer_that_ended_issues_nothing() -> None:
    own = create_root("default", POLICY, key(), generation=1, serial=1, now=ending_in(10))
    last = own.certificate.not_valid_after_utc
    public = key(which="x").public_key()
    control = issue_leaf(own, LeafRequest(identity()), public, serial=1, now=last, policy=POLICY)
    assert control.not_valid_after_utc == last
    with pytest.raises(PolicyError, match="the CA is valid from"):
        issue_leaf(own, LeafRequest(identity()), public, serial=1, now=last + timedelta(seconds=1), policy=POLICY)


def test_backdating_stops_at_the_issuers_beginning() -> None:
    issuer = authority(now=NOW + timedelta(seconds=CA_BACKDATE - 60))
    assert lifetime(leaf(issuer)).not_before == issuer.lifetime.not_before == seconds(NOW) - 60


def test_an_intermediate_stays_within_its_root() -> None:
    root = create_offline_root("default", key(), generation=1, serial=1, now=ending_in(30))
    inner = create_intermediate(root, POLICY, key(which="i"), generation=1, serial=2, now=NOW + timedelta(days=1))
    assert inner.lifetime.not_after == root.lifetime.not_after
    new = create_offline_root("default", key(), generation=1, serial=1, now=NOW)
    soon = create_intermediate(new, POLICY, key(which="i"), generation=1, serial=2, now=NOW - timedelta(minutes=59))
    assert soon.lifetime.not_before == new.lifetime.not_before
    with pytest.raises(PolicyError, match="not valid now"):
        create_intermediate(root, POLICY, key(which="i"), generation=1, serial=2, now=NOW + timedelta(days=31))
    with pytest.raises(PolicyError, match="path length"):
        create_intermediate(authority(), POLICY, key(which="i"), generation=1, serial=2, now=NOW)


@pytest.mark.parametrize("serial", [0, -1, 1 << 127])
def test_serials_outside_the_rule(serial: int) -> None:
    public = key(which="x").public_key()
    with pytest.raises(UsageError, match=r"RFC 5280, 4\.1\.2\.2"):
        issue_leaf(authority(), LeafRequest(identity()), public, serial=serial, now=NOW, policy=POLICY)
    assert leaf(authority(), serial=(1 << 127) - 1).serial_number == (1 << 127) - 1


def test_random_serials_have_sixteen_octets() -> None:
    serials = {random_serial() for _ in range(1000)}
    assert len(serials) == 1000
    assert {(serial.bit_length() + 7) // 8 for serial in serials} == {16}
    assert max(serials) < 1 << 127


def test_a_leaf_never_has_the_cas_key() -> None:
    own = authority()
    with pytest.raises(PolicyError, match="the CA's own key"):
        issue_leaf(own, LeafRequest(identity()), own.key.public_key(), serial=1, now=NOW, policy=POLICY)


def test_a_time_without_a_zone_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="zone"):
        leaf(authority(), now=NOW.replace(tzinfo=None))


@given(world=worlds())
def test_what_is_issued_is_what_was_asked_for(world: World) -> None:
    certificate = leaf(authority(policy=world.policy), world.request, policy=world.policy)
    assert certificate_identity(certificate) == world.request.identity
    assert certificate.public_key() == key().public_key()
    dns, ips = leaf_names(world.request)
    assert world.request.identity.dns == dns[0]
    assert set(dns) >= set(world.request.dns)
    assert set(ips) >= set(world.request.ips)
    for name in dns:
        check_dns(name, world.policy.permitted_dns)


@given(
    role=st.sampled_from(Role),
    ttl=st.none() | st.integers(-DAY, 2 * MAX_TTL),
    maximum=st.none() | st.integers(MIN_TTL, MAX_TTL),
    issuer=st.builds(
        lambda start, length: Lifetime(start, start + length), st.integers(0, 10**9), st.integers(1, 10**9)
    ),
    now=st.integers(0, 2 * 10**9),
)
def test_lifetimes_hold_to_every_limit_or_are_refused(
    role: Role, ttl: int | None, maximum: int | None, issuer: Lifetime, now: int
) -> None:
    policy = make_policy(TD, max_ttl=maximum)
    try:
        period = leaf_lifetime(LeafRequest(identity(role), ttl=ttl), policy, issuer, now)
    except PolicyError:
        return
    assert issuer.not_before <= period.not_before <= now
    assert now <= period.not_after <= issuer.not_after
    assert period.not_before >= now - LEAF_BACKDATE
    assert period.not_after - now < policy.longest_ttl
    if ttl is not None:
        assert period.not_after - now + 1 == ttl


@given(
    domain=st.text(max_size=30),
    role=st.sampled_from(Role),
    name=st.text(max_size=30),
    dns=st.lists(st.text(max_size=30)),
)
def test_requests_of_any_text_are_refused_by_our_own_errors(domain: str, role: Role, name: str, dns: list[str]) -> None:
    try:
        check_request(LeafRequest(Identity(domain, role, name), tuple(dns)), POLICY)
    except DaskpkiError as error:
        assert str(error)


@pytest.mark.parametrize("kind", KeyType)
def test_rsa_servers_alone_encipher_keys(kind: KeyType) -> None:
    for role in Role:
        usage = extension(leaf(authority(), LeafRequest(identity(role)), kind=kind), x509.KeyUsage)
        assert usage is not None
        assert usage.value.key_encipherment is (kind is KeyType.RSA3072 and role is not Role.CLIENT)


def test_a_certificate_has_the_size_that_the_formats_count_on() -> None:
    assert len(der(leaf(authority()))) < 800
