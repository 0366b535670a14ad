"""What a deployment starts is what the entrypoint takes: its own parser and plan read the generated command lines."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from daskpki.boot.mounts import Mount
from daskpki.boot.options import parse_arguments
from daskpki.boot.plan import Program, check_arguments, plan_programs
from daskpki.boot.settings import Settings, parse_settings
from daskpki.deploy.cloud_init import NANNY_PORTS, WORKER_PORTS
from daskpki.deploy.export import user_data
from daskpki.identity import Role
from tests.support.deployments import CLUSTER, IMAGE, ISOLATED, MOUNTING, NODE, deployment
from tests.support.manifests import MANIFESTS

PORTS = ("--worker-port", "9000:9999", "--nanny-port", "10000:10999")


def unit_of(settings: Mapping[str, object], part: str) -> str:
    """The unit's ExecStart, as systemd reads it: continued lines joined."""
    (file,) = yaml.safe_load(user_data(deployment(**settings), part))["write_files"]
    unit: str = file["content"].replace("\\\n", " ")
    return next(line for line in unit.splitlines() if line.startswith("ExecStart="))


def booted(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[Settings, tuple[Program, ...]]:
    settings = parse_settings(parse_arguments(arguments), environ)
    check_arguments(settings)
    return settings, plan_programs(settings, (), cores=16)


def boot_of(settings: Mapping[str, object], part: str) -> tuple[Settings, tuple[Program, ...]]:
    words = shlex.split(unit_of(settings, part))
    environ = dict(word[6:].partition("=")[::2] for word in words if word.startswith("--env="))
    return booted(words[words.index(IMAGE) + 1 :], environ)


def test_the_one_vm_runs_a_worker_for_each_core() -> None:
    settings, (scheduler, worker) = boot_of(NODE, "node")
    assert (str(settings.store), settings.cluster) == ("gsm://project-one", "lab")
    assert settings.wanted == ((Role.SCHEDULER, "scheduler"), (Role.WORKER, "worker"))
    assert {"--port", "8786"} <= set(scheduler.argv)
    line = " ".join(worker.argv)
    assert "--nworkers 16 --nthreads 1 --memory-limit 1GB" in line
    assert line.endswith(" ".join(PORTS))


def test_a_worker_finds_the_scheduler_by_its_name_in_the_network() -> None:
    settings, (worker,) = boot_of(CLUSTER, "worker")
    assert "tls://daskpki-lab-scheduler.europe-west1-b.c.project-one.internal:8786" in worker.argv
    assert settings.wanted == ((Role.WORKER, "worker"),)
    _, (scheduler,) = boot_of(CLUSTER, "scheduler")
    assert scheduler.role is Role.SCHEDULER


def test_an_isolated_worker_asks_for_its_own_leaf() -> None:
    settings, _ = boot_of(ISOLATED, "worker-7")
    assert settings.wanted == ((Role.WORKER, "worker-7"),)


@pytest.mark.parametrize(("workers", "part"), [(2, "worker"), (0, "node")])
def test_a_worker_mounts_the_secrets_that_were_named_and_the_scheduler_none(workers: int, part: str) -> None:
    named = {**MOUNTING, "workers": workers}
    settings, _ = boot_of(named, part)
    assert settings.mounts == (Mount("db-password"), Mount("token", 3, path="/run/secrets/token"))
    tmpfs = "--tmpfs=/run/secrets:rw,nosuid,nodev,noexec,uid=65532,gid=65532,mode=0700"
    assert tmpfs in shlex.split(unit_of(named, part))
    if workers:
        assert boot_of(named, "scheduler")[0].mounts == ()
        assert tmpfs not in unit_of(named, "scheduler")


def test_a_variable_is_mounted_where_that_was_allowed() -> None:
    named = {"secrets": ("db-password=env:PGPASSWORD",), "secrets_in_environment": True}
    settings, _ = boot_of(named, "node")
    assert settings.mounts == (Mount("db-password", variable="PGPASSWORD"),)


@pytest.mark.parametrize("name", ["scheduler", "workers"])
def test_the_manifests_start_what_the_entrypoint_takes(name: str) -> None:
    text = Path(MANIFESTS / f"{name}.yaml").read_text().replace("PROJECT", "project-one")
    (pod,) = (one["spec"]["template"]["spec"] for one in yaml.safe_load_all(text) if one["kind"] == "Deployment")
    (container,) = pod["containers"]
    settings, (program,) = booted(container["args"], {one["name"]: one["value"] for one in container["env"]})
    assert settings.cluster == "lab"
    if name == "workers":
        assert program.argv[-4:] == ("--worker-port", "9000", "--nanny-port", "10000")  # one worker a pod


def test_the_ports_are_below_the_ones_that_linux_gives_out() -> None:
    low, _high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ends = [int(end) for ports in (WORKER_PORTS, NANNY_PORTS) for end in ports.split(":")]
    assert [1024, *ends] == sorted({1024, *ends})
    assert ends[-1] < min(low, 32768)
