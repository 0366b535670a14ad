"""A VM's boot: the entrypoint, from start to exec, against other ways to fetch the same from Secret Manager."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from sys import executable
from typing import Final

from scripts.benchmarks.peers import Unavailable
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.servers import secret_manager
from scripts.benchmarks.timing import Contestant, race, timed
from scripts.benchmarks.workshop import CONTESTANTS, DASKPKI, Workshop

OURS: Final = "daskpki-entrypoint worker"
BARE: Final = "bare script, Python's standard library"
OFFICIAL: Final = "official client over gRPC"
GCLOUD: Final = "shell script of gcloud"
PROJECT: Final = "benchmark-project"
_PROGRAM: Final = "true"
_GOALS: Final = (
    Goal(OFFICIAL, 1 / 2, "at least 2 times faster than the official client"),
    Goal(GCLOUD, 1 / 8, "at least 8 times faster than gcloud"),
)
_ABOUT: Final = (
    "From start to the moment of exec (what is executed there ends at once, instead of Dask), against the project's own"
    " Secret Manager and metadata servers on loopback: a token, the worker's credential, the trust document, and"
    " whether there is a newer one. Only the entrypoint checks what it fetched (checksums, signature, key, chain, role,"
    " trust domain, validity, revocation) and retries; cryptography's X.509, which it loads for that, is most of the"
    " difference to the bare script. The gcloud script asks for no newer trust document and needs no token here."
)


def boot(workshop: Workshop) -> Section:
    """Run the benchmark."""
    missing: list[str] = []
    with secret_manager(PROJECT) as servers:
        environment = {**servers, "DASKPKI_STORE": f"gsm://{PROJECT}", "DASKPKI_QUIET": "1"}
        environment["DASKPKI_SCHEDULER"] = "tls://127.0.0.1:8786"
        timed(Contestant("daskpki init-ca", lambda _: [DASKPKI, "init-ca", "--with", "worker"], environment))
        contestants = [
            Contestant(OURS, lambda _: [executable, CONTESTANTS / "entrypoint.py", "worker"], environment),
            Contestant(BARE, lambda _: [executable, CONTESTANTS / "bare_boot.py", PROJECT, _PROGRAM], environment),
            _official(OFFICIAL, "grpc", environment),
            _official("official client over REST", "rest", environment),
        ]
        try:
            contestants.append(_gcloud(workshop, environment))
        except Unavailable as reason:
            missing.append(str(reason))
        samples = race(contestants, workshop.rounds)
    return Section("Boot of a VM", _ABOUT, OURS, samples, _GOALS, missing=missing)


def _official(label: str, transport: str, environment: Mapping[str, str]) -> Contestant:
    script = CONTESTANTS / "official_boot.py"
    return Contestant(label, lambda _: [executable, script, transport, PROJECT, _PROGRAM], environment)


def _gcloud(workshop: Workshop, environment: Mapping[str, str]) -> Contestant:
    workshop.peers.gcloud  # noqa: B018 - raises Unavailable
    tmpfs = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it
    directory = tempfile.mkdtemp(dir=tmpfs if tmpfs.is_dir() else workshop.directory)
    settings = {
        "CLOUDSDK_CONFIG": str(workshop.new_directory("gcloud")),
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
    }
    script = CONTESTANTS / "gcloud_boot.sh"
    return Contestant(GCLOUD, lambda _: [script, PROJECT, directory, _PROGRAM], {**environment, **settings})
