"""Validators that are not ours: pkilint in-process (its start-up costs a second), OpenSSL as its users call it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pkilint import loader, pkix, validation
from pkilint.bin import lint_pkix_signer_signee_cert_chain as pair_linter
from pkilint.pkix import certificate, crl, extension, name

from daskpki.pki.pem import CERTIFICATE, encode_pem

# pkilint takes every URI for an http-like one, and refuses `spiffe://` for it.
FALSE_POSITIVE = "pkix.invalid_uri_syntax"


def lint_certificate(der: bytes) -> list[str]:
    """What `lint_pkix_cert lint -s NOTICE` reports, less the one false positive."""
    document = loader.RFC5280CertificateDocumentLoader().load_der_document(der)
    return _findings(_certificate_linter().validate(document.root))


def lint_crl(der: bytes) -> list[str]:
    """What `lint_crl lint -t CRL -p PKIX -s NOTICE` reports."""
    document = loader.RFC5280CertificateListDocumentLoader().load_der_document(der)
    return _findings(_crl_linter().validate(document.root))


def lint_pair(issuer: bytes, subject: bytes) -> list[str]:
    """What `lint_pkix_signer_signee_cert_chain lint -s NOTICE` reports."""
    load = loader.RFC5280CertificateDocumentLoader().load_der_document
    documents: dict[str, Any] = {}
    documents["issuer"] = load(issuer, "issuer", "issuer", documents)
    documents["subject"] = load(subject, "subject", "subject", documents)
    decoding = pair_linter.create_decoder_validation_container()
    results = [result for document in documents.values() for result in decoding.validate(document.root)]
    results += pair_linter.create_issuer_validation_container().validate(documents["issuer"].root)
    results += pair_linter.create_subject_validation_container().validate(documents["subject"].root)
    return _findings(results)


@cache
def _certificate_linter() -> Any:
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


@cache
def _crl_linter() -> Any:
    return crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


def _findings(results: Iterable[Any]) -> list[str]:
    found = [description for result in results for description in result.finding_descriptions]
    serious = [entry for entry in found if entry.finding.severity <= validation.ValidationFindingSeverity.NOTICE]
    return [str(entry) for entry in serious if entry.finding.code != FALSE_POSITIVE]


def openssl_verify(
    leaf: bytes,
    chain: Sequence[bytes],
    root: bytes,
    *,
    purpose: str,
    crl: bytes | None = None,
    at: datetime | None = None,
) -> str:
    """Empty when `openssl verify -x509_strict` accepts the leaf (at a faked time), else what it says."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_pem(place / "root.pem", [root])
        write_pem(place / "chain.pem", chain)
        write_pem(place / "leaf.pem", [leaf])
        options = ["-x509_strict", "-purpose", purpose, "-CAfile", str(place / "root.pem")]
        if chain:
            options += ["-untrusted", str(place / "chain.pem")]
        if crl is not None:
            (place / "crl.pem").write_text(encode_pem(crl, "X509 CRL"))
            options += ["-crl_check", "-CRLfile", str(place / "crl.pem")]
        clock = [] if at is None else ["faketime", "-f", f"{at:%Y-%m-%d %H:%M:%S}"]
        return _verdict([*clock, "openssl", "verify", *options, str(place / "leaf.pem")])


def write_pem(path: Path, certificates: Iterable[bytes]) -> None:
    """Certificates (DER) as one PEM file."""
    path.write_text("".join(encode_pem(der, CERTIFICATE) for der in certificates))


def _verdict(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"TZ": "UTC", "PATH": os.environ["PATH"]}
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
