"""Every rule of the doctor, on both of its sides: what it finds wrong, and what it lets pass."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daskpki.credentials.contexts import LOGIN_FILE, Context, Saved
from daskpki.doctor.checks import (
    Finding,
    Severity,
    check_anchor,
    check_authority,
    check_clock,
    check_config,
    check_crls,
    check_keyring,
    check_leaves,
    check_link,
    check_login,
    check_newest,
    check_slots,
    check_superseded,
    check_unfinished,
    check_versions,
    error,
    exit_code,
    gist,
    of_error,
    ok,
    warning,
)
from daskpki.doctor.scheduler import (
    Admission,
    Dialled,
    Page,
    check_certificate,
    check_code,
    check_friend,
    check_mode,
    check_page,
    check_stranger,
)
from daskpki.errors import AccessDeniedError, DaskpkiError, NotTrustedError, UnavailableError
from daskpki.inventory import FROM_REQUEST, ReplayedInventory
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.profile import Lifetime
from daskpki.pki.trust_document import parse_trust
from daskpki.records import (
    CA_ACTIVATED,
    CA_CREATED,
    CA_RESERVED,
    EMPTY,
    ISSUED,
    PUBLISHED,
    RESERVED,
    REVOKING,
    Draft,
    Head,
    Stamp,
    chain,
)
from daskpki.store.port import DESTROYED, DISABLED, ENABLED, Version
from tests.support.material import Cluster, make_cluster

NOW = 1_000_000
DAY = 86_400


def severities(findings: Iterable[Finding]) -> list[str]:
    return [finding.severity.value for finding in findings]


def one(findings: Iterable[Finding]) -> Finding:
    (found,) = findings
    return found


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        ([ok("a", ""), warning("b", "")], 0),
        ([warning("b", ""), error("c", "")], 3),
        ([of_error("store", UnavailableError("busy"))], 75),
        ([of_error("store", UnavailableError("busy")), error("c", "")], 3),
        ([of_error("store", AccessDeniedError("no"))], 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


def test_many_of_a_kind_are_told_in_short_but_none_other() -> None:
    many = [warning(f"certificate worker/{number}", "due", topic="due") for number in range(200)]
    mixed = [ok("store", "answers"), *many, error("clock", "wrong")]
    short = gist(mixed)
    assert [finding.subject for finding in short] == [
        "store",
        *(f"certificate worker/{number}" for number in range(4)),
        "due",
        "clock",
    ]
    assert short[5].reason.startswith("196 more")
    assert short[5].severity is Severity.WARNING
    assert gist(mixed[:6]) == mixed[:6]


@pytest.mark.parametrize(
    ("kinds", "severity"),
    [
        (["keyfile"], "warning"),
        (["keyring"], "warning"),
        (["keyring", "passphrase"], "note"),
        (["keyring", "recovery"], "ok"),
    ],
)
def test_one_way_in_is_one_loss_away(kinds: list[str], severity: str) -> None:
    found = one(check_slots(kinds))
    assert found.severity == severity
    assert (found.remedy == "daskpki slot add recovery") == (severity != "ok")


@pytest.mark.parametrize(
    ("life", "severity"),
    [
        (Lifetime(NOW - DAY, NOW + 9 * DAY), "ok"),
        (Lifetime(NOW - 7 * DAY, NOW + 3 * DAY), "warning"),
        (Lifetime(NOW - 9 * DAY, NOW), "warning"),
        (Lifetime(NOW - 9 * DAY, NOW - 1), "error"),
    ],
)
def test_a_ca_ends(life: Lifetime, severity: str) -> None:
    found = check_authority(1, life, NOW)
    assert found.severity == severity
    assert found.remedy == (None if severity == "ok" else "daskpki rotate-ca start")


def reserved(serial: int, begin: int, end: int, *, name: str = "w", at: int = NOW, **more: Any) -> Draft:
    body = {"serial": f"{serial:x}", "role": "worker", "name": name, "issuer": 1, "not_before": begin, "not_after": end}
    return Draft(RESERVED, {**body, **more, "at": at})


LIVING = (1,)
"""The CAs that are trusted."""


def issued(serial: int) -> Draft:
    return Draft(ISSUED, {"serial": f"{serial:x}", "fingerprint": f"{serial:064x}", "version": 1})


def replay(*drafts: Draft, time: int = NOW) -> ReplayedInventory:
    return ReplayedInventory(chain(EMPTY, drafts, Stamp(time, "op", "who", "command")))


def test_leaves_are_in_order_due_or_expired() -> None:
    inventory = replay(
        *(reserved(1, NOW - DAY, NOW + 9 * DAY, name="good"), issued(1)),
        *(reserved(2, NOW - 7 * DAY, NOW + 3 * DAY, name="due"), issued(2)),
        *(reserved(3, NOW - 9 * DAY, NOW - DAY, name="late"), issued(3)),
        *(reserved(4, NOW - 9 * DAY, NOW - DAY, name="own", key_type=FROM_REQUEST), issued(4)),
    )
    found = {finding.subject: finding for finding in check_leaves(inventory.certificates(), LIVING, NOW)}
    assert found["certificates"].reason.startswith("1 valid; the first to end is worker/good")
    assert found["certificate worker/due"].severity is Severity.WARNING
    assert found["certificate worker/due"].remedy == "daskpki renew worker/due"
    assert found["certificate worker/late"].severity is Severity.ERROR
    assert "daskpki sign" in (found["certificate worker/own"].remedy or "")
    dropped = {finding.subject: finding for finding in check_leaves(inventory.certificates(), (), NOW)}
    assert dropped["certificate worker/good"].severity is Severity.ERROR
    assert "CA 1, which was dropped" in dropped["certificate worker/good"].reason


def test_an_older_leaf_that_still_counts_is_told_and_an_expired_one_is_not() -> None:
    old, older, newest = (
        reserved(1, NOW - DAY, NOW + DAY),
        reserved(2, NOW - 9 * DAY, NOW - DAY),
        reserved(3, NOW, NOW + 9 * DAY),
    )
    inventory = replay(older, issued(2), old, issued(1), newest, issued(3))
    found = [
        finding
        for finding in check_leaves(inventory.certificates(), LIVING, NOW)
        if finding.severity is not Severity.OK
    ]
    assert [finding.severity for finding in found] == [Severity.NOTE]
    assert "serial 1)" in found[0].reason
    assert not [finding for finding in check_leaves(inventory.certificates(), (), NOW) if "older" in finding.reason]


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster()


def test_a_crl_is_fresh_then_due_then_out(cluster: Cluster) -> None:
    document = parse_trust(cluster.trust).document
    part = document.crls[0]
    moments = (part.this_update + 1, part.this_update + 12 * DAY, part.next_update, part.next_update + 1)
    assert [severities(check_crls(document, at)) for at in moments] == [["ok"], ["warning"], ["warning"], ["error"]]


def test_the_log_has_to_carry_the_signed_document(cluster: Cluster) -> None:
    document = parse_trust(cluster.trust).document._replace(log=(5, "a" * 64))
    head = Head(9, "b" * 64)
    assert check_link(document, head, "a" * 64).severity == "ok"
    assert "rewritten" in check_link(document, head, "c" * 64).reason
    assert "missing" in check_link(document, Head(3, ""), None).reason


def test_the_anchor_of_the_log_is_named() -> None:
    assert [check_anchor(basis, "ab").severity.value for basis in ("pin", "seen", "first use")] == ["ok", "ok", "note"]
    assert "ab" in check_anchor("pin", "ab").reason
    assert "nothing was known" in check_anchor("first use", "ab").reason
    assert "--ca-sha256" in str(check_anchor("first use", "ab").remedy)


def test_what_a_crash_left_open_is_explained() -> None:
    recent, stale = reserved(1, NOW, NOW + DAY, name="new"), reserved(2, NOW, NOW + DAY, name="stale")
    assert not list(check_unfinished(replay(recent), NOW + 600))
    found = one(check_unfinished(replay(stale), NOW + 601))
    assert found.severity is Severity.WARNING
    assert "the command was killed" in found.reason
    assert "daskpki issue worker --name stale" in (found.remedy or "")
    revoking = replay(stale, issued(2), Draft(REVOKING, {"serial": "2", "reason": "keyCompromise"}))
    assert "was not published" in one(check_unfinished(revoking, NOW)).reason


def test_a_rollover_that_was_not_published_is_told() -> None:
    made = [
        Draft(CA_RESERVED, {"generation": 1, "key_uri": "store:", "trust_domain": "d.example"}),
        Draft(CA_CREATED, {"generation": 1, "certificate": ""}),
        Draft(CA_ACTIVATED, {"generation": 1}),
    ]
    shown = Draft(PUBLISHED, {"epoch": 1, "version": 1, "authorities": {"1": "active"}})
    assert not list(check_unfinished(replay(*made, shown), NOW))
    behind = Draft(PUBLISHED, {"epoch": 1, "version": 1, "authorities": {"1": "next"}})
    assert one(check_unfinished(replay(*made, behind), NOW)).severity is Severity.ERROR


def command(verb: str, secret: str, numbers: Iterable[int]) -> str:
    return f"{verb} {secret} {list(numbers)}"


def versions(*states: str) -> list[Version]:
    return [Version(number, state, NOW) for number, state in enumerate(states, start=1)][::-1]


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ((DISABLED, ENABLED), None),
        ((ENABLED, DISABLED), "disabled"),
        ((ENABLED, DESTROYED), "destroyed"),
        ((), "no version"),
    ],
)
def test_a_newest_version_that_is_not_readable_stops_everybody(states: tuple[str, ...], says: str | None) -> None:
    found = list(check_newest("s", versions(*states), command, "anew"))
    assert bool(found) == (says is not None)
    assert not says or (says in found[0].reason and found[0].severity is Severity.ERROR)
    assert says != "disabled" or found[0].remedy == "enable s [2]"


def test_old_keys_that_can_still_be_read_are_told() -> None:
    assert (
        one(check_superseded("s", versions(ENABLED, DESTROYED, ENABLED, ENABLED), command)).remedy == "destroy s [1, 3]"
    )
    assert not list(check_superseded("s", versions(DESTROYED, DISABLED, ENABLED), command))


@pytest.mark.parametrize(
    ("ahead", "severity"),
    [(None, "note"), (0.0, "ok"), (-5.0, "ok"), (6.0, "warning"), (-61.0, "error"), (4e6, "error")],
)
def test_a_wrong_clock_is_told(ahead: float | None, severity: str) -> None:
    assert check_clock(ahead).severity == severity


GOOD = {"dask": "2026.8.0", "distributed": "2026.8.0", "cryptography": "50.0.2"}


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        ({}, "ok", "distributed 2026.8.0"),
        ({"distributed": "2026.1.0", "dask": "2026.1.0"}, "ok", ""),
        ({"distributed": "2025.12.0", "dask": "2025.12.0"}, "error", "2026.1.0"),
        ({"distributed": None}, "error", "not installed"),
        ({"cryptography": "46.0.5"}, "error", "46.0.6"),
        ({"dask": "2026.7.0"}, "warning", "different releases"),
        ({"dask": "2026.8.0+3.gabc"}, "ok", ""),
    ],
)
def test_versions_have_floors(change: dict[str, str | None], severity: str, says: str) -> None:
    found = one(check_versions({**GOOD, **change}))
    assert (found.severity, says in found.reason) == (severity, True)


def test_dask_s_configuration_is_read() -> None:
    loader = {"distributed": {"client": {"security-loader": "daskpki.loader.security_loader"}}}
    assert severities(check_config(loader)) == ["ok"]
    assert severities(check_config({})) == ["note"]
    other = {"distributed": {"client": {"security_loader": "a.b"}, "comm": {"require-encryption": False}}}
    assert severities(check_config(other)) == ["error", "warning"]
    key = {"distributed": {"comm": {"tls": {"client": {"key": "-----BEGIN PRIVATE KEY-----"}}}}}
    assert "PEM text" in next(iter(check_config(key))).reason
    path = {"distributed": {"comm": {"tls": {"client": {"key": "/run/key.pem"}}}}}
    assert severities(check_config(path)) == ["note"]


def test_logins_end_too(cluster: Cluster) -> None:
    client, trust = cluster.credentials["client/alice"], cluster.trust.reveal()
    context = Context("local:/s", client.cluster, "alice", (), client.leaf, client.chain, trust)
    begin, end = lifetime(load_certificate(client.leaf))
    young, old, epoch = begin + DAY, end - DAY, context.document.epoch

    def judged(
        now: float, newest: int | None = None, failure: DaskpkiError | None = None, store: str = "local:/s"
    ) -> tuple[str, str | None]:
        found = check_login(Saved("id", context._replace(store=store), ""), newest, failure, "renew it", now)
        assert found.subject == f"login {client.cluster}/alice"
        return found.severity.value, found.remedy

    assert judged(young, epoch) == ("ok", None)
    assert judged(young) == ("ok", None)
    assert judged(young, epoch + 1) == ("note", "renew it")
    assert judged(old, epoch) == ("warning", "after a renewal, renew it")
    assert judged(old, epoch, store=LOGIN_FILE) == ("warning", "renew it")
    assert judged(young, failure=NotTrustedError("changed"))[0] == "error"


def test_a_keyring_is_missed_by_those_who_need_it() -> None:
    refused = AccessDeniedError("locked", hint="unlock it")
    assert severities(check_keyring(None, needed=True)) == ["ok"]
    assert severities(check_keyring(refused, needed=False)) == ["note"]
    assert severities(check_keyring(refused, needed=True)) == ["error"]


def leaf_of(cluster: Cluster, slug: str) -> Dialled:
    return Dialled(cluster.credentials[slug].leaf, Admission.REFUSED, "certificate required")


def test_a_scheduler_is_known_by_its_certificate(cluster: Cluster) -> None:
    trust, now = parse_trust(cluster.trust).document, datetime.now(UTC)

    def judged(dialled: Dialled) -> Finding:
        return one(check_certificate("tls://h:8786", dialled, trust, now))

    assert judged(leaf_of(cluster, "scheduler/scheduler")).severity == "ok"
    assert "is a worker" in judged(leaf_of(cluster, "worker/worker")).reason
    assert "impostor" in (judged(leaf_of(make_cluster(), "scheduler/scheduler")).remedy or "")
    assert judged(Dialled(None, Admission.REFUSED, "wrong version number")).severity == "error"
    assert judged(Dialled(None, Admission.REFUSED, "sslv3 alert handshake failure")).severity == "note"
    assert judged(Dialled(None, Admission.SILENT, "no route", reachable=False)).severity == "error"
    assert "no certificate in time" in judged(Dialled(None, Admission.SILENT, "no answer in time")).reason


def test_a_renewal_is_advised_only_where_the_certificate_ended(cluster: Cluster) -> None:
    trust, later = parse_trust(cluster.trust).document, datetime.now(UTC) + timedelta(days=400)
    ended = one(check_certificate("tls://h:8786", leaf_of(cluster, "scheduler/scheduler"), trust, later))
    assert ended.remedy == "daskpki renew scheduler/scheduler, if the address is right"
    foreign = leaf_of(make_cluster(), "scheduler/scheduler")
    remedy = one(check_certificate("tls://h:8786", foreign, trust, datetime.now(UTC))).remedy
    assert remedy is not None
    assert "not of this cluster" in remedy
    assert "renew" not in remedy


@pytest.mark.parametrize(
    ("mode", "severity", "reason"),
    [
        ("deny", "ok", "mode deny: it unpickles nothing"),
        ("limited", "ok", "mode limited: it unpickles nothing"),
        ("allow", "note", "may run code on the scheduler"),
        (None, "warning", "Dask's own TLS"),
    ],
)
def test_by_which_rules_a_scheduler_goes(mode: str | None, severity: str, reason: str) -> None:
    told = one(check_mode("a", Dialled(b"", Admission.ADMITTED, mode=mode)))
    assert told.severity == severity
    assert reason in told.reason
    assert not list(check_mode("a", Dialled(b"", Admission.REFUSED, mode=mode)))


@pytest.mark.parametrize(("code", "severity"), [("sealed", ["ok"]), ("stock", ["note"]), (None, [])])
def test_whose_code_runs_in_a_scheduler(code: str | None, severity: list[str]) -> None:
    told = check_code("a", Dialled(b"", Admission.ADMITTED, mode="limited", code=code))
    assert [each.severity for each in told] == severity


def test_a_scheduler_refuses_strangers_and_admits_friends(cluster: Cluster) -> None:
    leaf = cluster.credentials["scheduler/scheduler"].leaf
    expected = {
        Admission.REFUSED: ("ok", "error"),
        Admission.ADMITTED: ("error", "ok"),
        Admission.SILENT: ("note", "error"),
    }
    for answer, (stranger, friend) in expected.items():
        assert one(check_stranger("a", Dialled(leaf, answer))).severity == stranger
        assert check_friend("a", "alice", Dialled(leaf, answer)).severity == friend


def test_an_open_dashboard_is_an_error_unless_it_is_our_own_loopback() -> None:
    assert check_page("h", 8787, Page(None, loopback=False)).severity == "ok"
    assert check_page("h", 8787, Page("HTTP/1.1 200 OK", loopback=False)).severity == "error"
    assert check_page("h", 8787, Page("HTTP/1.1 200 OK", loopback=True)).severity == "note"
