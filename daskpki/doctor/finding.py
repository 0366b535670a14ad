"""A finding: how bad it is, what it is about, why, and the command that mends it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError

MOST_OF_A_TOPIC: Final = 5


class Severity(StrEnum):
    """From what is as it should be to what is broken or unsafe now."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One answer. `remedy` is a command or a sentence, None where nothing is to do; `temporary` errors may pass.

    `topic` is what many findings of one kind have in common, for those who want the gist.
    """

    severity: Severity
    subject: str
    reason: str
    remedy: str | None = None
    temporary: bool = False
    topic: str | None = None

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "severity": self.severity.value,
            "subject": self.subject,
            "reason": self.reason,
            "remedy": self.remedy,
        }


def ok(subject: str, reason: str) -> Finding:
    """It is as it should be."""
    return Finding(Severity.OK, subject, reason)


def note(subject: str, reason: str, remedy: str | None = None, *, topic: str | None = None) -> Finding:
    """Worth knowing: a choice, or something that could not be seen."""
    return Finding(Severity.NOTE, subject, reason, remedy, topic=topic)


def warning(subject: str, reason: str, remedy: str | None = None, *, topic: str | None = None) -> Finding:
    """It works, and will not for long, or is weaker than it should be."""
    return Finding(Severity.WARNING, subject, reason, remedy, topic=topic)


def error(subject: str, reason: str, remedy: str | None = None, *, topic: str | None = None) -> Finding:
    """It is broken or unsafe now."""
    return Finding(Severity.ERROR, subject, reason, remedy, topic=topic)


def of_error(subject: str, failure: DaskpkiError) -> Finding:
    """What a failure to look means: daskpki's errors name cause and way out themselves."""
    temporary = isinstance(failure, UnavailableError)
    return Finding(Severity.ERROR, subject, str(failure), failure.hint, temporary)


def gist(findings: Sequence[Finding], most: int = MOST_OF_A_TOPIC) -> list[Finding]:
    """The findings with no more than `most` of a topic and severity; the last of them says how many more there are."""
    total = Counter((finding.topic, finding.severity) for finding in findings)
    seen: Counter[tuple[str | None, Severity]] = Counter()
    shown = []
    for finding in findings:
        kind = (finding.topic, finding.severity)
        seen[kind] += 1
        if finding.topic is None or total[kind] <= most or seen[kind] < most:
            shown.append(finding)
        elif seen[kind] == most:
            rest = f"{total[kind] - most + 1} more of the same kind; --json lists them"
            shown.append(finding._replace(subject=finding.topic, reason=rest, remedy=None))
    return shown


def exit_code(findings: Iterable[Finding]) -> int:
    """0 while nothing is worse than a warning, 75 when all errors are temporary ones, 3 otherwise."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return 0
    return UnavailableError.exit_code if all(each.temporary for each in errors) else NotTrustedError.exit_code
