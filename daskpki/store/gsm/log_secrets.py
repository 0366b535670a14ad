"""What the log asks of the secrets that it lies in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from daskpki.store.gsm.placement import GsmOptions
from daskpki.store.port import SecretInfo, SecretStore


class LogSecrets(SecretStore, Protocol):
    """What the log asks of `GsmSecrets` beyond the port."""

    def create(
        self,
        secret: str,
        *,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        options: GsmOptions | None = None,
    ) -> SecretInfo:
        """Make a secret at a place that is given, rather than looked up in this log."""
        ...

    def vouch(self, secret: str) -> None:
        """Take a secret for ours, because its payload proved to be."""
        ...

    def impatient(self) -> SecretStore:
        """The same secrets, but `add` does not wait for quota."""
        ...
