"""The rules, one by one: what is too wide, too narrow or unclear, each with its control."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from daskpki.grants import ACCESSOR, TOO_NARROW, TOO_WIDE, UNCLEAR, GrantCommands, GrantFinding, Secret, judge
from daskpki.settings import GsmUrl
from daskpki.store.gsm.iam import Binding
from tests.support.grantees import ALICE, SCHEDULER, WORKER

PLACE = GrantCommands(GsmUrl("my-project", None), "lab")
OURS = "daskpki --store gsm://my-project --cluster lab grant"
BOB = "user:bob@example.com"
GOOD = {
    "trust": [SCHEDULER, WORKER, ALICE, BOB],
    "records": [],
    "cakey_1": [],
    "scheduler_scheduler": [SCHEDULER],
    "worker_worker": [WORKER],
    "client_alice": [ALICE],
    "client_bob": [BOB],
}


def judged(**changes: Sequence[str | Binding]) -> list[GrantFinding]:
    readers: dict[str, Sequence[str | Binding]] = {**GOOD, **changes}
    return judge([_secret(kind, members) for kind, members in readers.items()], PLACE)


def _secret(text: str, members: Sequence[str | Binding]) -> Secret:
    kind, _, name = text.partition("_")
    bindings = [one if isinstance(one, Binding) else Binding(ACCESSOR, one) for one in members]
    return Secret(f"daskpki_lab_{text}", kind, name, bindings)


def brief(findings: list[GrantFinding]) -> list[tuple[str, str, str | None]]:
    return [(one.severity, one.secret.removeprefix("daskpki_lab_"), one.member) for one in findings]


def test_what_should_be_is_found_right() -> None:
    assert judged() == []


def test_a_single_vm_may_read_scheduler_and_worker() -> None:
    both = {"scheduler_scheduler": [WORKER], "worker_worker": [WORKER]}
    assert judged(trust=[WORKER, ALICE, BOB], **both) == []
    more = judged(trust=[WORKER, ALICE, BOB], **both, client_alice=[ALICE, WORKER])
    assert brief(more) == [
        (TOO_WIDE, secret, WORKER) for secret in ("client_alice", "scheduler_scheduler", "worker_worker")
    ]
    assert more[0].mend == f"{OURS} client/alice --to {WORKER} --revoke"


@pytest.mark.parametrize("member", ["allUsers", "allAuthenticatedUsers", "domain:example.com"])
def test_everybody_is_too_wide_wherever_it_stands(member: str) -> None:
    assert (TOO_WIDE, "trust", member) in brief(judged(trust=[*GOOD["trust"], member]))
    assert (TOO_WIDE, "client_bob", member) in brief(judged(client_bob=[BOB, member]))


@pytest.mark.parametrize("secret", ["cakey_1", "records"])
def test_who_holds_a_credential_does_not_read_the_cas_own(secret: str) -> None:
    assert brief(judged(**{secret: [WORKER]})) == [(TOO_WIDE, secret, WORKER)]
    assert judged(**{secret: ["user:operator@example.com"]}) == []


@pytest.mark.parametrize("member", ["user:eve@example.com", "group:all@example.com"])
def test_people_do_not_read_a_machines_credential(member: str) -> None:
    shared: list[str | Binding] = [*GOOD["trust"], member]
    found = judged(worker_worker=[WORKER, member], trust=shared)
    assert brief(found) == [(TOO_WIDE, "worker_worker", member)]


def test_one_persons_credentials_are_not_anothers() -> None:
    found = judged(client_bob=[BOB, ALICE])
    assert brief(found) == [(TOO_WIDE, "client_alice", ALICE), (TOO_WIDE, "client_bob", ALICE)]
    assert "client/bob" in found[0].reason


def test_a_credential_that_nobody_reads_is_too_narrow() -> None:
    (finding,) = judged(worker_worker=[])
    assert brief([finding]) == [(TOO_NARROW, "worker_worker", None)]
    assert finding.mend == f"{OURS} worker/worker --to MEMBER"


def test_a_reader_without_trust_is_too_narrow() -> None:
    (finding,) = judged(trust=[SCHEDULER, WORKER, BOB])
    assert brief([finding]) == [(TOO_NARROW, "client_alice", ALICE)]
    assert finding.reason == "it cannot read the trust document"
    assert finding.mend == f"{OURS} client/alice --to {ALICE}"


def test_a_role_that_daskpki_never_gives_is_taken_by_gcloud() -> None:
    (finding,) = judged(records=[Binding("roles/secretmanager.admin", WORKER)])
    assert finding.mend == (
        "gcloud secrets remove-iam-policy-binding daskpki_lab_records --project=my-project "
        f"--member={WORKER} --role=roles/secretmanager.admin"
    )
    regional = GrantCommands(GsmUrl("my-project", "europe-west1"), "lab")
    (finding,) = judge([_secret("trust", ["allUsers"])], regional)
    assert (
        finding.mend == "daskpki --store gsm://my-project/europe-west1 --cluster lab grant trust --to allUsers --revoke"
    )


def test_conditions_and_custom_roles_are_left_open() -> None:
    until = Binding(ACCESSOR, "user:x@example.com", "request.time < timestamp('2030-01-01T00:00:00Z')")
    custom = Binding("projects/p/roles/mine", "user:y@example.com")
    found = judged(worker_worker=[WORKER, until, custom])
    assert brief(found) == [(UNCLEAR, "worker_worker", one.member) for one in (until, custom)]
    viewer = Binding("roles/secretmanager.viewer", "user:z@example.com")
    assert judged(worker_worker=[WORKER, viewer]) == []
