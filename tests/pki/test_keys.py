"""A Ctrl-C while a signature is verified ends the program, and is not taken for a wrong signature."""

from __future__ import annotations

import asyncio
import signal
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from daskpki.identity import Identity, Role
from daskpki.pki import keys
from daskpki.pki.crl import verify_crl
from daskpki.pki.csr import create_request, parse_request
from daskpki.pki.verify import verify_leaf
from tests.support.cluster_material import Authority


def leaf() -> Callable[[], object]:
    authority = Authority()
    document, found = authority.document(), authority.leaf(Role.WORKER).credential
    domain = document.trust_domain
    now = datetime.now(UTC)
    return lambda: verify_leaf(found.leaf, found.chain, document.roots, now=now, trust_domain=domain)


def crl() -> Callable[[], object]:
    authority = Authority()
    document = authority.document()
    issuer = x509.load_der_x509_certificate(document.roots[0])
    return lambda: verify_crl(zlib.decompress(document.crls[0].compressed), issuer)


def request() -> Callable[[], object]:
    data = create_request(keys.generate_key(keys.KeyType.P256), "lab", Identity("lab.test", Role.CLIENT, "alice"))
    return lambda: parse_request(data)


def raise_during_verification(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the signal while the library makes an object of Python, where a handler may run."""
    original = ec.ECDSA.__init__

    def make_and_signal(self: ec.ECDSA, algorithm: Any, **options: Any) -> None:
        signal.raise_signal(number)
        original(self, algorithm, **options)

    monkeypatch.setattr(ec.ECDSA, "__init__", make_and_signal)


@pytest.mark.parametrize("make", [leaf, crl, request])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_verification_is_no_wrong_signature(
    make: Callable[[], Callable[[], object]], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = make()
    verify()

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, end)
    try:
        raise_during_verification(number, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            verify()
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_an_event_loop_handles_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node takes a second SIGTERM for a wish to end at once."""
    verify, came = leaf(), []

    async def scenario() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: came.append("TERM"))
        raise_during_verification(signal.SIGTERM, monkeypatch)
        verify()
        monkeypatch.undo()
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert came == ["TERM"]
