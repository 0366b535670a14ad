"""Every parser of bytes that others wrote, with what it may raise and bytes to begin from."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException, HTTPResponse
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

import msgpack
from tornado.iostream import StreamClosedError

from daskpki.boot.google import parse_refusal
from daskpki.boot.http import TryAgain, read_reply
from daskpki.cluster import no_pickle
from daskpki.cluster.comm import read_frames
from daskpki.confidential import Confidential
from daskpki.credentials.contexts import parse_context, parse_scheduler
from daskpki.credentials.credential_files import load_file
from daskpki.credentials.saved_logins import parse_entry
from daskpki.errors import DaskpkiError
from daskpki.handover import parse_handover
from daskpki.pki import pem
from daskpki.pki.certificates import certificate_identity, der, load_certificate, permitted_dns
from daskpki.pki.credential import parse_credential
from daskpki.pki.crl import Revocation, crl_pem, sign_crl
from daskpki.pki.csr import create_request, parse_request, request_pem
from daskpki.pki.keys import parse_key, serialize_key
from daskpki.pki.trust import verify_trust
from daskpki.pki.trust_document import parse_trust
from daskpki.pki.verify import check_purpose
from daskpki.store.encryption import open_with_key, seal_with_key
from daskpki.store.gsm.log_format import decode_part
from daskpki.store.local.backup import read_backup
from tests.support.pki_material import NOW, authority, identity, key, leaf, parse_crl

HERE: Final = Path(__file__).parent
FORMATS: Final = HERE.parent / "formats" / "data" / "format-1"
_MIB: Final = 1 << 20
_SOCKET_BUFFER: Final = 1 << 16


class Target(NamedTuple):
    """`parse` may raise `refusals` and nothing else; `seeds` are whole examples, beside those in `corpus/NAME`."""

    parse: Callable[[bytes], object]
    seeds: Sequence[bytes]
    refusals: tuple[type[Exception], ...] = (DaskpkiError,)

    def run(self, data: bytes) -> None:
        """One input; whatever else is raised is a fault, and so is a refusal without words."""
        try:
            self.parse(data)
        except self.refusals as error:
            assert str(error) or not isinstance(error, DaskpkiError)


def _certificate(data: bytes) -> None:
    found = load_certificate(data)
    permitted_dns(found)
    for judge in (certificate_identity, check_purpose):
        try:
            judge(found)
        except DaskpkiError:
            continue


def _trust(data: bytes) -> None:
    signed = parse_trust(Confidential(data))
    verify_trust(signed, now=NOW, cluster=signed.document.cluster)


def _reply(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:_SOCKET_BUFFER])
        theirs.shutdown(socket.SHUT_WR)
        with HTTPResponse(ours) as response:
            response.begin()
            parse_refusal(read_reply(response, inf))


def _login(data: bytes) -> object:
    found = parse_context(data)
    return found.credential(None), found.ca_sha256


def _message(data: bytes, decode: Callable[[list[bytes]], object] = no_pickle.decode) -> None:
    """Frames as one input: a byte of count, two bytes of length each, then what they hold."""
    count, rest = (data[0] % 5, data[1:]) if data else (0, b"")
    frames: list[bytes] = []
    for _ in range(count):
        length = int.from_bytes(rest[:2], "little")
        frames.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    decode([*frames, rest])


class _Stream:
    """The reading half of a tornado IOStream over bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read_bytes(self, count: int) -> bytes:
        if count > len(self._data):
            raise StreamClosedError
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    async def read_into(self, buffer: memoryview) -> int:
        buffer[:] = await self.read_bytes(buffer.nbytes)
        return buffer.nbytes


def _frames(data: bytes) -> None:
    reading = read_frames(_Stream(data), _MIB)
    with contextlib.suppress(StopIteration):  # nothing waits there, so the coroutine ends at its first step
        reading.send(None)


def _in_file(read: Callable[[Path], object], data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        file = Path(directory) / "file"
        file.write_bytes(data)
        file.chmod(0o600)
        read(file)


_BOX: Final = Confidential(bytes(32))
_ISSUER: Final = authority()
_LEAF: Final = der(leaf(_ISSUER))
_CRL: Final = sign_crl(_ISSUER, [Revocation(5, 0, "superseded")], number=1, now=NOW)
_CSR: Final = create_request(key(), "default", identity())
_TRUST: Final = (FORMATS / "trust.json").read_bytes()
_BACKUP: Final = (FORMATS / "store.backup").read_bytes()
_SET: Final = msgpack.packb({"op": "x", "s": {"__Set__": True, "as-list": [1]}})
_SERIALIZED: Final = msgpack.packb({"num-sub-frames": 1})
_POINTS: Final = msgpack.packb({"a": {"__Serialized__": 1}})
_BUNDLE: Final = (
    pem.encode_pem(serialize_key(key()).reveal(), pem.PRIVATE_KEY) + pem.encode_pem(_LEAF, pem.CERTIFICATE)
).encode()
_UTF8: Final = "utf-8"


def _framed(*frames: bytes) -> bytes:
    *first, last = frames
    return bytes([len(first)]) + b"".join(len(frame).to_bytes(2, "little") + frame for frame in first) + last


TARGETS: Final[dict[str, Target]] = {
    "pem": Target(pem.parse_certificates, [pem.encode_pem(_LEAF, pem.CERTIFICATE).encode()]),
    "certificate": Target(_certificate, [_LEAF, der(_ISSUER.root)]),
    "key": Target(lambda data: parse_key(Confidential(data)), [serialize_key(key()).reveal()]),
    "csr": Target(parse_request, [_CSR, request_pem(_CSR).encode()]),
    "crl": Target(parse_crl, [_CRL, crl_pem(_CRL).encode()]),
    "trust": Target(_trust, [_TRUST]),
    "credential": Target(
        lambda data: parse_credential(Confidential(data)),
        [(FORMATS / "credential.json").read_bytes()],
    ),
    "login": Target(_login, [(FORMATS / "login.json").read_bytes()]),
    "entry": Target(lambda data: parse_entry(Confidential(data)), [(FORMATS / "login.entry").read_bytes()]),
    "handover": Target(parse_handover, [b'{"format":1}']),
    "address": Target(
        lambda data: parse_scheduler(data.decode(_UTF8, "replace")), [b"tls://10.0.0.5:8786", b"tls://[::1]"]
    ),
    "message": Target(_message, [_framed(_SET), _framed(_POINTS, _SERIALIZED, b"x")], (no_pickle.UnsafeMessageError,)),
    "sealed_message": Target(
        partial(_message, decode=partial(no_pickle.decode, keeps_pickles=True)),
        [_framed(_SET), _framed(_POINTS, _SERIALIZED, b"x")],
        (no_pickle.UnsafeMessageError,),
    ),
    "frames": Target(
        _frames,
        [(16).to_bytes(8, "little") + (1).to_bytes(8, "little") + (1).to_bytes(8, "little") + b"\x80"],
        (
            struct.error,
            AssertionError,
            ValueError,
            OverflowError,
            MemoryError,
            StreamClosedError,
        ),  # PkiTLS ends on these
    ),
    "reply": Target(
        _reply,
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 403 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            b"HTTP/1.0 404 x\r\n\r\n" + json.dumps({"error": {"message": "m", "status": "NOT_FOUND"}}).encode(),
        ],
        (DaskpkiError, TryAgain, HTTPException, ValueError),  # as Connection.get translates them
    ),
    "records": Target(decode_part, [(FORMATS / name).read_bytes() for name in ("records.head", "records.segment")]),
    "sealed": Target(lambda data: open_with_key(data, _BOX, context=b"c"), [seal_with_key(_BOX, _BOX, context=b"c")]),
    "bundle": Target(partial(_in_file, partial(load_file, cluster="default")), [_BUNDLE]),
    "backup": Target(
        partial(_in_file, read_backup),
        [_BACKUP, _BACKUP.replace(b"store_id TEXT NOT NULL,", b"store_id TEXT NOT NULL\xcc")],
    ),
}


def inputs(name: str) -> list[bytes]:
    """The seeds of a target, and what was kept of earlier runs."""
    return [*TARGETS[name].seeds, *(path.read_bytes() for path in sorted((HERE / "corpus" / name).glob("*")))]
