"""Who may reach what: the scheduler's address, and firewall rules that name service accounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daskpki.deploy.names import mark
from daskpki.deploy.resource import NO_FILES, Command, Lasting, gcloud


@dataclass(frozen=True)
class Address(Lasting):
    """The scheduler's address outside, which stays when its VM is replaced."""

    project: str
    cluster: str
    name: str
    region: str

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "address", f"{self.region}/{self.name}"

    @property
    def title(self) -> str:
        """See Resource."""
        return f"static address {self.name} in {self.region}"

    @property
    def create(self) -> Sequence[Command]:
        """See Resource."""
        described = f"--description={mark(self.cluster)}"
        return (
            gcloud(self.project, "compute", "addresses", "create", self.name, f"--region={self.region}", described),
        )

    @property
    def delete(self) -> Sequence[Command]:
        """See Resource."""
        return (gcloud(self.project, "compute", "addresses", "delete", self.name, f"--region={self.region}"),)


@dataclass(frozen=True)
class Firewall:
    """An ingress rule. `rules` is as gcloud takes it, such as `tcp:8786`; a lower `priority` decides first."""

    project: str
    cluster: str
    name: str
    network: str
    action: str
    rules: str
    priority: int
    targets: tuple[str, ...]
    source_ranges: tuple[str, ...] = ()
    source_accounts: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "firewall rule", self.name

    @property
    def title(self) -> str:
        """See Resource."""
        sources = ", ".join((*self.source_ranges, *self.source_accounts))
        verb = "lets" if self.action == "ALLOW" else "keeps"
        way = "reach" if self.action == "ALLOW" else "from"
        return f"firewall rule {self.name}: {verb} {sources} {way} {self.rules}"

    @property
    def facts(self) -> Mapping[str, str]:
        """See Resource."""
        return {
            "network": self.network,
            "action": self.action,
            "rules": self.rules,
            "priority": str(self.priority),
            "targets": ",".join(sorted(self.targets)),
            "source ranges": ",".join(sorted(self.source_ranges)),
            "source accounts": ",".join(sorted(self.source_accounts)),
        }

    @property
    def files(self) -> Mapping[str, str]:
        """See Resource."""
        return NO_FILES

    @property
    def create(self) -> Sequence[Command]:
        """See Resource."""
        fixed = (
            f"--network={self.network}",
            "--direction=INGRESS",
            f"--action={self.action}",
            f"--description={mark(self.cluster)}",
        )
        return (self._rule("create", *fixed, *self._changeable()),)

    def update(self, former: Mapping[str, str]) -> Sequence[Command]:
        """See Resource; network and action cannot be changed, so such a rule is made anew."""
        if any(former.get(fact) != self.facts[fact] for fact in ("network", "action")):
            return (*self.delete, *self.create)
        return (self._rule("update", *self._changeable()),)

    @property
    def delete(self) -> Sequence[Command]:
        """See Resource."""
        return (self._rule("delete"),)

    def _rule(self, verb: str, *options: str) -> Command:
        return gcloud(self.project, "compute", "firewall-rules", verb, self.name, *options)

    def _changeable(self) -> Command:
        named = {"--source-ranges": self.source_ranges, "--source-service-accounts": self.source_accounts}
        return (
            f"--rules={self.rules}",
            f"--priority={self.priority}",
            f"--target-service-accounts={','.join(self.targets)}",
            *(f"{option}={','.join(sources)}" for option, sources in named.items() if sources),
        )
