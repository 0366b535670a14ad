"""The search for keys finds a planted one in every form in which it could be lying around."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from daskpki.confidential import Confidential
from daskpki.pki import pem
from daskpki.pki.keys import KeyType, generate_key, serialize_key
from tests.support.key_search import Canary

KEYS = {kind: serialize_key(generate_key(kind)) for kind in KeyType}


def forms(key: Confidential) -> dict[str, bytes]:
    der = key.reveal()
    text = pem.encode_pem(der, pem.PRIVATE_KEY)
    return {
        "DER": b"junk" + der + b"junk",
        "hex": der.hex().encode(),
        "PEM": text.encode(),
        "PEM in JSON": json.dumps({"key": text}).encode(),
        "PEM in a repr": repr({"key": text}).encode(),
        "PEM without line breaks": text.replace("\n", "").encode(),
        **{f"base64 after {n} bytes": base64.b64encode(b"x" * n + der + b"yy") for n in range(3)},
        **{f"base64url after {n} bytes": base64.urlsafe_b64encode(b"x" * n + der) for n in range(3)},
        "base64 of the PEM": base64.b64encode(text.encode()),
    }


@pytest.mark.parametrize("kind", list(KeyType))
@pytest.mark.parametrize("form", forms(KEYS[KeyType.P256]))
def test_a_planted_key_is_found(kind: KeyType, form: str, tmp_path: Path) -> None:
    canary = Canary({kind.value: KEYS[kind]})
    (tmp_path / "planted").write_bytes(forms(KEYS[kind])[form])
    findings = canary.in_files([tmp_path])
    assert {finding.key for finding in findings} == {kind.value}
    assert canary.in_files([tmp_path], exempt=[tmp_path / "planted"]) == []


def test_another_key_is_not_mistaken_for_it(tmp_path: Path) -> None:
    other = forms(serialize_key(generate_key(KeyType.P256)))
    for number, data in enumerate(other.values()):
        (tmp_path / str(number)).write_bytes(data)
    assert Canary({"p256": KEYS[KeyType.P256]}).in_files([tmp_path]) == []
