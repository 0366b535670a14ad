"""The pure plan: golden transcripts, applying twice, changing, shrinking, destroying, and what is never touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.deploy.blueprint import resources
from daskpki.deploy.carrying_out import WAITS, carry_out
from daskpki.deploy.deploying import plan_deployment, plan_destruction, plan_from
from daskpki.deploy.gcloud import NotSettledError
from daskpki.deploy.identities import Account, SecretGrant
from daskpki.deploy.network import Firewall
from daskpki.deploy.observing import Scene
from daskpki.deploy.plan import Step
from daskpki.deploy.rendering_text import plan_document, plan_lines, summary
from daskpki.deploy.resource import Command
from daskpki.deploy.settings import Deployment
from daskpki.errors import AccessDeniedError, NotFoundError, NotOursError
from tests.deploy.conftest import deployment
from tests.support.simulated_gcloud import SimulatedCloud

NODE = {"tags": ("dask-server",), "clients_from": ("203.0.113.0/24",)}
CLUSTER = {"workers": 20, "scheduler_machine_type": "e2-standard-4", "clients_from": ("203.0.113.0/24", "10.1.0.0/16")}
ISOLATED = {
    "workers": 12,
    "isolate_workers": True,
    "private": True,
    "subnet": "dask",
    "logging": False,
    "monitoring": False,
}
MOUNTING = {"workers": 2, "secrets": ("db-password=fd", "token@3=/run/secrets/token")}
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(("name", "settings"), [("node", NODE), ("cluster", CLUSTER), ("isolated", ISOLATED)])
def test_the_transcript_is_the_golden_one(name: str, settings: dict[str, object]) -> None:
    lines = "".join(f"{line}\n" for line in plan_lines(plan_from(deployment(**settings)), commands=True))
    assert lines == (GOLDEN / f"{name}.txt").read_text()


def apply(cloud: SimulatedCloud, wanted: Deployment) -> Sequence[Step]:
    steps = plan_deployment(cloud, wanted)
    carry_out(steps, cloud, progress=lambda _number, _step: None, sleep=lambda _seconds: None)
    return steps


@pytest.mark.parametrize("settings", [NODE, CLUSTER, ISOLATED])
def test_applying_twice_changes_nothing_and_destroying_leaves_nothing(settings: dict[str, object]) -> None:
    cloud, wanted = SimulatedCloud("lab"), deployment(**settings)
    assert apply(cloud, wanted)
    done = len(cloud.commands)
    assert apply(cloud, wanted) == ()
    assert len(cloud.commands) == done
    steps = plan_destruction(cloud, Scene(wanted.store, wanted.cluster), wanted)
    carry_out(steps, cloud, progress=lambda _number, _step: None, sleep=lambda _seconds: None)
    assert not any(cloud.items.values())
    assert not any(cloud.policies.values())
    assert cloud.services  # others may use them


def test_only_what_differs_is_changed(wanted: Deployment) -> None:
    cloud = SimulatedCloud("lab")
    apply(cloud, wanted)
    changed = wanted._replace(clients_from=("10.9.0.0/16",), workers=5, memory_per_worker="2")
    steps = [step for step in apply(cloud, changed) if step.action == "update"]
    assert [step.kind for step in steps] == ["firewall rule", "instance group"]
    assert steps[0].changes == {"source ranges": ("10.1.0.0/16,203.0.113.0/24", "10.9.0.0/16")}
    assert [command[1:5] for command in steps[1].commands] == [
        ("compute", "instance-groups", "managed", "rolling-action"),
        ("compute", "instance-groups", "managed", "wait-until"),
        ("compute", "instance-groups", "managed", "resize"),
    ]
    assert apply(cloud, changed) == ()
    assert len(cloud.items["templates"]) == 1


def test_an_update_says_how_it_is_undone(wanted: Deployment) -> None:
    cloud = SimulatedCloud("lab")
    apply(cloud, wanted)
    (step,) = plan_deployment(cloud, wanted._replace(clients_from=("10.9.0.0/16",)))
    (undo,) = step.undo
    assert "--source-ranges=203.0.113.0/24,10.1.0.0/16" in undo


def test_what_is_no_longer_wanted_goes(wanted: Deployment) -> None:
    cloud = SimulatedCloud("lab")
    apply(cloud, deployment(**ISOLATED))
    steps = apply(cloud, deployment(**{**ISOLATED, "workers": 9}))
    gone = [step.title.split()[1] for step in steps if step.action == "delete" and step.kind == "VM"]
    assert gone == ["daskpki-lab-worker-9", "daskpki-lab-worker-11", "daskpki-lab-worker-10"]
    assert len(cloud.items["accounts"]) == 10
    apply(cloud, wanted)
    assert apply(cloud, wanted) == ()


@pytest.fixture
def wanted() -> Deployment:
    return deployment(**CLUSTER)


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("rules", {"name": "daskpki-lab-clients", "network": "n", "priority": "1", "allowed": []}),
        ("accounts", {"email": "daskpki-lab-worker@project-one.iam.gserviceaccount.com"}),
        ("machines", {"name": "daskpki-lab-scheduler", "zone": "zones/europe-west1-b"}),
        ("groups", {"name": "daskpki-lab-worker", "zone": "zones/europe-west1-b", "instanceTemplate": "t"}),
    ],
)
def test_what_bears_our_name_but_not_our_mark_is_not_touched(
    wanted: Deployment, kind: str, item: dict[str, str]
) -> None:
    cloud = SimulatedCloud("lab")
    cloud.items[kind]["foreign"] = {"description": "managed-by=daskpki daskpki-cluster=other", **item}
    with pytest.raises(NotOursError, match="is not daskpki's"):
        apply(cloud, wanted)
    assert cloud.commands == []
    scene = Scene(wanted.store, wanted.cluster)
    assert plan_destruction(cloud, scene, wanted) == ()


def test_each_account_reads_its_own_secrets_and_no_more() -> None:
    found = resources(deployment(**ISOLATED))
    grants: dict[str, set[str]] = {}
    for one in found:
        if isinstance(one, SecretGrant):
            grants.setdefault(one.member.partition(":")[2].partition("@")[0], set()).add(one.secret)
    shared = {"daskpki_lab_trust"}
    assert grants == {
        "daskpki-lab-scheduler": {*shared, "daskpki_lab_scheduler_scheduler"},
        **{f"daskpki-lab-worker-{n}": {*shared, f"daskpki_lab_worker_worker-{n}"} for n in range(12)},
    }
    assert {one.account for one in found if isinstance(one, Account)} == grants.keys()


def test_workers_read_the_secrets_that_they_mount_and_the_scheduler_does_not() -> None:
    mounted = {"daskpki_lab_secret_db-password", "daskpki_lab_secret_token"}
    for extra, workers in ({}, {"worker"}), ({"isolate_workers": True}, {"worker-0", "worker-1"}), (
        {"workers": 0}, {"node"},
    ):  # fmt: skip
        found = resources(deployment(**{**MOUNTING, **extra}))
        readers = {(one.secret, one.member) for one in found if isinstance(one, SecretGrant) and one.secret in mounted}
        assert readers == {
            (secret, f"serviceAccount:daskpki-lab-{part}@project-one.iam.gserviceaccount.com")
            for secret in mounted
            for part in workers
        }


def test_a_secret_that_nobody_set_is_missed_before_anything_changes() -> None:
    cloud = SimulatedCloud("lab", ["daskpki_lab_secret_token"])
    with pytest.raises(NotFoundError, match=r"has no secret 'db-password' to mount") as missing:
        apply(cloud, deployment(**MOUNTING))
    assert cloud.commands == []
    assert str(missing.value.hint).endswith("--cluster=lab secret set db-password --file FILE")
    cloud.secrets.add("daskpki_lab_secret_db-password")
    assert apply(cloud, deployment(**MOUNTING))
    assert apply(cloud, deployment(**MOUNTING)) == ()


def test_a_secret_that_is_no_longer_mounted_is_no_longer_read() -> None:
    cloud = SimulatedCloud("lab", ["daskpki_lab_secret_token", "daskpki_lab_secret_db-password"])
    apply(cloud, deployment(**MOUNTING))
    cloud.policies["daskpki_lab_secret_token"].add(("roles/secretmanager.secretAccessor", "user:bob@example.com"))
    steps = apply(cloud, deployment(workers=2, secrets=("db-password=fd",)))
    gone = [step.title for step in steps if step.action == "delete" and step.kind == "grant"]
    assert gone == [
        "grant: daskpki-lab-worker@project-one.iam.gserviceaccount.com reads secret daskpki_lab_secret_token"
    ]
    assert {member for _role, member in cloud.policies["daskpki_lab_secret_token"]} == {"user:bob@example.com"}


def test_every_account_reaches_every_worker_within_the_limit_of_a_rule() -> None:
    rules = [one for one in resources(deployment(**{**ISOLATED, "workers": 50})) if isinstance(one, Firewall)]
    assert all(len(rule.targets) <= 10 and len(rule.source_accounts) <= 10 for rule in rules)
    workers = [f"daskpki-lab-worker-{n}@project-one.iam.gserviceaccount.com" for n in range(50)]
    scheduler = "daskpki-lab-scheduler@project-one.iam.gserviceaccount.com"
    inside = {
        (source, target)
        for rule in rules
        if rule.rules == "tcp:9000-9999,tcp:10000-10999"
        for source in rule.source_accounts
        for target in rule.targets
    }
    assert inside == {(source, target) for source in (scheduler, *workers) for target in workers}
    denied = {target for rule in rules if rule.action == "DENY" for target in rule.targets}
    assert denied == {scheduler, *workers}


def test_the_network_lets_in_the_named_ranges_and_never_the_dashboard(wanted: Deployment) -> None:
    rules = [one for one in resources(wanted) if isinstance(one, Firewall)]
    by_range = [rule for rule in rules if rule.source_ranges and rule.action == "ALLOW"]
    assert [(rule.rules, rule.source_ranges) for rule in by_range] == [("tcp:8786", wanted.clients_from)]
    assert not any("8787" in rule.rules for rule in rules)
    deny = [rule for rule in rules if rule.action == "DENY"]
    # The default network lets everything in from inside, at priority 65534; ours decide before any rule of 1000.
    assert max(rule.priority for rule in rules if rule.action == "ALLOW") < deny[0].priority < 1000
    assert deny[0].source_ranges == ("0.0.0.0/0",)


def test_without_a_range_no_client_is_let_in() -> None:
    rules = [one for one in resources(deployment()) if isinstance(one, Firewall)]
    assert [rule.action for rule in rules] == ["DENY"]


def test_new_grants_wait_for_accounts_to_be_known(wanted: Deployment) -> None:
    cloud, waited = SimulatedCloud("lab"), list[float]()

    def slow(command: Command, files: object) -> str:
        if "add-iam-policy-binding" in command and len(waited) < 3:
            raise NotSettledError("the account does not exist")
        return cloud(command, {} if files is None else files)  # type: ignore[arg-type] # passed through

    steps = plan_deployment(cloud, wanted)
    carry_out(steps, slow, progress=lambda _number, _step: None, sleep=waited.append)
    assert waited == list(WAITS[:3])
    assert apply(cloud, wanted) == ()


def test_a_failure_names_the_step_and_the_same_command_goes_on(wanted: Deployment) -> None:
    cloud = SimulatedCloud("lab")
    refuse: Callable[[Command], bool] = lambda command: "firewall-rules" in command  # noqa: E731

    def run(command: Command, files: object) -> str:
        if refuse(command):
            raise AccessDeniedError("`gcloud compute firewall-rules ...` failed: no")
        return cloud(command, files)  # type: ignore[arg-type] # passed through

    steps = plan_deployment(cloud, wanted)
    with pytest.raises(AccessDeniedError, match=r"step 16 of 22 \(create firewall rule daskpki-lab-clients"):
        carry_out(steps, run, progress=lambda _number, _step: None, sleep=lambda _seconds: None)
    rest = apply(cloud, wanted)
    assert len(rest) == 22 - 15
    assert apply(cloud, wanted) == ()


def test_what_is_missing_of_the_ca_is_issued_by_daskpki(wanted: Deployment) -> None:
    cloud = SimulatedCloud("lab", ["daskpki_lab_trust", "daskpki_lab_scheduler_scheduler"])
    made = [command for step in plan_deployment(cloud, wanted) for command in step.commands if command[0] == "daskpki"]
    assert made == [("daskpki", "--store=gsm://project-one", "--cluster=lab", "issue", "worker")]


def test_the_document_is_complete() -> None:
    steps = plan_from(deployment(**NODE))
    document = plan_document(steps)
    assert [entry["what"] for entry in document] == [step.title for step in steps]
    assert all(entry["commands"] for entry in document)
    assert summary(steps) == f"{len(steps)} to make, 0 to change, 0 to remove"


deployments = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 30),
        "isolate_workers": st.booleans(),
        "private": st.booleans(),
        "logging": st.booleans(),
        "clients_from": st.sampled_from([(), ("10.0.0.0/8",), ("192.0.2.0/24", "198.51.100.0/24")]),
        "machine_type": st.sampled_from(["e2-standard-4", "n2-highmem-8"]),
    }
)


@settings(deadline=None)
@given(before=deployments, after=deployments)
def test_from_any_deployment_one_apply_leads_to_any_other(before: dict[str, object], after: dict[str, object]) -> None:
    changed, fresh = SimulatedCloud("lab"), SimulatedCloud("lab")
    apply(changed, deployment(**before))
    apply(changed, deployment(**after))
    assert apply(changed, deployment(**after)) == ()
    apply(fresh, deployment(**after))
    assert {kind: items.keys() for kind, items in changed.items.items()} == {
        kind: items.keys() for kind, items in fresh.items.items()
    }
    members = {member for bindings in changed.policies.values() for _role, member in bindings}
    assert {member.partition(":")[2] for member in members} <= changed.items["accounts"].keys()
