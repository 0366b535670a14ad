"""The container recipe and the manifests, judged for form: hadolint, Kubernetes' own schemas, and our rules."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from daskpki.boot.options import parse_arguments
from daskpki.boot.settings import parse_settings
from tests.support.manifests import MANIFESTS, assert_restricted, assert_taken_by_kubernetes, manifests
from tests.support.paths import BIN, ROOT, SUPPORT
from tests.support.sandbox import AS_ROOT

RECIPES = ROOT / "scripts" / "container"
NANNY = 256 * 1024**2
"""Bytes, more than a nanny's process takes."""


def instructions(recipe: Path) -> list[tuple[str, str]]:
    """A recipe's instructions, continued lines joined, with its ARG defaults put in."""
    text = re.sub(r"^#.*\n", "", recipe.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]
    defaults = dict(rest.split("=", 1) for word, rest in found if word == "ARG")
    return [(word, re.sub(r"\$\{(\w+)\}", lambda name: defaults.get(name[1], name[0]), rest)) for word, rest in found]


@pytest.mark.parametrize("name", ["Dockerfile", "user.Dockerfile"])
def test_hadolint_has_nothing_to_say(name: str) -> None:
    done = subprocess.run([BIN / "hadolint", RECIPES / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_pinned_unprivileged_and_starts_the_entrypoint() -> None:
    found = instructions(RECIPES / "Dockerfile")
    bases = [rest for word, rest in found if word == "FROM"]
    assert all(re.match(r"\S+(:\d+\.\d+\.\d+\S*|@sha256:[0-9a-f]{64})( AS \w+)?\Z", base) for base in bases)
    last = found[max(at for at, (word, _) in enumerate(found) if word == "FROM") :]
    settled = dict(last)
    assert settled["USER"] == "65532:65532"
    assert settled["ENTRYPOINT"] == '["daskpki-entrypoint"]'
    assert settled["HEALTHCHECK"].endswith('CMD ["python", "-m", "daskpki.health"]')
    assert not [word for word, _ in last if word in ("ADD", "VOLUME", "SHELL")]
    assert "EXPOSE" in settled
    assert "8787" not in settled["EXPOSE"]


def test_a_users_image_takes_the_three_lines_of_the_page() -> None:
    first, *lines = (RECIPES / "user.Dockerfile").read_text().splitlines()[1:]
    assert first.startswith("FROM ")
    page = (ROOT / "docs" / "deploy" / "container.md").read_text()
    assert lines == re.findall(r"```dockerfile\n(.*?)\n```", page, re.DOTALL)[0].splitlines()


@pytest.mark.parametrize("name", ["requirements.txt", "build-requirements.txt"])
def test_what_is_installed_is_locked_by_version_and_hash(name: str) -> None:
    entries = re.split(r"\n(?=[a-z])", (RECIPES / name).read_text().strip())
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==[\w.]+( ; [^\\\n]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\\n)?)+\Z", entry), (
            entry[:80]
        )


def test_the_image_stays_light_and_above_the_floors() -> None:
    locked = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (RECIPES / "requirements.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked[requirement.name])
    assert not [name for name in locked if name.startswith(("google", "grpc", "typer", "keyring", "rich"))]


def steps(recipe: Path) -> str:
    """A recipe's own instructions as a shell script, for a root directory that is there; its stages share that."""
    lines = []
    for word, rest in instructions(recipe):
        words = shlex.split(rest)
        if word == "COPY" and not words[0].startswith("--from="):
            lines.append(f"mkdir -p {os.path.dirname(words[-1])}; cd {ROOT}; cp -r {rest}")  # noqa: PTH120 - keeps a last /
        elif word == "WORKDIR":
            lines.append(f"mkdir -p {rest}; cd {rest}")
        elif word == "ENV":
            lines.append(f"export {rest}")
        elif word == "RUN":
            lines.append(rest)
    return "\n".join(lines)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_recipes_own_steps_make_an_entrypoint_that_starts_without_root(tmp_path: Path) -> None:
    """A sample of `test_image.py`: carried out over this machine's root, of which nothing is changed."""
    finish = """
        test "$(stat -c %u:%a /scratch)" = 65532:700
        cd /scratch
        cat > check.py <<'END'
import importlib.util, os
assert os.geteuid() == 65532 and importlib.util.find_spec("daskpki").origin.startswith("/opt/dask/")
assert not any(map(importlib.util.find_spec, ("pip", "setuptools", "typer", "keyring")))
END
        setpriv --reuid=65532 --regid=65532 --clear-groups sh -ec "daskpki-entrypoint --help; python check.py"
    """
    new = tmp_path / "root"
    script = f"""
        set -e
        mkdir {tmp_path}/layer {new}
        mount -t tmpfs none {tmp_path}/layer
        mkdir {tmp_path}/layer/upper {tmp_path}/layer/work
        mount -t overlay overlay -o lowerdir=/,upperdir={tmp_path}/layer/upper,workdir={tmp_path}/layer/work {new}
        for place in /proc /dev /sys {sys.base_prefix} {ROOT}; do
            mkdir -p {new}$place; mount --rbind $place {new}$place
        done
        for place in {" ".join(map(str, Path(sys.base_prefix).parents))}; do chmod o+x {new}$place; done
        exec chroot {new} sh -ec "$0"
    """
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = [*AS_ROOT, "unshare", "--mount", "--fork", "sh", "-ec", script]
    command.append(steps(RECIPES / "Dockerfile") + finish)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "daskpki-entrypoint" in done.stdout
    assert not Path("/scratch").exists()


def test_health_in_a_container() -> None:
    sandbox = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc"]
    story = SUPPORT / "health_story.py"
    done = subprocess.run([*sandbox, sys.executable, story], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("manifest", manifests(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_kubernetes_takes_the_manifests(manifest: dict[str, Any]) -> None:
    assert_taken_by_kubernetes(manifest)


def pods() -> list[tuple[str, dict[str, Any]]]:
    return [
        (one["metadata"]["name"], one["spec"]["template"]) for one in manifests() if "template" in one.get("spec", {})
    ]


@pytest.mark.parametrize(("name", "template"), pods(), ids=lambda one: one if isinstance(one, str) else "")
def test_a_pod_is_unprivileged_probed_and_keeps_keys_in_memory(name: str, template: dict[str, Any]) -> None:
    spec = template["spec"]
    (container,) = spec["containers"]
    assert spec["serviceAccountName"] == name
    assert_restricted(spec)
    probe = {"httpGet": {"path": "/health", "port": 8790}}
    assert {"name": "DASKPKI_HEALTH", "value": "0.0.0.0:8790"} in container["env"]
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[kind].items() >= probe.items()
    memory = {volume["name"] for volume in spec["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"}
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounted["/tmp"] in memory
    assert container["args"][0] == template["metadata"]["labels"]["app.kubernetes.io/component"]


def test_no_manifest_holds_or_names_a_secret_by_value() -> None:
    assert not [one for one in manifests() if one["kind"] == "Secret"]
    for _, template in pods():
        for variable in template["spec"]["containers"][0].get("env", ()):
            assert variable["name"].startswith(("DASKPKI_", "DASK_", "THREADS_", "MEMORY_", "NUM_", "HOME"))
            assert "PASS" not in variable["name"]


def test_the_network_policies_let_in_clients_by_port_and_workers_by_label_and_out_to_what_is_needed() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests() if one["kind"] == "NetworkPolicy"}

    def ports(name: str, way: str) -> set[int]:
        return {port["port"] for rule in policies[name].get(way, ()) for port in rule["ports"]}

    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert (ports("dask-scheduler", "ingress"), ports("dask-scheduler", "egress")) == ({8786}, {9000, 10000})
    assert (ports("dask-worker", "ingress"), ports("dask-worker", "egress")) == ({9000, 10000}, {8786, 9000})
    assert ports("dask-credentials", "egress") == {53, 988, 80, 443}
    (template,) = (template for name, template in pods() if name == "dask-worker")
    assert template["spec"]["containers"][0]["args"][2:] == ["--worker-port", "9000", "--nanny-port", "10000"]


def test_a_drain_takes_one_worker_at_a_time_and_never_the_scheduler() -> None:
    budgets = {one["metadata"]["name"]: one["spec"] for one in manifests() if one["kind"] == "PodDisruptionBudget"}
    assert {name: spec["maxUnavailable"] for name, spec in budgets.items()} == {"dask-scheduler": 0, "dask-worker": 1}
    selected = {name: spec["selector"]["matchLabels"] for name, spec in budgets.items()}
    for name, template in pods():
        assert selected[name].items() <= template["metadata"]["labels"].items()


def test_a_worker_is_restarted_by_its_nanny_before_the_kubelet_ends_the_pod() -> None:
    (template,) = (template for name, template in pods() if name == "dask-worker")
    (container,) = template["spec"]["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    mebibytes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in template["spec"]["volumes"]}
    assert (container["resources"]["limits"]["memory"], mebibytes["memory"]) == ("2Gi", "64Mi")
    left = 2 * 1024**3 - 64 * 1024**2 - float(environ["MEMORY_PER_WORKER"]) * 1e9
    assert left > NANNY


def schedulers() -> list[dict[str, Any]]:
    """The schedulers' containers, of the plain manifests and of the operator's cluster."""
    (plain,) = [template["spec"]["containers"][0] for name, template in pods() if name == "dask-scheduler"]
    operated = yaml.safe_load((MANIFESTS / "operator" / "cluster.yaml").read_text())
    return [plain, operated["spec"]["scheduler"]["spec"]["containers"][0]]


@pytest.mark.parametrize("container", schedulers(), ids=["plain", "operator"])
def test_a_scheduler_is_sealed_by_one_word(container: dict[str, Any]) -> None:
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    environ["DASKPKI_STORE"] = environ["DASKPKI_STORE"].replace("PROJECT", "my-project")
    options = parse_arguments(["scheduler"])
    assert parse_settings(options, environ).scheduler_code == "stock"
    environ["DASKPKI_SCHEDULER_CODE"] = "sealed"
    assert parse_settings(options, environ).scheduler_code == "sealed"
