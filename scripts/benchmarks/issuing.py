"""One leaf, as a whole process: `daskpki issue` against scripts and programs that make one too."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from sys import executable
from typing import Final

from daskpki.files import write_private
from scripts.benchmarks.peers import Unavailable
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.servers import openbao
from scripts.benchmarks.timing import Contestant, race, timed
from scripts.benchmarks.workshop import CONTESTANTS, DASKPKI, Workshop
from tests.support.desktop import desktop

OURS: Final = "daskpki issue, random key file"
BARE: Final = "bare script, Python + cryptography"
EASYRSA: Final = "easy-rsa"
OPENBAO: Final = "OpenBao, warm, its CLI"
KEYRING: Final = "daskpki issue, OS keyring"
_GOALS: Final = (
    Goal(BARE, 1.5, "at most 1.5 times the bare script"),
    Goal(EASYRSA, 1, "faster than easy-rsa"),
    Goal(OPENBAO, 1, "faster than a warm OpenBao by its CLI"),
)
_ABOUT: Final = (
    "A new P-256 key and a leaf for it, signed by a P-256 CA that exists already; whole processes. daskpki checks the"
    " request, records it, signs, validates what it signed, seals it into the local store and confirms it, all durable"
    " (fsync). The bare script and openssl write two plain files and keep no record; trustme makes a new CA each time;"
    " OpenBao's server runs already, in memory. With a passphrase, scrypt (128 MiB) is most of the time, on purpose;"
    " with the keyring, a process of its own asks it."
)


def one_leaf(workshop: Workshop) -> Section:
    """Run the benchmark."""
    missing: list[str] = []
    with ExitStack() as stack:
        contestants = [_daskpki(workshop, OURS, "--key-file"), _bare(workshop)]
        for make in (_openssl, _easyrsa, _trustme, _openbao(stack), _keyring(stack)):
            try:
                contestants.append(make(workshop))
            except Unavailable as reason:
                missing.append(str(reason))
        contestants.append(_daskpki(workshop, "daskpki issue, passphrase", "--passphrase-file"))
        samples = race(contestants, workshop.rounds)
    return Section("One leaf", _ABOUT, OURS, samples, _GOALS, missing=missing)


def _daskpki(workshop: Workshop, label: str, option: str, environment: Mapping[str, str] | None = None) -> Contestant:
    directory = workshop.new_directory(label.rpartition(", ")[2].replace(" ", "-"))
    unlock = [option, directory / "unlock"] if option else []
    if option == "--passphrase-file":
        write_private(directory / "unlock", b"correct horse battery staple\n")
    common = [DASKPKI, "--store", f"local:{directory / 'store'}", *unlock, "--quiet"]
    timed(Contestant("daskpki init-ca", lambda _: [*common, "init-ca"], environment or {}))
    issue = [*common, "issue", "worker", "--name"]
    return Contestant(label, lambda number: [*issue, f"w{number}"], environment or {})


def _keyring(stack: ExitStack) -> Callable[[Workshop], Contestant]:
    def make(workshop: Workshop) -> Contestant:
        if not all(map(shutil.which, ("dbus-daemon", "gnome-keyring-daemon"))):
            raise Unavailable(f"{KEYRING}: needs Debian's gnome-keyring and dbus-x11")
        environment = stack.enter_context(desktop()).environ
        return _daskpki(workshop, KEYRING, "", environment)

    return make


def _bare(workshop: Workshop) -> Contestant:
    directory = _openssl_ca(workshop, "bare")
    return Contestant(BARE, lambda number: [executable, CONTESTANTS / "bare_issue.py", directory, f"w{number}"])


def _openssl(workshop: Workshop) -> Contestant:
    directory = _openssl_ca(workshop, "openssl")

    def command(number: int) -> Sequence[object]:
        names = f"DNS:w{number}.worker.bench.internal,URI:spiffe://bench.internal/worker/w{number}"
        extensions = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth,clientAuth",
            f"subjectAltName={names}",
        ]
        return [
            *(workshop.peers.openssl, "req", "-x509", *_NEW_KEY, "-days", "30", "-subj", f"/CN=w{number}"),
            *("-CA", directory / "ca.pem", "-CAkey", directory / "ca-key.pem"),
            *("-keyout", directory / f"w{number}-key.pem", "-out", directory / f"w{number}.pem"),
            *(word for extension in extensions for word in ("-addext", extension)),
        ]

    return Contestant("openssl CLI", command)


_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl_ca(workshop: Workshop, name: str) -> Path:
    directory = workshop.new_directory(name)
    files = ["-keyout", directory / "ca-key.pem", "-out", directory / "ca.pem"]
    command = ["req", "-x509", *_NEW_KEY, "-days", "3650", "-subj", "/CN=benchmark CA", *files]
    timed(Contestant("openssl req", lambda _: [workshop.peers.openssl, *command]))
    return directory


def _easyrsa(workshop: Workshop) -> Contestant:
    script = workshop.peers.easyrsa
    directory = workshop.new_directory("easyrsa")
    environment = {
        "EASYRSA": str(script.parent),
        "EASYRSA_PKI": str(directory / "pki"),
        "EASYRSA_BATCH": "1",
        "EASYRSA_ALGO": "ec",
        "EASYRSA_CURVE": "prime256v1",
    }
    timed(Contestant("easyrsa init-pki", lambda _: [script, "init-pki"], environment))
    timed(
        Contestant(
            "easyrsa build-ca", lambda _: [script, "build-ca", "nopass"], {**environment, "EASYRSA_REQ_CN": "CA"}
        )
    )
    return Contestant(EASYRSA, lambda number: [script, "build-server-full", f"w{number}", "nopass"], environment)


def _trustme(workshop: Workshop) -> Contestant:
    python = workshop.peers.trustme
    directory = workshop.new_directory("trustme")
    options = ["-q", "-k", "ECDSA", "-d", directory, "-i"]
    return Contestant(
        "trustme CLI", lambda number: [python, "-m", "trustme", *options, f"w{number}.worker.bench.internal"]
    )


def _openbao(stack: ExitStack) -> Callable[[Workshop], Contestant]:
    def make(workshop: Workshop) -> Contestant:
        program = workshop.peers.bao
        environment: Mapping[str, str] = stack.enter_context(openbao(program, workshop.directory / "openbao"))
        write = [program, "write", "-format=json", "pki/issue/worker"]
        return Contestant(OPENBAO, lambda number: [*write, f"common_name=w{number}.worker.bench.internal"], environment)

    return make
