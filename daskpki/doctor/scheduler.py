"""What a scheduler shows to strangers, judged: TLS, whose certificate, refused without one, no open dashboard. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from daskpki.doctor.finding import Finding, error, note, ok, warning
from daskpki.errors import DaskpkiError
from daskpki.identity import Role
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.profile import show
from daskpki.pki.trust_document import TrustDocument
from daskpki.pki.validate import verify_leaf


class Answer(StrEnum):
    """What came after the handshake."""

    REFUSED = "refused"
    ADMITTED = "admitted"
    SILENT = "silent"


class Dialled(NamedTuple):
    """One attempt: the leaf it showed (DER; None without TLS), what came then, and what went wrong in words.

    `mode` is what its greeting says a worker's certificate may do as a client (deny, limited, allow), if it says so.
    """

    leaf: bytes | None
    answer: Answer
    detail: str = ""
    reachable: bool = True
    mode: str | None = None


class Page(NamedTuple):
    """What answered on the dashboard's port: nothing (None), or the first line of an answer to a plain request."""

    status: str | None
    loopback: bool


def check_certificate(address: str, dialled: Dialled, trust: TrustDocument, now: datetime) -> Iterator[Finding]:
    """Whether it is a scheduler of this cluster. Whether it is revoked is for `daskpki verify` and the nodes to say."""
    if not dialled.reachable:
        yield error(address, f"nothing answers ({dialled.detail})", "check the scheduler, the address and the firewall")
        return
    if dialled.leaf is None and "alert" in dialled.detail:
        yield note(address, f"speaks TLS, and refused before it showed a certificate ({dialled.detail})")
        return
    if dialled.leaf is None:
        reason = f"what answers speaks no TLS ({dialled.detail})"
        yield error(address, reason, "start it by daskpki-entrypoint scheduler")
        return
    yield _judge_leaf(address, dialled.leaf, trust, now)


def _judge_leaf(address: str, leaf: bytes, trust: TrustDocument, now: datetime) -> Finding:
    chain = [certificate for anchor in trust.authorities for certificate in anchor.chain]
    try:
        identity = verify_leaf(leaf, chain, trust.roots, now=now, trust_domain=trust.trust_domain, role=Role.SCHEDULER)
    except DaskpkiError as failure:
        reason = f"its certificate is not that of a scheduler of cluster {trust.cluster}: {failure}"
        return error(address, reason, "daskpki renew scheduler/scheduler, or do not connect: it may be an impostor")
    begin, end = lifetime(load_certificate(leaf))
    if now.timestamp() >= begin + (end - begin) * 2 / 3:
        reason = f"{identity.uri} runs out at {show(end)}"
        return warning(address, reason, f"daskpki renew {identity.slug}; a running node takes it up by itself")
    return ok(address, f"{identity.uri}, valid until {show(end)}")


def check_stranger(address: str, dialled: Dialled) -> Iterator[Finding]:
    """Whoever shows no certificate has to be refused."""
    if dialled.leaf is None:
        return
    if dialled.answer is Answer.ADMITTED:
        yield error(address, "it talks to whoever shows no certificate", "start it by daskpki-entrypoint scheduler")
    elif dialled.answer is Answer.REFUSED:
        yield ok(address, f"refuses whoever shows no certificate ({dialled.detail})")
    else:
        yield note(address, "without a certificate, it neither refused nor answered in time", "ask again")


def check_friend(address: str, who: str, dialled: Dialled) -> Finding:
    """The control: whoever holds a credential of the cluster has to be let in, or the refusal above says nothing."""
    if dialled.answer is Answer.ADMITTED:
        return ok(address, f"admits {who}")
    reason = f"does not admit {who} ({dialled.detail or dialled.answer})"
    return error(address, reason, "daskpki whoami, and daskpki login for a fresh credential")


def check_mode(address: str, dialled: Dialled) -> Iterator[Finding]:
    """By which rules it goes, which it says to those whom it admits."""
    if dialled.answer is not Answer.ADMITTED:
        return
    if dialled.mode is None:
        reason = "it goes by Dask's own TLS, in which each certificate of the CA may do everything"
        yield warning(address, reason, "start it by daskpki-entrypoint scheduler")
    elif dialled.mode == "allow":
        reason = "mode allow: a worker's certificate may run code on the scheduler"
        yield note(address, reason, "--worker-clients limited, unless tasks have to submit work")
    else:
        yield ok(address, f"mode {dialled.mode}: nothing that a worker's certificate sends is unpickled there")


def check_page(host: str, port: int, page: Page) -> Finding:
    """The dashboard shows addresses, call stacks and a proxy to whoever reaches it."""
    subject = f"{host}:{port}"
    if page.status is None:
        return ok(subject, "no dashboard answers here")
    if page.loopback:
        return note(subject, f"a dashboard answers on this machine's loopback ({page.status}); from outside, ask there")
    return error(
        subject,
        f"the dashboard answers without login or TLS ({page.status})",
        "bind it to loopback: daskpki-entrypoint scheduler does; and close the port in the firewall",
    )
