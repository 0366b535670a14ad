"""dask-cloudprovider's `GCPCluster` with VMs that boot by daskpki-entrypoint: no key leaves this process.

Stock `GCPCluster` writes the private keys of all roles, and the rest of your Dask configuration, into the user-data of
each VM, and gives all VMs one service account. Here user-data names a store, a cluster and a command; each VM fetches
its own credential with its own service account, and this process uses the credential of the user who runs it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from dask_cloudprovider.gcp import instances as stock

from daskpki.api import security as own_security
from daskpki.boot.options import parse_arguments
from daskpki.boot.plan import check_arguments
from daskpki.boot.settings import parse_settings
from daskpki.cluster.security import PkiSecurity
from daskpki.errors import UsageError
from daskpki.identity import Role
from daskpki.settings import parse_store_url, require_gsm

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
"""The scope that Secret Manager needs; a VM is limited by its service account's grants."""

_ENTRYPOINT: Final = "daskpki-entrypoint"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NANNY: Final = "dask.distributed.Nanny"


class Boot(NamedTuple):
    """Boot settings of one role's VMs: service account, environment, and options for Dask."""

    service_account: str
    environment: Mapping[str, str]
    options: Mapping[str, Any]

    def words(self, role: Role, *arguments: str) -> list[str]:
        """The arguments of `daskpki-entrypoint`; UsageError or PolicyError for those that it would refuse on the VM."""
        options = [word for name, value in self.options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        words = [role.value, "--", *arguments, *options]
        check_arguments(parse_settings(parse_arguments(words), self.environment))
        return words


class _Booting:
    """Mixin of both kinds of VM, before the stock class."""

    role: Role
    boot: Boot
    cluster: Any
    docker_args: str

    def start_with(self, boot: Boot, *arguments: str) -> None:
        """Replace the command that the stock class prepared with that of the entrypoint."""
        self.boot = boot
        self.set_env = ""
        self.command = _in_user_data(boot.words(self.role, *arguments))
        # The stock template puts variables between double quotes, in which a shell expands what is in them.
        self.env_vars: dict[str, str] = {}
        variables = [word for name, value in boot.environment.items() for word in ("-e", f"{name}={value}")]
        own = (self.docker_args or "").replace("'", "''")
        self.docker_args = f"{own} {_in_user_data([*variables, '--entrypoint', _ENTRYPOINT])}".strip()

    def create_gcp_config(self) -> dict[str, Any]:
        """The body of the request that makes the VM, with the service account of this role."""
        config: dict[str, Any] = super().create_gcp_config()  # type: ignore[misc] # of the stock class that follows
        config["serviceAccounts"] = [{"email": self.boot.service_account, "scopes": [_SCOPE]}]
        return config


class Scheduler(_Booting, stock.GCPScheduler):
    """The scheduler's VM."""

    role = Role.SCHEDULER

    def __init__(self, *args: Any, boot: Boot, **options: Any) -> None:
        super().__init__(*args, **options)
        self.start_with(boot)


class Worker(_Booting, stock.GCPWorker):
    """A worker's VM."""

    role = Role.WORKER

    def __init__(self, *args: Any, boot: Boot, **options: Any) -> None:
        super().__init__(*args, **options)
        address = f"tls://{self.cluster.scheduler_internal_ip}:{self.cluster.scheduler_port}"
        self.start_with(boot, address, "--name", self.name)


class GCPCluster(stock.GCPCluster):
    """Takes the arguments of dask-cloudprovider's class; `docker_image` must contain daskpki.

    `store` is `gsm://PROJECT`, where the VMs find their credentials. `security` is yours as a client, by default
    `daskpki.security()`. `scheduler_options` and `worker_options` become options of `dask scheduler` and `dask worker`.
    Your own Dask configuration stays here; put the part that VMs need into `env_vars`, which must not contain secrets.
    UsageError or PolicyError for options that the entrypoint would refuse on a VM, before one is created.

        cluster = GCPCluster(
            store="gsm://my-project",
            docker_image="europe-west1-docker.pkg.dev/my-project/dask/dask:2026.8.0",
            scheduler_service_account="dask-scheduler@my-project.iam.gserviceaccount.com",
            worker_service_account="dask-worker@my-project.iam.gserviceaccount.com",
            n_workers=4,
        )
    """

    def __init__(
        self,
        *,
        store: str,
        docker_image: str,
        scheduler_service_account: str,
        worker_service_account: str,
        security: PkiSecurity | None = None,
        scheduler_options: Mapping[str, Any] | None = None,
        worker_options: Mapping[str, Any] | None = None,
        worker_class: str = _NANNY,
        env_vars: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        if worker_class != _NANNY:
            raise UsageError(f"worker_class={worker_class!r}: the entrypoint starts `dask worker`, which runs nannies")
        dialling = own_security() if security is None else security
        if not isinstance(dialling, PkiSecurity):
            raise UsageError(f"{dialling!r} is no Security of daskpki", hint="security=daskpki.security()")
        cluster = dialling.enforcement(Role.CLIENT).trust.cluster
        environment = {
            **check_variables(env_vars or {}),
            "DASKPKI_STORE": str(require_gsm(parse_store_url(store))),
            "DASKPKI_CLUSTER": cluster,
        }
        if docker_image != shlex.quote(docker_image):
            raise UsageError(f"docker_image={docker_image!r} is not an image", hint="REGISTRY/PATH:TAG")
        self._scheduler_boot = Boot(scheduler_service_account, environment, dict(scheduler_options or {}))
        self._worker_boot = Boot(worker_service_account, environment, dict(worker_options or {}))
        self._scheduler_boot.words(Role.SCHEDULER)  # refused here rather than on a VM
        self._worker_boot.words(Role.WORKER, "tls://127.0.0.1:8786")
        super().__init__(
            docker_image=docker_image,
            security=dialling,
            scheduler_options=dict(scheduler_options or {}),
            **options,
        )

    async def _start(self) -> None:
        """Replace the classes of VMs that the stock class has chosen, before it starts them."""
        self.scheduler_class, self.worker_class = Scheduler, Worker
        self.scheduler_options["boot"] = self._scheduler_boot
        self.worker_options["boot"] = self._worker_boot
        await super()._start()


def check_variables(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables if user-data can contain them; UsageError for others, before a VM is created.

    A YAML scalar between quotes folds line breaks and takes no control characters, so a value has to be printable.
    """
    for name, value in variables.items():
        if not _VARIABLE.match(name):
            raise UsageError(f"env_vars has {name!r}, which is not a variable's name", hint="letters, digits and '_'")
        if not isinstance(value, str) or not value.isprintable():
            raise UsageError(
                f"env_vars[{name!r}] is not printable text on one line",
                hint="put it into a file of the image, or encode it",
            )
    return variables


def _in_user_data(words: Sequence[str]) -> str:
    """Quote words for a shell in a YAML scalar between single quotes, as dask-cloudprovider's template has it."""
    return shlex.join(words).replace("'", "''")
