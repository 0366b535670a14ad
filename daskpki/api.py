"""The Python API, as `daskpki.NAME`; each name is loaded on first use (`daskpki/__init__.py`).

import daskpki

client = daskpki.connect()                                    # with the login of this machine
client = Client("tls://10.0.0.5:8786", security=daskpki.security("alice"))
password = daskpki.secret("db-password")                      # mounted by daskpki-entrypoint --secret
"""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskpki.credentials.contexts import read_scheduler_file
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.sources import obtain, open_without_asking, this_process
from daskpki.errors import NotFoundError, UsageError
from daskpki.handover import SEALED, STOCK, VARIABLE, load_handover, read_handed_down
from daskpki.identity import parse_label
from daskpki.loader import dial_security, store_source
from daskpki.settings import store_url

if TYPE_CHECKING:
    from daskpki.cluster.local_cluster import LocalSecurity
    from daskpki.cluster.security import LinkedClient, PkiSecurity
    from daskpki.store.port import Store


def security(name: str | None = None, *, cluster: str | None = None, store: str | None = None) -> PkiSecurity:
    """A `distributed.Security` with which a client reaches its cluster: `Client(address, security=...)`.

    The credential comes from the first of: `store` (a URL, if given), what the entrypoint handed down,
    DASKPKI_CREDENTIAL_DIR or DASKPKI_CREDENTIAL_FILE, the store if DASKPKI_SOURCE=store, the OS keyring. It must belong
    to `name` and `cluster`, where these are given. Raises NotFoundError, NotTrustedError, AccessDeniedError or
    UsageError, each with a hint.

        client = Client("tls://10.0.0.5:8786", security=daskpki.security("alice"))
    """
    here = this_process()
    wanted = Wanted(name=name, cluster=cluster, store=store)
    return dial_security(obtain(wanted, here), wanted, here)


def cluster_security(
    name: str,
    *,
    scheduler: str = "scheduler",
    worker: str = "worker",
    cluster: str | None = None,
    store: str | None = None,
    dashboard: str = "loopback",
    scheduler_code: str = "stock",
) -> LocalSecurity:
    """A `distributed.Security` for `LocalCluster(security=...)`: client NAME, a scheduler and workers of this machine.

    All three credentials are read from the store, so this process holds all three keys. They are never pickled
    together: a worker process gets only the worker's, and `SSHCluster` is refused. The dashboard answers only this
    machine, wherever it is bound; with dashboard="mtls" it speaks TLS to holders of a client's certificate, with "off"
    it answers nobody. The scheduler asks the store every minute for newer trust documents, so a revocation reaches the
    whole cluster; newer credentials need a new cluster. The scheduler lives in this process, so `scheduler_code` must
    be stock. Raises NotFoundError that names the credential to issue, and UsageError for a sealed scheduler or an
    unknown `dashboard` or `scheduler_code`.

        cluster = LocalCluster(security=daskpki.cluster_security("alice"))
    """
    if scheduler_code == SEALED:  # a seal covers its whole process, and cannot be lifted
        raise UsageError(
            "scheduler_code='sealed' is refused where the scheduler lives in your own process: from then on nothing in "
            "it could be unpickled, and the process could not be debugged",
            hint="start the scheduler by daskpki-entrypoint scheduler --scheduler-code sealed",
        )
    if scheduler_code != STOCK:
        raise UsageError(f"scheduler_code={scheduler_code!r} is none of {STOCK}, {SEALED}")
    from daskpki.cluster.local_cluster import cluster_security as join
    from daskpki.cluster.policy import Dashboard
    from daskpki.credentials.sources import fetch_credential
    from daskpki.identity import Role
    from daskpki.settings import cluster_name

    if dashboard not in set(Dashboard):
        raise UsageError(f"dashboard={dashboard!r} is none of {', '.join(Dashboard)}")
    here, named = this_process(), cluster_name(os.environ, cluster)
    wanted = {Role.SCHEDULER: scheduler, Role.WORKER: worker, Role.CLIENT: name}
    with closing(open_store(store)) as opened:
        verified = [fetch_credential(opened, named, *each, pins=here.pins, now=here.now) for each in wanted.items()]
    return join(
        [each.credential for each in verified],
        verified[0].trust,
        dashboard=Dashboard(dashboard),
        source=store_source(named, store_url(os.environ, store)),
    )


def connect(cluster: str | None = None, **client_kwargs: Any) -> LinkedClient:
    """A `distributed.Client`, connected with the login of this machine; with `asynchronous=True`, one to be awaited.

    The address is the one that `login --scheduler` or the deployment recorded; `address=` overrides it, and so does
    `scheduler_file=`, a file that a scheduler wrote by Dask's option of that name. Everything else goes to
    `distributed.Client`. Its `dashboard_link` leads through Jupyter's entry or a running `daskpki dashboard`, if there
    is one. Errors as `security`, and UsageError when no address is known.

        with daskpki.connect() as client:
            print(client.submit(sum, [1, 2]).result())
    """
    from daskpki.cluster.security import LinkedClient
    from daskpki.dashboard.jupyter import find_link

    here = this_process()
    address, file = client_kwargs.pop("address", None), client_kwargs.pop("scheduler_file", None)
    if address is None and file is not None:
        address = read_scheduler_file(Path(file))
    wanted = Wanted(cluster=cluster, address=address)
    obtained = obtain(wanted, here)
    hint = "connect(address='tls://HOST:8786'), or daskpki login --scheduler tls://HOST:8786"
    target = obtained.scheduler(address, hint)
    dialling = dial_security(obtained, wanted, here)
    return LinkedClient(target, find_link=partial(find_link, target), security=dialling, **client_kwargs)


def secret(name: str) -> bytes:
    """The payload of a user secret that `daskpki-entrypoint --secret` mounted in this process; for use in tasks.

    NotFoundError if it is not mounted, with the option that mounts it as the hint; CorruptError if it cannot be
    read any more; UsageError for an invalid name.

        password = daskpki.secret("db-password").decode()
    """
    parse_label(name, "secret name")
    mounted = load_handover(os.environ[VARIABLE]).secrets if os.environ.get(VARIABLE) else {}
    if name not in mounted:
        known = f"; mounted are: {', '.join(sorted(mounted))}" if mounted else ""
        raise NotFoundError(
            f"the secret {name!r} is not mounted in this process{known}",
            hint=f"start it by daskpki-entrypoint with --secret {name}=fd; by hand: daskpki secret get {name}",
        )
    return read_handed_down(mounted[name], f"the secret {name!r} at {mounted[name]}")


def open_store(url: str | None = None) -> Store:
    """Open the store of a URL: `local:`, `local:/path`, `gsm://PROJECT[/LOCATION]`; None for DASKPKI_STORE or `local:`.

    A local store is unlocked by DASKPKI_KEY_FILE, DASKPKI_PASSPHRASE_FILE or the OS keyring, never by a prompt.
    Installed packages may add schemes (docs/how-to/write-a-store.md). UsageError for a URL of no known scheme,
    NotFoundError if a local store does not exist.

        with contextlib.closing(daskpki.open_store("gsm://my-project")) as store:
            print(store.clusters())
    """
    return open_without_asking(store_url(os.environ, url))
