"""Who may do what, where, in which mode: every certificate tries every act on real processes, each cell is asserted.

The expectation is written down here, by hand; beside it stands what stock Dask's mutual TLS lets through.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Security

from daskpki.cluster import trust_updates
from daskpki.cluster.security import client_security
from daskpki.identity import Role
from tests.support.acts import ACTS, Visit, outcome
from tests.support.cluster_material import DAY, Authority, Files, Leaf, stock_security
from tests.support.nightly import by_day
from tests.support.nodes import Cluster
from tests.support.rogue import dial

pytestmark = pytest.mark.cluster

MODES = ["deny", "limited", "allow"]
STOCK = "stock"

# A right certificate. `yes`: let through to Dask. `no`: refused by name. `role`: turned away at the handshake. `own`:
# so, too, since a nanny takes its own worker only.
RIGHT = """
                                            worker's              client's   scheduler's   stock Dask,
                                            deny  limited  allow                           any of them
    scheduler: connect                      yes   yes      yes    yes        role          yes
    scheduler: register as worker           yes   yes      yes    no         role          yes
    scheduler: register as client           no    yes      yes    yes        role          yes
    scheduler: report in a worker's stream  yes   yes      yes    no         role          yes
    scheduler: report in a client's stream  no    no       no     no         role          yes
    scheduler: report by call               yes   yes      yes    no         role          yes
    scheduler: report for another worker    no    no       no     no         role          yes
    scheduler: coordinate                   yes   yes      yes    yes        role          yes
    scheduler: share data                   no    yes      yes    yes        role          yes
    scheduler: read the state               no    no       yes    yes        role          yes
    scheduler: order all workers            no    no       yes    yes        role          yes
    scheduler: run a function               no    no       yes    yes        role          yes
    scheduler: submit a graph               no    no       yes    yes        role          yes
    scheduler: send a pickle                no    no       yes    yes        role          yes
    scheduler: send bytes to unpickle       no    no       yes    yes        role          yes
    scheduler: call an unknown operation    no    no       no     no         role          yes
    scheduler: open streams unregistered    no    no       no     no         role          yes
    worker: connect                         yes   yes      yes    yes        yes           yes
    worker: fetch data                      yes   yes      yes    yes        yes           yes
    worker: write data                      no    no       no     yes        yes           yes
    worker: run a function                  no    no       no     no         yes           yes
    worker: call an unknown operation       no    no       no     no         no            yes
    nanny: connect                          own   own      own    role       yes           yes
    nanny: read logs                        own   own      own    role       yes           yes
    nanny: run a function                   own   own      own    role       yes           yes
    nanny: call an unknown operation        own   own      own    role       no            yes
"""

# Any other certificate is turned away in every mode, by every server, with the reason named here. Revoked ones of
# a role that the server does not take hear that.
WRONG = """
                               daskpki    stock Dask
    wrong cluster              domain     yes
    expired                    tls        tls
    not yet valid              tls        tls
    revoked                    revoked    yes
    revoked, session resumed   revoked    yes
    other CA                   tls        tls
"""
ODD = """
    none                       tls        tls
    two identities             identity   yes
    no identity                identity   yes
    a fourth role              identity   yes
    a CA's certificate         purpose    yes
    for no purpose named       purpose    yes
"""


def rows(table: str) -> dict[str, list[str]]:
    """Each line's words after its name, which two spaces end."""
    found = (re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if re.match(r" {4}\S", line))
    return {name: words for name, *words in found}


CONDITIONS = rows(WRONG)
ODDITIES = rows(ODD)
SHOWN = [
    *(f"{role.value}, {condition}" for role in Role for condition in ("right", *CONDITIONS)),
    *ODDITIES,
]
CELLS = [
    (shown, mode)
    for shown in SHOWN
    for mode in (*MODES, STOCK)
    if by_day(shown.endswith("right") or mode in {"limited", STOCK}, night=True)
]
"""By day, the certificates that every mode turns away are tried in one mode, and on stock Dask."""


def expected(shown: str, mode: str) -> dict[str, str]:
    """The cells of one certificate in one mode."""
    role, _, condition = shown.partition(", ")
    if condition == "right":
        column = {"worker": MODES.index(mode) if mode in MODES else 0, "client": 3, "scheduler": 4}[role]
        return {act: words[5 if mode == STOCK else column] for act, words in rows(RIGHT).items()}
    refused, stock = CONDITIONS.get(condition) or ODDITIES[shown]
    if mode == STOCK or refused != "revoked":
        return dict.fromkeys(rows(RIGHT), stock if mode == STOCK else refused)
    right = expected(f"{role}, right", mode)  # who would be turned away anyway is told that, and not the revocation
    return {act: "role" if cell == "role" else refused for act, cell in right.items()}


class Anonymous(Security):
    """Trusts the CA, and shows no certificate."""

    def _get_tls_context(self, tls: dict[str, str], purpose: ssl.Purpose) -> ssl.SSLContext:
        context = ssl.create_default_context(purpose, cafile=tls["ca_file"])
        context.check_hostname = False
        return context


class ResumingContext(ssl.SSLContext):
    """Takes up again the session that it had with a server, if there is one."""

    sessions: dict[Any, ssl.SSLSession | None]

    def wrap_socket(self, sock: Any, **arguments: Any) -> ssl.SSLSocket:  # type: ignore[override]  # as tornado calls it
        arguments["session"] = self.sessions.get(sock.getpeername())
        return super().wrap_socket(sock, **arguments)


class Resuming(Security):
    """Dask's Security, with a context that resumes sessions."""

    def __init__(self, files: Files) -> None:
        super().__init__(require_encryption=True)
        self.context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.load_verify_locations(files.ca)
        self.context.load_cert_chain(files.cert, files.key)
        self.context.sessions = {}

    def get_connection_args(self, role: str) -> dict[str, Any]:
        return {**super().get_connection_args(role), "ssl_context": self.context}

    async def begin(self, address: str) -> None:
        """Have a session with that server."""
        comm: Any = await dial(address, self)
        await comm.write({"op": "identity"})
        await comm.read()  # tickets of TLS 1.3 come with the first data
        socket = comm.stream.socket
        self.context.sessions[socket.getpeername()] = socket.session
        comm.abort()


@pytest.fixture(scope="module")
def clusters(deny: Cluster, limited: Cluster, allow: Cluster, stock: Cluster) -> dict[str, Cluster]:
    return {"deny": deny, "limited": limited, "allow": allow, STOCK: stock}


@pytest.fixture(scope="module")
def wallet(
    authority: Authority, clusters: dict[str, Cluster], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Security]:
    """What each row shows. Those that are revoked were in use before."""
    directory = tmp_path_factory.mktemp("wallet")
    leavers = {role: authority.leaf(role) for role in Role}  # the worker's by the name of a nanny's own
    resuming = {role: Resuming(authority.files(leaf, directory / role.value)) for role, leaf in leavers.items()}
    asyncio.run(begin_sessions(clusters, resuming))
    for leaf in leavers.values():
        authority.revoke(leaf)
    for mode in MODES:
        publish(authority, clusters[mode])
    cards: dict[str, Security] = {"none": anonymous(authority, directory)}
    for name, leaf in leaves(authority, leavers).items():
        cards[name] = stock_security(authority, leaf, directory / name)
    return cards | {f"{role.value}, revoked, session resumed": security for role, security in resuming.items()}


def leaves(authority: Authority, leavers: dict[Role, Leaf]) -> dict[str, Leaf]:
    stranger, domain = Authority(), authority.trust_domain
    made = {
        "two identities": authority.forged(
            Role.WORKER, [f"spiffe://{domain}/{who}" for who in ("worker/w", "client/c")]
        ),
        "no identity": authority.forged(Role.WORKER, []),
        "a fourth role": authority.forged(Role.WORKER, [f"spiffe://{domain}/admin/root"]),
        "a CA's certificate": authority.forged(Role.WORKER, ca=True),
        "for no purpose named": authority.forged(Role.WORKER, without="extendedKeyUsage"),
    }
    for role in Role:
        made |= {
            f"{role.value}, right": authority.leaf(role, "visitor"),
            f"{role.value}, wrong cluster": authority.forged(role, [f"spiffe://x.internal/{role.value}/visitor"]),
            f"{role.value}, expired": authority.leaf(role, at=-3 * DAY, ttl=int(DAY.total_seconds())),
            f"{role.value}, not yet valid": authority.leaf(role, at=3 * DAY),
            f"{role.value}, revoked": leavers[role],
            f"{role.value}, other CA": stranger.leaf(role),
        }
    return made


def anonymous(authority: Authority, directory: Path) -> Security:
    files = authority.files(authority.leaf(Role.WORKER), directory / "anonymous")
    return Anonymous(tls_ca_file=files.ca, tls_worker_cert=files.cert, require_encryption=True)


async def begin_sessions(clusters: dict[str, Cluster], resuming: dict[Role, Resuming]) -> None:
    admitting = {Role.WORKER: ("address", "worker", "nanny"), Role.CLIENT: ("address", "worker")}
    for mode, cluster in clusters.items():
        for role, security in resuming.items():
            everywhere = admitting[Role.WORKER] if mode == STOCK else admitting.get(role, ("worker", "nanny"))
            for server in everywhere:
                await security.begin(getattr(cluster, server))


def publish(authority: Authority, cluster: Cluster) -> None:
    """Have every process of a cluster know who is revoked."""
    admin = client_security(authority.leaf(Role.CLIENT, "admin").credential, authority.document())
    document = authority.document()
    signed = authority.signed(document)
    asyncio.run(trust_updates.send_trust(cluster.address, admin.get_connection_args("client"), signed))
    holds = re.compile(rf'"reloaded".*trust document {document.epoch} is in force')
    cluster.workers.wait_for(holds, cluster.nworkers + 1)  # each worker, and the process of their nannies


@pytest.mark.parametrize(("shown", "mode"), CELLS, ids=lambda value: re.sub(r"\W+", "-", value))
def test_each_cell(
    shown: str, mode: str, clusters: dict[str, Cluster], wallet: dict[str, Security], tmp_path: Path
) -> None:
    async def everything() -> dict[str, str]:
        visits = {act: Visit(clusters[mode], wallet[shown], tmp_path / str(n)) for n, act in enumerate(ACTS)}
        return {act: await outcome(ACTS[act], visit) for act, visit in visits.items()}

    found = asyncio.run(everything())
    assert found == expected(shown, mode)


def test_sessions_are_resumed_by_stock_dask_alone(clusters: dict[str, Cluster], wallet: dict[str, Security]) -> None:
    """So that the row of resumed sessions shows what it says."""
    security = wallet["worker, revoked, session resumed"]
    assert isinstance(security, Resuming)

    async def is_resumed(address: str) -> bool:
        comm: Any = await dial(address, security)
        reused = bool(comm.stream.socket.session_reused)
        comm.abort()
        return reused

    assert asyncio.run(is_resumed(clusters[STOCK].address))
    tickets = [session.has_ticket for session in security.context.sessions.values() if session is not None]
    assert sorted(tickets) == [*[False] * 9, *[True] * 3]  # three servers in three modes, and those of stock Dask


def test_the_table_names_every_act() -> None:
    assert set(rows(RIGHT)) == set(ACTS)
    assert {len(words) for words in rows(RIGHT).values()} == {6}


@pytest.fixture(scope="module", autouse=True)
def _settled(clusters: dict[str, Cluster]) -> Iterator[None]:
    """Nobody who came has hurt a cluster."""
    yield
    for cluster in clusters.values():
        assert cluster.scheduler.process.poll() is None
        assert cluster.workers.process.poll() is None
