"""Many leaves: `daskpki issue --count N` against CA servers under load, in leaves per second."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from scripts.benchmarks.peers import Unavailable
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.servers import cfssl, durable_openbao, openbao
from scripts.benchmarks.timing import Contestant, Sample, timed
from scripts.benchmarks.workshop import DASKPKI, Workshop

COUNT: Final = 3000
ROUNDS: Final = 5
OURS: Final = "daskpki issue --count"
CFSSL: Final = "cfssl serve, keeping nothing"
RECORDING: Final = "cfssl serve, with its database"
OPENBAO: Final = "OpenBao over HTTP, in memory"
DURABLE: Final = "OpenBao over HTTP, on disk (raft)"
_GOALS: Final = (
    Goal(RECORDING, 1, "ahead of cfssl serve when it keeps certificates, as daskpki does"),
    Goal(DURABLE, 1, "ahead of OpenBao on a disk, as daskpki is"),
)
_ABOUT: Final = (
    f"{COUNT:,} leaves with a new P-256 key each. For daskpki the whole process counts, from start to exit, and each"
    " leaf is sealed, recorded and durable in the local store. The servers run already and answer a load generator"
    " (`hey`, 4 connections kept alive, on the same machine), and so use all cores, where daskpki signs on one. Each"
    " runs twice: keeping nothing on a disk, and keeping certificates there. cfssl never keeps keys, and neither"
    " validates what it signed."
)

Rate = Callable[[int], float]


def many_leaves(workshop: Workshop) -> Section:
    """Run the benchmark."""
    missing: list[str] = []
    with ExitStack() as stack:
        rates: dict[str, Rate] = {OURS: _daskpki(workshop)}
        for label, make in _PEERS.items():
            try:
                rates[label] = make(workshop, stack)
            except Unavailable as reason:
                missing.append(str(reason))
        values = {label: [] for label in rates}  # type: dict[str, list[float]]
        for number in range(1 + min(ROUNDS, workshop.rounds)):
            for label, rate in rates.items():
                values[label].append(rate(number))
    samples = [Sample(label, tuple(counted[1:])) for label, counted in values.items()]  # the first warms up
    return Section("Many leaves", _ABOUT, OURS, samples, _GOALS, rate=True, missing=missing)


def _daskpki(workshop: Workshop) -> Rate:
    def rate(number: int) -> float:
        directory = workshop.new_directory(f"bulk-{number}")
        store = ["--store", f"local:{directory / 'store'}", "--key-file", directory / "unlock", "--quiet"]
        timed(Contestant("daskpki init-ca", lambda _: [DASKPKI, *store, "init-ca"]))
        issue = ["issue", "worker", "--name", "w", "--count", str(COUNT)]
        return COUNT / timed(Contestant(OURS, lambda _: [DASKPKI, *store, *issue]))

    return rate


def _cfssl(workshop: Workshop, stack: ExitStack, *, recording: bool = False) -> Rate:
    directory = workshop.directory / ("cfssl-recording" if recording else "cfssl")
    url = stack.enter_context(cfssl(workshop.peers.cfssl, directory, recording=recording))
    key = {"algo": "ecdsa", "size": 256}
    request = {"request": {"CN": "w", "hosts": ["w.worker.bench.internal"], "key": key}}
    return _load(workshop, url, request, ())


def _openbao(workshop: Workshop, stack: ExitStack, *, durable: bool = False) -> Rate:
    serve, name = (durable_openbao, "openbao-durable") if durable else (openbao, "openbao-memory")
    client = stack.enter_context(serve(workshop.peers.bao, workshop.directory / name))
    header = ("-H", f"X-Vault-Token: {client['BAO_TOKEN']}")
    url = f"{client['BAO_ADDR']}/v1/pki/issue/worker"
    return _load(workshop, url, {"common_name": "w.worker.bench.internal"}, header)


_PEERS: Final[dict[str, Callable[[Workshop, ExitStack], Rate]]] = {
    CFSSL: _cfssl,
    RECORDING: partial(_cfssl, recording=True),
    OPENBAO: _openbao,
    DURABLE: partial(_openbao, durable=True),
}


def _load(workshop: Workshop, url: str, request: object, options: Sequence[str]) -> Rate:
    body = workshop.directory / f"{url.rpartition('/')[2]}.json"
    body.write_text(json.dumps(request))
    command: list[str | Path] = [workshop.peers.hey, "-n", str(COUNT), "-c", "4", "-m", "POST", "-D", body]
    command += ["-T", "application/json", *options, url]

    def rate(_number: int) -> float:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        answers = sum(map(int, re.findall(r"\[200\]\s+(\d+) responses", said)))
        total = re.search(r"Total:\s+([\d.]+) secs", said)
        if answers != COUNT or total is None:
            raise RuntimeError(f"{url} answered {answers} of {COUNT}: {said}")
        return COUNT / float(total[1])

    return rate
