"""The Terraform configuration: judged by the provider's schema, and its expressions by Terraform where it is at hand.

`provider_schema.json` is taken from the package that is generated from the provider's schema (`provider_schema.py`).
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.deploy.blueprint import container, internal_address, parts
from daskpki.deploy.cloud_init import render_user_data
from daskpki.deploy.iam import Kind
from daskpki.deploy.plan import resources
from daskpki.deploy.settings import WIDEST, Deployment, check_deployment
from daskpki.deploy.terraform import escaped, terraform_files
from daskpki.errors import UsageError
from daskpki.grants import OPERATOR_PERMISSIONS
from tests.support.deployments import CLUSTER, ISOLATED, MOUNTING, NODE, SHARED, deployment
from tests.support.provider_schema import FILE, TYPES, judge

REGIONAL = {
    "workers": 3, "regional": True, "spot": True, "disk_size": 50, "disk_type": "pd-ssd", "labels": ("team=a",),
    "iap": True, "tags": ("dask",), "clients_from": ("10.0.0.0/8",),
}  # fmt: skip
ALL: list[Mapping[str, object]] = [NODE, CLUSTER, ISOLATED, MOUNTING, SHARED, REGIONAL]
SCHEMAS = json.loads(FILE.read_text())
TERRAFORM = shutil.which("terraform")


def configuration(wanted: Deployment) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    files = terraform_files(wanted)
    main, variables, outputs = (json.loads(files[f"{name}.tf.json"]) for name in ("main", "variables", "outputs"))
    return main, variables["variable"], outputs["output"]


def blocks(main: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for kind, named in main["resource"].items():
        for label, body in named.items():
            yield kind, label, body


@pytest.mark.parametrize("chosen", ALL)
def test_the_provider_takes_every_resource(chosen: Mapping[str, object]) -> None:
    main, _, _ = configuration(deployment(**chosen))
    assert [one for kind, label, body in blocks(main) for one in judge(f"{kind}.{label}", body, SCHEMAS[kind])] == []


def test_every_type_of_the_schema_is_used_and_a_regional_store_has_its_own() -> None:
    wanted = [deployment(**one) for one in ALL]
    wanted.append(replace(wanted[0], store=wanted[0].store._replace(location="europe-west1")))
    used = {
        kind
        for one in wanted
        for kind, label, body in blocks(configuration(one)[0])
        if not judge("", body, SCHEMAS[kind])
    }
    assert used == set(TYPES)


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("google_compute_address", {"name": None}, "name is missing"),
        ("google_compute_address", {"nmae": "x"}, "nmae is unknown"),
        ("google_compute_firewall", {"priority": "high"}, "priority is no number"),
        ("google_compute_firewall", {"allow": [{"ports": ["1"]}]}, "allow: protocol is missing"),
        ("google_compute_instance", {"boot_disk": [{"size": 5}]}, "boot_disk: size is unknown"),
    ],
)
def test_the_judge_finds_what_the_provider_would_refuse(kind: str, change: dict[str, Any], told: str) -> None:
    main, _, _ = configuration(deployment(**NODE))
    (body,) = [body for found, label, body in blocks(main) if found == kind][:1]
    changed = {name: value for name, value in {**body, **change}.items() if value is not None}
    assert any(told in one for one in judge("x", changed, SCHEMAS[kind]))


@pytest.mark.parametrize("chosen", ALL)
def test_the_grants_are_those_of_the_plan(chosen: Mapping[str, object]) -> None:
    wanted = deployment(**chosen)
    main, _, _ = configuration(wanted)
    members = {f"${{google_service_account.{label}.member}}": body["account_id"] for kind, label, body in blocks(main)
               if kind == "google_service_account"}  # fmt: skip
    found = sorted(
        (
            body["role"],
            body.get("secret_id") or body.get("repository") or "the project",
            members.get(body["member"], body["member"]),
        )
        for kind, _, body in blocks(main)
        if kind.endswith("_iam_member")
    )
    planned = sorted(
        (
            one.grant.role,
            "the project" if one.grant.where == wanted.project else one.grant.where.rpartition("/")[2],
            _short(one.grant.account) if members else one.grant.member,
        )
        for one in resources(wanted)
        if one.grant
    )
    assert found == planned


def _short(account: str) -> str:
    return account.partition("@")[0].replace("daskpki-lab-", "${var.name}-")


@pytest.mark.parametrize("chosen", ALL)
def test_names_are_short_and_every_reference_leads_somewhere(chosen: Mapping[str, object]) -> None:
    wanted = deployment(**chosen)
    main, variables, outputs = configuration(wanted)
    known = {f"{kind}.{label}" for kind, label, _ in blocks(main)} | {f"var.{name}" for name in variables}
    known |= {f"local.{name}" for name in main["locals"]}
    assert len({(kind, label) for kind, label, _ in blocks(main)}) == len(resources(wanted)) + 1  # the operator's role
    assert max(len(label) for _, label, _ in blocks(main)) <= 40
    text = json.dumps([main["resource"], main["locals"], outputs])
    named = set(re.findall(r"\b(?:var|local|google_[a-z_]+)\.[a-z0-9_]+", text))
    assert named <= known
    assert {f"var.{name}" for name in variables} <= named | {"var.region"}
    assert {"image", "project", "zone", "name", "machine_type"} <= variables.keys()
    assert outputs.keys() >= {"scheduler_internal", "service_accounts", "operator_role"}
    assert ("scheduler" in outputs) == (not wanted.private)


def test_terraform_owns_what_it_makes_and_deploy_leaves_it_alone() -> None:
    text = "".join(terraform_files(deployment(**CLUSTER)).values())
    assert "managed-by=daskpki" not in text
    assert '"managed-by": "daskpki"' not in text
    assert "PRIVATE KEY" not in text


def test_the_operators_role_reads_no_payload() -> None:
    main, _, _ = configuration(deployment(**NODE))
    role = main["resource"]["google_project_iam_custom_role"]["operator"]
    assert role["permissions"] == list(OPERATOR_PERMISSIONS)
    assert "secretmanager.versions.access" not in role["permissions"]


def evaluated(directory: Path, expression: str, **variables: str) -> Any:
    """What Terraform makes of an expression."""
    options = [f"-var={name}={value}" for name, value in variables.items()]
    done = terraform(directory, "console", *options, data=f"base64encode(jsonencode({expression}))\n")
    assert done.returncode == 0, done.stderr
    return json.loads(base64.b64decode(done.stdout.splitlines()[-1]))


def terraform(directory: Path, *words: str, data: str = "") -> subprocess.CompletedProcess[str]:
    assert TERRAFORM is not None
    (directory / "terraform.rc").touch()
    own = {"TF_CLI_CONFIG_FILE": str(directory / "terraform.rc"), "CHECKPOINT_DISABLE": "1"}
    environ = {**os.environ, **own}
    command = [TERRAFORM, *words]
    return subprocess.run(command, cwd=directory, env=environ, input=data, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("chosen", [NODE, CLUSTER, MOUNTING])
def test_the_templates_give_the_user_data_of_the_plan(chosen: Mapping[str, object], tmp_path: Path) -> None:
    wanted = deployment(**chosen)
    files = terraform_files(wanted)
    for part in parts(wanted):
        template = files[f"cloud-init-{part.name}.yaml.tftpl"]
        values = {
            "image": wanted.image, "registry": wanted.image.partition("/")[0], "project": wanted.project,
            "scheduler": internal_address(wanted),
        }  # fmt: skip
        filled = re.sub(r"(?<!\$)\$\{(\w+)\}", lambda found: values[found[1]], template)  # noqa: B023 - used at once
        assert filled.replace("$${", "${").replace("%%{", "%{") == render_user_data(container(wanted, part))
        assert "${image}" in template
    if TERRAFORM:
        main = json.loads(files["main.tf.json"])
        (tmp_path / "locals.tf.json").write_text(json.dumps({"locals": main["locals"]}))
        for name in files:
            if not name.startswith(("main", "outputs")):
                (tmp_path / name).write_text(files[name])
        for part in parts(wanted):
            assert evaluated(tmp_path, f"local.user_data_{part.name}") == render_user_data(container(wanted, part))
        other = evaluated(tmp_path, f"local.user_data_{parts(wanted)[-1].name}", image="gcr.io/p/i:7", name="other")
        assert "gcr.io/p/i:7" in other
        assert ("tls://other-scheduler." in other) == (not wanted.single)
        for image, refused in ((wanted.image, False), ("a:1\nExecStart=/bin/sh", True)):
            done = terraform(tmp_path, "plan", "-input=false", f"-var=image={image}")
            assert ("REGISTRY/PATH:TAG or" in done.stderr) == bool(done.returncode) == refused


@pytest.mark.parametrize(
    ("ranges", "fits"),
    [
        (["203.0.113.7/32", "10.0.0.0/8"], True),
        ([], False),
        (["10.0.0.0/8", "0.0.0.0/1"], False),
        (["2001:db8::/32"], False),
        (["203.0.113.7/24"], False),
        (["office"], False),
    ],
)
def test_the_module_takes_the_ranges_that_the_command_takes(ranges: list[str], fits: bool, tmp_path: Path) -> None:  # noqa: FBT001
    files = terraform_files(deployment(**NODE))
    (rule,) = json.loads(files["variables.tf.json"])["variable"]["clients_from"]["validation"]
    assert f">= {WIDEST}" in rule["condition"]
    with nullcontext() if fits or not ranges else pytest.raises(UsageError):
        check_deployment(deployment(clients_from=tuple(ranges)))
    if TERRAFORM:
        (tmp_path / "variables.tf.json").write_text(files["variables.tf.json"])
        done = terraform(tmp_path, "plan", "-input=false", f"-var=clients_from={json.dumps(ranges)}")
        assert (rule["error_message"] in " ".join(done.stderr.split())) == bool(done.returncode) == (not fits)


# Terraform normalises text to NFC, so no combining characters.
texts = st.text(st.characters(max_codepoint=0x24F, exclude_categories=["Cc"]), max_size=20) | st.sampled_from(
    ["${x}", "$${x}", "$$${x}", "%{ if true }", "%%{", '"', "\\", "${", "$", "{}", "é\u2028", "$(id)"]
)


@settings(deadline=None, max_examples=5)
@given(values=st.lists(texts, min_size=40, max_size=60))
def test_terraform_expands_nothing_in_a_text(values: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    for value in values:
        live = re.sub(r"\$\$\{|%%\{", "", escaped(value))
        assert "${" not in live
        assert "%{" not in live
    if TERRAFORM:
        directory = tmp_path_factory.mktemp("texts")
        (directory / "main.tf.json").write_text(json.dumps({"locals": {"values": escaped(values)}}))
        assert evaluated(directory, "local.values") == values
        (directory / "texts.tftpl").write_text("\n".join(map(escaped, values)))
        assert evaluated(directory, 'templatefile("./texts.tftpl", {})') == "\n".join(values)


def test_a_template_is_still_cloud_config() -> None:
    template = terraform_files(deployment(**NODE))["cloud-init-node.yaml.tftpl"]
    assert template.startswith("#cloud-config\n")
    assert [one["path"] for one in yaml.safe_load(template)["write_files"]] == ["/etc/systemd/system/daskpki.service"]


def test_every_kind_of_resource_is_exported() -> None:
    kinds = {one.kind for chosen in ALL for one in resources(deployment(**chosen))}
    assert kinds == set(Kind) - {Kind.CREDENTIAL}, "daskpki makes credentials itself"
