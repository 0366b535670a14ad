"""What a plan is exported as: judged by shellcheck and `cloud-init schema`; Terraform is in `test_terraform.py`."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.deploy.apply import plan_from
from daskpki.deploy.export import script, user_data
from daskpki.deploy.settings import Deployment, check_deployment
from daskpki.errors import UsageError
from daskpki.settings import parse_store_url, require_gsm
from tests.support.deployments import CLUSTER, ISOLATED, MOUNTING, NODE, SHARED, deployment

ALL = [NODE, CLUSTER, ISOLATED, MOUNTING, SHARED]


def judged(*command: str | Path, data: str | None = None) -> str:
    done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("settings", ALL)
def test_shellcheck_has_nothing_to_say_of_the_script(settings: dict[str, object]) -> None:
    assert judged("shellcheck", "--severity=style", "-", data=script(deployment(**settings))) == ""


@pytest.mark.parametrize("settings", ALL)
def test_the_script_runs_the_very_commands_of_the_plan(settings: dict[str, object], tmp_path: Path) -> None:
    check_by_bash(deployment(**settings), tmp_path)


hostile = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30) | st.sampled_from(
    ["it's", "$(touch x)", "`id`", "${HOME}", "a\nEND_OF_FILE_OF_DASKPKI\nb", "\\", "; false", "# x", "*", " "]
)


@settings(deadline=None, max_examples=10)
@given(path=hostile)
def test_bash_reads_a_hostile_path_as_it_was_given(path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of all settings the only one without a form of its own."""
    check_by_bash(deployment(ca_passphrase_file=f"/keys/{path}"), tmp_path_factory.mktemp("script"))


def check_by_bash(wanted: Deployment, tmp_path: Path) -> None:
    """Run by bash, with programs in the place of gcloud and daskpki that write down how they were called."""
    journal = tmp_path / "journal"
    for name in ("gcloud", "daskpki"):
        recorder = tmp_path / name
        recorder.write_text(f'#!/bin/sh\nprintf "%s\\0" {name} "$@" >>{journal}; printf "\\0\\0" >>{journal}\n')
        recorder.chmod(0o700)
    file = tmp_path / "deploy.sh"
    file.write_text(script(wanted))
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    subprocess.run(["bash", file], env=environ, check=True)
    ran = [tuple(one.split("\0")) for one in journal.read_text().split("\0\0\0")[:-1]]
    steps = plan_from(wanted)
    assert ran == [command for step in steps for command in step.commands]
    written = {path.name: path.read_text() for path in tmp_path.glob("tmp.*/*") if path.suffix in (".yaml", ".json")}
    assert written == {name: content for step in steps for name, content in step.files.items()}


@pytest.mark.parametrize(("part", "settings"), [("scheduler", CLUSTER), ("worker", MOUNTING)])
def test_cloud_init_takes_the_user_data(part: str, settings: dict[str, object], tmp_path: Path) -> None:
    config = tmp_path / "user-data"
    config.write_text(user_data(deployment(**settings), part))
    assert "Valid" in judged("cloud-init", "schema", "--config-file", config)
    broken = tmp_path / "broken"
    broken.write_text("#cloud-config\nwrite_files: 3\n")
    with pytest.raises(AssertionError, match="is not of type 'array'"):
        judged("cloud-init", "schema", "--config-file", broken)


def test_user_data_of_an_unknown_part_is_refused() -> None:
    with pytest.raises(UsageError, match="no part 'scheduler'") as refusal:
        user_data(deployment(**NODE), "scheduler")
    assert refusal.value.hint == "it has node"


@settings(deadline=None)
@given(
    store=st.sampled_from(["gsm://project-one", "gsm://project-one/europe-west1", "gsm://example.com:project-one"]),
    cluster=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    image=st.sampled_from(["docker.io/a/b:1", "gcr.io/p/i@sha256:" + "a" * 64, "x-docker.pkg.dev/p/r/i:2"]),
    workers=st.integers(0, 3),
)
def test_the_unit_starts_one_unprivileged_container(store: str, cluster: str, image: str, workers: int) -> None:
    wanted = replace(
        deployment(workers=workers), store=require_gsm(parse_store_url(store)), cluster=cluster, image=image
    )
    part = "worker" if workers else "node"
    document = yaml.safe_load(user_data(check_deployment(wanted), part))
    (file,) = document["write_files"]
    words = shlex.split(next(line for line in joined(file["content"]) if line.startswith("ExecStart="))[10:])
    assert words[:2] == ["/usr/bin/docker", "run"]
    at = words.index(image)
    assert {"--user=65532:65532", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(
        words[:at]
    )
    assert words[at + 1] == part
    assert f"--env=DASKPKI_CLUSTER={cluster}" in words[:at]
    assert f"--env=DASKPKI_STORE={store}" in words[:at]


def joined(unit: str) -> list[str]:
    """A unit's lines, continued ones joined."""
    return unit.replace("\\\n", " ").splitlines()
