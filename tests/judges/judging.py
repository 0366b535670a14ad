"""The judges: each is told where it may write, and says of each case what it finds wrong, "" for nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from asn1crypto.crl import CertificateList
from asn1crypto.x509 import Certificate
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.errors import PathError, ValidationError

from daskpki.identity import Role
from daskpki.pki.certificates import der
from daskpki.pki.keys import KeyType, serialize_key
from daskpki.pki.pem import CERTIFICATE, encode_pem
from daskpki.pki.profile import LeafRequest
from tests.judges.cases import (
    ACCEPTED,
    CONSTRAINT,
    DNS,
    EXPIRED,
    FOREIGN,
    NOW,
    PURPOSE,
    REVOKED,
    SERVER,
    STRANGER,
    Case,
    authority,
)
from tests.support.paths import BIN
from tests.support.pki_material import identity, key, leaf

HERE: Final = Path(__file__).parent
_EKU: Final = {"server": "1.3.6.1.5.5.7.3.1", "client": "1.3.6.1.5.5.7.3.2"}
_CRL: Final = "X509 CRL"
_SERVES, _CALLS = "server_auth", "client_auth"

Verdicts = Mapping[str, str]


class Judge(NamedTuple):
    """How to ask it, the words of its refusals, and what it does not know: kinds of keys, and reasons without words.

    `heeds_anchor` is whether it applies the name constraints of the trust anchor itself.
    """

    ask: Callable[[Sequence[Case], Path], Verdicts]
    words: Mapping[str, str]
    unread: frozenset[KeyType] = frozenset()
    heeds_anchor: bool = True
    in_long_runs: bool = False

    def knows(self, case: Case) -> bool:
        """Whether its word on the case means something."""
        if case.kind in self.unread:
            return False
        return case.verdict == ACCEPTED or case.verdict in self.words

    def accepts(self, case: Case) -> bool:
        """Whether it accepts the case. A trust anchor's own constraints bind no path below it (RFC 5280, 6.1.1 (d))."""
        return case.verdict == ACCEPTED or (case.verdict == CONSTRAINT and not case.chain and not self.heeds_anchor)


def _openssl(cases: Sequence[Case], directory: Path) -> Verdicts:
    def command(case: Case, files: _Files) -> list[str | Path]:
        options: list[str | Path] = ["-x509_strict", "-crl_check_all", "-purpose", f"ssl{case.purpose}"]
        return [
            "openssl",
            "verify",
            *options,
            "-CAfile",
            files.root,
            "-untrusted",
            files.chain,
            "-CRLfile",
            files.crls,
            files.leaf,
        ]

    return _each(cases, directory, command)


def _gnutls(cases: Sequence[Case], directory: Path) -> Verdicts:
    def command(case: Case, files: _Files) -> list[str | Path]:
        known: list[str | Path] = ["--load-ca-certificate", files.root, "--load-crl", files.crls]
        return ["certtool", "--verify", *known, "--verify-purpose", _EKU[case.purpose], "--infile", files.chain]

    return _each(cases, directory, command)


class _Files(NamedTuple):
    leaf: Path
    chain: Path
    root: Path
    crls: Path


def _each(
    cases: Sequence[Case], directory: Path, command: Callable[[Case, _Files], Sequence[str | Path]]
) -> dict[str, str]:
    files = _Files(*(directory / f"{name}.pem" for name in _Files._fields))
    verdicts = {}
    for case in cases:
        files.leaf.write_text(_pem([case.leaf]))
        files.chain.write_text(_pem([case.leaf, *case.chain]))
        files.root.write_text(_pem([case.root]))
        files.crls.write_text(_crl_pem(case))
        done = subprocess.run(command(case, files), capture_output=True, text=True, check=False)
        verdicts[case.name] = "" if done.returncode == 0 else done.stdout + done.stderr
    return verdicts


def _nss(cases: Sequence[Case], directory: Path) -> Verdicts:
    """One database for each CA, since a list belongs to an issuer."""
    verdicts: dict[str, str] = {}
    for number, (root, several) in enumerate(groupby(sorted(cases, key=_root_of), key=_root_of)):
        place = directory / f"nss-{number}"
        place.mkdir()
        judged = list(several)
        _certutil(place, "-N", "--empty-password")
        _certutil(place, "-A", "-n", "root", "-t", "CT,,", data=root)
        for position, der_ in enumerate(judged[0].chain):
            _certutil(place, "-A", "-n", f"ca-{position}", "-t", ",,", data=der_)
        for crl in judged[0].crls:
            (place / "crl.der").write_bytes(crl)
            _run("crlutil", "-I", "-d", f"sql:{place}", "-i", str(place / "crl.der"), "-B")
        for case in judged:
            position = [other.leaf for other in judged].index(case.leaf)  # a certificate has one nickname only
            if case is judged[position]:
                _certutil(place, "-A", "-n", f"leaf-{position}", "-t", ",,", data=case.leaf)
            usage = "V" if case.purpose == SERVER else "C"
            command = ["certutil", "-V", "-d", f"sql:{place}", "-n", f"leaf-{position}", "-u", usage, "-e"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            verdicts[case.name] = "" if done.returncode == 0 else done.stdout + done.stderr
    return verdicts


def _root_of(case: Case) -> bytes:
    return case.root


def _certutil(place: Path, *options: str, data: bytes | None = None) -> None:
    given: list[str] = []
    if data is not None:
        (place / "given.der").write_bytes(data)
        given = ["-i", str(place / "given.der")]
    _run("certutil", *options, "-d", f"sql:{place}", *given)


def _pyca(cases: Sequence[Case], _directory: Path) -> Verdicts:
    def judge(case: Case) -> None:
        load = x509.load_der_x509_certificate
        builder = PolicyBuilder().store(Store([load(case.root)])).time(NOW)
        chain = [load(entry) for entry in case.chain]
        if case.purpose == SERVER:
            name = FOREIGN if case.verdict == CONSTRAINT else DNS
            builder.build_server_verifier(x509.DNSName(name)).verify(load(case.leaf), chain)
        else:
            builder.build_client_verifier().verify(load(case.leaf), chain)

    return _in_process(cases, judge, VerificationError)


def _pyhanko(cases: Sequence[Case], _directory: Path) -> Verdicts:
    def judge(case: Case) -> None:
        context = ValidationContext(
            trust_roots=[Certificate.load(case.root)],
            crls=[CertificateList.load(crl) for crl in case.crls],
            revocation_mode="require",
            allow_fetching=False,
            moment=NOW,
        )
        chain = [Certificate.load(entry) for entry in case.chain]
        validator = CertificateValidator(Certificate.load(case.leaf), chain, validation_context=context)
        usage = validator.async_validate_usage(set(), {_SERVES if case.purpose == SERVER else _CALLS})
        asyncio.run(usage)

    return _in_process(cases, judge, (PathError, ValidationError))


def _in_process(
    cases: Sequence[Case], judge: Callable[[Case], None], refusals: type[Exception] | tuple[type[Exception], ...]
) -> dict[str, str]:
    verdicts = {}
    for case in cases:
        verdicts[case.name] = ""
        try:
            judge(case)
        except refusals as error:
            verdicts[case.name] = str(error) or type(error).__name__
    return verdicts


def _node(cases: Sequence[Case], _directory: Path) -> Verdicts:
    def presented(case: Case) -> dict[str, object]:
        pem = {"pem": _pem([case.leaf, *case.chain]), "root": _pem([case.root]), "key": _key(case.kind)}
        return {"name": case.name, "purpose": case.purpose, "crls": [encode_pem(crl, _CRL) for crl in case.crls], **pem}

    usual = KeyType.P256
    served = leaf(authority(1, usual).issuer, LeafRequest(identity(Role.SCHEDULER, "s"), (DNS,)), now=NOW)
    other = {"cert": _pem([der(served)]), "key": _key(usual)}
    given = json.dumps({"cases": [presented(case) for case in cases], "other": other})
    return _verdicts(json.loads(_run("node", str(HERE / "judge.mjs"), given=given)))


def _key(kind: KeyType) -> str:
    return encode_pem(serialize_key(key(kind)).reveal(), "PRIVATE KEY")


def _go(cases: Sequence[Case], directory: Path) -> Verdicts:
    def fields(case: Case) -> dict[str, object]:
        many = {"chain": [*map(_base64, case.chain)], "crls": [*map(_base64, case.crls)]}
        return {
            "name": case.name,
            "purpose": case.purpose,
            "leaf": _base64(case.leaf),
            "root": _base64(case.root),
            **many,
        }

    program = directory / "judge"
    places = {"GOCACHE": str(directory / "cache"), "GOPATH": str(directory / "path"), "GOTOOLCHAIN": "local"}
    build = [str(BIN / "go"), "build", "-o", str(program), str(HERE / "judge.go")]
    subprocess.run(build, env={**os.environ, **places}, check=True, capture_output=True)
    return _verdicts(json.loads(_run(str(program), given=json.dumps([fields(case) for case in cases]))))


def _java(cases: Sequence[Case], _directory: Path) -> Verdicts:
    def line(case: Case) -> str:
        path, crls = (",".join(map(_base64, several)) for several in ((case.leaf, *case.chain), case.crls))
        return "\t".join([case.name, case.purpose, path, _base64(case.root), crls])

    said = _run("java", str(HERE / "Judge.java"), given="\n".join(map(line, cases)))
    return dict(_tabbed(said))


def _tabbed(text: str) -> Iterator[tuple[str, str]]:
    for entry in text.splitlines():
        name, _, verdict = entry.partition("\t")
        yield name, verdict


def _verdicts(found: object) -> dict[str, str]:
    assert isinstance(found, dict)
    return {str(name): str(verdict) for name, verdict in found.items()}


def _run(*command: str, given: str | None = None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _pem(certificates: Iterable[bytes]) -> str:
    return "".join(encode_pem(entry, CERTIFICATE) for entry in certificates)


def _crl_pem(case: Case) -> str:
    return "".join(encode_pem(crl, _CRL) for crl in case.crls)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


JUDGES: Final = {
    "OpenSSL": Judge(
        _openssl,
        {
            EXPIRED: "certificate has expired",
            REVOKED: "certificate revoked",
            PURPOSE: "unsuitable certificate purpose",
            CONSTRAINT: "permitted subtree violation",
            STRANGER: "unable to get local issuer|signature failure|unable to verify",
        },
    ),
    "GnuTLS": Judge(
        _gnutls,
        {
            EXPIRED: "expired",
            REVOKED: "revoked",
            PURPOSE: "purpose",
            CONSTRAINT: "constraints",
            STRANGER: "issuer is unknown|signature in the certificate is invalid",
        },
    ),
    "NSS": Judge(
        _nss,
        {
            EXPIRED: "expired",
            REVOKED: "revoked",
            PURPOSE: "inadequate for operation|not approved|type not approved",
            CONSTRAINT: "not permitted|not in the name space|issuer is not recognized",  # the last one from 3.110 on
            STRANGER: "issuer is not recognized|signature|Unknown",
        },
        frozenset({KeyType.ED25519}),  # NSS reads no Ed25519 in certificates before 3.102
    ),
    "pyca": Judge(
        _pyca,
        {  # it knows no revocation lists
            EXPIRED: "validity|valid at",
            PURPOSE: "EKU|extended key usage",
            CONSTRAINT: "constraint|permitted",
            STRANGER: "candidates exhausted|signature",
        },
    ),
    "pyhanko": Judge(
        _pyhanko,
        {
            EXPIRED: "expired",
            REVOKED: "revoked",
            PURPOSE: "not valid for the purpose",
            CONSTRAINT: "permitted",
            STRANGER: "issuer|signature",
        },
        heeds_anchor=False,
    ),
    "Node": Judge(
        _node,
        {
            EXPIRED: "CERT_HAS_EXPIRED",
            REVOKED: "CERT_REVOKED",
            PURPOSE: "INVALID_PURPOSE",
            CONSTRAINT: "UNSPECIFIED",
            STRANGER: "UNABLE_TO|SIGNATURE",
        },
    ),
    "Go": Judge(
        _go,
        {
            EXPIRED: "expired",
            REVOKED: "revoked",
            PURPOSE: "incompatible key usage",
            CONSTRAINT: "not permitted by any constraint",
            STRANGER: "unknown authority",
        },
        in_long_runs=True,  # its library is compiled first, which takes most of a minute
    ),
    "Java": Judge(
        _java,
        {
            EXPIRED: "EXPIRED",
            REVOKED: "REVOKED",
            PURPOSE: "target certificate constraints check failed",
            CONSTRAINT: "INVALID_NAME|constraints",
            STRANGER: "INVALID_SIGNATURE|NAME_CHAINING|NO_TRUST_ANCHOR",
        },
        heeds_anchor=False,
        in_long_runs=True,  # a JDK is a download of 200 MB
    ),
}
