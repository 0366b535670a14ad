"""What a command costs in a local store of 100, 10,000 and 100,000 certificates; whole processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.session import random_serial
from daskpki.confidential import Confidential
from daskpki.identity import Role
from daskpki.records import ISSUED, RESERVED, Draft, Stamp
from daskpki.settings import LocalUrl
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.local.store import LocalStore
from daskpki.store.opening import open_store
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.timing import Contestant, race, timed
from scripts.benchmarks.workshop import DASKPKI, Workshop

SIZES: Final = (100, 10_000, 100_000)
_FEW, _, _MANY = SIZES
_BATCH: Final = 5_000
_CLUSTER: Final = "default"
_YEAR: Final = 365 * 86_400
_ABOUT: Final = (
    "The same command in stores that hold more and more certificates, each with its sealed payload of 1.1 kB. The"
    " certificates before the measured ones are recorded and stored as `issue` does it, without signing each."
)
_COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "issue": ("issue", "client", "--name", "measured"),
    "show": ("show", "worker/w-7"),
    "list --role": ("list", "--role", "scheduler"),
    "revoke": ("revoke", "worker/w-"),
}
_FLAT: Final = 1.3


def at_scale(workshop: Workshop) -> Section:
    """Run the benchmark."""
    stores = {size: populated(workshop.new_directory(f"store-{size}"), size) for size in SIZES}
    contestants = [
        Contestant(f"daskpki {name}, {size:,}", _run(stores[size], arguments))
        for name, arguments in _COMMANDS.items()
        for size in SIZES
    ]
    samples = race(contestants, min(workshop.rounds, 9))
    samples += race([Contestant(f"daskpki list, {_MANY:,}", _run(stores[_MANY], ("list", "--json")))], 3, 1)
    return Section("Many certificates", _ABOUT, f"daskpki issue, {_MANY:,}", samples, _GOALS)


_GOALS: Final = (
    Goal(f"daskpki issue, {_FEW:,}", _FLAT, f"to issue at {_MANY:,} costs at most {_FLAT} times that at 100"),
)


def _run(common: Sequence[object], arguments: Sequence[str]) -> Callable[[int], Sequence[object]]:
    """The command; a worker is revoked once only, so each run takes another."""
    if arguments[0] == "revoke":
        return lambda number: [*common, *arguments[:-1], f"{arguments[-1]}{number + 10}"]
    return lambda _: [*common, *arguments]


def populated(directory: Path, size: int, *, age: int = 60, life: int = _YEAR) -> list[object]:
    """A store with a CA and so many certificates, of that age and life in seconds; the beginning of each command."""
    key = directory / "key"
    common: list[object] = [DASKPKI, "--store", f"local:{directory / 'store'}", "--key-file", key, "--quiet"]
    url, unlock = LocalUrl(directory / "store"), Unlocking(key_file=key)
    open_store(url, unlock=unlock, create=True, environ={"DASKPKI_HOME": str(directory)}).close()
    timed(Contestant("daskpki init-ca", lambda _: [*common, "init-ca"]))
    with closing(LocalStore(directory / "store", unlock, seen=None, clock=time.time)) as store:
        names = (f"w-{n}" for n in range(size))
        while batch := list(islice(names, _BATCH)):
            with store.batch():
                _record(store, batch, age, life)
    return common


def _record(store: LocalStore, names: Sequence[str], age: int, life: int) -> None:
    """What `issue` leaves of each: a payload, a reservation, a confirmation."""
    now = int(time.time())
    stamp = Stamp(now, os.urandom(8).hex(), "benchmark", "scripts/bench")
    for name in names:
        secret = secret_names.credential_id(_CLUSTER, Role.WORKER, name)
        store.secrets.create(secret, labels=secret_names.labels(_CLUSTER, Role.WORKER, name))
        store.secrets.add(secret, Confidential(bytes(1_100)))
    drafts = [draft for name in names for draft in _events(name, now - age, life)]
    CertificateAuthority(store, _CLUSTER, command="scripts/bench").session.commit(lambda _: drafts, stamp)


def _events(name: str, start: int, life: int) -> Iterator[Draft]:
    serial = f"{random_serial():x}"
    span = {"not_before": start, "not_after": start + life - 1}
    yield Draft(RESERVED, {"serial": serial, "role": Role.WORKER.value, "name": name, "issuer": 1, **span})
    yield Draft(ISSUED, {"serial": serial, "fingerprint": os.urandom(32).hex(), "version": 1})
