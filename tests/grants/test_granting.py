"""Grants against Secret Manager: what they let a member do, races, lost answers, and what is refused."""

from __future__ import annotations

from contextlib import closing

import pytest
from google.api_core.exceptions import Forbidden, NotFound
from google.iam.v1 import policy_pb2

from daskpki import secret_names
from daskpki.errors import ConflictError, NotFoundError, NotOursError, PolicyError, UsageError
from daskpki.grants import ACCESSOR, TOO_WIDE, UNCLEAR, Grants, check_applies, parse_grant_target, parse_member
from daskpki.records import Draft
from daskpki.settings import GsmUrl, parse_store_url
from daskpki.store.gsm.store import GsmStore
from tests.emulator.clients import grpc_client
from tests.support.drafts import STAMP
from tests.support.grantees import ALICE, KINDS, SCHEDULER, WORKER
from tests.support.gsm_places import GsmPlace

WORKER_SECRETS = {"trust", "worker_worker"}


def readable(place: GsmPlace, member: str) -> set[str]:
    """Which secrets the official client gets as that member, with IAM enforced."""
    place.server.iam.enforced = True
    client = grpc_client(place.server.grpc_target, place.server.tokens.issue(member).text)
    found = set()
    for kind in (*KINDS, "events"):
        try:
            client.access_secret_version(name=place.name(f"daskpki_lab_{kind}") + "/versions/1")
        except (Forbidden, NotFound):  # the log of other secrets has no version before the first of them is set
            continue
        found.add(kind)
    place.server.iam.enforced = False
    return found


def test_a_grant_lets_read_what_the_role_needs_and_no_more(place: GsmPlace, grants: Grants) -> None:
    assert readable(place, WORKER) == set()
    done = grants.give(parse_grant_target("worker", "lab"), WORKER)
    assert list(done.values()) == [True, True]
    assert readable(place, WORKER) == WORKER_SECRETS
    assert readable(place, SCHEDULER) == set()
    assert not any(grants.give(parse_grant_target("worker", "lab"), WORKER).values())


def test_a_revoked_grant_leaves_nothing(place: GsmPlace, grants: Grants) -> None:
    grants.give(parse_grant_target("client/alice", "lab"), ALICE)
    assert readable(place, ALICE) == {"trust", "client_alice"}
    assert all(grants.take(parse_grant_target("client/alice", "lab"), ALICE).values())
    assert readable(place, ALICE) == set()
    assert not any(grants.take(parse_grant_target("client/alice", "lab"), ALICE).values())


def test_who_keeps_another_credential_keeps_what_is_shared(place: GsmPlace, grants: Grants) -> None:
    for target in ("scheduler", "worker"):
        grants.give(parse_grant_target(target, "lab"), WORKER)
    assert list(grants.take(parse_grant_target("scheduler", "lab"), WORKER)) == ["daskpki_lab_scheduler_scheduler"]
    assert readable(place, WORKER) == WORKER_SECRETS


def test_other_bindings_and_conditions_are_kept(place: GsmPlace, store: GsmStore, grants: Grants) -> None:
    secret = place.name("daskpki_lab_worker_worker")
    until = 'resource.name.endsWith("/versions/1")'
    binding = policy_pb2.Binding(role=ACCESSOR, members=[ALICE])
    binding.condition.expression, binding.condition.title = until, "one version"
    viewer = policy_pb2.Binding(role="roles/secretmanager.viewer", members=["group:ops@example.com"])
    policy = policy_pb2.Policy(version=3, bindings=[binding, viewer])
    client = grpc_client(place.server.grpc_target)
    client.set_iam_policy(request={"resource": secret, "policy": policy})
    grants.give(parse_grant_target("worker", "lab"), WORKER)
    grants.take(parse_grant_target("worker", "lab"), WORKER)
    kept = client.get_iam_policy(request={"resource": secret, "options": {"requested_policy_version": 3}})
    assert list(kept.bindings) == [binding, viewer]
    assert [bound.condition for bound in store.policies.read("daskpki_lab_worker_worker")] == [until, None]


def test_of_two_who_grant_at_once_none_is_lost(place: GsmPlace, store: GsmStore) -> None:
    """Between our read and our write somebody else changes the policy, three times in a row."""
    others = [f"user:{name}@example.com" for name in ("u", "v", "w")]
    pending = list(others)

    def intrude(_entry: object) -> None:
        if pending:
            member = pending.pop()
            with closing(place.factory()) as other:
                other.policies.grant("daskpki_lab_worker_worker", ACCESSOR, member)

    place.server.before("SetIamPolicy", intrude, secret="daskpki_lab_worker_worker", times=None)
    assert store.policies.grant("daskpki_lab_worker_worker", ACCESSOR, WORKER)
    members = {bound.member for bound in store.policies.read("daskpki_lab_worker_worker")}
    assert members == {*others, WORKER}


@pytest.mark.parametrize("fault", [{"reset": True}, {"status": "UNAVAILABLE"}, {"status": "ABORTED"}])
@pytest.mark.parametrize("acts_first", [False, True])
def test_a_lost_answer_is_no_lost_grant(
    place: GsmPlace, store: GsmStore, fault: dict[str, object], *, acts_first: bool
) -> None:
    place.server.fail("SetIamPolicy", acts_first=acts_first, times=2, **fault)
    assert store.policies.grant("daskpki_lab_worker_worker", ACCESSOR, WORKER)
    assert [bound.member for bound in store.policies.read("daskpki_lab_worker_worker")] == [WORKER]


def test_a_race_lost_for_good_ends_in_one_line(place: GsmPlace) -> None:
    policy = place.policy._replace(deadline=0.3)
    place.server.fail("SetIamPolicy", status="ABORTED", times=None)
    place.server.seed(place.name("daskpki_lab_worker_worker"), b"x")
    store = place.factory(policy=policy)
    with pytest.raises(ConflictError, match="changed by others each time"):
        store.policies.grant("daskpki_lab_worker_worker", ACCESSOR, WORKER)
    store.close()


def test_what_is_missing_is_said_before_anything_changes(place: GsmPlace, grants: Grants) -> None:
    with pytest.raises(NotFoundError, match="daskpki_lab_worker_w-9") as refusal:
        grants.give(parse_grant_target("worker/w-9", "lab"), WORKER)
    assert refusal.value.hint == "daskpki issue worker --name w-9"
    assert place.server.count("SetIamPolicy") == 0


@pytest.mark.parametrize("target", ["worker", "client/alice", "trust", "records"])
def test_before_there_is_a_ca_it_is_what_has_to_be_made(place: GsmPlace, store: GsmStore, target: str) -> None:
    with pytest.raises(NotFoundError) as refusal:
        Grants(store, "new").give(parse_grant_target(target, "new"), WORKER)
    assert refusal.value.hint == "daskpki init-ca makes it"
    assert place.server.count("SetIamPolicy") == 0


def test_a_secret_of_others_is_not_touched(place: GsmPlace, store: GsmStore) -> None:
    place.foreign("daskpki_other_trust")
    with pytest.raises(NotOursError):
        Grants(store, "other").give(parse_grant_target("trust", "other"), WORKER)
    assert place.server.count("SetIamPolicy") == 0


def test_one_of_the_clusters_other_secrets_is_granted_alone(place: GsmPlace, store: GsmStore, grants: Grants) -> None:
    store.secrets.create("daskpki_lab_secret_db", labels=secret_names.labels("lab", "secret", "db"))
    grants.give(parse_grant_target("secret/db", "lab"), WORKER)
    assert readable(place, WORKER) == set()
    assert [bound.member for bound in store.policies.read("daskpki_lab_secret_db")] == [WORKER]


@pytest.mark.parametrize("label", ["daskpki-format", "daskpki-kind", "daskpki-name"])  # the control comes first
def test_a_secret_that_lost_a_label_is_judged_by_its_id(store: GsmStore, grants: Grants, label: str) -> None:
    info = store.secrets.describe("daskpki_lab_worker_worker")
    kept = {key: value for key, value in info.labels.items() if key != label}
    store.secrets.update(info.id, etag=info.etag, labels=kept)
    for target in ("worker", "trust"):
        grants.give(parse_grant_target(target, "lab"), ALICE)
    (found,) = [one for one in grants.check() if one.severity == TOO_WIDE and one.member == ALICE]
    assert (found.secret, found.reason) == (info.id, "a person reads a machine's key")
    assert str(found.mend).endswith(f"--cluster lab grant worker/worker --to {ALICE} --revoke")
    assert [one.slug for one in grants.of(parse_grant_target("worker", "lab"))] == ["trust", "worker/worker"]


@pytest.mark.parametrize("secret", ["db-password", "daskpki_other_worker_worker", "daskpki_lab_novelty_w"])
def test_a_secret_with_an_id_that_daskpki_never_gives_is_not_judged_as_fine(
    store: GsmStore, grants: Grants, secret: str
) -> None:
    store.secrets.create(secret, labels=secret_names.labels("lab", "worker", "worker"))
    for member in (ALICE, "allUsers"):
        store.policies.grant(secret, ACCESSOR, member)
    wide, unclear = [one for one in grants.check() if one.secret == secret]
    assert (unclear.severity, "so its grants were not judged" in unclear.reason) == (UNCLEAR, True)
    assert (wide.severity, wide.member) == (TOO_WIDE, "allUsers")
    assert str(wide.mend).startswith(f"gcloud secrets remove-iam-policy-binding {secret} --project=")


def test_what_operators_and_issuers_read_is_granted_alone(place: GsmPlace, grants: Grants) -> None:
    for target in ("records", "cakey/1"):
        grants.give(parse_grant_target(target, "lab"), ALICE)
    assert readable(place, ALICE) == {"records", "cakey_1"}


def test_a_reader_of_the_log_reads_the_log_of_other_secrets_from_its_first_entry_on(
    place: GsmPlace, store: GsmStore, grants: Grants
) -> None:
    target = parse_grant_target("records", "lab")
    assert list(grants.give(target, ALICE)) == ["daskpki_lab_records", "daskpki_lab_events"]
    assert list(store.events("lab").records()) == []
    store.events("lab").commit(lambda _: [Draft("secret-added", {"name": "db", "version": 1})], STAMP)
    assert "events" in readable(place, ALICE)
    assert all(grants.take(target, ALICE).values())
    assert readable(place, ALICE) == set()


def test_a_granter_who_may_not_create_the_log_of_other_secrets_grants_the_first(
    place: GsmPlace, grants: Grants
) -> None:
    place.server.fail("CreateSecret", http=403)
    assert list(grants.give(parse_grant_target("records", "lab"), ALICE)) == ["daskpki_lab_records"]


def test_on_a_local_store_grants_do_not_apply() -> None:
    with pytest.raises(UsageError, match=r"local: has no grants; .* unlocks a local store can read all of it"):
        check_applies(parse_store_url("local:"))
    assert check_applies(parse_store_url("gsm://test-project")) == GsmUrl("test-project")


@pytest.mark.parametrize("member", ["allUsers", "allAuthenticatedUsers", "domain:example.com"])
def test_nobody_grants_to_everybody(member: str) -> None:
    with pytest.raises(PolicyError, match="secrets are granted to single members"):
        parse_member(member)


@pytest.mark.parametrize(
    "member", ["alice@example.com", "user:alice", "serviceAccount:", "user:a b@c", "robot:a@b.c", ""]
)
def test_what_is_no_member_is_refused(member: str) -> None:
    with pytest.raises(UsageError, match="is not a member"):
        parse_member(member)
    principal = (
        "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p.svc.id.goog/subject/s"
    )
    for good in (WORKER, ALICE, "group:ops@example.com", principal):
        assert parse_member(good) == good


@pytest.mark.parametrize("target", ["boss", "client", "worker/A_B", "secret/", "secret", "trust/x", "cakey", "cakey/x"])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(UsageError):
        parse_grant_target(target, "lab")
