"""Whether another CA could issue what is valid, asked before it takes over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from daskpki.authority.policy import anchor_der, chain_der, recorded_policy
from daskpki.authority.renewal import request_for
from daskpki.errors import PolicyError, UsageError
from daskpki.inventory import FROM_REQUEST, AuthorityRecord, CertificateRecord
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.profile import check_request, leaf_lifetime


def check_issuable(
    entries: Iterable[CertificateRecord], target: AuthorityRecord, now: datetime, ends: Mapping[int, int]
) -> None:
    """Raise PolicyError for the first leaf that `target` could not issue anew; those by request are their holders'.

    `ends` are those of `renewal.issuing_ends`.
    """
    policy = recorded_policy(target)
    issuer = lifetime(load_certificate((chain_der(target) or (anchor_der(target),))[0]))
    for entry in entries:
        if entry.key_type == FROM_REQUEST:
            continue
        request = request_for(entry, policy.trust_domain, ends[entry.issuer])
        try:
            check_request(request, policy)
            leaf_lifetime(request, policy, issuer, int(now.timestamp()))
        except (PolicyError, UsageError) as error:
            slug = f"{entry.role}/{entry.name}"
            raise PolicyError(
                f"CA {target.generation} could not issue {slug} anew, so nothing was changed: {error}",
                hint=f"once nobody needs it any more: daskpki revoke {slug} --reason superseded; then run this again",
            ) from error
