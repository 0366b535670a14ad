"""How servers that Dask's command line built from paths come under the node's Security.

`dask scheduler` and `dask worker` make a stock Security from Dask's configuration, and worker and nanny build the
context with which they dial before they import a preload. But each of them listens before it dials: when one begins to
listen under the handover's certificate, its `security` and `connection_args` are replaced. Another server in the same
process (a LocalCluster inside a task) keeps what it has.
"""

from __future__ import annotations

from typing import Any

from distributed import Security

from daskpki.cluster.backend import PkiListener, install
from daskpki.cluster.enforcement import CONNECTION_ARGUMENT, Enforcement
from daskpki.cluster.security import NodeSecurity, PkiSecurity
from daskpki.errors import NotTrustedError
from daskpki.identity import Role


def adopt_servers(node: NodeSecurity) -> None:
    """From now on, put servers of this process that use the handover's certificate under `node`."""

    def adopt(server: Any) -> Enforcement | None:
        return _adopt(server, node)

    install().adopt = adopt


def _adopt(server: Any, node: NodeSecurity) -> Enforcement | None:
    security = getattr(server, "security", None)
    role = Role(node.handover.role)
    if not isinstance(security, Security) or isinstance(security, PkiSecurity):
        return None
    if security.get_tls_config_for_role(role.value)["cert"] != node.handover.cert:
        return None
    if getattr(server, "nanny", None):
        # A nanny under the rules hands its Security down to its worker; this one did not, so nobody guards its port.
        raise NotTrustedError(
            f"the nanny at {server.nanny} runs without daskpki's rules",
            hint="dask worker needs --preload-nanny daskpki.cluster.preload: it ignores distributed.nanny.preload",
        )
    server.security = node
    server.connection_args.pop("ssl_context", None)
    server.connection_args.update(node.get_connection_args(role.value))
    return node.enforcement(role)


def verify_adopted(server: Any) -> None:
    """Raise NotTrustedError unless every way into and out of `server` is under an Enforcement."""
    for listener in server.listeners:
        if not isinstance(listener, PkiListener):
            raise NotTrustedError(
                f"{type(server).__name__} listens at {listener.listen_address} without daskpki's rules",
                hint="start it through daskpki-entrypoint, with tls:// and nothing else",
            )
    for arguments in (server.connection_args, server.rpc.connection_args):
        if CONNECTION_ARGUMENT not in arguments:
            raise NotTrustedError(f"{type(server).__name__} would dial without daskpki's rules")
