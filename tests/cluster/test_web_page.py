"""The rules of the HTTP side as pure functions, and what a snapshot looks like as page, JSON and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from daskpki.cluster.audit import Event
from daskpki.cluster.peer import Peer
from daskpki.cluster.policy import Dashboard
from daskpki.cluster.refusal import Reason
from daskpki.cluster.web.page import FORMAT, Contact, Snapshot, ending, exposition, group, page
from daskpki.cluster.web.server import Visit, is_local_name, verify_visit
from daskpki.errors import NotTrustedError, PolicyError
from daskpki.identity import Identity, Role

LOCAL = Visit("GET", "127.0.0.1", "127.0.0.1:8787")
NOW = 1_800_000_000.0
DAY = 86_400
HOSTILE = "\"><script>alert(1)</script>'&"


def test_this_machine_may_read() -> None:
    verify_visit(LOCAL, Dashboard.LOOPBACK)
    verify_visit(LOCAL._replace(address="::1", method="HEAD"), Dashboard.LOOPBACK)
    verify_visit(LOCAL._replace(address="10.0.0.7"), Dashboard.MTLS)


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.0.1", "::ffff:10.0.0.7", "fe80::1%eth0", "", "localhost"])
@pytest.mark.parametrize("dashboard", [Dashboard.LOOPBACK, Dashboard.OFF])
def test_another_machine_may_not_without_a_certificate(address: str, dashboard: Dashboard) -> None:
    with pytest.raises(NotTrustedError, match="this machine only"):
        verify_visit(LOCAL._replace(address=address), dashboard)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8787", "127.0.0.1", "127.0.0.1:1", "127.9.9.9:1", "[::1]", "[::1]:8787"]
)
def test_names_that_are_this_machine_whoever_answers_for_the_dns(host: str) -> None:
    assert is_local_name(host)
    verify_visit(LOCAL._replace(host=host), Dashboard.LOOPBACK)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost.",
        "user@localhost",
        "evil.example@127.0.0.1",
        "127.0.0.1:evil",
        "localhost:8787/evil",
        "2130706433",
        "127.1",
        "0x7f.1",
        "::1",
        "[::1",
        "[10.0.0.7]",
        "10.0.0.7:8787",
        "",
    ],
)
def test_names_that_somebody_else_can_give(host: str) -> None:
    assert not is_local_name(host)
    with pytest.raises(PolicyError, match="not this machine's own name") as refused:
        verify_visit(LOCAL._replace(host=host), Dashboard.LOOPBACK)
    assert "allow_websocket_origin" in str(refused.value.hint)
    verify_visit(LOCAL._replace(host=host), Dashboard.LOOPBACK, [host])
    verify_visit(LOCAL._replace(host=host), Dashboard.MTLS)  # there the certificate says who we are


def test_addresses_of_this_machine() -> None:
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::1%lo"):
        verify_visit(LOCAL._replace(address=address), Dashboard.LOOPBACK)
    for address in ("10.0.0.5", "::ffff:10.0.0.5", "fe80::1%eth0", "", "x"):
        with pytest.raises(NotTrustedError, match="for this machine only"):
            verify_visit(LOCAL._replace(address=address), Dashboard.LOOPBACK)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "CONNECT", "get", "BREW"])
@pytest.mark.parametrize("dashboard", list(Dashboard))
def test_nothing_is_written_over_http(method: str, dashboard: Dashboard) -> None:
    with pytest.raises(PolicyError, match="these pages are read-only"):
        verify_visit(LOCAL._replace(method=method), dashboard)


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9999", "null", ""])
def test_pages_of_other_origins_may_not_read_these(origin: str) -> None:
    with pytest.raises(PolicyError, match="may not read these"):
        verify_visit(LOCAL._replace(origin=origin), Dashboard.MTLS)


def test_these_pages_themselves_may_and_those_that_were_named() -> None:
    verify_visit(LOCAL._replace(origin="http://127.0.0.1:8787"), Dashboard.LOOPBACK)
    verify_visit(LOCAL._replace(origin="https://hub.example"), Dashboard.LOOPBACK, ["hub.example"])


def snapshot(text: str = "", *, mode: str = "limited", next_update: int = int(NOW) + 30 * DAY) -> Snapshot:
    alice = Peer(Identity("c.example", Role.CLIENT, "alice"), 0xA11CE, int(NOW) + 3 * DAY, "")
    contacts = [
        Contact(alice, f"tls://10.0.0.1:{port}{text}", NOW - port, via) for port, via in ((7, "tls"), (9, "dashboard"))
    ]
    ca = {
        "generation": 1,
        "state": f"active{text}",
        "sha256": f"ab{text}",
        "not_after": int(NOW) + 900 * DAY,
        "crl_number": 12,
        "next_update": next_update,
    }
    event = Event(NOW - 5, f"refused{text}", f"who{text}", f"where{text}", f"why{text}")
    taken = {
        "format": FORMAT,
        "at": NOW,
        "server": "Scheduler",
        "identity": "spiffe://c.example/scheduler/scheduler",
        "not_after": int(NOW) + 80 * DAY,
        "worker_clients": mode,
        "dashboard": "mtls",
        "trust": {
            "cluster": f"lab{text}",
            "trust_domain": "c.example",
            "epoch": 7,
            "issued_at": int(NOW) - 60,
            "next_update": next_update,
            "revoked": 2,
            "cas": [ca],
        },
        "connected": group(contacts),
        "refused": [event._asdict()],
        "changes": [event._replace(at=NOW - 9, kind="revoked")._asdict()],
        "counts": {"refused": 3, "connected": 8},
        "refusals": {Reason.REVOKED: 3},
        "sealed": None,
    }
    return taken | {"ending": ending(taken)}


def test_whatever_peers_say_of_themselves_stays_text() -> None:
    html = page(snapshot(HOSTILE), ["status", "daskpki"])
    assert "<script>" not in html
    assert html.count("<script") == 1  # ours, by its address
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;&#39;&amp;") >= 8
    assert "<script>alert" in f"{HOSTILE}"


def test_the_page_has_it_at_a_glance() -> None:
    html = page(snapshot(), ["status", "daskpki"])
    for text in (
        "Cluster lab",
        "client/alice",
        "a11ce",
        "dashboard and tls (2)",
        "10.0.0.1",
        "9 seconds ago",
        "in 3 days",
    ):
        assert text in html
    assert '<li class="active"><a href="daskpki">' in html
    assert "warning" not in html


def test_mode_allow_and_a_list_that_ran_out_are_said_plainly() -> None:
    assert "can run code on the scheduler" in page(snapshot(mode="allow"), [])
    assert "nobody can know who was revoked since" in page(snapshot(next_update=int(NOW) - 1), [])


SEAL = {
    "graphs": 12,
    "refused": 3,
    "pickles_refused": 0,
    "helpers": 2,
    "killed": 1,
    "seconds": 4.5,
    "memory_bytes": 9e7,
}


def test_a_sealed_schedulers_helpers_are_shown_and_measured() -> None:
    sealed = snapshot(mode="submit") | {"sealed": SEAL}
    assert "graphs; 3 refused, 2 helpers, 1 killed" in page(sealed, [])
    assert "the scheduler is sealed" in page(sealed, [])
    assert "helpers" not in page(snapshot(), [])
    samples = [each for family in text_string_to_metric_families(exposition(sealed)) for each in family.samples]
    found = {each.name: each.value for each in samples if each.name.startswith("daskpki_sealed_")}
    assert found == {f"daskpki_sealed_{name}": value for name, value in SEAL.items()}


def test_what_ends_soon_comes_first() -> None:
    assert [each["what"] for each in snapshot(next_update=int(NOW) + DAY)["ending"]] == [
        "the revocation list of CA 1",
        "the certificate of spiffe://c.example/client/alice",
    ]


def test_the_json_says_the_same() -> None:
    document = json.loads(json.dumps(snapshot()))
    assert document["format"] == 1
    assert document["connected"][0]["serial"] == "a11ce"
    assert document["connected"][0]["connections"] == 2
    assert document["trust"]["cas"][0]["crl_number"] == 12
    assert document["refused"][0]["detail"] == "why"
    assert document["ending"][0]["what"] == "the certificate of spiffe://c.example/client/alice"


def measured(text: str = "") -> Iterable[Metric]:
    return text_string_to_metric_families(exposition(snapshot(text)))


def test_prometheus_reads_the_metrics() -> None:
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for metric in measured()
        for sample in metric.samples
    }
    assert found["daskpki_connections", "client"] == 2
    assert found["daskpki_events_total", "refused"] == 3
    assert found["daskpki_events_total", "revoked"] == 0
    assert found["daskpki_refused_total", "revoked"] == 3
    assert found["daskpki_refused_total", "unknown_ca"] == 0  # there from the start, so that an alert can see it grow
    assert found["daskpki_trust_epoch",] == 7
    assert found["daskpki_ca_not_after_seconds", "1", "active"] == NOW + 900 * DAY
    assert found["daskpki_first_peer_not_after_seconds", "client"] == NOW + 3 * DAY


def test_labels_with_quotes_and_newlines_are_one_label() -> None:
    states = [
        sample.labels["state"]
        for metric in measured('"} 1\nfaked_metric 1\\')
        for sample in metric.samples
        if sample.name == "daskpki_ca_not_after_seconds"
    ]
    assert states == ['active"} 1\nfaked_metric 1\\']
    assert "faked_metric" not in [metric.name for metric in measured('"} 1\nfaked_metric 1\\')]


def test_the_page_tells_what_tasks_may_do_in_mode_limited() -> None:
    shown = page(snapshot(mode="limited"), [])
    assert "tasks may use queues, variables, locks and events, but may not submit work" in shown
