"""Where a rollover stands as one document, as `daskpki rotate-ca --json` prints it after every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daskpki.authority.standing import RETIRING, STARTED

if TYPE_CHECKING:
    from daskpki.authority import CertificateAuthority
    from daskpki.authority.standing import Standing
    from daskpki.inventory import AuthorityRecord


def rollover_document(authority: CertificateAuthority) -> dict[str, Any]:
    """Where it stands, its CAs oldest first, and the next step if there is one."""
    now = authority.rollover().standing()
    return {
        "phase": now.phase,
        "issuing": now.active.generation,
        "published": now.published,
        "authorities": [_authority(authority, entry) for entry in sorted(now.living)],
        "toReissue": [f"{entry.role}/{entry.name}" for entry in now.reissue],
        "heldByOthers": [f"{entry.role}/{entry.name}" for entry in now.held],
        "next": _next_step(now),
    }


def _authority(authority: CertificateAuthority, entry: AuthorityRecord) -> dict[str, Any]:
    from daskpki.authority.policy import STATES, anchor_der
    from daskpki.pki.certificates import load_certificate
    from daskpki.pki.pem import fingerprint

    anchor = anchor_der(entry)
    moment = authority.session.now().timestamp()
    leaves = authority.inventory().certificates()
    return {
        "generation": entry.generation,
        "state": STATES[entry.status],
        "fingerprint": fingerprint(anchor),
        "notAfter": load_certificate(anchor).not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "key": entry.key_uri,
        "certificates": sum(leaf.issuer == entry.generation and leaf.state(moment) == "issued" for leaf in leaves),
    }


def _next_step(now: Standing) -> str | None:
    if not now.published:
        step = {STARTED: "rotate-ca start", RETIRING: f"rotate-ca {now.last_step}"}.get(now.phase, "renew --due")
        return f"daskpki {step}, which publishes what a command that was cut off had begun"
    if not now.others:
        return "daskpki renew --due, since nobody trusts what a dropped CA issued" if now.reissue else None
    if now.phase == STARTED:
        return "wait until nodes have read it (within a minute), then daskpki rotate-ca promote"
    if now.reissue:
        return f"daskpki rotate-ca {now.last_step}"
    return (
        "wait until nodes have their new certificates (within some minutes) and people ran daskpki login, "
        "then daskpki rotate-ca finish"
    )
