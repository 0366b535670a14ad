"""What a cluster's resources on Google Cloud are called, and how they are marked as daskpki's.

Service accounts, firewall rules, addresses, templates and groups carry the mark as their description, VMs as labels. A
name alone proves nothing: what bears one of our names without our mark is somebody else's.
"""

from __future__ import annotations

import hashlib
from typing import Final

_MAX_ACCOUNT: Final = 30  # IAM: 6 to 30 characters
_MAX_NAME: Final = 63  # RFC 1035, as Compute Engine asks
_DIGEST: Final = 8


def mark(cluster: str) -> str:
    """The description that makes a resource ours."""
    return f"managed-by=daskpki daskpki-cluster={cluster}"


def labels(cluster: str) -> dict[str, str]:
    """The labels that make a VM ours."""
    return {"managed-by": "daskpki", "daskpki-cluster": cluster}


def resource_name(cluster: str, part: str) -> str:
    """`daskpki-CLUSTER-PART`; a long one is cut and made unambiguous by a digest."""
    return _fit(f"daskpki-{cluster}-{part}", _MAX_NAME)


def account_id(cluster: str, part: str) -> str:
    """The part of a service account's address before the `@`."""
    return _fit(f"daskpki-{cluster}-{part}", _MAX_ACCOUNT)


def account_email(project: str, account: str) -> str:
    """A service account's address; a project of a domain, `example.com:p`, is turned round."""
    domain, _, name = project.rpartition(":")
    return f"{account}@{name}.{domain + '.' if domain else ''}iam.gserviceaccount.com"


def internal_host(project: str, zone: str, name: str) -> str:
    """The VM's zonal DNS name, which resolves inside its network and is known before the VM is."""
    domain, _, rest = project.rpartition(":")
    return f"{name}.{zone}.c.{rest}{'.' + domain if domain else ''}.internal"


def _fit(name: str, limit: int) -> str:
    if len(name) <= limit:
        return name
    return f"{name[: limit - _DIGEST - 1].rstrip('-')}-{digest(name)}"


def digest(text: str) -> str:
    """Eight hexadecimal digits that tell one content from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
