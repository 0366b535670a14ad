"""The cloud-init user-data of a VM: a systemd unit that runs the entrypoint in its container. Pure; nothing secret.

Container-Optimized OS keeps /etc in memory and runs cloud-init on every boot, so the unit is written each time. Its
host firewall lets only SSH in, so with the host's network the unit opens the ports; the VPC's rules decide who reaches
them.

Every value that comes from a setting passes through `systemd_quoted`, whose result is printable ASCII on one line. So
the unit can stand in a YAML block scalar as it is.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from daskpki.deploy.settings import SECRETS_DIRECTORY
from daskpki.errors import UsageError

UID: Final = 65532
"""The container's user, as in the published recipe; no user of the host has this number."""

# The ports of a deployed cluster, fixed so that a firewall can name them; all below Linux's ephemeral range. The
# dashboard's is absent: it stays on loopback, and no rule lets it through.
SCHEDULER_PORT: Final = 8786
WORKER_PORTS: Final = "9000:9999"  # as Dask and iptables write ranges
NANNY_PORTS: Final = "10000:10999"
WORKER_ARGUMENTS: Final = ("--worker-port", WORKER_PORTS, "--nanny-port", NANNY_PORTS)
"""Arguments for `dask worker`, after the entrypoint's `--`."""

_SCRATCH: Final = "/var/lib/daskpki"
"""Directory on the VM's boot disk to which workers spill data. Keys are never written there."""

_PRIVATE: Final = f"rw,nosuid,nodev,noexec,uid={UID},gid={UID},mode=0700"

_UNIT: Final = """\
[Unit]
Description=Dask {command} of cluster {cluster}, started by daskpki-entrypoint
Wants=gcr-online.target docker.service
After=gcr-online.target docker.service
StartLimitIntervalSec=0

[Service]
Environment=HOME=/run/daskpki
RuntimeDirectory=daskpki
RuntimeDirectoryMode=0700
{before}
ExecStart=/usr/bin/docker run {run}
ExecStop=/usr/bin/docker stop --time=30 daskpki
Restart=always
RestartSec=10
"""

_CLOUD_CONFIG: Final = """\
#cloud-config
write_files:
- path: /etc/systemd/system/daskpki.service
  permissions: "0644"
  owner: root
  content: |
{unit}
runcmd:
- systemctl daemon-reload
- systemctl start daskpki.service
"""


class Container(NamedTuple):
    """The container of a VM: the entrypoint's `command` with an `environment` that is not secret, and open `ports`.

    With `mounts_files` it has a tmpfs for secrets that are mounted as files.
    """

    cluster: str
    image: str
    command: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    ports: tuple[str, ...]
    mounts_files: bool = False


def systemd_quoted(text: str) -> str:
    """One word of a systemd command line, in which nothing is expanded (systemd.service(5), COMMAND LINES).

    UsageError for anything but printable ASCII, which no setting needs.
    """
    if not (text.isascii() and text.isprintable()):
        raise UsageError(f"{text!r} cannot stand in a VM's user-data", hint="printable ASCII only")
    if text and all(each.isalnum() or each in "_-./:=,@+" for each in text):
        return text
    return f'"{text.translate(_SPECIAL)}"'


# %% and $$ stand for the character: systemd expands specifiers and variables within quotes as well.
_SPECIAL: Final = str.maketrans({'"': '\\"', "\\": "\\\\", "%": "%%", "$": "$$"})


def render_user_data(container: Container) -> str:
    """The user-data."""
    unit = _UNIT.format(
        command=container.command,
        cluster=container.cluster,
        before="\n".join(f"ExecStartPre={line}" for line in _before(container)),
        run=" \\\n  ".join(map(systemd_quoted, docker_arguments(container))),
    )
    return _CLOUD_CONFIG.format(unit=textwrap.indent(unit, "    ").rstrip())


def _before(container: Container) -> Sequence[str]:
    registry = registry_of(container.image)
    login = [f"/usr/bin/docker-credential-gcr configure-docker --registries={registry}"] if registry else []
    # -C asks whether the rule is there, so that a restart adds no second one.
    ports = [
        f"/bin/sh -c 'iptables -w -C INPUT -p tcp --dport {port} -j ACCEPT || "
        f"iptables -w -A INPUT -p tcp --dport {port} -j ACCEPT'"
        for port in container.ports
    ]
    scratch = f"/usr/bin/install -d -o {UID} -g {UID} -m 0700 {_SCRATCH}"
    return [*login, *ports, scratch, "-/usr/bin/docker rm --force daskpki"]


def docker_arguments(container: Container) -> list[str]:
    """Arguments of `docker run`: no root, no capabilities, a read-only root, scratch space, the host's network."""
    return [
        "--rm",
        "--name=daskpki",
        "--network=host",
        f"--user={UID}:{UID}",
        "--read-only",
        "--tmpfs=/tmp:rw,nosuid,nodev,mode=1777",
        *([f"--tmpfs={SECRETS_DIRECTORY}:{_PRIVATE}"] if container.mounts_files else []),
        f"--volume={_SCRATCH}:/scratch",
        "--env=HOME=/tmp",
        "--env=DASK_TEMPORARY_DIRECTORY=/scratch",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        *(f"--env={name}={value}" for name, value in container.environment.items()),
        container.image,
        container.command,
        *container.arguments,
    ]


def registry_of(image: str) -> str | None:
    """The Google registry that an image comes from, which needs the VM's identity; None for others."""
    host = image.partition("/")[0]
    return host if host.endswith(("-docker.pkg.dev", ".gcr.io")) or host == "gcr.io" else None
