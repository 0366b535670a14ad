"""Many leaves: `daskpki issue --count N` against CA servers under load, in leaves per second."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from scripts.benchmarks.peers import Unavailable
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.servers import BAO_TOKEN, cfssl, openbao
from scripts.benchmarks.timing import Contestant, Sample, timed
from scripts.benchmarks.workshop import DASKPKI, Workshop

COUNT: Final = 3000
ROUNDS: Final = 5
OURS: Final = "daskpki issue --count"
CFSSL: Final = "cfssl serve"
OPENBAO: Final = "OpenBao over HTTP"
_GOALS: Final = (
    Goal(CFSSL, 1, "ahead of cfssl serve"),
    Goal(OPENBAO, 1, "ahead of OpenBao over HTTP"),
)
_ABOUT: Final = (
    f"{COUNT:,} leaves with a new P-256 key each. For daskpki the whole process counts, from start to exit, and each"
    " leaf is sealed, recorded and durable in the local store. The servers run already and answer a load generator"
    " (`hey`, 4 connections kept alive, on the same machine); neither puts anything on a disk here: OpenBao keeps"
    " certificates in memory, cfssl does not keep any."
)

Rate = Callable[[int], float]


def many_leaves(workshop: Workshop) -> Section:
    """Run the benchmark."""
    missing: list[str] = []
    with ExitStack() as stack:
        rates: dict[str, Rate] = {OURS: _daskpki(workshop)}
        for label, make in ((CFSSL, _cfssl), (OPENBAO, _openbao)):
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


def _cfssl(workshop: Workshop, stack: ExitStack) -> Rate:
    url = stack.enter_context(cfssl(workshop.peers.cfssl, workshop.directory / "cfssl"))
    key = {"algo": "ecdsa", "size": 256}
    request = {"request": {"CN": "w", "hosts": ["w.worker.bench.internal"], "key": key}}
    return _load(workshop, url, request, ())


def _openbao(workshop: Workshop, stack: ExitStack) -> Rate:
    client = stack.enter_context(openbao(workshop.peers.bao, workshop.directory / "openbao-server"))
    header = ("-H", f"X-Vault-Token: {BAO_TOKEN}")
    url = f"{client['BAO_ADDR']}/v1/pki/issue/worker"
    return _load(workshop, url, {"common_name": "w.worker.bench.internal"}, header)


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
