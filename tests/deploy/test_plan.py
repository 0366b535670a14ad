"""The pure plan: applying twice, changing, shrinking, destroying, and what is never touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.deploy.apply import WAITS, carry_out, plan_deployment, plan_destruction, plan_from
from daskpki.deploy.blueprint import ACCESSOR
from daskpki.deploy.gcloud import NotSettledError
from daskpki.deploy.iam import Command, Kind, Resource
from daskpki.deploy.plan import Action, Step, plan_document, plan_lines, reach, resources, summary
from daskpki.deploy.settings import Deployment, Site
from daskpki.errors import AccessDeniedError, NotFoundError, NotOursError
from tests.support.deployments import CLUSTER, ISOLATED, MOUNTING, NODE, SHARED, deployment
from tests.support.nightly import by_day
from tests.support.simulated_gcloud import SUBNET, SimulatedCloud, simulated


def site_of(wanted: Deployment) -> Site:
    """All that is known where the deployment's other settings are not given."""
    return Site(wanted.store, wanted.cluster, wanted.network)


def of_kind(steps: Sequence[Step], kind: Kind) -> list[Step]:
    return [step for step in steps if step.resource.kind is kind]


def apply(cloud: SimulatedCloud, wanted: Deployment) -> Sequence[Step]:
    steps = plan_deployment(cloud, wanted)
    carry_out(steps, cloud, progress=lambda _number, _step: None, sleep=lambda _seconds: None)
    return steps


@pytest.mark.parametrize("settings", [NODE, CLUSTER, ISOLATED])
def test_applying_twice_changes_nothing_and_destroying_leaves_nothing(settings: dict[str, object]) -> None:
    cloud, wanted = simulated(), deployment(**settings)
    assert apply(cloud, wanted)
    done = len(cloud.commands)
    assert apply(cloud, wanted) == ()
    assert len(cloud.commands) == done
    steps = plan_destruction(cloud, site_of(wanted))
    carry_out(steps, cloud, progress=lambda _number, _step: None, sleep=lambda _seconds: None)
    assert not any(cloud.items.values())
    assert not any(cloud.policies.values())
    assert cloud.services  # others may use them


def test_only_what_differs_is_changed(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    changed = replace(wanted, clients_from=("10.9.0.0/16",), workers=5, memory_per_worker="2")
    steps = [step for step in apply(cloud, changed) if step.action in (Action.UPDATE, Action.ROLL)]
    assert [step.resource.kind for step in steps] == ["firewall rule", "instance group"]
    assert steps[0].changes == {"source ranges": ("10.1.0.0/16,203.0.113.0/24", "10.9.0.0/16")}
    assert [command[1:5] for command in steps[1].commands] == [
        ("compute", "instance-groups", "managed", "resize"),  # before 15 VMs are replaced that would then go
        ("compute", "instance-groups", "managed", "rolling-action"),
        ("compute", "instance-groups", "managed", "wait-until"),
    ]
    assert apply(cloud, changed) == ()
    assert len(cloud.items["templates"]) == 1


def test_an_update_says_how_it_is_undone(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    (step,) = plan_deployment(cloud, replace(wanted, clients_from=("10.9.0.0/16",)))
    (undo,) = step.undo
    assert "--source-ranges=203.0.113.0/24,10.1.0.0/16" in undo


def test_what_is_no_longer_wanted_goes(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, deployment(**ISOLATED))
    steps = apply(cloud, deployment(**{**ISOLATED, "workers": 9}))
    vms = of_kind(steps, Kind.VM)
    gone = [step.resource.title.split()[1] for step in vms if step.action is Action.DELETE]
    assert gone == ["daskpki-lab-worker-10", "daskpki-lab-worker-11", "daskpki-lab-worker-9"]
    assert len(cloud.items["accounts"]) == 10
    apply(cloud, wanted)
    assert apply(cloud, wanted) == ()


@pytest.fixture
def wanted() -> Deployment:
    return deployment(**CLUSTER)


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("rules", {"name": "daskpki-lab-clients", "network": "projects/p/n", "priority": "1", "allowed": []}),
        ("accounts", {"email": "daskpki-lab-worker@project-one.iam.gserviceaccount.com"}),
        ("machines", {"name": "daskpki-lab-scheduler", "zone": "zones/europe-west1-b"}),
        ("groups", {"name": "daskpki-lab-worker", "zone": "zones/europe-west1-b", "instanceTemplate": "t"}),
    ],
)
def test_what_bears_our_name_but_not_our_mark_is_not_touched(
    wanted: Deployment, kind: str, item: dict[str, str]
) -> None:
    cloud = simulated()
    cloud.items[kind]["foreign"] = {"description": "managed-by=daskpki daskpki-cluster=other", **item}
    with pytest.raises(NotOursError, match="is not daskpki's"):
        apply(cloud, wanted)
    assert cloud.commands == []
    assert plan_destruction(cloud, site_of(wanted)) == ()


def granted(found: Sequence[Resource], role: str = ACCESSOR) -> dict[str, set[str]]:
    """By account, where it has the role."""
    places: dict[str, set[str]] = {}
    for one in found:
        if one.grant and one.grant.role == role:
            places.setdefault(one.grant.account.partition("@")[0], set()).add(one.grant.where)
    return places


def test_each_account_reads_its_own_secrets_and_no_more() -> None:
    found = resources(deployment(**ISOLATED))
    shared = {"daskpki_lab_trust"}
    assert granted(found) == {
        "daskpki-lab-scheduler": {*shared, "daskpki_lab_scheduler_scheduler"},
        **{f"daskpki-lab-worker-{n}": {*shared, f"daskpki_lab_worker_worker-{n}"} for n in range(12)},
    }
    accounts = {one.name.partition("@")[0] for one in found if one.kind is Kind.ACCOUNT}
    assert accounts == granted(found).keys()


def test_workers_read_the_secrets_that_they_mount_and_the_scheduler_does_not() -> None:
    mounted = {"daskpki_lab_secret_db-password", "daskpki_lab_secret_token"}
    for extra, workers in ({}, {"worker"}), ({"isolate_workers": True}, {"worker-0", "worker-1"}), (
        {"workers": 0}, {"node"},
    ):  # fmt: skip
        found = granted(resources(deployment(**{**MOUNTING, **extra})))
        assert {name for name, secrets in found.items() if mounted <= secrets} == {f"daskpki-lab-{w}" for w in workers}
        assert {name for name, secrets in found.items() if mounted & secrets} == {f"daskpki-lab-{w}" for w in workers}


def test_a_secret_that_nobody_set_is_missed_before_anything_changes() -> None:
    cloud = simulated(["daskpki_lab_secret_token"])
    with pytest.raises(NotFoundError, match=r"has no secret 'db-password' to mount") as missing:
        apply(cloud, deployment(**MOUNTING))
    assert cloud.commands == []
    assert str(missing.value.hint).endswith("--cluster=lab secret set db-password --file FILE")
    cloud.secrets.add("daskpki_lab_secret_db-password")
    assert apply(cloud, deployment(**MOUNTING))
    assert apply(cloud, deployment(**MOUNTING)) == ()


def test_a_secret_without_the_label_of_its_kind_keeps_its_grants() -> None:
    cloud = simulated(["daskpki_lab_secret_db-password", "daskpki_lab_secret_token"])
    apply(cloud, deployment(**MOUNTING))
    cloud.kindless |= {"daskpki_lab_worker_worker", "daskpki_lab_secret_token"}
    assert apply(cloud, deployment(**MOUNTING)) == ()


def test_a_secret_that_is_no_longer_mounted_is_no_longer_read() -> None:
    cloud = simulated(["daskpki_lab_secret_token", "daskpki_lab_secret_db-password"])
    apply(cloud, deployment(**MOUNTING))
    cloud.policies["daskpki_lab_secret_token"].add(("roles/secretmanager.secretAccessor", "user:bob@example.com"))
    steps = apply(cloud, deployment(workers=2, secrets=("db-password=fd",)))
    gone = [step.resource.title for step in of_kind(steps, Kind.GRANT) if step.action is Action.DELETE]
    assert gone == ["reads secret daskpki_lab_secret_token"]
    assert {member for _role, member in cloud.policies["daskpki_lab_secret_token"]} == {"user:bob@example.com"}


def rules_of(wanted: Deployment) -> list[dict[str, str]]:
    return [dict(one.facts) for one in resources(wanted) if one.kind is Kind.FIREWALL]


def test_every_account_reaches_every_worker_within_the_limit_of_a_rule() -> None:
    rules = rules_of(deployment(**{**ISOLATED, "workers": 50}))
    assert all(rule["targets"].count("@") <= 10 and rule["source accounts"].count("@") <= 10 for rule in rules)
    workers = [f"daskpki-lab-worker-{n}@project-one.iam.gserviceaccount.com" for n in range(50)]
    scheduler = "daskpki-lab-scheduler@project-one.iam.gserviceaccount.com"
    inside = {
        (source, target)
        for rule in rules
        if rule["ports"] == "tcp:9000-9999,tcp:10000-10999"
        for source in rule["source accounts"].split(",")
        for target in rule["targets"].split(",")
    }
    assert inside == {(source, target) for source in (scheduler, *workers) for target in workers}
    denied = {target for rule in rules if rule["action"] == "DENY" for target in rule["targets"].split(",")}
    assert denied == {scheduler, *workers}


def test_the_network_lets_in_the_named_ranges_and_never_the_dashboard(wanted: Deployment) -> None:
    rules = rules_of(wanted)
    by_range = [rule for rule in rules if rule["source ranges"] and rule["action"] == "ALLOW"]
    assert [(rule["ports"], rule["source ranges"]) for rule in by_range] == [
        ("tcp:8786", ",".join(sorted(wanted.clients_from)))
    ]
    assert not any("8787" in rule["ports"] for rule in rules)
    deny = [rule for rule in rules if rule["action"] == "DENY"]
    # The default network lets everything in from inside, at priority 65534; ours decide before any rule of 1000.
    highest = max(int(rule["priority"]) for rule in rules if rule["action"] == "ALLOW")
    assert highest < int(deny[0]["priority"]) < 1000
    assert deny[0]["source ranges"] == "0.0.0.0/0"


def test_identity_aware_proxy_is_let_in_where_asked(wanted: Deployment) -> None:
    plain, opened = ({rule["ports"] for rule in rules_of(one) if "35.235" in rule["source ranges"]} for one in (
        wanted, replace(wanted, iap=True),
    ))  # fmt: skip
    assert plain == set()
    assert opened == {"tcp:22,tcp:8786", "tcp:22"}


def test_without_a_range_no_client_is_let_in() -> None:
    assert [rule["action"] for rule in rules_of(deployment())] == ["DENY"]


def test_new_grants_wait_for_accounts_to_be_known(wanted: Deployment) -> None:
    cloud, waited = simulated(), list[float]()

    def slow(command: Command, files: object) -> str:
        if "add-iam-policy-binding" in command and len(waited) < 3:
            raise NotSettledError("the account does not exist")
        return cloud(command, {} if files is None else files)  # type: ignore[arg-type] # passed through

    steps = plan_deployment(cloud, wanted)
    carry_out(steps, slow, progress=lambda _number, _step: None, sleep=waited.append)
    assert waited == list(WAITS[:3])
    assert apply(cloud, wanted) == ()


def test_a_failure_names_the_step_and_the_same_command_goes_on(wanted: Deployment) -> None:
    cloud = simulated()
    refuse: Callable[[Command], bool] = lambda command: "firewall-rules" in command  # noqa: E731

    def run(command: Command, files: object) -> str:
        if refuse(command):
            raise AccessDeniedError("`gcloud compute firewall-rules ...` failed: no")
        return cloud(command, files)  # type: ignore[arg-type] # passed through

    steps = plan_deployment(cloud, wanted)
    with pytest.raises(AccessDeniedError, match=r"step 16 of 22 \(created: firewall rule daskpki-lab-clients"):
        carry_out(steps, run, progress=lambda _number, _step: None, sleep=lambda _seconds: None)
    rest = apply(cloud, wanted)
    assert len(rest) == 22 - 15
    assert apply(cloud, wanted) == ()


def test_what_is_missing_of_the_ca_is_issued_by_daskpki(wanted: Deployment) -> None:
    cloud = simulated(["daskpki_lab_trust", "daskpki_lab_scheduler_scheduler"])
    made = [command for step in plan_deployment(cloud, wanted) for command in step.commands if command[0] == "daskpki"]
    assert made == [("daskpki", "--store=gsm://project-one", "--cluster=lab", "issue", "worker")]


def test_the_document_is_complete() -> None:
    steps = plan_from(deployment(**NODE))
    document = plan_document(steps)
    assert [entry["what"] for entry in document] == [step.resource.title for step in steps]
    assert all(entry["commands"] for entry in document)
    assert summary(steps) == f"{len(steps)} to create, 0 to change in place, 0 to replace, 0 to remove"


NEWER = "europe-west1-docker.pkg.dev/project-one/dask/dask:2026.9.0"


def test_a_new_image_is_told_by_name_and_what_ends_with_it(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    lines = list(plan_lines(plan_deployment(cloud, replace(wanted, image=NEWER))))
    told = {line.partition(": ")[0]: line for line in lines if line.startswith("-/+")}
    assert list(told) == ["-/+ replaced (image)", "-/+ replaced one after another (image)"]
    assert all(line.endswith("; running work ends") for line in told.values())
    assert "VM daskpki-lab-scheduler" in told["-/+ replaced (image)"]
    assert "instance group daskpki-lab-worker" in told["-/+ replaced one after another (image)"]
    assert lines.count(f"    image: {wanted.image} -> {NEWER}") == 2
    assert "to replace" in summary(plan_deployment(cloud, replace(wanted, image=NEWER)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scheduler_machine_type": "e2-standard-8"}, "machine type: e2-standard-4 -> e2-standard-8"),
        ({"disk_size": 200}, "boot disk: as large as the OS image (10 GB) -> 200 GB"),
        ({"tags": ("dask",)}, "tags: none -> dask"),
        ({"ca_sha256": "a" * 64}, f"DASKPKI_CA_SHA256: none -> {'a' * 64}"),
    ],
)
def test_each_field_that_differs_is_named(wanted: Deployment, change: dict[str, object], field: str) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    (step,) = of_kind(plan_deployment(cloud, replace(wanted, **change)), Kind.VM)  # type: ignore[arg-type] # fields by name
    assert step.action is Action.REPLACE
    assert f"    {field}" in list(plan_lines([step]))
    assert len(step.changes) == 1


def test_a_setting_that_is_taken_back_replaces_workers_one_after_another(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, replace(wanted, num_workers=2))
    (step,) = of_kind(plan_deployment(cloud, wanted), Kind.GROUP)
    assert (step.action, step.changes) == (Action.ROLL, {"NUM_WORKERS": ("2", "")})


def test_labels_are_changed_in_place(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    labelled = replace(wanted, labels=("team=physics",))
    steps = of_kind(apply(cloud, labelled), Kind.VM)
    assert [step.action for step in steps] == [Action.UPDATE]
    assert "ends" not in steps[0].line  # nothing that runs there does
    assert cloud.items["machines"]["daskpki-lab-scheduler"]["labels"]["team"] == "physics"
    assert apply(cloud, labelled) == ()
    apply(cloud, wanted)
    assert "team" not in cloud.items["machines"]["daskpki-lab-scheduler"]["labels"]


def test_a_machine_type_that_was_changed_by_hand_is_noticed(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    cloud.items["machines"]["daskpki-lab-scheduler"]["machineType"] = "zones/z/machineTypes/e2-micro"
    (step,) = plan_deployment(cloud, wanted)
    assert step.changes == {"machine type": ("e2-micro", "e2-standard-4")}


def test_a_group_that_grows_with_a_new_image_makes_no_vm_of_the_former_one(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    (step,) = of_kind(plan_deployment(cloud, replace(wanted, image=NEWER, workers=30)), Kind.GROUP)
    assert ["start-update" in " ".join(c) for c in step.commands] == [True, False, False]
    assert "resize" in step.commands[-1]
    (shrink,) = of_kind(plan_deployment(cloud, replace(wanted, workers=3)), Kind.GROUP)
    assert (shrink.action, shrink.changes) == (Action.UPDATE, {"size": ("20", "3")})


def test_the_plan_groups_grants_and_says_who_reaches_what(wanted: Deployment) -> None:
    lines = list(plan_lines(plan_from(wanted)))
    assert "+ created: 5 grants to daskpki-lab-worker@project-one.iam.gserviceaccount.com" in lines
    assert sum("grants to" in line for line in lines) == 2
    (vm,) = (line for line in lines if line.startswith("+ created: VM"))
    assert "boot disk as large as the OS image (10 GB), external address static daskpki-lab-scheduler" in vm
    told = "\n".join(reach(wanted))
    assert "(scheduler) is open to 203.0.113.0/24, 10.1.0.0/16 and the workers' VMs\n" in told
    assert "VMs with an external address: 21 (--private gives none)" in told
    assert "(scheduler) is open to no client (--clients-from opens it)" in "\n".join(reach(deployment()))


def test_a_regional_group_surges_by_none_or_by_as_many_as_there_are_zones() -> None:
    wanted = deployment(**CLUSTER, regional=True)
    cloud = simulated()
    apply(cloud, wanted)
    assert "--region=europe-west1" in next(c for c in cloud.commands if "daskpki-lab-worker" in c and "managed" in c)
    (step,) = of_kind(plan_deployment(cloud, replace(wanted, image=NEWER)), Kind.GROUP)
    assert {"--max-surge=3", "--max-unavailable=0"} <= set(step.commands[0])
    (still,) = of_kind(plan_deployment(cloud, replace(wanted, image=NEWER, surge=0)), Kind.GROUP)
    assert {"--max-surge=0", "--max-unavailable=3"} <= set(still.commands[0])


def test_a_group_that_moves_to_a_region_is_made_there_and_removed_here(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    steps = plan_deployment(cloud, replace(wanted, regional=True))
    assert [(step.action, step.resource.title.split()[4].rstrip(":")) for step in of_kind(steps, Kind.GROUP)] == [
        (Action.CREATE, "europe-west1"), (Action.DELETE, "europe-west1-b"),
    ]  # fmt: skip


def test_a_shared_network_has_its_rules_in_the_host_project_and_named_accounts_get_secrets_alone() -> None:
    wanted = deployment(**SHARED)
    found = resources(wanted)
    rules = [one for one in found if one.kind is Kind.FIREWALL]
    assert all("--project=net-host" in one.create[0] for one in rules)
    # Another project's cluster of this name may share the network, and its rules are not ours.
    assert all(one.name.startswith("daskpki-project-one-lab-") for one in rules)
    assert all("project=project-one" in " ".join(one.create[0]) for one in rules)
    assert not [one for one in found if one.kind is Kind.ACCOUNT]
    assert {one.grant.role for one in found if one.grant} == {ACCESSOR}
    cloud = simulated()
    for account in ("dask-s", "dask-w"):
        cloud.items["accounts"][f"{account}@project-one.iam.gserviceaccount.com"] = {
            "email": f"{account}@project-one.iam.gserviceaccount.com"
        }
    apply(cloud, wanted)
    assert apply(cloud, wanted) == ()
    destroy(cloud, site_of(wanted))
    assert not any(cloud.policies.values())
    assert [kind for kind, items in cloud.items.items() if items] == ["accounts"]  # they were there before


def destroy(cloud: SimulatedCloud, site: Site) -> None:
    steps = plan_destruction(cloud, site)
    carry_out(steps, cloud, progress=lambda _number, _step: None, sleep=lambda _seconds: None)


def test_a_teardown_that_was_interrupted_anywhere_leaves_nothing_when_it_is_run_again(wanted: Deployment) -> None:
    cloud = simulated()
    apply(cloud, wanted)
    total = len(plan_destruction(cloud, site_of(wanted)))
    for stop in range(total):
        cloud = simulated()
        apply(cloud, wanted)
        first = plan_destruction(cloud, site_of(wanted))[:stop]
        carry_out(first, cloud, progress=lambda _number, _step: None, sleep=lambda _seconds: None)
        destroy(cloud, site_of(wanted))
        assert not any(cloud.items.values()), stop
        assert not any(cloud.policies.values()), stop


@pytest.mark.parametrize(
    ("subnets", "routers", "image", "reason"),
    [
        ([], [], None, "has no subnet in europe-west1"),
        ([{**SUBNET, "privateIpGoogleAccess": False}], [], None, "neither Private Google Access nor Cloud NAT"),
        ([SUBNET], [], "docker.io/example/dask:1.0", "not in a registry of Google's"),
    ],
)
def test_vms_without_an_address_need_a_way_to_secret_manager(
    subnets: list[dict[str, object]], routers: list[dict[str, object]], image: str | None, reason: str
) -> None:
    """Else a boot waits for its credential until its deadline, again and again."""
    cloud, wanted = simulated(), deployment(private=True)
    wanted = replace(wanted, image=image or wanted.image)
    cloud.subnets, cloud.routers = subnets, routers
    with pytest.raises(NotFoundError, match=reason) as refusal:
        apply(cloud, wanted)
    assert refusal.value.hint
    assert cloud.commands == []
    cloud.subnets, cloud.routers = (
        [{**SUBNET, "privateIpGoogleAccess": False}],
        [{"network": "projects/p/global/networks/default", "nats": [{"name": "nat"}]}],
    )
    assert apply(cloud, wanted)


def test_one_list_a_type_is_asked_and_policies_only_once_there_are_accounts(wanted: Deployment) -> None:
    asked: list[Command] = []
    cloud = simulated()

    def run(command: Command, files: Mapping[str, str]) -> str:
        asked.append(command)
        return cloud(command, files)

    told: list[str] = []
    plan_deployment(run, wanted, told.append)
    assert len(asked) == len(told) == 9
    assert all(any(word.startswith("--filter=") for word in one) for one in asked if one[1] == "compute")
    apply(cloud, wanted)
    asked.clear()
    plan_deployment(run, wanted, told.append)
    assert len(asked) == 9 + 3 + 1  # three secrets, one repository


deployments = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 30),
        "isolate_workers": st.booleans(),
        "private": st.booleans(),
        "no_logging": st.booleans(),
        "clients_from": st.sampled_from([(), ("10.0.0.0/8",), ("192.0.2.0/24", "198.51.100.0/24")]),
        "machine_type": st.sampled_from(["e2-standard-4", "n2-highmem-8"]),
        "disk_size": st.sampled_from([None, 50]),
        "labels": st.sampled_from([(), ("team=a",)]),
        "iap": st.booleans(),
    }
)


@settings(deadline=None, max_examples=by_day(40, night=100))
@given(before=deployments, after=deployments)
def test_from_any_deployment_one_apply_leads_to_any_other(before: dict[str, object], after: dict[str, object]) -> None:
    changed, fresh = simulated(), simulated()
    apply(changed, deployment(**before))
    apply(changed, deployment(**after))
    assert apply(changed, deployment(**after)) == ()
    apply(fresh, deployment(**after))
    assert {kind: items.keys() for kind, items in changed.items.items()} == {
        kind: items.keys() for kind, items in fresh.items.items()
    }
    members = {member for bindings in changed.policies.values() for _role, member in bindings}
    assert {member.partition(":")[2] for member in members} <= changed.items["accounts"].keys()
