"""Who may read which secret: the judgements of `daskpki grant --check`, as findings. Pure.

What is too wide for others is an error; that you read it yourself is a warning, since the owner of a project reads all
that is in it. What is too narrow is a warning, since a grant from above, which is not seen here, may make up for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from daskpki import grants
from daskpki.doctor.finding import Finding, Severity, note, ok
from daskpki.grants import UNSEEN
from daskpki.settings import GsmUrl

_SEVERITY: Final = {
    grants.TOO_WIDE: Severity.ERROR,
    grants.TOO_NARROW: Severity.WARNING,
    grants.UNCLEAR: Severity.NOTE,
}


def check_access(judged: Iterable[grants.Finding], url: GsmUrl) -> Iterator[Finding]:
    """The findings about a cluster's policies, and what could not be seen."""
    found = [_finding(each) for each in judged]
    yield from found or [ok("grants", "each credential is read by one, and no CA key by a node")]
    yield note("grants", f"not seen: {UNSEEN}", f"gcloud projects get-ancestors-iam-policy {url.project}")


def _finding(judged: grants.Finding) -> Finding:
    whom = f"{judged.member}: " if judged.member else ""
    severity = _SEVERITY[judged.severity] if judged.member else Severity.WARNING
    return Finding(
        severity, judged.secret, f"{judged.severity}: {whom}{judged.reason}", judged.mend, topic=judged.severity
    )
